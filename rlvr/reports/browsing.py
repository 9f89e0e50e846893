"""Rollouts that the page shows: which of them, and what of each, as columns.

Whole groups are chosen, so that members can be compared. Groups are divided by step and outcome, and taken from each
part in turn: what is rare is shown completely, what is common is sampled. The order depends on the groups' names alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from rlvr.draws import draw
from rlvr.evaluation.figures import RIGHT
from rlvr.files import as_text
from rlvr.offpolicy.staleness import BUCKETS, bucket_of
from rlvr.record.reading import read_rows, source_of
from rlvr.record.rows import Row
from rlvr.record.schema import GroupStats
from rlvr.reports.observations import Observation, Observations, version_runs
from rlvr.reports.ratios import Reweighting, log_weights
from rlvr.reports.sources import ReportSource
from rlvr.reports.token_text import TokenTexts, token_texts

STEP_PARTS = 20
"""Parts that the steps are divided into for sampling."""
CHUNK = 60_000
"""Tokens of one packed part of the page."""


@dataclass(frozen=True)
class Budget:
    """Limits on what the page holds, so that it stays small enough to open."""

    rollouts: int = 100_000
    characters: int = 48_000_000
    """Characters of prompts, completions and reasons."""
    tokens: int = 1_200_000
    """Tokens that are shown one by one."""

    def halved(self) -> Budget:
        """Return a budget of half the size."""
        return Budget(self.rollouts // 2, self.characters // 2, self.tokens // 2)


BUDGET = Budget()


@dataclass
class Shown:
    """Content of the rollout browser."""

    total: int = 0
    """Rollouts in all sources."""
    total_groups: int = 0
    rows: dict[str, list[Any]] = field(default_factory=dict)
    groups: dict[str, list[Any]] = field(default_factory=dict)
    verifiers: list[dict[str, str]] = field(default_factory=list)
    chunks: list[dict[str, Any]] = field(default_factory=list)
    """Tokens: `rows` maps places to ids, log-probabilities and weights, `texts` ids to texts."""
    with_tokens: int = 0
    """Rollouts whose tokens are shown."""
    with_ratios: int = 0
    """Rollouts whose importance weights under a model are shown."""
    without_text: list[str] = field(default_factory=list)
    """Names of the sources whose token ids have no text."""

    @property
    def count(self) -> int:
        """Rollouts on the page."""
        return len(self.rows.get("id", ()))

    def packed(self) -> dict[str, Any]:
        """Return the parts of the page that hold the rollouts, by name."""
        parts = {f"tokens-{place}": chunk for place, chunk in enumerate(self.chunks)}
        about = {"verifiers": self.verifiers, "rows": self.rows, "groups": self.groups}
        return {"rollouts": about, **parts} if self.count else {}


def browsed(
    sources: Sequence[ReportSource],
    observed: Sequence[Observations],
    budget: Budget = BUDGET,
    *,
    first: Sequence[frozenset[str]] = (),
    weighted: Reweighting | None = None,
) -> Shown:
    """Return what the browser shows.

    Args:
        sources: Runs and files.
        observed: The rollouts of each.
        budget: Limits.
        first: Ids of each source's rollouts whose groups are shown whatever the budget is.
        weighted: Model whose importance weights are shown, of some rollouts of each source.

    Raises DataError for a row that cannot be read.
    """
    shown = Shown(sum(len(each.found) for each in observed), sum(sum(1 for _ in each.groups()) for each in observed))
    builder = _Builder(shown)
    part = Budget(*(limit // max(1, len(sources)) for limit in (budget.rollouts, budget.characters, budget.tokens)))
    for place, (source, found) in enumerate(zip(sources, observed, strict=True)):
        wanted = first[place] if place < len(first) else frozenset()
        chosen = choose(found, part, first=wanted)
        tokens_of = _with_tokens(chosen, part.tokens)
        weights = {} if weighted is None else log_weights(source, chosen, weighted)
        builder.add(place, source, found, chosen, tokens_of, weights)
    builder.finish()
    return shown


# --- which ------------------------------------------------------------------------------------------------------------


def choose(
    observations: Observations, budget: Budget, *, first: frozenset[str] = frozenset()
) -> list[list[Observation]]:
    """Return the groups to show, those that matter most first, as many as the budget allows, and all of `first`."""
    steps = sorted({each.step for each in observations.found if each.step is not None})
    part_of = {step: place * STEP_PARTS // len(steps) for place, step in enumerate(steps)}
    strata: dict[tuple[int, str], list[tuple[int, list[Observation]]]] = {}
    ranked: list[tuple[int, int, int, list[Observation]]] = []
    for place, group in enumerate(observations.groups()):
        if any(each.id in first for each in group):
            ranked.append((-1, 0, place, group))
            continue
        step = group[0].step
        stratum = (-1 if step is None else part_of[step], outcome(group))
        strata.setdefault(stratum, []).append((place, group))
    for stratum in sorted(strata):
        own = sorted(strata[stratum], key=lambda each: draw("report", each[1][0].group))
        ranked += [(rank, draw("report", *stratum), place, group) for rank, (place, group) in enumerate(own)]
    kept, rows, characters = [], 0, 0
    for rank, _, place, group in sorted(ranked, key=lambda each: each[:3]):
        rows += len(group)
        characters += sum(each.characters + 100 for each in group)
        if rank >= 0 and (rows > budget.rollouts or characters > budget.characters):
            break
        kept.append((place, group))
    return [group for _, group in kept]


def outcome(group: Sequence[Observation]) -> str:
    """Return the outcome of a group: right, wrong, mixed, broken (a verdict is) or unscored."""
    if all(each.status is None for each in group):
        return "unscored"
    if any(each.status in ("error", "invalid", "timeout") for each in group):
        return "broken"
    right = sum(each.is_right for each in group)
    return "right" if right == len(group) else "mixed" if right else "wrong"


def _with_tokens(chosen: Sequence[Sequence[Observation]], limit: int) -> set[str]:
    """Return the ids of the rollouts whose tokens are shown: those of the first groups, as many as the limit allows."""
    ids: set[str] = set()
    for group in chosen:
        limit -= sum(each.tokens or 0 for each in group)
        if limit < 0:
            break
        ids |= {each.id for each in group if each.tokens}
    return ids


# --- what -------------------------------------------------------------------------------------------------------------


class _Builder:
    """Fills the columns of the browser, one source after the other."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._verifiers: dict[tuple[str, str, str], int] = {}
        shown.rows = {name: [] for name in _ROW_COLUMNS}
        shown.groups = {name: [] for name in _GROUP_COLUMNS}
        self._tokens: list[tuple[int, int, list[int], list[int | None], list[int | None] | None]] = []
        self._texts: list[TokenTexts | None] = []

    def add(
        self,
        place: int,
        source: ReportSource,
        observed: Observations,
        chosen: Sequence[Sequence[Observation]],
        tokens_of: set[str],
        weights: Mapping[tuple[int, int], list[int | None]],
    ) -> None:
        """Add the chosen groups of a source, in the order of its files."""
        wanted = {(each.file, each.row): each for group in chosen for each in group}
        numbers: dict[str, int] = {}
        before = len(self._tokens)
        advantages = dict(_advantages(chosen))
        for each, row in _rows(source, wanted, tokens_of):
            if each.group not in numbers:
                numbers[each.group] = len(self._shown.groups["id"])
                self._add_group(place, each, row)
            number = len(self._shown.rows["id"])
            self._add_row(numbers[each.group], each, row, advantages.get((each.file, each.row)), observed.verifier)
            if each.id in tokens_of:
                self._add_tokens(place, number, row, weights.get((each.file, each.row)))
        self._texts.append(token_texts(source, list(self._samples(before))))
        if len(self._tokens) > before and self._texts[-1] is None:
            self._shown.without_text.append(source.name)

    def _add_group(self, place: int, each: Observation, row: Row) -> None:
        groups = self._shown.groups
        task = row.values.get("task") if row.is_record else None
        groups["source"].append(place)
        groups["id"].append(each.group)
        groups["prompt"].append(prompt_text(row))
        groups["gold"].append(row.gold)
        groups["dataset"].append(task.get("dataset") if isinstance(task, Mapping) else None)

    def _add_row(self, group: int, each: Observation, row: Row, advantage: float | None, verifier: str | None) -> None:
        versions, _ = version_runs(row)
        index = row.values.get("index") if row.is_record else None
        flips = [theirs for theirs in each.others.values() if theirs is not None]
        values = {
            "id": each.id,
            "group": group,
            "index": index if isinstance(index, int) else None,
            "step": each.step,
            "lag": each.lag,
            "bucket": _bucket(each.lag),
            "versions": "–".join(map(str, sorted({versions[0], versions[-1]}))) if versions else None,
            "status": each.status if each.status != "graded" else "right" if each.is_right else "wrong",
            "reward": _short(each.reward),
            "advantage": _short(advantage),
            "tokens": each.tokens,
            "finish": each.finish,
            "completion": row.completion,
            "flip": each.reward is not None and any((theirs >= RIGHT) != each.is_right for theirs in flips),
            "scores": [self._score(score) for score in row.scores],
            "chunk": None,
        }
        for name, value in values.items():
            self._shown.rows[name].append(value)

    def _score(self, score: Mapping[str, Any]) -> list[Any]:
        config = score.get("config") or "{}"
        options = config if isinstance(config, str) else json.dumps(config, sort_keys=True, default=str)
        key = (as_text(score.get("verifier")), as_text(score.get("version")), options)
        number = self._verifiers.setdefault(key, len(self._verifiers))
        parts = score.get("parts")
        return [
            number,
            score.get("status"),
            _short(score.get("reward")),
            score.get("extracted"),
            score.get("reason"),
            _short(score.get("seconds"), 2),
            [[as_text(each.get(name)) for name in ("name", "status", "reward", "reason")] for each in parts]
            if isinstance(parts, list) and parts
            else None,
        ]

    def _add_tokens(self, place: int, number: int, row: Row, weights: list[int | None] | None) -> None:
        ids, mask, logprobs = (row.values.get(name) for name in ("token_ids", "loss_mask", "behaviour_logprobs"))
        if ids is None or mask is None or len(ids) != len(mask):
            return
        start = next((t for t, sampled in enumerate(mask) if sampled), len(mask))
        shown = [None] * (len(mask) - start) if logprobs is None else list(logprobs[start:])
        milli = [
            None if value is None or value != value or not mask[start + t] else round(-1000 * float(value))
            for t, value in enumerate(shown)
        ]
        self._tokens.append((place, number, [int(token) for token in ids[start:]], milli, weights))

    def _samples(self, since: int) -> Iterator[tuple[list[int], str]]:
        """Yield ids and completion of some rollouts, to try a tokenizer on."""
        added = self._tokens[since:]
        for _, number, ids, *_ in added[:: max(1, len(added) // 20)]:
            completion = self._shown.rows["completion"][number]
            if completion:
                yield ids, completion

    def finish(self) -> None:
        """Fill in what all sources share: verifiers, and the tokens in chunks with the texts of their ids."""
        shown = self._shown
        shown.verifiers = [
            {"name": name, "version": version, "options": options} for name, version, options in self._verifiers
        ]
        shown.with_tokens = len(self._tokens)
        rows: dict[int, list[Any]] = {}
        texts: dict[str, str] = {}
        size = 0
        for place, number, ids, milli, weights in self._tokens:
            rows[number] = [ids, milli, weights]
            shown.with_ratios += weights is not None
            shown.rows["chunk"][number] = len(shown.chunks)
            known = self._texts[place]
            if known is not None:
                texts |= {f"{place}:{token}": known.text(token) for token in ids}
            size += len(ids)
            if size >= CHUNK:
                shown.chunks.append({"rows": rows, "texts": texts})
                rows, texts, size = {}, {}, 0
        if rows:
            shown.chunks.append({"rows": rows, "texts": texts})


_GROUP_COLUMNS = ("source", "id", "prompt", "gold", "dataset")
_ROW_COLUMNS = (
    *("id", "group", "index", "step", "lag", "bucket", "versions", "status", "reward", "advantage", "tokens"),
    *("finish", "completion", "flip", "scores", "chunk"),
)
_READ = (
    *("schema_version", "id", "group_id", "segment", "index", "prompt", "messages", "completion", "task"),
    *("policy_versions", "scores"),
)
_READ_TOKENS = ("token_ids", "loss_mask", "behaviour_logprobs")
LAG_BUCKETS = BUCKETS
"""Names of the values of the column `bucket`."""


def _rows(
    source: ReportSource, wanted: Mapping[tuple[int, int], Observation], tokens_of: set[str]
) -> Iterator[tuple[Observation, Row]]:
    """Yield the wanted rows of a source's files. Token columns are read only if a row of the file needs them."""
    by_file: dict[int, dict[int, Observation]] = {}
    for (file, number), each in wanted.items():
        by_file.setdefault(file, {})[number] = each
    for file in sorted(by_file):
        own = by_file[file]
        needs = any(each.id in tokens_of for each in own.values())
        rows = source_of(source.files[file])
        columns = frozenset({*_READ, *rows.columns.values(), *(_READ_TOKENS if needs else ())})
        for number, row in enumerate(read_rows(rows, only=columns)):
            if number in own:
                yield own[number], row


@cache
def _bucket(lag: int | None) -> int:
    """Return the place of a lag's bucket among `LAG_BUCKETS`."""
    return int(bucket_of([lag or 0], [lag is not None])[0])


def _advantages(chosen: Iterable[Sequence[Observation]]) -> Iterator[tuple[tuple[int, int], float]]:
    """Yield the whitened reward of each rollout: (r - mean) / deviation over its group, 0 in a group without signal."""
    for group in chosen:
        rewarded = [each for each in group if each.reward is not None]
        if rewarded:
            rewards = [each.reward for each in rewarded if each.reward is not None]
            for each, advantage in zip(rewarded, GroupStats.of(rewards).whiten(rewards), strict=True):
                yield (each.file, each.row), advantage


def prompt_text(row: Row) -> str | None:
    """Return the prompt as one text; a chat with its roles."""
    prompt = row.prompt
    if prompt is None or isinstance(prompt, str):
        return prompt
    return "\n\n".join(f"{as_text(turn.get('role'))}: {as_text(turn.get('content'))}" for turn in prompt)


def _short(value: Any, digits: int = 4) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool) or value != value or abs(value) == float("inf"):
        return None
    return float(f"{value:.{digits}g}")
