"""Answers are routed by id, whatever their order."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import small_runs
from rlvr.errors import RunError
from rlvr.protocols import GroupRequest, Prompt, SampledGroup, Snapshot
from rlvr.record.schema import SamplingParams, Task
from rlvr.run.mailbox import Mailbox
from rlvr.run.plan import make_plan
from rlvr.run.rundir import RunDirectory
from rlvr.run.sampled import request
from rlvr.testing import FakeSampler, FakeSamplerOptions

PARAMS = SamplingParams(max_tokens=6)


def requests(name: str, count: int = 6, size: int = 2) -> list[GroupRequest]:
    prompt = Prompt(Task(), text="1+1=")
    return [GroupRequest(f"{name}{i}", prompt, (1, 2), size, PARAMS, (name, i)) for i in range(count)]


def mailbox(**options: Any) -> tuple[Mailbox, FakeSampler]:
    sampler = FakeSampler(options=FakeSamplerOptions(**options))
    return Mailbox(sampler), sampler


def ids(groups: Sequence[SampledGroup]) -> list[str]:
    return [group.request.group_id for group in groups]


@pytest.mark.parametrize(
    "options",
    [{}, {"reversed_order": True}, {"late": 0.5}, {"duplicated": 1.0}, {"per_collect": 1, "late": 0.3}],
    ids=str,
)
def test_every_request_is_answered_once_in_whatever_order(options: dict[str, Any]) -> None:
    box, _ = mailbox(**options)
    asked = requests("a")
    found = list(box.ask(asked))
    assert sorted(ids(found)) == sorted(request.group_id for request in asked)
    assert all(len(group.samples) == 2 for group in found)


def test_two_askers_share_a_sampler_with_groups_in_flight() -> None:
    """An answer for one that arrives while the other waits is kept."""
    box, sampler = mailbox(per_collect=1)
    training = box.submit(requests("train"))
    first = training.collect()
    evaluation = list(box.ask(requests("eval", 3)))
    assert sorted(ids(evaluation)) == ["eval0", "eval1", "eval2"]
    assert sampler.collect() == [], "training's groups came before, and wait"
    rest = training.collect()
    assert sorted(ids([*first, *rest])) == [f"train{i}" for i in range(6)]
    assert not training.outstanding


def test_answers_that_come_twice_are_dropped_and_counted() -> None:
    box, _ = mailbox(duplicated=1.0, per_collect=2)
    assert len(list(box.ask(requests("a", 4)))) == 4
    list(box.ask(requests("b", 1)))
    assert box.discarded["duplicate"] >= 4


def test_late_answers_to_what_was_cancelled_are_dropped_and_counted() -> None:
    box, sampler = mailbox(ignores_cancel=True)
    ticket = box.submit(requests("a", 3))
    ticket.cancel()
    assert not ticket.outstanding
    assert sampler.cancelled == ["a0", "a1", "a2"]
    assert len(list(box.ask(requests("b", 2)))) == 2
    assert box.discarded == {"late": 3}


def test_leaving_off_in_the_middle_cancels_the_rest() -> None:
    box, sampler = mailbox(per_collect=1)
    answers = box.ask(requests("a", 4))
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert sampler.cancelled == ["a1", "a2", "a3"]
    assert sampler.collect() == []
    list(box.ask(requests("a", 4)))  # the ids are free again


def test_a_timeout_returns_what_is_there() -> None:
    box, _ = mailbox(late=1.0)
    ticket = box.submit(requests("a", 2))
    assert ticket.collect(timeout=0.0) == []
    assert ticket.outstanding
    assert ids(ticket.collect()) == ["a0", "a1"]


def test_an_id_in_flight_is_not_asked_again() -> None:
    box, _ = mailbox()
    box.submit(requests("a", 2))
    with pytest.raises(ValueError, match="group a1 is in flight already"):
        box.submit(requests("a", 2)[1:])
    with pytest.raises(ValueError, match="the same group id"):
        box.submit(requests("b", 1) * 2)


class Wrong(FakeSampler):
    """Changes what it returns."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self._change = change

    def collect(self, timeout: float | None = None) -> list[SampledGroup]:
        return [self._change(group) for group in super().collect(timeout)]


def renamed(group: SampledGroup) -> SampledGroup:
    return replace(group, request=replace(group.request, group_id="stranger"))


def rewritten(group: SampledGroup) -> SampledGroup:
    return replace(group, request=replace(group.request, prompt_ids=(9,)))


def more(group: SampledGroup) -> SampledGroup:
    return replace(group, samples=group.samples * 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed, "the sampler has returned group stranger, which it was not asked for"),
        (rewritten, "the sampler has answered another request under the id of group a0"),
        (more, "the sampler has returned 4 samples for group a0, which asked for 2"),
    ],
)
def test_a_wrong_answer_is_an_error(change: Any, message: str) -> None:
    box = Mailbox(Wrong(change))
    with pytest.raises(RunError, match=message):
        list(box.ask(requests("a", 2)))


class Forgetful(FakeSampler):
    def submit(self, requests: Sequence[GroupRequest]) -> None:
        super().submit(requests[:-1])


def test_a_sampler_that_ends_early_is_an_error() -> None:
    with pytest.raises(RunError, match="the sampler has returned 2 of 3 groups and has no more"):
        list(Mailbox(Forgetful()).ask(requests("a", 3)))


def test_an_evaluation_runs_while_groups_of_training_are_in_flight(tiny_model: Path, tmp_path: Path) -> None:
    """In a real run, on the real sampler."""
    config = small_runs.small_config(tiny_model, steps=1)
    with make_plan(config) as plan, RunDirectory.create(tmp_path / "run", plan.config) as directory:
        run = small_runs.Run(plan, directory, small_runs.Silent())
        assert run.mailbox is not None
        assert plan.prompts is not None
        prompts = plan.prompts.take(3)
        plan.prompts.seek(0)
        asked = [request(f"early-{p.position}", p, 4, config.sampling.params, p.position) for p in prompts]
        ticket = run.mailbox.submit(asked)
        run.train()
        assert sorted(ids(ticket.collect())) == ["early-0", "early-1", "early-2"]
    (line,) = small_runs.metrics_of(tmp_path / "run")
    assert line["eval/policy_version"] == 1


class Hoarding(FakeSampler):
    """Records its calls."""

    def sync(self, snapshot: Snapshot) -> None:
        assert list(snapshot.layout)
        super().sync(snapshot)

    def cancel(self, ids: Collection[str]) -> None:
        raise AssertionError("nothing is cancelled in a run that ends well")


@pytest.mark.parametrize(
    "options", [{"reversed_order": True, "per_collect": 1}, {"late": 0.5}, {"duplicated": 0.5}], ids=str
)
def test_a_run_is_the_same_in_whatever_order_answers_come(
    tiny_model: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    config = small_runs.small_config(tiny_model, trainer="grpo-off", trainer__push_every=2, steps=4, **small_runs.FAKE)

    def run(path: Path, **given: Any) -> list[dict[str, Any]]:
        with make_plan(config) as plan, RunDirectory.create(path, plan.config) as directory:
            plan.sampler, plan.sampler_options = Hoarding, FakeSamplerOptions(**given)
            assert small_runs.Run(plan, directory, small_runs.Silent()).train().finished
        return [
            {key: value for key, value in line.items() if not key.startswith("answers/")}
            for line in small_runs.timeless(path)
        ]

    assert run(tmp_path / "odd", **options) == run(tmp_path / "plain")
    assert small_runs.final_state(tmp_path / "odd") == small_runs.final_state(tmp_path / "plain")
    counted = any(line["answers/duplicate"] > 0 for line in small_runs.metrics_of(tmp_path / "odd"))
    assert counted == ("duplicated" in options)
