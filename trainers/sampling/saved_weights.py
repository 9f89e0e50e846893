"""State of a sampler in a checkpoint: the weights that it holds and their version."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from rlvr.errors import RunError
from rlvr.protocols import Snapshot

from ..model.snapshots import snapshot_from

WEIGHTS, STATE = "weights.safetensors", "sampler.json"


def save_weights(
    directory: Path,
    version: int,
    tensors: Mapping[str, Tensor],
    tied: Mapping[str, str] | None = None,
    lora: Mapping[str, Any] | None = None,
) -> None:
    """Write weights by checkpoint name; none if the sampler still holds those that it loaded.

    `lora` is the configuration of an adapter, if the weights are one.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if tensors:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, directory / WEIGHTS)
    state = {"version": version, "synced": bool(tensors), "tied": dict(tied or {}), "lora": lora}
    (directory / STATE).write_text(json.dumps(state))


def load_weights(directory: Path, device: str = "cpu") -> Snapshot | None:
    """Return the weights that were saved; None if they were those that the sampler had loaded.

    Raises RunError if nothing was saved.
    """
    try:
        saved = json.loads((directory / STATE).read_text())
        if not saved.get("synced", True):  # checkpoints of older versions always hold weights
            return None
        weights = load_file(directory / WEIGHTS, device=device)
    except FileNotFoundError as error:
        raise RunError(f"no saved sampler in {str(directory)!r}: {error.filename or error} is missing") from error
    return replace(snapshot_from(weights, saved["version"]), tied=saved.get("tied", {}), lora=saved.get("lora"))
