"""What does dropping the critic save, and does the policy still learn? Memory, a step's time, and curves."""

from __future__ import annotations

from ..markup import Html, join, tag
from ..sections import absent, figure, part
from ..view import View
from . import curves, memory, steps
from .cases import STEP, of

QUESTION = "What does dropping the critic save?"
BENCH, LEARN = "make bench STUDY=learning", "make learn"
SPELLED = (
    "PPO trains a policy with the help of a critic, a second model of its size that predicts what is still to come. "
    "GRPO, as in DeepSeekMath and R1, samples a group of responses to each question and compares them with each other "
    "instead. Here both learn from rewards that a program gives: half for the format, half for a right answer."
)
NO_MEMORY = ("No step of both was measured.", f"{BENCH} K=step")
NO_CURVE = ("No policy was trained over several steps.", LEARN)


def answer(view: View) -> str:
    """Memory, time and accuracy: what was measured."""
    told = [sentence for module in (memory, steps, curves) if (sentence := module.answer(view))]
    if not told:
        return f"This run does not tell: no step of both was measured. Measure it with {BENCH}."
    return " ".join(told)


def sections(view: View) -> Html:
    """All evidence, each part saying so when its records are not in the run."""
    return join(
        part("memory", "Who holds the memory?", tag("p", SPELLED), figure(memory.memory_plot(view), *NO_MEMORY)),
        part("time", "Where does a step's time go?", figure(steps.step_plot(view), *NO_MEMORY)),
        part(
            "accuracy",
            "What does the policy learn?",
            figure(curves.accuracy_plot(view), *NO_CURVE),
            figure(curves.accuracy_plot(view, "seconds"), *NO_CURVE),
        ),
        part("length", "Do answers grow longer?", figure(curves.length_plot(view), *NO_CURVE)),
        part("signal", "How much do groups tell?", figure(curves.signal_plot(view), *NO_CURVE)),
        part(
            "saved",
            "What do shared prompts and chunks save?",
            steps.saved(view) or absent("No operation was timed beside its reference.", BENCH),
        ),
    )


def limits(view: View) -> list[str]:
    """What the page does not show, by what the run holds."""
    found = []
    if of(view, STEP):
        found.append(
            "How a frontier model comes to reason: a small policy that learns sums or words from a program's verdicts "
            "has no knowledge to draw on and nothing to think about."
        )
        found.append(
            "A learned reward: rules cannot be talked into anything, and need no further model in memory. With a "
            "reward model both techniques hold one more."
        )
        found.append(
            "What the start brings: the policy learns format and a first skill by supervised training on the same "
            "task, not from a corpus. It is labelled by its share of right answers."
        )
    if not view.on_gpu:
        found.append(
            "A GPU's balance: there a step of sampling reads all weights for few symbols, so sampling takes a larger "
            "share of a step, and a critic's time weighs less or more than here."
        )
    return found or ["Nothing of this study was measured in this run."]
