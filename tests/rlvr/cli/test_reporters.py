"""Reporters of `rlvr train`: bars in a terminal, lines elsewhere, nothing with --quiet."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from rlvr.cli import reporters
from rlvr.cli.progress import EVERY, be_quiet, is_quiet
from rlvr.terminal import NeutralStream

STEP: Mapping[str, Any] = {
    "reward/mean": 0.5, "signal/groups": 1.0, "lag/max": 0.0, "tokens_per_second": 1000.0, "alarms": [],
    "train/optimizer_steps": 1.0,
}  # fmt: skip


class Terminal(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def shown(bars: Progress) -> dict[str, tuple[float, float | None]]:
    return {task.description: (task.completed, task.total) for task in bars.tasks}


@pytest.fixture
def bars() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), reporters.Count(), reporters.Left(compact=True))
    return Progress(*columns, console=Console(file=Terminal(), width=80), auto_refresh=False)


def test_each_part_of_a_step_has_a_bar_and_the_run_has_the_first(bars: Progress) -> None:
    panel = reporters.RunBars(bars)
    panel.working("sync")
    panel.working("sample")
    panel.working("sample", 3, 16)
    panel.working("score", 12, 256)
    panel.working("train")
    assert shown(bars) == {"step": (0, None), "sampling": (3, 16), "scoring": (12, 256), "training": (0, None)}
    panel.working("store")
    assert shown(bars)["training"] == (1, 1)


def test_a_step_advances_the_run_and_empties_the_parts(bars: Progress, capsys: pytest.CaptureFixture[str]) -> None:
    panel = reporters.RunBars(bars)
    panel.working("sample", 16, 16)
    panel.working("train")
    panel.step({**STEP, "step": 4}, 10)
    assert shown(bars) == {"step": (5, 10), "sampling": (0, 16), "training": (0, None)}
    assert capsys.readouterr().out.startswith("step  5/10  reward 0.50")


def test_counts_are_drawn_and_parts_without_a_count_have_none(bars: Progress) -> None:
    panel = reporters.RunBars(bars)
    panel.working("score", 12, 2560)
    panel.working("train")
    panel.working("store")
    panel.step({**STEP, "step": 0}, 10)
    drawn = [[str(column.render(task)) for column in bars.columns[2:]] for task in bars.tasks]  # type: ignore[union-attr]
    assert [row[0] for row in drawn] == ["1/10", "0/2,560", ""]
    assert [bool(row[1]) for row in drawn] == [True, False, False]


def test_frames_are_limited(bars: Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    now, frames = [100.0], []
    monkeypatch.setattr(reporters.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(bars, "refresh", lambda: frames.append(now[0]))
    panel = reporters.RunBars(bars)
    for done in range(50):
        now[0] += 0.03
        panel.working("score", done, 50)
    assert 10 < len(frames) < 20


@pytest.mark.parametrize(
    ("out", "error", "quiet", "kind"),
    [
        (Terminal, Terminal, False, reporters.RunBars),
        (io.StringIO, Terminal, False, reporters.Lines),
        (Terminal, io.StringIO, False, reporters.Lines),
        (Terminal, Terminal, True, reporters.Silent),
    ],
)
def test_the_reporter_suits_the_terminal(
    out: type[io.StringIO], error: type[io.StringIO], quiet: bool, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EVERY, "inf" if quiet else "10")
    monkeypatch.setattr("sys.stdout", NeutralStream(out()))
    monkeypatch.setattr("sys.stderr", NeutralStream(error()))
    with reporters.reporter() as shown:
        assert type(shown) is kind


def test_ctrl_c_says_how_to_continue(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def interrupted() -> None:
        with reporters.reporter() as shown:
            shown.start("a run", tmp_path)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert capsys.readouterr().err == f"rlvr: stopped; continue with: rlvr train --resume {tmp_path}\n"


def test_quiet_is_no_time_between_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EVERY, "10")
    be_quiet(False)
    assert not is_quiet()
    be_quiet(True)
    assert is_quiet()
    assert math.isinf(float(os.environ[EVERY]))
