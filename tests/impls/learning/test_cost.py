"""Costs are the matrix FLOPs that the leanest implementation is counted to need, attention's own added."""

from __future__ import annotations

import pytest
from torch.utils.flop_counter import FlopCounterMode

from harness import Prepared
from impls.learning import cost
from impls.learning.reference import updating
from impls.learning.shape import LogShape
from impls.objective.cost import attention_flops


def counted(registry, draw, name, contender, shape):
    operation = registry.operations[name]
    weights, inputs = draw(operation, shape, contender.split("/")[0])
    made = registry.implementations[name][contender].setup(weights, shape)
    call = made.call if isinstance(made, Prepared) else made
    with FlopCounterMode(display=False) as found:
        call(inputs)
    return found.get_total_flops(), operation.cost(shape, contender.split("/")[0])


@pytest.mark.parametrize("technique", ["ppo", "grpo"])
def test_an_update_costs_its_products(technique, registry, draw, update_shape):
    """The counter sees neither a CPU's fused attention nor products into a tensor at hand, here the head's third one;
    the head's first one is computed twice instead, to have no logits."""
    found, known = counted(registry, draw, "learning.update", f"{technique}/chunked", update_shape)
    models, shape = {"ppo": 2, "grpo": 1}[technique], update_shape
    attention = attention_flops(shape.model, shape.responses, shape.length - 1)[1]
    assert known.flops == pytest.approx(found + models * attention, rel=1e-3)


def test_a_rollout_processes_each_prompt_once(registry, draw, rollout_shape):
    found, known = counted(registry, draw, "learning.rollout", "grpo/shared", rollout_shape)
    shape, steps = rollout_shape, rollout_shape.count - 1
    prompts = attention_flops(shape.model, shape.questions, shape.task.prompt)[0]
    seen = 2 * attention_flops(shape.model, 1, 1)[0] * (shape.task.prompt + shape.count / 2) * shape.responses * steps
    assert known.flops == found + prompts + seen


def test_log_probabilities_cost_three_products(registry, draw):
    shape = LogShape(40, 16, 300)
    found, known = counted(registry, draw, "learning.logprob", "grpo/reference", shape)
    assert known.flops == found == 6 * 40 * 16 * 300


def test_ppo_writes_the_gradients_of_two_models(registry, draw, update_shape):
    weights, batch = draw(registry.operations["learning.update"], update_shape, "ppo")
    gradients = updating("ppo", "chunked")(weights, update_shape)(batch).gradients
    matrices = sum(one.numel() for one in gradients.values() if one.ndim > 1)
    assert cost.update(update_shape, "ppo").write_bytes == 4 * matrices
