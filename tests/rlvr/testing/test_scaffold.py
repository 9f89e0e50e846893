"""`rlvr new`: the packages that it writes are installed as a user would do it, and pass their own tests."""

from __future__ import annotations

import inspect
import json
import os
import runpy
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlvr.errors import RequestError
from rlvr.testing.scaffold import KINDS, new_plugin


def test_a_verifier_is_installed_listed_and_passes_its_own_tests(tmp_path: Path) -> None:
    venv.create(tmp_path / "env")
    (site,) = (tmp_path / "env" / "lib").glob("*/site-packages")
    # On top of this environment. `addsitedir`, not a path: rlvr's own editable installation is a .pth file there.
    (site / "below.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    package = new_plugin("verifier", "my-verifier", tmp_path / "package")

    def python(*arguments: str) -> str:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        command = [str(tmp_path / "env" / "bin" / "python"), "-m", *arguments]
        done = subprocess.run(command, cwd=package, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    python("pip", "install", "--no-index", "--no-deps", "--no-build-isolation", "-q", "-e", ".")
    entries = json.loads(python("rlvr", "plugins", "--json"))
    (entry,) = [entry for entry in entries if entry["distribution"] == "rlvr-my-verifier"]
    assert (entry["kind"], entry["name"]) == ("verifier", "my-verifier")
    assert "1 passed" in python("pytest", "-q", "-p", "no:cacheprovider")


@pytest.mark.parametrize("kind", ["dataset", "sampler", "trainer"])
def test_the_other_kinds_pass_their_own_tests(
    kind: Any, tmp_path: Path, install: Callable[..., Path], on_path: Callable[[Path], None]
) -> None:
    package, module = new_plugin(kind, f"new-{kind}", tmp_path / "package"), f"rlvr_new_{kind}"
    install(f"rlvr-new-{kind}", f"new-{kind} = {module}")
    on_path(package)
    tests = runpy.run_path(str(package / "tests" / f"test_{module}.py"))
    (test,) = [value for name, value in tests.items() if name.startswith("test_")]
    test(**({"tmp_path": tmp_path} if inspect.signature(test).parameters else {}))


def test_what_it_writes_is_formatted(tmp_path: Path) -> None:
    for kind in KINDS:
        new_plugin(kind, f"a-{kind}", tmp_path / kind)
    ruff = Path(sys.executable).parent / "ruff"
    checked = subprocess.run(
        [ruff, "check", "--isolated", "--line-length=120", tmp_path], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout


def test_the_command_prints_files_and_what_to_do_next(cli: Callable[..., Any], tmp_path: Path) -> None:
    done = cli("new", "verifier", "unit-price")
    assert done.code == 0, done.err
    assert (tmp_path / "rlvr-unit-price" / "rlvr_unit_price" / "cases.jsonl").exists()
    assert done.out.splitlines()[-1] == "next: pip install -e rlvr-unit-price && pytest rlvr-unit-price"
    again = cli("new", "verifier", "unit-price")
    assert (again.code, again.err) == (2, "rlvr: rlvr-unit-price exists: name another folder with --out\n")


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("verifier", "math", "there is a verifier 'math' already"),
        ("trainer", "grpo", "there is a trainer 'grpo' already"),
        ("verifier", "My_Name", "the name 'My_Name' cannot be used"),
        ("tracker", "x", "there is no kind 'tracker'"),
    ],
)
def test_names_that_cannot_be_used(tmp_path: Path, kind: Any, name: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        new_plugin(kind, name, tmp_path / "x")
    assert not (tmp_path / "x").exists()
