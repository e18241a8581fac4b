"""How evenly experts are loaded, and what training does about it: measures, losses, a bias without a loss, dropping.

Every loss is alpha at perfect balance under scores that add up to one, and grows as the busy experts are also those
with high scores. Only P carries a gradient: f counts choices, which have none. A loss is defined within one sequence
of T tokens; the functions take several and return their mean. They win by acting at once; they lose by pulling on the
router against the language loss, which the bias does not, for it changes the choice and nothing else.
Shape suffixes: S sequences, T tokens, E experts, K chosen, D devices, M tokens of a batch, L layers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def max_violation(loads_E: Tensor) -> float:
    """MaxVio: the largest load over the mean, less one; 0 is even (arXiv 2408.15664, eq 4)."""
    return float(loads_E.max() / loads_E.mean() - 1)


def coefficient_of_variation(loads_E: Tensor) -> float:
    """Standard deviation (of the population) over the mean."""
    return float(loads_E.std(correction=0) / loads_E.mean())


def max_over_mean(loads: Tensor) -> float:
    """The largest over the mean: what the others wait for, 1 is even."""
    return float(loads.max() / loads.mean())


def expert_loads(experts_MK: Tensor, count: int) -> Tensor:
    """Tokens of each of `count` experts, int64 [E], from choices of any leading shape."""
    return torch.bincount(experts_MK.flatten(), minlength=count)


def normalised(s_STE: Tensor) -> Tensor:
    """Scores of each token over their sum (DeepSeek-V3 eq 19): what sigmoid scores need to add up to one."""
    return s_STE / s_STE.sum(-1, keepdim=True)


def expert_loss(s_STE: Tensor, experts_STK: Tensor, alpha: float) -> Tensor:
    """alpha Σ_i f_i P_i over experts, f_i = E / (K T) x tokens that chose i, P_i = mean_t s_it.

    DeepSeek-V2 §2.2.3, eqs 23-25. Scores [S, T, E], choices int64 [S, T, K]; a scalar.
    """
    return alpha * (_frequency(s_STE, experts_STK) * s_STE.mean(1)).sum(-1).mean()


def device_loss(s_STE: Tensor, experts_STK: Tensor, devices: int, alpha: float) -> Tensor:
    """alpha Σ_i f'_i P'_i over devices, f'_i the mean of f and P'_i the sum of P over the device's experts.

    DeepSeek-V2 §2.2.3, eqs 26-28. Experts stand on the devices in order, equally many on each.
    """
    f_SD = _frequency(s_STE, experts_STK).unflatten(-1, (devices, -1)).mean(-1)
    return alpha * (f_SD * _device_share(s_STE, devices)).sum(-1).mean()


def communication_loss(s_STE: Tensor, experts_STK: Tensor, devices: int, limit: int, alpha: float) -> Tensor:
    """alpha Σ_i f''_i P''_i over devices, f''_i = D / (M T) x tokens sent to device i, P''_i the sum of P on it.

    DeepSeek-V2 §2.2.3, eqs 29-31; `limit` is M, the devices a token may be sent to. A token counts once for a device,
    however many experts it uses there.
    """
    device_STK = experts_STK // (s_STE.shape[-1] // devices)
    sent_STD = F.one_hot(device_STK, devices).amax(2).to(s_STE.dtype)
    f_SD = sent_STD.mean(1) * devices / limit
    return alpha * (f_SD * _device_share(s_STE, devices)).sum(-1).mean()


def sequence_loss(s_STE: Tensor, top_k: int, alpha: float) -> Tensor:
    """alpha Σ_i f_i P_i, f from the best K of the unbiased scores, P from scores over their sum.

    DeepSeek-V3 eqs 17-20: the complement of the bias within a sequence. It differs from `expert_loss` in that the
    choice counted is not the one made, which the bias has moved.
    """
    return expert_loss(normalised(s_STE), s_STE.detach().topk(top_k, -1).indices, alpha)


def _frequency(s_STE: Tensor, experts_STK: Tensor) -> Tensor:
    """f [S, E]: how often each expert is chosen, 1 when evenly."""
    sequences, tokens, count = s_STE.shape
    chosen_SE = s_STE.new_zeros(sequences, count)
    chosen_SE.scatter_add_(1, experts_STK.flatten(1), chosen_SE.new_ones(()).expand(experts_STK.flatten(1).shape))
    return chosen_SE * count / (experts_STK.shape[-1] * tokens)


def _device_share(s_STE: Tensor, devices: int) -> Tensor:
    """P' [S, D]: the mean score that falls on each device."""
    return s_STE.mean(1).unflatten(-1, (devices, -1)).sum(-1)


def bias_step(bias_E: Tensor, loads_E: Tensor, speed: float) -> None:
    """b_i += u sign(mean load - load_i), in place: the balance without a loss.

    arXiv 2408.15664, algorithm 1; DeepSeek-V3 §2.1.2. `loads` are of the whole batch just trained on, so the bias of a
    batch depends on earlier ones only and no token sees a later one. The bias must be FP32: steps of 0.001 vanish in
    BF16 from 0.5 up. Raises TypeError where it is not.
    """
    if bias_E.dtype != torch.float32:
        raise TypeError(f"the bias is {bias_E.dtype}, expected float32: small steps would be rounded away")
    with torch.no_grad():
        loads = loads_E.to(torch.float64)
        bias_E += (speed * torch.sign(loads.mean() - loads)).to(bias_E.dtype)


def exempt_sequences(count: int, share: float, generator: torch.Generator) -> Tensor:
    """bool [S]: a random `share` of the sequences, whose tokens are never dropped (about 0.1 in DeepSeek-V2).

    Where the share is no whole number of sequences, it is rounded up as often as keeps the share over many draws.
    """
    order_S = torch.randperm(count, generator=generator, device=generator.device)
    return order_S < int(share * count + torch.rand((), generator=generator, device=generator.device).item())


def kept(
    affinity_MK: Tensor,
    experts_MK: Tensor,
    experts: int,
    devices: int,
    exempt_M: Tensor,
    capacity: float = 1.0,
    training: bool = True,
) -> Tensor:
    """Which pairs of token and chosen expert are computed, bool [M, K]: DeepSeek-V2's token dropping (§2.2.4).

    A device's budget is `capacity` times the average, M K / D pairs, rounded down. Above it the pairs of lowest
    affinity are dropped. Pairs of exempt tokens count against the budget and stay, even where they alone exceed it.
    In evaluation nothing is dropped.
    """
    if not training:
        return torch.ones_like(experts_MK, dtype=torch.bool)
    budget = int(capacity * experts_MK.numel() / devices)
    rank_MK = affinity_MK.masked_fill(exempt_M[:, None], torch.inf)
    device_MK = experts_MK // (experts // devices)
    kept_MK = exempt_M[:, None].expand_as(experts_MK).clone()
    for device in range(devices):
        pairs_N = (device_MK == device).flatten().nonzero().squeeze(1)
        best_N = rank_MK.flatten()[pairs_N].argsort(descending=True, stable=True)[:budget]
        kept_MK.view(-1)[pairs_N[best_N]] = True
    return kept_MK
