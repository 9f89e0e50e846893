"""Training on saved rollouts: refusals, rewards and statistics, order of groups."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import small_runs
from rlvr.errors import ConfigError, DataError, RequestError, RunError
from rlvr.record.schema import GroupStats, LogprobColumn, ModelRef, Rollout, Sampling, Score, Status, VersionRun
from rlvr.record.store import read_rollouts, write_rollouts
from rlvr.run.plan import make_plan
from rlvr.run.rundir import RunDirectory
from rlvr.run.saved import Saved


@pytest.fixture(scope="module")
def sampled(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run of three steps of three groups of four, with its stored rollouts."""
    path: Path = tmp_path_factory.mktemp("sampled") / "run"
    small_runs.start(small_runs.small_config(tiny_model, steps=3, eval__questions=0), path)
    return path


@pytest.fixture
def records(sampled: Path) -> list[Rollout]:
    return list(read_rollouts(sampled / "rollouts"))


def plan_of(model: Path, *files: Path, **changes: Any) -> Any:
    changes = {"eval__questions": 0, "rollouts__files": [str(file) for file in files], **changes}
    return make_plan(small_runs.small_config(model, **changes))


def version_of(rollout: Rollout) -> int:
    """Return the version that sampled the whole group."""
    (run,) = rollout.policy_versions or ()
    return run.version


def rescored(rollout: Rollout, reward: float, verifier: str = "digits", version: str = "2") -> Rollout:
    return rollout.with_score(Score(status=Status.GRADED, reward=reward, verifier=verifier, version=version))


def test_held_out_questions_that_saved_rollouts_answer_are_counted(
    tiny_model: Path, tmp_path: Path, records: list[Rollout]
) -> None:
    asked = list(dict.fromkeys(record.prompt for record in records))
    assert len(asked) == 9
    rows = [{"question": prompt, "answer": 1} for prompt in [*asked[:3], "1+1=?"]]
    (tmp_path / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_rollouts(tmp_path / "records.parquet", records)
    eval_set = {"eval__questions": 4, "eval__dataset": str(tmp_path / "eval.jsonl")}
    with plan_of(tiny_model, tmp_path / "records.parquet", **eval_set) as plan:
        assert any("warning: 3 of the 4 held-out questions are also trained on" in note for note in plan.notes)


# --- what is refused ------------------------------------------------------------------------------------------------

Change = Callable[[Rollout], dict[str, Any]]


def sampling(**changes: Any) -> Change:
    return lambda r: {"sampling": (r.sampling or Sampling(temperature=1.0)).model_copy(update=changes)}


REFUSED: list[tuple[str, Change, str]] = [
    ("tokenizer", lambda r: {"model": ModelRef(tokenizer_hash="ff")}, "another tokenizer (ff)"),
    ("temperature", sampling(temperature=0.7), "sampled at temperature 0.7, not 1. * --set sampling.temperature=T"),
    ("filters", sampling(top_p=0.9), "sampled with top_p"),
    ("no sampling", lambda r: {"sampling": None}, "unknown sampling parameters"),
    ("vocabulary", lambda r: {"token_ids": (10**6, *r.token_ids[1:])}, "token ids beyond the vocabulary of 52"),
    ("logprobs", lambda r: {"behaviour_logprobs": None}, "no behavior log-probabilities. * --behaviour-model"),
    ("group", lambda r: {"group_id": None}, "no group. * rlvr does not group by prompt"),
    ("score", lambda r: {"scores": ()}, "no score by digits. * rlvr score FILE --verifier NAME --out SCORED"),
    ("prompt", lambda r: {"prompt": "2+2="}, "another prompt than the rest of its group"),
]


@pytest.mark.parametrize(("change", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_record_that_cannot_be_learned_from_is_refused_with_reason_file_and_row(
    tiny_model: Path, tmp_path: Path, records: list[Rollout], change: Change, message: str
) -> None:
    file = tmp_path / "records.jsonl"
    records[5] = records[5].model_copy(update=change(records[5]))
    write_rollouts(file, records)
    pattern = re.escape("1 of 36 records cannot be trained on: 1 ")
    pattern += ".*".join(re.escape(part) for part in message.split(" * "))
    with pytest.raises(DataError, match=pattern) as refusal:
        plan_of(tiny_model, file)
    assert f"The first is {file}, record 6, id {records[5].id!r}: " in str(refusal.value)
    with plan_of(tiny_model, file, rollouts__skip_unusable=True) as plan:
        assert plan.saved is not None
        assert plan.saved.members == 35
        assert plan.notes[0].startswith("1 of 36 records cannot be trained on: 1 ")


def test_reasons_are_counted_before_one_is_shown(tiny_model: Path, tmp_path: Path, records: list[Rollout]) -> None:
    for i in range(7):
        records[i] = records[i].model_copy(update={"scores": ()})
    records[9] = records[9].model_copy(update={"behaviour_logprobs": None})
    write_rollouts(tmp_path / "records.parquet", records)
    counts = r"8 of 36 .*: 7 no score by digits; 1 no behavior log-probabilities\. The first"
    with pytest.raises(DataError, match=counts):
        plan_of(tiny_model, tmp_path / "records.parquet")


def test_leaving_out_every_record_is_an_error(tiny_model: Path, tmp_path: Path, records: list[Rollout]) -> None:
    write_rollouts(tmp_path / "records.parquet", [r.model_copy(update={"group_id": None}) for r in records])
    with pytest.raises(DataError, match="36 of 36 records"):
        plan_of(tiny_model, tmp_path / "records.parquet", rollouts__skip_unusable=True)


def test_a_rollout_is_not_learned_from_twice_because_two_files_hold_it(
    tiny_model: Path, tmp_path: Path, sampled: Path, records: list[Rollout]
) -> None:
    copy = tmp_path / "copy.parquet"
    write_rollouts(copy, records[:4])
    with pytest.raises(DataError, match=r"4 of 40 .*a duplicate rollout. The first is .*copy.parquet, rec"):
        plan_of(tiny_model, sampled, copy)
    with pytest.raises(RequestError, match="is given twice"):
        plan_of(tiny_model, sampled, sampled / "rollouts")


def test_foreign_rows_are_sent_to_the_document(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "1+1=", "completion": "2"}\n')
    with pytest.raises(DataError, match=r"rows.jsonl, line 1 is not a record: it has no schema_version.*docs/offline"):
        plan_of(tiny_model, tmp_path / "rows.jsonl")


def test_equal_prompts_in_one_file_are_two_groups_where_the_ids_say_so(
    tiny_model: Path, tmp_path: Path, records: list[Rollout]
) -> None:
    foreign = [
        r.model_copy(update={"run_id": None, "prompt": "1+1=", "group_id": f"g{i // 4}", "index": None})
        for i, r in enumerate(records[:8])
    ]
    for name in ("a", "b"):  # ids that two foreign files have in common are not the same rollout
        write_rollouts(tmp_path / f"{name}.jsonl", foreign)
    with plan_of(tiny_model, tmp_path / "a.jsonl", tmp_path / "b.jsonl") as plan:
        assert len(plan.saved.groups) == 4


# --- rewards and statistics -----------------------------------------------------------------------------------------


def test_the_score_that_is_asked_for_is_the_reward(tiny_model: Path, tmp_path: Path, records: list[Rollout]) -> None:
    file = tmp_path / "records.parquet"
    write_rollouts(file, [rescored(r, float(i % 4), "mine@strict") for i, r in enumerate(records)])
    with plan_of(tiny_model, file, verifier="mine@strict") as plan:
        group = plan.saved.group(0)
        assert plan.scorer is None, "a name is enough where nothing is verified"
        assert group.rewards == (0.0, 1.0, 2.0, 3.0)
        assert group.stats == GroupStats.of(group.rewards)
    with plan_of(tiny_model, file) as plan:  # the last by digits, which sampled
        assert plan.saved.group(0).rewards == tuple(r.scores[0].reward for r in records[:4])
    with pytest.raises(ConfigError, match=r"no verifier 'mine@strict' to score answers with.*--set eval.questions=0"):
        plan_of(tiny_model, file, verifier="mine@strict", eval__questions=3)


def test_a_filtered_group_keeps_the_statistics_it_was_sampled_with_and_a_rescored_one_cannot(
    tiny_model: Path, tmp_path: Path, records: list[Rollout]
) -> None:
    file = tmp_path / "records.parquet"
    kept = [records[0], records[2], *(rescored(r, float(i)) for i, r in enumerate(records[4:7]))]
    write_rollouts(file, kept)
    with plan_of(tiny_model, file) as plan:
        first, second = plan.saved.group(0), plan.saved.group(1)
        assert (first.stats, first.stats.count) == (records[0].group_stats, 4)
        assert second.stats == GroupStats.of([0.0, 1.0, 2.0])
        (note,) = plan.notes
        assert note.startswith("2 of 2 saved groups lack members that were sampled: 1 keep the statistics")
    with plan_of(tiny_model, file, verifier__rewards__unparsed=-1.0) as plan:
        assert plan.notes[1].startswith("verifier.rewards differ from the default")


def test_a_status_without_a_reward_is_left_out_as_when_sampling(
    tiny_model: Path, tmp_path: Path, records: list[Rollout]
) -> None:
    shy = Score(status=Status.ABSTAINED, verifier="digits", version="2")
    write_rollouts(tmp_path / "r.parquet", [r.with_score(shy) if i < 5 else r for i, r in enumerate(records)])
    with plan_of(tiny_model, tmp_path / "r.parquet") as plan:
        assert len(plan.saved.groups) == 8
        assert len(plan.saved.group(0).rollouts) == 3
        assert plan.notes == ["1 saved groups have no reward (see verifier.rewards) and are left out"]


def test_broken_verdicts_of_saved_rollouts_set_the_alarm_off(
    tiny_model: Path, tmp_path: Path, records: list[Rollout]
) -> None:
    """A whole group of them too, although it is left out; with fresh rollouts beside them as without."""
    broken = Score(status=Status.ERROR, verifier="digits", version="2")
    write_rollouts(tmp_path / "r.parquet", [r.with_score(broken) if i < 5 else r for i, r in enumerate(records)])
    for share in (1.0, 0.34):
        with pytest.raises(DataError, match=r"verdicts 13.9% > 0.05 \(stop\): too many of the saved scores by digits"):
            plan_of(tiny_model, tmp_path / "r.parquet", rollouts__share=share)
    with plan_of(tiny_model, tmp_path / "r.parquet", alarms__verdicts__consequence="warn") as plan:
        assert [note.partition(":")[0] for note in plan.notes[1:]] == ["verdicts 13.9% > 0.05 (warn)"]
    with plan_of(tiny_model, tmp_path / "r.parquet", alarms__verdicts__threshold=0.2) as plan:
        assert len(plan.notes) == 1


@pytest.mark.parametrize("status", [Status.TIMEOUT, Status.ERROR, Status.INVALID])
def test_saved_verdicts_that_say_nothing_about_the_answer_are_never_a_reward_of_0(
    tiny_model: Path, tmp_path: Path, records: list[Rollout], status: Status
) -> None:
    broken = Score(status=status, verifier="digits", version="2")
    write_rollouts(tmp_path / "r.parquet", [r.with_score(broken) if i in (1, 3) else r for i, r in enumerate(records)])
    with pytest.raises(DataError, match=r"verdicts 5.6% > 0.05 \(stop\)"):
        plan_of(tiny_model, tmp_path / "r.parquet")
    with plan_of(tiny_model, tmp_path / "r.parquet", alarms__verdicts__threshold=0.1) as plan:
        group = plan.saved.group(0)
        assert [rollout.id for rollout in group.rollouts] == [records[0].id, records[2].id]
        kept = [records[i].scores[0].reward for i in (0, 2)]
        assert list(group.rewards) == kept
        assert group.stats == GroupStats.of([reward for reward in kept if reward is not None])
    zero = {"verifier__rewards": {status.value: 0.0}, "alarms__verdicts__threshold": 0.1}
    with plan_of(tiny_model, tmp_path / "r.parquet", **zero) as plan:
        assert [plan.saved.group(0).rewards[i] for i in (1, 3)] == [0.0, 0.0], "if somebody asks for it"


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"trainer__masks": ["max_lag"], "trainer__max_lag": 2}, "trainer.max_lag"),
        ({"trainer__lag_base": 4}, "trainer.lag_base"),
        ({"trainer__center": "interpolated"}, "trainer.center=interpolated"),
    ],
)
def test_what_needs_a_lag_is_refused_where_none_is_known(
    options: dict[str, Any], name: str, tiny_model: Path, sampled: Path
) -> None:
    with pytest.raises(RequestError, match=f"{name} needs the lag .* that of 24 of 36 saved rollouts is unknown"):
        plan_of(tiny_model, sampled, trainer="grpo-off", **options)
    with make_plan(small_runs.small_config(tiny_model, trainer="grpo-off", eval__questions=0, **options)):
        pass


def test_groups_of_several_versions_can_be_left_out(tiny_model: Path, tmp_path: Path, records: list[Rollout]) -> None:
    tokens = records[1].sampled_tokens
    later = (VersionRun(version=0, count=1), VersionRun(version=1, count=tokens - 1))
    records[1] = records[1].model_copy(update={"policy_versions": later})
    records[5] = records[5].model_copy(update={"policy_versions": None})
    write_rollouts(tmp_path / "r.parquet", records)
    with plan_of(tiny_model, tmp_path / "r.parquet", rollouts__single_version=True) as plan:
        assert len(plan.saved.groups) == 7
        assert plan.notes == ["2 saved groups may have several policy versions and are left out"]
    with plan_of(tiny_model, tmp_path / "r.parquet") as plan:
        assert len(plan.saved.groups) == 9


# --- order ----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 5), sizes=st.lists(st.integers(1, 5), min_size=8, max_size=20), cut=st.integers(0, 7))
def test_every_pass_has_each_group_once_and_a_position_resumes_it(
    tiny_model: Path, sampled: Path, seed: int, sizes: list[int], cut: int
) -> None:
    saved = ORDERED.setdefault(sampled, plan_of(tiny_model, sampled).saved)

    def ids(source: Saved, sizes: list[int]) -> list[str | None]:
        return [g.rollouts[0].group_id for n in sizes for g in source.draw(0, n, 0).groups]

    whole = Saved(saved, seed)
    drawn = ids(whole, sizes)
    for start in range(0, len(drawn) - 8, 9):
        assert len(set(drawn[start : start + 9])) == 9
    first, second = Saved(saved, seed), Saved(saved, seed)
    before = ids(first, sizes[:cut])
    second.seek(first.state())
    assert before + ids(second, sizes[cut:]) == drawn


ORDERED: dict[Path, Any] = {}


def checkpoint(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:06d}"


def drawn_versions(saved: Any) -> Counter[int | None]:
    """Return policy version, as the trainer gets it → number of rollouts; each rollout has one version."""
    drawn = Saved(saved, 0).draw(0, 9, 0)
    return Counter(None if r.policy_versions is None else version_of(r) for g in drawn.groups for r in g.rollouts)


def test_versions_are_counted_from_the_checkpoint_that_learns(
    tiny_model: Path, tmp_path: Path, sampled: Path, records: list[Rollout]
) -> None:
    with plan_of(checkpoint(sampled, 3), sampled) as plan:
        assert drawn_versions(plan.saved) == {-3: 12, -2: 12, -1: 12}
        assert (plan.saved.lags, plan.saved.ageless) == ((1, 3), 0)
    with plan_of(checkpoint(sampled, 2), sampled) as plan:
        assert drawn_versions(plan.saved) == {-2: 12, -1: 12, 0: 12}
    # The base model goes on by other steps than the run did that sampled: only its own samples have an age.
    with plan_of(tiny_model, sampled) as plan:
        assert drawn_versions(plan.saved) == {0: 12, None: 24}
        assert (plan.saved.lags, plan.saved.ageless) == ((0, 0), 24)
    # A branch is another line.
    write_rollouts(tmp_path / "b.parquet", [r.model_copy(update={"branch": 1}) for r in records])
    with plan_of(checkpoint(sampled, 3), tmp_path / "b.parquet") as plan:
        assert drawn_versions(plan.saved) == {None: 36}
        assert (plan.saved.lags, plan.saved.ageless) == (None, 36)


def test_a_rollout_of_several_versions_is_as_old_as_its_oldest_token_and_known_whole_or_not(
    sampled: Path, tmp_path: Path, records: list[Rollout]
) -> None:
    tokens = records[0].sampled_tokens
    for i, versions in enumerate([(0, 2), (2, 3)]):
        runs_of = (VersionRun(version=versions[0], count=1), VersionRun(version=versions[1], count=tokens - 1))
        records[i] = records[i].model_copy(update={"policy_versions": runs_of})
    write_rollouts(tmp_path / "r.parquet", records[:4])
    with plan_of(checkpoint(sampled, 2), tmp_path / "r.parquet") as plan:
        assert (plan.saved.lags, plan.saved.ageless) == ((2, 2), 1)
        older, newer, *_ = Saved(plan.saved, 0).draw(0, 1, 0).groups[0].rollouts
    assert [(run.version, run.count) for run in older.policy_versions or ()] == [(-2, 1), (0, tokens - 1)]
    assert newer.policy_versions is None


# --- whole runs -----------------------------------------------------------------------------------------------------


def test_nothing_is_sampled_and_a_pass_is_the_default(tiny_model: Path, tmp_path: Path, sampled: Path) -> None:
    config = small_runs.small_config(
        tiny_model, rollouts__files=[str(sampled)], steps=None, eval__questions=0, sampling__prompts_per_step=4
    )
    with make_plan(config) as plan:
        assert (plan.config.steps, plan.config.rollouts.epochs) == (3, None)  # 4 + 4 + 1 groups
        assert not plan.needs_sampler
        with RunDirectory.create(tmp_path / "run", plan.config) as directory:
            run = small_runs.Run(plan, directory, small_runs.Silent())
            assert run.sampler is None
            assert run.train().finished
    assert not list((tmp_path / "run" / "rollouts").iterdir())
    assert not (tmp_path / "run" / "checkpoints" / "step-000003" / "sampler").exists()
    assert [line["saved/groups"] for line in small_runs.metrics_of(tmp_path / "run")] == [4, 4, 1]


def test_the_first_step_from_its_own_rollouts_is_the_step_that_was_made_from_them(
    tiny_model: Path, tmp_path: Path, sampled: Path
) -> None:
    """One whole batch, in whatever order: the same gradient as when it was fresh, up to the order of a sum."""
    one = tmp_path / "one"
    small_runs.start(small_runs.small_config(tiny_model, steps=1, eval__questions=0), one)
    config = small_runs.small_config(tiny_model, rollouts__files=[str(one)], steps=1, eval__questions=0)
    small_runs.start(config, tmp_path / "again")
    fresh, again = small_runs.metrics_of(one)[0], small_runs.metrics_of(tmp_path / "again")[0]
    assert again["train/grad_norm"] == pytest.approx(fresh["train/grad_norm"], rel=1e-5)
    assert again["reward/mean"] == pytest.approx(fresh["reward/mean"])
    assert (again["lag/max"], again["lag_0/share"]) == (0, 1)


def test_from_a_checkpoint_the_age_of_what_its_run_sampled_is_measured_and_bounded(
    tmp_path: Path, sampled: Path
) -> None:
    config = small_runs.small_config(
        checkpoint(sampled, 2), rollouts__files=[str(sampled)], steps=2, eval__questions=0,
        sampling__prompts_per_step=9, trainer="grpo-off", trainer__masks=["max_lag"], trainer__max_lag=1,
    )  # fmt: skip
    small_runs.start(config, tmp_path / "run")
    first, second = small_runs.metrics_of(tmp_path / "run")
    assert (first["lag/max"], first["lag/mean"] < 1) == (1, True)
    assert first["lag_0/mask_high"] == first["lag_0/mask_low"] == 0
    assert first["lag_1-3/mask_high"] + first["lag_1-3/mask_low"] == pytest.approx(0.5, abs=0.2)  # lag 2 of 1 and 2
    # What the checkpoint's own weights sampled compares sampler and trainer; a step later it is a version old.
    assert first["mismatch/max"] < 1e-4
    assert "mismatch/max" not in second
    assert second["lag_1-3/length"] > 0
    assert "lag_0/length" not in second


def test_saved_rollouts_that_are_too_far_are_no_nearer_at_the_next_push(tmp_path: Path, sampled: Path) -> None:
    config = small_runs.small_config(
        checkpoint(sampled, 3), rollouts__files=[str(sampled)], steps=8, eval__questions=0,
        alarms__ess__threshold=1 - 1e-9, alarms__ess__consequence="skip",
    )  # fmt: skip
    with pytest.raises(RunError, match=r"step 3: .*skipped 3 ≥ 3 \(stop\)"):
        small_runs.start(config, tmp_path / "run")


def test_missing_log_probabilities_are_the_behaviour_models(
    tiny_model: Path, tmp_path: Path, records: list[Rollout]
) -> None:
    """For rollouts of version 0, which the run's own model sampled, they equal those of the sampler, and the records
    are marked."""
    first = [r for r in records if r.policy_versions and r.policy_versions[0].version == 0]
    bare = [r.model_copy(update={"behaviour_logprobs": None}) for r in first]
    write_rollouts(tmp_path / "bare.parquet", bare)
    config = small_runs.small_config(
        tiny_model,
        rollouts__files=[str(tmp_path / "bare.parquet")],
        rollouts__behaviour_model=str(tiny_model),
        steps=1,
        eval__questions=0,
    )
    small_runs.start(config, tmp_path / "run")
    stored = list(read_rollouts(tmp_path / "run" / "recomputed"))
    assert len(stored) == len(first) == 12
    for rollout, original in zip(stored, first, strict=True):
        assert rollout.recomputed_by is not None
        assert original.model is not None
        assert rollout.recomputed_by.weights_hash == original.model.weights_hash
        assert rollout.model == original.model
        assert rollout.behaviour_logprobs is not None
        np.testing.assert_allclose(rollout.behaviour_logprobs, original.behaviour_logprobs, rtol=0, atol=5e-6)


def test_a_behaviour_model_that_gives_no_number_is_named(
    tiny_model: Path, tmp_path: Path, records: list[Rollout]
) -> None:
    write_rollouts(tmp_path / "bare.parquet", [r.model_copy(update={"behaviour_logprobs": None}) for r in records[:4]])
    with plan_of(tiny_model, tmp_path / "bare.parquet", rollouts__behaviour_model=str(tiny_model)) as plan:

        def nan(rollouts: Sequence[Rollout]) -> list[LogprobColumn]:
            return [np.full(len(r.loss_mask), np.nan) for r in rollouts]

        with pytest.raises(DataError, match=f"rollout '{records[0].id}': under {tiny_model} .* is not finite"):
            plan.saved.recompute(tmp_path / "recomputed", nan)
    assert not list((tmp_path / "recomputed").iterdir())


def test_only_the_model_that_sampled_them_gives_log_probabilities(
    tiny_model: Path, awkward_model: Path, tmp_path: Path, records: list[Rollout], build_tiny_model: Callable[..., Path]
) -> None:
    write_rollouts(tmp_path / "bare.parquet", [r.model_copy(update={"behaviour_logprobs": None}) for r in records])
    with pytest.raises(ConfigError, match="has another tokenizer"):
        plan_of(tiny_model, tmp_path / "bare.parquet", rollouts__behaviour_model=str(awkward_model))
    stranger = build_tiny_model(tmp_path / "stranger", seed=7)
    with pytest.raises(DataError, match=r"12 of 36 .*: 12 another model sampled it"):
        plan_of(tiny_model, tmp_path / "bare.parquet", rollouts__behaviour_model=str(stranger))
    with plan_of(
        tiny_model,
        tmp_path / "bare.parquet",
        rollouts__behaviour_model=str(stranger),
        rollouts__skip_unusable=True,
    ) as plan:  # of later versions none can tell
        assert plan.notes[1].startswith(
            "24 records of policy versions 1 to 2 do not name the weights that sampled them"
        )


def test_each_version_of_a_run_is_another_model(
    tiny_model: Path, tmp_path: Path, sampled: Path, records: list[Rollout]
) -> None:
    write_rollouts(tmp_path / "bare.parquet", [r.model_copy(update={"behaviour_logprobs": None}) for r in records])
    with pytest.raises(
        DataError, match=r"24 of 36 .*: 24 another policy version .* \(0\) sampled it\..*name the checkpoint"
    ):
        plan_of(tiny_model, tmp_path / "bare.parquet", rollouts__behaviour_model=str(tiny_model))
    second = sampled / "checkpoints" / "step-000002"
    with pytest.raises(DataError, match=r"24 of 36 .*: 24 another policy version .* \(2\) sampled it\."):
        plan_of(tiny_model, tmp_path / "bare.parquet", rollouts__behaviour_model=str(second))
    write_rollouts(
        tmp_path / "its.parquet", [r for r in read_rollouts(tmp_path / "bare.parquet") if version_of(r) == 2]
    )
    with plan_of(tiny_model, tmp_path / "its.parquet", rollouts__behaviour_model=str(second)) as plan:
        assert plan.saved.members == 12
        assert plan.notes == []


def test_the_behaviour_model_may_be_a_preset(tiny_model: Path, tmp_path: Path, records: list[Rollout]) -> None:
    write_rollouts(tmp_path / "bare.parquet", [r.model_copy(update={"behaviour_logprobs": None}) for r in records])
    with pytest.raises(ConfigError, match="has another tokenizer"):  # so it was found
        plan_of(tiny_model, tmp_path / "bare.parquet", rollouts__behaviour_model="embedded")


def test_files_that_changed_end_a_resume_before_anything_is_written(
    tiny_model: Path, tmp_path: Path, sampled: Path, records: list[Rollout]
) -> None:
    copy = tmp_path / "copy.parquet"
    shutil.copy(sampled / "rollouts" / "step-000000.parquet", copy)
    config = small_runs.small_config(tiny_model, rollouts__files=[str(copy)], steps=2, eval__questions=0)
    small_runs.start(config, tmp_path / "run")
    write_rollouts(copy, records)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(RequestError, match=r"saved rollouts changed since the run began: .*copy.parquet [0-9a-f]+ → "):
        small_runs.resume(tmp_path / "run")
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_records_from_elsewhere_as_the_document_makes_them(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs the document's code, scores its records, and trains on them with the model that is said to have sampled
    them."""
    text = (Path(__file__).parents[3] / "docs" / "offline.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    row = {"prompt": "1+1=", "answer": "2", "prompt_ids": [3, 4], "completion": "2"}
    rows = [row | {"question_id": i // 4, "completion_ids": [5 + i % 4, 1]} for i in range(8)]
    monkeypatch.chdir(tmp_path)
    exec(code.replace("path/to/model", str(tiny_model)), {"rows": rows})
    scored = [rescored(r, float(i % 4)) for i, r in enumerate(read_rollouts("foreign.parquet"))]
    write_rollouts("scored.parquet", scored)
    config = small_runs.small_config(
        tiny_model,
        rollouts__files=["scored.parquet"],
        rollouts__behaviour_model=str(tiny_model),
        sampling__temperature=0.7,
        steps=1,
        eval__questions=0,
    )
    small_runs.start(config, tmp_path / "run")
    (line,) = small_runs.metrics_of(tmp_path / "run")
    assert (line["saved/groups"], line["policy_version"], line["reward/mean"]) == (2, 1, 1.5)
    assert line["ratio/mean"] == pytest.approx(1, abs=1e-4), "it learns from what it would sample itself"


@pytest.mark.parametrize(
    ("settings", "missing", "message"),
    [
        (
            {"trainer__masks": ["truncated"]},
            {"finish_reason": None},
            "1 of 36 records cannot be trained on: 1 no finish_reason, which trainer.masks=truncated needs",
        ),
        (
            {"trainer__overlong_buffer": 0.2},
            {"sampling": Sampling(temperature=1.0)},
            "1 no sampling.max_tokens, which trainer.overlong_buffer needs",
        ),
    ],
)
def test_what_a_record_lacks_for_a_setting_is_said_and_only_with_that_setting(
    tiny_model: Path,
    tmp_path: Path,
    records: list[Rollout],
    settings: dict[str, Any],
    missing: dict[str, Any],
    message: str,
) -> None:
    write_rollouts(tmp_path / "r.parquet", [records[0].model_copy(update=missing), *records[1:]])
    with plan_of(tiny_model, tmp_path / "r.parquet", trainer="grpo-off"):
        pass
    with pytest.raises(DataError, match=re.escape(message)) as error:
        plan_of(tiny_model, tmp_path / "r.parquet", trainer="grpo-off", **settings)
    assert "add it to the records, or do not use the setting" in str(error.value)


def test_records_without_parts_are_refused_where_parts_are_normalized(
    tiny_model: Path, tmp_path: Path, records: list[Rollout]
) -> None:
    write_rollouts(tmp_path / "r.parquet", records)
    with pytest.raises(DataError, match=r"36 no score that is a weighted sum, which trainer\.normalize_parts needs"):
        plan_of(tiny_model, tmp_path / "r.parquet", trainer="grpo-off", trainer__normalize_parts=True)


@pytest.mark.parametrize(
    "settings",
    [
        {"trainer__advantage": "opmd"},
        {"trainer__overlong_buffer": 0.2},
        {"trainer__ess_base": 0.5},
        {"trainer__ratio": "geometric"},
        {"trainer__correction": "sequence_tis"},
        {"trainer__masks": ["opsm"]},
        {"trainer__masks": ["cppo"]},
    ],
)
@pytest.mark.parametrize("skip", [False, True])
def test_segments_are_refused_where_a_setting_looks_at_whole_rollouts(
    tiny_model: Path, tmp_path: Path, records: list[Rollout], settings: dict[str, Any], skip: bool
) -> None:
    further = records[0].model_copy(update={"segment": 1})
    write_rollouts(tmp_path / "r.parquet", [records[0], further, *records[1:]])
    with plan_of(tiny_model, tmp_path / "r.parquet", trainer="grpo-off"):
        pass
    (name,) = (key.removeprefix("trainer__") for key in settings)
    with pytest.raises(RequestError, match=rf"^trainer.{name}.* needs whole rollouts, but 1 saved records are further"):
        plan_of(tiny_model, tmp_path / "r.parquet", trainer="grpo-off", rollouts__skip_unusable=skip, **settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": None, "rollouts__epochs": 1}, "rollouts.epochs counts passes over saved rollouts"),
        ({"rollouts__files": ["x.parquet"], "replay__share": 0.5}, "replay.share: there is nothing to replay"),
        (
            {"rollouts__files": ["x.parquet"], "sampling__refill": True},
            "sampling.refill: .*--set sampling.refill=false",
        ),
        ({"rollouts__files": ["x.parquet"], "rollouts__share": 0.6, "replay__share": 0.4}, "at least one must be samp"),
        ({"replay__share": 0.9}, "at least one must be sampled"),
        ({"steps": 3, "rollouts__epochs": 2}, "steps and rollouts.epochs both set the length"),
    ],
)
def test_settings_that_contradict_each_other(tiny_model: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_runs.small_config(tiny_model, **changes)


def test_training_from_files_keeps_every_weight_finite_and_moves_them(
    tiny_model: Path, tmp_path: Path, sampled: Path
) -> None:
    config = small_runs.small_config(
        tiny_model, rollouts__files=[str(sampled)], rollouts__share=0.34, trainer="grpo-off", steps=2, eval__questions=2
    )
    small_runs.start(config, tmp_path / "run")
    lines = small_runs.metrics_of(tmp_path / "run")
    assert [line["saved/groups"] for line in lines] == [1, 1]
    assert len(list(read_rollouts(tmp_path / "run" / "rollouts"))) == 2 * 2 * 4, "two of three groups are sampled"
    state = small_runs.final_state(tmp_path / "run")
    weights = [torch.frombuffer(bytearray(v), dtype=torch.float32) for k, v in state.items() if k.startswith("model.")]
    assert all(bool(torch.isfinite(w).all()) for w in weights)


def test_scores_may_come_from_a_sidecar(tiny_model: Path, tmp_path: Path, records: list[Rollout]) -> None:
    bare, beside = tmp_path / "bare.parquet", tmp_path / "beside.jsonl"
    write_rollouts(bare, [record.model_copy(update={"scores": ()}) for record in records])
    rows = [{"id": record.id, "segment": record.segment, "scores": to_dicts(record)} for record in records]
    beside.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_rollouts(tmp_path / "whole.parquet", records)
    with (
        plan_of(tiny_model, bare, rollouts__scores=[str(beside)]) as plan,
        plan_of(tiny_model, tmp_path / "whole.parquet") as whole,
    ):
        assert plan.saved.members == len(records)
        assert [plan.saved.group(i) for i in range(9)] == [whole.saved.group(i) for i in range(9)]
        assert set(plan.saved.digests()) == {str(bare), str(beside)}
    beside.write_text('{"id": "x", "scores": [{"status": "graded"}]}\n')
    with pytest.raises(DataError, match=r"beside\.jsonl has none of the ids of the rows"):
        plan_of(tiny_model, tmp_path / "whole.parquet", rollouts__scores=[str(beside)])
    with pytest.raises(ConfigError, match=r"rollouts\.scores are of saved rollouts"):
        make_plan(small_runs.small_config(tiny_model, rollouts__scores=[str(beside)]))


def to_dicts(record: Rollout) -> list[dict[str, Any]]:
    return [score.model_dump(mode="json") for score in record.scores]
