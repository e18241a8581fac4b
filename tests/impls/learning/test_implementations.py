"""Every contender against its reference as the harness judges it, and what sharing and keeping must not change."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from impls.learning import logs
from impls.learning.inputs import RARE
from impls.learning.reference import sampled_anew
from impls.learning.rollout import END_SYMBOL, Sampling, counted, joined
from impls.learning.shape import LogShape
from impls.learning.tasks import Task
from impls.learning.update import Batch, chunked, mask_of, whole
from impls.model.decoder import Decoder
from impls.model.generation import Plain
from impls.model.serving import Server
from impls.objective.weights import model_of

ROLLOUT, REWARD, UPDATE, LOGPROB = (f"learning.{name}" for name in ("rollout", "reward", "update", "logprob"))


@pytest.mark.parametrize("attention", ["mha", "gqa", "mla"])
@pytest.mark.parametrize("task", [Task("addition", 2), Task("reversal", 4), Task("countdown", 3)])
def test_a_group_that_shares_its_prompt_says_what_the_reference_says(attention, task, judge, rollout_shape):
    model = replace(rollout_shape.model, technique=attention)
    judge(ROLLOUT, "grpo/shared", replace(rollout_shape, model=model, task=task))


@pytest.mark.parametrize("task", [Task("addition", 2), Task("addition", 1, low_first=False), Task("reversal", 6)])
def test_the_table_gives_the_rules_rewards(task, judge, rollout_shape, draw, registry):
    shape = replace(rollout_shape, task=task, questions=40, count=task.answer)
    judge(REWARD, "grpo/table", shape)
    _, answers = draw(registry.operations[REWARD], shape, "grpo")
    found = registry.reference(REWARD, "grpo").setup(None, shape)(answers)
    assert set(found.tolist()) == {0.0, 0.5, 1.0}


def test_the_table_knows_no_countdown(registry, rollout_shape):
    shape = replace(rollout_shape, task=Task("countdown", 3))
    assert "many right answers" in registry.implementations[REWARD]["grpo/table"].supports(shape)


@pytest.mark.parametrize("rows", [5, 1000])
@pytest.mark.parametrize("technique", ["ppo", "grpo"])
def test_chunks_of_logits_give_the_same_update(technique, rows, judge, update_shape, monkeypatch):
    monkeypatch.setattr(logs, "ROWS", rows)
    judge(UPDATE, f"{technique}/chunked", update_shape)


def test_the_sequence_form_gives_the_same_update_in_chunks(judge, update_shape):
    rule = replace(update_shape.rule, form="sequence", by_deviation=True)
    judge(UPDATE, "grpo/chunked", replace(update_shape, rule=rule))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fused_log_probabilities_and_their_gradients_are_those_of_whole_logits(dtype, judge, monkeypatch):
    monkeypatch.setattr(logs, "ROWS", 16)
    judge(LOGPROB, "grpo/chunked", LogShape(50, 24, 300, dtype))


def test_fused_log_probabilities_take_a_third_of_the_memory(draw, registry):
    from harness import memory

    shape, peaks = LogShape(1024, 16, 4000), {}
    weights, rows = draw(registry.operations[LOGPROB], shape, "grpo")
    for name in ("reference", "chunked"):
        call = registry.implementations[LOGPROB][f"grpo/{name}"].setup(weights, shape)
        peaks[name] = memory.measure(lambda call=call: call(rows), "cpu")[1].peak
    assert peaks["chunked"] < peaks["reference"] / 3


def test_numbers_choose_clearly_and_responses_differ(draw, registry, rollout_shape):
    weights, questions = draw(registry.operations[ROLLOUT], rollout_shape, "grpo")
    model = model_of(weights["policy"], rollout_shape.model)
    found = sampled_anew(model, questions, rollout_shape.group, rollout_shape.count)
    assert len(found.symbols_BN.unique(dim=0)) > 6
    assert float(found.logs_BN[counted(found.symbols_BN)].min()) > torch.tensor(RARE).log()
    nudged = replace(questions, uniforms_NB=questions.uniforms_NB + 0.2 * RARE)
    again = sampled_anew(model, nudged, rollout_shape.group, rollout_shape.count)
    assert torch.equal(again.symbols_BN, found.symbols_BN)


def test_log_probabilities_kept_from_sampling_are_those_of_a_further_pass(draw, registry, rollout_shape):
    weights, questions = draw(registry.operations[ROLLOUT], rollout_shape, "grpo")
    model = model_of(weights["policy"], rollout_shape.model)
    sizes = rollout_shape.questions, rollout_shape.group, rollout_shape.task.prompt, rollout_shape.count
    found = Sampling(model, *sizes).sample(questions)
    whole_BT, lengths_B = joined(questions.symbols_QP, questions.lengths_Q, found.symbols_BN)
    mask_BN = mask_of(found.symbols_BN, found.logs_BN)
    batch = Batch(whole_BT, lengths_B, found.symbols_BN, mask_BN, found.logs_BN, mask_BN)
    for way in (whole, chunked):
        again_BN = way(model, whole_BT, batch.at_BN, found.symbols_BN) * mask_BN
        torch.testing.assert_close(again_BN, found.logs_BN, rtol=0, atol=1e-5)


def test_each_prompt_is_processed_once(draw, registry, rollout_shape, monkeypatch):
    weights, questions = draw(registry.operations[ROLLOUT], rollout_shape, "grpo")
    sizes = rollout_shape.questions, rollout_shape.group, rollout_shape.task.prompt, rollout_shape.count
    sampling, seen = Sampling(model_of(weights["policy"], rollout_shape.model), *sizes), []
    for server in (sampling.first, sampling.server):
        stream = server.stream
        monkeypatch.setattr(server, "stream", lambda s, p, stream=stream: (seen.append(s.numel()), stream(s, p))[1])
    sampling.sample(questions)
    assert seen[0] == rollout_shape.questions * rollout_shape.task.prompt
    assert seen[1:] == [rollout_shape.responses] * (rollout_shape.count - 1)


def test_sampling_ends_when_all_responses_have(draw, registry, rollout_shape, monkeypatch):
    weights, questions = draw(registry.operations[ROLLOUT], rollout_shape, "grpo")
    sizes = rollout_shape.questions, rollout_shape.group, rollout_shape.task.prompt, rollout_shape.count
    sampling, steps = Sampling(model_of(weights["policy"], rollout_shape.model), *sizes), []
    step = Plain.step

    def ending(self):
        step(self)
        steps.append(1)
        if len(steps) == 2:
            self.symbols_BS.scatter_(1, self.known_B[:, None] - 1, END_SYMBOL)

    monkeypatch.setattr(Plain, "step", ending)
    found = sampling.sample(questions)
    assert len(steps) == 2 and not found.symbols_BN[:, 3:].any()


def test_caches_go_evenly_into_those_that_follow(model):
    decoder = Decoder(model)
    for batch, slots in ((3, 8), (4, 5)):
        with pytest.raises(ValueError, match=f"2 sequences of 6 slots do not go evenly into {batch} of {slots}"):
            Server(decoder, batch, slots).follow(Server(decoder, 2, 6))


def test_prompts_beyond_the_room_are_refused(draw, registry, rollout_shape):
    weights, questions = draw(registry.operations[ROLLOUT], rollout_shape, "grpo")
    sampling = Sampling(model_of(weights["policy"], rollout_shape.model), 3, 4, 5, 6)
    with pytest.raises(ValueError, match="prompts have 6 symbols, there is room for 5"):
        sampling.sample(questions)
