"""Compositions of verifiers as they are written: a YAML file, or weights on the command line.

    name: answer-and-form           # in scores; default: the file's name
    sum:                            # Σ weight · reward of the parts
      answer: {verifier: math, weight: 1.0}
      form: {verifier: form.py:tags, weight: 0.2}
    clip: [0, 1]

A part is a verifier (with `options`, and with `range` if it declares no reward range), or again one of `sum`, `gate`,
`fallback` and `route`. The text `math:1.0 + form.py:tags:0.2` is the short form of a sum. `rlvr.verify.composed` loads
the members and judges.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from rlvr.errors import ConfigError, nearest
from rlvr.settings import LinedTree, read_tree

Kind: TypeAlias = Literal["verifier", "sum", "gate", "fallback", "route"]
KINDS: tuple[Kind, ...] = get_args(Kind)
ENDINGS = (".yaml", ".yml")
PLUS = " + "

_TERM = re.compile(r"(?P<verifier>.+):(?P<weight>[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?)")
_NAME = re.compile(r"[\w-]+")
_OWN_KEYS: Mapping[str, frozenset[str]] = {
    "verifier": frozenset({"options", "range"}),
    "sum": frozenset(),
    "gate": frozenset(),
    "fallback": frozenset(),
    "route": frozenset({"by", "otherwise"}),
}
_PLACE_KEYS: Mapping[str, frozenset[str]] = {
    "": frozenset({"name", "negative"}),  # the root
    "sum": frozenset({"weight"}),
    "gate": frozenset({"at_least"}),
    "fallback": frozenset({"at_least"}),
    "route": frozenset(),
}
"""Keys that a part may have because of the kind of part that it is in."""


@dataclass(frozen=True)
class Part:
    """A part of a composition, or the whole: one verifier, or parts and how they are combined."""

    kind: Kind
    name: str = ""
    """Its name among its neighbors; empty for the whole, and for a part that is named after its verifier."""
    parts: tuple[Part, ...] = ()
    verifier: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    range: tuple[float, float] | None = None
    """Reward range of the verifier, if the file says so."""
    weight: float = 1.0
    """Factor of the reward in a sum."""
    at_least: float | None = None
    """Reward that passes a gate, or that ends a fallback; None is the largest one that the part can give."""
    by: str = ""
    """Column whose value routes."""
    value: str | None = None
    """Value of that column for which this part judges; None for all values without a part."""
    clip: tuple[float, float] | None = None

    def leaves(self) -> Iterator[Part]:
        """Yield the parts that are verifiers."""
        if self.kind == "verifier":
            yield self
        for part in self.parts:
            yield from part.leaves()


@dataclass(frozen=True)
class Composition:
    """A composition as it is written, with its members not loaded."""

    root: Part
    source: str
    """Its file or text, for messages."""
    name: str = ""
    """Its name in scores; empty if it has none of its own."""
    negative: bool = False
    """Whether rewards below 0 are meant."""


def is_composition(ref: str) -> bool:
    """Return whether a verifier's reference is a YAML file, or terms `VERIFIER:WEIGHT` joined by ` + `."""
    return ref.endswith(ENDINGS) or all(map(is_weighted, ref.split(PLUS)))


def read_composition(ref: str) -> Composition:
    """Return the composition that a reference names. Raises ConfigError, with file, line and key, if it is wrong."""
    if ref.endswith(ENDINGS):
        return _Reader(Path(ref)).composition()
    terms = [match for term in ref.split(PLUS) if (match := _TERM.fullmatch(term.strip()))]
    weights = [_weight(match["weight"], f"verifier {match[0]}") for match in terms]
    parts = [Part("verifier", verifier=m["verifier"], weight=w) for m, w in zip(terms, weights, strict=True)]
    return Composition(Part("sum", parts=tuple(parts)), f"verifier {ref}")


def is_weighted(verifier: str) -> bool:
    """Return whether a reference is `VERIFIER:WEIGHT`."""
    return _TERM.fullmatch(verifier) is not None


def weighted(verifiers: Sequence[str]) -> str | None:
    """Return the reference of several verifiers given one by one: the only one, or their weighted sum; None for none.

    Raises ConfigError for several verifiers of which one has no weight.
    """
    if len(verifiers) > 1 and (plain := [each for each in verifiers if not is_weighted(each)]):
        raise ConfigError(
            f"{len(verifiers)} verifiers, and {plain[0]} has no weight: write {plain[0]}:1.0 for a weighted sum, or "
            "name a YAML file for other compositions"
        )
    return PLUS.join(verifiers) or None


def leaves(ref: str) -> list[Part]:
    """Return the members of a composition; none if the reference is that of one verifier."""
    return list(read_composition(ref).root.leaves()) if is_composition(ref) else []


def references(ref: str) -> list[str]:
    """Return the references of a composition's members, or the reference itself if it is that of one verifier."""
    return [part.verifier for part in leaves(ref)] or [ref]


def absolute_reference(ref: str) -> str:
    """Return a reference with absolute paths of its files, for use in another working directory."""
    if ref.endswith(ENDINGS):
        return os.path.abspath(ref)
    if is_composition(ref):
        terms = (_TERM.fullmatch(term.strip()) for term in ref.split(PLUS))
        return PLUS.join(f"{absolute_reference(term['verifier'])}:{term['weight']}" for term in terms if term)
    place, colon, function = ref.rpartition(":")
    return f"{os.path.abspath(place)}:{function}" if colon and place.endswith(".py") else ref


def named(composition: Composition, name_of: Callable[[str], str]) -> Composition:
    """Return the composition with a name for itself and for every outermost part.

    `name_of` returns a verifier's name in scores, after which parts without a name are called. Raises ConfigError if
    two parts have one name.
    """
    parts = [replace(part, name=part.name or _part_name(name_of(part.verifier))) for part in composition.root.parts]
    names = [part.name for part in parts]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"{composition.source}: two parts are called {name!r}; give them names in a YAML file "
                "(docs/verifiers.md)"
            )
    default = "+".join(names) if len(names) > 1 else f"weighted-{''.join(names)}"
    root = replace(composition.root, parts=tuple(parts))
    return replace(composition, root=root, name=composition.name or default)


def weights_of(config: Mapping[str, Any]) -> dict[str, float]:
    """Return part → weight, from a score's configuration; empty if its reward is no plain weighted sum."""
    composition = config.get("composition")
    if not isinstance(composition, Mapping) or "sum" not in composition or "clip" in composition:
        return {}
    return {str(name): float(part["weight"]) for name, part in composition["sum"].items()}


def _part_name(text: str) -> str:
    """Return a name for metrics: the last piece of a verifier's name or column's value, with only `[\\w-]`."""
    return re.sub(r"[^\w-]", "-", text.rpartition(":")[2]) or "part"


def _weight(given: object, where: str) -> float:
    weight = float(given) if isinstance(given, int | float | str) and not isinstance(given, bool) else math.nan
    if not math.isfinite(weight) or weight == 0:
        raise ConfigError(f"{where}: the weight is {given}: expected a finite number other than 0")
    return weight


class _Reader:
    """Reads one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tree: LinedTree = read_tree(path)

    def composition(self) -> Composition:
        value = self._mapping(self._tree.value, ())
        name, negative = value.get("name", self._path.stem), value.get("negative", False)
        if not isinstance(name, str) or not re.fullmatch(r"[\w.+-]+", name):
            raise self._fault(("name",), f"is {name!r}: expected letters, digits and . _ + -")
        if not isinstance(negative, bool):
            raise self._fault(("negative",), f"is {negative!r}: expected true or false")
        root = self._part(value, (), place="")
        return Composition(root, str(self._path), name, negative)

    def _part(self, given: Any, at: tuple[str, ...], place: str, value: str | None = None) -> Part:
        """Return the part that a value describes; `place` is the kind of the part around it."""
        if isinstance(given, str):
            given = {"verifier": given}
        found = self._mapping(given, at)
        kinds = [kind for kind in KINDS if kind in found]
        if len(kinds) != 1:
            has = " and ".join(kinds) or "none"
            raise self._fault(at, f"must have exactly one of {', '.join(KINDS)}; it has {has}")
        (kind,) = kinds
        allowed = {kind, "clip"} | _OWN_KEYS[kind] | _PLACE_KEYS[place]
        if unknown := [key for key in found if key not in allowed]:
            raise self._fault((*at, unknown[0]), f"is no key of this part{nearest(unknown[0], allowed)}")
        return Part(
            kind,
            _part_name(value) if value is not None else at[-1] if at else "",
            parts=self._children(found, kind, at),
            verifier=self._verifier(found["verifier"], at) if kind == "verifier" else "",
            options=self._mapping(found.get("options") or {}, (*at, "options")),
            range=self._pair(found, "range", at),
            weight=_weight(found.get("weight", 1.0), f"{self._where((*at, 'weight'))}"),
            at_least=self._number(found, "at_least", at),
            by=self._column(found, at) if kind == "route" else "",
            value=value,
            clip=self._pair(found, "clip", at),
        )

    def _children(self, found: Mapping[str, Any], kind: Kind, at: tuple[str, ...]) -> tuple[Part, ...]:
        if kind == "verifier":
            return ()
        inner = (*at, kind)
        parts = []
        for name, given in self._mapping(found[kind], inner).items():
            if kind != "route" and not _NAME.fullmatch(name):
                raise self._fault((*inner, name), "is no name of a part: use letters, digits, _ and -")
            parts.append(self._part(given, (*inner, name), kind, name if kind == "route" else None))
        if "otherwise" in found:
            parts.append(self._part(found["otherwise"], (*at, "otherwise"), kind))
        if len(parts) < (1 if kind in ("sum", "route") else 2):
            raise self._fault(inner, "has too few parts")
        if len({part.name for part in parts}) < len(parts):
            raise self._fault(inner, f"has parts of one name: {', '.join(part.name for part in parts)}")
        return tuple(parts)

    def _verifier(self, ref: Any, at: tuple[str, ...]) -> str:
        """Return a member's reference, with the path of a file relative to this one's folder."""
        where = (*at, "verifier")
        if not isinstance(ref, str) or not ref:
            raise self._fault(where, f"is {ref!r}: expected a name, or FILE.py:FUNCTION")
        if is_composition(ref):
            raise self._fault(where, f"is {ref!r}, a composition itself: write its parts here")
        place, colon, function = ref.rpartition(":")
        return f"{self._path.parent / place}:{function}" if colon and place.endswith(".py") else ref

    def _column(self, found: Mapping[str, Any], at: tuple[str, ...]) -> str:
        by = found.get("by")
        if not isinstance(by, str) or not by:
            raise self._fault((*at, "by"), "must name the column that routes, as in by: data_source")
        return by

    def _number(self, found: Mapping[str, Any], key: str, at: tuple[str, ...]) -> float | None:
        value = found.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self._fault((*at, key), f"is {value!r}: expected a number")
        return float(value)

    def _pair(self, found: Mapping[str, Any], key: str, at: tuple[str, ...]) -> tuple[float, float] | None:
        value = found.get(key)
        if value is None:
            return None
        numbers = [each for each in value if isinstance(each, int | float)] if isinstance(value, list) else []
        if len(numbers) != 2 or not all(map(math.isfinite, numbers)) or numbers[0] >= numbers[1]:
            raise self._fault((*at, key), f"is {value!r}: expected the smallest and the largest reward, as in [0, 1]")
        return float(numbers[0]), float(numbers[1])

    def _mapping(self, value: Any, at: tuple[str, ...]) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise self._fault(at, f"is {value!r}: expected `key: value` pairs")
        return {str(key): each for key, each in value.items()}

    def _where(self, at: tuple[str, ...]) -> str:
        return f"{self._path}:{self._tree.line(at)}: {'.'.join(at) or 'the composition'}"

    def _fault(self, at: tuple[str, ...], what: str) -> ConfigError:
        return ConfigError(f"{self._where(at)} {what}")
