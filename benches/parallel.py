"""`make bench-ep RANKS=4`: one mixture-of-experts layer over several ranks, experts in order against EPLB's placements.

Ranks are processes on this host: over gloo on a CPU, over NCCL with a GPU each. With fewer GPUs than ranks, one device
plays them all and only their shares are measured. What placements would do at 8 to 320 ranks of DeepSeek-V3 is computed
besides, and called simulated.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benches import parallel_records, parallel_simulated
from benches.mixtures import RECORDED, skew_of
from benches.parallel_plan import CPU_TOKENS, GPU_TOKENS, PLACEMENTS, Plan, counted, sized
from benches.parallel_records import METRICS, Book
from harness.folder import new_folder
from harness.machine import fingerprint
from harness.metrics import COMMON
from harness.ranks import PATIENCE, Ranks, RanksLost
from harness.record import Header, Record, RunWriter
from harness.telemetry.sampler import Sampler
from harness.terminal import aligned
from harness.units import full, interval, plain, show

PROGRAM = ("-m", "benches.parallel_rank")
BUDGETS = {"cpu": 60.0, "cuda": 120.0}
ENDING_SECONDS = 4.0  # of the budget: to end the ranks and write what they found
COLUMNS = ("case", "placement", "completion", "95 % interval", "vs contiguous", "slowest compute", "max/mean",
           "rows max/mean", "waiting", "exchanged")  # fmt: skip


class Refused(Exception):
    """The request cannot be met; the message says why."""


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m benches.parallel", description=__doc__)
    parser.add_argument("--ranks", type=int, default=2, help="processes among which the experts are divided")
    parser.add_argument("--model", help="a bundled name, or the path of a Hugging Face config.json")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: GPUs where there are any")
    parser.add_argument("--budget", type=float, help="seconds for the whole run; default 60, on GPUs 120")
    parser.add_argument("--skew", nargs="+", default=["0", "1"], help="0 is uniform, 1 is Zipf's law; or recorded")
    parser.add_argument("--tokens", type=int, help=f"of each rank; default {CPU_TOKENS}, on GPUs {GPU_TOKENS}")
    parser.add_argument("--nodes", type=int, help="that EPLB's hierarchy assumes; default 2 if the ranks divide")
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds until a silent rank ends the run")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are kept")
    return parser.parse_args(words)


def planned(asked: argparse.Namespace, begun: float) -> Plan:
    """The plan of a request. Raises Refused for one that cannot be met."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    device = asked.device or ("cuda" if gpus else "cpu")
    if device == "cuda" and not gpus:
        raise Refused("--device cuda: no GPU is available here")
    budget = BUDGETS[device] if asked.budget is None else asked.budget
    try:
        model = sized(asked.model, device)
        return Plan(
            model=model.name,
            shape=model.shape,
            ranks=asked.ranks,
            device=device,
            apart=device == "cuda" and gpus < asked.ranks,
            nodes=asked.nodes if asked.nodes is not None else 2 if asked.ranks % 2 == 0 else 1,
            tokens=asked.tokens if asked.tokens is not None else GPU_TOKENS if device == "cuda" else CPU_TOKENS,
            skews=tuple(dict.fromkeys(map(skew_of, asked.skew))),
            until=begun + budget - ENDING_SECONDS,
            field=counted(asked.model, device),
        )
    except ValueError as error:
        raise Refused(str(error)) from error


class Measurement:
    """One run: its folder, its ranks, its records."""

    def __init__(self, plan: Plan, runs: Path, options: dict[str, Any]) -> None:
        self.plan = plan
        root = parallel_records.ROOT
        self.folder = new_folder(runs, f"ffn-parallel-r{plan.ranks}", root)
        self._metrics = COMMON | METRICS
        self._writer = RunWriter(self.folder)
        self._sampler = Sampler()
        self.records: list[Record] = []
        self.problems: list[str] = []
        self._writer.header(
            Header(
                run=self.folder.name,
                started=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
                machine=fingerprint(root),
                ceilings={},
                options=options,
                metrics=self._metrics,
            )
        )

    def keep(self, records: Sequence[Record]) -> None:
        """On disk at once."""
        for record in records:
            self._writer.record(record, self._metrics)
            self.records.append(record)

    def measure(self, program: Sequence[str], patience: float) -> None:
        """All cases; what was lost is recorded with the reason, what was measured before stays."""
        plan = self.plan
        folder = (self.folder / "ranks").resolve()
        folder.mkdir(parents=True)
        plan.write(folder)
        if plan.device == "cuda":
            self._sampler.start()
        book, cases = Book(plan), {case.id: case for case in plan.cases()}
        ranks = Ranks([*program, str(folder)], 1 if plan.apart else plan.ranks, folder, parallel_records.ROOT, patience)
        begin = time.monotonic()
        try:
            for event in ranks.events():
                complete = book.add(event)
                if complete is not None:
                    window = self._telemetry(begin, time.monotonic())
                    self.keep(book.records(cases.pop(complete), self._writer, window))
                    begin = time.monotonic()
        except RanksLost as lost:
            case, *others = cases.values()
            self.keep(book.lost(case, lost.status, str(lost)))
            self.problems.append(str(lost))
            self.problems += [f"{other.id} was not reached" for other in others]
        finally:
            ranks.close()
            self._sampler.stop()

    def _telemetry(self, begin: float, end: float) -> dict[str, Any] | None:
        """The first GPU's summary, as every record has it, and every GPU's."""
        count = 1 if self.plan.apart else self.plan.ranks
        found = [self._sampler.summary(begin, end, index) for index in range(count)]
        return None if found[0] is None else {**found[0], "gpus": found}


def table(records: Sequence[Record]) -> list[str]:
    """One line a case and placement that was measured."""
    measured = [r for r in records if not r.implementation.startswith(parallel_simulated.PREFIX)]
    lines = aligned([COLUMNS, *(_row(record) for record in measured if record.status == "passed")])
    for record in measured:
        if record.status != "passed":
            lines.append(f"  {record.case} {record.implementation}: {record.status.upper()}: {record.reason}")
    return lines


def _row(record: Record) -> tuple[str, ...]:
    def shown(metric: str) -> str:
        value = record.value(metric)
        return "-" if value is None else plain(show(value, (COMMON | METRICS)[metric].unit))

    ratio = record.figures.get("ratio", record.figures.get("compute_ratio"))
    return (
        f"{record.model}/{record.sizes}",
        record.implementation,
        shown("latency"),
        interval(record.figures.get("latency"), "ns") or "-",
        plain(full(ratio, "ratio")) if ratio else "-",
        shown("compute_slowest"),
        shown("rank_max_over_mean"),
        shown("token_max_over_mean"),
        shown("waiting_share"),
        shown("exchanged_bytes"),
    )


def simulated_table(records: Sequence[Record]) -> list[str]:
    """Rows of the busiest rank over the mean: one line a number of ranks and skew, one column a placement."""
    cases: dict[str, dict[str, str]] = {}
    for record in records:
        if record.implementation.startswith(parallel_simulated.PREFIX):
            value = record.value("token_max_over_mean")
            name = record.implementation.removeprefix(parallel_simulated.PREFIX)
            cases.setdefault(f"{record.model}/{record.sizes}", {})[name] = "-" if value is None else f"{value:.2f}"
    return aligned([("case", *PLACEMENTS), *((case, *(row[n] for n in PLACEMENTS)) for case, row in cases.items())])


def notes(plan: Plan) -> list[str]:
    """What a reader of the table must know."""
    found = [
        f"{plan.ranks} ranks, {plan.tokens} tokens each, {plan.shape.router.experts} experts, {plan.replicas} physical "
        f"ones under EPLB, which is given the loads it will meet; {plan.nodes} nodes assumed for its hierarchy"
    ]
    if plan.apart:
        found.append("one device played all ranks in turn: shares of the work, nothing exchanged, no completion time")
    elif plan.device == "cpu" and plan.ranks > parallel_records.cores():
        found.append(f"{plan.ranks} ranks share {parallel_records.cores()} cores: they also wait for each other's turn")
    return found


def main(words: Sequence[str] | None = None, program: Sequence[str] = PROGRAM) -> int:
    """Exit status: 0 all verified; 1 something failed; 2 the request could not be met; 130 stopped."""
    begun = time.monotonic()
    asked = arguments(words)
    try:
        plan = planned(asked, begun)
    except Refused as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return 2
    options = {k: v for k, v in vars(asked).items() if k != "runs"}
    options |= {"study": "ffn", "device": plan.device, "nodes": plan.nodes, "tokens": plan.tokens, "apart": plan.apart}
    options["budget"] = asked.budget or BUDGETS[plan.device]
    options["command"] = f"make bench-ep RANKS={plan.ranks} DEVICE={plan.device}"
    try:
        run = Measurement(plan, asked.runs, options)
        run.keep(list(parallel_simulated.records(dict.fromkeys([*plan.skews, RECORDED]))))
        run.measure(program, asked.patience)
    except OSError as error:
        print(f"error: the run cannot be written: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; what was measured before is kept", file=sys.stderr)
        return 130
    for line in ["simulated: rows of the busiest rank over the mean", *simulated_table(run.records), "", *notes(plan),
                 *table(run.records)]:  # fmt: skip
        print(line)
    for problem in run.problems:
        print(f"problem: {problem}", file=sys.stderr)
    bad = [r for r in run.records if r.status not in ("passed", "unavailable")]
    print(f"run: {run.folder} · {time.monotonic() - begun:.0f} s")
    return 1 if bad or run.problems else 0


if __name__ == "__main__":
    sys.exit(main())
