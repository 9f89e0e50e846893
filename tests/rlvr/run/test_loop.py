"""The loop on real parts: a real model, sampler, trainer, verifier and store."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import small_runs
from rlvr.errors import RequestError, RunError
from rlvr.protocols import Group, Metrics, SampledGroup
from rlvr.record.schema import GroupStats, Rollout, Status
from rlvr.record.store import read_rollouts
from rlvr.run import rundir
from rlvr.run.groups import Drawn, Grader, by_group
from rlvr.run.loop import Run, rollout_metrics
from rlvr.run.plan import make_plan
from rlvr.run.rundir import RunDirectory
from rlvr_trainers.policy_gradient import PolicyGradient

metrics_of, timeless, final_state = small_runs.metrics_of, small_runs.timeless, small_runs.final_state


@pytest.fixture(scope="module")
def whole(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of six steps with v = 3."""
    path: Path = tmp_path_factory.mktemp("runs") / "whole"
    config = small_runs.small_config(tiny_model, trainer="grpo-off", trainer__push_every=3)
    outcome = small_runs.start(config, path)
    assert outcome.finished
    return path


def test_one_object_a_step_with_the_promised_keys(whole: Path) -> None:
    lines = metrics_of(whole)
    assert [line["step"] for line in lines] == list(range(6))
    promised = {"step", "policy_version", "reward/mean", "signal/groups", "lag/max", "time/sample", "time/score"}
    promised |= {"time/train", "tokens_per_second"}
    assert all(promised <= line.keys() for line in lines)
    assert [line["policy_version"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["lag/max"] for line in lines] == [0, 1, 2, 0, 1, 2]


def test_held_out_questions_are_asked_at_the_start_at_pushes_and_at_the_end(whole: Path) -> None:
    asked = {line["step"]: line["eval/policy_version"] for line in metrics_of(whole) if "eval/accuracy" in line}
    assert asked == {0: 0, 3: 3, 5: 6}  # the last line's is of the weights after the last step
    assert all("eval/greedy_accuracy" in line for line in metrics_of(whole) if "eval/accuracy" in line)


def test_answers_to_held_out_questions_are_kept(whole: Path) -> None:
    """One file per evaluation, named by the batches that its weights have seen; the metrics can be computed again."""
    files = {f"step-{step:06d}.parquet": step for step in (0, 3, 6)}
    assert sorted(file.name for file in (whole / "evaluations").iterdir()) == sorted(files)
    asked = {line["eval/policy_version"]: line for line in metrics_of(whole) if "eval/accuracy" in line}
    for name, version in files.items():
        answers = list(read_rollouts(whole / "evaluations" / name))
        assert {run.version for answer in answers for run in answer.policy_versions or ()} == {version}
        sampled = [answer.scores[0].reward for answer in answers if answer.sampling and answer.sampling.temperature]
        assert len(answers) == 2 * len(sampled) == 10  # and once more at temperature 0
        assert sum((reward or 0) >= 0.5 for reward in sampled) / 5 == asked[version]["eval/accuracy"]


def test_records_say_which_version_sampled_and_what_the_group_got(whole: Path) -> None:
    for step in range(6):
        rollouts = list(read_rollouts(whole / "rollouts" / f"step-{step:06d}.parquet"))
        assert len(rollouts) == 12
        assert {run.version for rollout in rollouts for run in rollout.policy_versions or ()} == {step - step % 3}
        for rollout in rollouts:
            group = [r for r in rollouts if r.group_id == rollout.group_id]
            rewards = [r.scores[-1].reward for r in group]
            assert len(group) == rollout.group_size == 4
            assert rollout.group_stats is not None
            assert rollout.group_stats.mean == pytest.approx(sum(rewards) / 4)
            assert rollout.model is not None
            assert rollout.model.tokenizer_hash
            assert rollout.model.weights_hash


def test_the_checkpoint_is_a_model_that_from_pretrained_reads(whole: Path) -> None:
    folder = whole / "checkpoints" / "step-000006"
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    logits = model(torch.tensor([tokenizer("1+1=")["input_ids"]])).logits
    assert bool(torch.isfinite(logits).all())


def test_the_same_seed_gives_the_same_weights_and_metrics(whole: Path, tiny_model: Path, tmp_path: Path) -> None:
    small_runs.start(small_runs.small_config(tiny_model, trainer="grpo-off", trainer__push_every=3), tmp_path / "again")
    assert timeless(tmp_path / "again") == timeless(whole)
    assert final_state(tmp_path / "again") == final_state(whole)


def test_another_seed_does_not(whole: Path, tiny_model: Path, tmp_path: Path) -> None:
    small_runs.start(
        small_runs.small_config(tiny_model, trainer="grpo-off", trainer__push_every=3, seed=1), tmp_path / "other"
    )
    assert final_state(tmp_path / "other") != final_state(whole)


@pytest.mark.parametrize("steps", [1, 4, 5])  # 4 and 5 are between two weight syncs
def test_a_run_that_is_extended_ends_like_one_that_was_long(
    whole: Path, tiny_model: Path, tmp_path: Path, steps: int
) -> None:
    config = small_runs.small_config(tiny_model, trainer="grpo-off", trainer__push_every=3, steps=steps)
    small_runs.start(config, tmp_path / "short")
    small_runs.resume(tmp_path / "short", steps=6)
    assert final_state(tmp_path / "short") == final_state(whole)
    assert timeless(tmp_path / "short") == timeless(whole)


def test_a_finished_run_resumed_changes_nothing(whole: Path) -> None:
    before, metrics = final_state(whole), timeless(whole)
    assert small_runs.resume(whole).finished
    assert final_state(whole) == before
    assert timeless(whole) == metrics


@pytest.fixture(scope="module")
def killed(build_tiny_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Mode → its runs: the first whole, the others killed with SIGKILL at moments of all kinds and resumed."""
    folder = tmp_path_factory.mktemp("killed")
    model = build_tiny_model(tmp_path_factory.mktemp("model"), num_hidden_layers=1)
    script = Path(__file__).parents[1] / "kill_and_resume.py"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), str(model), str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    modes: dict[str, list[Path]] = {}
    for line in done.stdout.split():
        modes.setdefault(line.partition("/")[0], []).append(folder / line)
    return modes


@pytest.mark.timeout(1200)  # the set-up trains some fifty times: a busy machine may take its time
@pytest.mark.parametrize(
    "mode",
    [
        "on-policy",
        "off-policy",
        "saved",
        "mixed",
        "replay",
        "async",
        "refill",
        "curriculum",
        "several-steps",
        "adapter",
    ],
)
def test_a_run_killed_at_any_moment_and_resumed_ends_bitwise_like_one_that_was_not(
    killed: dict[str, list[Path]], mode: str
) -> None:
    whole, *others = killed[mode]
    assert len(others) == (8 if mode == "off-policy" else 2)
    for run in others:
        assert final_state(run) == final_state(whole), run
        assert timeless(run) == timeless(whole), run
        assert not list(run.rglob("*.tmp")), "a torn file is left behind"


@pytest.mark.timeout(1200)
def test_the_killed_runs_did_what_they_were_for(killed: dict[str, list[Path]]) -> None:
    lines = {mode: metrics_of(paths[0]) for mode, paths in killed.items()}
    assert {line["lag/max"] for line in lines["off-policy"]} == set(range(10))
    assert {line["lag/max"] for line in lines["on-policy"]} == {0}
    assert all(line["lag/max"] in (None, line["step"]) for line in lines["saved"]), "of version 0 alone is it known"
    assert [line["lag/max"] for line in lines["async"]] == [0, 1, *[2, 1] * 5]
    assert {line["saved/groups"] for line in lines["mixed"]} == {1}
    assert sum(line["replay/groups"] for line in lines["replay"]) > 6
    assert max(line["lag/max"] for line in lines["replay"]) > 2
    assert sum(line["refill/groups"] for line in lines["refill"]) > 6
    assert sum(line["curriculum/skipped"] for line in lines["curriculum"]) > 6
    assert max(line["train/optimizer_steps"] for line in lines["several-steps"]) == 4
    assert len({line["kl/reference"] for line in lines["several-steps"]}) > 6
    checkpoints = {mode: paths[0] / "checkpoints" / "step-000012" for mode, paths in killed.items()}
    assert (checkpoints["several-steps"] / "reference.safetensors").exists()
    assert (checkpoints["adapter"] / "adapter").is_dir()
    assert list(killed["saved"][0].glob("recomputed/*.parquet"))
    for mode in ("mixed", "replay", "refill"):
        for run in killed[mode]:
            ids = [rollout.id for rollout in read_rollouts(run / "rollouts")]
            assert len(ids) == len(set(ids))


def named(rollout: Rollout, run_id: str) -> dict[str, str]:
    """Return the fields that identify a rollout across runs."""
    assert rollout.group_id is not None
    group_id = f"{run_id}-{rollout.group_id.rpartition('-')[2]}"
    return {"run_id": run_id, "group_id": group_id, "id": f"{group_id}-{rollout.index}"}


def test_a_stored_batch_is_learned_from_and_not_sampled_again(whole: Path, tiny_model: Path, tmp_path: Path) -> None:
    """The batch on disk is trained on, even if an engine would now sample other completions."""
    path = tmp_path / "run"
    config = small_runs.small_config(tiny_model, trainer="grpo-off", trainer__push_every=3, steps=2)
    small_runs.start(config, path)
    long = tmp_path / "long"
    small_runs.start(small_runs.small_config(tiny_model, trainer="grpo-off", trainer__push_every=1, steps=3), long)
    with RunDirectory.resume(path) as directory:
        run_id = directory.manifest["run_id"]
        others = read_rollouts(long / "rollouts" / "step-000002.parquet")
        directory.store(2, [rollout.model_copy(update=named(rollout, run_id)) for rollout in others])
    other = (path / "rollouts" / "step-000002.parquet").read_bytes()
    small_runs.resume(path, steps=3)
    assert (path / "rollouts" / "step-000002.parquet").read_bytes() == other
    assert final_state(path) != final_state(whole)


def test_a_batch_is_written_while_it_is_learned_from_and_stored_before_the_step_counts(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned = threading.Event()
    write, update, log = rundir.write_rollouts, PolicyGradient.update, RunDirectory.log

    def written_late(*arguments: Any) -> int:
        assert learned.wait(timeout=60), "training waited for the batch"
        return write(*arguments)

    def updated(trainer: PolicyGradient, groups: Sequence[Group]) -> Metrics:
        metrics = update(trainer, groups)
        learned.set()
        return metrics

    def logged(directory: RunDirectory, metrics: dict[str, Any]) -> None:
        assert directory.is_stored(metrics["step"])
        log(directory, metrics)

    monkeypatch.setattr(rundir, "write_rollouts", written_late)
    monkeypatch.setattr(PolicyGradient, "update", updated)
    monkeypatch.setattr(RunDirectory, "log", logged)
    small_runs.start(small_runs.small_config(tiny_model, steps=2, eval__questions=0), tmp_path / "run")
    assert len(small_runs.metrics_of(tmp_path / "run")) == 2


def test_groups_are_judged_while_others_are_still_sampled(tiny_model: Path, tmp_path: Path) -> None:
    """The second of three batches is decoded only once a verdict on the first is there."""
    judged = tmp_path / "judged"
    verifier = tmp_path / "noting.py"
    verifier.write_text(
        "from pathlib import Path\nimport rlvr\n\n"
        "@rlvr.verifier(name='noting', version='1', needs_answer=False)\n"
        f"def noting(completion: str, task: rlvr.Task) -> float:\n    Path({str(judged)!r}).touch()\n    return 1.0\n"
    )
    changes = {"verifier": f"{verifier}:noting", "verifier__workers": 1, "sampling__options": {"max_sequences": 4}}
    changes["alarms__weights__consequence"] = "none"  # its probes are sampled before any verdict
    config = small_runs.small_config(tiny_model, steps=1, eval__questions=0, **changes)
    with make_plan(config) as plan, RunDirectory.create(tmp_path / "run", plan.config) as directory:
        run = Run(plan, directory, small_runs.Silent())
        assert run.sampler is not None
        collect, collected = run.sampler.collect, []

        def late(timeout: float | None = None) -> list[SampledGroup]:
            while collected and not judged.exists():  # pytest ends a test that hangs
                time.sleep(0.01)
            collected.append(judged.exists())
            return collect()

        run.sampler.collect = late  # type: ignore[method-assign]
        run.train()
    assert collected == [False, True, True]


def test_what_does_not_say_how_it_ended_is_not_counted_as_whole(whole: Path) -> None:
    sampled = list(read_rollouts(whole / "rollouts" / "step-000000.parquet"))
    grader = Grader("digits", {})

    def truncated(*reasons: str | None) -> float:
        rollouts = [r.model_copy(update={"finish_reason": why}) for r, why in zip(sampled, reasons, strict=False)]
        return rollout_metrics(Drawn((), tuple(rollouts)), grader)["length/truncated"]

    assert truncated("length", None, "stop", None) == 0.5
    assert math.isnan(truncated(None, None))


def test_on_policy_has_no_lag_and_i_steps_have_one(tiny_model: Path, tmp_path: Path) -> None:
    config = small_runs.small_config(
        tiny_model, trainer="grpo", trainer__updates_per_batch=3, steps=2, eval__questions=0
    )
    small_runs.start(config, tmp_path / "run")
    lines = metrics_of(tmp_path / "run")
    assert [line["policy_version"] for line in lines] == [3, 6]
    assert [line["lag/max"] for line in lines] == [2, 2]
    assert not any("eval/accuracy" in line for line in lines)


def test_abstentions_leave_the_batch_and_broken_verdicts_stop_the_run(tiny_model: Path, tmp_path: Path) -> None:
    shy = small_runs.small_config(tiny_model, verifier=f"{small_runs.REWARDS}:shy", steps=1)
    small_runs.start(shy, tmp_path / "shy")
    line = metrics_of(tmp_path / "shy")[0]
    assert line["verdict/abstained"] > 0
    assert line["reward/mean"] > 0
    broken = small_runs.small_config(tiny_model, verifier=f"{small_runs.REWARDS}:broken", steps=1)
    with pytest.raises(RunError, match=r"verdicts at step 0 are broken, e.g. error: .*alarms.verdicts.threshold"):
        small_runs.start(broken, tmp_path / "broken")


def test_sampled_verdicts_that_timed_out_leave_their_groups_and_stop_the_run(tiny_model: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"verifier": f"{small_runs.REWARDS}:slow", "steps": 1, "eval__questions": 0}
    with pytest.raises(RunError, match=r"of 12 verdicts at step 0 are broken, e.g. timeout: not done in time"):
        small_runs.start(small_runs.small_config(tiny_model, **changes), tmp_path / "stopped")
    config = small_runs.small_config(tiny_model, alarms__verdicts__threshold=0.99, **changes)
    small_runs.start(config, tmp_path / "run")
    line = metrics_of(tmp_path / "run")[0]
    stored = list(read_rollouts(tmp_path / "run" / "rollouts"))
    rewards = [score.reward for rollout in stored for score in rollout.scores if score.reward is not None]
    late = [rollout for rollout in stored if rollout.scores[0].status is Status.TIMEOUT]
    assert 0 < len(late) < len(stored) == len(late) + len(rewards)
    assert line["verdict/timeout"] == pytest.approx(len(late) / len(stored))
    assert line["reward/mean"] == pytest.approx(sum(rewards) / len(rewards)), "no time-out counts as 0"
    for members in by_group(stored):
        graded = [score.reward for rollout in members for score in rollout.scores if score.reward is not None]
        assert members[0].group_stats == (GroupStats.of(graded) if graded else None)


def test_a_batch_without_a_single_reward_trains_nothing_and_can_be_saved(tiny_model: Path, tmp_path: Path) -> None:
    config = small_runs.small_config(tiny_model, verifier=f"{small_runs.REWARDS}:mute", steps=2, checkpoint__every=1)
    assert small_runs.start(config, tmp_path / "run").finished
    assert [(line["reward/mean"], line["policy_version"]) for line in metrics_of(tmp_path / "run")] == [(None, 0)] * 2
    assert small_runs.resume(tmp_path / "run", steps=3).finished


def test_a_directory_in_use_or_not_empty_is_refused(whole: Path, tiny_model: Path) -> None:
    config = small_runs.small_config(tiny_model)
    with pytest.raises(RequestError, match=f"not empty: continue it with --resume {whole}"):
        RunDirectory.create(whole, config)
    with RunDirectory.resume(whole), pytest.raises(RequestError, match="in use by another run"):
        RunDirectory.resume(whole)
    with pytest.raises(RequestError, match="no run to resume"):
        RunDirectory.resume(whole / "rollouts")
