"""A composition of verifiers, loaded: it judges like a verifier, and every part's verdict is in the verdict's `parts`.

Rewards are combined; failures are not. If a part that counts is an `error`, `invalid`, `timeout` or `abstained`, so is
the whole: what says nothing about the answer never becomes a 0. An `unparsed` part of a sum adds 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlvr.errors import ConfigError
from rlvr.record.item import Item
from rlvr.record.schema import Status, Verdict, digest
from rlvr.verify.composition import Composition, Part, named
from rlvr.verify.loaded import Claims, LoadedVerifier, Range
from rlvr.verify.results import error_verdict
from rlvr.verify.verifying import load_verifier, verifier_name

FAILURES = (Status.ERROR, Status.INVALID, Status.TIMEOUT, Status.ABSTAINED)
"""Statuses that say nothing about the answer, the most serious first."""
DEFAULT_RANGE: Range = (0.0, 1.0)
"""Reward range of a verifier that declares none."""


def composed(composition: Composition, options: Mapping[str, Any]) -> ComposedVerifier:
    """Load the members and return the composition, ready to judge.

    Raises ConfigError if it can reward below 0 and does not say so, or for options, which stand in its file; and what
    `load_verifier` raises for a member.
    """
    if options:
        raise ConfigError(
            f"{composition.source}: option {next(iter(options))!r} is of which part? Write it in the composition's "
            "YAML file, under `options` of the part"
        )
    return ComposedVerifier(named(composition, verifier_name))


class ComposedVerifier(LoadedVerifier):
    """A composition and its loaded members. Made by `load_verifier`."""

    def __init__(self, composition: Composition) -> None:
        self._root = root = composition.root
        self._members: dict[int, LoadedVerifier] = {
            id(part): load_verifier(part.verifier, **part.options) for part in root.leaves()
        }
        members = list(self._members.values())
        self._member_ranges: dict[int, Range] = {
            id(part): part.range or self._members[id(part)].claims.reward_range or DEFAULT_RANGE
            for part in root.leaves()
        }
        self._ranges = {id(part): self._range(part) for part in _all(root)}
        self.escaped = 0
        self.name = composition.name
        self.config = {"composition": self._described(root)}
        versions = dict.fromkeys(f"{member.name} {member.version}" for member in members)
        self.version = f"{' + '.join(versions)} ({digest(self.config)[:8]})"
        self.takes_groups = any(member.takes_groups for member in members)
        self.min_group = max((m.min_group for m in members if m.takes_groups), default=1)
        self.wants_rollout = any(member.wants_rollout for member in members)
        routes = any(part.by for part in _all(root))
        self.sees = "answer" if all(m.sees == "answer" for m in members) and not routes else "task"
        self.at_once = max(member.at_once for member in members)
        self.closes = any(member.closes for member in members)
        self.repeatable = self.at_once == 1 and all(member.repeatable for member in members)
        self.needs_answer = all(member.needs_answer for member in members)
        self.memory = max((m.memory for m in members if m.memory is not None), default=None)
        self.env = tuple(dict.fromkeys(name for member in members for name in member.env))
        low, high = self._ranges[id(root)]
        if low < 0 and not composition.negative:
            raise ConfigError(
                f"{composition.source} can reward from {low:g} to {high:g}, below 0: write `clip: [0, {high:g}]`, or "
                "`negative: true` if that is meant, in a YAML file (docs/verifiers.md)"
            )

    @property
    def claims(self) -> Claims:
        """Properties that `rlvr check verifier` checks: those of the first member that compares answers."""
        every = [member.claims for member in self._members.values()]
        main = next((claims for claims in every if claims.compares_answers), every[0])
        return replace(
            main,
            needs_answer=self.needs_answer,
            needs_prompt=any(claims.needs_prompt for claims in every),
            partial_credit=any(claims.partial_credit for claims in every) or len(self._root.parts) > 1,
            deterministic=all(claims.deterministic for claims in every),
            columns=self._columns(),
            reward_range=self._ranges[id(self._root)],
        )

    def _columns(self) -> tuple[str, ...]:
        """Return the columns that every row must have: not those of parts that a route may leave out."""
        routed = {id(leaf) for part in _all(self._root) if part.kind == "route" for leaf in part.leaves()}
        always = [member for key, member in self._members.items() if key not in routed]
        return tuple(dict.fromkeys(column for member in always for column in member.claims.columns))

    def preload(self) -> None:
        """Call the members' functions for that."""
        for member in self._members.values():
            member.preload()

    def setup(self) -> None:
        """Set up every member."""
        for member in self._members.values():
            member.limit = self.limit
            member.setup()

    def close(self) -> None:
        """Close every member."""
        for member in self._members.values():
            member.close()

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        """Return the verdicts on the items; a member that raises is an `error` of its part."""
        before = self._escaped_by_members()
        verdicts = self._judge(self._root, items)
        self.escaped += self._escaped_by_members() - before
        return verdicts

    def _escaped_by_members(self) -> int:
        return sum(member.escaped for member in self._members.values())

    # --- judging ----------------------------------------------------------------------------------------------------

    def _judge(self, part: Part, items: Sequence[Item]) -> list[Verdict]:
        """Return the verdicts of a part, each with the verdicts of its own parts."""
        if not items:
            return []
        found = _JUDGES[part.kind](self, part, items)
        return found if part.clip is None else [_clipped(verdict, *part.clip) for verdict in found]

    def _ask(self, part: Part, items: Sequence[Item]) -> list[Verdict]:
        member = self._members[id(part)]
        units = [items] if member.takes_groups or member.at_once > 1 else [[item] for item in items]
        low, high = self._member_ranges[id(part)]
        return [_within(verdict, low, high) for unit in units for verdict in _verdicts(member, unit)]

    def _ask_some(self, part: Part, items: Sequence[Item], chosen: Sequence[int]) -> dict[int, Verdict]:
        """Return the verdicts on the chosen items. A verifier of groups sees all of them nevertheless."""
        if chosen and any(self._members[id(leaf)].takes_groups for leaf in part.leaves()):
            verdicts = self._judge(part, items)
            return {place: verdicts[place] for place in chosen}
        return dict(zip(chosen, self._judge(part, [items[place] for place in chosen]), strict=True))

    def _sum(self, part: Part, items: Sequence[Item]) -> list[Verdict]:
        columns = [self._judge(each, items) for each in part.parts]
        return [_summed(part.parts, row) for row in zip(*columns, strict=True)]

    def _in_turn(self, part: Part, items: Sequence[Item]) -> list[Verdict]:
        """Ask one part after the other, as long as the verdicts so far leave the result open; `gate` and `fallback`."""
        found: list[dict[str, Verdict]] = [{} for _ in items]
        decided: dict[int, Verdict] = {}
        for each in part.parts:
            waiting = [place for place in range(len(items)) if place not in decided]
            least = self._least(each)
            last = each is part.parts[-1]
            for place, verdict in self._ask_some(each, items, waiting).items():
                found[place] |= _named(each.name, verdict)
                if last or verdict.status in FAILURES[:3]:
                    decided[place] = _because(each.name, verdict)
                elif part.kind == "gate" and not _reaches(verdict, least):
                    decided[place] = _closed(each.name, verdict, least)
                elif part.kind == "fallback" and _reaches(verdict, least):
                    decided[place] = verdict
        return [decided[place].model_copy(update={"parts": parts}) for place, parts in enumerate(found)]

    def _route(self, part: Part, items: Sequence[Item]) -> list[Verdict]:
        values = [_column(item, part.by) for item in items]
        known = {each.value: each for each in part.parts}
        found: dict[int, Verdict] = {}
        for value, each in known.items():
            chosen = [place for place, its in enumerate(values) if its == value or (value is None and its not in known)]
            for place, verdict in self._ask_some(each, items, chosen).items():
                found[place] = _because(each.name, verdict).model_copy(update={"parts": _named(each.name, verdict)})
        return [found[place] if place in found else _unrouted(part.by, value) for place, value in enumerate(values)]

    # --- rewards ----------------------------------------------------------------------------------------------------

    def _least(self, part: Part) -> float:
        """Return the reward that passes a gate or ends a fallback."""
        return self._ranges[id(part)][1] if part.at_least is None else part.at_least

    def _range(self, part: Part) -> Range:
        """Return the smallest and the largest reward that a part can give, from the ranges of its members."""
        ranges = [self._range(each) for each in part.parts]
        if part.kind == "verifier":
            low, high = self._member_ranges[id(part)]
        elif part.kind == "sum":
            ends = [sorted((p.weight * r[0], p.weight * r[1])) for p, r in zip(part.parts, ranges, strict=True)]
            # An unparsed part adds 0, whatever its range.
            low, high = math.fsum(min(0.0, end[0]) for end in ends), math.fsum(max(0.0, end[1]) for end in ends)
        else:
            counting = [*ranges[-1:], (0.0, 0.0)] if part.kind == "gate" else ranges
            low, high = min(r[0] for r in counting), max(r[1] for r in counting)
        if part.clip is not None:
            low, high = (min(max(end, part.clip[0]), part.clip[1]) for end in (low, high))
        return low, high

    def _described(self, part: Part) -> dict[str, Any]:
        """Return a part as the record's configuration holds it: with the members' versions and resolved options."""
        found: dict[str, Any] = {}
        if part.kind == "verifier":
            member = self._members[id(part)]
            found = {"verifier": member.name, "version": member.version, "options": dict(member.config)}
            found |= {"range": list(self._member_ranges[id(part)])}
        else:
            inner = {each.name: self._described(each) for each in part.parts}
            if part.kind == "sum":
                inner = {each.name: {"weight": each.weight, **inner[each.name]} for each in part.parts}
            found = {part.kind: inner} | ({"by": part.by} if part.by else {})
        found |= {} if part.at_least is None else {"at_least": part.at_least}
        found |= {} if part.value is None else {"value": part.value}
        return found | ({} if part.clip is None else {"clip": list(part.clip)})


_JUDGES: Mapping[str, Callable[[ComposedVerifier, Part, Sequence[Item]], list[Verdict]]] = {
    "verifier": ComposedVerifier._ask,
    "sum": ComposedVerifier._sum,
    "gate": ComposedVerifier._in_turn,
    "fallback": ComposedVerifier._in_turn,
    "route": ComposedVerifier._route,
}


def _all(part: Part) -> list[Part]:
    return [part, *(each for inner in part.parts for each in _all(inner))]


def _verdicts(member: LoadedVerifier, items: Sequence[Item]) -> list[Verdict]:
    """Return a member's verdicts; what it raises is its own `error`. The worker handles lack of memory and Ctrl-C."""
    try:
        return member.judge(items)
    except (MemoryError, KeyboardInterrupt):
        raise
    except BaseException as error:
        return [member.failed(error)] * len(items)


def _named(name: str, verdict: Verdict) -> dict[str, Verdict]:
    """Return a part's verdict and those of its own parts, by name: `answer`, `answer.exact`."""
    own = {f"{name}.{inner}": each for inner, each in (verdict.parts or {}).items()}
    return {name: verdict.model_copy(update={"parts": None}), **own}


def _because(name: str, verdict: Verdict) -> Verdict:
    """Return the verdict with the part's name before its reason."""
    if verdict.reason is None:
        return verdict
    return verdict.model_copy(update={"reason": f"{name}: {verdict.reason}"})


def _summed(parts: Sequence[Part], verdicts: Sequence[Verdict]) -> Verdict:
    """Return the weighted sum of the parts' verdicts on one item."""
    named = {name: each for p, v in zip(parts, verdicts, strict=True) for name, each in _named(p.name, v).items()}
    failed = [
        _because(part.name, verdict)
        for status in FAILURES
        for part, verdict in zip(parts, verdicts, strict=True)
        if verdict.status is status
    ]
    if failed:
        return failed[0].model_copy(update={"parts": named})
    extracted = next((verdict.extracted for verdict in verdicts if verdict.extracted is not None), None)
    if all(verdict.status is Status.UNPARSED for verdict in verdicts):
        return _because(parts[0].name, verdicts[0]).model_copy(update={"parts": named})
    reward = math.fsum(part.weight * (verdict.reward or 0.0) for part, verdict in zip(parts, verdicts, strict=True))
    return Verdict(status=Status.GRADED, reward=reward, extracted=extracted, parts=named)


def _reaches(verdict: Verdict, least: float) -> bool:
    return verdict.reward is not None and verdict.reward >= least


def _closed(name: str, verdict: Verdict, least: float) -> Verdict:
    """Return the verdict of a gate that this verdict closes: 0, or its status if it has no reward."""
    if verdict.reward is None:
        return _because(name, verdict)
    reason = f"{name}: a reward of {verdict.reward:g}, below {least:g}"
    return Verdict(status=Status.GRADED, reward=0.0, extracted=verdict.extracted, reason=reason)


def _clipped(verdict: Verdict, low: float, high: float) -> Verdict:
    if verdict.reward is None:
        return verdict
    return verdict.model_copy(update={"reward": min(max(verdict.reward, low), high)})


def _within(verdict: Verdict, low: float, high: float) -> Verdict:
    """Return the verdict, or an `error` if its reward is outside of the range that the composition counts on."""
    if verdict.reward is None or low <= verdict.reward <= high:
        return verdict
    return error_verdict(
        f"a reward of {verdict.reward:g}, outside of {low:g} to {high:g}: declare @rlvr.verifier(reward_range=…), or "
        "give the part a `range`"
    )


def _column(item: Item, name: str) -> str | None:
    """Return the text of a row's column: of `task.extra`, or of the task itself (`dataset`, `split`, …)."""
    value = item.task.extra.get(name, getattr(item.task, name, None) if name in type(item.task).model_fields else None)
    return None if value is None else str(value)


def _unrouted(by: str, value: str | None) -> Verdict:
    what = f"the row has no column {by!r}" if value is None else f"no part judges rows whose {by} is {value!r}"
    return Verdict(status=Status.INVALID, reason=f"{what}, and the route has no `otherwise`")
