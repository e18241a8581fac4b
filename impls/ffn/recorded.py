"""Routing as a trained router did it: how often each expert was chosen, recorded once in `router_loads.json`.

The file holds loads by layer of this suite's own small mixture after training without balancing, which lie between
uniform and Zipf's law (`benches/router_loads.py` makes it and says why). Their sorted curve, loads over the mean
against relative rank, averaged over the layers, is stretched over as many experts as a workload has. Wins over a law
with an exponent: how uneven a router comes to be is measured, not assumed. Loses what a small model cannot show:
domains of text, scale, and which experts go together.
Shape suffixes: L layers, E experts, K chosen, T tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .routing import choose
from .shape import Router

FILE = Path(__file__).with_name("router_loads.json")
ROUNDS, CHOICES = 6, 256


def digest_of(content: Mapping[str, Any]) -> str:
    """SHA-256, in 12 digits, of everything in the file but the digest."""
    rest = {name: value for name, value in content.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:12]


@lru_cache(maxsize=1)
def content() -> Mapping[str, Any]:
    """The file. Raises ValueError where its digest is not that of what it holds."""
    found: Mapping[str, Any] = json.loads(FILE.read_text())
    if found["digest"] != digest_of(found):
        raise ValueError(f"{FILE.name} was changed: its digest is {digest_of(found)}, it says {found['digest']}")
    return found


def digest() -> str:
    """Of the loads that workloads with recorded routing ask for."""
    return str(content()["digest"])


@lru_cache(maxsize=16)
def curve(experts: int) -> Tensor:
    """Load over mean of each of `experts`, the busiest first, float64 [E]; mean 1."""
    loads_LE = torch.tensor(list(content()["loads"].values()), dtype=torch.float64)
    known_E = (loads_LE / loads_LE.mean(1, keepdim=True)).sort(1, descending=True).values.mean(0)
    place_E = ((torch.arange(experts) + 0.5) / experts * len(known_E) - 0.5).clamp(0, len(known_E) - 1)
    low_E = place_E.long().clamp(max=len(known_E) - 2)
    stretched_E = torch.lerp(known_E[low_E], known_E[low_E + 1], place_E.double() - low_E)
    return stretched_E / stretched_E.mean()


@lru_cache(maxsize=16)
def preferences(router: Router, asked: str) -> Tensor:
    """Logits [E] by which Gumbel top-k draws choose experts as often as the curve says, experts in random order.

    A token takes an expert once, and uses few groups, so loads are more even than weights: the weights are corrected
    until many tokens' loads are the curve's. Raises ValueError where the loads are not those `asked` for by digest.
    """
    if asked != digest():
        raise ValueError(f"recorded routing of digest {asked} is asked for, {FILE.name} has {digest()}")
    generator = torch.Generator().manual_seed(router.experts)
    wanted_E = curve(router.experts)[torch.randperm(router.experts, generator=generator)]
    tokens = CHOICES * router.experts // router.top_k
    gumbel_TE = -torch.rand(tokens, router.experts, generator=generator).clamp_min_(1e-12).log().neg().log()
    found_E = wanted_E.log()
    for _ in range(ROUNDS):
        chosen_TK = choose(found_E.float() + gumbel_TE, None, router)
        loads_E = chosen_TK.flatten().bincount(minlength=router.experts).clamp_min(1)
        found_E = found_E + (wanted_E / (loads_E / loads_E.double().mean())).log()
        found_E = (found_E - found_E.mean()).clamp(-20, 20)  # an expert cannot have more than every token
    return found_E.float()
