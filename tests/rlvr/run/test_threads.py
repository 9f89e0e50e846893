"""How threads wait, and how trainer and sampler divide them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import small_runs
from rlvr.errors import ConfigError
from rlvr.run.factories import configured_sampler
from rlvr.run.threads import shares, spin_briefly, torch_threads


def test_threads_spin_briefly_by_default() -> None:
    environment: dict[str, str] = {}
    spin_briefly(environment)
    assert environment == {"GOMP_SPINCOUNT": "10000"}


@pytest.mark.parametrize("said", [{"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "infinite"}])
def test_what_the_user_says_counts(said: dict[str, str]) -> None:
    environment = dict(said)
    spin_briefly(environment)
    assert environment == said


@pytest.fixture
def four_threads() -> Iterator[None]:
    with torch_threads(4):
        yield


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize(
    ("asked", "at_once", "environment", "expected"),
    [
        (None, True, {}, (2, 2)),
        (1, True, {}, (3, 1)),
        (9, True, {}, (1, 9)),
        (None, True, {"OMP_NUM_THREADS": "4"}, (4, 4)),
        (3, True, {"OMP_NUM_THREADS": "4"}, (1, 3)),
        (None, False, {}, (4, 4)),
        (2, False, {}, (4, 2)),
    ],
)
def test_trainer_and_sampler_divide_the_threads_if_they_compute_at_once(
    asked: int | None, at_once: bool, environment: dict[str, str], expected: tuple[int, int]
) -> None:
    assert shares("cpu", asked, at_once=at_once, environment=environment) == expected


@pytest.mark.usefixtures("four_threads")
def test_a_sampler_on_a_gpu_leaves_the_threads_alone() -> None:
    assert shares("cuda:0", None, at_once=True, environment={}) == (4, 4)


def test_threads_of_a_sampler_without_a_process_are_refused(tiny_model: Path) -> None:
    config = small_runs.small_config(tiny_model, sampling__threads=2)
    with pytest.raises(ConfigError, match=r"sampling\.threads 2 does nothing: the sampler 'hf' has no process"):
        configured_sampler(config)
