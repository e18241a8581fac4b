"""The ladder as its page reads it: sixteen combinations of four choices, and the quantities they are compared in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from harness.record import Figure, Record
from harness.units import digits, show, some, whole

from .. import facts
from ..view import View, mapping, plain
from .effects import Settings

LADDER = "model.ladder"
AXES = {
    "attention": ("mha", "mla"),
    "ffn": ("dense", "moe"),
    "linear": ("bf16", "fp8"),
    "objective": ("ntp", "mtp"),
}
CHOICES = [two for _, two in AXES.values()]
SWAPS = [f"{two} for {one}" for one, two in AXES.values()]
PLAINEST, ALL = (False,) * len(AXES), (True,) * len(AXES)
LINEAR = list(AXES).index("linear")
GENERATING = re.compile(r"generate_rate_(\d+)")


def settings_of(technique: str) -> Settings | None:
    """Whether each axis has DeepSeek's choice; None for a word that is no combination."""
    words = technique.split("-")
    known = len(words) == len(AXES) and all(w in pair for w, pair in zip(words, AXES.values(), strict=True))
    return tuple(w == two for w, (_, two) in zip(words, AXES.values(), strict=True)) if known else None


def combination(settings: Settings) -> str:
    """`mla-moe-fp8-mtp`."""
    return "-".join(pair[on] for pair, on in zip(AXES.values(), settings, strict=True))


@dataclass(frozen=True)
class Quantity:
    """What combinations are compared in: less is better. A rate is read as the time of one token."""

    metric: str
    words: str
    unit: str
    ratio: bool = True
    inverse: bool = False

    def of(self, record: Record) -> Figure | None:
        """The figure of a record; None where it was not measured, or cannot be a ratio."""
        found = record.figures.get(self.metric)
        if found is None or (self.ratio and found.value <= 0):
            return None
        if not self.inverse:
            return found
        low, high = (1e9 / end if end and end > 0 else None for end in (found.high, found.low))
        return Figure(1e9 / found.value, low, high)

    def show(self, value: float) -> str:
        """A value with its unit; bits a byte to the digit in which models differ."""
        return f"{digits(value, 4)} bits a byte" if self.unit == "bits/byte" else show(value, self.unit)

    def effect(self, value: float) -> str:
        """An effect: a ratio, or a difference with its sign."""
        if self.ratio:
            return show(value, "ratio")
        near = round(value, 3)
        return f"{'+' if near > 0 else '−' if near < 0 else ''}{abs(near):.3f}"


BITS = Quantity("validation_bits", "validation loss", "bits/byte", ratio=False)


@dataclass(frozen=True)
class Ladder:
    """One case of the ladder: a record for each combination, the fastest of its contenders or why there is none."""

    case: facts.Case
    records: dict[Settings, Record]

    @cached_property
    def passed(self) -> dict[Settings, Record]:
        """The combinations that ran."""
        return {settings: r for settings, r in self.records.items() if r.status == "passed"}

    @property
    def absent(self) -> list[str]:
        """The combinations that were not asked for, or cannot run on such a machine."""
        return [r.technique for r in self.records.values() if r.status == "unavailable"]

    @property
    def early(self) -> str | None:
        """Which steps were reached, where the time was up before the last; None where it was not."""
        known = [taken for r in self.passed.values() if (taken := facts.steps(r))]
        if not any(taken < planned for taken, planned in known):
            return None
        ends = sorted({taken for taken, _ in known})
        reached = whole(ends[0]) if len(ends) == 1 else f"{whole(ends[0])} to {whole(ends[-1])}"
        return f"{reached} of {whole(max(planned for _, planned in known))}"

    @cached_property
    def stepping(self) -> str:
        """The metric that is the time of a training step."""
        return "step_time" if any("step_time" in r.figures for r in self.passed.values()) else "latency"

    @cached_property
    def batches(self) -> list[int]:
        """At how many sequences together generation was timed."""
        found = {int(m[1]) for r in self.passed.values() for name in r.figures if (m := GENERATING.fullmatch(name))}
        return sorted(found)

    @cached_property
    def quantities(self) -> list[Quantity]:
        """Times and bytes that any combination has; validation is apart, for it is no ratio."""
        found = [Quantity(self.stepping, "time of a training step", "ns")]
        for batch in self.batches:
            name = f"generate_rate_{batch}"
            found.append(Quantity(name, f"time of a new token at batch {batch}", "ns", inverse=True))
        found.append(Quantity("peak", "peak memory of a step", "bytes"))
        found.append(Quantity("kv_bytes", "cache bytes of a token", "bytes"))
        return [quantity for quantity in found if self.values(quantity)]

    def values(self, quantity: Quantity) -> dict[Settings, float]:
        """A quantity by settings, of the combinations that have it."""
        return {s: found.value for s, r in self.passed.items() if (found := quantity.of(r)) is not None}

    @cached_property
    def xz_bits(self) -> float | None:
        """What a general compressor makes of the validation text, in bits a byte, where the run says so."""
        known = (value for r in self.passed.values() if (value := r.value("xz_bits")))
        return next(known, None)

    @property
    def training(self) -> str:
        """How the models were trained, in a sentence, as far as it is recorded."""
        first = next(iter(self.passed.values()), self.case.first)
        shape = mapping(first.shape)
        recipe, corpus = mapping(shape.get("recipe")), mapping(shape.get("corpus"))
        steps, batch, length, seed = (plain(recipe.get(name)) for name in ("steps", "batch", "length", "seed"))
        text = f"{some(len(self.passed), 'combination')}, each"
        taken = f"{self.early} steps" if self.early else some(round(steps), "step") if steps else None
        text += f" trained for {taken}" if taken else " trained"
        text += f" of {whole(batch)} \N{MULTIPLICATION SIGN} {whole(length)} bytes" if batch and length else ""
        text += " in turn, from one start on the same bytes"
        label, digest, data = corpus.get("label"), corpus.get("digest"), first.verification.get("data")
        if isinstance(label, str):
            text += f": {label}" + (f", digest {digest[:12]}" if isinstance(digest, str) else "")
        elif isinstance(data, str):
            text += f": {data}"
        return f"{text}; seed {whole(seed)}." if seed is not None else f"{text}."


def ladders(view: View) -> list[Ladder]:
    """The run's ladders, those of which most ran first."""
    found = [
        Ladder(case, best) for case in view.of("model") if case.first.operation == LADDER and (best := chosen(case))
    ]
    return sorted(found, key=lambda ladder: -len(ladder.passed))


def chosen(case: facts.Case) -> dict[Settings, Record]:
    """A record for each combination: what passed before what failed before what was not asked for, the fastest first.

    Of several contenders that were not asked for, the one counts whose implementation ran for other combinations with
    the same linear layers.
    """
    known = [(settings, r) for r in case.records if (settings := settings_of(r.technique)) is not None]
    ran = {(settings[LINEAR], r.implementation) for settings, r in known if r.status == "passed"}

    def rank(item: tuple[Settings, Record]) -> tuple[bool, bool, bool, float]:
        settings, r = item
        other = (settings[LINEAR], r.implementation) not in ran
        return r.status != "passed", r.status == "unavailable", other, r.value("latency") or 0.0

    found: dict[Settings, Record] = {}
    for settings, record in sorted(known, key=rank):
        found.setdefault(settings, record)
    return found
