"""Recorded answers by data set and question, with the verdicts that count. Reading keeps no completion."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from pydantic import BaseModel

from rlvr.errors import DataError, RequestError
from rlvr.evaluation.figures import Answers
from rlvr.protocols import Prompt as SourcePrompt
from rlvr.record.fields import Fields, Where
from rlvr.record.reading import read_rows, source_of
from rlvr.record.row_files import row_files
from rlvr.record.rows import Prompt, Row, messages_of
from rlvr.record.schema import FinishReason, ModelRef, Sampling, Status, VersionRun, canonical_json, digest
from rlvr.record.sidecar import Sidecars
from rlvr.record.store import TOKEN_COLUMNS, field_faults
from rlvr.record.values import json_safe
from rlvr.verify.reward_limit import stored_verdict
from rlvr.verify.score_names import SAMPLER, counted, require_score, score_name
from rlvr.verify.scoring import DEFAULT_REWARDS

UNSCORED, MISSING = "unscored", "missing"
"""Completions without a verdict, and those that were asked for and are not in the file."""

TAIL = 200
"""Characters of the end of a prompt that are kept."""

Files: TypeAlias = str | Path | Iterable[str | Path]


@dataclass(frozen=True)
class Asked:
    """A question."""

    key: str
    """Identity within the data set: the row's id, or a hash of the prompt if it has none."""
    prompt: str
    """The end of the prompt; of a chat, of its last message."""
    prompt_hash: str
    gold: str | None
    named: bool
    """The key says which question it is in other files too; without a row's id and a prompt, it is that of a group."""


@dataclass(frozen=True)
class SetAnswers:
    """Answers to the questions of one data set, with the verdicts of one verifier."""

    dataset: str
    """Name of the data set; empty for rows that name none."""
    split: str | None
    verifier: str
    versions: tuple[str, ...]
    configs: tuple[str, ...]
    """Hashes of the verifier's options."""
    models: tuple[Mapping[str, Any], ...]
    """The models that sampled: `name`, `weights_hash`, …; one for an evaluation."""
    sampling: tuple[Mapping[str, Any], ...]
    """Sampling parameters as recorded; those at temperature 0 are left out if there are others."""
    questions: tuple[Asked, ...]
    answers: Answers
    statuses: Mapping[str, int]
    """Number of completions by status of their verdict, with `unscored` and `missing`."""


class _LastScore(NamedTuple):
    status: Status
    reward: float | None
    extracted: str | None
    version: str | None
    config_hash: str | None


@dataclass
class _ReadAnswer:
    question: int
    group: str | None
    group_size: int | None
    greedy: bool
    truncated: float
    tokens: float
    scores: dict[str, _LastScore]
    """Verifier → its last score."""


@dataclass
class _Collected:
    """Answers of one data set while the files are read."""

    dataset: str
    splits: set[str] = field(default_factory=set)
    questions: dict[str, int] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    answers: list[_ReadAnswer] = field(default_factory=list)
    models: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    sampled: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    greedy: dict[str, Mapping[str, Any]] = field(default_factory=dict)


def read_answers(
    files: Files,
    *,
    verifier: str | None = None,
    mapping: Mapping[str, str] | None = None,
    sidecars: str | Path | Iterable[str | Path] = (),
    where: str | Sequence[str] = (),
) -> list[SetAnswers]:
    """Read the answers of files, by data set.

    Args:
        files: Files, folders or patterns of records; other rows too if they have a column `scores`.
        verifier: Verifier whose last score counts; None is the only one of each data set.
        mapping: Target → column of foreign files.
        sidecars: Files of `rlvr score --scores-only`, whose scores follow the rows' own.
        where: Conditions that rows must meet, as in `show`.

    Raises RequestError if there is no row or no score, or the choice of the verifier is not clear; DataError for a row
    that cannot be read, and for an id that several rows have.
    """
    beside = Sidecars([sidecars] if isinstance(sidecars, str | Path) else sidecars)
    conditions = Where([where] if isinstance(where, str) else where)
    listed = [files] if isinstance(files, str | Path) else list(files)
    found = answers_of(listed, beside, conditions, verifier=verifier, mapping=mapping)
    beside.refuse_unused()
    conditions.require_known(", ".join(map(str, listed)))
    return found


def answers_of(
    files: Sequence[str | Path],
    beside: Sidecars,
    where: Where,
    *,
    verifier: str | None,
    mapping: Mapping[str, str] | None,
) -> list[SetAnswers]:
    """Read answers as `read_answers` does, with sidecars and conditions that several calls share."""
    without = TOKEN_COLUMNS - {"loss_mask"} if where.conditions else TOKEN_COLUMNS
    found: dict[str, _Collected] = {}
    ids: dict[tuple[str, int], _ReadAnswer] = {}
    for path in row_files(files):
        source = source_of(path, mapping)
        # Completions may be most of a file; conditions may be on any column.
        columns = {source.columns[target] for target in ("id", "group_id", "prompt", "answer")}
        only = None if where.conditions else _WANTED | columns
        for row in read_rows(source, beside, without=without, only=only):
            if not where.conditions or where.holds(Fields(row)):
                _add(row, found, ids)
    shown = ", ".join(map(str, files))
    if not found:
        raise RequestError(f"{shown}: there are no answers{' that meet the conditions' if where.conditions else ''}")
    return [_judged(each, verifier, shown, filtered=bool(where.conditions)) for each in found.values()]


def _add(row: Row, found: dict[str, _Collected], ids: dict[tuple[str, int], _ReadAnswer]) -> None:
    """Add a row to the answers of its data set; a later segment adds its tokens to its rollout."""
    identity, segment = row.id, row.segment
    if identity is not None and (identity, segment) in ids:
        raise DataError(
            f"{row.where}: an earlier row has the id {identity!r} too; an evaluation counts every answer once"
        )
    fields = _fields_of(row)
    if segment and identity is not None and (first := ids.get((identity, 0))) is not None:
        first.tokens += fields.tokens
        ids[identity, segment] = first
        return
    dataset = fields.task.dataset or ""
    into = found.setdefault(dataset, _Collected(dataset))
    if fields.task.split is not None:
        into.splits.add(fields.task.split)
    sampling = {} if fields.sampling is None else fields.sampling.model_dump(mode="json", exclude_none=True)
    greedy = sampling.get("temperature") == 0
    model = {} if fields.model is None else fields.model.model_dump(exclude_none=True)
    for place, value in ((into.greedy if greedy else into.sampled, sampling), (into.models, model)):
        if value:
            place.setdefault(canonical_json(value), value)
    answer = _ReadAnswer(
        question=_question(row, fields.task.row_id, into),
        group=row.group,
        group_size=fields.group_size,
        greedy=greedy,
        truncated=math.nan if fields.finish_reason is None else float(fields.finish_reason == "length"),
        tokens=fields.tokens,
        scores=_last_scores(row),
    )
    into.answers.append(answer)
    if identity is not None:
        ids[identity, segment] = answer


class _TaskFields(BaseModel):
    dataset: str | None = None
    row_id: str | None = None
    split: str | None = None


class _RecordFields(BaseModel):
    """Fields of a record that an evaluation reads besides those of any row, with the types of `Rollout`."""

    task: _TaskFields = _TaskFields()
    sampling: Sampling | None = None
    model: ModelRef | None = None
    policy_versions: tuple[VersionRun, ...] | None = None
    finish_reason: FinishReason | None = None
    group_size: int | None = None

    @property
    def tokens(self) -> float:
        """Number of tokens that the policy sampled; NaN if the record does not say."""
        runs = self.policy_versions
        return math.nan if runs is None else float(sum(run.count for run in runs))


def _fields_of(row: Row) -> _RecordFields:
    """Return the fields of a record; those of another row are unknown. Raises DataError for a wrong one."""
    if not row.is_record:
        return _RecordFields()
    with field_faults(row.where):
        return _RecordFields.model_validate({name: row.values[name] for name in _READ if name in row.values})


_READ = tuple(_RecordFields.model_fields)
_WANTED = frozenset({*_READ, "schema_version", "id", "group_id", "segment", "prompt", "messages", "scores"})


def _question(row: Row, row_id: str | None, into: _Collected) -> int:
    """Return the index of the row's question. Raises DataError for one key with two gold answers."""
    prompt: Prompt | None = row.prompt
    mark = "" if prompt is None else digest(json_safe(prompt))
    gold = row.gold
    key = row_id or mark or row.group or row.id or row.where
    place = into.questions.setdefault(key, len(into.asked))
    if place == len(into.asked):
        into.asked.append(Asked(key, end_of(prompt) or "", mark, gold, bool(row_id or mark)))
    elif into.asked[place].gold != gold:
        raise DataError(
            f"{row.where}: question {key!r}{_of(into)}, has the gold answer {gold!r}, in an earlier row "
            f"{into.asked[place].gold!r}: the rows are of different data sets"
        )
    return place


def question_key(prompt: SourcePrompt) -> str:
    """Return the key that answers to a prompt of a data set have."""
    turns = None if prompt.messages is None else [turn.model_dump() for turn in prompt.messages]
    return prompt.task.row_id or digest(prompt.text if turns is None else turns)


def end_of(prompt: Prompt | None) -> str | None:
    """Return the last characters of a prompt; of a chat (or its JSON text), those of its last message."""
    turns = messages_of(prompt) if isinstance(prompt, str) and prompt.startswith("[{") else prompt
    last = turns[-1].get("content") if turns and not isinstance(turns, str) else None
    text = prompt if isinstance(prompt, str) and last is None else last
    if not isinstance(text, str):
        return None
    return text if len(text) <= TAIL else "…" + text[-TAIL:]


def _last_scores(row: Row) -> dict[str, _LastScore]:
    found = {}
    for score in row.scores:
        name, status, reward = stored_verdict(score, row.where)
        found[name] = _LastScore(
            status, reward, _text(score, "extracted"), _text(score, "version"), _text(score, "config_hash")
        )
    return found


def _text(score: Mapping[str, Any], name: str) -> str | None:
    value = score.get(name)
    return value if isinstance(value, str) else None


def _judged(found: _Collected, verifier: str | None, files: str, filtered: bool) -> SetAnswers:
    """Return the answers with the verdicts of one verifier. Of filtered rows, none is missing."""
    name = _chosen(found, verifier, files)
    scores = [answer.scores.get(name) for answer in found.answers]
    given = [None if score is None else score.status for score in scores]
    statuses = Counter(UNSCORED if status is None else status.value for status in given)
    if not filtered and (missing := _missing(found.answers)):
        statuses[MISSING] = missing
    rewards = [math.nan if score is None else _reward(score) for score in scores]
    answers = Answers(
        question_N=np.array([each.question for each in found.answers], dtype=np.int64),
        greedy_N=np.array([each.greedy for each in found.answers], dtype=np.bool_),
        reward_N=np.array(rewards, dtype=np.float64),
        judged_N=np.array([score is not None for score in scores], dtype=np.bool_),
        unparsed_N=np.array(
            [score is not None and score.status is Status.UNPARSED for score in scores], dtype=np.bool_
        ),
        truncated_N=np.array([each.truncated for each in found.answers], dtype=np.float64),
        tokens_N=np.array([each.tokens for each in found.answers], dtype=np.float64),
        extracted=[None if score is None else score.extracted for score in scores],
    )
    return SetAnswers(
        dataset=found.dataset,
        split=next(iter(found.splits)) if len(found.splits) == 1 else None,
        verifier=name,
        versions=_distinct(score and score.version for score in scores),
        configs=_distinct(score and score.config_hash for score in scores),
        models=tuple(found.models.values()),
        sampling=tuple((found.sampled or found.greedy).values()),
        questions=tuple(found.asked),
        answers=answers,
        statuses=dict(statuses.most_common()),
    )


def _distinct(texts: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(sorted({text for text in texts if text is not None}))


def _reward(score: _LastScore) -> float:
    """Return the reward as training uses it; NaN for a verdict that training drops."""
    value = score.reward if score.status is Status.GRADED else DEFAULT_REWARDS[score.status]
    return math.nan if value is None else value


def _chosen(found: _Collected, verifier: str | None, files: str) -> str:
    """Return the name of the verifier whose scores count. Raises RequestError if none or several have any.

    Rewards that a sampler gives by itself count only if nothing else has judged the answers.
    """
    there = Counter(name for answer in found.answers for name in answer.scores)
    if verifier is not None:
        name = score_name(verifier)
        require_score(name, there, f"{files}{_of(found)}")
        return name
    names = [name for name in there if name != SAMPLER] or list(there)
    if not names:
        raise RequestError(f"{files}{_of(found)}: there are no scores; rlvr score adds some")
    if len(names) > 1:
        raise RequestError(
            f"{files}{_of(found)}: which verifier? There are scores by {counted(there)}: name one with --verifier"
        )
    return names[0]


def _of(found: _Collected) -> str:
    return f", data set {found.dataset}" if found.dataset else ""


def _missing(answers: Iterable[_ReadAnswer]) -> int:
    """Return how many completions were asked for, as `group_size` says, and are not there."""
    members = Counter(answer.group for answer in answers if answer.group is not None)
    sizes: dict[str, int] = {}
    for answer in answers:
        if answer.group is not None and isinstance(answer.group_size, int):
            sizes[answer.group] = answer.group_size
    return sum(max(0, size - members[group]) for group, size in sizes.items())


def none_of(statuses: Mapping[str, int]) -> dict[str, int]:
    """Return the number of completions without a reward, by reason."""
    kept = {Status.GRADED.value} | {status.value for status, reward in DEFAULT_REWARDS.items() if reward is not None}
    return {name: count for name, count in statuses.items() if name not in kept}
