"""Weights on their way from one process of a machine to another: files in a folder that lies in memory."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlvr.protocols import Snapshot

SHARED_MEMORY = Path("/dev/shm")
PREFIX = "rlvr-weights"


@contextmanager
def memory_folder(parent: Path | None = None) -> Iterator[Path]:
    """Return a new folder that is deleted at the end, in `parent`, else in shared memory where the system has it.

    Folders of processes of this machine that were killed are deleted as well: their memory would stay taken.
    """
    where = parent or (SHARED_MEMORY if SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir()))
    ours = f"{PREFIX}-{socket.gethostname()}-"
    for left in where.glob(f"{ours}*"):
        if not _runs(left.name.removeprefix(ours).partition("-")[0]):
            shutil.rmtree(left, ignore_errors=True)  # it may belong to another user, or be deleted by another run
    with tempfile.TemporaryDirectory(prefix=f"{ours}{os.getpid()}-", dir=where) as name:
        yield Path(name)


def write_weights(snapshot: Snapshot, file: Path, *, spell_out_tied: bool) -> None:
    """Write a snapshot as safetensors; tied parameters under their own names too, if they are to be spelled out."""
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().to("cpu").contiguous() for name, tensor in snapshot.tensors()}
    if spell_out_tied:  # a file holds no two names of one tensor, so they are copied
        tensors |= {name: tensors[source].clone() for name, source in snapshot.tied.items()}
    save_file(tensors, file)


def _runs(pid: str) -> bool:
    """Return whether there is a process of this id."""
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError, OverflowError):
        return True
    return True
