"""A used checkout passes the same checks as a fresh one."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = ("rlvr", "verifiers", "trainers", "plugins", "datasets_cfg", "tests", "benchmarks", "examples", "docs")
LEFT_BY_USE = ("runs", "build", "dist", ".hypothesis")


def imported_names() -> set[str]:
    """Return the top-level names of all modules that the code imports."""
    found = set()
    for folder in CODE:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    found |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    found.add(node.module.partition(".")[0])
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Copy of the code and of ruff's settings."""
    for folder in CODE:
        skipped = shutil.ignore_patterns("__pycache__", "build", "*.egg-info", "*.safetensors", "*.parquet")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=skipped)
    for name in ("pyproject.toml", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_the_order_of_imports_does_not_depend_on_folders_in_the_root(tree: Path) -> None:
    """By default ruff calls every folder of the root first-party, so `runs/` would change how `import runs` sorts."""
    for name in {*imported_names(), *LEFT_BY_USE}:
        (tree / name).mkdir(exist_ok=True)
        (tree / name / "left_by_use.txt").touch()
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "I", "."]
    done = subprocess.run(ruff, cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", LEFT_BY_USE)
def test_git_ignores_what_use_leaves_behind(name: str) -> None:
    assert f"{name}/" in (ROOT / ".gitignore").read_text().split()
