"""Training from files: groups of saved, rescored or foreign records, checked before weights are loaded.

Records are held as Arrow columns, about ten bytes per token, and become rollouts when their group is drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa

from rlvr.data.selection import question_mark
from rlvr.draws import permuted
from rlvr.errors import DataError
from rlvr.files import expanded, sha256
from rlvr.offpolicy.eligibility import (
    ANOTHER_MODEL,
    ANOTHER_VERSION,
    NO_LOGPROBS,
    SeenRollouts,
    faults,
    origin,
    remedy,
)
from rlvr.offpolicy.lineage import Lineage
from rlvr.protocols import Group
from rlvr.record.schema import LogprobColumn, ModelRef, Rollout, Score, Status, VersionRun
from rlvr.record.sidecar import Sidecars
from rlvr.record.store import field_faults, read_rollouts, record_batch, rollout_of, rows_of, write_rollouts
from rlvr.run.checksums import Checksums
from rlvr.run.groups import Drawn, Grader
from rlvr.verify.score_names import require_score
from rlvr.verify.scoring import DEFAULT_REWARDS

CHUNK = 512  # records of one Arrow batch

Recompute: TypeAlias = Callable[[Sequence[Rollout]], Sequence[LogprobColumn]]
"""Returns (T,) log-probabilities under the behavior model for each rollout, NaN where the loss mask is False."""


@dataclass(frozen=True)
class Expected:
    """Requirements that a record must meet to be trained on."""

    tokenizer_hash: str
    temperature: float
    vocabulary: int
    verifier: str
    """Name of the verifier whose last score is the reward."""
    positions: int | None = None
    """Longest sequence that the model takes; None if it is unknown."""
    behaviour: ModelRef | None = None
    """Model that sampled the records without log-probabilities."""
    lineage: Lineage = field(default_factory=Lineage)
    """Lineage of that model."""
    learner: Lineage = field(default_factory=Lineage)
    """Lineage of the trained model, before its first step."""

    def faults(self, rollout: Rollout) -> tuple[str, ...]:
        """Return every reason why a record cannot be trained on; empty if it can."""
        found = faults(
            rollout,
            tokenizer_hash=self.tokenizer_hash,
            temperature=self.temperature,
            vocabulary=self.vocabulary,
            verifier=self.verifier,
            positions=self.positions,
        )
        if self.behaviour is None or NO_LOGPROBS not in found:
            return found
        others = tuple(reason for reason in found if reason != NO_LOGPROBS)
        return (*others, *self._against_the_behaviour_model(rollout))

    def _against_the_behaviour_model(self, rollout: Rollout) -> tuple[str, ...]:
        """Return why the behavior model cannot have sampled the record.

        The weights that a record names are those that its run began with.
        """
        versions = _versions(rollout)
        here, weights = self.lineage.version_for(rollout), self.lineage.weights_hash
        if here is not None:
            other = f"{ANOTHER_VERSION} than the behavior model's ({here}) sampled it"
            return (other,) if versions - {here} else ()
        named = rollout.model.weights_hash if rollout.model is not None else None
        known = named is not None and weights is not None
        return (ANOTHER_MODEL,) if known and versions <= {0} else ()

    def is_unchecked(self, rollout: Rollout) -> bool:
        """Return True if the record does not tell whether the behavior model sampled it."""
        here = self.lineage.version_for(rollout)
        return here is None or (here > 0 and rollout.policy_versions is None)


def _versions(rollout: Rollout) -> set[int]:
    return {run.version for run in rollout.policy_versions or ()}


class Place(NamedTuple):
    """Place of a record: the batch of Arrow columns and the row in it."""

    chunk: int
    row: int


@dataclass
class _Members:
    """State of a group while its records are read."""

    places: list[Place] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    planned: int | None = None


class SavedRollouts:
    """The trainable records of some files, by group."""

    def __init__(
        self,
        paths: Iterable[Path],
        expected: Expected,
        grader: Grader,
        *,
        sidecars: Iterable[Path] = (),
        skip_unusable: bool,
        lacks: Callable[[Rollout], str | None] = lambda rollout: None,
        told: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Read and check every record. `lacks` comes from the trainer's options; `told` receives progress lines.

        Raises RequestError if no record has the requested score, and DataError, with the count of each reason, if some
        cannot be trained on; with `skip_unusable` only if none is left.
        """
        self._told, self._lacks = told, lacks
        self.files = expanded(paths)
        self._beside = Sidecars(sidecars)
        self.expected, self.grader = expected, grader
        self.notes: list[str] = []
        self.rows = 0
        self.missing: dict[int, list[Place]] = {}
        """Places of records without log-probabilities, by the number of their file."""
        self._chunks: list[pa.RecordBatch] = []
        self._scored: Counter[str] = Counter()
        """Verifier -> number of records that it scored."""
        self._reasons: Counter[str] = Counter()
        self._unusable = 0
        self._first = ""
        self._unchecked = 0
        """Records that do not tell whether the behavior model sampled them."""
        self._unchecked_versions: set[int] = set()
        self._members: dict[tuple[Any, ...], _Members] = {}
        self._asked: set[bytes] = set()
        self.segments = 0
        """Usable records that are not the first sequence of their rollout."""
        self._read()
        self._judge(skip_unusable)
        self._tell_unchecked()
        self.groups = self._learnable()
        """Places of each group's members, in the order in which the groups begin."""

    def asked(self, prompt: str) -> bool:
        """Return True if a usable record answers this prompt: a text, or the last message of a chat."""
        return question_mark(prompt) in self._asked

    def digests(self) -> dict[str, str]:
        """Return file -> SHA-256, sidecars included; a resumed run must find the same."""
        return {str(file): sha256(file) for file in (*self.files, *self._beside.paths)}

    def rollouts(self, places: Iterable[Place]) -> Iterator[Rollout]:
        """Yield the records at these places."""
        for number, those in groupby(places, key=lambda place: place.chunk):
            rows = self._chunks[number].take(pa.array([place.row for place in those]))
            for row in rows_of(rows, lambda i: "a saved record"):
                yield rollout_of(row, "a saved record")

    def group(self, number: int) -> Group:
        """Return group `number`."""
        group = self.grader.group(list(self.rollouts(self.groups[number])))
        assert group is not None, "groups without a reward were left out"
        return group

    # --- reading ----------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        seen = SeenRollouts()
        held: list[Rollout] = []
        for number, file in enumerate(self.files):
            for row, rollout in enumerate(read_rollouts(file), start=1):
                self.rows += 1
                where = f"{file}, record {row}"
                if new := self._beside.scores_of(rollout.id, rollout.segment):
                    with field_faults(f"a sidecar of {where}"):
                        later = [Score.model_validate(score) for score in new]
                    rollout = rollout.model_copy(update={"scores": (*rollout.scores, *later)})
                self._scored.update({score.verifier for score in rollout.scores})
                lack = self._lacks(rollout)
                own_faults = self.expected.faults(rollout) + (() if lack is None else (lack,))
                reasons, before = seen.check(rollout, str(file), where, own_faults)
                if before is not None:
                    where = f"{where} (as {before})"
                if not reasons:
                    self._join((*origin(rollout, str(file)), rollout.group_id), rollout, held, number)
                else:
                    self._refuse(reasons, f"{where}, id {rollout.id!r}: {', '.join(reasons)}")
                if len(held) == CHUNK:
                    self._keep(held)
        self._keep(held)
        self._beside.refuse_unused()

    def _join(self, key: tuple[Any, ...], rollout: Rollout, held: list[Rollout], file: int) -> None:
        if key not in self._members:
            prompt = rollout.messages[-1].content if rollout.messages else rollout.prompt
            self._asked.add(question_mark(prompt or ""))
        members = self._members.setdefault(key, _Members())
        place = Place(len(self._chunks), len(held))
        members.places.append(place)
        members.ids.add(rollout.id)
        self.segments += rollout.segment > 0
        members.planned = max(members.planned or 0, rollout.group_size or 0) or None
        if rollout.behaviour_logprobs is None:
            self.missing.setdefault(file, []).append(place)
            if self.expected.is_unchecked(rollout):
                self._unchecked += 1
                self._unchecked_versions |= _versions(rollout)
            rollout = rollout.model_copy(update={"recomputed_by": self.expected.behaviour})
        held.append(rollout)

    def _keep(self, held: list[Rollout]) -> None:
        if held:
            self._chunks.append(record_batch(held, lambda i: f"record {held[i].id}"))
            self._told(f"{self.rows:,} saved records read")
            held.clear()

    def _refuse(self, reasons: Sequence[str], example: str) -> None:
        self._unusable += 1
        self._reasons.update(reasons)
        self._first = self._first or example

    def _judge(self, skip_unusable: bool) -> None:
        if not self._reasons:
            if not self.rows:
                raise DataError(f"{', '.join(map(str, self.files))}: there is no record")
            return
        require_score(self.expected.verifier, self._scored, "--rollouts")
        counts = "; ".join(f"{count:,} {reason}" for reason, count in self._reasons.most_common())
        what = f"{self._unusable:,} of {self.rows:,} records cannot be trained on: {counts}"
        if not skip_unusable or self._unusable == self.rows:
            advice = remedy(self._reasons.most_common(1)[0][0])
            leave = "" if self._unusable == self.rows else "; or leave them out with --skip-unusable"
            raise DataError(f"{what}. The first is {self._first}. What to do: {advice}{leave}")
        self.notes.append(f"{what}; they are left out (rollouts.skip_unusable)")

    def _tell_unchecked(self) -> None:
        if self._unchecked:
            assert self.expected.behaviour is not None
            versions = self._unchecked_versions
            of = f" of policy versions {min(versions)} to {max(versions)}" if versions else ""
            self.notes.append(
                f"{self._unchecked:,} records{of} do not name the weights that sampled them, so it cannot be checked "
                f"that {self.expected.behaviour.name} did. If another model did, their log-probabilities will be wrong"
            )

    # --- groups -----------------------------------------------------------------------------------------------------

    def _learnable(self) -> list[list[Place]]:
        """Return the places of groups with a reward, and note what is left out."""
        groups, mixed, unrewarded, signal = [], 0, 0, 0
        partial, recomputed = 0, 0
        ages: list[int | None] = []
        statuses: Counter[Status] = Counter()
        for number, members in enumerate(self._members.values()):
            self._told(f"{number:,} of {len(self._members):,} saved groups checked")
            rollouts = list(self.rollouts(members.places))
            statuses.update(self.grader.score(rollout).status for rollout in rollouts)
            group = self.grader.group(rollouts)
            if group is None:
                lacks_version = self.grader.mixed([rollouts]).get("groups/mixed_versions")
                mixed, unrewarded = (mixed + 1, unrewarded) if lacks_version else (mixed, unrewarded + 1)
                continue
            groups.append(members.places)
            signal += group.stats.has_signal
            ages += [_age(self.expected.learner.counted_from_here(rollout)) for rollout in group.rollouts]
            if members.planned is not None and len(members.ids) < members.planned:
                partial += 1
                recomputed += group.stats is not rollouts[0].group_stats
        self.verdicts = {f"verdict/{status.value}": n / statuses.total() for status, n in statuses.items()}
        """Verdict shares (`rlvr.run.groups.verdict_shares`) of all usable records, those without a reward included."""
        self.members = sum(map(len, groups))
        self.signal = signal / max(1, len(groups))
        """Share of groups whose rewards differ."""
        known = [age for age in ages if age is not None]
        self.lags = (min(known), max(known)) if known else None
        """Lag of the youngest and the oldest rollout, in optimizer steps; None if no lag is known."""
        self.ageless = len(ages) - len(known)
        """Trainable rollouts of unknown lag."""
        if partial:
            self.notes.append(
                f"{partial:,} of {len(groups):,} saved groups lack members that were sampled: {partial - recomputed:,} "
                f"keep the statistics of their whole group, {recomputed:,} have those of the remaining members, "
                "because they were sampled with another score"
            )
            if self.grader.rewards != DEFAULT_REWARDS and recomputed < partial:
                self.notes.append(
                    "verifier.rewards differ from the default. If the run that sampled had other rewards, which "
                    "records do not tell, the statistics of whole groups, and so their advantages, are wrong"
                )
        if mixed:
            self.notes.append(f"{mixed:,} saved groups may have several policy versions and are left out")
        if unrewarded:
            self.notes.append(f"{unrewarded:,} saved groups have no reward (see verifier.rewards) and are left out")
        if not groups:
            raise DataError(f"{', '.join(map(str, self.files))}: no group of records can be trained on")
        return groups

    # --- log-probabilities ------------------------------------------------------------------------------------------

    def recompute(self, folder: Path, logprobs: Recompute) -> None:
        """Compute missing log-probabilities with the behavior model.

        A file's records are written to `folder`, whole or not at all. Files that exist are read and not computed again,
        so a resumed run learns from the same numbers. Raises DataError if one is not as it was written.
        """
        folder.mkdir(exist_ok=True)
        sums = Checksums(folder)
        moved: dict[Place, Place] = {}
        for number, places in self.missing.items():
            stored = folder / f"file-{number:04d}.parquet"
            if not stored.exists():
                write_rollouts(stored, self._recomputed(places, logprobs), partial(sums.add, stored.name))
            records = list(read_rollouts(stored))
            sums.require(stored, "delete it to have the log-probabilities computed again")
            for first in range(0, len(places), CHUNK):
                for row, place in enumerate(places[first : first + CHUNK]):
                    moved[place] = Place(len(self._chunks), row)
                self._chunks.append(record_batch(records[first : first + CHUNK], lambda i: f"a record of {folder}"))
        self.groups = [[moved.get(place, place) for place in places] for places in self.groups]

    def _recomputed(self, places: Sequence[Place], logprobs: Recompute) -> Iterator[Rollout]:
        for first in range(0, len(places), CHUNK):
            self._told(f"log-probabilities of {first:,} of {len(places):,} records of a file recomputed")
            rollouts = list(self.rollouts(places[first : first + CHUNK]))
            for rollout, column in zip(rollouts, logprobs(rollouts), strict=True):
                assert rollout.sampling is not None
                sampling = rollout.sampling.model_copy(update={"logprob_mode": "processed"})
                whole = rollout.model_copy(update={"behaviour_logprobs": column, "sampling": sampling})
                assert whole.behaviour_logprobs is not None
                if not np.isfinite(whole.behaviour_logprobs[whole.loss_mask]).all():
                    assert rollout.recomputed_by is not None
                    raise DataError(
                        f"rollout {rollout.id!r}: under {rollout.recomputed_by.name} a sampled token has a "
                        "log-probability that is not finite: its weights are broken, or another model sampled it"
                    )
                yield whole


class Saved:
    """A `GroupSource` of saved groups: every pass draws each group once, in its own order.

    The order is a function of (seed, pass, place). The last batch of a pass may be short. Policy versions are converted
    to those of this run, where they are at most 0. Versions that are not comparable are removed, because they give no
    lag.
    """

    def __init__(self, saved: SavedRollouts, seed: int) -> None:
        self._saved, self._seed = saved, seed
        self._position = 0

    def draw(self, step: int, size: int, version: int) -> Drawn:
        """Return the next groups of the pass."""
        total = len(self._saved.groups)
        epoch, place = divmod(self._position, total)
        size = min(size, total - place)
        numbers = [permuted(total, place + i, self._seed, "saved", epoch) for i in range(size)]
        groups = tuple(self._counted_from_here(self._saved.group(number)) for number in numbers)
        self._position += size
        rollouts = tuple(rollout for group in groups for rollout in group.rollouts)
        return Drawn(groups, rollouts, {"saved/groups": float(size), "saved/epoch": epoch + (place + size) / total})

    def state(self) -> dict[str, Any]:
        """Return the number of groups drawn."""
        return {"position": self._position}

    def seek(self, state: Mapping[str, Any]) -> None:
        """Continue at a position that `state` returned."""
        self._position = state["position"]

    def _counted_from_here(self, group: Group) -> Group:
        counted = self._saved.expected.learner.counted_from_here
        rollouts = tuple(r.model_copy(update={"policy_versions": counted(r)}) for r in group.rollouts)
        return Group(rollouts, group.rewards, group.stats)


def _age(versions: Sequence[VersionRun] | None) -> int | None:
    """Return the lag of the oldest token at version 0, in optimizer steps; None if unknown."""
    return None if versions is None else -min((run.version for run in versions), default=0)
