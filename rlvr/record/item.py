"""What a verifier is given: the part of a record that a verdict depends on."""

from __future__ import annotations

from dataclasses import dataclass

from rlvr.record.schema import Rollout, Task


@dataclass(frozen=True)
class Item:
    """One thing to verify: a completion (None when the row has none), its task, and the rollout they are part of."""

    completion: str | None
    task: Task
    rollout: Rollout | None = None
