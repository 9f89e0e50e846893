"""`rlvr plot`: content of the page, and messages for wrong requests."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from rlvr.cli.plot import COLORS, LOOKS, chosen, draw
from rlvr.reports.curves import read_metrics
from rlvr.reports.panels import PANELS, Panel


def step(i: int, **more: Any) -> dict[str, Any]:
    """Return a step's metrics in a run with v = 2."""
    bucket = "0" if i % 2 == 0 else "1-3"
    return {
        "step": i,
        "policy_version": i + 1,
        "reward/mean": i / 10,
        "lag/max": i % 2,
        "ess/token": 1 - i / 100,
        "clip/high": 0.01 * i,
        "clip/low": 0.0,
        "mask/high": 0.0,
        "mask/low": 0.0,
        f"lag_{bucket}/ess_token": 1 - i / 100,
        f"lag_{bucket}/kl_k3": 0.1,
        f"lag_{bucket}/clip_high": 0.1,
        f"lag_{bucket}/clip_low": 0.05,
        f"lag_{bucket}/signal": 0.5,
        "alarms": [],
        **more,
    }


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs: `b` with held-out accuracies, an alarm and a step without a reward."""
    lines = {
        "a": [step(i) for i in range(6)],
        "b": [
            step(0, **{"eval/accuracy": 0.2, "eval/policy_version": 0}),
            step(1, **{"reward/mean": None}),
            step(2, alarms=[{"alarm": "ess", "value": 0.05, "threshold": 0.1, "consequence": "warn"}]),
            step(3, **{"eval/accuracy": 0.4, "eval/policy_version": 4}),
        ],
    }
    for name, each in lines.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in each))
    return tmp_path


def page(folder: Path, *names: str, panels: Any = PANELS, by_lag: bool = True) -> Mapping[str, Any]:
    """Title → axes."""
    figure = draw({name: read_metrics(folder / name) for name in names}, panels, by_lag=by_lag)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(names)
    return {axes.get_title(loc="left").strip(): axes for axes in figure.axes}


def points(axes: Any, line: int = 0) -> tuple[list[float], list[float]]:
    x, y = axes.lines[line].get_data()
    return list(x), list(y)


def test_every_run_is_a_line_in_its_color(runs: Path) -> None:
    reward = page(runs, "a", "b")["reward"]
    assert [line.get_color() for line in reward.lines] == list(COLORS[:2])
    assert points(reward) == ([1, 2, 3, 4, 5, 6], [0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert points(reward, 1) == ([1, 2, 3, 4], pytest.approx([0.0, math.nan, 0.2, 0.3], nan_ok=True))  # null is a gap
    assert reward.lines[1].get_markevery() == [0]  # no line reaches it
    assert reward.get_xlabel() == "step"
    assert reward.get_ylabel()


def test_an_accuracy_stands_where_its_weights_were(runs: Path) -> None:
    assert points(page(runs, "b")["held-out accuracy"]) == ([0, 4], [0.2, 0.4])


def test_panels_without_numbers_and_rare_ones_at_zero_are_left_out(runs: Path) -> None:
    shown = page(runs, "a")
    assert "held-out accuracy" not in shown
    assert "alarms" not in shown
    assert "masked or rejected" not in shown
    assert "clipped" in shown


def test_alarms_have_a_panel(runs: Path) -> None:
    alarms = page(runs, "a", "b")["alarms"]
    assert [label.get_text() for label in alarms.get_yticklabels()] == ["ess"]
    assert points(alarms, 1)[0] == [3]


def test_by_lag_a_run_is_a_line_over_the_buckets_of_all(runs: Path) -> None:
    """`a` has lags 0 and 1-3 in turn; `old` only 8-15, after a fresh batch, and one whose version is unknown."""
    (runs / "old").mkdir()
    aged = [
        {"lag_0/ess_token": 1.0},
        *[{"lag_8-15/ess_token": ess} for ess in (0.4, 0.2)],
        {"lag_unknown/ess_token": 0.5},
    ]
    lines = [{"step": i, "reward/mean": 1.0, **line} for i, line in enumerate(aged)]
    (runs / "old" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shown = page(runs, "a", "old")
    ess = shown["effective sample size by lag"]
    assert [label.get_text() for label in ess.get_xticklabels()] == ["0", "1-3", "8-15", "unknown"]
    first, _, second, _ = (line.get_ydata() for line in ess.lines)
    nan = math.nan
    assert list(first) == pytest.approx([0.98, 0.97, nan, nan, nan], nan_ok=True)  # means of its steps
    assert list(second) == pytest.approx([1.0, nan, 0.3, nan, 0.5], nan_ok=True)  # no line to what is no age
    clipped = shown["clipped by lag"]
    assert points(clipped)[1][:2] == pytest.approx([0.1, 0.1])  # A > 0
    assert points(clipped, 1)[1][:2] == pytest.approx([0.05, 0.05])  # A ≤ 0
    assert not any("by lag" in title for title in page(runs, "a", by_lag=False))


def test_runs_of_one_age_have_no_panels_by_lag() -> None:
    figure = draw({"fresh": [{"step": 0, "reward/mean": 1.0, "lag_0/ess_token": 1.0}]}, PANELS, by_lag=True)
    assert [axes.get_title(loc="left").strip() for axes in figure.axes] == ["reward"]


def test_a_line_has_a_gap_where_a_step_has_no_number() -> None:
    """In a run that syncs every fourth batch, lag 0 occurs every fourth batch: points without a line between them."""
    lines = [{"step": i, **({"mismatch/mean": 1e-7} if i % 4 == 0 else {})} for i in range(9)]
    (axes,) = draw({"off": lines}, PANELS, by_lag=True).axes
    assert [i for i, y in enumerate(points(axes)[1]) if not math.isnan(y)] == [0, 4, 8]
    assert axes.lines[0].get_markevery() == [0, 4, 8]


def test_one_spike_does_not_flatten_the_rest() -> None:
    """The median of the values is near the middle of the axis, not at the bottom."""
    names = ("chi2/token", "ratio/log_square", "kl/k3", "kl/reference", "train/grad_norm", "ratio/max")
    lines = [{"step": i, **dict.fromkeys(names, 100.0 if i == 7 else 0.5)} for i in range(12)]
    figure = draw({"run": lines}, PANELS, by_lag=True)
    assert len(figure.axes) == len(names)
    for axes in figure.axes:
        bottom, place, top = axes.transData.transform([(0, axes.get_ylim()[0]), (0, 0.5), (0, axes.get_ylim()[1])])[
            :, 1
        ]
        spike = axes.transData.transform((0, 100.0))[1]
        assert bottom <= place < spike <= top, axes.get_title(loc="left")
    for title in ("χ²(π‖α)", "KL(α‖π)"):
        (axes,) = (axes for axes in figure.axes if axes.get_title(loc="left").strip() == title)
        heights = axes.transData.transform([(0, 0.0), (0, 0.5), (0, 100.0)])[:, 1]
        assert heights[1] - heights[0] > (heights[2] - heights[0]) / 2


def test_a_small_loss_of_sample_size_looks_small(runs: Path) -> None:
    shown = page(runs, "a")
    for title in ("effective sample size", "effective sample size by lag"):
        assert shown[title].get_ylim() == (0.0, 1.02)


def test_ticks_carry_no_factor_that_would_stand_in_the_title() -> None:
    lines = [{"step": i, "mismatch/mean": 1e-7 * (i + 1)} for i in range(5)]
    figure = draw({"run": lines}, PANELS, by_lag=True)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert axes.yaxis.get_offset_text().get_text() == ""
    assert "1e-07" in [label.get_text() for label in axes.get_yticklabels()]


def test_a_long_run_is_drawn_twice_thin_and_smoothed(tmp_path: Path) -> None:
    lines = [{"step": i, "reward/mean": float(i % 2)} for i in range(80)]
    (axes,) = draw({"long": lines}, [Panel("reward", {"reward/mean": ""})], by_lag=True).axes
    assert points(axes)[1] == [float(i % 2) for i in range(80)]
    middle = points(axes, 1)[1][40]
    assert middle == pytest.approx(2 / 5)  # of steps 38 to 42


def test_many_runs_are_told_apart_on_a_page_of_the_same_size() -> None:
    lines = [{"step": i, "reward/mean": 1.0, f"lag_{'0' if i % 2 else '1-3'}/entropy": 1.0} for i in range(16)]
    many = draw({str(i): lines for i in range(12)}, PANELS, by_lag=True)
    for axes in many.axes:
        looks = [(line.get_color(), line.get_marker()) for line in axes.lines]
        assert looks == list(LOOKS[:12])
        assert len(set(looks)) == 12
    assert many.axes[0].lines[-1].get_markevery() == list(range(0, 16, 2))  # a marker that is never drawn is useless
    assert list(many.get_size_inches()) == list(draw({"0": lines}, PANELS, by_lag=True).get_size_inches())


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def plot(cli: Callable[..., Any]) -> Callable[..., tuple[int, str]]:
    def call(*arguments: str | Path) -> tuple[int, str]:
        done = cli("plot", *arguments)
        return done.code, done.out + done.err

    return call


def test_one_picture_of_several_runs(runs: Path, plot: Any) -> None:
    code, told = plot(runs / "a", runs / "b" / "metrics.jsonl", "--out", runs / "page.png")
    assert (code, told) == (0, f"{runs / 'page.png'}: 10 panels of 2 runs\n")
    picture = imread(runs / "page.png")
    assert picture.shape[0] > 500
    assert picture.shape[1] > 500
    assert len({tuple(pixel) for pixel in picture[::7, ::7].reshape(-1, picture.shape[2])}) > 10  # it is not blank


def test_chosen_metrics_have_a_panel_each(runs: Path, plot: Any) -> None:
    chosen = "reward/mean, lag_1-3/ess_token"
    code, told = plot(runs / "a", "--metrics", chosen, "--out", runs / "page.svg")
    assert (code, told) == (0, f"{runs / 'page.svg'}: 2 panels of 1 run\n")
    assert (runs / "page.svg").read_text().startswith("<?xml")


def test_a_chosen_metric_keeps_its_axis(runs: Path) -> None:
    lines = {"a": read_metrics(runs / "a")}
    kl, ess = draw(lines, chosen(["lag_1-3/kl_k3", "ess/token"], lines), by_lag=False).axes
    assert (kl.get_yscale(), ess.get_ylim()) == ("symlog", (0.0, 1.02))


def test_runs_of_one_name_are_called_by_as_much_of_their_path_as_it_takes(tmp_path: Path, plot: Any) -> None:
    for parent in ("near", "far"):
        (tmp_path / parent / "seed-0").mkdir(parents=True)
        (tmp_path / parent / "seed-0" / "metrics.jsonl").write_text('{"step": 0, "reward/mean": 1}\n')
    names = [tmp_path / "near/seed-0", tmp_path / "far/seed-0/metrics.jsonl"]
    assert plot(*names, "--out", tmp_path / "page.svg")[0] == 0
    text = (tmp_path / "page.svg").read_text()
    assert "<!-- near/seed-0 -->" in text
    assert "<!-- far/seed-0 -->" in text


def test_a_line_that_is_being_written_is_left_out(runs: Path) -> None:
    with (runs / "a" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "rew')
    assert len(read_metrics(runs / "a")) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is no run: it does not exist"),
        (["empty"], "metrics.jsonl holds no step yet"),
        (["numberless"], "there is nothing to draw"),
        (["foreign"], "line 1 is not the metrics of a step"),
        (["torn"], "metrics.jsonl, line 1 is not JSON"),
        (["a", "--metrics", "reward/meen"], "no run has 'reward/meen'; did you mean 'reward/mean'?"),
        (["a", "b", "a/metrics.jsonl"], "a/metrics.jsonl is given twice: name each run once"),
        (["a", "--out", "page.gif"], "--out page.gif ends in none of .png, .pdf, .svg"),
        (["a", "--out", "no/folder/page.png"], "page.png cannot be written"),
    ],
)
def test_a_wrong_request_is_one_line(
    runs: Path, monkeypatch: pytest.MonkeyPatch, plot: Any, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(runs)
    texts = {"empty": "", "foreign": '{"loss": 1}\n', "torn": "{\n", "numberless": '{"step": 0, "other": 1}\n'}
    for name, text in texts.items():
        Path(name).mkdir()
        (Path(name) / "metrics.jsonl").write_text(text)
    code, told = plot(*arguments)
    assert code == 2
    assert message in told
    assert len(told.splitlines()) == 1
    assert not Path("plot.png").exists()


def test_without_matplotlib_it_says_what_to_install(runs: Path, monkeypatch: pytest.MonkeyPatch, plot: Any) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # Python's mark of a module that cannot be imported
    assert plot(runs / "a", "--out", runs / "page.png") == (
        2,
        "rlvr: rlvr plot needs matplotlib: pip install 'rlvr[plot]'\n",
    )
