"""Fixtures for the trainers' tests."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def oracle() -> ModuleType:
    """The module `fixtures/oracle.py`: off-policy GRPO in float64, and records made by hand."""
    spec = importlib.util.spec_from_file_location("oracle", Path(__file__).parents[1] / "fixtures" / "oracle.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["oracle"] = module  # where dataclasses look their annotations up
    spec.loader.exec_module(module)
    return module
