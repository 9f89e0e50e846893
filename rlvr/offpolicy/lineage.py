"""Where a model stands among the policy versions of a run, so that its age to a record can be told, or cannot."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rlvr.record.schema import Rollout, VersionRun


@dataclass(frozen=True)
class Lineage:
    """Where a model stands: after `version` optimizer steps of a run, and which weights it has."""

    run_id: str | None = None
    version: int = 0
    weights_hash: str | None = None

    def version_for(self, rollout: Rollout) -> int | None:
        """The model's version in the record's own counting; None where the two do not compare.

        They do in the run that the model is a checkpoint of, and in one that began with the model.
        """
        if self.run_id is not None and (rollout.run_id, rollout.branch) == (self.run_id, 0):
            return self.version
        began_with = rollout.model.weights_hash if rollout.model is not None else None
        return 0 if began_with is not None and began_with == self.weights_hash else None

    def counted_from_here(self, rollout: Rollout) -> tuple[VersionRun, ...] | None:
        """The record's policy versions in the counting of a run that begins with the model: at most 0.

        None where its age is unknown: it has no versions, they do not compare, or what sampled went on from the model
        by other steps than that run will.
        """
        here, runs = self.version_for(rollout), rollout.policy_versions
        if here is None or runs is None or any(run.version > here for run in runs):
            return None
        # Below 0 is not valid in a file, and these are never written to one.
        return tuple(VersionRun.model_construct(version=run.version - here, count=run.count) for run in runs)


def lineage_of(path: str, weights_hash: str | None) -> Lineage:
    """Of the model at `path` (a directory or a hub name) with these weights: what the run around a checkpoint says."""
    folder = Path(path).resolve()
    state, manifest = folder / "run.json", folder.parent.parent / "manifest.json"
    if not (state.is_file() and manifest.is_file()):
        return Lineage(weights_hash=weights_hash)
    version = json.loads(state.read_text())["metrics"]["policy_version"]
    return Lineage(json.loads(manifest.read_text())["run_id"], version, weights_hash)
