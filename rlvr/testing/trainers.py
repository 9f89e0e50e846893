"""`check_trainer`: the rules of the `Trainer` protocol, tried on a trainer."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr.errors import RunError
from rlvr.protocols import Group, Trainer

if TYPE_CHECKING:
    from torch import Tensor


def check_trainer(make: Callable[[], Trainer], groups: Sequence[Group], directory: Path) -> None:
    """Assert that a trainer keeps the protocol.

    Versions count optimizer steps; an empty batch changes nothing; log-probabilities stand where the loss mask is
    True; a snapshot has the names, shapes and values of the saved checkpoint; a loaded trainer continues bitwise.

    Args:
        make: Returns a new trainer, each time in the same state.
        groups: A batch that it can learn from.
        directory: An empty folder that the check may write to.

    Raises AssertionError with the rule that is broken.
    """
    trainer = make()
    _hold(trainer.version == 0, f"a new trainer is at version 0, not {trainer.version}")
    _check_logprobs(trainer, groups)
    _check_snapshot(trainer)
    _check_update(trainer, groups)
    _check_empty_batch(trainer)
    _check_refusal(trainer, groups)
    _check_saving(trainer, make, groups, directory)


def _check_update(trainer: Trainer, groups: Sequence[Group]) -> None:
    before, version = _copy(trainer), trainer.version
    metrics = trainer.update(groups)
    for name, value in metrics.items():
        _hold(isinstance(value, int | float), f"metric {name!r} is a number, not {value!r}")
    for name in ("signal/groups", "train/optimizer_steps"):
        _hold(name in metrics, f"update returns the metric {name!r}, which alarms look at")
    steps = metrics["train/optimizer_steps"]
    _hold(steps >= 1, "update takes an optimizer step on a batch that can be learned from")
    _hold(trainer.version == version + steps, "the version grows by one with each optimizer step")
    _hold(not _equal(before, _copy(trainer)), "an optimizer step changes the weights")


def _check_empty_batch(trainer: Trainer) -> None:
    before, version = _copy(trainer), trainer.version
    trainer.update(())
    _hold(trainer.version == version, "an empty batch takes no optimizer step")
    _hold(_equal(before, _copy(trainer)), "an empty batch changes no weight")


def _check_logprobs(trainer: Trainer, groups: Sequence[Group]) -> None:
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    _hold(list(trainer.logprobs([])) == [], "logprobs of no rollouts is empty")
    columns = trainer.logprobs(rollouts)
    _hold(len(columns) == len(rollouts), "logprobs returns a column for each rollout")
    for rollout, column in zip(rollouts, columns, strict=True):
        mask = [] if rollout.loss_mask is None else rollout.loss_mask.tolist()
        values = list(column)
        _hold(len(values) == len(mask), f"logprobs of {rollout.id} has an entry for each token")
        for t, (sampled, value) in enumerate(zip(mask, values, strict=True)):
            _hold(
                math.isnan(value) != sampled, f"logprobs[{t}] of {rollout.id} is known exactly where loss_mask is True"
            )
            if sampled:
                _hold(-math.inf < value <= 1e-4, f"logprobs[{t}] of {rollout.id} is finite and at most 0, not {value}")


def _check_snapshot(trainer: Trainer) -> None:
    snapshot = trainer.snapshot()
    _hold(snapshot.version == trainer.version, "a snapshot has the trainer's version")
    _hold(bool(snapshot.layout), "a snapshot's layout names the weights")
    for _ in range(2):
        found = [(name, str(t.dtype).removeprefix("torch."), tuple(t.shape)) for name, t in snapshot.tensors()]
        told = [(name, entry.dtype, entry.shape) for name, entry in snapshot.layout.items()]
        _hold(found == told, "a snapshot yields the tensors of its layout, in its order, as often as it is read")
    for name, source in snapshot.tied.items():
        _hold(name not in snapshot.layout, f"{name}, which is tied, is not in the layout")
        _hold(source in snapshot.layout, f"{source}, to which {name} is tied, is in the layout")


def _check_refusal(trainer: Trainer, groups: Sequence[Group]) -> None:
    group = groups[0]
    without = tuple(
        rollout.model_copy(update={"token_ids": None, "loss_mask": None, "behaviour_logprobs": None})
        for rollout in group.rollouts
    )
    try:
        trainer.update([Group(without, group.rewards, group.stats)])
    except RunError:
        return
    raise AssertionError("check_trainer: update refuses (RunError) a rollout that it cannot learn from, without tokens")


def _check_saving(trainer: Trainer, make: Callable[[], Trainer], groups: Sequence[Group], directory: Path) -> None:
    folder = directory / "checkpoint"
    folder.mkdir()
    trainer.save(folder)
    written = saved_layout(folder)
    told = {name: entry.shape for name, entry in trainer.snapshot().layout.items()}
    _hold(bool(written), "save writes a model as safetensors that from_pretrained reads")
    _hold(told == written, "a snapshot has the names and shapes of the saved checkpoint")
    resumed = make()
    resumed.load(folder)
    _hold(resumed.version == trainer.version, "a loaded trainer has the version that was saved")
    _hold(_equal(_copy(trainer), _copy(resumed)), "a loaded trainer has the weights that were saved")
    trainer.update(groups)
    resumed.update(groups)
    _hold(_equal(_copy(trainer), _copy(resumed)), "a loaded trainer learns bitwise as the saved one would have")


def saved_layout(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return checkpoint name -> shape for the model files in a folder, read from the headers of its safetensors."""
    found: dict[str, tuple[int, ...]] = {}
    for file in folder.glob("model*.safetensors"):
        with file.open("rb") as stream:
            header: dict[str, Any] = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        found |= {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    return found


def _copy(trainer: Trainer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.snapshot().tensors()}


def _equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(bool((tensor == b[name]).all()) for name, tensor in a.items())


def _hold(true: bool, rule: str) -> None:
    if not true:
        raise AssertionError(f"check_trainer: {rule}")
