"""Problems whose answers a program checks: addition, reversal and Countdown, drawn from a seed, some held out.

A response is `[answer]`, or `(work)[answer]` after training on worked solutions: DeepSeek-R1's two tags (arXiv
2501.12948, table 1) in one symbol each; its last symbol is the closing bracket. The reward is by rule, half for the
format and half for a right answer (R1-Zero: accuracy and format, equal weight). Which problems are held out follows
from the seed and the problem alone, so no problem is on both sides, however many are drawn; those that are one problem
written in two ways, such as 3+5 and 5+3, are on one side. Wins over a learned reward: it cannot be talked into
anything. Loses: only what can be checked can be learnt.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import islice, product

END = "]"
FORMAT = re.compile(r"(\([^()\[\]]*\))?\[([^()\[\]]+)\]")
SUM = re.compile(r"\d+([-+*/]\d+)*")
HELD_OUT = 5  # one in so many
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Problem:
    """What is asked, an answer that is right, and how one comes to it; `key` is equal for problems that are the same.

    `numbers` and `target` are Countdown's, which has more than one right answer.
    """

    prompt: str
    answer: str
    work: str
    key: str
    numbers: tuple[int, ...] = ()
    target: int = 0

    def solution(self, worked: bool = False) -> str:
        """A response that gets the whole reward."""
        return f"({self.work})[{self.answer}]" if worked else f"[{self.answer}]"


@dataclass(frozen=True)
class Task:
    """One of `KINDS`; `difficulty` is the most digits of an operand, letters of a word, or numbers of Countdown.

    low_first  addition's answers are written from the lowest digit up, in the order that carries are known
    split      seed that says which problems are held out
    Raises ValueError for an unknown kind or a difficulty that it does not have.
    """

    kind: str = "addition"
    difficulty: int = 2
    low_first: bool = True
    split: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"task is {self.kind!r}, expected one of {', '.join(KINDS)}")
        least, most = KINDS[self.kind].range
        if not least <= self.difficulty <= most:
            raise ValueError(f"difficulty of {self.kind} is {self.difficulty}, expected {least} to {most}")

    @property
    def prompt(self) -> int:
        """The most symbols of a prompt."""
        return KINDS[self.kind].prompt(self.difficulty)

    @property
    def answer(self) -> int:
        """The most symbols of a response without work."""
        return KINDS[self.kind].answer(self.difficulty) + 2

    @property
    def work(self) -> int:
        """The most symbols of the work before an answer, its parentheses included."""
        return KINDS[self.kind].work(self.difficulty) + 2

    @property
    def label(self) -> str:
        """For case ids."""
        return f"{self.kind}{self.difficulty}"

    def held_out(self, problem: Problem) -> bool:
        """Whether training must not see it."""
        told = hashlib.sha256(f"{self.split}:{self.kind}:{problem.key}".encode()).digest()
        return int.from_bytes(told[:8], "little") % HELD_OUT == 0

    def problem(self, generator: random.Random) -> Problem:
        """One of either side."""
        return KINDS[self.kind].draw(self, generator)

    def read(self, prompt: str) -> Problem:
        """The problem that a prompt asks; of Countdown without a solution. Raises ValueError for what is no prompt."""
        return KINDS[self.kind].read(self, prompt)

    def draw(self, count: int, seed: str, held_out: bool = False) -> list[Problem]:
        """`count` problems of one side; the same for the same words in `seed`."""
        generator = random.Random(f"{seed}:{self.kind}")
        drawn = iter(lambda: self.problem(generator), None)
        return list(islice((one for one in drawn if self.held_out(one) == held_out), count))

    @cached_property
    def pairs(self) -> list[Problem]:
        """All problems that are held out, of addition with up to two digits. Raises ValueError for another task."""
        if self.kind != "addition" or self.difficulty > 2:
            raise ValueError(f"{self.label} has too many problems to list")
        every = (_sum(self, left, right) for left, right in product(range(10**self.difficulty), repeat=2))
        return [one for one in every if self.held_out(one)]

    def validation(self, count: int) -> list[Problem]:
        """Problems that are held out, at most `count`: evenly from all where they can be listed, or else drawn."""
        if self.kind != "addition" or self.difficulty > 2:
            return self.draw(count, "validation", held_out=True)
        found = list(self.pairs)
        random.Random(self.split).shuffle(found)
        return found[:count]


@dataclass(frozen=True)
class Verdict:
    """What the rule says of a response."""

    formatted: bool
    correct: bool

    @property
    def reward(self) -> float:
        """Equal weight: 0, 0.5 or 1."""
        return 0.5 * self.formatted + 0.5 * self.correct


def judged(problem: Problem, response: str) -> Verdict:
    """The rule: whether it is `[answer]` with nothing around it but work in parentheses, and the answer is right."""
    found = FORMAT.fullmatch(response)
    if found is None:
        return Verdict(False, False)
    answer = found.group(2)
    if problem.numbers:
        return Verdict(True, makes(answer, problem.numbers, problem.target))
    return Verdict(True, answer == problem.answer)


def reward_by_rule(problem: Problem, response: str) -> float:
    """0, 0.5 for the format alone, or 1."""
    return judged(problem, response).reward


def makes(text: str, numbers: Sequence[int], target: int) -> bool:
    """Whether a sum such as 3*5+2 takes each number once and comes to the target; the usual order of operations."""
    if SUM.fullmatch(text) is None:
        return False
    terms = re.split(r"([-+*/])", text)
    if sorted(map(int, terms[::2])) != sorted(numbers):
        return False
    parts = [Fraction(int(terms[0]))]
    for sign, number in zip(terms[1::2], map(int, terms[2::2]), strict=True):
        if sign == "/" and number == 0:
            return False
        if sign in "*/":
            parts[-1] = parts[-1] * number if sign == "*" else parts[-1] / number
        else:
            parts.append(Fraction(number if sign == "+" else -number))
    return sum(parts) == target


def _sum(task: Task, left: int, right: int) -> Problem:
    answer, work = str(left + right), []
    carry, a, b = 0, left, right
    while a or b or carry or not work:
        digit = a % 10 + b % 10 + carry
        work.append(str(digit))
        a, b, carry = a // 10, b // 10, digit // 10
    answer = answer[::-1] if task.low_first else answer
    low, high = sorted((left, right))
    return Problem(f"{left}+{right}=", answer, ",".join(work), f"{low}+{high}")


def _addition(task: Task, generator: random.Random) -> Problem:
    left, right = (generator.randrange(10**task.difficulty) for _ in range(2))
    return _sum(task, left, right)


def _reversal(task: Task, generator: random.Random) -> Problem:
    return _reversed("".join(generator.choices(LETTERS, k=generator.randint(1, task.difficulty))))


def _reversed(word: str) -> Problem:
    return Problem(f"{word}<", word[::-1], ",".join(word), word)


def _countdown(task: Task, generator: random.Random) -> Problem:
    while True:
        numbers = [generator.randint(1, 9) for _ in range(task.difficulty)]
        signs = generator.choices("+-*", k=task.difficulty - 1)
        text = "".join(f"{sign}{number}" for sign, number in zip(["", *signs], numbers, strict=True))
        target = sum(_product(part) for part in re.findall(r"[-+]?[\d*]+", text))
        if 0 < target < 100:
            listed = tuple(sorted(numbers))
            prompt = f"{','.join(map(str, listed))}:{target}="
            return Problem(prompt, text, ",".join(map(str, numbers)), prompt, listed, target)


def _product(text: str) -> int:
    sign, found = (-1 if text.startswith("-") else 1), 1
    for number in text.lstrip("+-").split("*"):
        found *= int(number)
    return sign * found


def _read_sum(task: Task, prompt: str) -> Problem:
    left, right = prompt.removesuffix("=").split("+")
    return _sum(task, int(left), int(right))


def _read_word(task: Task, prompt: str) -> Problem:
    return _reversed(prompt.removesuffix("<"))


def _read_countdown(task: Task, prompt: str) -> Problem:
    numbers, target = prompt.removesuffix("=").split(":")
    return Problem(prompt, "", numbers, prompt, tuple(map(int, numbers.split(","))), int(target))


@dataclass(frozen=True)
class Kind:
    """How a task is drawn and read, the difficulties it has, and the most symbols of its prompts, answers and work."""

    draw: Callable[[Task, random.Random], Problem]
    read: Callable[[Task, str], Problem]
    range: tuple[int, int]
    prompt: Callable[[int], int]
    answer: Callable[[int], int]
    work: Callable[[int], int]


KINDS: dict[str, Kind] = {
    "addition": Kind(_addition, _read_sum, (1, 9), lambda n: 2 * n + 2, lambda n: n + 1, lambda n: 3 * n + 1),
    "reversal": Kind(_reversal, _read_word, (2, 32), lambda n: n + 1, lambda n: n, lambda n: 2 * n - 1),
    "countdown": Kind(
        _countdown, _read_countdown, (2, 6), lambda n: 2 * n + 3, lambda n: 2 * n - 1, lambda n: 2 * n - 1
    ),
}
