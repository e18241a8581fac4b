"""The exact gate: what has no noise and needs no GPU, against the baselines in benches/baselines.

`python -m harness.exact` collects the facts of every smoke case on the CPU, and of every Triton kernel that the GPU
tier launches, compiled and not run; says each fact that is worse than in the baseline, with the direction that is
worse; and ends with the gate's exit codes. Under another torch, triton or ptxas it says "rebase", compares nothing and
fails only what is incorrect. `--write` with a reason rewrites the baselines. Wins over timing: no noise, so no change
escapes and none is imagined. Loses what costs time alone: that is the timing gate's.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from . import baseline as files
from .baseline import Baseline, Damaged, Facts
from .collection import Collection, Failed, Found
from .deviation import INCOMPATIBLE, INCORRECT, NOTHING, PASS, USAGE, Comparison, Deviation, sentences, worst
from .options import Options

KINDS = ("cases", "kernels")
FOLDER = Path("benches", "baselines")
NOT_TOOLCHAIN = ("reason", "date")
SHOWN_NOTES = 12  # of what is better or new; all of the rest is shown


@dataclass
class Verdict:
    """What the exact gate found. `code`: 0 pass, 1 regression, 2 usage, 4 nothing measured or coverage dropped,
    5 incorrect result, 6 baseline missing or damaged. `remarks`: sentences that are no fact's."""

    codes: set[int] = field(default_factory=set)
    deviations: list[Deviation] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    facts: int = 0

    @property
    def code(self) -> int:
        """The gravest of all."""
        return worst([*self.codes, *(deviation.code for deviation in self.deviations)])

    def remark(self, sentence: str, code: int = PASS) -> None:
        """A sentence, and the exit code it asks for."""
        self.remarks.append(sentence)
        self.codes.add(code)

    def lines(self) -> list[str]:
        """Everything a person should read: notes, then what is red, the gravest first, then the summary."""
        red = [one for one in self.deviations if one.code != PASS]
        notes = [one for one in self.deviations if one.code == PASS]
        told = sentences(notes)
        if len(told) > SHOWN_NOTES:
            told = [*told[:SHOWN_NOTES], f"and {len(told) - SHOWN_NOTES} more that are better or new"]
        if notes:
            told.append(f"{len(notes)} facts are better or new: make baseline REASON='...' keeps them")
        return [*told, *sentences(red), *self.remarks, f"exact: {self.facts} facts compared, exit code {self.code}"]


def options_of(kind: str, options: Options) -> Options:
    """What to collect: cases of the asked tier on the CPU, kernels of the GPU tier."""
    return replace(options, device="cpu", tier="gpu" if kind == "kernels" else options.tier or "smoke")


def path_of(kind: str, options: Options, folder: Path) -> Path:
    """The baseline file of a kind."""
    return folder / ("kernels.txt" if kind == "kernels" else f"{options_of(kind, options).tier}.txt")


def collect(options: Options, kinds: Sequence[str], verdict: Verdict) -> dict[str, Found]:
    """Facts by kind, collected side by side; what cannot be collected is a remark."""
    running = {kind: Collection(kind, options_of(kind, options)) for kind in kinds}
    found = {}
    try:
        for kind, collection in running.items():
            try:
                found[kind] = collection.finish()
                for problem in found[kind].problems:
                    verdict.remark(f"problem: {problem}", USAGE)
            except Failed as failure:
                verdict.remark(f"error: {failure}", USAGE if failure.refused else NOTHING)
    finally:
        for collection in running.values():
            collection.stop()
    return found


def check(options: Options, folder: Path | None = None, kinds: Sequence[str] = KINDS) -> Verdict:
    """Collect and compare; for the gate. `folder` holds the baselines, default benches/baselines of the checkout."""
    verdict = Verdict()
    folder = options.path / FOLDER if folder is None else folder
    kept = {kind: _kept(path_of(kind, options, folder), verdict) for kind in kinds}
    for kind, found in collect(options, [kind for kind in kinds if kept[kind] is not None], verdict).items():
        comparison = Comparison(found.rules, found.reasons)
        verdict.deviations += comparison.failures(found.facts)
        path, before = path_of(kind, options, folder), kept[kind]
        if found.absent is not None:
            verdict.remark(f"{kind} are not compared: {found.absent}")
        elif before:
            _compare(path, options.study, before, comparison, found, verdict)
        elif found.facts:
            verdict.remark(f"error: {Damaged(path, None, 'there is no such baseline')}", INCOMPATIBLE)
        elif kind == "cases":
            verdict.remark("there is no case to compare", NOTHING)
    return verdict


def _kept(path: Path, verdict: Verdict) -> Baseline | Literal[False] | None:
    """The baseline; False where there is none, None after saying that it is damaged."""
    try:
        return files.read(path) if path.is_file() else False
    except Damaged as damage:
        verdict.remark(f"error: {damage}", INCOMPATIBLE)
        return None


def _compare(
    path: Path, study: str | None, kept: Baseline, comparison: Comparison, found: Found, verdict: Verdict
) -> None:
    """One kind's facts against its file."""
    other = differences(kept.header, found.toolchain)
    if other:
        verdict.remark(f"rebase: {path.name} holds under {other}; nothing is compared, make baseline REASON='...' here")
        return
    facts = {case: known for case, known in kept.facts.items() if study in (None, case.split(".")[0])}
    verdict.deviations += comparison.against(facts, found.facts)
    verdict.facts += count(facts)


def count(facts: Facts) -> int:
    """How many facts there are."""
    return sum(len(known) for subjects in facts.values() for known in subjects.values())


def differences(header: Mapping[str, str], toolchain: Mapping[str, str]) -> str:
    """Where a baseline's toolchain is not this one, in words; empty where it is."""
    names = sorted({*header, *toolchain} - {*NOT_TOOLCHAIN})
    told = [(name, header.get(name, "none"), toolchain.get(name, "none")) for name in names]
    return ", ".join(f"{name} {then} (here {now})" for name, then, now in told if then != now)


def rewrite(options: Options, reason: str, folder: Path | None = None, kinds: Sequence[str] = KINDS) -> Verdict:
    """Collect and write the baselines; a file whose facts and toolchain are the same stays as it is."""
    verdict = Verdict()
    folder = options.path / FOLDER if folder is None else folder
    for kind, found in collect(options, kinds, verdict).items():
        path = path_of(kind, options, folder)
        failures = list(Comparison(found.rules, found.reasons).failures(found.facts))
        verdict.deviations += failures
        if found.absent is not None or not found.facts:
            verdict.remark(f"{path.name} is not written: {found.absent or 'there is nothing to write'}")
        elif failures:
            verdict.remark(f"{path.name} is not written: a baseline holds correct results only", INCORRECT)
        else:
            _write(path, reason, found, verdict)
        verdict.facts += count(found.facts)
    return verdict


def _write(path: Path, reason: str, found: Found, verdict: Verdict) -> None:
    header = {"reason": reason, "date": datetime.date.today().isoformat(), **dict(sorted(found.toolchain.items()))}
    try:
        kept = files.read(path)
        if kept.facts == found.facts and not differences(kept.header, found.toolchain):
            verdict.remark(f"{path.name} stays as it is: no fact has changed")
            return
        comparison = Comparison(found.rules, found.reasons)
        verdict.remarks += [f"kept {said}" for said in sentences(comparison.against(kept.facts, found.facts))]
    except Damaged as damage:
        if path.is_file():
            verdict.remark(f"written anew: {damage}")
    files.write(path, Baseline(header, found.facts))
    verdict.remark(f"{path.name}: {len(found.facts)} cases, {count(found.facts)} facts")


def main(words: Sequence[str] | None = None) -> int:
    """Exit status: see `Verdict`."""
    parser = argparse.ArgumentParser(prog="python -m harness.exact", description=__doc__)
    parser.add_argument("--study", help="one study, for example ffn")
    parser.add_argument("--tier", help="whose cases run on the CPU; default: smoke")
    parser.add_argument("--only", choices=KINDS, help="cases on the CPU, or kernels compiled for the GPU")
    parser.add_argument("--write", action="store_true", help="rewrite the baselines")
    parser.add_argument("--reason", default="", help="why they change; kept in the file")
    parser.add_argument("--baselines", type=Path, help=f"their folder; default: {FOLDER}")
    asked = parser.parse_args(words)
    options = Options(root=str(Path.cwd()), study=asked.study, tier=asked.tier)
    kinds = (asked.only,) if asked.only else KINDS
    reason = " ".join(asked.reason.split())
    if asked.write and not reason:
        print("error: a baseline is rewritten for a reason: make baseline REASON='why facts change'", file=sys.stderr)
        return USAGE
    if asked.write and asked.study:
        print("error: a baseline holds every study; leave STUDY= out", file=sys.stderr)
        return USAGE
    try:
        if asked.write:
            verdict = rewrite(options, reason, asked.baselines, kinds)
        else:
            verdict = check(options, asked.baselines, kinds)
    except OSError as error:
        print(f"error: {error.filename or FOLDER} cannot be used: {error.strerror or error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("stopped; a baseline is written whole or not at all", file=sys.stderr)
        return 130
    print("\n".join(verdict.lines()))
    return verdict.code


if __name__ == "__main__":
    sys.exit(main())
