"""Checksums of the files that a run stores and reads again, so that it trains only on files that it wrote itself."""

from __future__ import annotations

from pathlib import Path

from rlvr.errors import DataError, RunError
from rlvr.files import replacing, sha256, sync

SUMS = "SHA256SUMS"
"""Name of the list of checksums in a folder, in the format of `sha256sum`."""


class Checksums:
    """The checksums of one folder's files. A file's checksum is on disk before the file has its name."""

    def __init__(self, folder: Path) -> None:
        """Take the checksums that `folder` holds, if there are any."""
        self._path = folder / SUMS
        self._sums: dict[str, str] = {}
        self._is_whole = True  # no kill has cut the last line
        self._checked: set[str] = set()
        if self._path.exists():
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
            self._is_whole = all(line.endswith("\n") for line in lines)
            pairs = (line.rstrip("\n").split("  ", 1) for line in lines if line.endswith("\n"))
            self._sums = {pair[1]: pair[0] for pair in pairs if len(pair) == 2}

    def add(self, name: str, content: Path) -> None:
        """Write the checksum of a complete file that is about to be called `name`. Raises RunError if that fails."""
        known = name in self._sums
        self._sums[name] = sha256(content)
        self._checked.add(name)
        if known or not self._is_whole:
            with replacing(self._path) as temporary:
                temporary.write_text("".join(f"{s}  {n}\n" for n, s in self._sums.items()), encoding="utf-8")
            self._is_whole = True
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{self._sums[name]}  {name}\n")
            sync(self._path)
        except OSError as error:
            raise RunError(f"{self._path} could not be written: {error.strerror}") from error

    def require(self, path: Path, remedy: str) -> None:
        """Raise DataError, with `remedy`, if a file is not the one that was stored under its name.

        Each file is read once; what this object has seen written is not read at all.
        """
        if path.name in self._checked:
            return
        if path.name not in self._sums:
            fault = f"{self._path} has no checksum of it"
        elif sha256(path) != self._sums[path.name]:
            fault = f"its SHA-256 is not the one in {self._path}"
        else:
            self._checked.add(path.name)
            return
        raise DataError(f"{path} is not what this run stored: {fault}. Nothing was learned from it; {remedy}")
