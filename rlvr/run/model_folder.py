"""A model's folder for `from_pretrained`: weights in a dtype of choice, with configuration and tokenizer.

Tensors are written one after another, in files of at most `SHARD_BYTES`, so the model is never held twice.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from rlvr.errors import RequestError
from rlvr.protocols import ModelSpec, Snapshot
from rlvr.run.models import load_configuration, load_tokenizer, model_file

if TYPE_CHECKING:
    from torch import Tensor

DType: TypeAlias = Literal["float32", "bfloat16", "float16"]
SHARD_BYTES = 5 * 10**9
INDEX = "model.safetensors.index.json"
BESIDE_WEIGHTS = (
    *("config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.*", "merges.txt", "chat_template*", "*.model", "*.tiktoken", "tekken.json", "*.py"),
)
"""Patterns of the files that `from_pretrained` reads besides weights."""


def write_model(snapshot: Snapshot, spec: ModelSpec, folder: Path, dtype: DType) -> None:
    """Write a snapshot of the model `spec` as a folder for `from_pretrained`."""
    folder.mkdir(parents=True, exist_ok=True)
    load_configuration(spec).save_pretrained(folder)
    load_tokenizer(spec).save_pretrained(folder)
    if (generation := model_file(spec, "generation_config.json")) is not None:
        shutil.copyfile(generation, folder / "generation_config.json")
    write_weights(snapshot.tensors(), folder, dtype)
    _name_dtype(folder, dtype)


def convert_model(source: Path, folder: Path, dtype: DType, shard_bytes: int = SHARD_BYTES) -> None:
    """Write the model in `source` into another folder, in another dtype. Raises RequestError if it has no weights."""
    copy_beside_weights(source, folder)
    write_weights(_tensors_of(source), folder, dtype, shard_bytes)
    _name_dtype(folder, dtype)


def copy_beside_weights(source: Path, folder: Path) -> None:
    """Copy configuration, tokenizer and code of a model."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted({file for pattern in BESIDE_WEIGHTS for file in source.glob(pattern)}):
        shutil.copyfile(file, folder / file.name)


def write_weights(
    tensors: Iterable[tuple[str, Tensor]], folder: Path, dtype: DType, shard_bytes: int = SHARD_BYTES
) -> None:
    """Write tensors as `model.safetensors`, or as shards with an index. Integers keep their dtype."""
    import torch
    from safetensors.torch import save_file

    kind = getattr(torch, dtype)
    shards: list[list[str]] = []
    shard: dict[str, Tensor] = {}
    total = 0

    def end_shard() -> None:
        save_file(shard, folder / f"part-{len(shards)}.safetensors", metadata={"format": "pt"})
        shards.append(list(shard))
        shard.clear()

    for name, tensor in tensors:
        own = tensor.detach().to("cpu", kind if tensor.is_floating_point() else tensor.dtype).contiguous()
        if shard and sum(map(_bytes, shard.values())) + _bytes(own) > shard_bytes:
            end_shard()
        shard[name] = own
        total += _bytes(own)
    end_shard()
    names = [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    if len(shards) == 1:
        names = ["model.safetensors"]
    else:
        places = {name: file for file, held in zip(names, shards, strict=True) for name in held}
        text = json.dumps({"metadata": {"total_size": total}, "weight_map": places}, indent=2)
        (folder / INDEX).write_text(text + "\n", encoding="utf-8")
    for n, name in enumerate(names):
        (folder / f"part-{n}.safetensors").rename(folder / name)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _tensors_of(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a model's folder by name, one at a time. Raises RequestError if there is none."""
    from safetensors import safe_open

    index = folder / INDEX
    if index.is_file():
        files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        files = ["model.safetensors"]
    for name in files:
        if not (folder / name).is_file():
            raise RequestError(f"{folder} holds no weights to export: {name} is missing")
        with safe_open(folder / name, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118  # it is no mapping
                yield key, tensors.get_tensor(key)


def _name_dtype(folder: Path, dtype: DType) -> None:
    """Have `config.json` name the dtype of the weights."""
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config.pop("torch_dtype", None)  # the name until transformers 5
    file.write_text(json.dumps({**config, "dtype": dtype}, indent=2) + "\n", encoding="utf-8")
