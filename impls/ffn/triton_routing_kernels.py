"""Triton kernels of routing: partial logits, and everything after the sum of the parts.

At a few tokens the router's matrix is all there is to read, so the product is cut along D and along the experts until
every processor has a share. The second kernel adds the parts up in order and chooses, one token a program of one warp.

Shape suffixes: M tokens, E experts, D hidden, S parts; in `select` G groups and N experts of a group, both padded.
"""

from __future__ import annotations

from ..triton_jit import jit, tl


@jit(do_not_specialize=["tokens"])
def logits(
    x, router, parts_ptr, tokens, experts, hidden, share,
    M: tl.constexpr, E: tl.constexpr, K: tl.constexpr, STAGES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """parts [S, tokens, experts] in FP32: the products of columns [s share, (s + 1) share), a multiple of K, of x in
    tiles [M, K] and the router's matrix in tiles [E, K]."""
    first_row, first_expert, split = tl.program_id(0) * M, tl.program_id(1) * E, tl.program_id(2)
    acc = tl.zeros([M, E], tl.float32)
    for k in tl.range(split * share, tl.minimum((split + 1) * share, hidden), K, num_stages=STAGES):
        acc = tl.dot(x.load([first_row, k]), router.load([first_expert, k]).T, acc, input_precision=PRECISION)
    row, expert = tl.arange(0, M), first_expert + tl.arange(0, E)
    parts_ptr += (split.to(tl.int64) * tokens + first_row) * experts
    mask = (row < tokens - first_row)[:, None] & (expert < experts)[None, :]
    tl.store(parts_ptr + row[:, None] * experts + expert[None, :], acc, mask=mask)


@jit
def _scores(logits_GN, real_GN, SIGMOID: tl.constexpr):
    """s of each expert; those that do not exist get any number (sigmoid) or 0 (softmax)."""
    if SIGMOID:
        return 1 / (1 + tl.exp(-logits_GN))
    logits_GN = tl.where(real_GN, logits_GN, float("-inf"))
    weights_GN = tl.exp(logits_GN - tl.max(tl.max(logits_GN, 1), 0))
    return weights_GN / tl.sum(tl.sum(weights_GN, 1), 0)


@jit
def _within_best_groups(biased_GN, SIGMOID: tl.constexpr, TOP_GROUPS: tl.constexpr, G: tl.constexpr, N: tl.constexpr):
    """The same with minus infinity outside the TOP_GROUPS groups of the best expert (softmax) or two (sigmoid)."""
    rank_G, place_N = tl.max(biased_GN, 1, return_indices=True)
    if SIGMOID and N > 1:
        others_GN = tl.where(tl.arange(0, N)[None, :] == place_N[:, None], float("-inf"), biased_GN)
        second_G = tl.max(others_GN, 1)
        rank_G = tl.where(second_G > float("-inf"), rank_G + second_G, rank_G)  # a group may have one expert
    allowed_G = tl.zeros([G], tl.int32)
    for _ in range(TOP_GROUPS):  # not unrolled: with 200 groups of one expert that takes minutes to compile
        best = tl.argmax(rank_G, 0)
        is_best_G = tl.arange(0, G) == best
        allowed_G = tl.where(is_best_G, 1, allowed_G)
        rank_G = tl.where(is_best_G, float("-inf"), rank_G)
    return tl.where((allowed_G > 0)[:, None], biased_GN, float("-inf"))


@jit
def _place_of_largest(values_GN, place_GN, NONE: tl.constexpr):
    """The first place of the largest value, NONE if all are NaN.

    Not by argmax of the flattened values: where nothing else uses them, Triton 3.6.0 lets that reshape reorder its
    elements, though argmax counts them, and the wrong expert is chosen (top 1 of sigmoid scores, seen on an H200).
    """
    largest = tl.max(tl.max(values_GN, 1), 0)
    return tl.min(tl.min(tl.where(values_GN == largest, place_GN, NONE), 1), 0)


@jit(do_not_specialize=["tokens", "experts", "group_size"])
def select(
    parts_ptr, bias_ptr, gates_ptr, chosen_ptr, tokens, experts, group_size, scale,
    SIGMOID: tl.constexpr, NORMALISE: tl.constexpr, GROUPS: tl.constexpr, TOP_GROUPS: tl.constexpr,
    TOP_K: tl.constexpr, PARTS: tl.constexpr, G: tl.constexpr, N: tl.constexpr, CHOICES: tl.constexpr,
):  # fmt: skip
    """Gates (FP32) and experts (int64), [tokens, TOP_K], best first; G, N and CHOICES are powers of two."""
    token = tl.program_id(0).to(tl.int64)
    group, member = tl.arange(0, G)[:, None], tl.arange(0, N)[None, :]
    real_GN = (group < GROUPS) & (member < group_size)
    number_GN = group * group_size + member
    logits_GN = tl.zeros([G, N], tl.float32)
    for part in tl.static_range(PARTS):
        place = (part * tokens + token) * experts + number_GN
        logits_GN += tl.load(parts_ptr + place, mask=real_GN, other=0.0)
    s_GN = _scores(logits_GN, real_GN, SIGMOID)
    biased_GN = s_GN
    if SIGMOID:
        biased_GN += tl.load(bias_ptr + number_GN, mask=real_GN, other=0.0)
    biased_GN = tl.where(real_GN, biased_GN, float("-inf"))
    if TOP_GROUPS < GROUPS:
        biased_GN = _within_best_groups(biased_GN, SIGMOID, TOP_GROUPS, G, N)

    place_GN, choice = group * N + member, tl.arange(0, CHOICES)
    chosen, gates = tl.zeros([CHOICES], tl.int32), tl.zeros([CHOICES], tl.float32)
    for index in tl.static_range(TOP_K):
        best = _place_of_largest(biased_GN, place_GN, G * N)
        is_best_GN = place_GN == best
        chosen = tl.where(choice == index, best, chosen)
        gates = tl.where(choice == index, tl.sum(tl.sum(tl.where(is_best_GN, s_GN, 0.0), 1), 0), gates)
        biased_GN = tl.where(is_best_GN, float("-inf"), biased_GN)
    if NORMALISE:
        gates = gates / (tl.sum(gates, 0) + 1e-20)
    expert = tl.minimum(chosen // N * group_size + chosen % N, experts - 1)  # NaN chooses anything that exists
    target = token * TOP_K + choice
    tl.store(gates_ptr + target, gates * scale, mask=choice < TOP_K)
    tl.store(chosen_ptr + target, expert.to(tl.int64), mask=choice < TOP_K)
