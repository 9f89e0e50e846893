"""Values on their way out of the sandbox: a tree of JSON, of which the other side believes nothing but its shape.

A value of the program is a claim. It is never unpickled, never called, and compared by `matches`, which walks along the
expected value: what a program sends is never put into a hash table, so no choice of keys makes that slow.

    None, True, 7, 0.5, "a"                 themselves
    ["i", "-ff"], ["f", "nan"]              large integers in hexadecimal; floats that JSON lacks
    ["c", 0.0, 1.0], ["q", 1, 3], ["m", "0.10"]   complex numbers, fractions, decimals
    ["b", "00ff"]                           bytes
    ["l", […]], ["t", […]], ["s", […]], ["z", […]]   list, tuple, set, frozenset
    ["d", [[key, value], …]]                dictionary
    ["e", […]]                              items of an iterator, which equals nothing
    ["r", 3, "Node"]                        any other object: its number and the name of its class; equals nothing
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

DEEPEST = 60
"""Levels of a value that are sent."""
MOST = 1_000_000
"""Numbers, texts and containers of a value that are sent."""
SMALL = 10**18
"""Integers below this stand in JSON as they are: reading long decimals takes quadratic time."""
LONGEST_NUMBER = 1_000_000
"""Hexadecimal digits of an integer."""
IN_A_KEY = 1_000
"""Values in one key of a dictionary, or in one member of a set."""


class ClaimError(ValueError):
    """A value that cannot be sent, or a tree that is none; the message says why."""


class Nothing:
    """A value that equals no value."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = object.__hash__


NOTHING = Nothing()


def encode(value: Any, refer: Callable[[Any], int] | None = None) -> Any:
    """Return the tree of a value. Raises ClaimError if it is too deep or too large.

    Args:
        value: Any object. Instances of subclasses are sent as their built-in base.
        refer: Keeps an object that is no plain value, and returns its number. Without it, such an object is an error.
    """
    left = iter(range(MOST))

    def tree(value: Any, depth: int) -> Any:
        if next(left, None) is None or depth > DEEPEST:
            raise ClaimError("a value that is too large" if depth <= DEEPEST else "a value that is nested too deeply")
        if value is None or value is True or value is False:
            return value
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            return int(value) if -SMALL < value < SMALL else ["i", f"{int(value):x}"]
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else ["f", repr(float(value))]
        if isinstance(value, bytes | bytearray):
            return ["b", bytes(value).hex()]
        if isinstance(value, dict):
            return ["d", [[tree(key, depth + 1), tree(item, depth + 1)] for key, item in dict.items(value)]]
        for tag, kind in _CONTAINERS.items():
            if isinstance(value, kind):
                return [tag, [tree(item, depth + 1) for item in kind.__iter__(value)]]
        if isinstance(value, complex):
            return ["c", tree(value.real, depth), tree(value.imag, depth)]
        if isinstance(value, Fraction):
            return ["q", tree(value.numerator, depth), tree(value.denominator, depth)]
        if isinstance(value, Decimal):
            return ["m", str(value)]
        if refer is None:
            raise ClaimError(f"an object of the class {type(value).__name__}")
        if isinstance(value, Iterator | range | Mapping) or type(value).__name__ in _VIEWS:
            return ["e", [tree(item, depth + 1) for item in itertools.islice(value, MOST)]]
        return ["r", refer(value), type(value).__name__[:100]]

    return tree(value, 0)


_CONTAINERS: dict[str, Any] = {"l": list, "t": tuple, "s": set, "z": frozenset}
_VIEWS = ("dict_keys", "dict_values", "dict_items")


def decode(tree: Any, remote: Callable[[int, str], Any] | None = None) -> Any:
    """Return the value of a tree, made of exact built-in types. Raises ClaimError if it is no tree.

    `remote` returns what stands for an object that was not sent; without it, `NOTHING` does.
    """

    def value(tree: Any, depth: int) -> Any:
        if type(tree) is not list:
            return scalar(tree)
        if depth > DEEPEST + 1:
            raise ClaimError("a tree that is nested too deeply")
        if len(tree) < 2 or type(tree[0]) is not str:
            raise ClaimError("a list that is no tree")
        tag, items = tree[0], tree[1]
        if tag == "r":
            known = len(tree) == 3 and type(items) is int and type(tree[2]) is str
            return remote(items, tree[2]) if remote is not None and known else NOTHING
        if tag not in _BUILT:
            return scalar(tree)
        if type(items) is not list:
            raise ClaimError(f"{tag!r} without a list")
        try:
            if tag == "d":
                return {value(key, depth + 1): value(item, depth + 1) for key, item in items}
            return _BUILT[tag](value(item, depth + 1) for item in items)
        except (TypeError, ValueError) as error:  # a key that has no hash, or an item that is no pair
            raise ClaimError(str(error)) from error

    return value(tree, 0)


_BUILT: dict[str, Callable[[Iterable[Any]], Any]] = {**_CONTAINERS, "d": dict, "e": lambda items: iter(list(items))}


def scalar(tree: Any) -> Any:
    """Return the value of a tree without containers; `NOTHING` for any other."""
    if tree is None or type(tree) in (bool, str, float):
        return tree
    if type(tree) is int:
        return tree if -SMALL < tree < SMALL else NOTHING
    if type(tree) is not list or len(tree) < 2 or type(tree[0]) is not str:
        return NOTHING
    try:
        return _SCALARS.get(tree[0], _none)(*tree[1:])
    except (TypeError, ValueError, ArithmeticError):
        return NOTHING


def _none(*_: object) -> Any:
    return NOTHING


def _integer(digits: str) -> int:
    if type(digits) is not str or len(digits) > LONGEST_NUMBER:
        raise ValueError
    return int(digits, 16)


def _float(text: str) -> float:
    if text not in ("nan", "inf", "-inf"):
        raise ValueError
    return float(text)


def _real(tree: Any) -> Any:
    value = scalar(tree)
    if type(value) not in (int, float):
        raise ValueError
    return value


def _decimal(text: str) -> Decimal:
    if type(text) is not str or len(text) > 100:
        raise ValueError
    number = Decimal(text)
    if number.is_finite() and abs(number.adjusted()) > 400:  # comparing it with a fraction would expand it
        raise ValueError
    return number


def _fraction(above: Any, below: Any) -> Fraction:
    numbers = _real(above), _real(below)
    if any(type(number) is not int or number.bit_length() > 10_000 for number in numbers):
        raise ValueError
    return Fraction(*numbers)


_SCALARS: dict[str, Any] = {
    "i": _integer,
    "f": _float,
    "b": bytes.fromhex,
    "c": lambda real, imaginary: complex(_real(real), _real(imaginary)),
    "q": _fraction,
    "m": _decimal,
}


def matches(expected: Any, tree: Any, *, tolerance: float = 0.0, sequences: bool = False) -> bool:
    """Return whether a claim equals the expected value, as Python's `==` would say of plain values.

    Args:
        expected: A value made of built-in types, which can be trusted.
        tree: The claim: anything that JSON can hold.
        tolerance: Relative and absolute difference of floats that counts as equal.
        sequences: Whether lists and tuples are the same.
    """

    def same(expected: Any, tree: Any) -> bool:
        if isinstance(expected, list | tuple):
            items = _items(tree, ("l", "t") if sequences else "l" if isinstance(expected, list) else "t")
            return items is not None and len(items) == len(expected) and all(map(same, expected, items))
        if isinstance(expected, dict):
            return _same_dictionary(expected, tree, same)
        if isinstance(expected, set | frozenset):
            items = _items(tree, ("s", "z"))
            if items is None or len(items) != len(expected):
                return False
            found = {key for key in map(_key, items) if key in expected}
            return len(found) == len(expected)
        claimed = scalar(tree)
        if tolerance and type(expected) in (int, float) and type(claimed) in (int, float):
            if float not in (type(expected), type(claimed)):
                return bool(expected == claimed)
            try:
                return math.isclose(expected, claimed, rel_tol=tolerance, abs_tol=tolerance)
            except OverflowError:
                return False
        try:
            return bool(expected == claimed)
        except ArithmeticError:  # a signaling NaN
            return False

    return same(expected, tree)


def _items(tree: Any, tags: str | tuple[str, ...]) -> list[Any] | None:
    """Return the items of a tree with one of these tags; None for any other tree."""
    if type(tree) is not list or len(tree) != 2 or type(tree[0]) is not str or tree[0] not in tags:
        return None
    return tree[1] if type(tree[1]) is list else None


def _same_dictionary(expected: dict[Any, Any], tree: Any, same: Callable[[Any, Any], bool]) -> bool:
    pairs = _items(tree, "d")
    if pairs is None or len(pairs) != len(expected):
        return False
    found = set()
    for pair in pairs:
        if type(pair) is not list or len(pair) != 2:
            return False
        key = _key(pair[0])
        if key not in expected or not same(expected[key], pair[1]):
            return False
        found.add(key)
    return len(found) == len(expected)


def _key(tree: Any) -> Any:
    """Return the value of a key or of a member of a set; `NOTHING` if it has none, or is too large."""
    left = iter(range(IN_A_KEY))

    def value(tree: Any, depth: int) -> Any:
        if next(left, None) is None or depth > DEEPEST:
            return NOTHING
        for tag, kind in (("t", tuple), ("z", frozenset)):
            if (items := _items(tree, tag)) is not None:
                return kind(value(item, depth + 1) for item in items)
        key = scalar(tree)
        return NOTHING if isinstance(key, Decimal) and key.is_snan() else key  # it has no hash

    return value(tree, 0)
