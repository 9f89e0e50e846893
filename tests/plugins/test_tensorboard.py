"""The event files, read back with TensorBoard's own reader."""

from __future__ import annotations

import math
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlvr.protocols import SampleTracker, TrackedSample, Tracker
from rlvr.registry import registry


def tracker(directory: Path) -> Tracker:
    return registry().load("tracker", "tensorboard")(directory, {"trainer": {"lr": 1e-5}, "out": directory})


def scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(directory / "tensorboard"))
    events.Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_numbers_are_scalars_under_their_names(tmp_path: Path) -> None:
    board = tracker(tmp_path)
    assert isinstance(board, Tracker)
    board.log(1, {"reward/mean": 0.25, "lag/max": 9, "note": "not a number", "eval/accuracy": None})
    board.log(2, {"reward/mean": 0.5, "lag/max": 10, "loss": math.nan})
    board.close()
    found = scalars(tmp_path)
    assert math.isnan(found.pop("loss")[0][1])
    assert found == {"reward/mean": [(1, 0.25), (2, 0.5)], "lag/max": [(1, 9.0), (2, 10.0)]}


def test_a_step_is_on_disk_as_soon_as_it_is_logged(tmp_path: Path) -> None:
    board = tracker(tmp_path)
    board.log(1, {"reward/mean": 0.25})
    assert scalars(tmp_path) == {"reward/mean": [(1, 0.25)]}
    board.close()


def test_a_resumed_run_replaces_the_steps_after_its_checkpoint(tmp_path: Path) -> None:
    killed = tracker(tmp_path)
    for step in (1, 2, 3):
        killed.log(step, {"reward/mean": step / 10})
    killed.close()
    resumed = tracker(tmp_path)
    resumed.log(2, {"reward/mean": 0.75})
    resumed.close()
    found = [(step, round(value, 6)) for step, value in scalars(tmp_path)["reward/mean"]]
    assert found == [(1, 0.1), (2, 0.75)]


def test_the_configuration_is_there_to_read(tmp_path: Path) -> None:
    board = tracker(tmp_path)
    board.log(1, {})
    board.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (text,) = events.Tensors("config/text_summary")
    assert b'"lr": 1e-05' in text.tensor_proto.string_val[0]


def test_samples_are_a_table(tmp_path: Path) -> None:
    board = tracker(tmp_path)
    assert isinstance(board, SampleTracker)
    board.log_samples(3, [TrackedSample(3, "sums", "1+1=", "a|b\n<2>", "2", "graded", 1.0)])
    board.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (text,) = events.Tensors("samples/text_summary")
    assert text.tensor_proto.string_val[0].decode().splitlines() == [
        "| batch | dataset | prompt | completion | gold | verdict | reward |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| 3 | sums | 1+1= | a&#124;b<br>&lt;2&gt; | 2 | graded | 1.0 |",
    ]


def test_a_run_that_never_logs_leaves_nothing(tmp_path: Path) -> None:
    tracker(tmp_path).close()
    assert not list(tmp_path.iterdir())
