"""The leaf of the site: one case, every contender in it, and all that is needed to doubt or repeat a number."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from harness.record import Record
from harness.units import MISSING, digits, full, interval, show, some, whole

from . import facts, kernels, profile, samples, study, telemetry, verification
from .markup import Child, Html, join, paragraphs, tag
from .page import badges
from .table import Cell, number, pairs, row, table
from .view import View, mapping, plain

OPTIONS = {"study": "STUDY", "model": "MODEL", "tier": "TIER", "device": "DEVICE", "impl": "IMPL"}


def page(view: View, case: facts.Case) -> Html:
    """The content of a case's page."""
    first = case.first
    return join(
        tag("p", f"{first.study.capitalize()} · {first.operation} · {first.model}", class_="kicker"),
        tag("h1", case.id, class_="id"),
        tag("p", answer(view, case), class_="answer"),
        repeat(view, case),
        section("Contenders", contenders(view, case), failures(case)),
        section("Samples", samples.figures(view, case)),
        section("Verification", verification.tables(view, case)),
        section("Cost and floor", cost(view, case)),
        section("Memory", memory(view, case)),
        section("Other figures", others(view, case)),
        section("How it was timed", timing(case)),
        section("Where the time goes", profile.section(view, case)),
        section("Compiled kernels", kernels.section(view, case)),
        section("The machine meanwhile", telemetry.section(view, case)),
        section("Sizes", pairs(sizes(first.shape))),
        section("Implementations", [implementation(view, record) for record in case.records]),
    )


def section(title: str, *content: Child) -> Html | None:
    """A titled section, or nothing where there is nothing to tell."""
    body = join(*content)
    return tag("section", tag("h2", title), body) if body else None


def answer(view: View, case: facts.Case) -> str:
    """Who is fastest, by how much, and how far from the floor."""
    if any(record.figures for record in case.untimed) and not case.passed:
        return untimed_answer(view, case)
    if not case.passed:
        found = ", ".join(f"{n} {facts.status_words(s)}" for s, n in facts.counts(case.records))
        return f"No contender has a latency here: {found}."
    best = case.passed[0]
    text = f"{best.contender} is the fastest of {len(case.passed)} that passed: {full(best.figures['latency'], 'ns')}"
    text += " a step" if facts.steps(best) else ""
    baseline = case.baseline
    if baseline is not None and baseline is not best and best.value("ratio") is not None:
        ratio = best.figures["ratio"]
        bounds = interval(ratio, "ratio")
        text += f", {' '.join(filter(None, (show(ratio.value, 'ratio'), f'the time of {baseline.contender}', bounds)))}"
    share = best.value("floor_share")
    text += f", at {show(share, 'share')} of what the hardware allows." if share is not None else "."
    if any(word == "suspect" for word, _ in facts.cautions(best)):
        text += " That is more than the measured ceilings allow, so it is suspect."
    return text


def untimed_answer(view: View, case: facts.Case) -> str:
    """Of contenders that are not timed, such as trainings: who is best by the first figure that tells them apart."""
    measured = [record for record in case.untimed if record.figures]
    text = f"{some(len(measured), 'contender')} passed; what is measured here is not a latency"
    for name in dict.fromkeys(name for record in measured for name in record.figures):
        found = sorted((value, r.contender) for r in measured if (value := r.value(name)) is not None)
        metric = view.metrics.get(name)
        if metric is None or metric.better == "neither" or len(found) < 2 or found[0][0] == found[-1][0]:
            continue
        ends = found if metric.better == "lower" else found[::-1]
        told = " to ".join(f"{show(value, metric.unit)} with {contender}" for value, contender in (ends[0], ends[-1]))
        return f"{text}. Best to worst, {name.replace('_', ' ')}: {told}."
    return f"{text}."


def command(view: View, case: str) -> str:
    """The line that measures this case again: the run's own command, or `make bench` with the run's options."""
    options = mapping(view.run.header.options)
    if isinstance(options.get("command"), str):
        return str(options["command"])
    words = [f"{name}={shlex.quote(str(options[key]))}" for key, name in OPTIONS.items() if options.get(key)]
    return " ".join(["make bench", f"K={shlex.quote(case)}", *words])


def repeat(view: View, case: facts.Case) -> Html:
    """The command with a button that copies it."""
    return tag(
        "div",
        tag("span", "Repeat it", class_="label"),
        tag("code", command(view, case.id)),
        tag("button", "Copy", type="button", class_="copy"),
        class_="command",
    )


def contenders(view: View, case: facts.Case) -> Html | None:
    """The study's rows for this case alone."""
    fastest = case.passed[0].value("latency") if case.passed else None
    shown = [*case.passed, *case.untimed]
    if not case.passed and any(record.figures for record in shown):
        shown = [record for record in shown if not record.figures]  # of the others the figures stand below
    if not shown:
        return None
    rows = [study.contender_row(view, case, r, fastest) for r in shown]
    return table(["Contender", *study.COLUMNS], rows, class_="contenders", label=f"Contenders of {case.id}")


def failures(case: facts.Case) -> Html | None:
    """What each contender that ran and did not pass was told."""
    failed = [r for r in case.records if r.status not in ("passed", "unavailable")]
    items = [tag("li", tag("b", r.contender), f" {facts.status_words(r.status)}: {r.reason}") for r in failed]
    return join(tag("h3", "Failures"), tag("ul", items, class_="failures")) if items else None


def cost(view: View, case: facts.Case) -> Html | None:
    """Work by the cost model, the floor it implies, and the rates reached."""
    rows = []
    for record in case.passed:
        flops, moved = record.value("flops"), record.value("bytes")
        if flops is None and moved is None:
            continue
        intensity = f"{digits(flops / moved)} FLOP/B" if flops is not None and moved else MISSING
        names = ("floor", "floor_share", "flop_rate", "byte_rate")
        cells: list[Cell | Child] = [view.cell(record, "flops"), view.cell(record, "bytes"), number(intensity)]
        rows.append(row([study.contender_name(view, record), *cells, *(view.cell(record, name) for name in names)]))
    if not rows:
        return None
    lead = tag(
        "p",
        "FLOPs and least bytes are the technique's, whoever implements it. The floor is the larger of the "
        "two times they need at the ceilings measured in this run.",
    )
    columns = ["Contender", ">FLOPs", ">Least bytes", ">Intensity", ">Floor", ">Share", ">FLOP rate", ">Byte rate"]
    return join(lead, table(columns, rows, label="Cost and floor"))


def memory(view: View, case: facts.Case) -> Html | None:
    """Resident, the state within it, and the peak above both."""
    names = ("resident", "state", "peak")
    measured = [r for r in case.passed if any(r.value(name) is not None for name in names)]
    most = {name: max((r.value(name) or 0.0 for r in measured), default=0.0) for name in names}
    rows = [
        row(
            [
                study.contender_name(view, r),
                *(view.cell(r, name, (r.value(name) or 0.0) / most[name] if most[name] else None) for name in names),
                r.layout or MISSING,
            ]
        )
        for r in measured
    ]
    lead = tag(
        "p",
        "Resident: weights, what setup keeps, and state. State: the part that a call updates. Peak: the "
        "highest allocation of one call above these.",
    )
    columns = ["Contender", ">Resident", ">State", ">Peak", "Layout"]
    return join(lead, table(columns, rows, label="Memory")) if rows else None


def others(view: View, case: facts.Case) -> Html | None:
    """Every figure that no other table here shows, so that an operation's own metrics appear unasked."""
    shown = {
        "latency",
        "ratio",
        "floor",
        "floor_share",
        "throughput",
        "resident",
        "state",
        "peak",
        "flops",
        "bytes",
        "flop_rate",
        "byte_rate",
        "error",
    }
    measured = [*case.passed, *(record for record in case.untimed if record.figures)]
    names = [name for name in dict.fromkeys(n for r in measured for n in r.figures) if name not in shown]
    if not names:
        return None
    rows = [row([study.contender_name(view, r), *(view.cell(r, name) for name in names)]) for r in measured]
    words = [(name.replace("_", " "), view.metrics[name].meaning) for name in names if name in view.metrics]
    heads = [f">{name.replace('_', ' ')}" for name in names]
    return join(table(["Contender", *heads], rows, label="Other figures"), pairs(words))


def timing(case: facts.Case) -> Html | None:
    """Clock, caches, pairing, rounds and samples, with each caution spelled out."""
    rows, notes = [], []
    for record in case.passed:
        found = mapping(record.timing)
        words = [found.get(name) for name in ("clock", "caches", "pairing")]
        taken = facts.steps(record)
        counts = [plain(found.get(name)) for name in ("rounds", "samples", "outliers")]
        rows.append(
            row(
                [
                    record.contender,
                    *(str(w) if w else MISSING for w in words),
                    *(number(whole(n) if n is not None else MISSING) for n in counts),
                    ended(found),
                    *([f"{whole(taken[0])} of {whole(taken[1])}"] if taken else []),
                ]
            )
        )
        notes += [tag("li", tag("b", f"{record.contender}, {word}: "), why) for word, why in facts.cautions(record)]
    if not rows:
        return None
    columns = ["Contender", "Clock", "Caches", "Pairing", ">Rounds", ">Samples", ">Outliers", "Stopped by"]
    turns = "turns in short slots"
    if any(facts.steps(record) for record in case.passed):
        columns, turns = [*columns, "Steps"], "their steps in turn,"
    lead = tag("p", f"Contenders take {turns} in random order; outliers are counted, never dropped.")
    return join(lead, table(columns, rows, label="Timing"), tag("ul", notes, class_="failures") if notes else None)


def ended(timing: Mapping[str, Any]) -> str:
    """What stopped the contest; after how many seconds, if that was its share of the budget."""
    stopped, given = timing.get("stopped"), plain(timing.get("given_s"))
    told = f"budget, {digits(given)} s" if stopped == "budget" and given is not None else stopped
    return str(told or MISSING)


def sizes(shape: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Child]]:
    """The shape's entries, nested ones by dotted name."""
    found: list[tuple[str, Child]] = []
    for name, value in mapping(shape).items():
        if isinstance(value, Mapping):
            found += sizes(value, f"{prefix}{name}.")
        elif value is not None:
            found.append((f"{prefix}{name}", whole(value) if type(value) is int else str(value)))
    return found


def implementation(view: View, record: Record) -> Html:
    """What the author says of it, where its source is, and whether that is still the code measured."""
    file, digest = record.source.get("file"), record.source.get("digest")
    drift = view.drifted(record)
    origin = [tag("code", file or MISSING), " · digest ", tag("code", digest or MISSING)]
    if drift:
        origin.append(tag("span", f" · {drift}", class_="caution"))
    status = None if record.status == "passed" else tag("p", f"{facts.status_words(record.status)}: {record.reason}")
    lines = record.doc.strip().splitlines()
    return tag(
        "details",
        tag(
            "summary",
            study.contender_name(view, record),
            " ",
            tag("span", lines[0] if lines else "", class_="quiet"),
            badges(view, record),
        ),
        tag("p", origin, class_="origin"),
        status,
        paragraphs(record.doc) if record.doc.strip() else tag("p", "It has no docstring.", class_="quiet"),
        class_="implementation",
    )
