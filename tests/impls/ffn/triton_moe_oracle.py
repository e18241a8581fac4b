"""The mixture in Triton against the plain reference, on random sizes and distributions.

`python -m tests.impls.ffn.triton_moe_oracle` compares routing, selection, permutation, experts, the layer and training:
in BF16 on a GPU, a few small cases in FP32 and FP16 under TRITON_INTERPRET=1. With `--time` it prints device times
beside the library's, with `--tune` those of other tiles. Cases run in other processes: one that crashes costs nothing
but itself. Memory is filled with NaN before it is written. The last line is "N tried, M wrong".
"""

# ruff: noqa: E402 - a registry must be loading when the modules are first imported
from __future__ import annotations

import dataclasses
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.registry import load

load("impls")

from impls.ffn import reference, triton_moe, triton_train
from impls.ffn.inputs import (
    Permuted,
    PermuteInputs,
    SelectInputs,
    TrainInputs,
    TrainResult,
    draw_select,
    draw_tokens,
)
from impls.ffn.layers import train_with
from impls.ffn.routing import Routing, by_expert, gates, scores
from impls.ffn.routing import route as plain_route
from impls.ffn.shape import FfnShape, Router, TokenShape
from impls.ffn.weights import DenseWeights, MoeWeights, RouterWeights, draw_choice, draw_weights

GPU = torch.cuda.is_available()
CASES, PROCESSES, SECONDS = (216, 6, 240) if GPU else (10, 2, 500)
LIMITS = {"float32": 3e-6, "float16": 1.2e-3, "bfloat16": 8e-3}
TRAINED_EVERY = 3
WORST_ROW = 3.0  # times the limit of the whole
SPREADS = ("wanted", "one-set", "few-experts", "one-expert-each")


@dataclass(frozen=True)
class Case:
    """Sizes of a layer and of what goes through it; `spread`: which experts are chosen."""

    model: FfnShape
    tokens: int
    skew: float
    spread: str
    seed: int

    @property
    def shape(self) -> TokenShape:
        return TokenShape(self.model, self.tokens, self.skew)


def cases(count: int, small: bool) -> Iterator[Case]:
    """Always the same ones."""
    draw = random.Random(17)
    for seed in range(count):
        experts = draw.choice((4, 6, 10, 16) if small else (4, 8, 20, 57, 64, 160, 256))
        top_k = draw.choice([k for k in (1, 2, 3, 6, 8) if k <= experts // 2])
        groups = draw.choice([g for g in (1, 1, 2, 4, 8, experts) if experts % g == 0])
        least = -(-top_k // (experts // groups))
        score = draw.choice(("softmax", "sigmoid"))
        router = Router(
            experts, top_k, score, groups, draw.randint(least, groups), draw.random() < 0.5, draw.choice((1.0, 2.5))
        )
        hidden = 16 * draw.randint(2, 6) if small else 16 * draw.randint(experts // 16 + 1, 48)
        if not small and seed % 4 == 0:
            hidden = 64 * draw.randint(experts // 64 + 1, 24)
        width = 16 * draw.randint(1, 5 if small else min(24, 2048 // experts))
        dtype = ("float32", "float16")[seed % 2] if small else "bfloat16"
        shared = draw.choice((0, 1))
        tokens = draw.choice((1, 2, 13, 40)) if small else max(1, int(10 ** draw.uniform(0, 3.6)))
        yield Case(
            FfnShape(hidden, width, shared, router, dtype),
            tokens,
            draw.choice((0.0, 1.0, 1.5)),
            SPREADS[seed % len(SPREADS)],
            seed,
        )


def chosen(case: Case, generator: torch.Generator) -> Tensor:
    """Experts [M, K] of a spread that no router is asked for."""
    router, device = case.model.router, generator.device
    pool = router.top_k if case.spread == "one-set" else router.top_k + (router.experts - router.top_k) // 4
    if case.spread == "one-expert-each":
        first_M1 = torch.arange(case.tokens, device=device)[:, None]
        return (first_M1 + torch.arange(router.top_k, device=device)) % router.experts
    some = torch.randperm(router.experts, generator=generator, device=device)[:pool]
    ranks_MK = torch.rand(case.tokens, pool, generator=generator, device=device).topk(router.top_k, -1).indices
    return some[ranks_MK]


def wide(w: MoeWeights) -> MoeWeights:
    """The same weights in FP32, or FP64 on a CPU."""
    dtype = torch.float32 if w.w_in_EUD.is_cuda else torch.float64
    shared = None if w.shared is None else DenseWeights(w.shared.w_in_UD.to(dtype), w.shared.w_out_DW.to(dtype))
    router = dataclasses.replace(w.router, matrix_ED=w.router.matrix_ED.to(dtype))
    return MoeWeights(router, w.w_in_EUD.to(dtype), w.w_out_EDW.to(dtype), shared)


def distances(result: Tensor, truth: Tensor) -> tuple[float, float]:
    """How far a result is from the truth, as a whole and in its worst row; absolute where the truth is all zeros."""
    difference, truth = (result.to(truth.dtype) - truth).flatten(0, -2), truth.flatten(0, -2)
    if not truth.any():
        return float(difference.norm()), float(difference.norm(dim=-1).max())
    mean_norm = (truth.norm() / len(truth) ** 0.5).clamp_min(1e-30)
    rows = difference.norm(dim=-1) / torch.maximum(truth.norm(dim=-1), 0.1 * mean_norm)
    return float(difference.norm() / truth.norm().clamp_min(1e-30)), float(rows.max())


def far(result: Tensor, truth: Tensor, limit: float) -> str | None:
    """What is wrong with a result, or None; NaN is."""
    whole, row = distances(result, truth)
    return None if whole <= limit and row <= WORST_ROW * limit else f"whole {whole:.1e}, worst row {row:.1e}"


def check_route(case: Case, w: MoeWeights, x_MD: Tensor) -> str | None:
    told = triton_moe.route(x_MD, w.router)
    exact = RouterWeights(w.router.rule, w.router.matrix_ED.double(), w.router.bias_E)
    return apart(told, plain_route(x_MD.double(), exact), 1e-4)


def apart(told: Routing, truth: Routing, limit: float) -> str | None:
    """What is wrong with a routing, or None."""
    (told_MK, place_MK), (truth_MK, truth_place_MK) = told.experts_MK.sort(-1), truth.experts_MK.sort(-1)
    if not torch.equal(told_MK, truth_MK):
        return f"{int((told_MK != truth_MK).any(-1).sum())} tokens go elsewhere"
    return far(told.gates_MK.gather(1, place_MK), truth.gates_MK.gather(1, truth_place_MK), limit)


def check_select(case: Case, w: MoeWeights, x_MD: Tensor) -> str | None:
    """From given logits, whose bias is the one they were drawn for."""
    choice = draw_choice(case.shape, "moe", torch.Generator(x_MD.device))
    given = draw_select(case.shape, "moe", torch.Generator(x_MD.device).manual_seed(case.seed))
    told = triton_moe.selected(choice, case.shape)(given)
    exact = reference.selected(choice, case.shape)(SelectInputs(given.logits_ME.double()))
    return apart(told, exact, 1e-6)


def check_permute(case: Case, w: MoeWeights, x_MD: Tensor, experts_MK: Tensor) -> str | None:
    told = triton_moe.permute(None, case.shape)(PermuteInputs(x_MD, experts_MK))
    order = by_expert(experts_MK, case.model.router.experts)
    if not torch.equal(told.ends_E, order.ends_E):
        return "other ends"
    same = torch.equal(told.x_PD, x_MD[order.pair_P // experts_MK.shape[1]])
    return None if same else "other rows"


def check_experts(case: Case, w: MoeWeights, x_MD: Tensor, experts_MK: Tensor) -> str | None:
    order = by_expert(experts_MK, case.model.router.experts)
    rows_PD = x_MD[order.pair_P // experts_MK.shape[1]]
    told = triton_moe.experts((w.w_in_EUD, w.w_out_EDW), case.shape)(Permuted(rows_PD, order.ends_E))
    exact = wide(w)
    plain = reference.experts((exact.w_in_EUD, exact.w_out_EDW), case.shape)
    return far(told, plain(Permuted(rows_PD.to(exact.w_in_EUD.dtype), order.ends_E)), LIMITS[case.model.dtype])


def check_mixed(case: Case, w: MoeWeights, x_MD: Tensor, experts_MK: Tensor) -> str | None:
    """The routed experts' sum by any choice."""
    exact = wide(w)
    s_ME = scores(x_MD, w.router.matrix_ED, w.router.rule)
    gates_MK = gates(s_ME, experts_MK, w.router.rule)
    told = triton_moe.mixed(x_MD, Routing(gates_MK.float(), experts_MK), w.w_in_EUD, w.w_out_EDW)
    order = by_expert(experts_MK, case.model.router.experts)
    wide_MD = x_MD.to(exact.w_in_EUD.dtype)
    rows = reference.experts((exact.w_in_EUD, exact.w_out_EDW), case.shape)(
        Permuted(wide_MD[order.pair_P // experts_MK.shape[1]], order.ends_E)
    )
    pairs = torch.empty_like(rows).index_copy(0, order.pair_P, rows).unflatten(0, experts_MK.shape)
    return far(told, (pairs * gates_MK[..., None]).sum(1), LIMITS[case.model.dtype])


def check_layer(case: Case, w: MoeWeights, x_MD: Tensor) -> str | None:
    told = triton_moe.forward(w, x_MD)
    exact = wide(w)
    return far(told, reference.mixture_forward(exact, x_MD.to(exact.w_in_EUD.dtype)), LIMITS[case.model.dtype])


def gradients(result: TrainResult) -> dict[str, Tensor]:
    """What training returns, by name."""
    dw = result.dw
    found = {"y": result.y_MD, "dx": result.dx_MD, "router": dw.router.matrix_ED}
    return found | {"w_in": dw.w_in_EUD, "w_out": dw.w_out_EDW}


def check_train(case: Case, w: MoeWeights, x_MD: Tensor) -> str | None:
    """Every gradient against the reference in FP32 or FP64; allowed are twice the reference's own errors."""
    generator = torch.Generator(x_MD.device).manual_seed(case.seed)
    dy_MD = torch.randn(x_MD.shape, generator=generator, device=x_MD.device).to(x_MD.dtype)
    exact, limit, wrong = wide(w), LIMITS[case.model.dtype], []
    dtype = exact.w_in_EUD.dtype
    plain = train_with(reference.mixture_forward)
    truth = gradients(plain(exact, case.shape)(TrainInputs(x_MD.to(dtype), dy_MD.to(dtype))))
    usual = gradients(plain(w, case.shape)(TrainInputs(x_MD, dy_MD)))
    told = gradients(train_with(triton_train.train_forward)(w, case.shape)(TrainInputs(x_MD, dy_MD)))
    rule = w.router.rule
    if rule.top_k == 1 and rule.normalise:  # gates of 1 whatever the logits: what is left of a gradient is rounding
        del truth["router"]
        left = float(told["router"].norm() / (dy_MD.float().norm() * x_MD.float().norm()))
        if not left <= limit:
            wrong.append(f"router {left:.1e} of the inputs' norms, where gates are constant")
    for name, true in truth.items():
        (whole, row), (usual_whole, usual_row) = distances(told[name], true), distances(usual[name], true)
        if not (whole <= max(2 * usual_whole, limit) and row <= max(4 * usual_row, WORST_ROW * limit)):
            wrong.append(f"{name} whole {whole:.1e} ({usual_whole:.1e}), worst row {row:.1e} ({usual_row:.1e})")
    return "; ".join(wrong) or None


def tried(case: Case, device: str) -> Iterator[tuple[str, Callable[[], str | None]]]:
    """Names of a case's comparisons and how to make them."""
    generator = torch.Generator(device).manual_seed(case.seed)
    w = draw_weights(case.shape, "moe", generator)
    x_MD = draw_tokens(case.shape, "moe", generator).x_MD
    experts_MK = plain_route(x_MD, w.router).experts_MK if case.spread == "wanted" else chosen(case, generator)
    yield "route", lambda: check_route(case, w, x_MD)
    yield "select", lambda: check_select(case, w, x_MD)
    for name, check in (("permute", check_permute), ("experts", check_experts), ("mixed", check_mixed)):
        yield name, lambda check=check: check(case, w, x_MD, experts_MK)
    yield "layer", lambda: check_layer(case, w, x_MD)
    if case.seed % TRAINED_EVERY == 0:
        yield "train", lambda: check_train(case, w, x_MD)


def told_by(case: Case, device: str) -> int:
    """Make a case's comparisons, print each wrong one, and return how many there were."""
    made = 0
    for name, check in tried(case, device):
        made += 1
        try:
            wrong = check()
            if device == "cuda":
                torch.cuda.synchronize()
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"
            if device == "cuda" and "CUDA" in wrong:
                raise
        if wrong:
            print(f"WRONG {name} {case}: {wrong[:600]}", flush=True)
    return made


def some(device: str, first: int, step: int) -> None:
    """Every `step`-th case from the `first` on, in this process; "at" and "made" lines tell how far it came."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    small = device == "cpu"
    for index, case in enumerate(cases(CASES, small)):
        if index >= first and (index - first) % step == 0:
            print(f"at {index} {case}", flush=True)
            print(f"made {told_by(case, device)}", flush=True)


def watched(first: int) -> tuple[int, list[str]]:
    """Run a share of the cases in a process, again after each crash; comparisons made, and what was wrong."""
    made, wrong, step = 0, [], PROCESSES
    end = time.monotonic() + SECONDS
    while first < CASES:
        words = [sys.executable, "-W", "ignore", "-m", "tests.impls.ffn.triton_moe_oracle", str(first), str(step)]
        try:
            done = subprocess.run(
                words,
                env={**os.environ, "OMP_NUM_THREADS": "2", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"},
                capture_output=True,
                text=True,
                timeout=max(1.0, end - time.monotonic()),
                check=False,
            )
            output, code, errors = done.stdout, done.returncode, done.stderr
        except subprocess.TimeoutExpired as error:
            output, code, errors = error.stdout or "", 1, f"did not end within {SECONDS} s"
            output = output.decode() if isinstance(output, bytes) else output
        lines = output.splitlines()
        made += sum(int(line.split()[1]) for line in lines if line.startswith("made"))
        wrong += [line for line in lines if line.startswith("WRONG")]
        if code == 0:
            break
        at = [line for line in lines if line.startswith("at ")]
        last = (errors.strip().splitlines() or ["no word"])[-1]
        wrong.append(f"CRASHED {at[-1] if at else first}: {last[:600]}")
        made += 1
        first = (int(at[-1].split()[1]) if at else first) + step
        if time.monotonic() > end:
            break
    return made, wrong


def main(words: list[str]) -> int:
    """All cases, or those of `words` (first, step), or `--time`, `--tune`; 1 if anything is wrong."""
    if words and words[0].startswith("--"):
        from tests.impls.ffn import triton_moe_times

        return triton_moe_times.main(words)
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
    failures = sum(len(wrong) for _, wrong in told)
    print(f"{sum(made for made, _ in told)} tried, {failures} wrong")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
