"""How threads of OpenMP wait: briefly, unless the user says how."""

from __future__ import annotations

import pytest

from rlvr.run.threads import spin_briefly


def test_threads_spin_briefly_by_default() -> None:
    environment: dict[str, str] = {}
    spin_briefly(environment)
    assert environment == {"GOMP_SPINCOUNT": "1000"}


@pytest.mark.parametrize("said", [{"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "infinite"}])
def test_what_the_user_says_counts(said: dict[str, str]) -> None:
    environment = dict(said)
    spin_briefly(environment)
    assert environment == said
