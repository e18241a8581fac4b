"""What each rank of `python -m benches.parallel` runs: verify every placement, time them round by round, verify again.

Between ranks: a phase of its own tokens, dispatch, the experts, combine. With one device for all ranks their shares are
measured one after another, and rows change hands in this process, untimed.
Shape suffixes: M tokens, D hidden.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benches.parallel_plan import MOST_ROUNDS, OPERATION, PLACEMENTS, TECHNIQUE, Case, Plan
from harness import Operation, verify
from harness.clock import CacheFlush
from harness.rank import Phase, Rank, run
from impls.ffn import cost, expert_parallel
from impls.ffn.expert_parallel import Share
from impls.ffn.inputs import TokenInputs, draw_tokens, token_pieces
from impls.ffn.layers import tokens_with
from impls.ffn.reference import mixture_forward
from impls.ffn.weights import MoeWeights, draw_weights

LEAST_ROUNDS = 5
DRAWS = 2
SECOND_SHARE = 1.3  # what the second verification is given, over what the first one took
CONTRACT = Operation(
    OPERATION,
    weights=draw_weights,
    inputs=draw_tokens,
    cost=cost.layer,
    tokens=lambda shape: shape.tokens,
    baseline=(f"{TECHNIQUE}/{PLACEMENTS[0]}",),
    pieces=token_pieces,
)
Times = Mapping[str, float]


class Between:
    """A placement on this rank; the other ranks are other processes."""

    def __init__(self, rank: Rank, share: Share) -> None:
        self._rank, self._share = rank, share
        self.members = [rank.number]

    def __call__(self, x: Mapping[int, Tensor]) -> tuple[dict[int, Tensor], dict[int, dict[str, Any]]]:
        """Results and what was measured, by member."""
        phases = [
            Phase("local", lambda x_MD: expert_parallel.prepare(self._share, x_MD, self._rank.count)),
            Phase("dispatch", lambda out: (out, expert_parallel.dispatch(out)), exchange=True),
            Phase("compute", lambda state: (*state, expert_parallel.compute(self._share, state[1]))),
            Phase("combine", lambda state: (state[1], expert_parallel.combine(*state)), exchange=True),
        ]
        me = self._rank.number
        (arrived, y_MD), times = self._rank.timed(phases, x[me])
        return {me: y_MD}, {me: _measured(times, arrived, me)}


class Apart:
    """A placement whose ranks are all played by this process, one after another."""

    def __init__(self, rank: Rank, shares: list[Share]) -> None:
        self._rank, self._shares = rank, shares
        self.members = list(range(len(shares)))

    def __call__(self, x: Mapping[int, Tensor]) -> tuple[dict[int, Tensor], dict[int, dict[str, Any]]]:
        """Results and what was measured, by member; nothing of the exchange."""
        outs, times = [], []
        for share in self._shares:
            out, local = self._timed(
                "local", lambda share: expert_parallel.prepare(share, x[share.rank], len(x)), share
            )
            outs.append(out)
            times.append(local)
        arrived = expert_parallel.dispatch_here(outs)
        rows = []
        for share, one in zip(self._shares, arrived, strict=True):
            computed, spent = self._timed("compute", lambda given: expert_parallel.compute(*given), (share, one))
            rows.append(computed)
            times[share.rank] = {"local": times[share.rank]["local"], "compute": spent["compute"]}
        results = expert_parallel.combine_here(outs, arrived, rows)
        measured = {m: _measured(times[m], arrived[m], m) for m in self.members}
        return dict(enumerate(results)), measured

    def _timed(self, name: str, call: Callable[[Any], Any], state: Any) -> tuple[Any, Times]:
        return self._rank.timed([Phase(name, call)], state)


def _measured(times: Times, arrived: expert_parallel.Arrived, member: int) -> dict[str, Any]:
    sent = expert_parallel.sent_bytes(arrived, member)
    return {"ns": dict(times), "tokens": sum(arrived.received), "bytes": sent}


class Trial:
    """One case on this rank: its placements verified, timed in turn, verified."""

    def __init__(self, rank: Rank, plan: Plan, case: Case, w: MoeWeights, flush: CacheFlush) -> None:
        self._rank, self._case, self._w, self._flush = rank, case, w, flush
        self._names = list(PLACEMENTS)
        self._layers: dict[str, Between | Apart] = {}
        for name in self._names:
            placement = plan.placement(name, case)
            if plan.apart:
                shares = [expert_parallel.share(w, placement, member) for member in range(plan.ranks)]
                self._layers[name] = Apart(rank, shares)
            else:
                self._layers[name] = Between(rank, expert_parallel.share(w, placement, rank.number))

    @property
    def _members(self) -> list[int]:
        return self._layers[self._names[0]].members

    def run(self, until: float) -> None:
        """Measure until about then, the second verification included."""
        begin = time.monotonic()
        self._check("before")
        preparing = time.monotonic() - begin
        if self._names:
            self._rank.report("barrier", case=self._case.id, ns=self._rank.barrier_ns())
            self._rounds(until - SECOND_SHARE * preparing)
            self._check("after")
        self._rank.report("case", case=self._case.id)

    def _draw(self) -> tuple[int, dict[int, Tensor]]:
        """A seed, and hidden states of each member here, another draw each."""
        seed = self._rank.from_first(random.SystemRandom().randrange(2**31))
        return seed, {member: self._drawn(seed + member) for member in self._members}

    def _drawn(self, seed: int) -> Tensor:
        generator = torch.Generator(self._rank.device).manual_seed(seed)
        return draw_tokens(self._case.shape, TECHNIQUE, generator).x_MD

    def _check(self, when: str) -> None:
        """Judge a call of each placement on inputs of its own; those wrong on any rank are out."""
        seed, x = self._draw()
        truths = {}
        for member, x_MD in x.items():
            self._rank.alive("the reference")
            setup, inputs = tokens_with(mixture_forward), TokenInputs(x_MD)
            device = self._rank.device.type
            truths[member] = verify.compute_truth(CONTRACT, setup, self._w, inputs, self._case.shape, device)
        for name in list(self._names):
            verify.poison_free_memory(x)
            results, _ = self._layers[name](x)
            words = {"case": self._case.id, "contender": name, "when": when, "seed": seed}
            right = [self._judge(words | {"member": m}, results[m], truths[m]) for m in x]
            if not self._rank.all_true(all(right)):
                self._names.remove(name)

    def _judge(self, words: Mapping[str, Any], result: Tensor, truth: verify.Truth) -> bool:
        found: dict[str, Any] = {"limit": truth.limit, "precision": truth.precision}
        try:
            off = verify.check(result, truth)
            found |= {"error": off.error, "worst": off.worst}
        except verify.Incorrect as wrong:
            found["reason"] = str(wrong)
        self._rank.report("verdict", **words, **found)
        return "reason" not in found

    def _rounds(self, until: float) -> None:
        """All placements once a round, in random order, on rows in another order, caches cold."""
        draws = [self._draw()[1] for _ in range(DRAWS)]
        order = random.Random(self._rank.from_first(random.SystemRandom().randrange(2**31)))
        buffers = {member: torch.empty_like(x_MD) for member, x_MD in draws[0].items()}
        for number in range(MOST_ROUNDS):
            going = time.monotonic() < until or number < LEAST_ROUNDS
            if not self._rank.from_first(int(going)):
                break
            for name in order.sample(self._names, len(self._names)):
                shift = order.randrange(self._case.shape.tokens)
                for member, x_MD in draws[number % DRAWS].items():
                    buffers[member].copy_(x_MD.roll(shift + member, 0))
                self._flush()
                _, measured = self._layers[name](buffers)
                for member, found in measured.items():
                    words = {"case": self._case.id, "contender": name, "round": number, "member": member}
                    self._rank.report("iteration", **words, **found)


def program(plan: Plan) -> Callable[[Rank], None]:
    """All cases, each with its part of the time that is left."""

    def measure(rank: Rank) -> None:
        rank.alive("drawing weights")
        torch.set_num_threads(1)
        with torch.inference_mode():
            generator = torch.Generator(rank.device).manual_seed(0)
            w = draw_weights(next(plan.cases()).shape, TECHNIQUE, generator)
            flush = CacheFlush(rank.device.type)
            cases = list(plan.cases())
            for number, case in enumerate(cases):
                rank.alive("shares of the experts")
                trial = Trial(rank, plan, case, w, flush)
                left = plan.until - time.monotonic()
                trial.run(time.monotonic() + left / (len(cases) - number))

    return measure


def main(words: list[str]) -> None:
    """`folder`: where the plan is and events go."""
    folder = Path(words[0])
    plan = Plan.read(folder)
    run(program(plan), folder, plan.device)


if __name__ == "__main__":
    main(sys.argv[1:])
