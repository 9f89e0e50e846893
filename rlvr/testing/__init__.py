"""Checks for the tests of your plugin, and a sampler that needs no model.

    from rlvr.testing import check_verifier


    def test_my_verifier() -> None:
        check_verifier("mine.py:short", cases="cases.jsonl")

Each check raises AssertionError with the rule that is broken. The built-in parts pass the same checks.
"""

from __future__ import annotations

from rlvr.testing.fake_sampler import FakeSampler, FakeSamplerOptions
from rlvr.testing.prompt_sources import check_prompt_source
from rlvr.testing.samplers import check_sampler
from rlvr.testing.trainers import check_trainer
from rlvr.testing.verifiers import check_verifier

__all__ = [
    "FakeSampler",
    "FakeSamplerOptions",
    "check_prompt_source",
    "check_sampler",
    "check_trainer",
    "check_verifier",
]
