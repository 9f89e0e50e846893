"""Prompts whose groups are learned from in the order in which they finish: `mode: async` with `sampling.max_lag`.

No batch waits for a slow group, and no weight sync does. A group that is older than `sampling.max_lag` optimizer steps
when it is due is dropped, and another prompt is asked for. Long completions are dropped more often than short ones:
`length/finished` and `length/learned` show by how much. Which groups make a batch depends on time; a batch that was
stored before a kill is read back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rlvr.data.prompts import Encoded, PromptStream
from rlvr.protocols import GroupRequest, SampledGroup
from rlvr.run.ahead import Position
from rlvr.run.mailbox import Mailbox, Ticket


class Unordered:
    """The prompts of a run, and the groups that answer them, as they finish."""

    def __init__(
        self,
        prompts: PromptStream,
        mailbox: Mailbox,
        request: Callable[[Encoded], GroupRequest],
        *,
        outstanding: int,
        total: int,
        max_lag: int,
    ) -> None:
        """Begin at the stream's position.

        Args:
            prompts: The stream.
            mailbox: The sampler.
            request: Returns the request for a prompt's group.
            outstanding: Largest number of groups that are asked for and not learned from.
            total: Groups of the whole run; no more are asked for than it still needs.
            max_lag: Largest lag of a group, in optimizer steps.
        """
        self._prompts, self._request, self._ticket = prompts, request, Ticket(mailbox)
        self._most, self._total, self._max_lag = outstanding, total, max_lag
        self._taken = 0
        self._open: dict[int, Encoded] = {}
        """Position -> prompt, of those that were neither learned from nor dropped."""
        self._asked: set[int] = set()
        self._arrived: dict[int, SampledGroup] = {}
        """Groups in the order in which they finished."""
        self._dropped: list[SampledGroup] = []

    @property
    def position(self) -> Position:
        """The stream's position."""
        return Position(self._prompts.position, self._prompts.dropped, self._prompts.escaped)

    def state(self) -> dict[str, Any]:
        """Return the position, and the positions of prompts before it that are not learned from yet."""
        return {**self.position._asdict(), "open": sorted(self._open), "taken": self._taken}

    def seek(self, state: Mapping[str, Any]) -> None:
        """Continue at a state; what was asked for is asked for again."""
        self._give_up()
        self._dropped.clear()
        self._open.clear()
        self._taken = state["taken"]
        for position in state["open"]:
            self._prompts.seek(position)
            self._next()
        self._prompts.seek(state["position"], state["dropped"], state["escaped"])

    def take(self, n: int, version: int, stored: Sequence[int] | None) -> list[Encoded]:
        """Return `n` prompts whose groups have finished, and ask for others; for a stored batch return its prompts.

        Args:
            n: Prompts of the batch.
            version: The trainer's version.
            stored: Positions of the prompts of the batch if it is stored, None if not.
        """
        if stored is None:
            positions = self._wait(n, version)
        else:
            self._give_up()
            while self._prompts.position <= max(stored, default=-1):
                self._next()
            positions = [position for position in stored if position in self._open]
        self._taken += n
        self._asked.difference_update(positions)
        prompts = [self._open.pop(position) for position in positions]
        if stored is None:
            self._ask(0)
        return prompts

    def groups(self, prompts: Sequence[Encoded], step: int) -> Iterator[SampledGroup]:
        """Yield the groups of prompts that `take` returned."""
        for prompt in prompts:
            yield self._arrived.pop(prompt.position)

    def before_sync(self, step: int) -> None:
        """Do nothing: no weight sync waits for a group."""

    def late(self) -> list[SampledGroup]:
        """Return the groups that were dropped since the last call."""
        late, self._dropped = self._dropped, []
        return late

    def _give_up(self) -> None:
        """Give up what was asked for; its prompts stay open."""
        self._ticket.cancel()
        self._asked.clear()
        self._arrived.clear()

    def _wait(self, n: int, version: int) -> list[int]:
        """Wait until `n` groups are there that are not too old; return their positions, first finished first."""
        while True:
            for position in [each for each, group in self._arrived.items() if version - oldest(group) > self._max_lag]:
                self._dropped.append(self._arrived.pop(position))
                self._asked.remove(position)
                del self._open[position]
            if len(self._arrived) >= n:
                return list(self._arrived)[:n]
            self._ask(n)
            by_id = {self._request(self._open[position]).group_id: position for position in self._asked}
            self._arrived |= {by_id[group.request.group_id]: group for group in self._ticket.collect()}

    def _ask(self, least: int) -> None:
        """Ask for as many groups as may be outstanding and as the run still needs; have at least `least` asked for."""
        room = min(self._most, max(least, self._total - self._taken)) - len(self._asked)
        while len(self._open) < len(self._asked) + room:
            self._next()
        new = [position for position in self._open if position not in self._asked][: max(0, room)]
        if new:
            self._asked.update(new)
            self._ticket.add([self._request(self._open[position]) for position in new])

    def _next(self) -> None:
        """Take the stream's next prompt."""
        (prompt,) = self._prompts.take(1)
        self._open[prompt.position] = prompt


def oldest(group: SampledGroup) -> float:
    """Return the oldest policy version of a group's tokens; infinity if it has none."""
    return min((run.version for sample in group.samples for run in sample.versions), default=math.inf)
