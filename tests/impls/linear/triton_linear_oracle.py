"""FP8 kernels of ours against the definition, on random sizes, distributions and groups.

`python -m tests.impls.linear.triton_linear_oracle` compares every form of quantizing to the bit, products and grouped
products with FP64, and a layer in training with the reference: on a GPU 320 cases, some small ones under
TRITON_INTERPRET=1. `--time` prints device times beside the library's, `--tune` those of other blocks. Cases run in
other processes, which are started again after one that crashes or hangs; that case is lost and no other. Memory is
filled with NaN before it is written. The last line is "N tried, M wrong".
"""

# ruff: noqa: E402 - a registry must be loading when the modules are first imported
from __future__ import annotations

import os
import random
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.registry import load

load("impls")

from impls.linear import gluon_gemm, triton_gemm, triton_quantize, triton_train
from impls.linear.before import before
from impls.linear.inputs import TrainInputs
from impls.linear.quantize import FLOOR, LARGEST, Quantized, dequantize, quantize, spread
from impls.linear.reference_train import fp8_training, training
from impls.linear.shape import TILE, VALUES, LinearShape
from impls.linear.values import draw

GPU = torch.cuda.is_available()
CASES, PROCESSES = (320, 6) if GPU else (10, 1)
CASE_SECONDS, SECONDS = (60.0, 400.0) if GPU else (120.0, 300.0)
LIMITS = {torch.bfloat16: 4e-3, torch.float16: 1.5e-3, torch.float32: 3e-3 if GPU else 3e-6}
WORST_ROW = 3.0  # times the limit of the whole
KINDS = ("quantize", "fused", "product", "grouped", "train")
if GPU:  # Gluon is not interpreted
    KINDS += ("gluon-product", "gluon-grouped", "gluon-train")
DTYPES = (torch.bfloat16, torch.float32, torch.float16)
SMALL_SIZES = ((128, 0, 256), (0, 128, 128), (256, 128, 0))
MODULE = "tests.impls.linear.triton_linear_oracle"


@dataclass(frozen=True)
class Case:
    """What is compared at which sizes: [M, N, K], or [M, K] where something is quantized; `sizes`: rows of groups."""

    kind: str
    rows: int
    outs: int
    ins: int
    sizes: tuple[int, ...]
    dtype: torch.dtype
    values: str
    power_of_two: bool
    bad: bool
    seed: int


def cases(count: int, small: bool) -> Iterator[Case]:
    """Always the same ones; every kind as often, sizes from one up, aligned and not."""
    draw_case = random.Random(29)
    for seed in range(count):
        top = 2.35 if small else 3.5

        def size(draw_case: random.Random = draw_case, top: float = top) -> int:
            length = max(1, int(10 ** draw_case.uniform(0.8, top)))
            return draw_case.choice((length, -(-length // 16) * 16, -(-length // TILE) * TILE))

        groups = draw_case.choice((1, 3, 8, 20, 33))
        sizes = tuple(TILE * draw_case.choice((0, 1, 2, 5)) for _ in range(groups))
        sizes = SMALL_SIZES[seed % len(SMALL_SIZES)] if small else sizes
        kind = KINDS[seed % len(KINDS)]
        most = 1024 if kind.endswith("train") else 1 << 20
        yield Case(
            kind,
            *(min(size(), most) for _ in range(3)),
            sizes,
            draw_case.choice(DTYPES),
            VALUES[seed // len(KINDS) % len(VALUES)],
            draw_case.random() < 0.4,
            small or draw_case.random() < 0.3,
            seed,
        )


def different(made: Quantized, true: Quantized) -> str | None:
    """Where two are not equal to the bit, NaN aside, which has many forms; None if nowhere."""
    if made.payload.shape != true.payload.shape or made.scale.shape != true.scale.shape:
        return f"{list(made.payload.shape)} with scales {list(made.scale.shape)}"
    payload, scale = made.payload.cpu(), made.scale.cpu()
    both_bad = payload.float().isnan() & true.payload.float().isnan()
    wrong = (payload.view(torch.uint8) != true.payload.view(torch.uint8)) & ~both_bad
    scales = (scale != true.scale) & ~(scale.isnan() & true.scale.isnan())
    if wrong.any() or scales.any():
        return f"{int(wrong.sum())} payloads and {int(scales.sum())} scales"
    return None


def spoiled(x: Tensor, case: Case) -> Tensor:
    """With infinities, NaN, zeros of both signs."""
    if case.bad:
        generator = torch.Generator().manual_seed(case.seed)
        for value in (torch.inf, -torch.inf, torch.nan, 0.0, -0.0):
            x.view(-1)[torch.randint(x.numel(), (2,), generator=generator)] = value
        x[len(x) // 2] = -0.0
    return x


def matrix(case: Case, rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Numbers of the case's distribution, where FP16 has them."""
    x = draw(case.values, rows, columns, generator)
    return (x.clamp(-6e4, 6e4) if case.dtype == torch.float16 else x).to(case.dtype)


def check_quantize(case: Case, device: str, generator: torch.Generator) -> Iterator[tuple[str, str | None]]:
    """Tiles, blocks, turned, both at once, and turned again from FP8, against the definition on the CPU."""
    x = spoiled(matrix(case, case.rows, case.ins, generator), case)
    given, more = x.to(device), case.power_of_two
    turned = x.T.contiguous()
    truth = {grain: (quantize(x, grain, more), quantize(turned, grain, more)) for grain in ("tile", "block")}
    yield "tiles", different(triton_quantize.tiles(given, more), truth["tile"][0])
    yield "transposed", different(triton_quantize.transposed(given, more), truth["tile"][1])
    yield "blocks", different(triton_quantize.blocks(given, more), truth["block"][0])
    for grain in ("tile", "block"):
        made = triton_quantize.squares(given, more, block=grain == "block", straight=True, turned=True)
        for side, one, true in zip(("straight", "turned"), made, truth[grain], strict=True):
            yield f"both {grain} {side}", different(one, true)
    kept = truth["tile"][0]
    again = triton_quantize.transposed(kept.payload.to(device), more, kept.scale.to(device))
    yield "kept", different(again, quantize(dequantize(kept).T.contiguous(), "tile", more))


def check_fused(case: Case, device: str, generator: torch.Generator) -> Iterator[tuple[str, str | None]]:
    """After SwiGLU's product and after RMSNorm: within half a step of what comes before in FP64, and its rounding."""
    weight = (0.5 + torch.rand(case.ins, generator=generator)).to(case.dtype)
    for form, width in (("silu", 2 * case.ins), ("rmsnorm", case.ins)):
        x = torch.randn(case.rows, width, generator=generator).to(case.dtype)
        given = x.to(device)
        if form == "silu":
            made = triton_quantize.tiles(given, case.power_of_two, silu=True)
        else:
            made = triton_quantize.normed(given, weight.to(device), case.power_of_two)
        exact = before(x.double(), weight.double(), form)
        yield form, _outside(Quantized(made.payload.cpu(), made.scale.cpu(), "tile"), exact, case)


def _outside(made: Quantized, exact: Tensor, case: Case) -> str | None:
    """What is not within half a step and three roundings; scales that are not those of the exact values."""
    rounding = 3 * torch.finfo(case.dtype).eps + 1e-6
    scale = spread(made.scale, "tile", *exact.shape).double()
    off = (dequantize(made.wide(torch.float64)) - exact).abs()
    allowed = torch.maximum(2.0**-10 * scale, exact.abs() * 2.0**-4) * (1 + rounding) + exact.abs() * rounding
    largest = torch.nn.functional.pad(exact.abs(), (0, -exact.shape[1] % TILE)).unflatten(1, (-1, TILE)).amax(2).T
    ratio = made.scale.double() / (largest.clamp_min(FLOOR) / LARGEST)
    most = 2 if case.power_of_two else 1
    wrong, scales = ~(off <= allowed), ~((ratio >= 1 - rounding) & (ratio <= most * (1 + rounding)))
    return f"{int(wrong.sum())} payloads and {int(scales.sum())} scales" if wrong.any() or scales.any() else None


def far(result: Tensor, truth: Tensor, limit: float) -> str | None:
    """What is wrong with a result as a whole and in its worst row, or None; NaN is."""
    difference, true = (result.to(truth.dtype) - truth).flatten(0, -2), truth.flatten(0, -2)
    if not true.any():
        return "not all zeros" if difference.any() else None
    usual = (true.norm() / len(true) ** 0.5).clamp_min(1e-30)
    whole = float(difference.norm() / true.norm())
    row = float((difference.norm(dim=-1) / torch.maximum(true.norm(dim=-1), 0.1 * usual)).max())
    return None if whole <= limit and row <= WORST_ROW * limit else f"whole {whole:.1e}, worst row {row:.1e}"


def exactly(operand: Quantized) -> Tensor:
    """What an operand stands for, in FP64."""
    return dequantize(operand.wide(torch.float64))


def operand(case: Case, rows: int, length: int, grain: str, generator: torch.Generator) -> Quantized:
    """A quantized matrix on the generator's device."""
    return quantize(draw(case.values, rows, length, generator), grain, case.power_of_two)


def check_product(case: Case, device: str, generator: torch.Generator) -> Iterator[tuple[str, str | None]]:
    """By blocks in the case's dtype and by tiles in FP32; by what launches choose, and another block."""
    gluon = case.kind.startswith("gluon")
    outs, ins = (-(-size // 16) * 16 if gluon else size for size in (case.outs, case.ins))
    a = operand(case, case.rows, ins, "tile", generator)
    others = (1, 2) if gluon else (None, triton_gemm.BLOCKS[case.seed // len(KINDS) % len(triton_gemm.BLOCKS)])
    for grain in ("block", "tile"):
        b, out = operand(case, outs, ins, grain, generator), torch.float32
        truth = exactly(a) @ exactly(b).T
        if grain == "block" and (case.dtype != torch.float16 or 0.1 < float(truth.abs().max()) < 6e4):
            out = case.dtype
        multiply = gluon_gemm.multiply if gluon else triton_gemm.multiply
        for other in others if GPU else others[:1]:
            yield f"{grain} {other}", far(multiply(a, b, out, other), truth, LIMITS[out])


def check_grouped(case: Case, device: str, generator: torch.Generator) -> Iterator[tuple[str, str | None]]:
    """By rows, with a tile after the last group that must be zeros, and over parts of the summed axis."""
    gluon = case.kind.startswith("gluon")
    ours: Any = gluon_gemm if gluon else triton_gemm
    outs, ins = min(case.outs, 600), min(case.ins, 1100)
    if gluon:
        outs, ins = -(-outs // gluon_gemm.ROWS) * gluon_gemm.ROWS, -(-ins // 16) * 16
    sizes, rows, out = case.sizes, sum(case.sizes) + TILE, torch.bfloat16 if gluon else torch.float32
    ends_E = torch.tensor(sizes, device=device).cumsum(0).to(torch.int32)
    starts = [sum(sizes[:group]) for group in range(len(sizes))]
    x = operand(case, rows, ins, "tile", generator)
    experts = [operand(case, outs, ins, "block", generator) for _ in sizes]
    stacked = Quantized(torch.stack([w.payload for w in experts]), torch.stack([w.scale for w in experts]), "block")
    truth = torch.zeros(rows, outs, dtype=torch.float64, device=device)
    for w, start, size in zip(experts, starts, sizes, strict=True):
        truth[start : start + size] = exactly(x)[start : start + size] @ exactly(w).T
    yield "rows", far(ours.multiply_grouped(x, stacked, ends_E, out), truth, LIMITS[out])
    dy, xt = (operand(case, size, rows, "tile", generator) for size in (outs, ins))
    pairs = [(exactly(dy)[:, start : start + size], exactly(xt)[:, start : start + size])
             for start, size in zip(starts, sizes, strict=True)]  # fmt: skip
    between = torch.stack([left @ right.T for left, right in pairs])
    yield "summed", far(ours.multiply_between(dy, xt, ends_E), between, LIMITS[torch.float32])


def check_train(case: Case, device: str, generator: torch.Generator) -> Iterator[tuple[str, str | None]]:
    """Output and both gradients against the reference on the CPU."""
    gluon = case.kind.startswith("gluon")
    multiply = gluon_gemm.multiply if gluon else triton_gemm.multiply
    outs, ins = (-(-size // 16) * 16 if gluon else size for size in (case.outs, case.ins))
    shape = LinearShape(case.rows, outs, ins, str(case.dtype).removeprefix("torch."), case.power_of_two)
    w, x, dy = (torch.randn(*sizes, generator=generator)
                for sizes in ((outs, ins), (case.rows, ins), (case.rows, outs)))  # fmt: skip
    w, x, dy = w * ins**-0.5, x.to(case.dtype), dy.to(case.dtype)
    truth = fp8_training(w, shape, "fp8")(TrainInputs(x, dy))
    own = training(lambda w, x: triton_train.TritonLinear.apply(x, w, shape.power_of_two, multiply), w.to(device))
    made = own(TrainInputs(x.to(device), dy.to(device)))
    for name in ("y_MN", "dx_MK", "dw_NK"):
        one, true = getattr(made, name), getattr(truth, name)
        yield name, far(one.cpu(), true.double(), LIMITS[true.dtype]) if one.dtype == true.dtype else str(one.dtype)


CHECKS: dict[str, Callable[..., Iterator[tuple[str, str | None]]]] = {
    "quantize": check_quantize,
    "fused": check_fused,
    "product": check_product,
    "grouped": check_grouped,
    "train": check_train,
}
DRAWN_ON_CPU = ("quantize", "fused", "train", "gluon-train")  # where the truth is found


def told_by(case: Case, device: str) -> int:
    """Make a case's comparisons, print each wrong one, and return how many there were."""
    made = 0
    generator = torch.Generator("cpu" if case.kind in DRAWN_ON_CPU else device).manual_seed(case.seed)
    try:
        for name, wrong in CHECKS[case.kind.removeprefix("gluon-")](case, device, generator):
            made += 1
            if wrong:
                print(f"WRONG {name} {case}: {wrong[:600]}", flush=True)
        if device == "cuda":
            torch.cuda.synchronize()
    except Exception as error:
        made += 1
        print(f"WRONG {case}: {type(error).__name__}: {str(error)[-600:]!r}", flush=True)
        if device == "cuda" and "CUDA" in str(error):
            raise
    return made


def some(device: str, first: int, step: int) -> None:
    """Every `step`-th case from the `first` on, in this process; "at" and "made" lines tell how far it came."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    if device == "cpu":
        from harness.gate.arithmetic import mend

        mend()
    for index, case in enumerate(cases(CASES, device == "cpu")):
        if index >= first and (index - first) % step == 0:
            print(f"at {index} {case}", flush=True)
            print(f"made {told_by(case, device)}", flush=True)


def lines_of(process: subprocess.Popen[bytes], end: float) -> Iterator[str]:
    """What a process prints, until it ends. Raises TimeoutError where it is silent too long, or it is too late."""
    assert process.stdout is not None
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            left = min(CASE_SECONDS, end - time.monotonic())
            if left <= 0 or not selector.select(left):
                raise TimeoutError(f"silent for {CASE_SECONDS:.0f} s, or no time was left")
            told = os.read(process.stdout.fileno(), 1 << 16)
            *lines, rest = (rest + told).split(b"\n")
            yield from (line.decode(errors="replace") for line in lines)
            if not told:
                return


def started(*words: str) -> subprocess.Popen[bytes]:
    """This module in another process, with `words`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    command = [sys.executable, "-W", "ignore", "-m", MODULE, *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0)


def watched(first: int) -> tuple[int, list[str]]:
    """Run a share of the cases in a process, again after each crash or hang; comparisons made, and what was wrong."""
    made, wrong, end = 0, [], time.monotonic() + SECONDS
    while first < CASES and time.monotonic() < end:
        process = started(str(first), str(PROCESSES))
        at, last = first, "no word"
        try:
            for line in lines_of(process, end):
                last = line or last
                made += int(line.split()[1]) if line.startswith("made") else 0
                at = int(line.split()[1]) if line.startswith("at") else at
                wrong += [line] if line.startswith("WRONG") else []
            if process.wait() == 0:
                return made, wrong
        except TimeoutError as error:
            last = str(error)
        finally:
            process.kill()
            process.wait()
        wrong.append(f"CRASHED at case {at}: {last[:600]}")
        made, first = made + 1, at + PROCESSES
    if first < CASES:
        wrong.append(f"NOT RUN: cases {first} and after in steps of {PROCESSES}; no time was left")
    return made, wrong


def main(words: list[str]) -> int:
    """All cases, or those of `words` (first, step), or `--time`, `--tune`; 1 if anything is wrong."""
    if words and words[0].startswith("--"):
        from tests.impls.linear import triton_linear_times

        return triton_linear_times.main(words)
    device = "cuda" if GPU else "cpu"
    if words:
        some(device, int(words[0]), int(words[1]))
        return 0
    if device == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        print("there is no GPU here: set TRITON_INTERPRET=1")
        return 2
    with ThreadPoolExecutor(PROCESSES) as pool:
        told = list(pool.map(watched, range(PROCESSES)))
    for _, wrong in told:
        print(*wrong, sep="\n", end="\n" if wrong else "")
    print(f"{sum(made for made, _ in told)} tried, {sum(len(wrong) for _, wrong in told)} wrong")
    return 1 if any(wrong for _, wrong in told) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
