"""When does a smaller KV cache become speed? Bytes, crossover, latency, other phases, capacity."""

from __future__ import annotations

from ..figure import tabs
from ..markup import Child, Html, join, tag
from ..study import general_limits
from ..units import digits, interval, length, show
from ..view import View
from .cache import cache_plot, cache_rows, capacity_plot, saving
from .lines import grid, implementations_plot, latency_plot, ratio_plot
from .sweep import Sweep, crossover, sweeps

QUESTION = "When does a smaller KV cache become speed?"
LAYER, KERNEL = "attention.decode", "attention.decode_kernel"
LAYER_TABS, KERNEL_TABS = 2, 1


def answer(view: View) -> str:
    """Bytes, crossover and the ratio at the longest length, in two sentences."""
    rows = cache_rows(view)
    parts = [saving(rows)] if rows else []
    found = sweeps(view, LAYER) or sweeps(view, KERNEL)
    if not found or not found[0].ratios:
        return " ".join([*parts, "Decode latencies of MLA and MHA were not both measured in this run."])
    sweep = found[0]
    where = "" if view.on_gpu else " on this CPU"
    parts.append(f"Decoding{where} ({sweep.title}), {outcome(sweep)}.")
    return " ".join(parts)


def outcome(sweep: Sweep) -> str:
    """Crossover, and the ratio at the longest length that has both."""
    if not sweep.ratios:
        return "MLA and MHA were not measured together"
    found = crossover([(n, figure.value) for n, figure in sweep.ratios])
    n, last = sweep.ratios[-1]
    bounds = interval(last, "ratio")
    return f"{found.sentence}; at {length(n)} it takes {show(last.value, 'ratio')} MHA's time {bounds}".rstrip()


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
        part("crossover", "From which length on is MLA faster?", crossings(view)),
        part("decode", "Decode: latency against KV length", decode(view)),
        part("phases", "Prefill and training beside decode", phases(view)),
        part(
            "capacity",
            "How large a batch, how long a context?",
            capacity.html() if capacity else missing("Layers or memory were not recorded, so nothing can be computed."),
        ),
    )


def part(name: str, title: str, *content: Child) -> Html:
    """A titled section."""
    return tag("section", tag("h2", title), content, id=name)


def missing(sentence: str) -> Html:
    """Why there is no figure."""
    return tag("p", sentence, class_="quiet")


def crossings(view: View) -> Html:
    """The ratio over length for every sweep that has both techniques."""
    layer = [s for s in sweeps(view, LAYER) if s.ratios]
    kernel = [s for s in sweeps(view, KERNEL) if s.ratios]
    if not layer and not kernel:
        return missing("MLA and MHA have no decode case in which both were timed.")
    return ratio_plot(
        [*layer[:5], *kernel[:3]], left_out=len(layer) - len(layer[:5]) + len(kernel) - len(kernel[:3])
    ).html()


def decode(view: View) -> Html:
    """Best of each technique for the layer and the inner kernel, then every implementation."""
    layer, kernel = sweeps(view, LAYER), sweeps(view, KERNEL)
    if not layer and not kernel:
        return missing("No decode case has a latency in this run.")
    panels: list[tuple[str, Child]] = [
        (f"Layer · {sweep.title}", latency_plot(sweep, f"layer-{i}").html())
        for i, sweep in enumerate(layer[:LAYER_TABS])
    ]
    panels += [
        (f"Kernel · {sweep.title}", latency_plot(sweep, f"kernel-{i}").html())
        for i, sweep in enumerate(kernel[:KERNEL_TABS])
    ]
    first = (layer or kernel)[0]
    grids = [(f"{word} · {s.title}", grid(s)) for word, found in (("Layer", layer), ("Kernel", kernel)) for s in found]
    return join(
        tag(
            "p",
            "The layer takes a hidden state and returns one: projections, cache update, attention, output. The inner "
            "kernel is the attention over a filled cache alone.",
        ),
        tabs("decode", panels),
        tag("h3", "Every implementation"),
        implementations_plot(first, "implementations").html(),
        tabs("grid", grids),
    )


def phases(view: View) -> Html:
    """Prefill and training: latency against sequence length where there is a sweep, and the grids."""
    content: list[Child] = []
    for operation, word in (("attention.prefill", "Prefill"), ("attention.train", "Training step")):
        found = sweeps(view, operation)
        kernels = sweeps(view, f"{operation}_kernel")
        if not found and not kernels:
            content.append(missing(f"{word}: no case has a latency in this run."))
            continue
        first = (found or kernels)[0]
        content.append(tag("p", tag("b", f"{word}. "), f"{first.title}: {outcome(first)}."))
        content.append(latency_plot(first, operation.split(".")[1], word).html())
        grids = [(f"{w} · {s.title}", grid(s)) for w, group in (("Layer", found), ("Kernel", kernels)) for s in group]
        content.append(tabs(f"grid-{operation.split('.')[1]}", grids))
    lead = tag(
        "p",
        "Prefill and training read no earlier cache, so its size saves nothing there, and MLA's larger query "
        "and key heads cost arithmetic.",
    )
    return join(lead, content)


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
    n, case = found[0].points[-1]
    parts = []
    for technique in found[0].techniques:
        best = case.best(technique)
        share = best.value("floor_share") if best is not None else None
        if share is not None:
            parts.append(f"{technique} {digits(100 * share, 2)} %")
    if not parts:
        return None
    return (
        f"The limit of the hardware: at {length(n)} tokens ({found[0].title}) the best implementations reach "
        f"{', '.join(parts)} of their floor, and better kernels could move every crossover here."
    )
