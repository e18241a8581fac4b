/* Theme, figures, tabs, filter, copy. State lives in the address after "#" (theme=dark&q=mla), so a link shows the same. */
(function () {
  "use strict";
  var root = document.documentElement, packed = {};
  window.whalebench = { packed: packed, ready: new Promise(function (resolve) {
    document.addEventListener("DOMContentLoaded", function () { resolve(unfold()); });
  }) };
  var DARK = {
    "#1d1d1f": "#e9e7e2", "#009e73": "#3fc79b", "#d55e00": "#f28b45", "#0072b2": "#58abe3",
    "#e69f00": "#f0b840", "#cc79a7": "#dd9cc0", "#56b4e9": "#7cc9f3", "#7a7a7a": "#a8a8a8"
  };

  /* What reports/packing.py folded: base64 of deflated text, a page's behind the preset of its run. */
  function bytes(text) {
    var raw = atob(text), found = new Uint8Array(raw.length);
    for (var i = 0; i < raw.length; i += 1) { found[i] = raw.charCodeAt(i); }
    return found;
  }
  function inflated(parts, skip) {
    var stream = new Blob(parts.map(function (part) { return bytes(part.data); })).stream();
    return new Response(stream.pipeThrough(new DecompressionStream("deflate-raw"))).arrayBuffer().then(function (found) {
      return new TextDecoder().decode(new Uint8Array(found, skip));
    });
  }
  function unfold() {
    if (!window.DecompressionStream) { return null; }
    var page = packed.page && inflated([packed.preset, packed.page], packed.preset.skip).then(function (text) {
      var parts = text.split("\0");  /* markup, then the data of each figure */
      document.body.innerHTML = parts[0];
      document.querySelectorAll("script[type='application/json']").forEach(function (island, i) {
        island.textContent = parts[i + 1];
      });
      var target = document.getElementById(location.hash.slice(1));
      if (target) { target.scrollIntoView(); }
    });
    var plotly = packed.plotly && inflated([packed.plotly], 0).then(function (text) {
      var script = document.createElement("script");
      script.textContent = text;
      document.head.appendChild(script);
    });
    return Promise.all([page, plotly]);
  }
  function state() {
    var text = location.hash.slice(1);
    return new URLSearchParams(text.indexOf("=") >= 0 ? text : "");
  }
  function remember(key, value) {
    var now = state();
    if (value) { now.set(key, value); } else { now.delete(key); }
    var text = now.toString();
    try { history.replaceState(null, "", text ? "#" + text : location.pathname.split("/").pop() + location.search); } catch (e) { /* sandboxed */ }
  }
  function stored(value) {
    try {
      if (value) { localStorage.setItem("whalebench-theme", value); }
      return localStorage.getItem("whalebench-theme");
    } catch (e) { return null; }
  }
  function dark() {
    var chosen = root.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }
  var wanted = state().get("theme") || stored();
  if (wanted === "dark" || wanted === "light") { root.dataset.theme = wanted; }

  function style() {
    var css = getComputedStyle(root), pick = function (name) { return css.getPropertyValue(name).trim(); };
    return { ink: pick("--ink"), soft: pick("--soft"), rule: pick("--rule"), card: pick("--card"), sans: pick("--sans") };
  }
  function axis(own, s) {
    var title = Object.assign({ font: { size: 12, color: s.soft }, standoff: 10 }, own.title || {});
    return Object.assign({
      gridcolor: s.rule, linecolor: s.rule, zerolinecolor: s.rule, tickcolor: s.rule, automargin: true,
      tickfont: { size: 11, color: s.soft }, fixedrange: matchMedia("(pointer: coarse)").matches
    }, own, { title: title });
  }
  function themed(spec, narrow) {
    var text = JSON.stringify(spec);
    if (dark()) { Object.keys(DARK).forEach(function (hue) { text = text.split(hue).join(DARK[hue]); }); }
    var figure = JSON.parse(text), s = style(), own = figure.layout;
    var legend = Object.assign({ orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", font: { size: narrow ? 10.5 : 12 }, bgcolor: "rgba(0,0,0,0)" }, own.legend || {});
    figure.layout = Object.assign({
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true,
      font: { family: s.sans, size: 12, color: s.ink },
      margin: { l: narrow ? 44 : 64, r: narrow ? 12 : 28, t: 20, b: 48 },
      legend: legend,
      hoverlabel: { bgcolor: s.card, bordercolor: s.rule, font: { family: s.sans, size: 12, color: s.ink } },
      dragmode: false, barcornerradius: 3
    }, own, { xaxis: axis(own.xaxis || {}, s), yaxis: axis(own.yaxis || {}, s), legend: legend });
    Object.keys(own).filter(function (name) { return /^[xy]axis\d+$/.test(name); }).forEach(function (name) {
      figure.layout[name] = axis(own[name], s);
    });
    (figure.layout.annotations || []).forEach(function (note) {
      note.font = { size: 11, color: s.soft };
      note.arrowcolor = s.soft;
      note.bgcolor = s.card;  /* a word above points stays readable */
      note.opacity = 0.9;
    });
    var across = figure.layout.xaxis;
    if (narrow && across.ticktext && across.ticktext.length > 5 && across.tickangle === 0) { across.tickangle = -45; }
    return figure;
  }
  function draw(box) {
    if (!window.Plotly) { box.textContent = "This browser cannot draw this figure; its numbers stand below."; return; }
    if (box.closest("[hidden]")) { return; }
    var figure = themed(box.spec, box.clientWidth < 560);
    Plotly.react(box.target, figure.data, figure.layout, {
      responsive: true, displaylogo: false, displayModeBar: false, doubleClick: "reset", scrollZoom: false
    });
  }
  function figures() { document.querySelectorAll(".plot").forEach(draw); }

  /* Samples come as whole steps off their median, a number of rounds after the one before: here they get their round,
     their place in a lane, and their nanoseconds as words. */
  function laned(spec) {
    var lanes = (spec.layout.meta || {}).lanes;
    spec.data.forEach(function (trace, lane) {
      if (!lanes) { return; }
      var round = 0;
      trace.x = trace.x.map(function (step) { round += step; return round; });
      var off = trace.y.map(function (steps) { return steps * lanes.step; });
      trace.customdata = off.map(function (value) { return (1 + value).toFixed(4); });
      trace.text = off.map(function (value) { return Number(((1 + value) * lanes.medians[lane]).toPrecision(5)); });
      trace.y = off.map(function (value) {
        return lane + Math.max(-1, Math.min(1, value / lanes.half)) * lanes.reach;
      });
    });
    return spec;
  }
  function prepareFigures() {
    document.querySelectorAll(".plot").forEach(function (box) {
      box.spec = laned(JSON.parse(box.querySelector("script").textContent));
      box.target = document.createElement("div");
      box.appendChild(box.target);
    });
  }
  function prepareTabs() {
    document.querySelectorAll(".tabs").forEach(function (box) {
      var panels = Array.prototype.filter.call(box.children, function (c) { return c.classList.contains("panel"); });
      var list = document.createElement("div"), key = "tab-" + box.dataset.name;
      list.className = "tablist";
      list.setAttribute("role", "tablist");
      var buttons = panels.map(function (panel, index) {
        var button = document.createElement("button");
        button.type = "button";
        button.textContent = panel.dataset.label;
        button.setAttribute("role", "tab");
        panel.setAttribute("role", "tabpanel");
        panel.setAttribute("aria-label", panel.dataset.label);
        button.addEventListener("click", function () { show(index); remember(key, index ? String(index) : ""); });
        button.addEventListener("keydown", function (event) {
          var step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
          if (step) { show((index + step + panels.length) % panels.length, true); }
        });
        list.appendChild(button);
        return button;
      });
      function show(chosen, focus) {
        panels.forEach(function (panel, index) {
          panel.hidden = index !== chosen;
          buttons[index].setAttribute("aria-selected", String(index === chosen));
          buttons[index].tabIndex = index === chosen ? 0 : -1;
        });
        if (focus) { buttons[chosen].focus(); }
        panels[chosen].querySelectorAll(".plot").forEach(draw);
      }
      box.prepend(list);
      show(Math.min(Number(state().get(key)) || 0, panels.length - 1));
    });
  }
  /* A group of buttons of which one may be pressed; the choice is the group's `value`. */
  function prepareFacet(facet, apply) {
    var buttons = Array.prototype.slice.call(facet.querySelectorAll("button")), name = facet.dataset.name;
    function choose(value) {
      facet.value = value;
      buttons.forEach(function (button) { button.setAttribute("aria-pressed", String(button.value === value)); });
    }
    buttons.forEach(function (button) {
      button.addEventListener("click", function () {
        choose(facet.value === button.value ? "" : button.value);
        apply();
        remember(name, facet.value);
      });
    });
    choose(state().get(name) || "");
  }
  function fits(facet, values) { return !facet.value || values[facet.dataset.name] === facet.value; }
  /* Series that carry a facet's value follow it; a figure of which nothing is left is hidden. */
  function sift(section, facets) {
    if (!facets.length) { return; }
    section.querySelectorAll(".plot").forEach(function (box) {
      var bound = box.spec.data.filter(function (trace) { return trace.meta; });
      bound.forEach(function (trace) {
        trace.visible = facets.every(function (facet) { return fits(facet, trace.meta); });
      });
      if (!bound.length) { return; }
      var shown = bound.filter(function (trace) { return trace.visible; });
      box.closest("figure").hidden = !shown.length;
      shorten(box, shown);
    });
  }
  /* A figure with a row a name keeps the rows of the series that are left, and their height. */
  function shorten(box, shown) {
    var layout = box.spec.layout, axis = layout.yaxis || {};
    if (!axis.categoryarray) { return; }
    box.rows = box.rows || { names: axis.categoryarray, height: layout.height, row: layout.height / (axis.categoryarray.length + 5) };
    axis.categoryarray = box.rows.names.filter(function (name) {
      return shown.some(function (trace) { return trace.y.indexOf(name) >= 0; });
    });
    axis.range = [-0.7, axis.categoryarray.length - 0.3];
    layout.height = box.rows.height - box.rows.row * (box.rows.names.length - axis.categoryarray.length);
    box.style.minHeight = layout.height + "px";
  }
  function prepareFilter() {
    document.querySelectorAll(".filter").forEach(function (input) {
      var section = input.closest("section"), told = section.querySelector(".filtered");
      var list = function (query) { return Array.prototype.slice.call(section.querySelectorAll(query)); };
      var rows = list("table.filterable tbody tr, div.filterable > *"), facets = list(".facet");
      var folded = list("details").filter(function (box) { return box.querySelector("table.filterable"); });
      function apply() {
        var words = input.value.toLowerCase().split(/\s+/).filter(Boolean), hidden = 0, group = null, any = false;
        rows.forEach(function (row) {
          if (row.classList.contains("group")) {
            if (group) { group.hidden = !any; }
            group = row; any = false;
            return;
          }
          var text = ((row.dataset.case || "") + " " + row.textContent).toLowerCase();
          row.hidden = !words.every(function (word) { return text.indexOf(word) >= 0; }) ||
            !facets.every(function (facet) { return fits(facet, row.dataset); });
          if (row.hidden) { hidden += 1; } else { any = true; }
        });
        if (group) { group.hidden = !any; }
        folded.forEach(function (box) { box.hidden = !box.querySelector("tbody tr:not([hidden])"); });
        sift(section, facets);
        told.textContent = hidden ? hidden + " " + (told.dataset.what || "rows") + " hidden" : "";
      }
      facets.forEach(function (facet) { prepareFacet(facet, function () { apply(); figures(); }); });
      input.value = state().get("q") || "";
      input.addEventListener("input", function () { apply(); remember("q", input.value); });
      apply();
    });
  }
  function prepareButtons() {
    document.querySelectorAll(".theme").forEach(function (button) {
      button.addEventListener("click", function () {
        root.dataset.theme = dark() ? "light" : "dark";
        stored(root.dataset.theme);
        if (state().get("theme")) { remember("theme", root.dataset.theme); }
        figures();
      });
    });
    document.querySelectorAll(".runnable > code").forEach(function (command) {
      var button = document.createElement("button");
      button.type = "button";
      button.className = "copy";
      button.textContent = "Copy";
      command.after(" ", button);
    });
    document.querySelectorAll(".copy").forEach(function (button) {
      button.addEventListener("click", function () {
        var code = button.parentElement.querySelector("code"), range = document.createRange(), selection = getSelection();
        range.selectNodeContents(code);
        selection.removeAllRanges();
        selection.addRange(range);
        var done = false;
        try { done = document.execCommand("copy"); } catch (e) { /* the selection stays for the user's own copy */ }
        if (!done && navigator.clipboard) { navigator.clipboard.writeText(code.textContent); done = true; }
        button.textContent = done ? "Copied" : "Selected";
        setTimeout(function () { button.textContent = "Copy"; }, 1500);
      });
    });
    document.querySelectorAll(".runs").forEach(function (list) {
      list.addEventListener("change", function () { if (list.value) { location.href = list.value + location.hash; } });
    });
  }
  window.whalebench.ready.then(function () {
    prepareFigures();
    prepareTabs();
    prepareFilter();
    prepareButtons();
    figures();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", figures);
    window.addEventListener("beforeprint", function () {
      document.querySelectorAll(".panel[hidden]").forEach(function (panel) { panel.hidden = false; });
      figures();
    });
    root.dataset.ready = "yes";
  });
})();
