"""Device times of FP8 kernels of ours beside the library's, and of other blocks than those chosen.

`python -m tests.impls.linear.triton_linear_oracle --time [section ...]` on a GPU: events behind a gate, cold L2,
medians, in TFLOP/s and TB/s; at the end the ratios that the choice of kernels is judged by. `--tune [section ...]`
times other blocks and programs and tells the fastest for each size. Every section runs in a process that is started
again behind a line that crashes or hangs. A result that is not like the library's, or the reference's, is no time.
"""

# ruff: noqa: E402 - a registry must be loading when the modules are first imported
from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from harness.registry import load

load("impls")

from impls.linear import cost, gluon_gemm, mm, scaled_mm, triton_gemm, triton_quantize
from impls.linear.inputs import (
    draw_dgrad,
    draw_dgrad_weight,
    draw_experts,
    draw_fprop,
    draw_grouped,
    draw_grouped_wgrad,
    draw_master,
    draw_train,
    draw_weight,
    draw_wgrad,
)
from impls.linear.quantize import Quantized, quantize
from impls.linear.reference_train import fp8_training
from impls.linear.shape import GroupedShape, LinearShape, QuantizeShape
from impls.linear.triton_gemm import Block
from impls.linear.triton_quantize import Program
from impls.linear.triton_train import train
from impls.linear.values import draw
from tests.impls.ffn.triton_moe_times import Bench
from tests.impls.linear.triton_linear_oracle import lines_of, started

LAYERS = ((2112, 7168), (24576, 1536), (32768, 512), (7168, 16384), (4096, 7168), (7168, 2048), (576, 7168))
LARGE = ((7168, 16384), (24576, 1536), (4096, 7168))
ROWS = (64, 128, 1024, 4096, 8192)
GROUPS = ((4, 32768, 4096, 7168), (32, 8192, 4096, 7168), (32, 8192, 7168, 2048), (8, 8192, 4096, 7168))
SECONDS = 240.0  # of a section, with all that is started again
SECTIONS = ("fprop", "dgrad", "wgrad", "quantize", "grouped", "train")
TUNED = ("blocks", "tiles", "programs")
SEPARATOR = " | "
TRIED = (
    *triton_gemm.BLOCKS,
    Block(128, 128, 3, 8),
    Block(128, 128, 5, 8),
    Block(128, 64, 5, 8),
    Block(128, 64, 4, 4, 2),
    Block(64, 128, 3, 4, 2),
    Block(64, 64, 8, 4),
    Block(64, 32, 5, 4, 4),
)


@dataclass(frozen=True)
class Line:
    """One time: of what, by whom, its work, and a call; `like`: what its result must be near, or None."""

    what: str
    who: str
    work: cost.Cost
    call: Callable[[], Any]
    like: Callable[[], Any] | None = None


def generator(seed: int) -> torch.Generator:
    return torch.Generator("cuda").manual_seed(seed)


def products(which: str, layers: tuple[tuple[int, int], ...], rows: tuple[int, ...]) -> Iterator[Line]:
    """A product of ours, cuBLAS's block-scaled, per-tensor and BF16's."""
    draws = {
        "fprop": (draw_weight, draw_fprop, cost.fprop),
        "dgrad": (draw_dgrad_weight, draw_dgrad, cost.dgrad),
        "wgrad": (None, draw_wgrad, cost.wgrad),
    }
    weights, draw, work = draws[which]
    for (outs, ins), count in ((layer, count) for layer in layers for count in rows):
        shape, what = LinearShape(count, outs, ins), f"{which} m{count} n{outs} k{ins}"
        operands: dict[str, tuple[Any, Any]] = {}
        for technique in ("fp8", "fp8-tensor", "bf16"):
            w = weights(shape, technique, generator(1)) if weights else None
            given = draw(shape, technique, generator(2))
            a = given.dy if which != "fprop" else given.x
            operands[technique] = (a, given.x if which == "wgrad" else w)
        out = torch.float32 if which == "wgrad" else torch.bfloat16
        plain = {
            "fprop": torch.nn.functional.linear,
            "dgrad": torch.mm,
            "wgrad": mm.wgrad,
        }[which]
        library = partial(scaled_mm.blockwise, operands["fp8"][0], scaled_mm.block_scales(operands["fp8"][1]), out)
        yield Line(what, "triton", work(shape, "fp8"), partial(triton_gemm.multiply, *operands["fp8"], out), library)
        yield Line(what, "gluon", work(shape, "fp8"), partial(gluon_gemm.multiply, *operands["fp8"], out), library)
        yield Line(what, "cublas-block", work(shape, "fp8"), library)
        fast = partial(scaled_mm.coarse, *operands["fp8-tensor"], out, fast=True)
        yield Line(what, "cublas-tensor", work(shape, "fp8-tensor"), fast)
        yield Line(what, "bf16", work(shape, "bf16"), partial(plain, *operands["bf16"]))


def grouped() -> Iterator[Line]:
    """Grouped products by rows and over the rows, beside BF16's."""
    for groups, rows, outs, ins in GROUPS:
        shape, what = GroupedShape(groups, rows, outs, ins), f"g{groups} m{rows} n{outs} k{ins}"
        w, given = draw_experts(shape, "fp8", generator(1)), draw_grouped(shape, "fp8", generator(2))
        like = partial(_one_by_one, given, w, shape)
        for who, ours in (("triton", triton_gemm), ("gluon", gluon_gemm)):
            call = partial(ours.multiply_grouped, given.x, w, given.ends_E, torch.bfloat16)
            yield Line(f"grouped {what}", who, cost.grouped(shape, "fp8"), call, like)
        w, given = draw_experts(shape, "bf16", generator(1)), draw_grouped(shape, "bf16", generator(2))
        call = partial(torch.nn.functional.grouped_mm, given.x, w.mT, offs=given.ends_E)
        yield Line(f"grouped {what}", "bf16", cost.grouped(shape, "bf16"), call)
        both = draw_grouped_wgrad(shape, "fp8", generator(3))
        like = partial(triton_gemm.multiply_between, both.dy, both.x, both.ends_E)
        for who, call in (("triton", like), ("gluon", partial(gluon_gemm.multiply_between, *like.args))):
            yield Line(f"grouped_wgrad {what}", who, cost.grouped_wgrad(shape, "fp8"), call, like)
        both = draw_grouped_wgrad(shape, "bf16", generator(3))
        call = partial(torch.nn.functional.grouped_mm, both.dy.T, both.x, offs=both.ends_E)
        yield Line(f"grouped_wgrad {what}", "bf16", cost.grouped_wgrad(shape, "bf16"), call)


def _one_by_one(given: Any, w: Quantized, shape: GroupedShape) -> Tensor:
    """The same by a product of ours for each group."""
    parts, start = [], 0
    for group, size in enumerate(shape.sizes):
        rows = slice(start, start + size)
        x = Quantized(given.x.payload[rows], given.x.scale[:, rows].contiguous(), "tile")
        parts.append(triton_gemm.multiply(x, Quantized(w.payload[group], w.scale[group], "block"), torch.bfloat16))
        start += size
    return torch.cat(parts)


def _bf16(rows: int, columns: int) -> Tensor:
    return draw("gaussian", rows, columns, generator(1)).bfloat16()


def quantizing() -> Iterator[Line]:
    """Each form from 1 MiB to 470 MiB, beside a copy of the input and, for tiles, PyTorch's parts."""
    for rows, columns in ((128, 7168), (4096, 7168), (32768, 2048), (32768, 7168)):
        x, pair = (_bf16(rows, width) for width in (columns, 2 * columns))
        weight = _bf16(1, columns).view(-1)
        kept = quantize(x, "tile")
        calls = {
            "tiles": (partial(triton_quantize.tiles, x, False), partial(quantize, x, "tile")),
            "transposed": (
                partial(triton_quantize.transposed, x, False),
                lambda x=x: quantize(x.T.contiguous(), "tile"),
            ),
            "blocks": (partial(triton_quantize.blocks, x, False), partial(quantize, x, "block")),
            "silu": (partial(triton_quantize.tiles, pair, False, True), None),
            "rmsnorm": (partial(triton_quantize.normed, x, weight, False), None),
        }
        for form, (call, like) in calls.items():
            work = cost.quantize(QuantizeShape(rows, columns, form), "fp8")
            yield Line(f"quantize {form} {rows}x{columns}", "triton", work, call, like)
        tiles, size = cost.quantize(QuantizeShape(rows, columns, "tiles"), "fp8"), x.numel()
        both = partial(triton_quantize.squares, x, False, straight=True, turned=True)
        yield Line(f"quantize both {rows}x{columns}", "triton", cost.Cost(0.0, 2 * size, 2 * size, "bfloat16"), both)
        again = partial(triton_quantize.transposed, kept.payload, False, kept.scale)
        yield Line(f"quantize kept {rows}x{columns}", "triton", cost.Cost(0.0, size, size, "bfloat16"), again)
        yield Line(f"quantize tiles {rows}x{columns}", "pytorch", tiles, partial(quantize, x, "tile"))
        yield Line(f"copy {rows}x{columns}", "copy", cost.Cost(0.0, 2 * size, 2 * size, "bfloat16"), x.clone)


def training_steps() -> Iterator[Line]:
    """A whole layer, both sides from an FP32 master weight."""
    for outs, ins in (*LARGE, (7168, 2048)):
        shape, what = LinearShape(8192, outs, ins), f"train m8192 n{outs} k{ins}"
        w, given = draw_master(shape, "fp8", generator(1)), draw_train(shape, "fp8", generator(2))
        plain = mm.train(w, shape)
        yield Line(what, "triton", cost.layer_train(shape, "fp8"), partial(train(w, shape), given))
        yield Line(what, "gluon", cost.layer_train(shape, "fp8"), partial(gluon_gemm.train(w, shape), given))
        library = fp8_training(w, shape, "fp8", scaled_mm.blockwise)
        yield Line(what, "cublas-block", cost.layer_train(shape, "fp8"), partial(library, given))
        yield Line(what, "bf16", cost.layer_train(shape, "bf16"), partial(plain, given))


def other_blocks(which: str, rows: tuple[int, ...], layers: tuple[tuple[int, int], ...]) -> Iterator[Line]:
    """A product by every block worth a try."""
    for line in products(which, layers, rows):
        if line.who == "triton":
            for block in TRIED:
                yield Line(line.what, str(block), line.work, partial(line.call, block=block), line.like)
        elif line.who == "gluon":
            for halves in (1, 2) if which != "wgrad" else (1,):
                call = partial(line.call, halves=halves)
                yield Line(line.what, f"gluon, {halves} halves", line.work, call, line.like)


def other_programs() -> Iterator[Line]:
    """Quantizing by other programs."""
    for line in quantizing():
        words = line.what.split()
        if line.who != "triton":
            continue
        if words[1] in ("tiles", "silu", "rmsnorm"):
            some = [(m, t, w) for m, t in ((4, 4), (8, 2), (8, 4), (16, 1), (16, 2), (32, 2)) for w in (4, 8)]
            for program in (Program(*sizes) for sizes in some):
                yield Line(line.what, str(program), line.work, partial(line.call, program=program))
        elif words[1] in ("both", "blocks"):
            base = partial(triton_quantize.squares, line.call.args[0], False, block=words[1] == "blocks")
            more = {"straight": words[1] == "both", "turned": words[1] == "both"}
            for warps in (8, 16, 32):
                yield Line(line.what, f"{warps} warps", line.work, partial(base, launch=(128, warps), **more))
        else:
            x, *scale = line.call.args[0], *line.call.args[2:]
            base = partial(triton_quantize.squares, x, False, *scale, turned=True)
            for columns, warps in ((32, 4), (64, 4), (64, 8), (128, 8), (128, 16)):
                yield Line(line.what, f"{columns} x {warps}", line.work, partial(base, launch=(columns, warps)))


def lines(section: str) -> Iterator[Line]:
    """The lines of a section. Raises KeyError for an unknown one."""
    every: dict[str, Callable[[], Iterator[Line]]] = {
        "fprop": lambda: products("fprop", LAYERS, ROWS),
        "dgrad": lambda: products("dgrad", LARGE, (1024, 4096, 8192)),
        "wgrad": lambda: products("wgrad", LAYERS[:-1], (4096, 8192)),
        "quantize": quantizing,
        "grouped": grouped,
        "train": training_steps,
        "blocks": lambda: other_blocks("fprop", (64, 128, 1024, 4096), (*LAYERS[:2], LAYERS[3], LAYERS[5])),
        "tiles": lambda: other_blocks("wgrad", (8192,), LARGE),
        "programs": other_programs,
    }
    return every[section]()


def near(result: Any, like: Any) -> float:
    """Relative distance of two results, or the share of payloads that differ."""
    if isinstance(result, Quantized):
        return float((result.payload.view(torch.uint8) != like.payload.view(torch.uint8)).float().mean())
    return float((result.float() - like.float()).norm() / like.float().norm())


def timed(bench: Bench, line: Line) -> str:
    """A line's figures, or why there are none."""
    try:
        off = 0.0 if line.like is None else near(line.call(), line.like())
        if not off < 1e-2:
            return f"WRONG by {off:.1e}"
        took = bench.microseconds(line.call)
        rate, speed = line.work.flops / took / 1e6, (line.work.read_bytes + line.work.write_bytes) / took / 1e6
        return f"{took:9.1f} us {rate:7.1f} TFLOP/s {speed:5.2f} TB/s"
    except Exception as error:
        if "CUDA error" in str(error):
            raise
        return f"FAILED {type(error).__name__}: {str(error)[-200:]!r}"


def section(name: str, first: int) -> None:
    """A section's lines from the `first` on, in this process."""
    bench = Bench()
    for index, line in enumerate(lines(name)):
        if index >= first:
            print(f"at {index} {line.what}{SEPARATOR}{line.who}", flush=True)
            print(f"{line.what:34s}{SEPARATOR}{line.who:13s}{SEPARATOR}{timed(bench, line)}", flush=True)


def watched(name: str) -> Iterator[str]:
    """A section in other processes; each goes on behind the line that the last one did not survive."""
    first, end = 0, time.monotonic() + SECONDS
    while time.monotonic() < end:
        process, at, last = started("--time", name, str(first)), f"{first - 1} of {name}", "no word"
        try:
            for line in lines_of(process, end):
                last = line or last
                if line.startswith("at "):
                    at = line[3:]
                elif SEPARATOR in line:
                    yield line
            if process.wait() == 0:
                return
        except TimeoutError as error:
            last = str(error)
        finally:
            process.kill()
            process.wait()
        yield f"CRASHED at {at}: {last[-300:]}"
        first = int(at.split()[0]) + 1
    yield f"{name}: no time was left"


def microseconds(told: list[str]) -> dict[str, dict[str, float]]:
    """Times by what and who; those that the host bound, which are negative, are left out."""
    found: dict[str, dict[str, float]] = {}
    for line in told:
        what, who, figures = (part.strip() for part in [*line.split(SEPARATOR), "", ""][:3])
        if " us " in figures and float(figures.split()[0]) > 0:
            found.setdefault(what, {})[who] = float(figures.split()[0])
    return found


def summary(found: dict[str, dict[str, float]]) -> Iterator[str]:
    """Geometric means of speed-ups over the library, by product, for 1024 rows and more."""
    for which, ours, other in product(SECTIONS, ("triton", "gluon"), ("cublas-block", "bf16")):
        pairs = [
            by[other] / by[ours]
            for what, by in found.items()
            if what.startswith(f"{which} ") and {ours, other} <= set(by) and int(what.split(" m")[1].split()[0]) > 512
        ]
        if pairs:
            mean = math.exp(sum(math.log(ratio) for ratio in pairs) / len(pairs))
            yield f"{which}: {ours} {mean:.3f} times {other} on the geometric mean of {len(pairs)} sizes"


def main(words: list[str]) -> int:
    """`--time` or `--tune`, of some sections or all; `--time SECTION FIRST` in this process. 1: a line has no time."""
    if not torch.cuda.is_available():
        print("there is no GPU here: nothing can be timed")
        return 2
    if len(words) == 3 and words[2].isdigit():
        section(words[1], int(words[2]))
        return 0
    known = TUNED if words[0] == "--tune" else SECTIONS
    asked = words[1:] or known
    if not set(asked) <= set(known):
        print(f"{words[0]} knows {', '.join(known)}", file=sys.stderr)
        return 2
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; a minus before a time: wall time, host-bound")
    told = []
    for name in asked:
        for line in watched(name):
            told.append(line)
            print(line, flush=True)
    found = microseconds(told)
    if words[0] == "--tune":
        for what, by in found.items():
            best = min(by, key=lambda who: by[who])
            print(f"best {what:34s}{SEPARATOR}{by[best]:9.1f} us{SEPARATOR}{best}")
    print(*summary(found), sep="\n")
    bad = [line for line in told if any(word in line for word in ("WRONG", "FAILED", "CRASHED", "no time"))]
    print(f"{len(told)} lines, {len(bad)} without a time")
    return 1 if bad else 0
