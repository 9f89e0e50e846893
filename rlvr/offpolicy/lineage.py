"""Lineage of a model: its position among the policy versions of a run, which decides whether records have a lag."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from rlvr.errors import DataError
from rlvr.files import from_json
from rlvr.record.schema import Rollout, VersionRun


@dataclass(frozen=True)
class Lineage:
    """Position of a model: `version` optimizer steps into a run, with these weights."""

    run_id: str | None = None
    version: int = 0
    weights_hash: str | None = None

    def version_for(self, rollout: Rollout) -> int | None:
        """Return the model's version in the record's counting; None if the two do not compare.

        They compare in the run that the model is a checkpoint of, and in runs that began with the model.
        """
        if self.run_id is not None and (rollout.run_id, rollout.branch) == (self.run_id, 0):
            return self.version
        began_with = rollout.model.weights_hash if rollout.model is not None else None
        return 0 if began_with is not None and began_with == self.weights_hash else None

    def counted_from_here(self, rollout: Rollout) -> tuple[VersionRun, ...] | None:
        """Return the record's policy versions, counted from the model's: at most 0.

        None if the age is unknown: the record has no versions, they do not compare, or the policy that sampled is newer
        than the model.
        """
        here, runs = self.version_for(rollout), rollout.policy_versions
        if here is None or runs is None or any(run.version > here for run in runs):
            return None
        # Versions below 0 are invalid in files; these are never written.
        return tuple(VersionRun.model_construct(version=run.version - here, count=run.count) for run in runs)


def lineage_of(path: str, weights_hash: str | None) -> Lineage:
    """Return the lineage of the model at `path` (a directory or a hub name), from the run around a checkpoint.

    Raises DataError if the files of that run cannot be read.
    """
    folder = Path(os.path.realpath(path))
    state, manifest = folder / "run.json", folder.parent.parent / "manifest.json"
    if not (state.is_file() and manifest.is_file()):
        return Lineage(weights_hash=weights_hash)
    metrics, run_id = _member(state, "metrics"), _member(manifest, "run_id")
    version = metrics.get("policy_version") if isinstance(metrics, dict) else None
    if not isinstance(version, int) or not isinstance(run_id, str):
        raise DataError(f"{state} and {manifest} do not say which policy version of which run this model is")
    return Lineage(run_id, version, weights_hash)


def _member(file: Path, key: str) -> object:
    """Return a member of the JSON object in a file; None if it has none."""
    value = from_json(file.read_text(encoding="utf-8", errors="replace"), str(file))
    return value.get(key) if isinstance(value, dict) else None
