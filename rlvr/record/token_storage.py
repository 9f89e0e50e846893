"""Per-token columns between numpy arrays and Arrow lists, without a Python object per token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from rlvr.errors import DataError
from rlvr.record.parquet import arrow_column
from rlvr.record.schema import Rollout
from rlvr.record.token_columns import Array, frozen

Where = Callable[[int], str]
"""Function that names the place of row i of a batch, for messages."""


# --- from arrays to Arrow -------------------------------------------------------------------------------------------


def lists(arrays: Sequence[Array | None], kind: pa.ListType) -> pa.ListArray:
    """Return a list column with a list for each array and null for None. NaN becomes null."""
    offsets = np.zeros(len(arrays) + 1, np.int32)
    np.cumsum([0 if array is None else array.size for array in arrays], out=offsets[1:])
    there = [array is not None for array in arrays]
    values = _values([array for array in arrays if array is not None], kind.value_type)
    buffers = [None if all(there) else _bits(np.array(there)), pa.py_buffer(offsets)]
    return pa.Array.from_buffers(kind, len(arrays), buffers, children=[values])


def _values(arrays: Sequence[Array], kind: pa.DataType) -> pa.Array:
    flat = np.concatenate([array.ravel() for array in arrays]) if arrays else np.empty(0, np.bool_)
    if pa.types.is_boolean(kind):
        return pa.Array.from_buffers(kind, len(flat), [None, _bits(flat)])
    flat = flat.astype(kind.to_pandas_dtype(), copy=False)
    known = ~np.isnan(flat) if pa.types.is_floating(kind) else None
    validity = None if known is None or known.all() else _bits(known)
    return pa.Array.from_buffers(kind, len(flat), [validity, pa.py_buffer(flat)])


def _bits(flags: Array) -> pa.Buffer:
    return pa.py_buffer(np.packbits(flags, bitorder="little"))


def id_lists(rollouts: Sequence[Rollout], kind: pa.ListType, where: Where) -> pa.ListArray:
    """Return `token_ids` as a column. Raise DataError for an id of more than 32 bits."""
    ids = [rollout.token_ids for rollout in rollouts]
    for i, array in enumerate(ids):
        if array is not None and array.dtype != np.int32 and array.size and array.max() > np.iinfo(np.int32).max:
            t = int(array.argmax())
            raise DataError(
                f"{where(i)}: token_ids does not fit Parquet: token_ids[{t}] is {array[t]}, an id of more than 32 bits"
            )
    return lists(ids, kind)


def logprob_lists(rollouts: Sequence[Rollout], kind: pa.ListType, where: Where) -> pa.ListArray:
    """Return `behaviour_logprobs` as a column. Raise DataError for a sampled token without a finite float32."""
    columns: list[Array | None] = []
    for i, rollout in enumerate(rollouts):
        logprobs, sampled = rollout.behaviour_logprobs, rollout.loss_mask
        if logprobs is not None:
            with np.errstate(over="ignore"):
                logprobs = logprobs.astype(np.float32, copy=False)
            finite = np.isfinite(logprobs)
            # Comparing bytes is the fastest way to see that a record is as it was validated.
            missing = sampled is not None and finite.tobytes() != sampled.tobytes() and not finite[sampled].all()
            if missing or np.isinf(logprobs).any():
                raise DataError(f"{where(i)}: behaviour_logprobs holds a number that is no float32")
        columns.append(logprobs)
    return lists(columns, kind)


def extra_lists(rollouts: Sequence[Rollout], field: pa.Field, where: Where) -> pa.ListArray:
    """Return `extra_tokens` as a column. Raise DataError for a name that has no UTF-8."""
    entries = [(i, *entry) for i, rollout in enumerate(rollouts) for entry in rollout.extra_tokens.items()]
    columns = []
    for part in field.type.value_type:
        if part.name == "name":
            names = pa.field(field.name, part.type)
            columns.append(arrow_column([name for _, name, _ in entries], names, lambda at: where(entries[at][0])))
        elif part.name == "width":
            columns.append(pa.array([None if array.ndim == 1 else array.shape[1] for *_, array in entries], part.type))
        else:
            columns.append(
                lists([array if array.dtype.name == part.name else None for *_, array in entries], part.type)
            )
    structs = pa.StructArray.from_arrays(columns, fields=list(field.type.value_type))
    offsets = np.zeros(len(rollouts) + 1, np.int32)
    np.cumsum([len(rollout.extra_tokens) for rollout in rollouts], out=offsets[1:])
    return pa.Array.from_buffers(field.type, len(rollouts), [None, pa.py_buffer(offsets)], children=[structs])


# --- from Arrow to arrays -------------------------------------------------------------------------------------------


def arrays(column: pa.Array) -> list[Array | None] | None:
    """Return an array for each list of numbers or bools and None for null, each with memory of its own.

    A null in a list of fractions is NaN. Return None for a column of another kind, or with nulls that no array holds:
    those need a look at each entry.
    """
    if pa.types.is_fixed_size_list(column.type):
        column = column.cast(pa.list_(column.type.value_type))
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        return None
    kind = column.type.value_type
    is_fraction = pa.types.is_floating(kind)
    if not (is_fraction or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        return None
    offsets = column.offsets.to_pylist()
    values = column.values.slice(offsets[0], offsets[-1] - offsets[0])
    if values.null_count and not is_fraction:
        return None
    flat, base = _flat(values), offsets[0]
    # Copies: a rollout that is kept must not keep the whole batch.
    return [
        frozen(flat[start - base : stop - base].copy()) if is_there else None
        for start, stop, is_there in zip(offsets[:-1], offsets[1:], column.is_valid().to_pylist(), strict=True)
    ]


def _flat(values: pa.Array) -> Array:
    """Return the values, with NaN for null, as a view if nothing is null. `to_numpy` would import pandas."""
    validity, data = values.buffers()
    places = slice(values.offset, values.offset + len(values))
    if data is None or not len(values):
        return np.empty(0, np.bool_)
    if pa.types.is_boolean(values.type):
        return _flags(data)[places]
    flat = np.frombuffer(data, values.type.to_pandas_dtype())[places]
    if not values.null_count:
        return flat
    return np.where(_flags(validity)[places], flat, flat.dtype.type(np.nan))


def _flags(bits: pa.Buffer) -> Array:
    return np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little").view(np.bool_)


def extra_arrays(column: pa.Array) -> list[dict[str, Any]] | None:
    """Return the arrays of `extra_tokens` by name for each row, or None if the column is not laid out as a record's."""
    is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    if not is_list or not pa.types.is_struct(column.type.value_type):
        return None
    offsets = column.offsets.to_pylist()
    base = offsets[0]
    entries = column.values.slice(base, offsets[-1] - base)
    parts = dict(zip([field.name for field in entries.type], entries.flatten(), strict=True))
    kinds = {"values"} if "values" in parts else {"float32", "float64", "int32", "int64"}
    if not {"name", *kinds} <= set(parts):
        return None
    found: list[Array | None] = [None] * len(entries)
    for kind in kinds:
        if (lists := arrays(parts[kind])) is None:
            return None
        found = [new if new is not None else old for new, old in zip(lists, found, strict=True)]
    widths = parts["width"].to_pylist() if "width" in parts else [None] * len(entries)
    found = [
        array if array is None or width is None else array.reshape(-1, width)
        for array, width in zip(found, widths, strict=True)
    ]
    names = parts["name"].to_pylist()
    return [
        dict(zip(names[start - base : stop - base], found[start - base : stop - base], strict=True))
        for start, stop in pairwise(offsets)
    ]
