"""Parts of this machine that a box shows: an interpreter, its standard library, the libraries of the system. No more.

Folders of installed packages are left out: some hold the answers to the data sets.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from .errors import BoxError

_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
_FILES = ("/etc/ld.so.cache",)
_PACKAGES = ("site-packages", "dist-packages")
_ASKS = "import json, sys, sysconfig; print(json.dumps([sys.base_prefix, sysconfig.get_path('stdlib')]))"


@dataclass(frozen=True)
class Interpreter:
    """The Python that runs programs."""

    path: str
    libraries: tuple[str, ...]
    """Folders that it needs, besides those of the system."""


@lru_cache(maxsize=4)
def interpreter(path: str | None = None) -> Interpreter:
    """Return the interpreter that this process runs on, without a virtual environment, or the one at `path`.

    Raises BoxError if there is none.
    """
    if path is None:
        found = getattr(sys, "_base_executable", None) or sys.executable
        prefix, library = sys.base_prefix, sysconfig.get_path("stdlib")
    else:
        found = path
        try:
            done = subprocess.run(
                [path, "-I", "-S", "-c", _ASKS], capture_output=True, text=True, check=True, timeout=60
            )
            prefix, library = json.loads(done.stdout)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise BoxError(f"{path} is no Python that works: {error}") from error
    folders = {os.path.realpath(library)}
    if os.path.realpath(prefix) != "/usr":
        folders.add(os.path.realpath(os.path.join(prefix, "lib")))
    outer = [each for each in folders if not any(each != other and each.startswith(f"{other}/") for other in folders)]
    inside = [os.path.realpath(each) for each in _LIBRARIES]
    needed = [each for each in outer if not any(f"{each}/".startswith(f"{other}/") for other in inside)]
    return Interpreter(os.path.realpath(found), tuple(sorted(needed)))


def binds(python: Interpreter) -> list[str]:
    """Return the arguments of bubblewrap that show an interpreter and its libraries, read-only."""
    arguments = []
    for folder in _LIBRARIES:
        if os.path.islink(folder):
            arguments += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            arguments += ["--ro-bind", folder, folder]
    for path in python.libraries:
        arguments += ["--ro-bind", path, path]
    for folder in _packages(python):
        arguments += ["--tmpfs", folder, "--remount-ro", folder]
    for path in (*_FILES, "/usr/share/zoneinfo"):
        arguments += ["--ro-bind-try", path, path]
    if not any(python.path.startswith(f"{folder}/") for folder in python.libraries):
        arguments += ["--ro-bind", python.path, python.path]
    return arguments


def _roots(python: Interpreter) -> list[str]:
    real = [os.path.realpath(folder) for folder in _LIBRARIES if os.path.isdir(folder)]
    return list(dict.fromkeys([*real, *python.libraries]))


def _packages(python: Interpreter) -> list[str]:
    """Return the folders of installed packages that would be seen."""
    found: list[str] = []
    for root in map(Path, _roots(python)):
        for name in _PACKAGES:
            found += map(str, (*root.glob(name), *root.glob(f"python*/{name}")))
    return found


def rules(python: Interpreter) -> tuple[list[str], list[str], list[str]]:
    """Return what Landlock is to show of an interpreter and its libraries.

    Returns: Folders to read, files to read, and folders to list, which hold folders of packages.
    """
    folders: list[str] = []
    files = [path for path in (*_FILES, python.path) if os.path.isfile(path)]
    listed: list[str] = []
    waiting = [*_roots(python)]
    while waiting:
        root = waiting.pop()
        listed.append(root)
        for entry in os.scandir(root):
            if entry.is_symlink() or entry.name in _PACKAGES:
                continue
            if entry.is_file():
                files.append(entry.path)
            elif entry.name.startswith("python"):
                waiting.append(entry.path)
            elif entry.is_dir() and os.access(entry.path, os.R_OK | os.X_OK):
                folders.append(entry.path)
    if os.path.isdir("/usr/share/zoneinfo"):
        folders.append("/usr/share/zoneinfo")
    return folders, files, listed


def open_to_all(path: str) -> bool:
    """Return whether every user may enter a folder."""
    return all(os.stat(each).st_mode & stat.S_IXOTH for each in (path, *map(str, Path(path).parents)))
