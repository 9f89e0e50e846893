"""Read and write files of records. Public; the code is in `rlvr.record.store`."""

from __future__ import annotations

from rlvr.record.store import (
    RolloutWriter,
    read_rollouts,
    write_rollouts,
)

__all__ = [
    "RolloutWriter",
    "read_rollouts",
    "write_rollouts",
]
