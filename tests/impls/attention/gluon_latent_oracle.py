"""The Gluon decode kernel on a GPU: 320 random shapes against attention in FP64, and device times.

`python -m tests.impls.attention.gluon_latent_oracle [first]` tries the cases from `first` on, those of all launches
before the random ones, and says what is wrong; `--time [section ...]` prints device times of the kernel, its plan and
its merge, and of the Triton kernel, with cold L2 behind a gate. A hang shows as the last case said to be tried.
"""

# ruff: noqa: E402 - a registry must be loading when the modules are first imported
from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.registry import load

load("impls")

from impls.attention.cache import FP8_LATENT, quantize
from impls.attention.gluon_latent_decode import attended, latent_decode, plan_for
from impls.attention.gluon_latent_plan import merge, planned
from impls.attention.triton_latent_decode import latent_decode as triton_decode
from impls.attention.triton_latent_decode import launch_for as triton_launch
from tests.impls.attention.triton_oracle import SCALE, drawn, expected

CASES = 320
LIMIT = 6e-3
BYTES_A_SECOND = 4.35e12  # what reading 4 GiB reaches on an H200
ODD = (
    # lengths, new tokens, heads
    ([1], 1, 16),
    ([1, 63, 64, 65, 127, 128, 129], 1, 16),
    ([4097, 130], 2, 16),
    ([5000, 3], 1, 32),
    ([777, 64, 4096], 2, 32),
    ([1, 2049], 1, 64),
    ([130, 2049], 2, 128),
    ([70000, 31], 1, 128),
)


@dataclass(frozen=True)
class Case:
    """Lengths with the new tokens, new tokens, heads, cache format, and parts of the plan."""

    lengths: list[int]
    tokens: int
    heads: int
    fp8: bool
    parts: int


def cases() -> Iterator[Case]:
    """Odd shapes for every launch, then any: the same each time."""
    for lengths, tokens, heads in ODD:
        for fp8 in (False, True):
            yield Case(lengths, tokens, heads, fp8, 132 // -(-tokens * heads // 64))
    draw = random.Random(8)
    while True:
        tokens, heads = draw.choice((1, 1, 2)), draw.choice((16, 32, 64, 128, draw.randint(1, 130)))
        longest = draw.choice((70, 300, 3000, 9000))
        lengths = [draw.randint(tokens, longest) for _ in range(draw.choice((1, 2, 5, 17, 64)))]
        yield Case(lengths, tokens, heads, draw.random() < 0.5, draw.choice((1, 7, 33, 66, 132, 132, 200)))


def error(case: Case, seed: int, device: str) -> float:
    """Relative Frobenius error of one case, twice launched: what is written must not depend on what was there."""
    q, cache, lengths_B = drawn(case.lengths, case.tokens, case.heads, case.fp8, torch.bfloat16, device, seed)
    truth = expected(q, cache, lengths_B)
    plan = planned(lengths_B, case.parts)
    results = [latent_decode(q, cache.pages, cache.table_BN, lengths_B, SCALE, plan) for _ in range(2)]
    if not torch.equal(*results):
        return float("inf")
    return float((results[0].double() - truth).norm() / truth.norm())


def check(first: int) -> int:
    """How many cases are wrong, from the `first` on."""
    wrong, worst = [], 0.0
    for index, case in zip(range(CASES), cases(), strict=False):
        if index >= first:
            print(f"at {index} ", end="" if index % 16 else f"{case}\n", flush=True)
            found = error(case, index, "cuda")
            worst = max(worst, found if found < LIMIT else 0.0)
            if not found < LIMIT:
                wrong.append(f"WRONG by {found:.2e}: {index} {case}")
    print("", *wrong[:20], f"{CASES - first} tried, {len(wrong)} wrong, else {worst:.2e} at most", sep="\n")
    return len(wrong)


@dataclass(frozen=True)
class Drawn:
    """A decode step of the size timed: queries, pages, table, lengths."""

    q: Tensor
    pages: Tensor
    table: Tensor
    lengths: Tensor

    @property
    def arguments(self) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
        """What both kernels take first."""
        return self.q, self.pages, self.table, self.lengths, SCALE


def step(lengths: list[int], tokens: int, heads: int, fp8: bool) -> Drawn:
    """Random queries and pages, the pages in random order."""
    most = -(-max(lengths) // 64)
    table = torch.randperm(len(lengths) * most, device="cuda").view(len(lengths), most).int()
    pages = torch.empty(
        table.numel(), 64, 656 if fp8 else 576, device="cuda", dtype=torch.uint8 if fp8 else torch.bfloat16
    )
    for some in pages.split(1024):
        values = torch.randn(len(some), 64, 576, device="cuda").bfloat16()
        some.copy_(quantize(values[..., :FP8_LATENT], values[..., FP8_LATENT:]) if fp8 else values)
    q = torch.randn(len(lengths), tokens, heads, 576, device="cuda").bfloat16()
    return Drawn(q, pages, table, torch.tensor(lengths, dtype=torch.int32, device="cuda"))


def sizes(section: str) -> list[tuple[str, list[int], int, int]]:
    """Name, lengths, new tokens and heads of a section's lines. Raises KeyError for an unknown one."""
    generator = torch.Generator().manual_seed(1)
    ragged = torch.randint(2048, 4097, (128,), generator=generator).tolist()
    alike = [round(sum(ragged) / 128)] * 128
    every = {
        "large": [(f"b128 s4096 h{heads}", [4096] * 128, 1, heads) for heads in (16, 32, 64, 128)],
        "two": [(f"b128 s4096 t2 h{heads}", [4096] * 128, 2, heads) for heads in (16, 128)],
        "ragged": [
            (f"b128 {name} h{heads}", lengths, 1, heads)
            for heads in (16, 64, 128)
            for name, lengths in (("ragged", ragged), ("same sum", alike))
        ],
        "small": [
            (f"b{batch} s{length} h{heads}", [length] * batch, 1, heads)
            for batch in (1, 8)
            for length in (8192, 32768, 131072)
            for heads in (16, 128)
        ],
    }
    return every[section]


def times(sections: list[str]) -> None:
    """A line for each size and cache: the kernel, plan and merge on their own, all of them, the Triton kernel."""
    from tests.impls.ffn.triton_moe_times import Bench

    bench = Bench()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; us, a minus where the host bound it")
    print(
        f"{'':28s}{'kernel':>9s}{'plan':>7s}{'merge':>7s}{'all':>9s}{'triton':>9s}{'floor':>8s}{'TB/s':>7s}{'TFLOP/s':>9s}"
    )
    for section in sections:
        for name, lengths, tokens, heads in sizes(section):
            for fp8 in (False, True):
                print(f"{name} {'fp8' if fp8 else 'bf16':5s}".ljust(28), end="", flush=True)
                print(_line(bench, step(lengths, tokens, heads, fp8), lengths, fp8), flush=True)


def _line(bench: Any, given: Drawn, lengths: list[int], fp8: bool) -> str:
    """Figures of one size."""
    tokens, heads = given.q.shape[1:3]
    plan = plan_for(given.lengths, tokens * heads, fp8)
    pieces = attended(*given.arguments, plan)
    took = [
        bench.microseconds(call)
        for call in (
            lambda: attended(*given.arguments, plan),
            lambda: plan_for(given.lengths, tokens * heads, fp8),
            lambda: merge(pieces.parts, pieces.lse, plan, pieces.o.flatten(1, 2)),
            lambda: latent_decode(*given.arguments, plan_for(given.lengths, tokens * heads, fp8)),
            lambda: triton_decode(
                *given.arguments, triton_launch(len(lengths), tokens * heads, max(lengths), fp8, 132)
            ),
        )
    ]
    moved = sum(lengths) * (656 if fp8 else 1152) + given.q.numel() * 2 + pieces.o.numel() * 2
    rates = f"{moved / took[0] / 1e6:7.2f}{2 * sum(lengths) * tokens * heads * (576 + 512) / took[0] / 1e6:9.0f}"
    floor = moved / BYTES_A_SECOND * 1e6
    return f"{took[0]:9.1f}{took[1]:7.1f}{took[2]:7.1f}{took[3]:9.1f}{took[4]:9.1f}{floor:8.1f}{rates}"


def main(words: list[str]) -> int:
    """All cases, those from the number in `words` on, or `--time` of some sections or all; 1 if anything is wrong."""
    if not torch.cuda.is_available():
        print("there is no GPU here: tests/impls/attention/test_gluon_latent.py runs the kernel as plain Python")
        return 2
    if words and words[0] == "--time":
        times(words[1:] or ["large", "two", "ragged", "small"])
        return 0
    return 1 if check(int(words[0]) if words else 0) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
