"""Find plugins, refuse conflicts, and import a name's target when it is first used.

pluggy's own loading skips a second entry point of the same name, ignores a misspelled hook, and lets the last of two
claims win. Here a broken plugin, and a name that two plugins claim, are reported; they are an error only when a
requested name is, or may be, one of theirs.
"""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pluggy

from rlvr import hookspecs
from rlvr.errors import PluginError, nearest
from rlvr.requirements import extra_that_brings
from rlvr.terminal import prints_to_standard_error

_log = logging.getLogger(__name__)

GROUP = "rlvr"
KINDS = {
    "verifier": "rlvr_verifiers",
    "prompt_source": "rlvr_prompt_sources",
    "sampler": "rlvr_samplers",
    "trainer": "rlvr_trainers",
    "tracker": "rlvr_trackers",
    "recipe": "rlvr_recipes",
    "preset": "rlvr_presets",
}

# A plugin's code may raise these; they become an error message instead of a traceback or a silent exit.
_BREAKAGE = (Exception, SystemExit)


@dataclass(frozen=True)
class Entry:
    """One name that a plugin offers, with its kind, its target and its distribution."""

    kind: str
    name: str
    target: str | Path
    distribution: str
    version: str

    def load(self) -> Any:
        """Return the object behind `module:attribute`, or the path. Raises PluginError, naming the distribution."""
        try:
            if isinstance(self.target, Path):
                return self.target.resolve(strict=True)
            module, _, attribute = self.target.partition(":")
            with prints_to_standard_error():
                return getattr(importlib.import_module(module), attribute)
        except _BREAKAGE as error:
            raise PluginError(
                f"{_words(self.kind)} {self.name!r} of {self.distribution} {self.version} failed to load from "
                f"{self.target}: {type(error).__name__}: {error}{_remedy(error, self.distribution)}"
            ) from error


@dataclass(frozen=True)
class Broken:
    """A plugin that failed to load, or one of its hooks."""

    plugin: str
    distribution: str
    version: str
    kinds: tuple[str, ...]
    """Kinds of names that it might register."""
    error: str
    """Message that names the plugin and its distribution."""


@dataclass(frozen=True)
class Contested:
    """A name that several plugins offer, so that it stands for none of them."""

    entries: tuple[Entry, ...]

    @property
    def error(self) -> str:
        """Message that names the distributions, and says how to choose one."""
        return f"{self.problem}: {self.remedy}"

    @property
    def problem(self) -> str:
        """The name, and the distributions that offer it."""
        first, *others = [f"{entry.distribution} {entry.version}" for entry in self.entries]
        who = f"{', '.join([first, *others[:-1]])} and {others[-1]}" if {first} != {*others} else f"{first} twice"
        return f"{_words(self.entries[0].kind)} {self.entries[0].name!r} is offered by {who}"

    @property
    def remedy(self) -> str:
        """How to choose one of the distributions."""
        owners = dict.fromkeys(entry.distribution for entry in self.entries)
        removals = [f"pip uninstall {owner}" for owner in owners if owner != "rlvr"]
        way = f"remove one ({', or '.join(removals)})"
        if len(owners) == 1:
            way = f"ask the author of {self.entries[0].distribution} to rename one"
        if self.entries[0].kind != "verifier":
            return way
        functions = dict.fromkeys(f"--verifier {entry.target}" for entry in self.entries)
        return f"{way}, or name its function ({', or '.join(functions)})"


class Registry:
    """All names that plugins offer, by kind and name."""

    def __init__(self) -> None:
        """Load every entry point of the group. What is wrong with one is in `broken` or `contested`."""
        self.broken: list[Broken] = []
        self._contested: dict[tuple[str, str], Contested] = {}
        self._entries: dict[tuple[str, str], Entry] = {}
        manager = pluggy.PluginManager(GROUP)
        manager.add_hookspecs(hookspecs)
        for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
            assert point.dist is not None  # None only for an EntryPoint made by hand
            owner, version = point.dist.name, point.dist.version
            try:
                with prints_to_standard_error():
                    plugin = point.load()
                manager.register(plugin, name=f"{owner}: {point.name} = {point.value}")  # two may have one name
                _check_hooks(manager, plugin)
            except _BREAKAGE as error:
                what = f"plugin {point.name!r} of {owner} {version} failed to load: {_one_line(error)}"
                self.broken.append(Broken(point.name, owner, version, tuple(KINDS), what + _remedy(error, owner)))
                continue
            self._collect(manager, plugin, point.name, owner, version)

    def _collect(self, manager: pluggy.PluginManager, plugin: object, point: str, owner: str, version: str) -> None:
        for kind, hook in KINDS.items():
            for implementation in getattr(manager.hook, hook).get_hookimpls():
                if implementation.plugin is not plugin:
                    continue
                try:
                    offered = {name: _checked(target) for name, target in implementation.function().items()}
                except _BREAKAGE as error:
                    what = f"{hook} of {owner} {version} failed: {_one_line(error)}"
                    self.broken.append(Broken(point, owner, version, (kind,), what))
                    continue
                for name, target in offered.items():
                    self._add(Entry(kind, name, target, owner, version))

    def _add(self, entry: Entry) -> None:
        key = (entry.kind, entry.name)
        if key in self._contested:
            self._contested[key] = Contested((*self._contested[key].entries, entry))
        elif key in self._entries:
            self._contested[key] = Contested((self._entries.pop(key), entry))
        else:
            self._entries[key] = entry

    @property
    def contested(self) -> list[Contested]:
        """Names that several plugins offer, sorted by kind and name."""
        return [contested for _, contested in sorted(self._contested.items())]

    def entries(self, kind: str | None = None) -> list[Entry]:
        """Return all entries that can be loaded, or those of one kind, sorted by kind and name."""
        return [entry for key, entry in sorted(self._entries.items()) if kind in (None, key[0])]

    def names(self, kind: str) -> set[str]:
        """Return all names of a kind; for one that several plugins offer, `entry` raises."""
        return {name for each, name in (*self._entries, *self._contested) if each == kind}

    def entry(self, kind: str, name: str) -> Entry:
        """Return the entry of that kind and name. Raises PluginError unless exactly one plugin offers it."""
        if (contested := self._contested.get((kind, name))) is not None:
            raise PluginError(contested.error)
        try:
            return self._entries[kind, name]
        except KeyError:
            known = sorted(self.names(kind))
            raise PluginError(f"there is no {_words(kind)} {name!r}{nearest(name, known)}{self.hint(kind)}") from None

    def hint(self, kind: str) -> str:
        """Return the broken plugins that might register an unknown name, for its message; "" if there is none."""
        errors = [broken.error for broken in self.broken if kind in broken.kinds]
        return f"; or a broken plugin offers it: {'; '.join(errors)}" if errors else ""

    def load(self, kind: str, name: str) -> Any:
        """Import and return the target of a name."""
        return self.entry(kind, name).load()


@cache
def registry() -> Registry:
    """Return this process's registry, loaded on first use. What is wrong with plugins is logged then, as warnings."""
    found = Registry()
    for error in [*(each.error for each in found.broken), *(each.error for each in found.contested)]:
        _log.warning("%s", error)
    return found


def _check_hooks(manager: pluggy.PluginManager, plugin: object) -> None:
    """Raise ValueError if the plugin implements a hook that does not exist, or none at all."""
    callers = manager.get_hookcallers(plugin) or []
    for caller in callers:
        if not caller.has_spec():
            raise ValueError(f"there is no hook {caller.name!r}{nearest(caller.name, KINDS.values())}")
    if not callers:
        raise ValueError("it implements no hook: is a function decorated with @rlvr.hookimpl?")


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _checked(target: object) -> str | Path:
    """Return the target. Raises ValueError if it is neither `"module:attribute"` nor a path."""
    if isinstance(target, Path) or (isinstance(target, str) and all(target.partition(":"))):
        return target
    raise ValueError(f"{target!r} is neither 'package.module:attribute' nor a pathlib.Path")


def _remedy(error: BaseException, owner: str) -> str:
    """Return `"; pip install 'owner[extra]'"` if an extra of `owner` brings the missing module, else an empty text."""
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    extra = extra_that_brings(missing, owner) if missing else None
    return f"; pip install '{owner}[{extra}]'" if extra else ""


def _words(kind: str) -> str:
    return kind.replace("_", " ")
