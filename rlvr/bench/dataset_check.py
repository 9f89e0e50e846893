"""Check of a prompt data set before training: gold answers that fail their verifier, repeated questions, leaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from rlvr.bench.trials import BenchQuestion
from rlvr.data.prompts import DatasetCard, load_source
from rlvr.data.selection import question_mark
from rlvr.errors import RequestError
from rlvr.evaluation.intervals import quantile
from rlvr.protocols import SourceRequest
from rlvr.record.item import Item
from rlvr.record.schema import Rollout, Status
from rlvr.registry import Entry, registry
from rlvr.settings import read_settings, validate
from rlvr.verify.scoring import Scorer

Split: TypeAlias = Literal["train", "eval"]

OF_AN_ENDLESS_SET = 1_000
"""Rows of an endless data set that are checked."""
LONG_ENOUGH = 4
"""Characters of a gold answer that a prompt can give away; shorter ones stand in prompts by chance."""


@dataclass(frozen=True)
class DatasetEntry:
    """A registered data set."""

    name: str
    distribution: str
    rows: Mapping[Split, int]
    """Published number of rows of each split; empty if unknown or endless."""
    splits: tuple[str, ...]
    verifier: str | None
    license: str | None
    hub: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return the entry as JSON-safe values."""
        return {**vars(self), "rows": dict(self.rows), "splits": list(self.splits)}


@dataclass(frozen=True)
class RowFault:
    """A row that its own check rejects."""

    row_id: str | None
    gold: str
    status: str
    reason: str | None


@dataclass(frozen=True)
class DatasetReport:
    """Result of the check of a data set."""

    name: str
    split: Split
    verifier: str
    rows: int
    left_out: int
    """Rows without a gold answer, or that the card does not keep."""
    self_checked: bool
    """Whether gold answers were put to the verifier; not if it compares no answers."""
    rejected: tuple[RowFault, ...]
    """Rows whose own gold answer is not rewarded."""
    invalid: tuple[RowFault, ...]
    """Rows that are `invalid` to the verifier."""
    duplicates: int
    """Rows whose question has come before."""
    leaks: tuple[str, ...]
    """Ids of rows whose prompt contains the gold answer."""
    shared: Mapping[str, int]
    """Other data set → questions that it has in common with this one."""
    lengths: Mapping[str, int]
    """Characters of the prompts: median, 99th percentile and maximum."""

    @property
    def passed(self) -> bool:
        """True if no row rejects itself or is invalid, and no question is in another data set."""
        return not self.rejected and not self.invalid and not any(self.shared.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-safe values."""
        faults = {name: [vars(each) for each in getattr(self, name)] for name in ("rejected", "invalid")}
        more = {"leaks": list(self.leaks), "shared": dict(self.shared), "lengths": dict(self.lengths)}
        return {**vars(self), **faults, **more, "passed": self.passed}


def list_datasets() -> list[DatasetEntry]:
    """Return the registered data sets by name. Raises the errors of a plugin that cannot be loaded."""
    return [_listed(entry) for entry in registry().entries("prompt_source")]


def _listed(entry: Entry) -> DatasetEntry:
    target = entry.load()
    if not isinstance(target, Path):
        return DatasetEntry(entry.name, entry.distribution, {}, (), None, None, None)
    card = validate(DatasetCard, read_settings(target, named=()))
    about = (card.verifier, card.license, card.hub)
    return DatasetEntry(entry.name, entry.distribution, card.rows, tuple(card.splits), *about)


def check_dataset(
    dataset: str,
    *,
    split: Split | None = None,
    data_files: Sequence[Path | str] = (),
    options: Mapping[str, Any] | None = None,
    limit: int | None = None,
    verifier: str | None = None,
    verifier_options: Mapping[str, Any] | None = None,
    against: Sequence[str] = (),
    workers: int | None = None,
    timeout: float = 5.0,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> DatasetReport:
    """Check a prompt data set: its gold answers by its verifier, repeated questions, leaks, lengths. Look at `passed`.

    Args:
        dataset: A registered name, a `.yaml` card, or a file of questions and answers.
        split: Split to check; by default the one for training, or the held-out one of a set for evaluation only.
        data_files: Local files in the data set's layout.
        options: Options of the data set (`dataset.options` of a run).
        limit: Rows to check; all by default, 1,000 of an endless set.
        verifier: Verifier to use instead of the data set's own.
        verifier_options: Options of the verifier.
        against: Other data sets, or files of questions, that must have no question in common with this one.
        workers: Worker processes; one per CPU by default, 0 runs in this process.
        timeout: Seconds per verdict.
        progress: Called after each verdict with their number and the total.

    Raises RequestError, PluginError and DataError for what cannot be loaded. A check that fails does not raise.
    """
    split = split or _default_split(dataset)
    files = tuple(Path(file) for file in data_files)
    source = load_source(dataset, SourceRequest(split=split, seed=0, options=options or {}, data_files=files))
    most = OF_AN_ENDLESS_SET if source.size is None else source.size
    prompts = [source[i] for i in range(min(most, limit or most))]
    questions = [BenchQuestion(prompt.task, prompt.text, prompt.messages) for prompt in prompts]
    name = verifier or source.default_verifier or "math"
    with Scorer(name, verifier_options, workers=workers, timeout=timeout) as scorer:
        compares = scorer.claims.compares_answers
        faults = list(_faults(scorer, questions, progress))
    marks = [question_mark(source.question(i)) for i in range(len(questions))]
    lengths = [float(len(_whole(question))) for question in questions]
    return DatasetReport(
        name=dataset,
        split=split,
        verifier=name,
        rows=len(questions),
        left_out=source.without_gold,
        self_checked=compares,
        rejected=tuple(fault for fault in faults if fault.status != Status.INVALID),
        invalid=tuple(fault for fault in faults if fault.status == Status.INVALID),
        duplicates=len(marks) - len(set(marks)),
        leaks=tuple(question.task.row_id or "" for question in questions if _leaks(question)),
        shared={other: _shared(other, set(marks)) for other in against},
        lengths={f"p{share:.0%}"[:-1]: round(quantile(lengths, share)) for share in (0.5, 0.99, 1.0)},
    )


def _faults(
    scorer: Scorer, questions: Sequence[BenchQuestion], progress: Callable[[int, int], object]
) -> Iterator[RowFault]:
    """Yield the rows that are invalid, or whose gold answer is not rewarded by a verifier that compares answers."""
    compares = scorer.claims.compares_answers
    items = list(_items(questions, scorer.claims.answer_form, scorer.wants_rollout))
    for done, (item, score) in enumerate(zip(items, scorer.score(items), strict=True), 1):
        progress(done, len(items))
        if score.status is Status.INVALID or (compares and not score.reward):
            yield RowFault(item.task.row_id, item.task.answer or "", score.status.value, score.reason)


def _default_split(dataset: str) -> Split:
    """Return the split for training, unless a registered data set has none."""
    entries = {entry.name: entry for entry in list_datasets()}
    found = entries.get(dataset)
    return "eval" if found is not None and found.splits == ("eval",) else "train"


def _items(questions: Sequence[BenchQuestion], form: str, wants_rollout: bool) -> Iterator[Item]:
    """Yield each question with its gold answer as the completion."""
    for number, question in enumerate(questions):
        completion = form.replace("{answer}", question.gold)
        rollout = None
        if wants_rollout:
            asked = {"messages": question.messages} if question.messages else {"prompt": question.prompt}
            rollout = Rollout(id=str(number), completion=completion, task=question.task, **asked)
        yield Item(completion, question.task, rollout)


def _whole(question: BenchQuestion) -> str:
    """Return all of a prompt as text."""
    return "\n".join(each.content for each in question.messages) if question.messages else question.prompt or ""


def _leaks(question: BenchQuestion) -> bool:
    """Return whether a prompt contains its gold answer, if that is long enough not to stand there by chance."""
    gold = question.gold.strip()
    return len(gold) >= LONG_ENOUGH and not gold.isdecimal() and gold.casefold() in _whole(question).casefold()


def _shared(other: str, marks: set[bytes]) -> int:
    """Return how many questions of another data set are among these."""
    source = load_source(other, SourceRequest(split=_default_split(other), seed=0))
    if source.size is None:
        raise RequestError(f"dataset {other} is endless: it cannot be compared with")
    return sum(question_mark(question) in marks for question in source.questions())
