"""rlvr: reinforcement learning with verifiable rewards.

Names are imported when they are first used, so `import rlvr` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlvr.adapters import to_trl as to_trl
    from rlvr.adapters import to_verifiers as to_verifiers
    from rlvr.adapters import to_verl as to_verl
    from rlvr.hookspecs import hookimpl as hookimpl
    from rlvr.schema import Rollout as Rollout
    from rlvr.schema import Score as Score
    from rlvr.schema import Status as Status
    from rlvr.schema import Task as Task
    from rlvr.schema import Verdict as Verdict
    from rlvr.scoring import score as score
    from rlvr.verifying import load_verifier as load_verifier
    from rlvr.verifying import verifier as verifier

_HOME = {
    "Rollout": "rlvr.schema",
    "Score": "rlvr.schema",
    "Status": "rlvr.schema",
    "Task": "rlvr.schema",
    "Verdict": "rlvr.schema",
    "hookimpl": "rlvr.hookspecs",
    "load_verifier": "rlvr.verifying",
    "score": "rlvr.scoring",
    "to_trl": "rlvr.adapters",
    "to_verifiers": "rlvr.adapters",
    "to_verl": "rlvr.adapters",
    "verifier": "rlvr.verifying",
}

__all__ = sorted(_HOME)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rlvr' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
