"""Weights on their way from one process of a machine to another: files in a folder that lies in memory."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rlvr.protocols import Snapshot

if TYPE_CHECKING:
    from torch import Tensor

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


def write_weights(snapshot: Snapshot, file: Path) -> None:
    """Write a snapshot as safetensors, tied parameters under their own names too: vLLM keeps the old ones otherwise.

    A snapshot that lies in a file already is linked: it takes no further memory.
    """
    if snapshot.file is not None:
        _link(snapshot.file, file)
        return
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().to("cpu").contiguous() for name, tensor in snapshot.tensors()}
    # A file holds no two names of one tensor, so tied ones are copied.
    tensors |= {name: tensors[source].clone() for name, source in snapshot.tied.items()}
    save_file(tensors, file)


def snapshot_in(snapshot: Snapshot, file: Path) -> Snapshot:
    """Return a snapshot whose values are read from a file of `write_weights`, with tied parameters spelled out."""
    names = list(snapshot.layout)

    def read() -> Iterator[tuple[str, Tensor]]:
        from safetensors import safe_open

        with safe_open(file, "pt") as weights:
            for name in names:
                yield name, weights.get_tensor(name)

    return replace(snapshot, read=read, file=file, adapter=None)


def _link(source: Path, file: Path) -> None:
    try:
        os.link(source, file)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP):
            raise
        shutil.copyfile(source, file)  # another file system, or one without links


def _runs(pid: str) -> bool:
    """Return whether there is a process of this id."""
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError, OverflowError):
        return True
    return True
