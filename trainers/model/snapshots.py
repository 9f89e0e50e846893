"""Snapshots of transformers models: weights by checkpoint name, on their way from a trainer to a sampler.

A model's parameters may have other names and shapes than its checkpoint: transformers fuses the experts of a mixture,
for example, when it loads one, and splits them again when it saves. Snapshots have the checkpoint's names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from rlvr.errors import RunError
from rlvr.protocols import Snapshot, TensorLayout


def snapshot_of(
    model: PreTrainedModel,
    version: int,
    state: Mapping[str, Tensor] | None = None,
    merge: Callable[[str, Tensor], Tensor] = lambda name, tensor: tensor,
) -> Snapshot:
    """Return a snapshot of a model, which holds what `save_pretrained` would write.

    Args:
        model: Says how parameters are named in its checkpoint.
        version: Optimizer steps completed.
        state: Parameters by name, instead of the model's own `state_dict`.
        merge: Maps (name, parameter) to the value to send, of the same shape and dtype; called when it is read.
    """
    own, shared = _untied(model, model.state_dict() if state is None else state)
    layout, one_by_one = _layout(model, own)

    def read() -> Iterator[tuple[str, Tensor]]:
        if one_by_one:
            for name, tensor in own.items():
                yield from _checkpoint(model, {name: merge(name, tensor).detach()}).items()
        else:
            yield from _checkpoint(model, {name: merge(name, tensor).detach() for name, tensor in own.items()}).items()

    tied = {_first_name(model, name, own[source]): _first_name(model, source, own[source]) for name, source in shared}
    return Snapshot(version, layout, tied, read)


def snapshot_from(tensors: Mapping[str, Tensor], version: int) -> Snapshot:
    """Return a snapshot of tensors that have checkpoint names already, such as those of a file."""
    return Snapshot(version, _layout_of(tensors.items()), {}, lambda: iter(tensors.items()))


def check_snapshot(model: PreTrainedModel, snapshot: Snapshot) -> None:
    """Raise RunError if names or shapes are not those of the model's checkpoint. The model may be on "meta"."""
    own, shared = _untied(model, model.state_dict(keep_vars=True))
    expected, _ = _layout(model, own)
    _check_layout(snapshot, expected, {_first_name(model, name, own[source]) for name, source in shared})


def spelled_out(snapshot: Snapshot) -> Iterator[tuple[str, Tensor]]:
    """Yield (checkpoint name, tensor), and each tied parameter after its source: an engine may hold a copy of its own.

    vLLM keeps the old output layer if `lm_head.weight` is left out, up to 2.8 nats off.
    """
    followers: dict[str, list[str]] = {}
    for name, source in snapshot.tied.items():
        followers.setdefault(source, []).append(name)
    for source, tensor in snapshot.tensors():
        for name in (source, *followers.get(source, ())):
            yield name, tensor


@torch.no_grad()
def load_snapshot(model: PreTrainedModel, snapshot: Snapshot) -> None:
    """Copy a snapshot into a model, in the model's own dtype.

    Raises RunError, with nothing changed, if names or shapes are not those of the model's checkpoint.
    """
    state = model.state_dict()
    own, shared = _untied(model, state)
    expected, _ = _layout(model, own)
    _check_layout(snapshot, expected, {_first_name(model, name, own[source]) for name, source in shared})
    # What is tied where it was trained may have memory of its own here.
    named = ((name, tensor) for name, tensor in spelled_out(snapshot) if name in expected or name in snapshot.layout)
    if all(name in own and own[name].shape == layout.shape for name, layout in expected.items()):
        for name, tensor in named:
            state[name].copy_(tensor)
        return
    # The checkpoint's tensors are not the model's: transformers converts them, into a second copy of the model.
    tensors = {name: tensor.clone() for name, tensor in named if name in expected}
    loader: Any = type(model)
    converted = loader.from_pretrained(None, config=model.config, state_dict=tensors, dtype=model.dtype)
    for name, tensor in converted.state_dict().items():
        state[name].copy_(tensor)


def _check_layout(snapshot: Snapshot, expected: Mapping[str, TensorLayout], tied: Iterable[str]) -> None:
    given, version = snapshot.layout, snapshot.version
    missing = [name for name in expected if snapshot.tied.get(name, name) not in given]
    if missing:
        raise RunError(f"weights of version {version} lack {_names(missing)}; nothing was changed")
    unexpected = [name for name in given if name not in {*expected, *tied}]
    if unexpected:
        raise RunError(f"weights of version {version} hold {_names(unexpected)}, which the sampler's model lacks")
    for name, layout in given.items():
        if name in expected and layout.shape != expected[name].shape:
            raise RunError(
                f"weights of version {version}: {name!r} has the shape {layout.shape}, in the sampler's model "
                f"{expected[name].shape}; it is another model"
            )


def _untied(model: PreTrainedModel, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[tuple[str, str]]]:
    """Return the parameters that have memory of their own, and (name, source) for those that share it."""
    ignored = set(model._keys_to_ignore_on_save or ())
    own: dict[str, Tensor] = {}
    first: dict[tuple[Any, ...], str] = {}
    shared = []
    for name, tensor in state.items():
        if name in ignored:
            continue
        place = id(tensor) if tensor.is_meta else tensor.data_ptr()  # nothing on "meta" has an address
        source = first.setdefault((place, tensor.shape, tensor.stride()), name)
        if source == name or tensor.numel() == 0:
            own[name] = tensor
        else:
            shared.append((name, source))
    return own, shared


def _checkpoint(model: PreTrainedModel, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the checkpoint's tensors for some of a model's parameters."""
    converted: dict[str, Tensor] = revert_weight_conversion(model, state)
    return converted


def _on_meta(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.empty_like(tensor, device="meta") for name, tensor in state.items()}


def _layout(model: PreTrainedModel, own: Mapping[str, Tensor]) -> tuple[dict[str, TensorLayout], bool]:
    """Return the checkpoint's layout, and whether every parameter can be converted without the others."""
    meta = _on_meta(own)
    whole = _checkpoint(model, dict(meta))
    parts = [pair for name in meta for pair in _checkpoint(model, {name: meta[name]}).items()]
    one_by_one = len(parts) == len(whole) and all(
        name in whole and tensor.shape == whole[name].shape for name, tensor in parts
    )
    return _layout_of(parts if one_by_one else whole.items()), one_by_one


def _layout_of(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, TensorLayout]:
    return {name: TensorLayout(str(t.dtype).removeprefix("torch."), tuple(t.shape)) for name, t in tensors}


def _first_name(model: PreTrainedModel, name: str, tensor: Tensor) -> str:
    return next(iter(_checkpoint(model, _on_meta({name: tensor}))))


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
