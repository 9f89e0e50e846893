"""Alarms: conditions and consequences."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

import small_runs
from rlvr.alarms import RULES, Alarm, Alarms, Fired, blocking, fired, in_a_row, summary, table
from rlvr.errors import ConfigError, RunError
from rlvr.record.store import read_rollouts, write_rollouts
from rlvr.run.config import resolve
from rlvr.run.reporting import ProgressLines
from rlvr.settings import command_line_settings

metrics_of = small_runs.metrics_of

HEALTHY = {
    "train/loss": 0.1,
    "train/grad_norm": 1.0,
    "ratio/max": 3.0,
    "ess/token": 0.97,
    "mismatch/mean": 1e-3,
    "signal/none_in_a_row": 9,
    "train/no_step_in_a_row": 2,
    "train/skipped_in_a_row": 2,
    "verdict/error": 0.01,
    "verdict/invalid": 0.04,
}


def test_every_alarm_has_a_setting_and_a_rule() -> None:
    assert list(Alarms.model_fields) == list(RULES)


def test_a_healthy_step_sets_off_nothing_and_neither_does_an_empty_one() -> None:
    assert fired(HEALTHY, Alarms()) == []
    assert fired({}, Alarms()) == []
    assert fired(dict.fromkeys(("ratio/max", "ess/token", "mismatch/mean")), Alarms()) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"train/loss": math.nan}, "not_finite 1 > 0 (skip)"),
        ({"train/loss": math.nan, "train/grad_norm": math.inf}, "not_finite 2 > 0 (skip)"),
        ({"train/grad_norm": None}, "not_finite 1 > 0 (skip)"),  # as it was logged
        ({"ratio/max": 123456.0}, "ratio 1.235e+05 > 1000 (warn)"),
        ({"ratio/max": math.inf}, "ratio infinite > 1000 (warn)"),
        ({"ess/token": 0.0999}, "ess 0.100 < 0.1 (warn)"),
        ({"mismatch/mean": 0.2}, "mismatch 0.200 > 0.1 (stop)"),
        ({"signal/none_in_a_row": 10}, "no_signal 10 ≥ 10 (warn)"),
        ({"verdict/error": 0.02}, "verdicts 6.0% > 0.05 (stop)"),
        ({"verdict/timeout": 0.02}, "verdicts 7.0% > 0.05 (stop)"),
        ({"train/no_step_in_a_row": 3}, "no_step 3 ≥ 3 (stop)"),
        ({"train/skipped_in_a_row": 3}, "skipped 3 ≥ 3 (stop)"),
    ],
)
def test_each_alarm_at_its_threshold(change: dict[str, Any], text: str) -> None:
    (alarm,) = fired({**HEALTHY, **change}, Alarms())
    assert alarm.text == text
    assert blocking([alarm]) == (alarm.consequence != "warn")
    assert Fired(**json.loads(json.dumps(asdict(alarm), allow_nan=False))) == alarm


def test_batches_in_a_row_are_counted_from_the_batch_before() -> None:
    quiet = {"signal/groups": 0.0, "train/optimizer_steps": 0.0}
    masked, learned = quiet | {"signal/groups": 0.5}, {"signal/groups": 0.5, "train/optimizer_steps": 1.0}
    skipped = masked | {"train/skipped": 1.0, "train/loss": math.nan}

    def counts(*batches: dict[str, float]) -> list[int]:
        """Return the counts without a signal, without a step, and skipped, after these batches."""
        row: dict[str, int] = {}
        for batch in batches:
            row = in_a_row(row, batch, Alarms(), sampler_is_behind=False)
        return [row[f"{name}_in_a_row"] for name in ("signal/none", "train/no_step", "train/skipped")]

    assert counts(quiet) == [1, 0, 0]
    assert counts(quiet, quiet) == [2, 0, 0]
    assert counts(quiet, skipped) == [0, 0, 1]
    assert counts(skipped, skipped, learned) == [0, 0, 0]
    # A batch that was not trained on because of its verdicts says nothing about its signal.
    assert counts(quiet, quiet | {"train/skipped": 1.0}) == [0, 0, 1]
    # A batch without a signal is not counted, and does not reset the count.
    assert counts(masked, masked) == [0, 2, 0]
    assert counts(masked, quiet, skipped, masked) == [0, 2, 0]
    assert counts(masked, masked, learned) == [0, 0, 0]


@pytest.mark.parametrize(
    ("metrics", "behind", "counts"),
    [
        ({"ess/token": 0.05}, True, False),
        ({"ess/token": 0.05, "ratio/max": 2000.0}, True, False),
        ({"ess/token": 0.05}, False, True),  # a sync would bring nothing newer
        ({"ess/token": 0.05, "train/loss": math.nan}, True, True),
        ({"ess/token": 0.05, "verdict/error": 0.5}, True, True),
        ({}, True, True),  # for a reason of the trainer's own
    ],
)
def test_what_was_skipped_for_its_age_alone_is_not_counted(
    metrics: dict[str, float], behind: bool, counts: bool
) -> None:
    settings = Alarms.model_validate({"ess": {"consequence": "skip"}, "ratio": {"consequence": "skip"}})
    row = in_a_row({}, {"train/skipped": 1.0, **metrics}, settings, sampler_is_behind=behind)
    assert row["train/skipped_in_a_row"] == counts


def test_the_summary_counts_and_places() -> None:
    lines = [{"step": i, "alarms": [{"alarm": "ess"}] if i > 2 else []} for i in range(6)]
    lines[4]["alarms"].append({"alarm": "ratio"})  # type: ignore[attr-defined]
    assert summary(lines) == "4 alarms: ess 3 times (steps 4 to 6), ratio once (step 5)"
    assert summary(lines[:4]) == "1 alarm: ess once (step 4)"
    assert summary([{"step": 0}]) == ""


def test_the_document_has_every_alarm_with_its_defaults() -> None:
    text = (Path(__file__).parents[2] / "docs" / "instruments.md").read_text(encoding="utf-8")
    assert "\n".join(table()) in text, "python docs/refresh.py docs/instruments.md"
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([\d.]+) \| (\w+) \|$", text, flags=re.MULTILINE)
    told = {name: Alarm(threshold=float(threshold), consequence=then) for name, threshold, then in rows}  # type: ignore[arg-type]
    assert list(told) == list(RULES)
    assert Alarms(**told) == Alarms()


# --- configuration ----------------------------------------------------------------------------------------------------


def alarms(*sets: str) -> Alarms:
    return resolve(command_line_settings(list(sets), {})).alarms


def test_half_a_setting_keeps_the_other_half() -> None:
    given = alarms("alarms.ess.consequence=skip", "alarms.ratio.threshold=50")
    assert (given.ess.threshold, given.ess.consequence) == (0.1, "skip")
    assert (given.ratio.threshold, given.ratio.consequence) == (50, "warn")
    assert given.mismatch == Alarms().mismatch


def test_an_alarm_can_be_switched_off() -> None:
    assert fired({"ess/token": 0.01}, alarms("alarms.ess.consequence=none")) == []


@pytest.mark.parametrize("setting", ["ess=1", "ratio=1", "mismatch=0", "verdicts=0", "skipped=1", "no_step=0.5"])
def test_thresholds_at_the_edge_are_taken(setting: str) -> None:
    name, _, threshold = setting.partition("=")
    assert getattr(alarms(f"alarms.{name}.threshold={threshold}"), name).threshold == float(threshold)


@pytest.mark.parametrize(
    ("setting", "bounds"),
    [
        ("ess.threshold=2", "above 0 and at most 1 "),
        ("ess.threshold=-1", "above 0 and at most 1 "),
        ("ess.threshold=0", "above 0 and at most 1 "),
        ("ratio.threshold=0.5", "at least 1 "),
        ("mismatch.threshold=-0.1", "at least 0 "),
        ("verdicts.threshold=1", "at least 0 and below 1 "),
        ("not_finite.threshold=1", "at least 0 and below 1 "),
        ("no_signal.threshold=0", "above 0 "),
        ("no_step.threshold=0", "above 0 "),
        ("skipped.threshold=0", "above 0 "),
    ],
)
def test_a_threshold_that_fires_always_or_never_is_refused(setting: str, bounds: str) -> None:
    name = setting.partition(".")[0]
    off = rf"\(alarms.{name}.consequence=none switches the alarm off\)"
    with pytest.raises(ConfigError, match=f"would always or never fire: the threshold must be {bounds}{off}"):
        alarms(f"alarms.{setting}")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "alarms.es.threshold=1",
            "there is no key alarms.es (--set alarms.es.threshold=1); did you mean 'alarms.ess'?",
        ),
        ("alarms.foo=1", "there is no key alarms.foo (--set alarms.foo=1); known: ess, hacking, mismatch, no_signal"),
        ("alarms.ess=3", "alarms.ess (--set alarms.ess=3) must be a section of keys: threshold, consequence; not 3"),
        ("alarms.ess.consequence=stopp", "alarms.ess.consequence (--set alarms.ess.consequence=stopp) must be"),
        (
            "alarms.ess.threshold=low",
            "alarms.ess.threshold (--set alarms.ess.threshold=low) must be a number, not 'low'",
        ),
        ("alarms.not_finite.consequence=warn", "such a step destroys the weights"),
        ("alarms.not_finite.consequence=none", "such a step destroys the weights"),
        ("alarms.no_signal.consequence=skip", "there is nothing to skip"),
        ("alarms.skipped.consequence=skip", "there is nothing to skip"),
        ("alarms.no_step.consequence=skip", "there is nothing to skip"),
    ],
)
def test_a_wrong_setting_is_refused(setting: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        alarms(setting)
    assert message in str(error.value)


# --- runs -------------------------------------------------------------------------------------------------------------


def weights(path: Path, step: int) -> dict[str, bytes]:
    tensors = load_file(path / "checkpoints" / f"step-{step:06d}" / "model.safetensors")
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def test_a_batch_that_is_skipped_leaves_the_weights_untouched(tiny_model: Path, tmp_path: Path) -> None:
    """Every batch at lag 1 and more is far enough to set off this alarm; those at lag 0 are not."""
    config = small_runs.small_config(
        tiny_model, trainer="grpo-off", trainer__push_every=2, steps=4, checkpoint__every=1, checkpoint__keep=9,
        alarms__ess__threshold=1 - 1e-9, alarms__ess__consequence="skip",
    )  # fmt: skip
    assert small_runs.start(config, tmp_path / "run").finished
    lines = metrics_of(tmp_path / "run")
    assert [line["policy_version"] for line in lines] == [1, 1, 2, 2]
    assert [line["train/skipped"] for line in lines] == [0, 1, 0, 1]
    assert [[each["alarm"] for each in line["alarms"]] for line in lines] == [[], ["ess"], [], ["ess"]]
    assert weights(tmp_path / "run", 1) == weights(tmp_path / "run", 2)
    assert weights(tmp_path / "run", 2) != weights(tmp_path / "run", 3)
    # Resumed from between a skipped batch and the next, it ends bitwise the same.
    small_runs.start(config.model_copy(update={"steps": 2}), tmp_path / "resumed")
    small_runs.resume(tmp_path / "resumed", steps=4)
    assert weights(tmp_path / "resumed", 4) == weights(tmp_path / "run", 4)
    assert [line["train/skipped"] for line in metrics_of(tmp_path / "resumed")] == [0, 1, 0, 1]


def test_a_run_that_skips_stale_batches_goes_on_at_the_next_push(tiny_model: Path, tmp_path: Path) -> None:
    """There are more of them in a row than `skipped` allows."""
    config = small_runs.small_config(
        tiny_model, trainer="grpo-off", trainer__push_every=6, steps=8, eval__questions=0,
        alarms__ess__threshold=1 - 1e-9, alarms__ess__consequence="skip",
    )  # fmt: skip
    assert small_runs.start(config, tmp_path / "run").finished
    lines = metrics_of(tmp_path / "run")
    assert [line["train/skipped"] for line in lines] == [0, 1, 1, 1, 1, 1, 0, 1]
    assert [line["policy_version"] for line in lines] == [1, 1, 1, 1, 1, 1, 2, 2]
    assert {line["train/skipped_in_a_row"] for line in lines} == {0}


def test_a_run_whose_masks_keep_nothing_stops(tiny_model: Path, tmp_path: Path) -> None:
    config = small_runs.small_config(
        tiny_model, trainer="grpo-off", trainer__masks=["max_lag"], trainer__max_lag=1, steps=8, eval__questions=0
    )
    with pytest.raises(RunError, match=r"step 5: no_step 3 ≥ 3 \(stop\); no_step is consecutive batches with a signal"):
        small_runs.start(config, tmp_path / "run")
    lines = metrics_of(tmp_path / "run")
    assert [line["train/optimizer_steps"] for line in lines] == [1, 1, 0, 0, 0]
    assert [line["train/no_step_in_a_row"] for line in lines] == [0, 0, 1, 2, 3]
    assert [line["mask/fraction"] for line in lines] == [0, 0, 1, 1, 1]


def test_the_progress_line_says_when_a_step_begins_to_learn_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    told = ProgressLines()
    line = {"reward/mean": 0.5, "signal/groups": 1.0, "lag/max": 1, "tokens_per_second": 1.0, "alarms": []}
    for step, taken in enumerate((1.0, 1.0, 0.0, 0.0, 1.0)):
        told.step({**line, "step": step, "train/optimizer_steps": taken}, 9)
    told.step({**line, "step": 8, "train/optimizer_steps": 0.0, "train/skipped": 1.0}, 9)
    first, kept_nothing, last = capsys.readouterr().out.splitlines()
    assert kept_nothing.startswith("step 3/9")
    assert ["nothing kept" in text for text in (first, kept_nothing, last)] == [False, True, False]


def skipping(model: Path, **changes: Any) -> Any:
    """Run in which every batch is skipped because of its verdicts."""
    return small_runs.small_config(
        model, verifier=f"{small_runs.REWARDS}:broken", verifier__rewards__error=0.0,
        alarms__verdicts__consequence="skip", checkpoint__every=1, eval__questions=0, **changes,
    )  # fmt: skip


def test_a_run_that_skips_too_often_stops_and_counts_on_when_it_is_resumed(tiny_model: Path, tmp_path: Path) -> None:
    small_runs.start(skipping(tiny_model, steps=2), tmp_path / "run")
    assert [line["train/skipped_in_a_row"] for line in metrics_of(tmp_path / "run")] == [1, 2]
    assert {line["policy_version"] for line in metrics_of(tmp_path / "run")} == {0}
    with pytest.raises(
        RunError,
        match=r"step 3: skipped 3 ≥ 3 \(stop\), after verdicts .* \(skip\); .*change alarms.skipped in .*config.yaml",
    ):
        small_runs.resume(tmp_path / "run", steps=6)
    last = metrics_of(tmp_path / "run")[-1]
    assert [each["alarm"] for each in last["alarms"]] == ["verdicts", "skipped"]
    assert not (tmp_path / "run" / "checkpoints" / "step-000003").exists()


def test_a_run_on_data_whose_loss_is_not_finite_takes_no_step_and_stops(tiny_model: Path, tmp_path: Path) -> None:
    """Every completion was all but impossible for the policy that is said to have sampled it: weights are infinite."""
    small_runs.start(small_runs.small_config(tiny_model, steps=4, eval__questions=0), tmp_path / "sampled")
    records = list(read_rollouts(tmp_path / "sampled" / "rollouts"))
    impossible = [r.model_copy(update={"behaviour_logprobs": np.where(r.loss_mask, -500.0, np.nan)}) for r in records]
    write_rollouts(tmp_path / "impossible.parquet", impossible)
    config = small_runs.small_config(
        tiny_model, trainer="grpo-off", rollouts__files=[str(tmp_path / "impossible.parquet")], steps=4,
        eval__questions=0, checkpoint__every=1, checkpoint__keep=9, alarms__mismatch__consequence="none",
    )  # fmt: skip
    with pytest.raises(RunError, match=r"step 3: skipped 3 ≥ 3 \(stop\), after not_finite [12] > 0 \(skip\)"):
        small_runs.start(config, tmp_path / "run")
    lines = metrics_of(tmp_path / "run")
    assert [line["policy_version"] for line in lines] == [0, 0, 0]
    assert [line["train/grad_norm"] for line in lines] == [None] * 3
    assert weights(tmp_path / "run", 2) == weights(tmp_path / "run", 1)


def test_what_the_error_says_lets_the_run_go_on(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="skipped 1 ≥ 1"):
        small_runs.start(skipping(tiny_model, steps=2, alarms__skipped__threshold=1), tmp_path / "run")
    file = tmp_path / "run" / "config.yaml"
    file.write_text(
        file.read_text().replace("threshold: 1.0\n    consequence: stop", "threshold: 9\n    consequence: stop")
    )
    assert small_runs.resume(tmp_path / "run").finished
    assert [line["step"] for line in metrics_of(tmp_path / "run")] == [0, 1]


def test_no_signal_is_counted_over_batches_and_over_a_resume(tiny_model: Path, tmp_path: Path) -> None:
    config = small_runs.small_config(
        tiny_model, verifier=f"{small_runs.REWARDS}:mute", steps=2, checkpoint__every=1, eval__questions=0,
        alarms__no_signal__threshold=3,
    )  # fmt: skip
    small_runs.start(config, tmp_path / "run")
    small_runs.resume(tmp_path / "run", steps=4)
    lines = metrics_of(tmp_path / "run")
    assert [line["signal/none_in_a_row"] for line in lines] == [1, 2, 3, 4]
    assert [bool(line["alarms"]) for line in lines] == [False, False, True, True]


def test_the_command_line_tells_of_alarms_when_they_start_and_at_the_end(cli: Callable[..., Any]) -> None:
    sets = ("eval.questions=0", "alarms.ess.threshold=1", "sampling.prompts_per_step=4")
    command = ("train", "--trainer", "grpo-off", "--steps", "4", "--out", "run")
    done = cli(*command, *(f"--set={each}" for each in sets))
    assert done.code == 0, done.err
    alarming = [line for line in done.out.splitlines() if "ALARM ess " in line]
    assert alarming[0].startswith("step ")
    assert "(warn)" in alarming[0]
    assert "alarms: ess " in done.out


def test_a_run_that_is_stopped_says_which_skips_led_there_and_sums_up(cli: Callable[..., Any]) -> None:
    sets = ["eval.questions=0", "sampling.prompts_per_step=2", "verifier.workers=0", "verifier.rewards.error=0"]
    sets.append("alarms.verdicts.consequence=skip")
    command = ("train", "--steps", "9", "--out", "run", "--verifier", f"{small_runs.REWARDS}:broken")
    done = cli(*command, *(f"--set={each}" for each in sets))
    assert done.code == 1, done.out
    assert re.search(r"skipped 3 ≥ 3 \(stop\), after verdicts .* \(skip\); skipped is consecutive batches", done.err)
    assert re.search(r"^4 alarms: verdicts 3 times \(steps 1 to 3\), skipped once \(step 3\)", done.out, re.MULTILINE)
