"""Fixtures for the trainers' tests."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def oracle() -> ModuleType:
    """Return the module `fixtures/oracle.py`: off-policy GRPO in float64, and hand-made records."""
    spec = importlib.util.spec_from_file_location("oracle", Path(__file__).parents[1] / "fixtures" / "oracle.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["oracle"] = module  # dataclasses look up their annotations there
    spec.loader.exec_module(module)
    return module
