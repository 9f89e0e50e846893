"""Every attack, with bubblewrap and with Landlock, as root and as another user. Needs root and bubblewrap.

`make test-sandbox` installs bubblewrap. Nothing here is skipped: what is missing is an error.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

import arena
import attacks
from rlvr_verifiers.code.box import Allowance, Box, Kind
from rlvr_verifiers.code.places import open_to_all
from test_box import left_by_a_killed_warden, survivors_of_a_killed_owner

NOBODY = 65534
KINDS: tuple[Kind, ...] = ("bubblewrap", "landlock")


def python_for_all() -> str:
    """Return a Python that every user may run: this one, or the system's."""
    for path in (os.path.realpath(sys.executable), "/usr/bin/python3.11", "/usr/bin/python3"):
        if Path(path).exists() and open_to_all(os.path.dirname(path)):
            return path
    pytest.fail("no Python here can be run by other users: apt-get install python3")


def as_nobody(work: Callable[[], list[str]]) -> list[str]:
    """Return the result of a function that runs as another user, in a process of its own."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        found = ["it died"]
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            found = work()
        except BaseException:
            found = [traceback.format_exc()]
        finally:
            os.write(write, json.dumps(found)[:60_000].encode())
            os._exit(0)
    os.close(write)
    with open(read, "rb") as file:
        data = file.read()
    os.waitpid(pid, 0)
    result: list[str] = json.loads(data)
    return result


def wins(kind: Kind, python: str | None) -> list[str]:
    """Return what attacks have won."""
    with arena.arena(Box(kind, python=python)) as host:
        won = [won for attack in attacks.ATTACKS for won in host.won(attack)]
        return won + [found for trace in attacks.TRACES for found in host.traced(trace)]


@pytest.fixture(scope="module", autouse=True)
def _ready() -> None:
    if os.getuid() != 0:
        pytest.fail("these tests change users: run them as root")
    if shutil.which("bwrap") is None:
        pytest.fail("bubblewrap is not installed: make test-sandbox")
    with Box("landlock") as box:  # reads the sources that another user may not see
        box.script("", b"", Allowance())


@pytest.mark.parametrize("kind", KINDS)
def test_no_attack_wins_as_root(kind: Kind) -> None:
    assert wins(kind, None) == []


@pytest.mark.parametrize("kind", KINDS)
def test_no_attack_wins_as_another_user(kind: Kind) -> None:
    python = python_for_all()
    assert as_nobody(lambda: wins(kind, python)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_box_ends_with_its_owner(kind: Kind) -> None:
    assert survivors_of_a_killed_owner(kind) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_ends_with_its_warden(kind: Kind) -> None:
    assert left_by_a_killed_warden(kind) == []


def test_programs_have_a_folder_of_their_own_with_bubblewrap() -> None:
    with Box("bubblewrap") as box:
        source = (
            "open('a', 'w').write('x')\nimport os, tempfile\nprint(os.getcwd(), os.listdir('.'), tempfile.gettempdir())"
        )
        assert box.script(source, b"", Allowance()).output == b"/tmp ['a'] /tmp\n"
        seen = box.script(
            "import os\nprint(sorted(os.listdir('/')), os.listdir('/dev'), os.getpid())", b"", Allowance()
        )
    assert b"proc" not in seen.output
    assert b"'sys'" not in seen.output
    assert seen.output.endswith(b" 1\n")
