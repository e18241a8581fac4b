"""When does a smaller KV cache become speed? Bytes, crossover, latency, other phases, capacity."""

from __future__ import annotations

from collections.abc import Sequence

from harness.units import interval, length, show

from ..figure import tabs
from ..lines import reached
from ..markup import Child, Html, join, tag
from ..sections import missing, part
from ..study import general_limits
from ..view import View
from .cache import cache_plot, cache_rows, capacity_plot, saving
from .lines import grid, implementations_plot, latency_plot
from .ratios import cases_plot, ratio_plot, singles, summary
from .sweep import Sweep, crossover, sweeps

QUESTION = "When does a smaller KV cache become speed?"
LAYER, KERNEL = "attention.decode", "attention.decode_kernel"
LAYER_TABS, KERNEL_TABS = 2, 1
PARTS = (
    "The layer takes a hidden state and returns one: projections, cache update, attention, output. The inner kernel is "
    "the attention over a filled cache alone."
)
PHASES = (
    "Prefill and training read no earlier cache, so its size saves nothing there. What differs is arithmetic: MLA's "
    "query and key heads are larger, while its projections through latents are smaller than MHA's. The inner kernel "
    "shows the heads alone, the layer both."
)


def answer(view: View) -> str:
    """Bytes, crossover and the ratio at the longest length, in two or three sentences."""
    rows = cache_rows(view)
    parts = [saving(rows)] if rows else []
    found = sweeps(view, LAYER) or sweeps(view, KERNEL)
    if not found or not found[0].ratios:
        return " ".join([*parts, "Decode latencies of MLA and MHA were not both measured in this run."])
    where = "on this GPU" if view.on_gpu else "on this CPU"
    whole = found[0].operation == LAYER
    doing = "Decoding" if whole else "In decode's inner kernel, without the layer's projections,"
    parts.append(f"{doing} {where} ({found[0].title}), {outcome(found[0])}.")
    others = singles(found[1:])
    parts += [summary(others, "layer" if whole else "inner kernel", " other")] if others else []
    return " ".join(parts)


def outcome(sweep: Sweep) -> str:
    """Crossover, and the ratio at the longest length that has both."""
    if not sweep.ratios:
        return "MLA and MHA were not measured together"
    n, last = sweep.ratios[-1]
    takes = " ".join(filter(None, (f"{show(last.value, 'ratio')} MHA's time", interval(last, "ratio"))))
    if len(sweep.ratios) == 1:
        return f"MLA takes {takes} at {length(n)} tokens, the one length measured"
    return f"{crossover([(n, f.value) for n, f in sweep.ratios]).sentence}; at {length(n)} it takes {takes}"


def sections(view: View) -> Html:
    """All evidence, each part saying so when its cases are not in the run."""
    rows = cache_rows(view)
    capacity = capacity_plot(view, rows)
    return join(
        part(
            "bytes",
            "How much smaller is the cache?",
            cache_plot(view, rows).html() if rows else missing("No record tells the bytes of its cache."),
        ),
        part("decode", "Decode: latency against KV length", decode(view)),
        part("crossover", "From which length on is MLA faster?", crossings(view)),
        part("every", "How much does the implementation matter?", implementations(view)),
        part("phases", "Prefill and training beside decode", phases(view)),
        part(
            "fit",
            "How large a batch, how long a context?",
            capacity.html() if capacity else missing("Layers or memory were not recorded, so nothing can be computed."),
        ),
    )


def crossings(view: View) -> Html:
    """The ratio over length for every sweep that has both techniques, then case by case."""
    layer = [s for s in sweeps(view, LAYER) if s.ratios]
    kernel = [s for s in sweeps(view, KERNEL) if s.ratios]
    if not layer and not kernel:
        return missing("MLA and MHA have no decode case in which both were timed.")
    long = [[s for s in found if len(s.ratios) > 1] for found in (layer, kernel)]
    drawn = [*long[0][:5], *long[1][:3]]
    content: list[Child] = [
        ratio_plot(drawn, left_out=len(long[0]) + len(long[1]) - len(drawn)).html()
        if drawn
        else missing("This run has no decode sweep with MLA and MHA at more than one length, so no crossover to state.")
    ]
    if len(layer) + len(kernel) > len(long[0]) + len(long[1]):
        content.append(cases_plot(layer, kernel).html())
    return join(content)


def decode(view: View) -> Html:
    """Best of each technique for the layer and the inner kernel."""
    layer, kernel = sweeps(view, LAYER), sweeps(view, KERNEL)
    if not layer and not kernel:
        return missing("No decode case has a latency in this run.")
    panels: list[tuple[str, Child]] = [
        (f"{word} · {sweep.title}", latency_plot(sweep, f"{word.lower()}-{i}").html())
        for word, found, most in (("Layer", layer, LAYER_TABS), ("Kernel", kernel, KERNEL_TABS))
        for i, sweep in enumerate(found[:most])
    ]
    return join(tag("p", PARTS), tabs("decode", panels))


def implementations(view: View) -> Html:
    """Every implementation over length, and by case."""
    layer, kernel = sweeps(view, LAYER), sweeps(view, KERNEL)
    if not layer and not kernel:
        return missing("No decode case has a latency in this run.")
    first = (layer or kernel)[0]
    return join(
        implementations_plot(first, "implementations").html() if len(first.points) > 1 else None,
        tabs("grid", grids(layer, kernel)),
    )


def grids(layer: Sequence[Sweep], kernel: Sequence[Sweep]) -> list[tuple[str, Child]]:
    """A panel a sweep: every contender by every length."""
    return [
        (f"{word} · {s.title}", grid(s, f"Latencies of {s.operation}, {s.title}"))
        for word, found in (("Layer", layer), ("Kernel", kernel))
        for s in found
    ]


def phases(view: View) -> Html:
    """Prefill and training: latency against sequence length where there is a sweep, and the grids."""
    content: list[Child] = []
    for operation, word in (("attention.prefill", "Prefill"), ("attention.train", "Training step")):
        layer, kernel = sweeps(view, operation), sweeps(view, f"{operation}_kernel")
        if not layer and not kernel:
            content.append(missing(f"{word}: no case has a latency in this run."))
            continue
        name = operation.split(".")[1]
        told = [
            f"{w} ({found[0].title}): {outcome(found[0])}."
            for w, found in (("Layer", layer), ("Inner kernel", kernel))
            if found
        ]
        content.append(tag("h3", word))
        content.append(tag("p", " ".join(told)))
        content.append(latency_plot((layer or kernel)[0], name, word).html())
        content.append(tabs(f"grid-{name}", grids(layer, kernel)))
    return join(tag("p", PHASES), content)


def limits(view: View) -> list[str]:
    """What the page does not show."""
    shares = floor_share(view)
    return [
        "Quality: MHA, GQA, MQA and MLA of equal sizes are different models; how well each learns is not measured.",
        "Equal parameters or FLOPs: heads, head size, hidden size, batch and lengths are held equal, those are not.",
        "What fits in memory is computed from the cache alone.",
        *([shares] if shares else []),
        *general_limits(view),
    ]


def floor_share(view: View) -> str | None:
    """How far the best implementations are from their floor: a gap that better kernels could still change."""
    found = sweeps(view, LAYER)
    if not found:
        return None
    shares = reached(found[0])
    return (
        shares
        and f"The limit of the hardware: {shares} of their floor, and better kernels could move every crossover here."
    )
