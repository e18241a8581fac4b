"""Bytes of KV cache a token, counted from the sizes and measured from the state; what then fits in memory."""

from __future__ import annotations

import html
from dataclasses import dataclass

from harness.record import Record
from harness.units import MISSING, digits, length, listed, show, some, whole

from ..figure import MAX_SERIES, Plot, Trace, length_axis, line, log_axis, marks, named_axis, rounded
from ..markup import Html
from ..palette import Look
from ..table import number, row, table
from ..view import View, mapping, plain
from .sweep import sweeps

CONTEXTS = [2.0**n for n in range(10, 21)]


@dataclass(frozen=True)
class CacheRow:
    """Bytes of one token in one layer's cache for a technique of a model; `measured` from the state, None without."""

    model: str
    dtype: str
    technique: str
    form: str
    layers: float | None
    counted: float | None
    measured: float | None
    case: str

    @property
    def bytes(self) -> float | None:
        """Counted where known, measured otherwise."""
        return self.counted if self.counted is not None else self.measured

    @property
    def name(self) -> str:
        """Technique, with the cache's format when it is not the layer's own."""
        return self.technique if self.form == "native" else f"{self.technique}, {self.form}"


def cache_rows(view: View) -> list[CacheRow]:
    """One row a model, technique and cache format, largest first within a model."""
    found: dict[tuple[str, str, str], list[Record]] = {}
    for case in view.of("attention"):
        for record in case.records:
            if record.value("kv_bytes_per_token") is not None or measured_bytes(record) is not None:
                form = str(mapping(record.shape).get("cache") or "native")
                found.setdefault((record.model, record.technique, form), []).append(record)
    rows = [cache_row(*key, records) for key, records in found.items()]
    models = list(dict.fromkeys([*headline(view), *(row.model for row in rows)]))
    return sorted(rows, key=lambda row: (models.index(row.model), -(row.bytes or 0)))


def headline(view: View) -> list[str]:
    """The models of decode sweeps, that of the page's answer first."""
    return [s.model for operation in ("attention.decode", "attention.decode_kernel") for s in sweeps(view, operation)]


def cache_row(model: str, technique: str, form: str, records: list[Record]) -> CacheRow:
    """The row of records that share a model, technique and format; measured at the longest cache, least padding."""
    counted = next((v for r in records if (v := r.value("kv_bytes_per_token")) is not None), None)
    sized = [(r, v) for r in records if (v := measured_bytes(r)) is not None]
    sized.sort(key=lambda item: (-(plain(mapping(item[0].shape).get("length")) or 0), item[1]))
    sizes = mapping(mapping(records[0].shape).get("model"))
    layers, dtype = plain(sizes.get("layers")), str(sizes.get("dtype") or "")
    source = sized[0][0] if sized else records[0]
    return CacheRow(model, dtype, technique, form, layers, counted, sized[0][1] if sized else None, source.case)


def measured_bytes(record: Record) -> float | None:
    """State over the slots it holds; None for ragged lengths, whose slots the record does not tell."""
    shape, state = mapping(record.shape), record.value("state")
    sizes = [plain(shape.get(name)) for name in ("batch", "length", "new_tokens")]
    batch, cached, new = sizes
    if not state or batch is None or cached is None or new is None or shape.get("ragged"):
        return None
    return state / (batch * (cached + new)) if record.operation == "attention.decode" else None


def cache_plot(view: View, rows: list[CacheRow]) -> Plot:
    """Bars of counted bytes with the measured ones as marks, for the model of the first row; the table has all."""
    sized = [r for r in rows if r.bytes is not None]
    shown = [r for r in sized if r.model == sized[0].model]
    names = [r.name for r in shown]
    counted = [(n, r, r.counted) for n, r in zip(names, shown, strict=True) if r.counted is not None]
    measured = [(n, r.measured) for n, r in zip(names, shown, strict=True) if r.measured is not None]
    bars: Trace = {
        "type": "bar",
        "orientation": "h",
        "name": "counted",
        "y": [html.escape(n) for n, _, _ in counted],
        "x": [rounded(v) for _, _, v in counted],
        "width": 0.6,
        "marker": {"color": [view.palette.hue("attention", r.technique) for _, r, _ in counted]},
        "text": [f"{whole(v)} B" for _, _, v in counted],
        "textposition": "outside",
        "cliponaxis": False,
        "hovertemplate": "%{y}: %{text} counted<extra></extra>",
    }
    words = [f"{n}: {whole(v)} B measured" for n, v in measured]
    strokes = marks("measured", [v for _, v in measured], [n for n, _ in measured], words, size=26)
    more = f" In the table: {some(len(sized) - len(shown), 'more row')}." if len(sized) > len(shown) else ""
    most = max(r.bytes or 0 for r in shown)
    layout = {
        "xaxis": {"title": {"text": "Bytes a token, one layer"}, "range": [0, 1.3 * most], "rangemode": "tozero"},
        "yaxis": named_axis(names),
        "hovermode": "closest",
    }
    return Plot(
        "kv-bytes",
        f"Bytes of KV cache a token ({shown[0].model})",
        agreement(rows),
        [bars, strokes] if measured else [bars],
        layout,
        cache_table(rows),
        note="Counted from the sizes; measured is the state an implementation holds over "
        "batch times (length + new tokens), so padding and page tables are in it. Ragged cases are not measured."
        + more,
        height=130 + 38 * len(shown),
    )


def cache_table(rows: list[CacheRow]) -> Html:
    """Bytes of one layer, counted and measured, and of the whole model."""
    body = []
    for r in rows:
        bytes_ = [number(f"{whole(v)} B" if v is not None else MISSING) for v in (r.counted, r.measured)]
        model = [whole(r.layers) if r.layers else MISSING]
        model.append(show(r.bytes * r.layers, "bytes") if r.bytes and r.layers else MISSING)
        body.append(row([r.model, r.name, *bytes_, *(number(text) for text in model)]))
    return table(["Model", "Technique", ">Counted, one layer", ">Measured, one layer", ">Layers", ">All layers"], body)


def agreement(rows: list[CacheRow]) -> str:
    """How far what implementations hold is from what the sizes say."""
    excess = [(r.measured / r.counted - 1, r) for r in rows if r.counted and r.measured]
    if not excess:
        return "Counted from the sizes; no record has a state to measure."
    most, item = max(excess, key=lambda pair: abs(pair[0]))
    if abs(most) < 0.005:
        return "What the implementations hold is what the sizes say, to half a per cent."
    side = "above" if most > 0 else "below"
    where = f"{item.model} {item.name}"
    return f"What the implementations hold is at most {show(abs(most), 'share')} {side} the count ({where})."


def saving(rows: list[CacheRow]) -> str:
    """MLA against MHA in bytes, for the first model that has both."""
    for model in dict.fromkeys(r.model for r in rows):
        found = {r.technique: r for r in rows if r.model == model and r.form == "native" and r.bytes}
        latent, base = found.get("mla"), found.get("mha")
        if latent and base and latent.bytes and base.bytes:
            sizes = f"{model} in {latent.dtype}" if latent.dtype else model
            start = f"A layer of {sizes} caches {whole(latent.bytes)} bytes a token with MLA"
            return f"{start} and {whole(base.bytes)} with MHA: {digits(base.bytes / latent.bytes)} times less."
    return "MLA and MHA were not both recorded for one model, so there is no saving to state."


def capacity_plot(view: View, rows: list[CacheRow]) -> Plot | None:
    """Largest batch against context for the model of the first row; None where layers or memory are not recorded."""
    memory = view.memory_bytes
    usable = [r for r in rows if r.bytes and r.layers]
    model = next((r.model for r in usable), None)
    if memory is None or model is None:
        return None
    shown = [r for r in usable if r.model == model][:MAX_SERIES]
    traces, body = [], []
    for item in shown:
        batches = [capacity(item, memory) / context for context in CONTEXTS]
        kept = [(c, b) for c, b in zip(CONTEXTS, batches, strict=True) if b >= 1]
        look = Look(
            view.palette.hue("attention", item.technique), "solid" if item.form == "native" else "dot", "circle", 1.0
        )
        words = [f"{item.name}: {whole(int(b))} sequences of {length(c)} tokens" for c, b in kept]
        trace = line(item.name, [c for c, _ in kept], [float(int(b)) for _, b in kept], look, words)
        traces.append(trace | {"mode": "lines"})
        body.append(
            row(
                [
                    item.name,
                    number(show(capacity(item, memory), "count") + " tokens"),
                    *(number(whole(int(b)) if b >= 1 else "none") for b in batches[2::2]),
                ]
            )
        )
    drawn = [y for trace in traces for y in trace["y"]]
    layout = {
        "xaxis": length_axis(CONTEXTS, "Context, tokens a sequence"),
        "yaxis": log_axis("Largest batch", drawn, "count"),
        "hovermode": "closest",
    }
    heads = ["Technique", ">Tokens in all", *(f">{length(c)}" for c in CONTEXTS[2::2])]
    device = "one GPU" if view.on_gpu else "this machine"
    layers = whole(shown[0].layers or 0)
    return Plot(
        "capacity",
        f"What fits in {show(memory, 'bytes')}: batch against context ({model})",
        fitting(shown, memory, device),
        traces,
        layout,
        table(heads, body),
        note=f"Computed, not measured: memory of {device} over the cache of all {layers} layers. Weights "
        "and activations are not subtracted, so real limits are lower for every technique.",
    )


def capacity(item: CacheRow, memory: float) -> float:
    """Tokens whose cache fits in `memory` bytes, all layers."""
    return memory / ((item.bytes or 1.0) * (item.layers or 1.0))


def fitting(shown: list[CacheRow], memory: float, device: str) -> str:
    """The largest context of one sequence for MLA and MHA."""
    parts = []
    for item in shown:
        if item.technique in ("mla", "mha"):
            form = "" if item.form == "native" else f" in {item.form}"
            parts.append(f"{whole(int(capacity(item, memory)))} tokens with {item.technique.upper()}{form}")
    if not parts:
        return "Computed from the cache alone."
    return f"By the cache alone {device} holds {listed(parts)} (computed)."
