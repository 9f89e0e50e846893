"""`pytest --rlvr-verifier`: an option of pytest, which imports nothing unless it is used."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

EXAMPLES = Path(__file__).parents[3] / "examples"
PLUGIN = "rlvr.bench.pytest_plugin"


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Named, and not found: so that an environment with an older installation runs the same test.
    command = [sys.executable, "-m", "pytest", "-p", PLUGIN, "-p", "no:cacheprovider", "-q", *arguments]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_pytest_finds_it_by_its_entry_point() -> None:
    project = tomllib.loads((EXAMPLES.parent / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"rlvr": PLUGIN}


def test_a_sound_verifier_passes_and_a_mistaken_one_fails_with_its_report(tmp_path: Path) -> None:
    names = [f"{EXAMPLES}/exact.py:exact", f"{EXAMPLES}/mine.py:short"]
    done = run(tmp_path, *(f"--rlvr-verifier={name}" for name in names))
    assert done.returncode == 1, done.stderr
    assert "1 failed, 1 passed" in done.stdout
    assert "FAILED: attack: thinking blocks, rewards among wrong answers" in done.stdout
    assert "Traceback" not in done.stdout


def test_without_the_option_nothing_of_rlvr_is_imported(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\n"
        "def test_it():\n"
        "    ours = {name for name in sys.modules if name.split('.')[0] == 'rlvr'}\n"
        "    assert ours == {'rlvr', 'rlvr.bench', 'rlvr.bench.pytest_plugin'}\n"
        "    assert 'numpy' not in sys.modules and 'pydantic' not in sys.modules\n"
    )
    done = run(tmp_path, "test_it.py")
    assert done.returncode == 0, done.stdout
