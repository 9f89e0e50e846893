"""Immediate answers to Ctrl-C, before running work has been closed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rlvr.files import say_at_once

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


@contextmanager
def answered(text: str) -> Iterator[None]:
    """Answer the first Ctrl-C of the block with `text`, and raise KeyboardInterrupt; end the process at the second.

    Where Ctrl-C is ignored (a command in the background of a shell), and outside the main thread, nothing changes.
    """
    before = signal.getsignal(signal.SIGINT)
    if before in (signal.SIG_IGN, None) or threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def answer(signum: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            os._exit(INTERRUPTED)
        asked = True
        say_at_once(f"rlvr: {text}")
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, answer)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
