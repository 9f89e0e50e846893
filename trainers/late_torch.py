"""A stand-in for torch that imports it when one of its names is first looked up.

`rlvr recipes` reads the tables and docstrings of the modules that compose a loss, and should not wait for torch. Those
modules import this one as `torch`; type checkers see the real torch.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("__"):  # read by the import system
        raise AttributeError(name)
    import torch

    return globals().setdefault(name, getattr(torch, name))
