"""What does GRPO save over PPO, and what do sharing prompts and never holding all logits save in both?

Measured as sampling groups of responses, judging them, one update on them, log-probabilities alone, and a short course
of whole steps, `learning.step`, which `make learn` takes as far as it goes. Wins to look for: an update without a
critic takes half the time and memory; a group shares its prompt; log-probabilities at a large vocabulary take a
fraction of the memory. Losses: chunked log-probabilities compute the head's product once more, and show nothing at 128
symbols. Rollout, reward and log-probability are the same for PPO and stand under GRPO.
"""  # noqa: D400

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from benches.tiers import tiered
from harness import Workload
from impls.learning.objective import Rule
from impls.learning.shape import LogShape, Recipe, RolloutShape, StepShape, UpdateShape
from impls.learning.tasks import Task
from impls.model.shape import ModelShape, small_shape

STUDY = "learning"
SYMBOLS = 128  # ASCII
V3_SYMBOLS = 129280
ADDITION, REVERSAL, COUNTDOWN = Task("addition", 2), Task("reversal", 12), Task("countdown", 4)
SHORT, WORDS = Task("reversal", 3), Task("reversal", 4)
RULE = Rule(by_length=True, by_deviation=True)


def bench_learning(contender: Callable[[], None]) -> None:
    """One node a contender; the contest of its case runs at the first of them."""
    contender()


def ascii_model(hidden: int, layers: int, head_dim: int, width: int, dtype: str = "float32") -> ModelShape:
    """A dense model with MHA over ASCII."""
    shape = small_shape(hidden, layers, head_dim, width, technique="mha", feed="dense", dtype=dtype)
    return replace(shape, symbols=SYMBOLS)


def name(model: ModelShape) -> str:
    """The model's word in case ids."""
    return f"ascii-{model.feed}-{model.technique}-d{model.hidden}"


def words(dtype: str) -> str:
    """What is said after the sizes."""
    return "-fp32" if dtype == "float32" else ""


def rolling(model: ModelShape, task: Task, questions: int, group: int, count: int) -> Workload:
    """Sampling."""
    sizes = f"{task.label}-q{questions}-g{group}-n{count}{words(model.attention.dtype)}"
    return Workload(
        "learning.rollout", name(model), sizes, RolloutShape(model, task, questions, group, count), tiers=()
    )


def judging(model: ModelShape, task: Task, questions: int, group: int) -> Workload:
    """Rewards of responses, some right, some wrong, some in no format."""
    shape = RolloutShape(model, task, questions, group, task.answer)
    return Workload("learning.reward", "rule", f"{task.label}-q{questions}-g{group}", shape, tiers=())


def updating(model: ModelShape, task: Task, questions: int, group: int, count: int, rule: Rule = RULE) -> Workload:
    """One update; a rule other than `RULE` is named by its form."""
    form = "" if rule == RULE else f"-{rule.form}"
    sizes = f"{task.label}-q{questions}-g{group}-n{count}{form}{words(model.attention.dtype)}"
    shape = UpdateShape(model, task, questions, group, count, rule)
    return Workload("learning.update", name(model), sizes, shape, tiers=())


def logging(rows: int, hidden: int, symbols: int, dtype: str) -> Workload:
    """Log-probabilities of a head alone."""
    shape = LogShape(rows, hidden, symbols, dtype)
    return Workload("learning.logprob", f"head-d{hidden}-v{symbols}", f"m{rows}{words(dtype)}", shape, tiers=())


def learning(model: ModelShape, task: Task, recipe: Recipe, enough: float = 0.02) -> Workload:
    """A course of steps from a policy that knows the format and hardly an answer."""
    sizes = f"{task.label}-q{recipe.questions}-g{recipe.group}-s{recipe.steps}-seed{recipe.seed}"
    shape = StepShape(model, task, replace(RULE, beta=0.001), recipe, enough=enough, stops=4, validation=200)
    return Workload("learning.step", name(model), sizes + words(model.attention.dtype), shape, tiers=())


def smoke() -> Iterator[Workload]:
    """Each operation once, narrow and short."""
    narrow = ascii_model(32, 2, 8, 8)
    yield rolling(narrow, ADDITION, 4, 4, 5)
    yield judging(narrow, ADDITION, 16, 8)
    yield updating(narrow, ADDITION, 4, 4, 5)
    yield logging(256, 32, 2048, "float32")
    yield learning(narrow, SHORT, Recipe(20, questions=8, group=8, count=SHORT.answer, rate=3e-3, warm_up=4))


def cpu() -> Iterator[Workload]:
    """The model that `make learn` trains, its rollout at a short and a long prompt, an update in both forms; a head
    with an eighth of DeepSeek-V3's symbols; and the short form of `make learn`, on words."""
    small = ascii_model(64, 2, 16, 32)
    yield learning(small, WORDS, Recipe(60, questions=16, group=8, count=WORDS.answer, rate=2e-3, warm_up=5))
    yield rolling(small, ADDITION, 32, 16, 5)
    yield rolling(small, REVERSAL, 16, 8, 14)
    for task in (ADDITION, REVERSAL, COUNTDOWN):
        yield judging(small, task, 64, 8)
    yield updating(small, ADDITION, 32, 8, 5)
    yield updating(small, ADDITION, 32, 8, 5, replace(RULE, form="sequence"))
    yield logging(512, 128, V3_SYMBOLS // 8, "float32")


def gpu() -> Iterator[Workload]:
    """A model of 120 million parameters: rollouts in FP32, for symbols must be equal to the last one, updates and whole
    steps in BF16, gradients of 64 responses at once; and log-probabilities of 4096 rows out of V3's symbols."""
    large, half = (ascii_model(1024, 10, 128, 512, dtype) for dtype in ("float32", "bfloat16"))
    yield learning(half, WORDS, Recipe(40, questions=64, group=8, count=WORDS.answer, rate=2e-4, warm_up=5, micro=64))
    for questions, group in ((8, 16), (64, 16), (16, 64)):  # the truth samples in FP64 without caches
        yield rolling(large, REVERSAL, questions, group, 16)
    for task in (ADDITION, REVERSAL, COUNTDOWN):
        yield judging(large, task, 64, 16)
    for group in (8, 16):  # the truth of PPO keeps the activations of two models in FP64
        yield updating(half, REVERSAL, 16, group, 16)
    yield updating(half, REVERSAL, 16, 8, 16, replace(RULE, form="sequence"))
    for hidden in (1024, 2048):
        yield logging(4096, hidden, V3_SYMBOLS, "bfloat16")


def full() -> Iterator[Workload]:
    """The grid: groups and lengths of a rollout, rows and vocabularies of log-probabilities."""
    large = ascii_model(1024, 10, 128, 512)
    for questions in (8, 32, 128):
        for count in (8, 16):
            yield rolling(large, REVERSAL, questions, 16, count)
    for rows in (1024, 4096, 16384):
        for symbols in (32000, V3_SYMBOLS):
            yield logging(rows, 1024, symbols, "bfloat16")


def workloads(model: str | None) -> list[Workload]:
    """The study's workloads: models of ASCII symbols; none for a model that is named, whose weights and symbols are
    not at hand."""
    if model is not None:
        return []
    return tiered({"smoke": list(smoke()), "cpu": list(cpu()), "gpu": list(gpu()), "full": list(full())})
