"""What does each idea buy, alone and together? Sixteen small models, each of four ideas on or off.

`python -m benches.ladder` (`make ladder`) trains all on the same bytes in the same order, one step each in turn, then
lets all generate under the same load, and writes a run: one record a combination. The closing tables say what a choice
does averaged over the others, in pairs, when it is left out of all four, and when it is added on the way up. A small
model shows the direction, not the size, and one seed does not separate losses that are close. What was stopped goes on
with RESUME=, and so does what the budget ended before its last step, all sixteen at the same one. Not here: joules a
token and the largest batch that fits, which need a GPU.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benches import effects
from benches.balance import Refused, described
from benches.ladder_plan import LEAST_STEPS, METRICS, PLANS, Plan
from harness import memory
from harness.folder import new_folder
from harness.machine import fingerprint
from harness.metrics import COMMON
from harness.record import Figure, Header, Record, RunWriter, read_run
from harness.statistics import median_estimate
from harness.units import aligned, digits, duration, plain, show
from impls.composed.combination import AXES, Combination, combinations
from impls.composed.ladder_trial import NAME, sizes
from impls.model import checkpoint
from impls.model.corpus import Corpus, read_corpus, windows
from impls.model.generation import Outcome, Plain, Speculative
from impls.model.loop import SAVING_SHARE, fit, points, resume
from impls.model.training import Training

ROOT = Path(__file__).parents[1]
BATCHES = (1, 8)
ROUNDS = 3
KEPT = ("preset", "steps", "product", "device", "budget", "threads")
MARGIN, OVERRUN = 0.85, 40.0  # of the budget that is planned; seconds on top of it in which a stretch must end
TIMED = 3
TOLD = {"step_time": True, "generate_rate_1": True, "generate_rate_8": True, "kv_bytes": True, "validation_bits": False}


@dataclass(frozen=True)
class Served:
    """How fast a combination generated, tokens a second by batch, and how its drafts fared with the largest."""

    rates: Mapping[int, float]
    outcome: Outcome


class Ladder:
    """A run: its folder, its plan, its records. `begin` starts one and `again` opens one to finish it."""

    def __init__(self, plan: Plan, corpus: Corpus, folder: Path, header: Header, price: float | None) -> None:
        self.plan, self.corpus, self.folder, self.header, self.price = plan, corpus, folder, header, price
        self.writer, self.until, self.short = RunWriter(folder), math.inf, False

    @classmethod
    def begin(cls, plan: Plan, runs: Path, data: str | None, price: float | None) -> Ladder:
        """A new run. Raises Refused for a request that cannot be met."""
        begun, corpus = time.monotonic(), corpus_of(plan, data)
        asked = plan
        plan, after = settled(asked, corpus, begun)
        folder = new_folder(runs, "model-ladder", ROOT)
        kept = {name: getattr(plan, name) for name in KEPT} | {"data": data} | described(corpus)
        options = {"study": "model", "device": plan.device, "tier": plan.preset, "ladder": kept}
        started = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        header = Header(folder.name, started, fingerprint(ROOT), {}, options, {**COMMON, **METRICS})
        ladder = cls(plan, corpus, folder, header, price)
        ladder.writer.header(header)
        if asked.steps is None:
            ladder.until = begun + asked.budget + OVERRUN - after
        return ladder

    @classmethod
    def again(cls, folder: Path, price: float | None) -> Ladder:
        """A run to finish. Raises Refused where it is none, or reads other data here."""
        try:
            run = read_run(folder)
            kept = dict(run.header.options["ladder"])
            plan = replace(PLANS[kept["preset"]](), **{name: kept[name] for name in KEPT})
        except (OSError, ValueError, KeyError) as error:
            raise Refused(f"RESUME={folder}: this is no ladder that can be finished: {error}") from error
        done = {r.technique for r in run.records if r.timing.get("steps") == plan.steps}
        if done >= {one.name for one in combinations()}:
            raise Refused(f"RESUME={folder}: all {len(done)} combinations are recorded")
        corpus = corpus_of(plan, kept["data"])
        if corpus.digest != kept["digest"]:
            raise Refused(f"RESUME={folder}: it reads {kept['label']} with another digest; begin a new run")
        return cls(plan, corpus, folder, run.header, price)

    @cached_property
    def xz_bits(self) -> float:
        """Bits a byte of a general compressor on the whole validation part, beside which validation stands."""
        return self.corpus.xz_bits

    def run(self, say: Callable[[str], None] = print) -> list[Record]:
        """Train what is not trained, let all generate, and record each."""
        plan, checkpoints = self.plan, self.folder / "checkpoints"
        torch.set_num_threads(plan.threads or torch.get_num_threads())
        data_N = self.corpus.train_N
        models = {one.name: plan.training(one, data_N) for one in combinations()}
        try:
            for name in resume(models, checkpoints):
                say(f"{name}: goes on from step {models[name].done}")
        except ValueError as error:
            raise Refused(f"RESUME={self.folder}: {error}") from error
        windows_BT = windows(self.corpus.validation_N, plan.windows, plan.recipe.length)

        def reached(stop: int, left: float) -> bool:
            bits = [t.curves["validation_bits"][-1] for t in models.values() if t.curves]
            say(f"[{stop:>4}/{plan.steps}] {min(bits):.3f} to {max(bits):.3f} bits/byte · {duration(left)} left")
            stretch = left / max(1, sum(later > stop for later in stops))
            self.short = stop < stops[-1] and time.monotonic() + stretch > self.until
            return self.short

        stops = points(plan.steps or 0, plan.stops)
        failed = fit(models, windows_BT, stops, checkpoints, reached=reached)
        going = {name: training for name, training in models.items() if name not in failed}
        served = serve(plan, going, windows(self.corpus.validation_N, max(BATCHES), plan.prompt))
        finished = [name for name, training in models.items() if training.done == plan.steps]
        records = [self._record(one, models[one.name], served, failed) for one in combinations()]
        for name in finished:
            (checkpoints / f"{name}{checkpoint.SUFFIX}").unlink(missing_ok=True)
        return records

    def _record(
        self, one: Combination, training: Training, served: Mapping[str, Served], failed: Mapping[str, str]
    ) -> Record:
        plan, why, steps = self.plan, failed.get(one.name), training.done  # counting memory takes a step more
        record = Record(
            f"{NAME}/{plan.model}/s{plan.steps}",
            "model",
            NAME,
            plan.model,
            f"s{plan.steps}",
            {
                "shape": asdict(training.model.shape),
                "recipe": asdict(training.recipe),
                "corpus": described(self.corpus),
            },
            technique=one.name,
            implementation=plan.product if one.linear == "fp8" else "reference",
            kind="reference",
            status="error" if why else "passed",
            reason=why,
            figures={} if why else self._figures(training, served[one.name]),
            series=dict(training.curves),
            timing={"clock": "wall", "steps": steps, "pairing": "interleaved", "threads": plan.threads},
            doc=f"The model with {one.told}.",
        )
        self.writer.record(record, self.header.metrics)
        return record

    def _figures(self, training: Training, served: Served) -> dict[str, Figure]:
        recipe = training.recipe
        times = median_estimate(np.array(training.times, dtype=np.float64))
        known = math.isfinite(times.low) and math.isfinite(times.high)
        found = {
            "validation_bits": training.curves["validation_bits"][-1],
            "train_loss": training.curves["train_loss"][-1],
            "train_rate": recipe.batch * recipe.length / (times.value * 1e-9),
            **sizes(training),
            "xz_bits": self.xz_bits,
            "steps": training.done,
            **{f"generate_rate_{batch}": rate for batch, rate in served.rates.items()},
        }
        if served.outcome.accepted_K:
            found["acceptance"] = served.outcome.acceptance[0]
        if self.price is not None:
            found["million_tokens"] = self.price / 3600 * 1e6 / served.rates[max(BATCHES)]
        found["peak"] = peak_of(training, self.plan.device)
        figures = {name: Figure(float(value)) for name, value in found.items()}
        figures["step_time"] = Figure(times.value, times.low, times.high) if known else Figure(times.value)
        return figures


def serve(
    plan: Plan, models: Mapping[str, Training], prompts_BP: Tensor, rounds: int | None = None
) -> dict[str, Served]:
    """All generate the same number of tokens after the same prompts, in turn, `ROUNDS` times after one that does not
    count; rates are medians, and not a number where `rounds` is 0."""
    rounds = ROUNDS if rounds is None else rounds
    prompts_BP = prompts_BP[:, : plan.prompt].to(plan.device)
    found: dict[str, dict[int, float]] = {name: {} for name in models}
    outcomes: dict[str, Outcome] = {}
    for batch in BATCHES:
        given_BP = prompts_BP[:batch]
        seconds: dict[str, list[float]] = {name: [] for name in models}
        lengths_B = torch.full((len(given_BP),), plan.prompt, device=plan.device)
        servers = {}
        for name, training in models.items():
            kind = Speculative if training.model.ahead else Plain
            servers[name] = kind(training.model, len(given_BP), plan.prompt, plan.count)
        for number in range(1 + rounds):
            for name, server in servers.items():
                begun = time.perf_counter()
                outcomes[name] = server.run(given_BP, lengths_B)
                if plan.device == "cuda":
                    torch.cuda.synchronize()
                if number:
                    seconds[name].append(time.perf_counter() - begun)
        for name in models:
            found[name][batch] = len(given_BP) * plan.count / float(np.median(seconds[name] or [math.nan]))
    return {name: Served(rates, outcomes[name]) for name, rates in found.items()}


def peak_of(training: Training, device: str) -> int:
    """Highest allocation during one more step, above what was there before. The profiler's own words are not shown."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        return memory.measure(training.advance, device)[1].peak
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def corpus_of(plan: Plan, data: str | None) -> Corpus:
    """The text to train on. Raises Refused where it or the device is not there."""
    if plan.device == "cuda" and not torch.cuda.is_available():
        raise Refused("DEVICE=cuda: PyTorch finds no GPU here")
    try:
        return read_corpus(data)
    except (OSError, ValueError) as error:
        raise Refused(f"DATA={data or ''}: {error}") from error


def settled(plan: Plan, corpus: Corpus, begun: float) -> tuple[Plan, float]:
    """The plan with threads and steps set, by timing models that are thrown away, and the seconds that all of them take
    after the last step: generation, and what counts memory. All sixteen train, however few steps that leaves."""
    if plan.threads and plan.steps:
        return plan, 0.0
    ends = combinations()[0], combinations()[-1]
    counts = (plan.threads,) if plan.threads else sorted({1, torch.get_num_threads()})
    stepping = {threads: sum(stepped(plan, one, corpus, threads)[1] for one in ends) for threads in counts}
    plan = replace(plan, threads=min(stepping, key=lambda threads: stepping[threads]))
    if plan.steps is not None:
        return plan, 0.0
    step = validation = after = 0.0
    for one in combinations():
        training, seconds = stepped(plan, one, corpus, plan.threads)
        marks = [time.monotonic()]
        training.evaluate(windows(corpus.validation_N, plan.windows, plan.recipe.length))
        marks.append(time.monotonic())
        serve(plan, {one.name: training}, windows(corpus.validation_N, max(BATCHES), plan.prompt), rounds=0)
        marks.append(time.monotonic())
        if one in ends:
            peak_of(training, plan.device)
            after += (time.monotonic() - marks[-1]) * len(combinations()) / len(ends)
        step, validation = step + seconds, validation + marks[1] - marks[0]
        after += (marks[2] - marks[1]) * (1 + ROUNDS)
    seconds = MARGIN * (plan.budget - (time.monotonic() - begun)) - after - plan.stops * validation
    return replace(plan, steps=max(LEAST_STEPS, int(seconds * (1 - SAVING_SHARE) / step))), after


def stepped(plan: Plan, one: Combination, corpus: Corpus, threads: int | None) -> tuple[Training, float]:
    """A training of a few steps with so many threads, and the seconds of its median step but the first."""
    torch.set_num_threads(threads or torch.get_num_threads())
    training = plan.training(one, corpus.train_N)
    for _ in range(1 + TIMED):
        training.advance()
    return training, float(np.median(training.times[1:])) * 1e-9


def tables(records: list[Record]) -> list[str]:
    """The combinations, then what each choice does."""
    passed = {record.technique: record for record in records if record.status == "passed"}
    lines = [f"  {r.technique}: {r.status.upper()}: {r.reason}" for r in records if r.status != "passed"]
    rows = [("combination", "", *TOLD)]
    for name, record in passed.items():
        rows.append((name, "", *(plain(show(record.value(m), METRICS[m].unit)) for m in TOLD)))
    lines += aligned(rows)
    for metric, ratio in TOLD.items():
        values = {one.settings: passed[one.name].value(metric) or 0.0 for one in combinations() if one.name in passed}
        try:
            lines += ["", *effect_table(metric, values, ratio)]
        except ValueError as error:
            lines.append(f"  {metric}: no effects are told: {error}")
    return lines


def effect_table(metric: str, values: Mapping[tuple[bool, ...], float], ratio: bool) -> list[str]:
    """Main effects, each choice's step up and what leaving it out costs, then interactions."""

    def told(value: float) -> str:
        return f"{digits(value)}×" if ratio else f"{value:+.3f}"

    columns = (effects.main_effects, effects.steps_up, effects.left_out)
    choices = [f"{two} for {one}" for one, two in AXES.values()]
    rows = [(metric, "", "alone, averaged", "added in order", "last of all four")]
    for at, what in enumerate(choices):
        rows.append((what, "", *(told(column(values, ratio)[at]) for column in columns)))
    names = [two for _, two in AXES.values()]
    found = effects.interactions(values, ratio).items()
    pairs = [f"{names[a]} and {names[b]} {told(value)}" for (a, b), value in found]
    lines = [f"    {', '.join(pairs[start : start + 3])}" for start in range(0, len(pairs), 3)]
    return [
        *aligned(rows),
        "  with the second over without it:" if ratio else "  with the second less without it:",
        *lines,
    ]


def main(words: list[str] | None = None) -> int:
    """Exit status: 0 all trained; 1 one failed; 2 the request could not be met; 130 stopped."""
    asked = parsed(words)
    ladder = None
    try:
        ladder = opened(asked)
        print(f"{ladder.corpus.label}: {len(ladder.corpus.train):,} bytes; {ladder.plan.steps} steps of 16 models")
        records = ladder.run(lambda line: print(line, flush=True))
    except Refused as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}; what was written before is kept", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        hint = f"; continue with RESUME={ladder.folder.name}" if ladder else ""
        print(f"\nstopped{hint}", file=sys.stderr)
        return 130
    compressed = f"  xz -9e on the whole validation part: {ladder.xz_bits:.3f} bits/byte"
    short = [f"  the time was up before the last step; finish with RESUME={ladder.folder.name}"] * ladder.short
    print("\n".join(["", *tables(records), compressed, *short, f"{len(records)} records: {ladder.folder}"]))
    return 1 if any(record.status != "passed" for record in records) else 0


def parsed(words: list[str] | None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benches.ladder", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, help="steps of each model; default: what the budget allows")
    parser.add_argument("--budget", type=float, help="seconds in all")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU where there is one")
    parser.add_argument("--data", help="a file or a folder to train on instead of Python's standard library")
    parser.add_argument("--price", type=float, help="of an hour of this machine, for the cost of a million tokens")
    parser.add_argument("--resume", help="a run to finish: its folder or name")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are kept")
    parser.add_argument("--preset", choices=tuple(PLANS), help="sizes; default: those of the device")
    return parser.parse_args(words)


def opened(asked: argparse.Namespace) -> Ladder:
    """The ladder that was asked for. Raises Refused where it cannot be."""
    if asked.price is not None and asked.price <= 0:
        raise Refused(f"PRICE={asked.price:g}: more than 0 is needed")
    if asked.resume is not None:
        folder = Path(asked.resume) if Path(asked.resume).is_dir() else asked.runs / asked.resume
        return Ladder.again(folder, asked.price)
    if asked.steps is not None and asked.steps < 1:
        raise Refused(f"STEPS={asked.steps}: at least 1 is needed")
    device = asked.device or ("cuda" if torch.cuda.is_available() else "cpu")
    plan = PLANS[asked.preset or ("gpu" if device == "cuda" else "cpu")]()
    changes: dict[str, Any] = {"device": device, "steps": asked.steps, "budget": asked.budget or plan.budget}
    return Ladder.begin(replace(plan, **changes), asked.runs, asked.data, asked.price)


if __name__ == "__main__":
    sys.exit(main())
