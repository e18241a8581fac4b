"""Is sparsity paid for by imbalance? Latency on both footings, loads, skew, inner operations, training, ranks."""

from __future__ import annotations

from ..figure import tabs
from ..lines import reached
from ..markup import Child, Html, join, tag
from ..sections import absent, figure, missing, part
from ..view import View
from . import imbalance, inner, layers, loads, ranks, simulated, training
from .cases import BALANCE, LAYER, PARALLEL, of, sweeps

QUESTION = "Is sparsity paid for by imbalance?"
FIGURES, MOST_TABS = 10, 3
PARTS = (
    "A mixture routes each token to a few of its experts, so that few of its parameters are active. Fair opponents are "
    "the dense layer of equal active parameters, as much work a token, and that of equal total parameters, as much to "
    "store."
)
BENCH, BALANCED, RANKED = "make bench STUDY=ffn", "make balance", "make bench-ep"


def answer(view: View) -> str:
    """What a mixture takes beside dense layers, what skew costs, what balancing and placement do: what was measured."""
    found = [module.answer(view) for module in (layers, imbalance, training, ranks)]
    told = [sentence for sentence in found if sentence]
    if not told:
        return f"This run does not tell: a mixture and a dense layer were not both timed. Measure them with {BENCH}."
    if found[0] is None:
        told.append(f"A mixture and a dense layer were not both timed in this run; {BENCH} does that.")
    return " ".join(told)


def sections(view: View) -> Html:
    """All evidence, each part saying so when its records are not in the run."""
    others = [
        part("loads", "How evenly are experts loaded?", figure(loads.curve_plot(view), *NO_LOADS), heat(view)),
        part("imbalance", "What does imbalance cost?", figure(imbalance.skew_plot(view), *NO_TWINS)),
        part("inside", "What is the layer's time spent on?", figure(inner.inner_plot(view), *NO_INNER)),
        part("training", "Does balancing hold over training, and at what price?", over_training(view)),
        part("parallel", "How long do ranks wait for the busiest?", parallel(view)),
    ]
    left = FIGURES - join(others).count("<figure")
    return join(part("layers", "What does a mixture take beside a dense layer?", beside(view, left)), others)


NO_LOADS = ("No record tells the loads of a layer's experts.", BENCH)
NO_TWINS = ("No case with skewed routing was timed beside its twin with uniform routing.", BENCH)
NO_INNER = ("Routing, permuting and the experts' products were not timed apart.", BENCH)
NO_LAYERS = ("No layer has a latency in this run.", BENCH)
NO_PAIR = ("The mixture was timed together with no other layer.", BENCH)
NO_TRAINING = ("This run trained nothing.", BALANCED)
NO_RANKS = ("This run measured no ranks.", RANKED)
FEW_DEVICES = ("Ranks of their own were not measured, for want of devices.", f"{RANKED} with a GPU a rank")
NO_SIMULATION = ("This run simulated no ranks.", RANKED)


def beside(view: View, left: int) -> Html:
    """Latency over tokens by model, as many as the page has room for, then the ratios case by case."""
    footing = layers.footing_plot(view)
    most = max(1, min(MOST_TABS, left - (footing is not None)))
    every = sweeps(view)
    found = [sweep for sweep in every if len(sweep.points) > 1] or every[:1]
    if not found:
        return absent(*NO_LAYERS)
    panels: list[tuple[str, Child]] = [
        (sweep.title, layers.latency_plot(sweep, f"layer-{i}").html()) for i, sweep in enumerate(found[:most])
    ]
    hidden = len(every) - len(panels)
    note = f"Further models and routings, case by case below: {hidden}." if hidden else None
    return join(
        tag("p", PARTS),
        tabs("layers", panels),
        tag("p", note, class_="note") if note else None,
        figure(footing, *NO_PAIR),
    )


def heat(view: View) -> Html:
    """Loads by layer of a trained model, or why there are none."""
    plot = loads.heat_plot(view)
    if plot:
        return plot.html()
    if loads.layer_loads(view):
        return missing("One layer was trained: no map of layers by experts.")
    return absent("No record tells loads by layer, which are a trained model's.", BALANCED)


def over_training(view: View) -> Html:
    """Imbalance and validation over steps."""
    plots = [training.violation_plot(view), training.bits_plot(view)]
    if not any(plots):
        return absent(*NO_TRAINING)
    words = ("MaxVio over steps was not recorded.", "Validation over steps was not recorded.")
    figures = [plot.html() if plot else missing(why) for plot, why in zip(plots, words, strict=True)]
    return join(tag("p", training.shown(view), class_="note"), figures)


def parallel(view: View) -> Html:
    """Measured ranks, or those that one device played; then placements of which tokens were counted."""
    timed, counted = ranks.rank_plot(view), simulated.simulated_plot(view)
    played = None if timed else ranks.rank_plot(view, played=True)
    if not timed and not played and not counted:
        return absent(*NO_RANKS)
    shown = join(absent(*FEW_DEVICES), played.html()) if played else figure(timed, *NO_RANKS)
    return join(shown, figure(counted, *NO_SIMULATION))


def limits(view: View) -> list[str]:
    """What the page does not show, by what the run holds."""
    timed, trained, ranked = (bool(of(view, names)) for names in (LAYER, (BALANCE,), (PARALLEL,)))
    found = [
        "Quality: a dense layer and a mixture of equal parameters learn differently; that is not compared.",
        "Times are of one layer or one operation, not of a whole model.",
    ]
    if timed:
        found.append(
            "Learned routing: hidden states are drawn so that tokens choose the experts asked for, uniform to Zipf, "
            "or as often as in a small trained model; which experts a trained router takes together is not drawn."
        )
        found.append("A slice such as -ep8 is one rank's own work: no exchange between ranks is in its time.")
    if trained:
        found.append(
            "Training at scale: the models trained here are small and the runs short; balance may drift later."
        )
    if ranked:
        found.append("Several hosts: the ranks share one, so exchanges over a network are not in their times.")
        found.append("Simulated placements count tokens; whether time follows is what the measured ranks are for.")
    sweep = next(iter(sweeps(view)), None)
    shares = reached(sweep) if sweep else None
    if shares:
        found.append(
            f"The limit of the hardware: {shares} of their floor, and better kernels could change every ratio here."
        )
    if not view.on_gpu:
        found.append(
            "A CPU's cache, bandwidth and arithmetic relate differently from a GPU's: rankings do not carry over."
        )
    return found
