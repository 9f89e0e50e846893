"""The built-in sampler and trainers pass the checks of `rlvr.testing`, and broken ones fail them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from rlvr.protocols import Group, Metrics, ModelSpec, Snapshot, TensorLayout, TrainContext
from rlvr.record.schema import Rollout
from rlvr.testing import check_sampler, check_trainer
from rlvr_trainers.grpo import Grpo, GrpoOptions
from rlvr_trainers.grpo_off import GrpoOff, GrpoOffOptions
from rlvr_trainers.model.snapshots import snapshot_of
from rlvr_trainers.sampling.hf_sampler import HFSampler, HFSamplerOptions

LR = 1e-2


def context(path: Path) -> TrainContext:
    return TrainContext(ModelSpec(str(path), device="cpu", dtype="float32"), seed=0, temperature=0.7, total_updates=4)


@pytest.fixture(scope="module")
def groups(oracle: ModuleType, tiny_model: Path) -> list[Group]:
    found: list[Group] = oracle.Oracle(tiny_model).groups(3, [[0.0, 1.0, 1.0], [1.0, 0.0]], noise=0.1)
    return found


@pytest.mark.parametrize("name", ["tiny_model", "awkward_model"])
def test_the_sampler_on_transformers_passes(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    spec = ModelSpec(str(request.getfixturevalue(name)), device="cpu", dtype="float32")
    held = HFSampler(spec, HFSamplerOptions())
    check_sampler(lambda: HFSampler(spec, HFSamplerOptions()), snapshot_of(held.model, 0), tmp_path)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: Grpo(GrpoOptions(lr=LR), context(path)),
        lambda path: GrpoOff(GrpoOffOptions(lr=LR, beta=0.1, updates_per_batch=2), context(path)),
        lambda path: Grpo(GrpoOptions(lr=LR, lora={"rank": 2, "alpha": 4}), context(path)),
    ],
    ids=["grpo", "grpo-off", "adapter"],
)
def test_the_trainers_pass(make: Callable[[Path], Grpo], tiny_model: Path, groups: list[Group], tmp_path: Path) -> None:
    check_trainer(lambda: make(tiny_model), groups, tmp_path)


class Ahead(Grpo):
    @property
    def version(self) -> int:
        return self.policy.version + 1


class Silent(Grpo):
    def update(self, groups: Sequence[Group]) -> Metrics:
        return {name: value for name, value in super().update(groups).items() if name != "signal/groups"}


class Wordy(Grpo):
    def update(self, groups: Sequence[Group]) -> Metrics:
        return {**super().update(groups), "note": "fine"}  # type: ignore[dict-item]


class Miscounting(Grpo):
    def update(self, groups: Sequence[Group]) -> Metrics:
        metrics = super().update(groups)
        return {**metrics, "train/optimizer_steps": metrics["train/optimizer_steps"] * 2}


class Lazy(Grpo):
    def update(self, groups: Sequence[Group]) -> Metrics:
        return {**super().update(()), "train/optimizer_steps": 0.0}


class Still(Grpo):
    def update(self, groups: Sequence[Group]) -> Metrics:
        held = {name: tensor.clone() for name, tensor in self.policy.weights().items()}
        metrics = super().update(groups)
        self.policy.model.load_state_dict(held)
        return metrics


class Restless(Grpo):
    def update(self, groups: Sequence[Group]) -> Metrics:
        if not groups:
            with torch.no_grad():
                next(iter(self.policy.parameters)).add_(1.0)
        return super().update(groups)


class Shifted(Grpo):
    def logprobs(self, rollouts: Sequence[Rollout]) -> Any:
        return [(*column[1:], column[0]) for column in super().logprobs(rollouts)]


class Short(Grpo):
    def logprobs(self, rollouts: Sequence[Rollout]) -> Any:
        return [column[:-1] for column in super().logprobs(rollouts)]


class Positive(Grpo):
    def logprobs(self, rollouts: Sequence[Rollout]) -> Any:
        return [-column for column in super().logprobs(rollouts)]


class OldSnapshot(Grpo):
    def snapshot(self) -> Snapshot:
        return replace(super().snapshot(), version=super().snapshot().version + 7)


class WrongLayout(Grpo):
    def snapshot(self) -> Snapshot:
        held = super().snapshot()
        name = next(iter(held.layout))
        return replace(held, layout={**held.layout, name: TensorLayout("float32", (1,))})


class OnceOnly(Grpo):
    def snapshot(self) -> Snapshot:
        held = super().snapshot()
        tensors = held.tensors()
        return replace(held, read=lambda: tensors)


class OwnNames(Grpo):
    def snapshot(self) -> Snapshot:
        held = super().snapshot()

        def read() -> Iterator[tuple[str, Tensor]]:
            return ((f"module.{name}", tensor) for name, tensor in held.tensors())

        return replace(
            held, layout={f"module.{name}": entry for name, entry in held.layout.items()}, tied={}, read=read
        )


class Permissive(Grpo):
    def update(self, groups: Sequence[Group]) -> Metrics:
        usable = all(rollout.token_ids is not None for group in groups for rollout in group.rollouts)
        return super().update(groups if usable else ())


class Amnesiac(Grpo):
    def load(self, directory: Path) -> None:
        super().load(directory)
        self.policy.optimizer.state.clear()


class VersionLost(Grpo):
    def load(self, directory: Path) -> None:
        super().load(directory)
        self.policy.version = 0


@pytest.mark.parametrize(
    ("made", "rule"),
    [
        (Ahead, "a new trainer is at version 0, not 1"),
        (Silent, "update returns the metric 'signal/groups', which alarms look at"),
        (Wordy, "metric 'note' is a number, not 'fine'"),
        (Miscounting, "the version grows by one with each optimizer step"),
        (Lazy, "update takes an optimizer step on a batch that can be learned from"),
        (Still, "an optimizer step changes the weights"),
        (Restless, "an empty batch changes no weight"),
        (Shifted, "is known exactly where loss_mask is True"),
        (Short, "has an entry for each token"),
        (Positive, "is finite and at most 0"),
        (OldSnapshot, "a snapshot has the trainer's version"),
        (WrongLayout, "a snapshot yields the tensors of its layout"),
        (OnceOnly, "a snapshot yields the tensors of its layout, in its order, as often as it is read"),
        (OwnNames, "a snapshot has the names and shapes of the saved checkpoint"),
        (Permissive, "update refuses .* a rollout that it cannot learn from"),
        (Amnesiac, "a loaded trainer learns bitwise as the saved one would have"),
        (VersionLost, "a loaded trainer has the version that was saved"),
    ],
)
def test_a_broken_trainer_fails(
    made: type[Grpo], rule: str, tiny_model: Path, groups: list[Group], tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match=f"check_trainer: .*{rule}"):
        check_trainer(lambda: made(GrpoOptions(lr=LR), context(tiny_model)), groups, tmp_path)
