"""Write protection: a worker writes to its scratch folder and nowhere else, as far as the kernel can enforce it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlvr.errors import ConfigError
from rlvr.record.item import Item
from rlvr.record.schema import Status, Task
from rlvr.verify import landlock
from rlvr.verify.scoring import Scorer

WRITER = """
import os, subprocess, tempfile
from pathlib import Path
import rlvr

TARGET = Path(__file__).with_name("input.jsonl")

@rlvr.verifier(name="writer", version="1", needs_answer=False)
def check(completion, task):
    match completion:
        case "write": TARGET.write_text("gone")
        case "append": TARGET.open("a").write("more")
        case "truncate": os.truncate(TARGET, 0)
        case "remove": TARGET.unlink()
        case "rename": TARGET.rename(TARGET.with_name("away"))
        case "make": TARGET.with_name("new").touch()
        case "link": os.link(TARGET, tempfile.gettempdir() + "/link")
        case "symlink": TARGET.with_name("symlink").symlink_to(TARGET)
        case "folder": TARGET.with_name("folder").mkdir()
        case "child":
            done = subprocess.run(["rm", "-f", str(TARGET)], stderr=subprocess.DEVNULL)
            if done.returncode: raise PermissionError("the child failed")
        case "temporary":
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, "a").write_text("a")
                Path(folder, "a").rename(Path(folder, "b"))
                return Path(folder, "b").read_text() == "a"
        case "read": return TARGET.read_text() == "input"
    return True
"""
DEEDS = ["write", "append", "truncate", "remove", "rename", "make", "link", "symlink", "folder", "child"]
HAS_LANDLOCK = landlock.version() >= landlock.NEEDED


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "writer.py").write_text(WRITER)
    (tmp_path / "input.jsonl").write_text("input")
    return tmp_path


def items(*completions: str) -> list[Item]:
    return [Item(completion, Task(answer="1")) for completion in completions]


@pytest.mark.skipif(not HAS_LANDLOCK, reason="the kernel has no Landlock that prevents truncation")
def test_a_worker_writes_only_to_its_scratch_folder(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with Scorer(f"{folder}/writer.py:check", workers=1, timeout=60, write_protect=True) as scorer:
        allowed = list(scorer.score(items("temporary", "read")))
        refused = list(scorer.score(items(*DEEDS)))
    assert [score.reward for score in allowed] == [1.0, 1.0]
    assert [score.status for score in refused] == [Status.ERROR] * len(DEEDS)
    assert all("Permission" in str(score.reason) or "cross-device" in str(score.reason) for score in refused), refused
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


@pytest.mark.skipif(not HAS_LANDLOCK, reason="the kernel has no Landlock that prevents truncation")
def test_it_is_an_option_of_rlvr_score(folder: Path, cli: Callable[..., Any]) -> None:
    rows = [{"completion": deed} for deed in ("write", "temporary")]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["rows.jsonl", "-v", "writer.py:check", "--workers", "1", "--max-error-rate", "1", "--timeout", "60"]
    assert cli("score", *arguments, "--write-protect", "--out", "out.jsonl").code == 0
    scores = [json.loads(line)["scores"][0] for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [score["status"] for score in scores] == ["error", "graded"]
    assert (folder / "input.jsonl").read_text() == "input"


def test_without_it_a_worker_may_write(folder: Path) -> None:
    with Scorer(f"{folder}/writer.py:check", workers=1, timeout=60) as scorer:
        assert [score.reward for score in scorer.score(items("make"))] == [1.0]
    assert (folder / "new").exists()


@pytest.mark.parametrize("found", [0, 1, 2])
def test_a_kernel_that_cannot_protect_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, found: int) -> None:
    """Protection is never silently off. Kernels before 6.2 do not prevent truncation."""
    monkeypatch.setattr(landlock, "version", lambda: found)
    with pytest.raises(ConfigError, match=r"needs Linux 6.2 or newer with Landlock enabled, and this kernel has"):
        Scorer(f"{folder}/writer.py:check", workers=1, write_protect=True)


def test_there_is_no_protection_without_worker_processes(folder: Path) -> None:
    with pytest.raises(ConfigError, match="with 0 workers, the verifier runs in this one"):
        Scorer(f"{folder}/writer.py:check", workers=0, write_protect=True)
