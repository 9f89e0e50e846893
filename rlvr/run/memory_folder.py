"""A folder in memory, through which processes of one machine hand weights over."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")


@contextmanager
def memory_folder(parent: Path | None = None) -> Iterator[Path]:
    """Return a new folder that is deleted at the end, in `parent`, else in shared memory where the system has it."""
    where = parent or (SHARED_MEMORY if SHARED_MEMORY.is_dir() else None)
    with tempfile.TemporaryDirectory(prefix="rlvr-weights-", dir=where) as name:
        yield Path(name)
