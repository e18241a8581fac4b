/* Data of a figure as a file: what is drawn, a line a point, built from the figure's own specification when asked for. */
(function () {
  "use strict";
  function quoted(value) {
    var text = value === undefined || value === null ? "" : String(value);
    return /[",\n]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text;
  }
  function plain(text) {
    var box = document.createElement("textarea");  /* entities become characters, markup does not become elements */
    box.innerHTML = String(text).replace(/<[^>]*>/g, " ");
    return box.value;
  }
  function title(layout, key) {
    var axis = layout[key] || {};
    return plain(axis.title ? axis.title.text : key.charAt(0));
  }
  function end(trace, key, i, sign) {
    var error = trace["error_" + key], part = error && error[sign < 0 ? "arrayminus" : "array"];
    return part ? trace[key][i] + sign * part[i] : undefined;
  }
  function points(trace, layout) {
    var own = trace.yaxis && trace.yaxis !== "y" ? " (" + title(layout, "yaxis" + trace.yaxis.slice(1)) + ")" : "";
    var name = plain(trace.name || trace.type) + own, rows = [];
    if (trace.z) {
      trace.z.forEach(function (line, j) {
        line.forEach(function (value, i) {
          rows.push([name, plain(trace.x ? trace.x[i] : i), plain(trace.y ? trace.y[j] : j), "", "", value]);
        });
      });
      return rows;
    }
    var count = Math.max((trace.x || []).length, (trace.y || []).length), measured = trace.error_x ? "x" : "y";
    for (var i = 0; i < count; i += 1) {
      rows.push([name].concat(["x", "y"].map(function (key) {
        var value = trace[key] ? trace[key][i] : "";
        return typeof value === "string" ? plain(value) : value;
      }), [end(trace, measured, i, -1), end(trace, measured, i, 1), Array.isArray(trace.text) ? plain(trace.text[i]) : ""]));
    }
    return rows;
  }
  function csv(spec) {
    var last = spec.data.some(function (trace) { return trace.z; }) ? "value" : (spec.layout.meta || {}).words || "words";
    var rows = [["series", title(spec.layout, "xaxis"), title(spec.layout, "yaxis"), "low", "high", last]];
    spec.data.forEach(function (trace) { rows = rows.concat(points(trace, spec.layout)); });
    return rows.map(function (row) { return row.map(quoted).join(","); }).join("\n") + "\n";
  }
  window.whalebench.ready.then(function () {
    document.querySelectorAll("figure").forEach(function (figure) {
      var box = figure.querySelector(".plot"), numbers = figure.querySelector(".numbers");
      if (!box || !numbers) { return; }
      var button = document.createElement("button");
      button.type = "button";
      button.className = "csv";
      button.textContent = "Download what is drawn as CSV";
      button.addEventListener("click", function () {
        var link = document.createElement("a");
        link.href = "data:text/csv;charset=utf-8," + encodeURIComponent(csv(box.spec));
        link.download = figure.id + ".csv";
        link.click();
      });
      numbers.appendChild(button);
    });
  });
})();
