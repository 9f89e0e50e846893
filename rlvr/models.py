"""Identify a model and its tokenizer. Public; the code is in `rlvr.run.models`."""

from __future__ import annotations

from rlvr.run.models import (
    load_tokenizer,
    model_ref,
    tokenizer_hash,
    weights_hash,
)

__all__ = [
    "load_tokenizer",
    "model_ref",
    "tokenizer_hash",
    "weights_hash",
]
