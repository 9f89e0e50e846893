"""Two verifiers' verdicts on the same rollouts, from one file or two, matched row by row.

A side is the last score by one verifier on every rollout of a file. Reading keeps no text; the texts of the rollouts to
show are read again.

Shapes: N = matched rollouts.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlvr.errors import DataError, RequestError, RunError
from rlvr.evaluation.answers import end_of
from rlvr.evaluation.figures import Floats, Integers
from rlvr.record.fields import Fields, Where
from rlvr.record.reading import Source, read_rows
from rlvr.record.rows import Prompt, Row
from rlvr.record.schema import Status
from rlvr.record.sidecar import Sidecars
from rlvr.record.store import TOKEN_COLUMNS
from rlvr.verify.reward_limit import stored_verdict
from rlvr.verify.score_names import counted, require_score, score_name
from rlvr.verify.scoring import DEFAULT_REWARDS

KINDS = ("right", "wrong", *(status.value for status in Status if status is not Status.GRADED), "unscored")
"""Kinds of verdicts. A graded one is right or wrong; `unscored` is a row without a score by the verifier."""

_STATUSES = tuple(Status)
_CODES = {status.value: code for code, status in enumerate(_STATUSES)}
_UNSCORED = -1
_WANTED = frozenset({"schema_version", "id", "group_id", "segment", "scores"})


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclass
class Column:
    """Last verdict by one verifier on each rollout of a file."""

    codes: array[int] = field(default_factory=lambda: array("b"))
    rewards: array[float] = field(default_factory=lambda: array("d"))
    versions: set[str] = field(default_factory=set)
    scored: int = 0

    def pad(self, rows: int) -> None:
        """Fill up to `rows` rows with verdicts `unscored`."""
        missing = rows - len(self.codes)
        self.codes.extend([_UNSCORED] * missing)
        self.rewards.extend([math.nan] * missing)


@dataclass
class FileVerdicts:
    """A file's verdicts without its texts: about a hundred bytes per rollout."""

    source: Source
    ids: list[str | None] = field(default_factory=list)
    groups: list[str | None] = field(default_factory=list)
    places: array[int] = field(default_factory=lambda: array("q"))
    """Row number of each rollout in the file, from 0: later segments of a rollout are rows too."""
    columns: dict[str, Column] = field(default_factory=dict)
    """Verifier → its verdicts."""

    @property
    def path(self) -> Path:
        """The file."""
        return self.source.path

    @property
    def counts(self) -> dict[str, int]:
        """Verifier → how many rollouts it has a score on."""
        return {name: column.scored for name, column in self.columns.items()}

    def add(self, row: Row, place: int) -> None:
        """Add a rollout. Raises DataError for a row that cannot be read."""
        group = row.group
        rows = len(self.ids)
        self.ids.append(row.id)
        self.groups.append(group)
        self.places.append(place)
        for name, (code, reward, version) in _last_scores(row.scores, row.where).items():
            column = self.columns.setdefault(name, Column())
            column.pad(rows)
            column.codes.append(code)
            column.rewards.append(reward)
            column.versions.update(version)
            column.scored += 1


class _Identities:
    """Ids of the rows so far: segments of one rollout share theirs, other rows may not."""

    def __init__(self) -> None:
        self._segments: dict[str, set[int] | None] = {}  # None: the first segment alone, which is nearly every rollout
        self._doubles: dict[str, str] = {}  # id → where it stands again

    def is_new(self, row: Row) -> bool:
        """Return whether the row is the first of its rollout. Raises DataError for an id of the wrong kind."""
        identity, segment = row.id, row.segment
        if identity is None:
            return True
        if identity not in self._segments:
            self._segments[identity] = {segment} if segment else None
            return True
        known = self._segments[identity] or {0}
        if segment in known:
            self._doubles.setdefault(identity, row.where)
        self._segments[identity] = known | {segment}
        return False

    def require_unique(self) -> None:
        """Raise DataError if several rows have one id and segment."""
        if not self._doubles:
            return
        (name, where), *others = self._doubles.items()
        named = ", ".join(repr(other) for other, _ in others[:5])
        more = f" (also {named}: {len(self._doubles)} in all)" if others else ""
        raise DataError(
            f"{where}: an earlier row has the id {name!r} too{more}: ids must be unique; "
            "--map id=COLUMN names another column"
        )


def read_verdicts(source: Source, beside: Sidecars | None = None, where: Where | None = None) -> FileVerdicts:
    """Read the verdicts of a file, by verifier.

    Args:
        source: Records, or any other rows with a column `scores` as `rlvr score` writes it.
        beside: Sidecars, whose scores follow the rows' own.
        where: Conditions that rows must meet.

    Raises DataError for a row that cannot be read, and for an id that several rows have. Segments of one rollout share
    their id and count once.
    """
    found, identities = FileVerdicts(source), _Identities()
    where = Where(()) if where is None else where
    only: frozenset[str] | None = _WANTED | {source.columns["id"], source.columns["group_id"]}
    without = TOKEN_COLUMNS
    if where.conditions:  # they may be on any column
        only, without = None, TOKEN_COLUMNS - {"loss_mask"}
    for place, row in enumerate(read_rows(source, beside, without=without, only=only)):
        if identities.is_new(row) and where.holds(Fields(row)):
            found.add(row, place)
    identities.require_unique()
    for column in found.columns.values():
        column.pad(len(found.ids))
    return found


def _last_scores(scores: Sequence[Mapping[str, Any]], where: str) -> dict[str, tuple[int, float, tuple[str, ...]]]:
    """Return verifier → status code, reward (NaN without one) and version if known, of the last score by each."""
    found: dict[str, tuple[int, float, tuple[str, ...]]] = {}
    for score in scores:
        name, status, reward = stored_verdict(score, where)
        known = (version,) if isinstance(version := score.get("version"), str) else ()
        found[name] = _CODES[status.value], math.nan if reward is None else reward, known
    return found


# --- two sides --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """One verifier's verdicts on the matched rollouts, in their order."""

    verifier: str
    source: Source
    versions: tuple[str, ...]
    places: Integers
    """(N,) Row number in the file, from 0."""
    codes: NDArray[np.int8]
    """(N,) Index into the statuses; -1 without a score."""
    graded: Floats
    """(N,) The reward; NaN without one."""

    @property
    def path(self) -> Path:
        """The file."""
        return self.source.path

    def rewards(self) -> Floats:
        """Return the reward (N,) that training uses for each verdict; NaN drops the rollout."""
        made = np.array([np.nan if (value := DEFAULT_REWARDS.get(s)) is None else value for s in _STATUSES] + [np.nan])
        return np.where(np.isnan(self.graded), made[self.codes], self.graded)

    def kinds(self, threshold: float) -> Integers:
        """Return the kind (N,) of each verdict, an index into `KINDS`."""
        wrong = (self.graded < threshold).astype(np.int64)
        of_status = np.array([KINDS.index(s.value) if s.value in KINDS else 0 for s in _STATUSES] + [len(KINDS) - 1])
        return np.where(np.isnan(self.graded), of_status[self.codes], wrong)


@dataclass(frozen=True)
class Pairs:
    """Matched rollouts, sorted by group, and what could not be matched."""

    a: Side
    b: Side
    ids: list[str | None]
    groups: Integers
    """(N,) Group numbers, ascending. A rollout without a group is a group of its own."""
    only_a: int = 0
    only_b: int = 0
    without_group: int = 0


def choose(scored: FileVerdicts, given: str | None, option: str, *, but: str | None = None) -> str:
    """Return the verifier that an option names, or the only one in the file besides `but`. Raises RequestError."""
    if given is not None:
        name = score_name(given)
        require_score(name, scored.counts, f"{option} {given}: {scored.path}")
        return name
    if not scored.columns:
        raise RequestError(
            f"{scored.path} holds no scores: rlvr score gives it some, --scores takes them from a sidecar"
        )
    left = [name for name in scored.columns if name != but]
    if len(left) != 1:
        raise RequestError(f"{option}: which verifier? {scored.path} has scores by: {counted(scored.counts)}")
    return left[0]


def pair(
    first: FileVerdicts, second: FileVerdicts | None = None, *, a: str | None = None, b: str | None = None
) -> Pairs:
    """Pair the verdicts of two verifiers in one file, or those of two files by id.

    Raises RequestError for a wrong name, or a missing one if the choice is not clear; DataError for a row without an id
    if two files are matched.
    """
    if second is None:
        if a is None and b is None and len(first.columns) == 2:
            a, b = first.columns
        if b is not None:
            b = choose(first, b, "--b")
        a = choose(first, a, "--a", but=b)
        b = choose(first, b, "--b", but=a)
        second = first
        at_a = at_b = np.arange(len(first.ids))
    else:
        a, b = choose(first, a, "--a"), choose(second, b, "--b")
        places = _places_by_id(second)
        shared = [(i, places[name]) for name, i in _places_by_id(first).items() if name in places]
        at_a, at_b = np.array(shared, dtype=np.int64).reshape(-1, 2).T
    names = [
        first.groups[i] if first.groups[i] is not None else second.groups[j] for i, j in zip(at_a, at_b, strict=True)
    ]
    # By name, so that the groups of a resample depend neither on the order of the rows nor on that of the files.
    order = sorted(range(len(names)), key=lambda i: (names[i] is None, names[i] or "", first.ids[at_a[i]] or ""))
    groups = np.empty(len(order), dtype=np.int64)
    last: str | None = None
    group = -1
    for place, i in enumerate(order):
        if names[i] is None or names[i] != last:
            group += 1
        groups[place], last = group, names[i]
    chosen = np.array(order, dtype=np.int64)
    return Pairs(
        _side(first, a, at_a[chosen]),
        _side(second, b, at_b[chosen]),
        [first.ids[i] for i in at_a[chosen]],
        groups,
        only_a=len(first.ids) - len(order),
        only_b=len(second.ids) - len(order),
        without_group=sum(name is None for name in names),
    )


def _places_by_id(scored: FileVerdicts) -> dict[str, int]:
    places = {}
    for i, name in enumerate(scored.ids):
        if name is None:
            raise DataError(
                f"{scored.path}, row {scored.places[i] + 1} has no id: rows of two files are matched by it (--map id=…)"
            )
        places[name] = i
    return places


def _side(scored: FileVerdicts, name: str, at: Integers) -> Side:
    column = scored.columns[name]
    return Side(
        name,
        scored.source,
        tuple(sorted(column.versions)),
        np.array(scored.places, dtype=np.int64)[at],
        np.array(column.codes, dtype=np.int8)[at],
        np.array(column.rewards, dtype=np.float64)[at],
    )


# --- flips ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FlippedVerdict:
    """One side of a flip."""

    status: str
    reward: float | None
    extracted: str | None
    reason: str | None


@dataclass(frozen=True)
class Flip:
    """A rollout on which the two verifiers differ."""

    id: str | None
    group_id: str | None
    prompt: str | None
    """The end of the prompt."""
    gold: str | None
    a: FlippedVerdict
    b: FlippedVerdict


def read_flips(pairs: Pairs, chosen: Sequence[int], beside: Sidecars | None = None) -> list[Flip]:
    """Return the texts of the pairs at `chosen`, in that order. The files are read again up to the last of them."""
    rows_a = _rows_at(pairs.a, chosen, beside)
    same_rows = pairs.a.path == pairs.b.path and all(pairs.a.places[i] == pairs.b.places[i] for i in chosen)
    rows_b = rows_a if same_rows else _rows_at(pairs.b, chosen, beside)
    flips = []
    for i in chosen:
        row_a, row_b = rows_a[int(pairs.a.places[i])], rows_b[int(pairs.b.places[i])]
        asked_a, asked_b = _asked(row_a), _asked(row_b)
        group, prompt, gold = (one if one is not None else other for one, other in zip(asked_a, asked_b, strict=True))
        verdict_a, verdict_b = _verdict(row_a, pairs.a.verifier), _verdict(row_b, pairs.b.verifier)
        flips.append(Flip(pairs.ids[i], group, prompt, gold, verdict_a, verdict_b))
    return flips


def _rows_at(side: Side, chosen: Sequence[int], beside: Sidecars | None) -> dict[int, Row]:
    wanted = {int(side.places[i]) for i in chosen}
    found: dict[int, Row] = {}
    if wanted:
        for place, row in enumerate(read_rows(side.source, beside, without=TOKEN_COLUMNS)):
            if place in wanted:
                found[place] = row
                if len(found) == len(wanted):
                    break
        else:
            raise RunError(f"{side.path} changed while it was read: it has fewer rows now")
    return found


def _asked(row: Row) -> tuple[str | None, str | None, str | None]:
    """Return group, the prompt's end and gold of a row. A prompt or gold of the wrong kind is left out."""
    prompt: Prompt | None = None
    gold = None
    with suppress(DataError):
        prompt = row.prompt
    with suppress(DataError):
        gold = row.gold
    return row.group, end_of(prompt), gold


def _verdict(row: Row, verifier: str) -> FlippedVerdict:
    scores = [score for score in row.scores if score.get("verifier") == verifier]
    if not scores:
        return FlippedVerdict("unscored", None, None, None)
    last = scores[-1]
    return FlippedVerdict(last["status"], last.get("reward"), last.get("extracted"), last.get("reason"))
