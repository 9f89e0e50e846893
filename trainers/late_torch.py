"""torch, imported when one of its names is first looked up.

`rlvr recipes` reads the tables and docstrings of the modules that compose a loss; it need not wait for torch to do so.
They import this as `torch`, and the real one for type checkers.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("__"):  # the import system's questions
        raise AttributeError(name)
    import torch

    return globals().setdefault(name, getattr(torch, name))
