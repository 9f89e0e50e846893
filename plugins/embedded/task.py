"""Endless arithmetic questions, drawn from a hash of (seed, index), and 1,000 held-out ones that training never draws.

There are four kinds, each a valid Python expression, so that anyone can check the gold answer:

    sum          47+85=
    difference   85-47=
    product      7*8+15=
    larger       max(47,7*8)=

Whether a question is held out depends only on what it asks, not on seed, index or order of operands.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, TypeAlias

from rlvr.draws import Key, draw
from rlvr.errors import ConfigError, DataError
from rlvr.protocols import Prompt, PromptSource, SourceRequest
from rlvr.record.schema import Message, Task

Kind: TypeAlias = Literal["sum", "difference", "product", "larger"]

KINDS: tuple[Kind, ...] = ("sum", "difference", "product", "larger")
EVAL_SIZE = 1000
HELD_OUT_ONE_IN = 10


@dataclass(frozen=True)
class Question:
    """One question with operands `a` and `b`; `c` is added to a product or compared with it, else 0."""

    kind: Kind
    a: int
    b: int
    c: int = 0

    @property
    def expression(self) -> str:
        """Text of the question, e.g. `"7*8+15"`."""
        match self.kind:
            case "sum":
                return f"{self.a}+{self.b}"
            case "difference":
                return f"{self.a}-{self.b}"
            case "product":
                return f"{self.a}*{self.b}+{self.c}"
            case "larger":
                return f"max({self.c},{self.a}*{self.b})"

    @property
    def answer(self) -> int:
        """Gold answer."""
        match self.kind:
            case "sum":
                return self.a + self.b
            case "difference":
                return self.a - self.b
            case "product":
                return self.a * self.b + self.c
            case "larger":
                return max(self.c, self.a * self.b)

    @property
    def canonical(self) -> str:
        """Text of the question with ordered operands: `85+47` becomes `47+85`."""
        if self.kind == "difference":
            return self.expression
        return replace(self, a=min(self.a, self.b), b=max(self.a, self.b)).expression

    @property
    def held_out(self) -> bool:
        """True for about one question in ten."""
        return draw("arithmetic: held out", self.canonical) % HELD_OUT_ONE_IN == 0


def question(split: Literal["train", "eval"], *key: Key) -> Question:
    """Return the question of a split that `key` names: draw with a counter in the key until one is of the split."""
    for attempt in itertools.count():
        drawn = _any_question(*key, attempt)
        if drawn.held_out == (split == "eval"):
            return drawn
    raise AssertionError("unreachable: the counter has no end")


def _any_question(*key: Key) -> Question:
    def between(low: int, high: int, name: str) -> int:
        return low + draw(*key, name) % (high - low + 1)

    kind = KINDS[draw(*key, "kind") % len(KINDS)]
    if kind in ("sum", "difference"):
        a, b = between(10, 99, "a"), between(10, 99, "b")
        return Question(kind, *((a, b) if kind == "sum" else (max(a, b), min(a, b))))
    return Question(kind, between(2, 9, "a"), between(2, 9, "b"), between(10, 99, "c"))


class Arithmetic(PromptSource):
    """The prompt source `arithmetic`.

    Split "train" is endless, with another sequence for each seed; questions repeat after a while. Split "eval" is one
    list of 1,000 different held-out questions, the same for every seed, so that runs compare.
    """

    def __init__(self, request: SourceRequest) -> None:
        """Raise ConfigError if options or data files are given; there are none."""
        if request.options:
            raise ConfigError(f"dataset 'arithmetic' has no option {sorted(request.options)[0]!r}: it takes none")
        if request.data_files:
            raise ConfigError(f"dataset 'arithmetic' reads no files: leave out {request.data_files[0]}")
        self._split = request.split
        self._seed = request.seed
        self._chat = request.chat

    @property
    def size(self) -> int | None:
        """None (endless) for "train", 1,000 for "eval"."""
        return None if self._split == "train" else EVAL_SIZE

    def __getitem__(self, index: int, /) -> Prompt:
        """Return question `index`. Raises DataError if it is below 0 or, in the split "eval", past the end."""
        if index < 0 or (self.size is not None and index >= self.size):
            raise DataError(f"dataset 'arithmetic' has no question {index} in its split {self._split!r}")
        if self._split == "eval":
            asked = _held_out_questions()[index]
        else:
            asked = question("train", "arithmetic", self._seed, index)
        task = Task(
            dataset="arithmetic",
            row_id=asked.expression,
            split=self._split,
            answer=str(asked.answer),
            extra={"kind": asked.kind},
        )
        if self._chat:
            content = f"What is {asked.expression}? Put the final answer within \\boxed{{}}."
            return Prompt(task, messages=(Message(role="user", content=content),))
        return Prompt(task, text=f"{asked.expression}=")


@cache
def _held_out_questions() -> tuple[Question, ...]:
    questions: dict[str, Question] = {}
    for i in itertools.count():
        if len(questions) == EVAL_SIZE:
            break
        drawn = question("eval", "arithmetic: eval", i)
        questions.setdefault(drawn.canonical, drawn)
    return tuple(questions.values())
