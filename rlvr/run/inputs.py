"""Hashes of the inputs that a resumed run reads again: prompts and model files."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from rlvr.files import sha256
from rlvr.protocols import ModelSpec, PromptSource
from rlvr.run.models import model_file, reaching

MODEL_FILES = (
    "config.json", "generation_config.json", "adapter_config.json", "*.index.json", "*token*.json", "vocab*",
    "merges.txt", "*.model", "*.tiktoken", "chat_template*", "*.py",
)  # fmt: skip
"""Files of a model directory, besides its weights, that affect how prompts are encoded and completions end."""


def prompt_digests(source: PromptSource | None, data_files: Iterable[Path]) -> dict[str, str]:
    """Return the source's own digests, and file -> SHA-256 for the local files that it was given."""
    if source is None:
        return {}
    found = dict(source.digests())
    for file in _files(data_files):
        if str(file) not in found:
            found[str(file)] = sha256(file)
    return found


def _files(patterns: Iterable[Path]) -> Iterator[Path]:
    """Yield the absolute paths of files that paths, folders and patterns name."""
    for pattern in patterns:
        for path in [pattern] if pattern.exists() else map(Path, sorted(glob.glob(str(pattern)))):
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file():
                    yield file.absolute()


def model_digests(models: Mapping[str, ModelSpec]) -> dict[str, str]:
    """Return values that identify each model, apart from its weights (see `local_weights_hash`).

    That is the SHA-256 of each of its `MODEL_FILES` for a local directory, and the commit for a name of the hub.
    """
    found: dict[str, str] = {}
    for role, spec in models.items():
        folder = Path(spec.path)
        if folder.is_dir():
            files = sorted({file for pattern in MODEL_FILES for file in folder.glob(pattern) if file.is_file()})
            found |= {f"{role} {file.name}": sha256(file) for file in files}
        elif (commit := _hub_commit(spec)) is not None:
            found[f"{role} commit of {spec.path}"] = commit
    return found


def _hub_commit(spec: ModelSpec) -> str | None:
    """Return the commit that a name of the hub stands for now; None if the cache does not tell."""
    with reaching(spec):
        file = model_file(spec, "config.json")
    folder = None if file is None else Path(file).parent
    return None if folder is None or folder.parent.name != "snapshots" else folder.name
