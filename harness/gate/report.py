"""A gate's outcome for a person at a terminal, for a pull request (Markdown), and for a CI server (JUnit XML)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree as xml

import numpy as np

from .. import exact
from ..deviation import PASS, sentences, worst
from ..units import aligned, duration, plain, show
from ..verdict import Verdict
from .case import MEANINGS, GateCase
from .outcome import Outcome, medians

MARKDOWN_LIMIT = 60_000  # what a comment on a pull request holds, with some room
COLUMNS = ("case", "verdict", "base", "head", "ratio", "interval", "A/A", "injected")
QUIET, FINE = ("same", "new"), ("same", "faster", "new")


def lines(outcome: Outcome) -> list[str]:
    """For the terminal: what is red last, and the code at the very end."""
    told = [] if outcome.exact is None else outcome.exact.lines()
    told += [said for _, said in _kernels(outcome)]
    if outcome.cases:
        rows = [COLUMNS, *map(_row, reversed(outcome.cases))]
        told += ["", *aligned(rows)]
    told += [f"{case.kind}: {case.name}: {case.reason}" for case in reversed(outcome.cases) if case.kind not in QUIET]
    if outcome.timed is not None:
        timed = outcome.timed
        told.append(f"proof: {outcome.proof()}")
        told.append(
            f"timing: {len(timed.cases)} cases in {duration(timed.seconds)}, {timed.processes} processes, "
            f"exit code {timed.code}"
        )
    return [*told, *outcome.remarks, f"gate: exit code {outcome.code}: {outcome.meaning}"]


def _row(case: GateCase) -> tuple[str, ...]:
    times = dict(medians(case))
    base, head = (plain(show(times[arm], "ns")) if arm in times else "-" for arm in ("base", "head"))
    return (case.name, case.kind, base, head, *_ratio(case.head), _percent(case.control), _percent(case.canary))


def _ratio(verdict: Verdict | None) -> tuple[str, str]:
    if verdict is None or verdict.ratio is None:
        return "-", "-"
    found = verdict.ratio
    return f"{found.value:.3f}", f"[{found.low:.3f}, {found.high:.3f}]" if found.low > 0 else "unknown"


def _percent(verdict: Verdict | None) -> str:
    return "-" if verdict is None or verdict.ratio is None else f"{100 * (verdict.ratio.value - 1):+.1f} %"


def markdown(outcome: Outcome) -> str:
    """For a comment on a pull request, cut where that would not hold it."""
    text = "\n".join(_markdown(outcome)) + "\n"
    return text if len(text) <= MARKDOWN_LIMIT else text[:MARKDOWN_LIMIT] + "\n\n... cut; the JSON has everything\n"


def _markdown(outcome: Outcome) -> Iterator[str]:
    yield f"### whalebench gate: {outcome.meaning} (exit code {outcome.code})"
    yield ""
    yield f"Base {_code(str(outcome.base))}, head {_code(outcome.head)}."
    for remark in outcome.remarks:
        yield f"- {remark}"
    if outcome.timed is not None:
        yield ""
        yield f"**Timing** on {outcome.timed.device}: {outcome.proof()}."
        yield ""
        yield "| " + " | ".join(COLUMNS) + " |"
        yield "|" + " --- |" * 2 + " ---: |" * (len(COLUMNS) - 2)
        for case in outcome.cases:
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in _row(case)) + " |"
        yield ""
        for case in outcome.cases:
            if case.kind not in QUIET:
                yield f"- **{case.kind}** {_code(case.name)}: {case.reason}"
    if outcome.exact is not None:
        yield ""
        yield f"**Exact**: {outcome.exact.facts} facts compared with the baseline."
        yield ""
        red = [one for one in outcome.exact.deviations if one.code != PASS]
        better = len(outcome.exact.deviations) - len(red)
        yield from (f"- {said}" for said in [*sentences(red), *outcome.exact.remarks])
        if better:
            yield f"- {better} facts are better or new: `make baseline REASON='...'` keeps them"

    yield from (f"- {said}" for _, said in _kernels(outcome))


def _kernels(outcome: Outcome) -> Iterator[tuple[GateCase | None, str]]:
    """What Triton's interpreter showed, in sentences."""
    wrong = [case for case in outcome.kernels if case.kind == "incorrect"]
    yield from ((case, f"incorrect: {case.name}, in Triton's interpreter: {case.reason}") for case in wrong)
    if outcome.kernels:
        right = len(outcome.kernels) - len(wrong)
        yield None, f"kernels: {right} of {len(outcome.kernels)} contenders are right in Triton's interpreter"


def _code(text: str) -> str:
    return "`" + text.replace("`", "'") + "`"


def junit(outcome: Outcome) -> bytes:
    """A test case for each gate case, each red fact, and the proof; what is unclear or incomparable is skipped."""
    root = xml.Element("testsuites", name="whalebench gate")
    if outcome.exact is not None:
        _exact_suite(xml.SubElement(root, "testsuite", name="exact"), outcome.exact)
    if outcome.kernels:
        suite = xml.SubElement(root, "testsuite", name="kernels")
        for case in outcome.kernels:
            _test(suite, case.name, "failure" if case.kind == "incorrect" else "", [case.reason])
    if outcome.timed is not None:
        _timing_suite(xml.SubElement(root, "testsuite", name="timing", time=f"{outcome.timed.seconds:.1f}"), outcome)
    suite = xml.SubElement(root, "testsuite", name="gate")
    red = outcome.code != PASS
    _test(suite, f"exit code {outcome.code}", "failure" if red else "", [outcome.meaning, *outcome.remarks])
    for suite in root:
        suite.set("tests", str(len(suite)))
        for tag, attribute in (("failure", "failures"), ("skipped", "skipped")):
            suite.set(attribute, str(len(suite.findall(f"testcase/{tag}"))))
    xml.indent(root)
    return bytes(xml.tostring(root, encoding="utf-8", xml_declaration=True))


def _exact_suite(suite: xml.Element, found: exact.Verdict) -> None:
    red = [one for one in found.deviations if one.code != PASS]
    for one in red:
        _test(suite, f"{one.case} {one.subject} {one.fact}".strip(), "failure", [f"{one.kind}: {one.said}"])
    whole = "failure" if worst(found.codes) != PASS else ""
    _test(suite, f"{found.facts} facts compared, exit code {found.code}", whole, found.remarks)


def _timing_suite(suite: xml.Element, outcome: Outcome) -> None:
    for case in outcome.cases:
        tag = "" if case.kind in FINE else "skipped" if case.kind in ("unclear", "incomparable") else "failure"
        _test(suite, case.name, tag, [f"{case.kind}, {MEANINGS[case.kind]}: {case.reason}"])
    broken = outcome.timed is not None and outcome.timed.broken is not None
    _test(suite, "proof", "failure" if broken else "", [outcome.proof()])


def _test(suite: xml.Element, name: str, tag: str, told: Sequence[str]) -> None:
    """A test case, with why it failed or was skipped where `tag` says so."""
    test = xml.SubElement(suite, "testcase", classname=f"whalebench.{suite.get('name')}", name=_printable(name))
    if tag:
        xml.SubElement(test, tag, message=_printable("; ".join(told)))


def _printable(text: str) -> str:
    """Without the control characters that XML forbids."""
    return "".join(c for c in text if c.isprintable() or c in "\n\t")


def write(outcome: Outcome, folder: Path) -> None:
    """gate.json, gate.md, gate.xml, and the rounds behind the verdicts. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gate.json").write_text(json.dumps(outcome.to_data(), indent=1) + "\n")
    (folder / "gate.md").write_text(markdown(outcome))
    (folder / "gate.xml").write_bytes(junit(outcome))
    rounds = {
        f"{case.name} {number} {arm}".replace("/", "|"): times.astype(np.float32)
        for case in outcome.cases
        for number, visit in enumerate(case.visits)
        for arm, times in visit.arms.items()
    }
    if rounds:
        np.savez_compressed(folder / "rounds.npz", allow_pickle=False, **rounds)
