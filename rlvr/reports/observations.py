"""Facts about every rollout of a report: a few hundred bytes each, so that files of any size can be gone through.

Texts are read a second time, for the rollouts that the page shows.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rlvr.errors import DataError
from rlvr.evaluation.figures import RIGHT
from rlvr.record.reading import read_rows, source_of
from rlvr.record.rows import Row
from rlvr.reports.sources import ReportSource
from rlvr.verify.reward_limit import stored_verdict

_WANTED = (
    *("schema_version", "id", "group_id", "segment", "prompt", "messages", "completion"),
    *("policy_versions", "finish_reason", "scores"),
)
_STEP = re.compile(r"step-(\d+)\.parquet")
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_WORD = re.compile(r"[^\W\d_]{2,}|\d+(?:[.,]\d+)*")
_GRADE = re.compile(
    r"(?i)\b(this is correct|is the correct answer|full (marks|credit|score)|reward (me|function)|grader|verifier)\b"
)
_HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")


@dataclass(frozen=True, slots=True)
class Observation:
    """One rollout, without its texts."""

    file: int
    """Place of its file among those of the source."""
    row: int
    """Row number in the file, from 0."""
    id: str
    group: str
    step: int | None
    """Batch that it was sampled for, counted from 1; in a file, the policy version. None if unknown."""
    lag: int | None
    """Lag of its oldest token when it was trained on, in optimizer steps; None if unknown."""
    status: str | None
    """Status of the verdict that counts; None without one."""
    reward: float | None
    """Training reward; None if the rollout is dropped or not scored."""
    others: Mapping[str, float | None]
    """Reward by every other verifier that scored it."""
    tokens: int | None
    """Sampled tokens; None if unknown."""
    characters: int
    ending: str
    """Shape of its last line: see `shape`."""
    finish: str | None
    words: int
    """Words and numbers outside the answer."""
    marks: tuple[str, ...] = ()
    """Oddities of the text, in words."""

    @property
    def is_right(self) -> bool:
        """Whether the reward counts as correct."""
        return self.reward is not None and self.reward >= RIGHT

    @property
    def length(self) -> int:
        """Sampled tokens; characters if these are unknown."""
        return self.characters if self.tokens is None else self.tokens


@dataclass
class Observations:
    """All rollouts of one source, and the verifier whose reward counts."""

    verifier: str | None = None
    """Name of the verifier; None before a rollout has a score."""
    found: list[Observation] = field(default_factory=list)

    def groups(self) -> Iterator[list[Observation]]:
        """Yield the rollouts of each group, in the order of their first."""
        groups: dict[str, list[Observation]] = {}
        for each in self.found:
            groups.setdefault(each.group, []).append(each)
        yield from groups.values()

    @property
    def others(self) -> list[str]:
        """Names of the other verifiers, in the order in which they appear."""
        return list(dict.fromkeys(name for each in self.found for name in each.others))


class Observer:
    """Reads observations. Files that did not change since they were read last are not read again."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, int, int, str | None, bool], tuple[str | None, list[Observation]]] = {}

    def read(self, source: ReportSource, verifier: str | None = None) -> Observations:
        """Return the rollouts of a source.

        Args:
            source: Run or file.
            verifier: Name of the verifier whose reward counts. By default, that of the first score in a run, which is
                the one that training uses, and of the last score in a file.

        Raises DataError for a row that cannot be read.
        """
        all_of = Observations(verifier)
        versions = source.version_before()
        for place, file in enumerate(source.files):
            about = file.stat()
            strict = verifier is not None
            key = (file, about.st_mtime_ns, about.st_size, all_of.verifier, strict)
            if key not in self._known:
                self._known[key] = _of_file(source, place, all_of.verifier, versions, strict=strict)
            name, found = self._known[key]
            all_of.verifier = all_of.verifier or name
            all_of.found += found
        return all_of


def _of_file(
    source: ReportSource, place: int, verifier: str | None, versions: Mapping[int, int], *, strict: bool
) -> tuple[str | None, list[Observation]]:
    match = _STEP.fullmatch(source.files[place].name) if source.is_run else None
    step = None if match is None else int(match[1])
    found = []
    rewards = source.rewards
    file = source_of(source.files[place])
    wanted = frozenset({*_WANTED, *file.columns.values()})
    for number, row in enumerate(read_rows(file, only=wanted)):
        scores = verdicts(row)
        if verifier is None and scores:
            verifier = next(iter(scores)) if source.is_run else list(scores)[-1]
        counts = verifier if strict or verifier in scores else next(reversed(scores), None)
        found.append(_observed(row, place, number, step, scores, counts, rewards, versions))
    return verifier, found


def verdicts(row: Row) -> dict[str, tuple[str, float | None]]:
    """Return verifier → status and reward of its last score, in the order of their first scores."""
    found: dict[str, tuple[str, float | None]] = {}
    for score in row.scores:
        name, status, reward = stored_verdict(score, row.where)
        found[name] = (status.value, reward)
    return found


def _observed(
    row: Row,
    place: int,
    number: int,
    step: int | None,
    scores: Mapping[str, tuple[str, float | None]],
    verifier: str | None,
    rewards: Mapping[str, float | None],
    before: Mapping[int, int],
) -> Observation:
    def reward_of(name: str) -> float | None:
        status, reward = scores[name]
        return reward if status == "graded" else rewards[status]

    text = row.completion or ""
    scored = verifier is not None and verifier in scores
    status, reward = (scores[verifier][0], reward_of(verifier)) if verifier and scored else (None, None)
    versions, tokens = version_runs(row)
    finish = row.values.get("finish_reason") if row.is_record else None
    trained_at = before.get(step) if step is not None else None
    return Observation(
        place,
        number,
        row.id or f"row {number + 1}",
        row.group or row.id or f"row {number + 1}",
        (versions[0] if versions else None) if step is None else step + 1,
        trained_at - min(versions) if versions and trained_at is not None else None,
        status,
        reward,
        {name: reward_of(name) for name in scores if name != verifier},
        tokens,
        len(text),
        shape(text),
        finish if isinstance(finish, str) else None,
        words_beside_answer(text, _extracted(row, verifier)),
        tuple(oddities(text)) if reward is not None and reward >= RIGHT else (),
    )


def version_runs(row: Row) -> tuple[list[int], int | None]:
    """Return the policy versions of a row, in order, and its number of sampled tokens; None if unknown."""
    runs = row.values.get("policy_versions") if row.is_record else None
    if not isinstance(runs, list) or not runs:
        return [], None
    try:
        return [run["version"] for run in runs], sum(run["count"] for run in runs)
    except (KeyError, TypeError) as error:
        raise DataError(f"{row.where}: policy_versions is not a list of versions and counts") from error


def _extracted(row: Row, verifier: str | None) -> str | None:
    found = next((score.get("extracted") for score in reversed(row.scores) if score.get("verifier") == verifier), None)
    return found if isinstance(found, str) else None


# --- text -------------------------------------------------------------------------------------------------------------

ENDING = 48
"""Characters of a shape."""


def shape(text: str) -> str:
    """Return the shape of a text's last line: digits are `0`, spaces one, and only the end is kept.

    Completions that end in the same way have the same shape, whatever their numbers are.
    """
    lines = text.rstrip().rsplit("\n", 1)
    last = re.sub(r"\d+(?:[.,]\d+)*", "0", lines[-1][-4 * ENDING :])
    return re.sub(r"\s+", " ", last).strip()[-ENDING:]


def words_beside_answer(text: str, extracted: str | None) -> int:
    """Return how many words and numbers stand in a text beside its answer, boxed or extracted."""
    rest = _BOXED.sub(" ", text)
    if extracted:
        rest = rest.replace(extracted, " ")
    return sum(1 for _ in _WORD.finditer(rest))


def oddities(text: str) -> Iterator[str]:
    """Yield what is odd about a text that was rewarded."""
    if not text.strip():
        yield "is empty"
    boxed = {re.sub(r"\s+", "", each) for each in _BOXED.findall(text)}
    if len(boxed) > 1:
        yield f"boxes {len(boxed)} different answers"
    if _GRADE.search(text):
        yield "speaks of its own grade"
    if _HIDDEN.search(text):
        yield "has hidden or control characters"
    if len(text) > 400 and len(text) > 12 * len(zlib.compress(text.encode("utf-8", "surrogatepass"), 1)):
        yield "repeats itself"


# --- numbers ----------------------------------------------------------------------------------------------------------


def mean(values: Iterable[float]) -> float:
    """Return the mean; NaN of nothing."""
    found = list(values)
    return math.fsum(found) / len(found) if found else math.nan


def bins(found: Sequence[Observation], most: int = 60) -> list[tuple[float, list[Observation]]]:
    """Return the rollouts by step, neighboring steps together if there are more than `most`, with the mean step.

    Rollouts of an unknown step are left out.
    """
    by_step: dict[int, list[Observation]] = {}
    for each in found:
        if each.step is not None:
            by_step.setdefault(each.step, []).append(each)
    steps = sorted(by_step)
    width = math.ceil(len(steps) / most) if steps else 1
    together = [steps[at : at + width] for at in range(0, len(steps), width)]
    return [(mean(some), [each for step in some for each in by_step[step]]) for some in together]
