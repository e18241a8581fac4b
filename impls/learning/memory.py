"""Bytes by owner: what policy, critic and reference hold as parameters, gradients and optimizer states.

Read off the tensors themselves, each storage once; activations are what a step's peak has on top. The arithmetic to
hold it against, in mixed precision with FP32 masters: 16 bytes a parameter that is trained (4 each for parameter,
gradient and two moments) and 2 for one that is frozen in BF16, so 34 for PPO with a critic as large as the policy and
18 for GRPO; a learned reward model, which rules need none of, would add 2 more.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

OWNERS = ("policy", "critic", "reference")
KINDS = ("parameters", "gradients", "optimizer")
Owned = dict[str, tuple[int, int, int]]


def storage(tensors: Iterable[Tensor | None]) -> int:
    """Bytes of the storages behind tensors, each once."""
    found = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if t is not None}
    return sum(found.values())


def owned(
    policy: nn.Module, critic: nn.Module | None, reference: nn.Module | None, optimizer: torch.optim.Optimizer
) -> Owned:
    """Bytes of each owner by kind, in the order of `KINDS`; an owner that is not there has zeros."""
    found: Owned = {}
    for owner, model in zip(OWNERS, (policy, critic, reference), strict=True):
        held = [] if model is None else list(model.parameters())
        states = [state for one in held for state in optimizer.state.get(one, {}).values() if isinstance(state, Tensor)]
        found[owner] = (storage(held), storage(one.grad for one in held), storage(states))
    return found


def by_arithmetic(trained: int, frozen: int, frozen_bytes: int = 2) -> int:
    """Bytes of so many trained and frozen parameters by the arithmetic above, activations left out."""
    return 16 * trained + frozen_bytes * frozen
