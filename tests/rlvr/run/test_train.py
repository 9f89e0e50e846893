"""`rlvr.train`: a run as one function, quiet unless asked, with a result that a notebook can use."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Mapping
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

import rlvr
import small_runs
from rlvr.errors import ConfigError, RequestError, RunError
from rlvr.run.reference import settings_reference
from rlvr.settings import mapping_settings


class Recorder(rlvr.TrainReporter):
    """Keep every event."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def start(self, headline: str, directory: Path) -> None:
        self.events.append(("start", headline))

    def note(self, text: str) -> None:
        self.events.append(("note", text))

    def step(self, metrics: Mapping[str, Any], total: int) -> None:
        self.events.append(("step", metrics["step"]))

    def end(self, alarms: str) -> None:
        self.events.append(("end", alarms))


def small(model: Path, **changes: Any) -> dict[str, Any]:
    return {**small_runs.SMALL, "model": model, "steps": 2, **changes}


def test_a_run_prints_nothing_and_says_where_it_is_and_how_it_ended(
    tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = rlvr.train(small(tiny_model), out=tmp_path / "run")
    assert capfd.readouterr() == ("", "")
    lines = small_runs.metrics_of(tmp_path / "run")
    assert result.directory == tmp_path / "run"
    assert result.checkpoint == tmp_path / "run" / "checkpoints" / "step-000002"
    assert (result.steps, result.total_steps, result.finished, result.stopped) == (2, 2, True, None)
    assert result.metrics == lines[-1]
    assert result.accuracy == lines[-1]["eval/accuracy"]
    assert result.greedy_accuracy == lines[-1]["eval/greedy_accuracy"]
    table = pd.DataFrame(result.rows)
    assert list(table["step"]) == [0, 1]
    assert list(table["reward/mean"]) == [line["reward/mean"] for line in lines]
    assert json.loads(json.dumps(result.to_dict())) == result.to_dict()
    assert result.to_dict()["directory"] == str(tmp_path / "run")
    with pytest.raises(FrozenInstanceError):
        result.steps = 3  # type: ignore[misc]


def test_a_run_continues_to_more_steps_and_nothing_else_may_change(tiny_model: Path, tmp_path: Path) -> None:
    rlvr.train(small(tiny_model, **{"eval.questions": 0}), out=tmp_path / "run")
    recorder = Recorder()
    result = rlvr.train(resume=tmp_path / "run", overrides={"steps": 3}, reporter=recorder)
    assert not any("planned" in note for note in result.notes), "its rate is constant"
    assert (result.steps, result.total_steps, result.finished, result.accuracy) == (3, 3, True, None)
    assert len(result.rows) == 3
    kinds = [kind for kind, _ in recorder.events if kind != "note"]
    assert kinds == ["start", "step", "end"]
    with pytest.raises(ConfigError, match=r"steps 1: the run has trained for 3 already"):
        rlvr.train(resume=tmp_path / "run", overrides={"steps": 1})
    for wrong in ({"config": {}}, {"out": tmp_path / "other"}, {"overrides": {"seed": 1}}):
        with pytest.raises(ConfigError, match=r"resume takes the settings from .*: give nothing else"):
            rlvr.train(resume=tmp_path / "run", **wrong)


def test_a_run_of_an_older_version_gets_new_options_at_their_defaults(tiny_model: Path, tmp_path: Path) -> None:
    """Its files lack them; a second resume must not take them for a change."""
    run = tmp_path / "run"
    rlvr.train(small(tiny_model, **{"eval.questions": 0}), out=run, overrides={"steps": 1})
    lines = (run / "config.yaml").read_text().splitlines(keepends=True)
    (run / "config.yaml").write_text("".join(line for line in lines if "lr_schedule:" not in line))
    manifest = json.loads((run / "manifest.json").read_text())
    del manifest["config"]["trainer"]["lr_schedule"]
    (run / "manifest.json").write_text(json.dumps(manifest))
    for steps in (2, 3):
        assert rlvr.train(resume=run, overrides={"steps": steps}).steps == steps
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["lr_schedule"] == "constant"


def test_a_decay_is_planned_anew_when_a_run_is_extended(tiny_model: Path, tmp_path: Path) -> None:
    settings = small(tiny_model, **{"eval.questions": 0, "trainer.lr_schedule": "linear", "trainer.lr": 1e-3})
    rlvr.train(settings, out=tmp_path / "run", overrides={"steps": 2})
    result = rlvr.train(resume=tmp_path / "run", overrides={"steps": 4})
    assert [row["train/lr"] for row in result.rows] == pytest.approx([1e-3, 5e-4, 5e-4, 2.5e-4])
    assert "trainer.lr_schedule: planned for 2 steps so far, and for 4 from step 3 on" in " ".join(result.notes)


def test_settings_may_come_from_a_file_with_overrides(tiny_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    plain = {key: value for key, value in small(tiny_model).items() if "." not in key}
    file.write_text(yaml.safe_dump({**plain, "model": str(tiny_model), "steps": 9, "eval": {"questions": 0}}))
    changes = {"steps": 1, "sampling": {"group_size": 2, "prompts_per_step": 2, "max_tokens": 4}}
    result = rlvr.train(file, overrides=changes, out=str(tmp_path / "run"))
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (written["steps"], written["sampling"]["group_size"], written["eval"]["questions"]) == (1, 2, 0)
    assert result.steps == 1


def test_the_written_configuration_spells_out_every_option(tiny_model: Path, tmp_path: Path) -> None:
    """Including those of the trainer, the sampler and the verifier. The file continues the run and starts an equal
    one."""
    settings = small(tiny_model, **{"eval.questions": 0, "steps": 1, "verifier": "math", "trainer.epsilon": 0.3})
    first = rlvr.train(settings, out=tmp_path / "run")
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    documented = {
        doc.key for doc in settings_reference(distribution="rlvr").settings if doc.taken_by in ((), ("hf",), ("math",))
    }
    for section in ("trainer", "sampling.options", "verifier.options"):
        values = written
        for name in section.split("."):
            values = values[name]
        told = {key.removeprefix(f"{section}.") for key in documented if key.startswith(f"{section}.")}
        assert set(values) == {key for key in told if "." not in key}
    assert (written["trainer"]["epsilon"], written["trainer"]["advantage_epsilon"]) == (0.3, 1e-6)
    assert written["sampling"]["options"]["max_sequences"] == 512
    assert (written["verifier"]["name"], written["verifier"]["options"]["units"]) == ("math", "convert")
    assert rlvr.train(resume=tmp_path / "run", overrides={"steps": 2}).finished
    again = rlvr.train(tmp_path / "run" / "config.yaml", overrides={"steps": 1}, out=tmp_path / "again")
    assert again.metrics["reward/mean"] == first.metrics["reward/mean"]


def test_a_verifiers_option_that_json_could_not_bring_back_keeps_its_default(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n@dataclass\nclass Rules:\n    most: int = 3\n"
        "def check(completion, task, *, rules=Rules(), scale=0.5):\n"
        "    return scale * (completion.count('1') < rules.most)\n"
    )
    settings = small(tiny_model, **{"eval.questions": 0, "steps": 1, "verifier": f"{tmp_path}/mine.py:check"})
    rlvr.train(settings, out=tmp_path / "run")
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert written["verifier"]["options"] == {"scale": 0.5}
    assert rlvr.train(resume=tmp_path / "run", overrides={"steps": 2}).finished


def test_a_run_in_another_thread_leaves_signals_alone(tiny_model: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    found: list[rlvr.TrainResult] = []
    settings = small(tiny_model, **{"eval.questions": 0, "steps": 1})
    thread = threading.Thread(target=lambda: found.append(rlvr.train(settings, out=tmp_path / "run")))
    thread.start()
    thread.join()
    assert [result.finished for result in found] == [True]
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupted_run_says_so_and_can_be_continued(tiny_model: Path, tmp_path: Path) -> None:
    class Interrupt(rlvr.TrainReporter):
        def step(self, metrics: Mapping[str, Any], total: int) -> None:
            signal.raise_signal(signal.SIGINT)

    settings = small(tiny_model, **{"eval.questions": 0, "steps": 4})
    result = rlvr.train(settings, out=tmp_path / "run", reporter=Interrupt())
    assert (result.finished, result.stopped, result.steps) == (False, "interrupted", 1)
    result = rlvr.train(resume=result.directory)
    assert (result.finished, result.steps) == (True, 4)


def test_an_alarm_that_stops_a_run_raises_after_the_end_was_reported(tiny_model: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    settings = small(tiny_model, verifier=f"{small_runs.REWARDS}:broken", **{"eval.questions": 0})
    with pytest.raises(RunError, match="verdicts"):
        rlvr.train(settings, out=tmp_path / "run", reporter=recorder)
    assert recorder.events[-1][0] == "end"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"trainer": "grpo", "trainer.lrr": 1}, r"there is no key trainer.lrr \(config\); did you mean 'trainer.lr'"),
        ({"trainer": {"lr": -1}}, r"trainer.lr \(config\) must be above 0, not -1"),
        ({"trainer": {"lr": 1.0}, "trainer.lr": 2.0}, "config: trainer.lr is given twice"),
        ({"sampling": {3: 1}}, "config: sampling.3 is no key: keys are text"),
    ],
)
def test_a_wrong_setting_is_named_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: dict[Any, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=message):
        rlvr.train(config)
    assert list(tmp_path.iterdir()) == []


def test_accept_changes_is_for_a_resumed_run_only() -> None:
    with pytest.raises(ConfigError, match="accept_changes needs resume"):
        rlvr.train(accept_changes=True)


def test_a_mapping_is_flattened_with_paths_as_text() -> None:
    found = mapping_settings({"trainer": "grpo", "model": {"path": Path("a/b")}, "verifier.options": {"x": {}}}, "here")
    assert {key: setting.value for key, setting in found.items()} == {"trainer.name": "grpo", "model.path": "a/b"}
    assert {setting.source for setting in found.values()} == {"here"}
