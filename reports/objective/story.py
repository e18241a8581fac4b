"""Does predicting more tokens shorten wall-clock? Training's price, drafts in generation, batches, and the loss."""

from __future__ import annotations

from ..markup import Html, join, tag
from ..sections import absent, figure, part
from ..view import View
from . import loss, speed, steps, training
from .cases import GENERATE, LOSS, STEP, of

QUESTION = "Does predicting more tokens at once pay?"
BENCH = "make bench STUDY=objective"
SPELLED = (
    "Next-token prediction (ntp) trains a model to predict the token that follows. Multi-token prediction (mtp), as in "
    "DeepSeek-V3, adds a module for each further token, which continues the causal chain; mtp-parallel, for contrast, "
    "adds independent heads. In generation the modules draft tokens, the model verifies them in one pass, and what "
    "comes out is the same text."
)
NO_STEP = ("No training step was timed with and without MTP.", f"{BENCH} K=train_step")
NO_SPEED = ("Generation was not timed both with and without drafts.", f"{BENCH} K=generate")
NO_DEPTH = ("No record tells which drafts stood.", f"{BENCH} K=generate")
NO_BATCH = (
    "Generation was not timed at several batches of one model, so where the gain ends is not known.",
    f"{BENCH} K=generate",
)
NO_COST = ("The control that keeps no draft was not timed beside plain decoding.", f"{BENCH} K=generate")
NO_LOSS = ("No model was trained with and without MTP.", f"{BENCH} K=loss")


def answer(view: View) -> str:
    """What MTP costs in training, buys in generation and does to the loss: what was measured."""
    found = [module.answer(view) for module in (training, speed, loss)]
    told = [sentence for sentence in found if sentence]
    if not told:
        return f"This run does not tell: nothing was measured both with and without MTP. Measure it with {BENCH}."
    return " ".join(told)


def sections(view: View) -> Html:
    """All evidence, each part saying so when its records are not in the run."""
    return join(
        part(
            "training",
            "What does a training step cost?",
            tag("p", SPELLED),
            figure(training.step_plot(view), *NO_STEP),
        ),
        part("speed", "Does drafting shorten generation?", figure(speed.acceptance_plot(view), *NO_SPEED)),
        part("tokens", "How many tokens does a step yield?", yields(view)),
        part("batch", "Where does batching end the gain?", figure(speed.batch_plot(view), *NO_BATCH)),
        part("cost", "What do drafting and verifying cost?", figure(steps.cost_plot(view), *NO_COST)),
        part("loss", "What does it do to the loss of the next token?", trained(view)),
    )


def yields(view: View) -> Html:
    """Tokens by depth on the prompts timed, and how drafts of models trained here fare."""
    found = steps.trained_table(view)
    plot = figure(steps.depth_plot(view), *NO_DEPTH)
    if found is None:
        return join(plot, absent("No model was trained in this run to count its drafts.", f"{BENCH} K=loss"))
    return join(plot, tag("h3", "Drafts of models trained in this run"), tag("p", found[0]), found[1])


def trained(view: View) -> Html:
    """The loss curves, then what other techniques and models came to."""
    note = loss.others(view)
    return join(figure(loss.loss_plot(view), *NO_LOSS), tag("p", note, class_="note") if note else None)


def limits(view: View) -> list[str]:
    """What the page does not show, by what the run holds."""
    found = []
    if of(view, GENERATE):
        found.append(
            "Acceptance elsewhere: it is of one small model of bytes, on the prompts that were timed. Text that "
            "repeats itself is easily drafted; a large model's drafts stand more or less often."
        )
        found.append(
            "Sampling and serving: tokens are chosen greedily, and a batch lasts until its slowest sequence is done; a "
            "server that refills a batch as sequences end loses less."
        )
    if of(view, STEP):
        found.append("The optimizer's update, and exchange between GPUs: neither is in the time of a training step.")
    if of(view, LOSS):
        found.append(
            "Evaluations: what MTP is published to improve are scores of large models, not the loss a byte. A small "
            "model trained for minutes shows neither."
        )
    if not view.on_gpu:
        found.append(
            "A GPU's gain: there a pass of two tokens reads the same weights as a pass of one and costs little more. "
            "On a CPU it costs what it computes, so drafting has less to win here."
        )
    return found or ["Nothing of this study was measured in this run."]
