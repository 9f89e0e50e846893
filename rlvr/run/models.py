"""Tokenizers, configurations and identities of models, without torch. transformers is imported when needed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from rlvr.data.hub import unreachable
from rlvr.errors import RequestError
from rlvr.files import from_json, sha256
from rlvr.protocols import ModelSpec
from rlvr.record.schema import ModelRef, digest

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    Tokenizer: TypeAlias = PreTrainedTokenizerBase

LENGTH_DEPENDENT = ("longrope", "dynamic")
"""Kinds of rotary embedding whose frequencies depend on the length of the sequence."""


TOKENIZER_FILES = ("tokenizer*", "vocab.*", "*.model", "*.tiktoken", "tekken.json")
"""Patterns of the files that a tokenizer is read from. Without any, AutoTokenizer makes an empty one."""


def load_tokenizer(spec: ModelSpec) -> Tokenizer:
    """Return the tokenizer of a model. Raises RequestError if there is none.

    A `tokenizer.json` is used as it is. AutoTokenizer (transformers 5) chooses a class by the model's type. Many of
    these classes read only the vocabulary from the file and add their own splitting rules. For a character tokenizer
    saved with a Qwen2, or DeepSeek's tokenizer beside a Llama, that silently drops every space.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    check_directory(spec)
    if Path(spec.path).is_dir() and not any(True for pattern in TOKENIZER_FILES for _ in Path(spec.path).glob(pattern)):
        raise _no_tokenizer(spec)
    try:
        with reaching(spec):
            serialized = model_file(spec, "tokenizer.json")
            loader: Any = AutoTokenizer if serialized is None else PreTrainedTokenizerFast
            tokenizer = cast("Tokenizer", loader.from_pretrained(spec.path, **hub_arguments(spec)))
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise cannot_load("tokenizer", spec, error) from error
    if len(tokenizer) <= len(tokenizer.added_tokens_decoder):  # made of the model's type alone
        raise _no_tokenizer(spec)
    return tokenizer


@contextmanager
def reaching(spec: ModelSpec) -> Iterator[None]:
    """Load from a local directory, or from the hub if it can be reached, else from the hub's cache.

    Raises RequestError for a model that is neither in the cache nor to be had.
    """
    if Path(spec.path).is_dir():
        yield
        return
    try:
        yield
    except OSError as error:
        away = unreachable()
        if away is None or "trust_remote_code" in str(error):
            raise
        raise RequestError(
            f"cannot load the model {place_of(spec)}: there is no directory of this name, it is not in the hub's "
            f"cache, and {away}. Give the directory of a model: --model DIRECTORY"
        ) from error


def model_file(spec: ModelSpec, name: str) -> str | None:
    """Return the path of one of the model's files, from its directory, the hub or the hub's cache; None without it."""
    from transformers.utils.hub import cached_file

    path: str | None = cached_file(
        spec.path,
        name,
        revision=spec.revision,
        local_files_only=only_local(spec),
        _raise_exceptions_for_missing_entries=False,
    )
    return path


def only_local(spec: ModelSpec) -> bool:
    """Return whether the hub is not to be asked for files of the model: there is a directory, or no way to the hub."""
    return Path(spec.path).is_dir() or unreachable() is not None


def _no_tokenizer(spec: ModelSpec) -> RequestError:
    return RequestError(
        f"cannot load the tokenizer {spec.path!r}: there are no tokenizer files beside the model; save them there with "
        "tokenizer.save_pretrained(DIRECTORY)"
    )


def hub_arguments(spec: ModelSpec) -> dict[str, Any]:
    """Return the arguments of `from_pretrained` that say what of a repository is used."""
    asked = {"revision": spec.revision, "trust_remote_code": spec.trust_remote_code}
    return asked | {"local_files_only": only_local(spec)}


def tokenizer_hash(tokenizer: Tokenizer) -> str:
    """Return 16 hex digits that identify a tokenizer: vocabulary, rules, special tokens and chat template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.loads(backend.to_str()) if backend is not None else {"vocab": tokenizer.get_vocab()}
    for state in ("truncation", "padding"):  # left behind by the last call, not part of the tokenizer
        rules.pop(state, None)
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return digest({"rules": rules, "special": special, "chat_template": tokenizer.chat_template})


def load_configuration(spec: ModelSpec) -> PreTrainedConfig:
    """Return the model's configuration, without reading weights. Raises RequestError if there is no such model."""
    from transformers import AutoConfig

    check_directory(spec)
    try:
        with reaching(spec):
            return cast("PreTrainedConfig", AutoConfig.from_pretrained(spec.path, **hub_arguments(spec)))
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise cannot_load("configuration of the model", spec, error) from error


def empty_model(spec: ModelSpec) -> PreTrainedModel:
    """Return the model without values ("meta"), which knows the names and shapes of its weights.

    Raises RequestError if there is no such model.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    check_directory(spec)
    try:
        config = AutoConfig.from_pretrained(spec.path, revision=spec.revision, trust_remote_code=spec.trust_remote_code)
        factory: Any = AutoModelForCausalLM
        with torch.device("meta"):
            model: PreTrainedModel = factory.from_config(config, trust_remote_code=spec.trust_remote_code)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise cannot_load("configuration of the model", spec, error) from error
    return model


def vocabulary_size(config: PreTrainedConfig) -> int:
    """Return the number of token ids that the model has logits for."""
    return int(config.get_text_config().vocab_size)


def context_length(config: PreTrainedConfig) -> int | None:
    """Return the longest sequence in tokens that can be sampled and trained on; None if it is unknown.

    Scaled rotary positions are included. Where the rotary frequencies depend on the length of the sequence, it is the
    longest sequence that keeps the original ones (`fixed_rope_length`).
    """
    text = config.get_text_config()
    fixed = fixed_rope_length(config)
    positions: int | None = getattr(text, "max_position_embeddings", None)
    if fixed is not None or positions is None:
        return fixed
    scaled = [
        int(factor * (rope.get("original_max_position_embeddings") or positions))
        for rope in _rope_parameters(text)
        if isinstance(factor := rope.get("factor"), int | float)
    ]
    return max(positions, *scaled) if scaled else positions


def fixed_rope_length(config: PreTrainedConfig) -> int | None:
    """Return the longest sequence with the original rotary frequencies; None if they don't depend on the length.

    Longrope (Phi-3 and Phi-4-mini with 128k positions) and dynamic NTK change the frequencies of every position once a
    sequence is longer. A sampler's cache then holds keys of other frequencies than the trainer computes, and a row's
    log-probabilities depend on the longest row of its batch.
    """
    text = config.get_text_config()
    fixed = [
        int(rope.get("original_max_position_embeddings") or text.max_position_embeddings)
        for rope in _rope_parameters(text)
        if rope.get("rope_type") in LENGTH_DEPENDENT
    ]
    return min(fixed, default=None)


def _rope_parameters(text: PreTrainedConfig) -> list[dict[str, Any]]:
    """Return the rotary parameters: one set for the model, or one per type of layer."""
    found: dict[str, Any] = getattr(text, "rope_parameters", None) or {}
    nested = [value for value in found.values() if isinstance(value, dict)]
    return nested or [found]


def end_ids(spec: ModelSpec, tokenizer: Tokenizer) -> frozenset[int]:
    """Return the token ids that end a completion, without reading weights; empty if none does."""
    with reaching(spec):
        file = model_file(spec, "generation_config.json")
    if file is not None:
        generation = from_json(Path(file).read_text(encoding="utf-8"), file)
        return eos_ids(generation.get("eos_token_id"), tokenizer)
    return eos_ids(load_configuration(spec).get_text_config().eos_token_id, tokenizer)


def eos_ids(configured: int | list[int] | None, tokenizer: Tokenizer) -> frozenset[int]:
    """Return the end-of-sequence ids of a generation configuration together with the tokenizer's."""
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in (*ids, tokenizer.eos_token_id) if i is not None)


def model_ref(spec: ModelSpec, name: str, tokenizer: str) -> ModelRef:
    """Return the identity of a model as records hold it; `tokenizer` is its tokenizer's hash."""
    return ModelRef(
        name=name,
        revision=spec.revision,
        weights_hash=local_weights_hash(spec.path),
        tokenizer_hash=tokenizer,
    )


def local_weights_hash(path: str) -> str | None:
    """Return `weights_hash` of a directory; None for a hub name."""
    return weights_hash(path) if Path(path).is_dir() else None


def weights_hash(path: str | Path) -> str:
    """Return 16 hex digits that identify the weight files of a local model directory (SHA-256 of names and bytes).

    Raises RequestError if the directory holds no weights.
    """
    files = sorted(file for ending in ("safetensors", "bin") for file in Path(path).glob(f"*.{ending}"))
    if not files:
        raise RequestError(f"{str(path)!r} holds no weights (no *.safetensors, no *.bin)")
    return digest({file.name: _hash_of(file, file.stat().st_mtime_ns, file.stat().st_size) for file in files})


@cache
def _hash_of(file: Path, modified: int, size: int) -> str:
    """Return the file's hash. Cached, because a run asks several times; a changed file has another time or size."""
    return sha256(file)


def check_directory(spec: ModelSpec) -> None:
    """Raise RequestError for a path that is no model directory and no hub name.

    The library would go to the network for it, and retry.
    """
    directory = Path(spec.path)
    if directory.is_dir():
        if not (directory / "config.json").is_file():
            raise RequestError(
                f"model: the directory {spec.path!r} has no config.json; name one that a model was saved to"
            )
    elif spec.path.startswith((".", "~", os.sep)) or len(directory.parts) not in (1, 2):
        raise RequestError(f"model: there is no directory {spec.path!r}")


def place_of(spec: ModelSpec) -> str:
    """Return the model's path or name, and its revision, for messages."""
    return f"{spec.path!r}" if spec.revision is None else f"{spec.path!r} at revision {spec.revision!r}"


def cannot_load(what: str, spec: ModelSpec, error: Exception) -> RequestError:
    """Return the error for something that could not be loaded, with what to do."""
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    place = place_of(spec)
    if "trust_remote_code" in str(error):
        return RequestError(
            f"cannot load the {what} {place}: it brings Python code of its own. Read that code; "
            "--trust-remote-code (model.trust_remote_code=true) runs it in this process, with your permissions"
        )
    hint = "" if Path(spec.path).is_dir() else " (give a local directory, or a hub name and a network that reaches it)"
    return RequestError(f"cannot load the {what} {place}: {reason}{hint}")
