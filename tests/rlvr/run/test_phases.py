"""Seconds of a step by phase: every second counts once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import small_runs
from rlvr.run.phases import Phases


def ticking() -> Iterator[float]:
    """Clock that advances by one second at every call."""
    now = 0.0
    while True:
        yield now
        now += 1.0


def test_a_phase_inside_another_interrupts_it() -> None:
    clock = ticking()
    phases = Phases(lambda: next(clock))  # looks at 0
    phases.start()  # 1
    with phases("score"):  # from 2
        with phases("sample"):  # from 3
            pass  # to 4
        with phases("sample"), pytest.raises(ValueError), phases("store"):  # noqa: PT011
            raise ValueError  # an exception ends a phase too
    assert phases.metrics() == {"time/score": 3.0, "time/sample": 3.0, "time/store": 1.0, "time/step": 9.0}
    phases.start()
    assert phases.metrics() == {"time/step": 1.0}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sampling__refill": True},
        {"replay__share": 0.3, "trainer": "grpo-off"},
        {"mode": "async", "trainer": "grpo-off", "trainer__push_every": 1},
    ],
)
def test_phases_add_up_to_the_step(tiny_model: Path, tmp_path: Path, changes: dict[str, object]) -> None:
    small_runs.start(small_runs.small_config(tiny_model, steps=4, **changes), tmp_path / "run")
    lines = small_runs.metrics_of(tmp_path / "run")[:-1]  # the last evaluation comes after the last step
    for line in lines:
        phases = {key: value for key, value in line.items() if key.startswith("time/") and key != "time/step"}
        assert {"time/sample", "time/score", "time/store", "time/train"} <= phases.keys()
        assert sum(phases.values()) == pytest.approx(line["time/step"], rel=0.02)
    assert {"time/sync", "time/proof", "time/eval"} <= lines[0].keys()
