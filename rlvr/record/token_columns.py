"""Per-token columns as read-only numpy arrays, converted and checked with vector operations.

`rlvr.record.schema` imports this module when a record has tokens. Verifier workers, which rarely see tokens, start
without numpy.

NaN stands for null in a column of log-probabilities and in a floating-point extra column. In files it is null.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

MAX_LOGPROB = 1e-4
"""Rounding in float32 may leave a log-probability slightly above 0."""

_INT32, _INT64, _BOOL = np.dtype(np.int32), np.dtype(np.int64), np.dtype(np.bool_)
_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
_INT32_MAX = 2**31 - 1


def frozen(column: Array) -> Array:
    """Return the array after making it read-only."""
    column.flags.writeable = False
    return column


_LOGPROB_BOUNDS = {kind: (np.array(-np.inf, kind), np.array(MAX_LOGPROB, kind)) for kind in (_FLOAT32, _FLOAT64)}
_NO_IDS = frozen(np.empty(0, _INT32))


# --- conversion -----------------------------------------------------------------------------------------------------
#
# The readers return a read-only array, or None if the values make no column. An array that is read-only already is
# taken as it is. Sequences of Python values are mostly short, and what a vector operation costs before it begins counts
# more than what it costs per token.


def token_ids(values: Any) -> Array | None:
    """Return token ids as int32, or as int64 if one of them needs it. Raise ValueError for a negative id."""
    if isinstance(values, np.ndarray):
        return _ids_of_array(values)
    try:
        ids = frozen(np.frombuffer(array("i", values), _INT32)) if values else _NO_IDS
    except (OverflowError, TypeError):
        general = _array(values)
        return None if general is None else _ids_of_array(general)
    if values and min(values) < 0:
        _refuse_negative(ids)
    return ids


def _ids_of_array(given: Array) -> Array | None:
    if given.ndim != 1 or given.size == 0:
        return _NO_IDS if given.ndim == 1 else None
    ids = given
    if ids.dtype != _INT32:
        if ids.dtype.kind == "f" and (ids == np.floor(ids)).all() and abs(ids).max() < 2**53:
            ids = ids.astype(_INT64)
        if ids.dtype.kind not in "iu" or (ids.dtype.kind == "u" and ids.max() > np.iinfo(_INT64).max):
            return None
        ids = ids.astype(_INT64)
    if b"\1" in (ids < 0).tobytes():  # half of what a minimum costs, if there are few
        _refuse_negative(ids)
    if ids.dtype != _INT32 and ids.max() <= _INT32_MAX:
        ids = ids.astype(_INT32)
    return _own(ids, given)


def _refuse_negative(ids: Array) -> NoReturn:
    t = int((ids < 0).argmax())
    raise ValueError(f"token_ids[{t}] is {ids[t]}: expected an id of at least 0")


def mask(values: Any) -> Array | None:
    """Return booleans, given booleans or the numbers 0 and 1."""
    if isinstance(values, list | tuple):
        try:
            octets = bytes(values)
        except (TypeError, ValueError):
            octets = b"\2"
        if not octets or max(octets) <= 1:
            return np.frombuffer(octets, _BOOL)
    general = _array(values)
    if general is not None and general.dtype != _BOOL:
        if general.dtype.kind not in "iuf" or not ((general == 0) | (general == 1)).all():
            return None
        general = general.astype(_BOOL)
    return None if general is None else _own(general, values)


def numbers(values: Any) -> Array | None:
    """Return floating-point numbers, with NaN for None. float32 stays float32; everything else becomes float64."""
    try:
        if isinstance(values, list | tuple):
            column = np.array(values, _FLOAT64)
        else:
            column = np.asarray(values)
            if column.dtype != _FLOAT32:
                column = np.asarray(column, _FLOAT64)
    except (OverflowError, TypeError, ValueError):
        return None
    return _own(column, values) if column.ndim == 1 else None


def extra(values: Any) -> Array | None:
    """Return numbers for each token, (T,) or (T, K): integers if all are, else fractions with NaN for None."""
    try:
        column = np.asarray(values)
        if column.dtype.kind == "O" and isinstance(values, np.ndarray | list | tuple):
            column = np.asarray(values, _FLOAT64)
    except (OverflowError, TypeError, ValueError):
        return None
    if column.dtype.kind not in "biuf" or column.ndim not in (1, 2):
        return None
    if not column.size:
        return frozen(np.empty(0, _FLOAT64)) if not len(column) else None
    if column.dtype.kind == "u" and column.max() > np.iinfo(_INT64).max:
        return None
    if column.dtype not in (_INT32, _INT64, _FLOAT32, _FLOAT64):
        column = column.astype(_FLOAT64 if column.dtype.kind == "f" else _INT64)
    return _own(np.ascontiguousarray(column), values)


def _array(values: Any) -> Array | None:
    try:
        general = np.asarray(values)
    except (OverflowError, ValueError):  # ragged lists
        return None
    return general if general.ndim == 1 else None


def _own(column: Array, given: Any) -> Array:
    """Return the column, read-only. It is copied if it is the given one and can be written to."""
    if column is given and column.flags.writeable:
        column = column.copy()
    column.flags.writeable = False
    return column


READERS: Mapping[str, Callable[[Any], Array | None]] = {
    "token_ids": token_ids,
    "loss_mask": mask,
    "behaviour_logprobs": numbers,
}


def read(name: str, values: Any) -> Array:
    """Return a column of a record as an array. Raise ValueError, which names the entry at fault."""
    reader = READERS.get(name, extra)
    column = reader(values)
    if column is None:
        raise ValueError(_fault(name, values, reader))
    return column


def _fault(name: str, values: Any, reader: Callable[[Any], Array | None]) -> str:
    expected = {"token_ids": "a whole number", "loss_mask": "true or false"}.get(name, "a number or null")
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if not isinstance(values, list | tuple):
        return f"{name} is {values!r:.80}: expected a list with one entry per token"
    at_fault = (f"[{t}] is {value!r:.80}" for t, value in enumerate(values) if reader([value]) is None)
    return f"{name}{next(at_fault, ' has entries of several types')}: expected {expected}"


# Arrays that need neither conversion nor a look at their entries. (Ids may be negative.)
_KINDS: Mapping[str, tuple[np.dtype[Any], ...]] = {
    "token_ids": (),
    "loss_mask": (_BOOL,),
    "behaviour_logprobs": (_FLOAT32, _FLOAT64),
}


def _is_ready(values: Array, kinds: tuple[np.dtype[Any], ...]) -> bool:
    return values.dtype in kinds and values.ndim == 1 and not values.flags.writeable


def replace_columns(fields: dict[str, Any]) -> None:
    """Put arrays in the place of the token columns among a record's fields. Raise ValueError as `read` does."""
    for name, kinds in _KINDS.items():
        values = fields.get(name)
        if values is None or (type(values) is np.ndarray and _is_ready(values, kinds)):
            continue
        fields[name] = read(name, values)
    if extra := fields.get("extra_tokens"):
        fields["extra_tokens"] = {name: read(f"extra_tokens.{name}", values) for name, values in extra.items()}


def columns_of(
    prompt_ids: Sequence[int] | Array, token_ids: Sequence[int] | Array, logprobs: Sequence[float] | Array
) -> tuple[Array, Array, Array]:
    """Return `token_ids`, `loss_mask` and `behaviour_logprobs` of a prompt and the completion that was sampled for it.

    Raise ValueError for entries that are no token ids or no numbers.
    """
    prompt, sampled, known = (
        read("token_ids", prompt_ids),
        read("token_ids", token_ids),
        read("behaviour_logprobs", logprobs),
    )
    sampled_mask = np.frombuffer(bytes(len(prompt)) + b"\1" * len(sampled), _BOOL)
    unknown = np.full(len(prompt), np.nan, known.dtype)
    return frozen(np.concatenate((prompt, sampled))), sampled_mask, frozen(np.concatenate((unknown, known)))


# --- checks ---------------------------------------------------------------------------------------------------------


def check_logprobs(logprobs: Array, sampled: Array) -> None:
    """Raise ValueError unless numbers are finite and at most 0 where `sampled` is True, and null elsewhere."""
    # NaN fails both comparisons, and no number both: where the mask is False, only NaN passes. Comparing bytes is the
    # fastest way to compare short masks, and as fast as any for long ones.
    expected = sampled.tobytes()
    low, high = _LOGPROB_BOUNDS[logprobs.dtype]
    if (logprobs > low).tobytes() == expected and (logprobs <= high).tobytes() == expected:
        return
    known = ~np.isnan(logprobs)
    t = int(((known != sampled) | (known & ~((logprobs > low) & (logprobs <= high)))).argmax())
    if known[t] and not sampled[t]:
        raise ValueError(f"behaviour_logprobs[{t}] is {logprobs[t]} where loss_mask is False: expected null")
    found = logprobs[t] if known[t] else "null or NaN"
    raise ValueError(f"behaviour_logprobs[{t}] is {found}: expected a finite number, at most 0")


def check_extra(name: str, values: Array) -> None:
    """Raise ValueError for an infinite entry."""
    if np.isinf(values).any():
        place = tuple(np.argwhere(np.isinf(values))[0].tolist())
        at = ", ".join(map(str, place))
        raise ValueError(f"extra_tokens.{name}[{at}] is {values[place]}: expected a finite number or null")


def count(sampled: Array) -> int:
    """Return how many entries of a mask are True."""
    return sampled.tobytes().count(1)


def equal(one: Array | None, other: Array | None) -> bool:
    """Return True if both are None, or have equal entries. NaN equals NaN; the type of the numbers does not matter."""
    if one is None or other is None:
        return one is other
    if one.dtype.kind == "f" and other.dtype.kind == "f":
        return np.array_equal(one, other, equal_nan=True)
    return np.array_equal(one, other)


# --- back to Python -------------------------------------------------------------------------------------------------


def plain(column: Array) -> list[Any]:
    """Return the entries as Python values, with None for NaN."""
    values: list[Any] = column.tolist()
    if column.dtype.kind != "f" or not np.isnan(column).any():
        return values
    return _without_nan(values)


def _without_nan(values: list[Any]) -> list[Any]:
    return [_without_nan(value) if isinstance(value, list) else None if value != value else value for value in values]
