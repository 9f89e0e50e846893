"""Questions that two data sets have in common."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from rlvr.data.prompts import Encoded
from rlvr.data.selection import question_mark
from rlvr.protocols import PromptSource


def shared_questions(trained: PromptSource, limit: int | None, held_out: PromptSource, asked: Sequence[Encoded]) -> int:
    """Return how many questions of `held_out` are among the first `limit` of `trained`; 0 for an endless source."""
    wanted = [question_mark(held_out.question(each.index)) for each in asked]
    trained_on = set(map(question_mark, islice(trained.questions(), limit)))
    return sum(mark in trained_on for mark in wanted)
