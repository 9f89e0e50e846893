"""The wheel, built from the sdist and installed away from the checkout: it has the checkout's content, and works."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
JUNK = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.md")  # pages are for the checkout


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    """Return the standard output of a command that must succeed, without access to a package index."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV_"))}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**environment, "PIP_NO_INDEX": "1", **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: a build writes into its tree, and finds there what earlier builds left."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("rlvr", *SETUPTOOLS["package-dir"].values()):
        shutil.copytree(ROOT / name, tree / name, ignore=JUNK)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", ".", cwd=tree)
    (built,) = (tree / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def venv(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel in it that borrows the dependencies of this one, and not its editable rlvr.

    A folder named in a .pth file is searched, and .pth files inside it are not read: the editable one's is such a file.
    """
    home = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=home)
    run(sys.executable, "-m", "pip", "--python", home / "bin" / "python", "install", "--no-deps", wheel, cwd=home)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home


def in_checkout() -> dict[str, bytes]:
    """Return name in the wheel -> content, for every file in a package's folder."""
    found = {}
    for folder, package in {"rlvr": "rlvr", **{v: k for k, v in SETUPTOOLS["package-dir"].items()}}.items():
        for path in (ROOT / folder).rglob("*"):
            name = f"{package}/{path.relative_to(ROOT / folder).as_posix()}"
            if path.is_file() and not JUNK(str(path.parent), [path.name]) and "__pycache__" not in name:
                found[name] = path.read_bytes()
    return found


def test_the_wheel_holds_what_the_checkout_holds(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    checkout = in_checkout()
    assert sorted(packed) == sorted(checkout)
    assert [name for name in packed if packed[name] != checkout[name]] == []


def test_the_wheel_carries_its_license_and_entry_points(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (member,) = [name for name in archive.namelist() if name.endswith("/licenses/LICENSE")]
        assert archive.read(member) == (ROOT / "LICENSE").read_bytes()
        (points,) = [name for name in archive.namelist() if name.endswith("/entry_points.txt")]
        assert b"rlvr = rlvr.cli:main" in archive.read(points)


def test_every_name_loads_from_the_installed_wheel(venv: Path, tmp_path: Path) -> None:
    code = """
import json, sys
from rlvr.registry import registry
for entry in registry().entries():
    entry.load()
print(json.dumps({name: module.__file__ for name, module in sys.modules.items() if name.startswith("rlvr")}))
"""
    loaded = json.loads(run(venv / "bin" / "python", "-c", code, cwd=tmp_path))
    assert {"rlvr.registry", "rlvr_trainers.plugin", "rlvr_verifiers.plugin", "rlvr_plugins.plugin"} <= set(loaded)
    assert not {name: file for name, file in loaded.items() if file and not file.startswith(str(venv))}


def test_plugins_away_from_the_checkout(venv: Path, tmp_path: Path) -> None:
    def offered(*command: str | Path) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = json.loads(run(*command, "plugins", "--json", cwd=tmp_path))
        return [entry for entry in entries if entry["distribution"] == "rlvr"]

    away, here = offered(venv / "bin" / "rlvr"), offered(sys.executable, "-m", "rlvr")
    assert [(entry["kind"], entry["name"]) for entry in away] == [(entry["kind"], entry["name"]) for entry in here]
    assert not [entry for entry in away if entry["target"].startswith(str(ROOT))]


def test_training_away_from_the_checkout(venv: Path, tmp_path: Path) -> None:
    small = ("--prompts-per-step", "4", "--group-size", "4", "--set", "eval.questions=32")
    main_job = ("train", "--verifier", "math", "--trainer", "grpo-off", "--steps", "2")
    run(venv / "bin" / "rlvr", *main_job, *small, "--out", "run", cwd=tmp_path)
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(step["step"], step["policy_version"]) for step in metrics] == [(0, 1), (1, 2)]
    assert metrics[0]["eval/accuracy"] > 0, "the wheel's model is the trained one"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
