"""Questions that two data sets have in common: the same ones, or ones with long sequences of words in common."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice

from rlvr.data.prompts import Encoded
from rlvr.data.selection import question_mark
from rlvr.protocols import PromptSource

NGRAM = 13
"""Consecutive words and signs that two questions must share (arXiv 2005.14165, appendix C)."""
OVERLAP = 0.5
"""Share of a question's words and signs from which it counts as contained in a training set."""


def shared_questions(trained: PromptSource, limit: int | None, held_out: PromptSource, asked: Sequence[Encoded]) -> int:
    """Return how many questions of `held_out` are among the first `limit` of `trained`; 0 for an endless source."""
    wanted = [question_mark(held_out.question(each.index)) for each in asked]
    trained_on = set(map(question_mark, islice(trained.questions(), limit)))
    return sum(mark in trained_on for mark in wanted)


def overlaps(asked: Sequence[str], trained: Iterable[str], ngram: int = NGRAM) -> list[float]:
    """Return, for each question, the share of its words and signs that stand in an n-gram of some training question.

    A question of fewer than `ngram` words and signs has a share of 1 if a training question has the same ones in the
    same order, else 0. Case and white space do not count.
    """
    texts = [words_of(text) for text in asked]
    covered = [bytearray(len(words)) for words in texts]
    grams: dict[tuple[str, ...], list[tuple[int, int]]] = defaultdict(list)
    for i, words in enumerate(texts):
        size = ngram if len(words) >= ngram else len(words)
        for start in range(len(words) - size + 1 if words else 0):
            grams[tuple(words[start : start + size])].append((i, start))
    for text in trained:
        words = words_of(text)
        size = ngram if len(words) >= ngram else len(words)
        for start in range(len(words) - size + 1):
            # A sequence that was found once need not be found again.
            for i, place in grams.pop(tuple(words[start : start + size]), ()):
                covered[i][place : place + size] = b"\1" * size
    return [sum(marks) / len(marks) if marks else 0.0 for marks in covered]


def words_of(text: str) -> list[str]:
    """Return the words and numbers of a text in lower case, and each other sign by itself."""
    return re.findall(r"\w+|[^\w\s]", text.casefold())
