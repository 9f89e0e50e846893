"""The same held-out questions, answered twice: by the first and the last weights of a run, or in two files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlvr.evaluation.figures import RIGHT
from rlvr.record.reading import read_rows, source_of
from rlvr.record.rows import Row
from rlvr.reports.browsing import prompt_text
from rlvr.reports.observations import verdicts
from rlvr.reports.sources import ReportSource, evaluation_files, step_of

MOST_CHANGED = 200
"""Changed questions on the page, at most."""


@dataclass(frozen=True)
class HeldOutAnswer:
    """Completions of one question by one policy."""

    prompt: str | None
    gold: str | None
    completion: str | None
    """The first one."""
    rewards: tuple[float, ...]

    @property
    def share(self) -> float:
        """Share of the completions that are right; NaN if none has a reward."""
        return sum(reward >= RIGHT for reward in self.rewards) / len(self.rewards) if self.rewards else math.nan


Answered = Mapping[tuple[str, str, bool], HeldOutAnswer]
"""Data set, question and whether it was asked at temperature 0 → its answer."""


@dataclass(frozen=True)
class QuestionChange:
    """A question that is right on one side only."""

    prompt: str | None
    gold: str | None
    before: str | None
    after: str | None
    """Completions of the two sides."""
    gained: bool
    """Whether it is wrong before and right after."""
    shares: tuple[float, float]
    """Shares of right completions before and after."""


@dataclass(frozen=True)
class WhatChanged:
    """Answers to the same questions before and after."""

    source: int
    """Place of the source that `after` belongs to."""
    before: str
    after: str
    """Names of the two sides."""
    greedy: bool
    """Whether the answers are those at temperature 0."""
    both_right: int
    gained: int
    lost: int
    both_wrong: int
    changed: tuple[QuestionChange, ...]
    """Lost questions first, at most `MOST_CHANGED`."""


def changes(
    sources: Sequence[ReportSource], verifiers: Sequence[str | None], *, named: bool = False
) -> list[WhatChanged]:
    """Return what changed in every run between its first and its last evaluation, and between the first file and each
    other one that answers the same questions.

    Args:
        sources: Runs and files.
        verifiers: Verifier of each whose reward counts.
        named: Leave out answers that it has not scored; else these count with their own last score.
    """
    found = []
    first: tuple[str, Answered] | None = None
    for place, (source, verifier) in enumerate(zip(sources, verifiers, strict=True)):
        if source.is_run:
            files = evaluation_files(source.path)
            if len(files) > 1:
                before, after = (
                    (f"step {step_of(file)}", answered([file], verifier, source.rewards, named=named))
                    for file in (files[0], files[-1])
                )
                found += compared(before, after, place)
            continue
        own = (source.name, answered(source.files, verifier, source.rewards, named=named))
        if first is None:
            first = own
        else:
            found += compared(first, own, place)
    return found


def answered(
    files: Iterable[Path], verifier: str | None, rewards: Mapping[str, float | None], *, named: bool = False
) -> Answered:
    """Return the answers in some files by question, with the rewards of a verifier. Raises DataError."""
    rows: dict[tuple[str, str, bool], list[Row]] = {}
    for file in files:
        source = source_of(file)
        wanted = frozenset({*_WANTED, *source.columns.values()})
        for row in read_rows(source, only=wanted):
            if (key := _key(row)) is not None:
                rows.setdefault(key, []).append(row)
    return {key: _answer(own, verifier, rewards, named) for key, own in rows.items()}


_WANTED = (
    "schema_version",
    "id",
    "group_id",
    "segment",
    "prompt",
    "messages",
    "completion",
    "task",
    "sampling",
    "scores",
)


def _key(row: Row) -> tuple[str, str, bool] | None:
    """Return data set, question and whether the answer is greedy; None for a row without a prompt."""
    prompt = prompt_text(row)
    if prompt is None:
        return None
    task, sampling = (row.values.get(name) if row.is_record else None for name in ("task", "sampling"))
    dataset = task.get("dataset") if isinstance(task, Mapping) else None
    greedy = isinstance(sampling, Mapping) and sampling.get("temperature") == 0
    return str(dataset or ""), prompt, greedy


def _answer(
    rows: Sequence[Row], verifier: str | None, rewards: Mapping[str, float | None], named: bool
) -> HeldOutAnswer:
    found = []
    for row in rows:
        scores = verdicts(row)
        name = verifier if named or verifier in scores else next(reversed(scores), None)
        if name in scores:
            status, reward = scores[name]
            counted = reward if status == "graded" else rewards[status]
            found += [] if counted is None else [counted]
    return HeldOutAnswer(prompt_text(rows[0]), rows[0].gold, rows[0].completion, tuple(found))


def compared(before: tuple[str, Answered], after: tuple[str, Answered], source: int) -> list[WhatChanged]:
    """Return the changes from one side to the other: of greedy answers if both have some, else of sampled ones.

    Questions without a reward on either side are left out; empty if the sides have no question in common.
    """
    common = [key for key in before[1] if key in after[1]]
    common = [key for key in common if before[1][key].rewards and after[1][key].rewards]
    greedy = any(key[2] for key in common)
    counts = {(was, now): 0 for was in (True, False) for now in (True, False)}
    changed = []
    for key in common:
        if key[2] != greedy:
            continue
        one, other = before[1][key], after[1][key]
        was, now = one.share >= RIGHT, other.share >= RIGHT
        counts[was, now] += 1
        if was != now:
            shares = (one.share, other.share)
            changed.append(QuestionChange(one.prompt, one.gold, one.completion, other.completion, now, shares))
    if not any(counts.values()):
        return []
    changed.sort(key=lambda each: each.gained)
    numbers = (counts[True, True], counts[False, True], counts[True, False], counts[False, False])
    return [WhatChanged(source, before[0], after[0], greedy, *numbers, tuple(changed[:MOST_CHANGED]))]
