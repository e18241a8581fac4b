"""Device times of the mixture in Triton beside the library's composition, and of other tiles than those chosen.

`python -m tests.impls.ffn.triton_moe_oracle --time [section]` on a GPU: events behind a gate, cold L2, medians. Each
section runs in a process of its own, and a line that fails says why. `--tune` times the products' tiles one by one.
"""

# ruff: noqa: E402 - a registry must be loading when the modules are first imported
from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch

from harness.clock import CacheFlush, EventClock, Replay, empty_pair_ns
from harness.registry import load

load("impls")

from impls.ffn import cost, grouped_mm, topk, triton_grouped, triton_moe, triton_train
from impls.ffn.inputs import Permuted, draw_experts, draw_permute, draw_select, draw_tokens, draw_train
from impls.ffn.layers import train_with
from impls.ffn.routing import Routing
from impls.ffn.routing import route as plain_route
from impls.ffn.shape import FfnShape, Router, TokenShape
from impls.ffn.triton_grouped import LARGE, MIDDLE, SMALL, Launch, Tile
from impls.ffn.weights import MoeWeights, RouterWeights, draw_choice, draw_router, draw_weights

V3 = FfnShape(7168, 2048, 1, Router(32, 8, "sigmoid", normalise=True, scale=2.5))
LITE = FfnShape(2048, 1408, 2, Router(64, 6))
ROUTED = FfnShape(7168, 16, 0, Router(256, 8, "sigmoid", 8, 4, True, 2.5))
SECONDS = {"v3": 48, "lite": 30, "route": 40, "tune": 95}
SLOTS, SLOT_LIMIT_S = 9, 0.5


class Bench:
    """Times calls one after the other with one flush buffer."""

    def __init__(self) -> None:
        self._flush = CacheFlush("cuda")
        self._empty = empty_pair_ns(self._flush)

    def microseconds(self, call: Callable[[], object]) -> float:
        """Median device time; negative where the host was too slow and it is wall time."""
        call()
        torch.cuda.synchronize()
        clock = EventClock(call, self._flush, 12, self._empty)
        clock.slot()
        samples, begin = [], time.perf_counter()
        while len(samples) < SLOTS or (len(samples) < 4 * SLOTS and time.perf_counter() - begin < SLOT_LIMIT_S / 5):
            samples += clock.slot()
            if time.perf_counter() - begin > SLOT_LIMIT_S:
                break
        return statistics.median(samples) / 1e3 * (1 if clock.name == "events" else -1)

    def line(self, name: str, ours: Callable[[], object], theirs: Callable[[], object] | None, work: cost.Cost) -> None:
        """One line: our time, theirs, and what ours is of arithmetic and bytes."""
        try:
            mine = self.microseconds(ours)
            rates = (
                f"{work.flops / mine / 1e6:7.1f} TFLOP/s {(work.read_bytes + work.write_bytes) / mine / 1e3:7.0f} GB/s"
            )
            other = "" if theirs is None else f"   library {self.microseconds(theirs):9.1f} us"
            print(f"{name:44s} triton {mine:9.1f} us{other}   {rates}", flush=True)
        except Exception as error:
            print(f"{name:44s} FAILED {type(error).__name__}: {str(error)[:300]}", flush=True)
            if "CUDA" in str(error):
                raise


def agree(name: str, ours: Callable[[], torch.Tensor], theirs: Callable[[], torch.Tensor]) -> None:
    """Say so where both results are not alike; a time of a wrong result is worth nothing."""
    mine, other = ours(), theirs()
    distance = float((mine.float() - other.float()).norm() / other.float().norm())
    if not distance < 1e-2:
        print(f"{name:44s} WRONG by {distance:.1e}", flush=True)


def weights_of(model: FfnShape, generator: torch.Generator) -> MoeWeights:
    return draw_weights(TokenShape(model, 1), "moe", generator)


def layers(bench: Bench, label: str, model: FfnShape, sizes: tuple[tuple[int, float], ...]) -> None:
    """Route, permute, experts and the layer at some token counts and skews."""
    generator = torch.Generator("cuda").manual_seed(1)
    w = weights_of(model, generator)
    routed_w = (w.w_in_EUD, w.w_out_EDW)
    for tokens, skew in sizes:
        shape, name = TokenShape(model, tokens, skew), f"{label} t{tokens} zipf{skew:g}"
        x_MD, rows = draw_tokens(shape, "moe", generator).x_MD, draw_experts(shape, "moe", generator)
        ours = triton_moe.experts(routed_w, shape)

        def experts(rows: Permuted = rows, ours: Callable = ours) -> torch.Tensor:
            return ours(rows)

        def library(rows: Permuted = rows) -> torch.Tensor:
            return grouped_mm.expert_rows(rows.x_PD, rows.ends_E, *routed_w)

        agree(f"{name} experts", experts, library)
        bench.line(f"{name} experts", experts, library, cost.experts(shape, "moe"))

        given = triton_moe.route(x_MD, w.router)

        def mixed(x_MD: torch.Tensor = x_MD, given: Routing = given) -> torch.Tensor:
            return triton_moe.mixed(x_MD, given, *routed_w)

        bench.line(f"{name} mixed, routing given", mixed, None, cost.experts(shape, "moe"))

        def layer(x_MD: torch.Tensor = x_MD) -> torch.Tensor:
            return triton_moe.forward(w, x_MD)

        def composed(x_MD: torch.Tensor = x_MD) -> torch.Tensor:
            return grouped_mm.forward(w, x_MD)

        agree(f"{name} layer", layer, composed)
        bench.line(f"{name} layer", layer, composed, cost.layer(shape, "moe"))
        if tokens <= 128:
            bench.line(f"{name} layer, CUDA graph", Replay(layer), None, cost.layer(shape, "moe"))


def training(bench: Bench, label: str, model: FfnShape, tokens: int) -> None:
    """Forward and backward of the layer."""
    generator = torch.Generator("cuda").manual_seed(5)
    shape = TokenShape(model, tokens)
    w, given = weights_of(model, generator), draw_train(shape, "moe", generator)
    calls = [train_with(forward)(w, shape) for forward in (triton_train.train_forward, grouped_mm.forward)]
    ours, theirs = (lambda call=call: call(given) for call in calls)
    agree(f"{label} t{tokens} train dw_in", lambda: ours().dw.w_in_EUD, lambda: theirs().dw.w_in_EUD)
    bench.line(f"{label} t{tokens} train", ours, theirs, cost.train(shape, "moe"))


def parts(bench: Bench, label: str, model: FfnShape, tokens: int) -> None:
    """What a layer is made of, each part alone."""
    generator = torch.Generator("cuda").manual_seed(2)
    shape = TokenShape(model, tokens)
    w, given = weights_of(model, generator), draw_permute(shape, "moe", generator)
    experts, top_k, pairs = model.router.experts, model.router.top_k, tokens * model.router.top_k
    launch = triton_grouped.launch_for(pairs, experts)
    order = triton_moe.sort_pairs(given.experts_MK, experts, launch.rows)
    gates_MK = torch.rand(tokens, top_k, device="cuda")
    rows = (given.x_MD, order.pair_P, top_k, order.tiles_3T, pairs, w.w_in_EUD, launch)
    h_PW = triton_grouped.hidden_rows(*rows)
    last = (h_PW, order, gates_MK, order.tiles_3T, w.w_out_EDW, launch)
    o_PD = triton_grouped.output_rows(*last)
    half = cost.experts(shape, "moe")
    nothing = cost.Cost(0.0, 0, 0, model.dtype)
    steps: dict[str, tuple[Callable[[], object], cost.Cost]] = {
        "sort": (lambda: triton_moe.sort_pairs(given.experts_MK, experts, launch.rows), nothing),
        "gate_up": (lambda: triton_grouped.hidden_rows(*rows), replace(half, flops=half.flops * 2 / 3)),
        "down": (lambda: triton_grouped.output_rows(*last), replace(half, flops=half.flops / 3)),
        "combine": (lambda: triton_grouped.combined(o_PD, None, tokens), nothing),
    }
    for name, (call, work) in steps.items():
        bench.line(f"{label} t{tokens} {name}", call, None, work)


def routes(bench: Bench) -> None:
    """Routing to 256 experts in 8 groups."""
    generator = torch.Generator("cuda").manual_seed(3)
    for tokens in (1, 64, 1024, 4096, 16384):
        shape = TokenShape(ROUTED, tokens)
        w: RouterWeights = draw_router(shape, "moe", generator)
        x_MD = draw_tokens(shape, "moe", generator).x_MD
        bench.line(
            f"route 256 experts t{tokens}",
            lambda x_MD=x_MD, w=w: triton_moe.route(x_MD, w),
            lambda x_MD=x_MD, w=w: plain_route(x_MD, w),
            cost.route(shape, "moe"),
        )
        choice, logits = draw_choice(shape, "moe", generator), draw_select(shape, "moe", generator)
        ours, theirs = triton_moe.selected(choice, shape), topk.topk(choice, shape)
        work = cost.select(shape, "moe")
        bench.line(f"select t{tokens}", partial(ours, logits), partial(theirs, logits), work)
        bench.line(f"select t{tokens}, CUDA graph", Replay(partial(ours, logits)), None, work)
        given = draw_permute(shape, "moe", generator)
        call = triton_moe.permute(None, shape)
        bench.line(f"permute t{tokens}", lambda given=given, call=call: call(given), None, cost.permute(shape, "moe"))


def others() -> Iterator[tuple[str, FfnShape, int, Launch]]:
    """Launches worth a try, at the sizes they are for."""
    tries = {
        "small": (
            SMALL,
            Launch(16, Tile(64, 64, 6, 4), Tile(128, 64, 6, 4)),
            Launch(16, Tile(64, 128, 5, 4), Tile(128, 128, 5, 4)),
            Launch(16, Tile(64, 128, 2, 4), Tile(64, 128, 3, 4)),
            MIDDLE,
        ),
        "middle": (
            MIDDLE,
            Launch(64, Tile(64, 64, 3, 4), Tile(128, 64, 3, 4)),
            Launch(64, Tile(128, 64, 4, 4), Tile(256, 64, 4, 4)),
            Launch(64, Tile(128, 64, 5, 8), Tile(256, 64, 5, 8)),
            LARGE,
        ),
        "large": (
            LARGE,
            Launch(128, Tile(128, 64, 3, 8), Tile(256, 64, 3, 8)),
            Launch(128, Tile(64, 64, 3, 4), Tile(128, 64, 3, 4)),
            Launch(128, Tile(64, 64, 3, 8), Tile(128, 64, 3, 8)),
            MIDDLE,
        ),
    }
    sizes = (("small", V3, 16), ("middle", V3, 128), ("middle", V3, 256), ("large", V3, 4096), ("large", LITE, 4096))
    for which, model, tokens in sizes:
        for launch in tries[which]:
            yield which, model, tokens, launch


def tune(bench: Bench) -> None:
    """Both products by other launches, rows gathered as in the layer."""
    made: tuple[object, ...] = (None,)
    for which, model, tokens, launch in others():
        shape, generator = TokenShape(model, tokens), torch.Generator("cuda").manual_seed(4)
        if made[0] != shape:
            made = (shape, weights_of(model, generator), draw_permute(shape, "moe", generator))
        _, w, given = made
        top_k, pairs = model.router.top_k, tokens * model.router.top_k
        order = triton_moe.sort_pairs(given.experts_MK, model.router.experts, launch.rows)
        gates_MK = torch.rand(tokens, top_k, device="cuda")
        rows = (given.x_MD, order.pair_P, top_k, order.tiles_3T, pairs, w.w_in_EUD, launch)
        last = (order, gates_MK, order.tiles_3T, w.w_out_EDW, launch)
        h_PW = torch.randn(pairs, model.width, device="cuda", dtype=torch.bfloat16)
        half = cost.experts(shape, "moe")
        name = f"{which} {model.hidden} t{tokens} rows {launch.rows}"
        for product, tile, share, call in (
            ("gate_up", launch.gate_up, 2 / 3, lambda rows=rows: triton_grouped.hidden_rows(*rows)),
            ("down", launch.down, 1 / 3, lambda h=h_PW, last=last: triton_grouped.output_rows(h, *last)),
        ):
            words = f"{product} {tile.columns}x{tile.step} s{tile.stages} w{tile.warps}"
            work = replace(half, flops=half.flops * share, read_bytes=half.read_bytes * share)
            bench.line(f"{name} {words}", call, None, work)


def copied(bench: Bench, model: FfnShape, tokens: int) -> None:
    """Gate and up of rows that were copied into order first, instead of gathered by the product."""
    shape, generator = TokenShape(model, tokens), torch.Generator("cuda").manual_seed(4)
    w, given = weights_of(model, generator), draw_permute(shape, "moe", generator)
    top_k, pairs = model.router.top_k, tokens * model.router.top_k
    order = triton_moe.sort_pairs(given.experts_MK, model.router.experts, LARGE.rows)

    def call() -> torch.Tensor:
        rows_PD = triton_moe.spread(given.x_MD, order.row_P, top_k)
        return triton_grouped.hidden_rows(rows_PD, None, 1, order.tiles_3T, pairs, w.w_in_EUD, LARGE)

    half = cost.experts(shape, "moe")
    bench.line(
        f"large {model.hidden} t{tokens} rows copied, gate_up", call, None, replace(half, flops=half.flops * 2 / 3)
    )


def section(name: str) -> None:
    """One section, in this process."""
    bench = Bench()
    if name == "v3":
        layers(bench, "v3-ep8", V3, ((16, 0.0), (128, 0.0), (1024, 0.0), (4096, 0.0), (4096, 1.0), (128, 1.0)))
        for tokens in (16, 128, 4096):
            parts(bench, "v3-ep8", V3, tokens)
        training(bench, "v3-ep8", V3, 4096)
    elif name == "lite":
        layers(bench, "v2-lite", LITE, ((16, 0.0), (4096, 0.0), (32768, 0.0)))
        parts(bench, "v2-lite", LITE, 4096)
        training(bench, "v2-lite", LITE, 8192)
    elif name == "route":
        routes(bench)
    else:
        copied(bench, V3, 4096)
        copied(bench, LITE, 4096)
        tune(bench)


def main(words: list[str]) -> int:
    """`--time` (every section but tune), `--tune`, or `--time SECTION` in this process."""
    if not torch.cuda.is_available():
        print("there is no GPU here: nothing can be timed")
        return 2
    if len(words) > 1:
        section(words[1])
        return 0
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; a minus before a time: wall time, host-bound")
    failed = 0
    for name in ["tune"] if words[0] == "--tune" else ["v3", "lite", "route"]:
        command = [sys.executable, "-W", "ignore", "-m", "tests.impls.ffn.triton_moe_oracle", "--time", name]
        try:
            code = subprocess.run(command, timeout=SECONDS[name], check=False).returncode
        except subprocess.TimeoutExpired:
            code = f"more than {SECONDS[name]} s"
        if code:
            failed += 1
            print(f"section {name} ended with {code}", flush=True)
    return 1 if failed else 0
