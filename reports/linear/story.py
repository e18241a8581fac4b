"""FP8: faster by how much, and how wrong? Speed, the price of quantizing, errors, bytes, experts, a loss."""

from __future__ import annotations

from ..figure import tabs
from ..markup import Child, Html, join, tag
from ..sections import absent, figure, missing, part
from ..view import View
from . import errors, loss, memory, quantizing, speed
from .cases import LOSS, PRODUCTS, TRAIN, of, sweeps

QUESTION = "FP8: faster by how much, and how wrong?"
FIGURES, MOST_TABS = 10, 3
BENCH = "make bench STUDY=linear"
SPELLED = (
    "A linear layer in training is three products: forward (fprop), gradient of the activations (dgrad) and of the "
    "weight (wgrad). DeepSeek-V3's FP8 quantizes activations by tiles of 1 x 128 and weights by blocks of 128 x 128 to "
    "E4M3; fp8-row and fp8-tensor take one scale a row and one a matrix, for contrast."
)
COUNTED = (
    "Counted from the sizes: a byte an element and four a scale. Training keeps activations and gradients in more than "
    "one orientation at a time; the master weight stays FP32 in any case."
)


def answer(view: View) -> str:
    """How much faster, what quantizing costs, how wrong, how much smaller, what the loss says: what was measured."""
    found = [module.answer(view) for module in (speed, quantizing, errors, memory, loss)]
    told = [sentence for sentence in found if sentence]
    if found[0] is None:
        told.insert(
            0, f"This run does not tell: FP8 and what it replaces were not both timed. Measure them with {BENCH}."
        )
    return " ".join(told)


NO_RATE = ("No forward product has a latency in this run.", BENCH)
NO_PRODUCTS = ("FP8 and what it replaces were not both timed in any product.", BENCH)
NO_TRADEOFF = ("No forward product tells its error of quantizing beside a time.", BENCH)
NO_PARTS = ("No training layer was timed beside its three products at the same sizes.", BENCH)
NO_QUANTIZERS = ("No quantizer was timed in this run.", BENCH)
NO_ERRORS = ("No error of quantizing by distribution was recorded.", BENCH)
NO_LENGTHS = ("No error against the length of the sum was recorded.", BENCH)
NO_GROUPED = ("FP8 and what it replaces were not both timed in any grouped product.", BENCH)
NO_LOSS = ("No model was trained with and without FP8.", f"{BENCH} K=loss")
NO_BYTES = ("No layer's sizes were recorded.", BENCH)


def sections(view: View) -> Html:
    """All evidence, each part saying so when its records are not in the run."""
    others = [
        part(
            "quantizing",
            "What does quantizing cost?",
            figure(quantizing.parts_plot(view), *NO_PARTS),
            figure(quantizing.quantizer_plot(view), *NO_QUANTIZERS),
        ),
        part(
            "error",
            "How wrong is it?",
            figure(errors.distribution_plot(view), *NO_ERRORS),
            figure(errors.length_plot(view), *NO_LENGTHS),
            gradients(view),
            figure(speed.tradeoff_plot(view), *NO_TRADEOFF),
        ),
        part("bytes", "What does it save in bytes?", in_bytes(view)),
        part("grouped", "And the experts of a mixture?", figure(speed.grouped_plot(view), *NO_GROUPED)),
        part("training", "What does it do to a loss?", trained(view)),
    ]
    products = figure(speed.product_plot(view), *NO_PRODUCTS)
    left = FIGURES - join(products, others).count("<figure")
    return join(part("speed", "How much faster?", tag("p", SPELLED), products, over_rows(view, left)), others)


def over_rows(view: View, left: int) -> Html:
    """Rates over rows by weight, as many as the page has room for."""
    every = sweeps(view)
    found = [sweep for sweep in every if len(sweep.points) > 1] or every[:1]
    if not found or left < 1:
        return absent(*NO_RATE)
    panels: list[tuple[str, Child]] = [
        (sweep.title, speed.rate_plot(sweep, f"rate-{i}").html())
        for i, sweep in enumerate(found[: min(MOST_TABS, left)])
    ]
    hidden = len(every) - len(panels)
    note = f"Further weights, case by case in the table above: {hidden}." if hidden else None
    return join(tabs("rates", panels), tag("p", note, class_="note") if note else None)


def gradients(view: View) -> Html | None:
    """The errors of the three products of training, as a table."""
    found = errors.gradients(view)
    if found is None:
        return missing("No training layer tells the error of its products.")
    lead = (
        "In training each product has an error of its own; the weight's gradient takes activations that were rounded "
    )
    return join(tag("h3", "Error of each product in training"), tag("p", f"{lead}twice."), found)


def in_bytes(view: View) -> Html:
    """Bytes by format, counted; then what was measured."""
    counted, measured = memory.counted(view), memory.measured(view)
    if counted is None and measured is None:
        return absent(*NO_BYTES)
    lead = "Measured: what an implementation holds for its weight, the least of each technique, and what a step of the "
    lead += "small model keeps from forward to backward, copies of weights included."
    return join(
        [tag("p", COUNTED), counted] if counted else None,
        [tag("p", lead), measured] if measured else missing("No bytes were measured."),
    )


def trained(view: View) -> Html:
    """The loss curves."""
    note = loss.others(view)
    return join(figure(loss.loss_plot(view), *NO_LOSS), tag("p", note, class_="note") if note else None)


def limits(view: View) -> list[str]:
    """What the page does not show, by what the run holds."""
    found = [
        "Products get operands that are quantized already, and their errors are of quantizing drawn operands: real "
        "activations and gradients differ from these by layer and over training.",
        "Times are of one layer or one operation, not of a whole model: attention, norms and the optimizer stay as "
        "they are, so a model gains less than its layers.",
    ]
    if of(view, LOSS):
        found.append(
            "Training at scale: the model here is small and the run short. Whether errors add up over a trillion "
            "tokens, or in wide layers with outliers, is not in it."
        )
    if not view.on_gpu:
        found.append(
            "FP8's speed: this machine has no FP8, so it is emulated by widening operands to FP32, several times "
            "slower than what it replaces, and there is no floor for it. What is compared with it is FP32, for most "
            "CPUs emulate BF16 as well. Its bytes and its rounding are FP8's; its accumulation is FP32's."
        )
        found.append(
            "The tensor core's short accumulator is emulated in every run; how short it is on a card is not measured."
        )
    elif of(view, *PRODUCTS, TRAIN):
        found.append(
            "Rankings on other GPUs: a ratio over BF16 is of this card's FP8 and BF16 rates, power limit and libraries."
        )
    return found
