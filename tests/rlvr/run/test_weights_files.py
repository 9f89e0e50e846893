"""Weights in shared memory: what a killed process leaves there is deleted by the next one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from rlvr.run.weights_files import memory_folder


def test_a_folder_of_a_killed_process_is_deleted_and_of_a_running_one_is_not(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from rlvr.run.weights_files import memory_folder
with memory_folder(Path({str(tmp_path)!r})) as folder:
    (folder / "weights").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code])
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert (left / "weights").exists()
    (tmp_path / "rlvr-weights-of another host-1").mkdir()
    with memory_folder(tmp_path) as first, memory_folder(tmp_path) as second:
        assert not left.exists()
        assert first.is_dir()
        assert str(os.getpid()) in second.name
    assert [path.name for path in tmp_path.iterdir()] == ["rlvr-weights-of another host-1"]
