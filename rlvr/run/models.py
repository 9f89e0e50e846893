"""What the core knows of models: their tokenizer and what identifies them. No torch; transformers only when needed."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from rlvr.errors import RequestError
from rlvr.files import sha256
from rlvr.protocols import ModelSpec
from rlvr.record.schema import ModelRef, digest

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

    Tokenizer: TypeAlias = PreTrainedTokenizerBase


def load_tokenizer(spec: ModelSpec) -> Tokenizer:
    """The tokenizer of `spec`. Raises RequestError when there is none.

    A `tokenizer.json` is taken as it is. AutoTokenizer (transformers 5) picks a class by the model's type, and many of
    these take from the file only the vocabulary and put splitting rules of their own beside it: for a character
    tokenizer saved with a Qwen2, or DeepSeek's beside a Llama, that silently drops every space.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.utils.hub import cached_file

    check_directory(spec)
    try:
        serialized = cached_file(
            spec.path, "tokenizer.json", revision=spec.revision, _raise_exceptions_for_missing_entries=False
        )
        loader: Any = AutoTokenizer if serialized is None else PreTrainedTokenizerFast
        return cast("Tokenizer", loader.from_pretrained(spec.path, revision=spec.revision))
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise cannot_load("tokenizer", spec, error) from error


def tokenizer_hash(tokenizer: Tokenizer) -> str:
    """16 hex digits that name everything that turns text into ids: vocabulary, rules, special tokens, chat template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.loads(backend.to_str()) if backend is not None else {"vocab": tokenizer.get_vocab()}
    for state in ("truncation", "padding"):  # left behind by the last call, not part of the tokenizer
        rules.pop(state, None)
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return digest({"rules": rules, "special": special, "chat_template": tokenizer.chat_template})


def load_configuration(spec: ModelSpec) -> PreTrainedConfig:
    """What the model says of itself; no weight is read. Raises RequestError when there is no such model."""
    from transformers import AutoConfig

    check_directory(spec)
    try:
        return cast("PreTrainedConfig", AutoConfig.from_pretrained(spec.path, revision=spec.revision))
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise cannot_load("configuration of the model", spec, error) from error


def vocabulary_size(config: PreTrainedConfig) -> int:
    """How many token ids the model has logits for: its embedding's rows."""
    return int(config.get_text_config().vocab_size)


def context_length(config: PreTrainedConfig) -> int | None:
    """How many tokens the model was made for, stretched rotary positions included; None where it does not say."""
    text = config.get_text_config()
    positions: int | None = getattr(text, "max_position_embeddings", None)
    rope = getattr(text, "rope_parameters", None) or {}
    if positions is None or not isinstance(factor := rope.get("factor"), int | float):
        return positions
    return max(positions, int(factor * (rope.get("original_max_position_embeddings") or positions)))


def model_ref(spec: ModelSpec, name: str, tokenizer: str) -> ModelRef:
    """What identifies the weights of `spec`, as records carry it; `tokenizer` is its tokenizer's hash."""
    return ModelRef(
        name=name,
        revision=spec.revision,
        weights_hash=local_weights_hash(spec.path),
        tokenizer_hash=tokenizer,
    )


def local_weights_hash(path: str) -> str | None:
    """`weights_hash` of a directory; None of a hub name, whose files are not looked for."""
    return weights_hash(path) if Path(path).is_dir() else None


def weights_hash(path: str | Path) -> str:
    """16 hex digits that name the weight files of a local model directory: of their names and bytes (SHA-256).

    Raises RequestError when the directory holds no weights.
    """
    files = sorted(file for ending in ("safetensors", "bin") for file in Path(path).glob(f"*.{ending}"))
    if not files:
        raise RequestError(f"{str(path)!r} holds no weights (no *.safetensors, no *.bin)")
    return digest({file.name: _hash_of(file, file.stat().st_mtime_ns, file.stat().st_size) for file in files})


@cache
def _hash_of(file: Path, modified: int, size: int) -> str:
    """A start asks several times for the weights, which are gigabytes; a file that was changed has another time."""
    return sha256(file)


def check_directory(spec: ModelSpec) -> None:
    """Refuses at once what cannot be a hub name: the library would go to the network for it, and retry."""
    directory = Path(spec.path)
    if directory.is_dir():
        if not (directory / "config.json").is_file():
            raise RequestError(
                f"model: the directory {spec.path!r} has no config.json; give one that a model was saved to"
            )
    elif spec.path.startswith((".", "~", os.sep)) or len(directory.parts) not in (1, 2):
        raise RequestError(f"model: there is no directory {spec.path!r}")


def cannot_load(what: str, spec: ModelSpec, error: Exception) -> RequestError:
    """The error for what `error` kept from being loaded, with what to do."""
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    place = f"{spec.path!r}" if spec.revision is None else f"{spec.path!r} at revision {spec.revision!r}"
    hint = "" if Path(spec.path).is_dir() else " (give a local directory, or a hub name and a network that reaches it)"
    return RequestError(f"cannot load the {what} {place}: {reason}{hint}")
