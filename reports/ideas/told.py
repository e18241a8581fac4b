"""The ideas: which comparisons and figures tell of each, and what would have to be run where they are missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from harness.record import Record
from harness.units import digits, full, listed, show, whole

from .. import facts
from ..ffn import training
from ..learning import cases as learning
from ..learning import curves, memory
from ..linear import cases as fp8
from ..linear import loss as fp8_loss
from ..objective import loss as mtp_loss
from ..objective import speed
from ..objective.cases import draftings
from ..view import View
from .comparison import Comparison, Point, compare, sureness, unclear


@dataclass(frozen=True)
class Part:
    """Something bought or paid: in a few words for a headline, and in full."""

    short: str
    full: str


@dataclass
class Told:
    """What an idea buys and costs, how sure that is, and what was not measured, with the command; most telling first.

    `doubt` is how sure the times are in a few words, `outcome` what is known of what a model learns.
    """

    buys: list[Part] = field(default_factory=list)
    costs: list[Part] = field(default_factory=list)
    sure: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    doubt: str = ""
    outcome: str = "a model's loss: not recorded"

    def add(self, found: Sequence[Comparison | None], beside: Comparison | None = None) -> None:
        """Each comparison on its side, then how sure they are together with one that is told in other words."""
        kept = [one for one in found if one is not None]
        for one in kept:
            (self.buys if one.buys else self.costs).append(Part(one.short, one.clause))
            exception = one.exception
            if exception:
                (self.costs if one.buys else self.buys).append(Part(*exception))
        every = [*([beside] if beside else []), *kept]
        told = sureness(every)
        if told:
            self.sure.append(told)
            self.doubt = unclear(every)


@dataclass(frozen=True)
class Idea:
    """`name` in place of `replaces`; `study` has the evidence and `command` makes it."""

    name: str
    replaces: str
    study: str
    command: str
    tell: Callable[[Sequence[View]], Told]


def operation(name: str) -> Callable[[View], list[facts.Case]]:
    """The cases of one operation of a run."""
    return lambda view: [case for case in view.cases if case.first.operation == name]


def both(views: Sequence[View], name: str, metric: str, techniques: Sequence[str]) -> list[Record]:
    """A record of each technique with this figure, of the case with the most work in which all have one."""
    found = []
    for view in views:
        for case in operation(name)(view):
            best = [record for technique in techniques if (record := case.best(technique)) and record.value(metric)]
            if len(best) == len(techniques):
                found.append(best)
    return max(found, key=lambda records: records[0].value("flops") or 0.0, default=[])


def over(top: Record, bottom: Record, metric: str) -> float:
    """One record's figure over another's."""
    return top.figures[metric].value / bottom.figures[metric].value


def mla(views: Sequence[View]) -> Told:
    """Cache bytes, then time of decoding, prefill and training against MHA, and of decoding against GQA."""
    told = Told()
    cached = both(views, "attention.decode", "kv_bytes_per_token", ("mla", "mha", "gqa"))
    if cached:
        small, large, middle = cached
        held = f"{whole(small.figures['kv_bytes_per_token'].value)} bytes"
        less = f"{digits(over(large, small, 'kv_bytes_per_token'))} times less than with MHA"
        than = f"{digits(over(middle, small, 'kv_bytes_per_token'))} times less than with GQA"
        told.buys.append(
            Part(
                f"a cache of {held} a token and layer, {less},",
                f"a token leaves {held} in a layer's cache ({small.model}), {less} and {than}",
            )
        )
    told.add(
        [
            compare(views, operation("attention.decode"), "mla", "mha", "decoding", "MHA"),
            compare(views, operation("attention.decode"), "mla", "gqa", "decoding", "GQA"),
            compare(views, operation("attention.prefill"), "mla", "mha", "prefill", "MHA"),
            compare(views, operation("attention.train"), "mla", "mha", "a training pass", "MHA"),
        ]
    )
    work = both(views, "attention.decode_kernel", "flops", ("mla", "mha"))
    if work:
        flops = f"{show(over(work[0], work[1], 'flops'), 'ratio')} the FLOPs of MHA"
        told.costs.append(Part(f"{flops} over the cache", f"attention over the cache needs {flops} ({work[0].model})"))
    told.missing.append("What it does to a model's loss was not recorded.")
    return told


def moe(views: Sequence[View]) -> Told:
    """Time against dense layers of equal total and of equal active parameters; parameters; balance."""
    told = Told()
    phases = (("ffn.decode", "decoding"), ("ffn.prefill", "prefill"), ("ffn.train", "a training pass"))
    dense = (
        ("dense-total", "a dense layer of as many parameters"),
        ("dense", "a dense layer that computes as much a token"),
    )
    told.add([compare(views, operation(o), "moe", base, doing, other) for base, other in dense for o, doing in phases])
    held = both(views, "ffn.decode", "parameters", ("moe", "dense"))
    if held:
        times = show(over(held[0], held[1], "parameters"), "ratio")
        many = f"{times} the parameters of the dense layer that computes as much"
        told.costs.append(Part(many, f"it holds {many} ({held[0].model})"))
    told.missing.append("What it does to a model's loss beside a dense model's was not recorded.")
    trained = [text for view in views if (text := training.answer(view))]
    told.sure += [text.rstrip(".") for text in trained[:1]]
    if not trained:
        told.missing.append("Balance of experts over a training was not recorded (make balance).")
    return told


def quantized(views: Sequence[View]) -> Told:
    """Time of products and of whole training layers, bytes of operands, error of rounding, a model's loss."""
    told = Told()
    base = listed(list(dict.fromkeys(fp8.unquantized(view) for view in views))) or "BF16"
    groups = (
        (fp8.PRODUCTS, "a product"),
        ((fp8.TRAIN,), "a linear layer in training, quantizing included,"),
        (fp8.GROUPED, "a grouped product of experts"),
    )
    told.add([compare(views, partial(products, names), "fp8", "bf16", doing, base) for names, doing in groups])
    sizes = both(views, fp8.PRODUCTS[0], "operand_bytes", ("fp8", "bf16"))
    if sizes:
        part = f"{show(over(sizes[0], sizes[1], 'operand_bytes'), 'ratio')} the bytes"
        told.buys.append(Part(f"operands of {part}", f"operands take {part} of {base}, scales included"))
    errors = [
        error
        for view in views
        for case in products(fp8.PRODUCTS[:1], view)
        if (best := case.best("fp8")) is not None and (error := best.value("quantization_error")) is not None
    ]
    if errors:
        middle = show(float(np.median(errors)), "share")
        told.costs.append(
            Part(f"an error of {middle} in a product", f"rounding changes a product by {middle} (median)")
        )
    if any(fp8.emulated(r) for view in views for case in products(fp8.TIMED, view) for r in case.passed):
        words = "these times are of an emulation, which says nothing of FP8's speed"
        told.costs.insert(0, Part("the time of an emulation here, which is not FP8's", words))
    trained = [family for view in views for family in fp8_loss.families(view)]
    if trained:
        longest = max(trained, key=lambda f: (min(seed.end for seed in f.seeds), len(f.seeds)))
        sentence = fp8_loss.told(longest)
        told.sure.append(f"training a small model ({longest.name}), {sentence}")
        told.outcome = f"a model's loss: {sentence.rsplit(': ', 1)[-1]}"
    else:
        told.missing.append("What it does to a model's loss was not recorded (make bench STUDY=linear K=loss).")
    return told


def products(names: Sequence[str], view: View) -> list[facts.Case]:
    """Linear cases of some operations, without those that differ from another in their values or scales alone."""
    return fp8.plainest(fp8.of(view, *names))


def mtp(views: Sequence[View]) -> Told:
    """Generation with drafts, then a training step, then the loss."""
    told = Told()
    for view in views:
        text, found = speed.answer(view), [figure for _, figure in speed.timed(view)]
        if text and found:
            best = max(found, key=lambda figure: figure.value)
            faster = any(speed.clear(figure) > 0 for figure in found)
            most = "up to " if len(found) > 1 else ""
            short = f"generation at {most}{full(best, 'ratio')} the speed of plain decoding"
            (told.buys if faster else told.costs).append(Part(short, text.rstrip(".")))
    if not told.buys and not told.costs:
        told.missing.append("Generation with and without drafts was not timed (make bench STUDY=objective K=generate).")
    steps = operation("objective.train_step")
    told.add([compare(views, steps, "mtp", "ntp", "a training step", "next-token prediction")], generation(views))
    trained = [family for view in views for family in mtp_loss.families(view) if family.technique == "mtp"]
    if trained:
        longest = max(trained, key=lambda f: (min(seed.end for seed in f.seeds), len(f.seeds)))
        sentence = mtp_loss.told(longest)
        told.sure.append(f"of a small model ({longest.name}), {sentence}")
        told.outcome = f"a model's loss: {sentence.rsplit(': ', 1)[-1]}"
    else:
        told.missing.append("What it does to a model's loss was not recorded (make bench STUDY=objective K=loss).")
    return told


def generation(views: Sequence[View]) -> Comparison | None:
    """Decoding with drafts over plain decoding, in the faster form of each case."""
    points: dict[str, Point] = {}
    for view in views:
        for one in draftings(view):
            figure = view.ratio(one.drafted, one.plain)
            if figure is not None:
                points.setdefault(one.case.id, Point(one.case, one.drafted, one.plain, figure))
    return Comparison("generation", "plain decoding", tuple(points.values())) if points else None


def grpo(views: Sequence[View]) -> Told:
    """Bytes of a training step's models, gradients and states, its peak and its time, then what a policy learns."""
    told = Told()
    held = [found for view in views for found in learning.pairs(view, "owned_bytes")]
    if held:
        case, ppo, own = max(held, key=lambda found: found[1].value("model_parameters") or 0.0)
        part = f"{show(over(own, ppo, 'owned_bytes'), 'ratio')} the bytes of PPO's models, gradients and states"
        peaks = memory.whole(own), memory.whole(ppo)
        peak = f", {show(peaks[0] / peaks[1], 'ratio')} at the peak" if peaks[0] and peaks[1] else ""
        told.buys.append(Part(f"{part}{peak},", f"a step holds {part}{peak} ({case.first.model})"))
    told.add(
        [
            compare(views, operation("learning.step"), "grpo", "ppo", "a step", "PPO"),
            compare(views, operation("learning.update"), "grpo", "ppo", "an update", "PPO"),
        ]
    )
    courses = [found for view in views if (found := learning.courses(view))]
    if courses:
        best = max(courses, key=lambda found: max(len(one.mean("accuracy")) for one in found))
        told.outcome = curves.told_ends(best).rstrip(".")
        told.outcome = told.outcome[0].lower() + told.outcome[1:]
        told.sure.append(told.outcome)
    else:
        told.outcome = "what a policy learns: not recorded"
        told.missing.append("What a policy learns by either was not recorded (make learn).")
    return told


IDEAS = (
    Idea("MLA", "multi-head attention", "attention", "make bench STUDY=attention", mla),
    Idea("MoE", "dense layers", "ffn", "make bench STUDY=ffn", moe),
    Idea("FP8", "BF16", "linear", "make bench STUDY=linear", quantized),
    Idea("MTP", "predicting one token", "objective", "make bench STUDY=objective", mtp),
    Idea("GRPO", "PPO with its critic", "learning", "make bench STUDY=learning", grpo),
)
