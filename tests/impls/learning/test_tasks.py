"""Problems: drawn from a seed, disjoint, and judged by rule."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impls.learning.rollout import decoded, encoded
from impls.learning.tasks import Task, judged, makes, reward_by_rule

TASKS = [Task("addition", 2), Task("addition", 5, low_first=False), Task("reversal", 8), Task("countdown", 4)]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.label)
def test_solutions_get_the_whole_reward_and_fit(task):
    for one in task.draw(200, "a"):
        assert reward_by_rule(one, one.solution()) == reward_by_rule(one, one.solution(worked=True)) == 1.0
        assert len(one.prompt) <= task.prompt and len(one.solution()) <= task.answer
        assert len(one.solution(worked=True)) <= task.answer + task.work
        symbols, _ = encoded([one.solution()], task.answer)
        assert decoded(symbols) == [one.solution()]
        again = task.read(one.prompt)
        assert (again.prompt, again.key, again.numbers) == (one.prompt, one.key, one.numbers)
        assert reward_by_rule(again, one.solution()) == 1.0


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.label)
def test_training_and_held_out_problems_are_disjoint_and_follow_from_the_seed(task):
    seen = {one.key for one in task.draw(2000, "a")}
    assert not seen & {one.key for one in task.draw(500, "b", held_out=True)}
    assert task.draw(5, "a") == task.draw(5, "a") != task.draw(5, "b")


def test_a_fifth_of_all_sums_is_held_out_with_their_mirror_images():
    task = Task("addition", 2)
    assert len(task.pairs) / 10_000 == pytest.approx(0.2, abs=0.01)
    prompts = {one.prompt for one in task.pairs}
    assert all("+".join(reversed(prompt[:-1].split("+"))) + "=" in prompts for prompt in prompts)
    assert {one.prompt for one in task.validation(300)} < prompts
    assert {one.prompt for one in Task("addition", 2, split=1).pairs} != prompts


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("[75]", (True, True)),
        ("[57]", (True, False)),
        ("75", (False, False)),
        ("[75", (False, False)),
        ("(5,7)[75]", (True, True)),
        ("[]", (False, False)),
        ("[[75]]", (False, False)),
        (" [75]", (False, False)),
        ("[75]x", (False, False)),
        ("(1)(2)[75]", (False, False)),
        ("()[75]", (True, True)),
    ],
)
def test_the_rule_asks_for_format_and_answer(response, expected):
    (problem,) = (one for one in Task("addition", 2).draw(5000, "a") if one.prompt == "19+38=")
    verdict = judged(problem, response)
    assert (verdict.formatted, verdict.correct) == expected
    assert verdict.reward == sum(expected) / 2


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("3*5+2", True),
        ("2+3*5", True),
        ("5*3+2", True),
        ("3+5*2", False),
        ("15+2", False),
        ("3*5", False),
        ("3*5+2+0", False),
        ("3*5+-2", False),
        ("__import__", False),
        ("", False),
    ],
)
def test_countdown_takes_any_sum_of_each_number_once(text, right):
    assert makes(text, (2, 3, 5), 17) is right


def test_countdown_divides_exactly_and_never_by_zero():
    assert makes("7/2*4", (2, 4, 7), 14) and not makes("7/0", (0, 7), 0) and not makes("7/2", (2, 7), 3)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=12))
def test_any_text_is_judged(text):
    for task in TASKS:
        assert reward_by_rule(task.draw(1, "a")[0], text) in (0.0, 0.5, 1.0)


def test_work_writes_the_sums_of_digits_from_the_lowest():
    (problem,) = (one for one in Task("addition", 2).draw(5000, "a") if one.prompt == "19+38=")
    assert problem.work == "17,5" and problem.answer == "75"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("chess", 2), "task is 'chess', expected one of addition, reversal, countdown"),
        (("addition", 0), "difficulty of addition is 0, expected 1 to 9"),
    ],
)
def test_unknown_tasks_are_told(words, message):
    with pytest.raises(ValueError, match=message):
        Task(*words)


def test_text_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match="'12345' has 5 symbols, expected 1 to 4"):
        encoded(["12", "12345"], 4)
