"""Text that a verifier prints: shown on standard error, line by line, each after the verifier's name.

A verifier that is being written prints to be understood; one in use prints what a policy wrote. So its text never
reaches standard output, which belongs to the caller, cannot steer a terminal, and is bounded.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from rlvr.terminal import one_line

LINES, CHARACTERS = 1_000, 1_000
"""Lines that are shown, and bytes of each of them."""
END_SECONDS = 2.0
"""Time to read what dead processes have printed: without Linux, a daemon of theirs may keep a pipe open."""


class OutputRelay:
    """Pipes for the standard output and standard error of a verifier's processes, and threads that read them."""

    def __init__(self, ref: str) -> None:
        place, colon, function = ref.rpartition(":")
        self._name = f"{Path(place).stem}:{function}" if colon and place.endswith(".py") else ref
        self._left = LINES
        self._thread: threading.Thread | None = None
        self._read_end = -1

    def open(self) -> int:
        """Return the end of a new pipe that a process writes to; close it once the process has it."""
        self._read_end, write_end = os.pipe()
        self._thread = threading.Thread(target=self._relay, args=(self._read_end,), name="rlvr-output", daemon=True)
        self._thread.start()
        return write_end

    def wait(self) -> None:
        """Wait until all is shown that dead processes have printed."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(END_SECONDS)

    def disown(self) -> None:
        """In a forked child: close the pipe, which must break when the parent is gone."""
        if self._read_end >= 0:
            os.close(self._read_end)

    def _relay(self, read_end: int) -> None:
        with open(read_end, "rb") as pipe:
            # A longer line comes in several pieces, of which the first is shown.
            begun = False
            while piece := pipe.readline(CHARACTERS + 1):
                if not begun:
                    self._show(piece)
                begun = not piece.endswith(b"\n")
            self._read_end = -1

    def _show(self, line: bytes) -> None:
        if self._left <= 0:
            return
        self._left -= 1
        text = one_line(line[:CHARACTERS].removesuffix(b"\n").decode(errors="backslashreplace"))
        self._say(text if len(line) <= CHARACTERS else f"{text}…")
        if not self._left:
            self._say(f"(it has printed {LINES:,} lines; further ones are not shown)")

    def _say(self, text: str) -> None:
        try:
            if sys.stderr is not None:
                print(f"[{one_line(self._name)}] {text}", file=sys.stderr, flush=True)
        except (OSError, ValueError):  # nobody reads standard error any more; the verifier must not notice
            self._left = 0
