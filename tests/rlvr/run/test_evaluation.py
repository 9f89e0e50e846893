"""Evaluation: held-out questions are recorded and scored exactly like training rollouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import small_runs
from rlvr.errors import ConfigError, RequestError, RunError
from rlvr.run.plan import make_plan
from rlvr.run.rundir import RunDirectory
from rlvr.testing import FakeSampler, FakeSamplerOptions

VERIFIERS = """
import rlvr

@rlvr.verifier(name="takes_rollout", version="1", needs_answer=False)
def takes_rollout(rollout) -> float:
    assert len(rollout.token_ids) == len(rollout.behaviour_logprobs) > 0 and rollout.model
    return 1.0

@rlvr.verifier(name="takes_group", version="1", needs_answer=False)
def takes_group(rollouts) -> list[float]:
    assert len({rollout.group_id for rollout in rollouts}) == 1
    return [float(len(rollouts) == 4)] * len(rollouts)

def takes_trl(prompts, completions, **columns):
    return [1.0] * len(completions)

@rlvr.verifier(name="half", version="1", needs_answer=False)
def half(completion: str, task: rlvr.Task) -> float:
    return 0.25 if len(completion) % 2 else 0.75

@rlvr.verifier(name="shy", version="1", needs_answer=False)
def shy(completion: str, task: rlvr.Task) -> float | None:
    return 1.0 if len(completion) % 2 else None

@rlvr.verifier(name="mute", version="1", needs_answer=False)
def mute(completion: str, task: rlvr.Task) -> None:
    return None

@rlvr.verifier(name="broken", version="1", needs_answer=False)
def broken(completion: str, task: rlvr.Task) -> float:
    if task.split == "eval":
        raise RuntimeError("no such question")
    return 1.0
"""


def evaluated(model: Path, folder: Path, verifier: str, options: Any = None, **changes: Any) -> dict[str, Any]:
    """Return the metrics of one step with an evaluation before and after it: the last line."""
    file = folder / "checks.py"
    file.write_text(VERIFIERS)
    name = verifier if verifier == "sampler" else f"{file}:{verifier}"
    fake = {} if options is None else small_runs.FAKE
    config = small_runs.small_config(model, verifier=name, steps=1, **fake, **changes)
    with make_plan(config) if options is None else fake_plan(config, options) as plan:  # noqa: SIM117
        with RunDirectory.create(folder / "run", plan.config) as directory:
            small_runs.Run(plan, directory, small_runs.Silent()).train()
    return small_runs.metrics_of(folder / "run")[-1]


def fake_plan(config: Any, options: FakeSamplerOptions) -> Any:
    plan = make_plan(config)
    plan.sampler, plan.sampler_options = FakeSampler, options
    return plan


@pytest.mark.parametrize("verifier", ["takes_rollout", "takes_group", "takes_trl"])
def test_a_verifier_that_takes_records_judges_held_out_answers(tiny_model: Path, tmp_path: Path, verifier: str) -> None:
    line = evaluated(tiny_model, tmp_path, verifier)
    assert line["eval/accuracy"] == line["eval/greedy_accuracy"] == 1.0
    assert line["eval/dropped"] == line["eval/greedy_dropped"] == 0.0


def test_the_mean_reward_is_told_beside_the_share_that_is_right(tiny_model: Path, tmp_path: Path) -> None:
    line = evaluated(tiny_model, tmp_path, "half", FakeSamplerOptions(), eval__questions=40)
    right = line["eval/accuracy"]
    assert 0 < right < 1
    assert line["eval/reward"] == pytest.approx(0.25 + 0.5 * right)


def test_verdicts_without_a_reward_are_dropped_and_counted(tiny_model: Path, tmp_path: Path) -> None:
    line = evaluated(tiny_model, tmp_path, "shy", FakeSamplerOptions(), eval__questions=40)
    assert line["eval/accuracy"] == line["eval/reward"] == 1.0
    assert 0.2 < line["eval/dropped"] < 0.8


def test_a_policy_for_verdicts_without_a_reward_holds_in_an_evaluation_too(tiny_model: Path, tmp_path: Path) -> None:
    line = evaluated(
        tiny_model, tmp_path, "shy", FakeSamplerOptions(), eval__questions=40, verifier__rewards={"abstained": -1.0}
    )
    assert line["eval/dropped"] == 0.0
    assert line["eval/reward"] == pytest.approx(2 * line["eval/accuracy"] - 1)


def test_an_evaluation_without_any_reward_has_no_accuracy(tiny_model: Path, tmp_path: Path) -> None:
    line = evaluated(tiny_model, tmp_path, "mute", FakeSamplerOptions())
    assert (line["eval/accuracy"], line["eval/reward"], line["eval/dropped"]) == (None, None, 1.0)


def test_answers_that_were_aborted_are_counted(tiny_model: Path, tmp_path: Path) -> None:
    line = evaluated(tiny_model, tmp_path, "half", FakeSamplerOptions(aborted=0.5), eval__questions=40)
    assert 0.2 < line["eval/dropped"] < 0.8
    assert line["eval/accuracy"] is not None


def test_broken_held_out_verdicts_stop_the_run(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"5 of 5 held-out verdicts at step 0 are broken, e.g. error: .*no such"):
        evaluated(tiny_model, tmp_path, "broken")


# --- rewards of the sampler -----------------------------------------------------------------------------------------


def test_a_sampler_that_scores_by_itself_needs_no_verifier(tiny_model: Path, tmp_path: Path) -> None:
    from rlvr.record.store import read_rollouts

    given = fake_rewards(tiny_model, tmp_path, verifier=None)
    scores = [rollout.scores for rollout in read_rollouts(tmp_path / "run" / "rollouts")]
    assert {(each[0].verifier, each[0].version, len(each)) for each in scores} == {("sampler", "1", 1)}
    assert {each[0].reward for each in scores} == {0.0, 1.0}
    assert given["signal/groups"] > 0
    assert given["eval/accuracy"] is not None


def test_a_verifier_that_is_named_comes_first_and_is_trained_on(tiny_model: Path, tmp_path: Path) -> None:
    from rlvr.record.store import read_rollouts

    file = tmp_path / "checks.py"
    file.write_text(VERIFIERS)
    fake_rewards(tiny_model, tmp_path, verifier=f"{file}:half")
    for rollout in read_rollouts(tmp_path / "run" / "rollouts"):
        half, own = rollout.scores
        assert half.verifier.endswith("half")
        assert own.verifier == "sampler"
        assert rollout.group_stats is not None
        assert rollout.group_stats.mean >= 0.25, "the statistics are those of the verifier's rewards"


def test_samples_of_several_turns_train_on_what_the_policy_sampled(tiny_model: Path, tmp_path: Path) -> None:
    from rlvr.record.store import read_rollouts

    fake_rewards(tiny_model, tmp_path, verifier=None, turns=True)
    rollouts = read_rollouts(tmp_path / "run" / "rollouts")
    masks = [rollout.loss_mask.tolist() for rollout in rollouts if rollout.loss_mask is not None]
    assert any(False in mask[mask.index(True) :] for mask in masks), "tokens of the environment lie in between"


def test_the_rewards_of_a_sampler_that_gives_none_are_refused_before_anything_is_loaded(tiny_model: Path) -> None:
    config = small_runs.small_config(tiny_model, verifier="sampler")
    with pytest.raises(ConfigError, match=r"verifier.name: sampler takes the rewards .* 'hf' gives none"):
        make_plan(config)


def test_saved_rewards_of_a_sampler_are_trained_on_by_name(tiny_model: Path, tmp_path: Path) -> None:
    fake_rewards(tiny_model, tmp_path, verifier=None)
    saved = {"rollouts__files": [str(tmp_path / "run")], "steps": 1, "sampling__engine": "fake", **small_runs.FAKE}
    by_name = small_runs.small_config(tiny_model, verifier="sampler", eval__questions=0, **saved)
    small_runs.start(by_name, tmp_path / "again")
    assert small_runs.metrics_of(tmp_path / "again")[0]["signal/groups"] > 0
    unnamed = small_runs.small_config(tiny_model, verifier=None, sampling__options={"rewards": True}, **saved)
    with pytest.raises(RequestError, match="math"):  # the data set's verifier, of which there is no score
        make_plan(unnamed)


def test_saved_rewards_beyond_the_limit_count_as_errors(tiny_model: Path, tmp_path: Path) -> None:
    fake_rewards(tiny_model, tmp_path, verifier=None)
    changes = {"rollouts__files": [str(tmp_path / "run")], "steps": 1, "sampling__engine": "fake", **small_runs.FAKE}
    changes |= {"verifier__max_reward": 0.5, "alarms__verdicts__consequence": "none", "eval__questions": 0}
    small_runs.start(small_runs.small_config(tiny_model, verifier="sampler", **changes), tmp_path / "again")
    (line,) = small_runs.metrics_of(tmp_path / "again")
    assert line["reward/mean"] == 0.0


def fake_rewards(model: Path, folder: Path, verifier: str | None, **options: Any) -> dict[str, Any]:
    """Function that returns the last metrics of a run of two steps whose sampler, registered like a plugin's, gives
    rewards."""
    config = small_runs.small_config(
        model,
        verifier=verifier,
        steps=2,
        sampling__engine="fake",
        sampling__options={"rewards": True, **options},
        **small_runs.FAKE,
    )
    with make_plan(config) as plan, RunDirectory.create(folder / "run", plan.config) as directory:
        assert (plan.scorer is None) == (verifier is None)
        small_runs.Run(plan, directory, small_runs.Silent()).train()
    return small_runs.metrics_of(folder / "run")[-1]


@pytest.fixture(autouse=True)
def _fake_engine(install: Any) -> Any:
    from rlvr.registry import registry

    hooks = "import rlvr\n\n@rlvr.hookimpl\ndef rlvr_samplers():\n    return {'fake': 'rlvr.testing:FakeSampler'}\n"
    install("rlvr-fake", "fake = fake_hooks", fake_hooks=hooks)
    registry.cache_clear()
    yield
    registry.cache_clear()


def test_further_sets_have_parameters_names_and_intervals_of_their_own(tiny_model: Path, tmp_path: Path) -> None:
    sets = {
        "hard": {"dataset": "arithmetic", "questions": 4, "samples": 3, "temperature": 0.5, "max_tokens": 5},
        "quick": {"dataset": "arithmetic", "questions": 2, "greedy": True},
    }
    line = evaluated(tiny_model, tmp_path, "half", eval__sets=sets, eval__questions=0)
    assert "eval/accuracy" not in line
    assert line["eval/policy_version"] == 1
    for name in ("hard", "quick"):
        low, share, high = (line[f"eval_{name}/accuracy{end}"] for end in ("_low", "", "_high"))
        assert 0 <= low <= share <= high <= 1
        assert low < high
    assert 0 <= line["eval_hard/any_correct"] <= 1
    assert "eval_hard/greedy_accuracy" not in line
    assert "eval_quick/greedy_accuracy" in line
    assert "eval_quick/any_correct" not in line


@pytest.mark.parametrize(
    ("every", "note"),
    [(2, "come after 0, 3, 6 batches and at the end"), (5, "come after 0, 6 batches and at the end"), (3, None)],
)
def test_evaluations_that_wait_for_a_sync_are_announced(tiny_model: Path, every: int, note: str | None) -> None:
    changes = {"trainer": "grpo-off", "trainer__push_every": 3, "steps": 9, "eval__every": every}
    with make_plan(small_runs.small_config(tiny_model, **changes)) as plan:
        notes = " ".join(plan.notes)
    assert (note is None and "evaluations wait" not in notes) or (note is not None and note in notes)


def test_a_set_needs_a_data_set(tiny_model: Path) -> None:
    with pytest.raises(ConfigError, match=r"eval\.sets\.a\.dataset"):
        small_runs.small_config(tiny_model, eval__sets={"a": {"samples": 2}})
    with pytest.raises(RequestError, match=r"no-such.*--set eval\.sets\.a\.dataset=NAME"):
        make_plan(small_runs.small_config(tiny_model, eval__sets={"a": {"dataset": "no-such"}}))
