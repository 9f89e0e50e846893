"""Prompts in their order, asked of the sampler before they are needed: `mode: async`.

While the trainer learns from the batch of step k, the sampler works on those of the steps up to k + `sampling.ahead`.
Groups are learned from in the order of the prompts, so none is dropped and a slow one is waited for: every prompt is
learned from once, and the position of the next one is all that a resume needs.

    draw(k)     ask for k + 1, wait for k        sampler: k + 1, with the weights of the last sync
    learn(k)                                     sampler: k + 1
    sync        wait for k + 1, new weights      (`sampling.in_flight_updates`: new weights at once)

So what a batch was sampled with does not depend on time: the same seed gives the same weights, also after a resume.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol

from rlvr.data.prompts import Encoded, PromptStream
from rlvr.protocols import GroupRequest, SampledGroup
from rlvr.run.mailbox import Mailbox, Ticket


class Position(NamedTuple):
    """A place in the stream of prompts, and counts up to there."""

    position: int
    dropped: int
    escaped: int


class AskedPrompts(Protocol):
    """The prompts of a run, and the groups that answer them: `Ahead` in order, `run.unordered` as they finish."""

    @property
    def position(self) -> Position:
        """Position behind the last prompt that was taken from the stream."""

    def take(self, n: int, version: int, stored: Sequence[int] | None) -> list[Encoded]:
        """Return the next `n` prompts for a trainer at `version`; `stored` are those of a stored batch."""

    def groups(self, prompts: Sequence[Encoded], step: int) -> Iterator[SampledGroup]:
        """Yield the groups of the prompts that step `step` took, as they arrive."""

    def late(self) -> list[SampledGroup]:
        """Return the groups that were dropped since the last call."""

    def before_sync(self, step: int) -> None:
        """Prepare for a weight sync before step `step`."""

    def state(self) -> dict[str, Any]:
        """Return the state that a checkpoint keeps, as JSON values."""

    def seek(self, state: Mapping[str, Any]) -> None:
        """Continue at a state; what was asked for is given up."""


class Ahead:
    """The prompts of a run in their order, and the groups that answer them."""

    def __init__(
        self,
        prompts: PromptStream,
        mailbox: Mailbox,
        request: Callable[[Encoded], GroupRequest],
        *,
        batches: int,
        batch_size: int,
        steps: int,
        is_stored: Callable[[int], bool],
        waits: bool,
    ) -> None:
        """Begin at the stream's position.

        Args:
            prompts: The stream.
            mailbox: The sampler.
            request: Returns the request for a prompt's group.
            batches: Batches to ask for ahead; 0 asks for each when it is needed.
            batch_size: Prompts of a batch.
            steps: Batches of the run; nothing is asked for beyond.
            is_stored: Whether the batch of a step is stored, so that it need not be sampled.
            waits: Wait for everything that was asked for before a weight sync.
        """
        self._prompts, self._request, self._ticket = prompts, request, Ticket(mailbox)
        self._batches, self._batch_size, self._steps = batches, batch_size, steps
        self._is_stored, self._waits = is_stored, waits
        self._upcoming: deque[tuple[Encoded, Position]] = deque()
        """Prompts that nobody has taken yet, each with the stream's position behind it."""
        self._asked: set[str] = set()
        """Ids of the groups that were asked for and not handed out."""
        self._arrived: dict[str, SampledGroup] = {}
        self.position = self._stream_position()
        """Position behind the last prompt that was taken."""

    def state(self) -> dict[str, Any]:
        """Return the position."""
        return self.position._asdict()

    def seek(self, state: Mapping[str, Any]) -> None:
        """Continue at a position; what was asked for is given up."""
        # Older checkpoints lack the counts.
        position = Position(state["position"], state.get("dropped", 0), state.get("escaped", 0))
        self._ticket.cancel()
        self._upcoming.clear()
        self._asked.clear()
        self._arrived.clear()
        self._prompts.seek(*position)
        self.position = position

    def take(self, n: int, version: int, stored: Sequence[int] | None) -> list[Encoded]:
        """Return the next `n` prompts, whatever the trainer's version and what is stored."""
        self._look(n)
        taken = [self._upcoming.popleft() for _ in range(n)]
        self.position = taken[-1][1]
        return [prompt for prompt, _ in taken]

    def groups(self, prompts: Sequence[Encoded], step: int) -> Iterator[SampledGroup]:
        """Yield the groups of the prompts that step `step` took, as they arrive, and ask for the batches after it."""
        self._ask(prompts)
        self._ask_for(range(step + 1, step + 1 + self._batches), step + 1)
        wanted = {self._request(prompt).group_id for prompt in prompts}
        while wanted:
            for name in [name for name in wanted if name in self._arrived]:
                wanted.remove(name)
                self._asked.discard(name)
                yield self._arrived.pop(name)
            if wanted:
                self._receive()

    def late(self) -> list[SampledGroup]:
        """Return nothing: no group is dropped."""
        return []

    def before_sync(self, step: int) -> None:
        """Ask for what step `step` needs of the weights that the sampler still has, and wait for it.

        A resumed run asks here for what an uninterrupted one had asked for already.
        """
        if not self._batches or not step:  # the first batch is sampled with the first weights
            return
        self._ask_for(range(step, step + self._batches), step)
        while self._waits and len(self._arrived) < len(self._asked):
            self._receive()

    def _receive(self) -> None:
        self._arrived |= {group.request.group_id: group for group in self._ticket.collect()}

    def _ask_for(self, steps: Iterable[int], first: int) -> None:
        """Ask for the batches of these steps that are not stored; the next prompt is the first of step `first`."""
        for step in steps:
            if step >= self._steps or self._is_stored(step):
                continue
            begin = (step - first) * self._batch_size
            self._look(begin + self._batch_size)
            self._ask([prompt for prompt, _ in islice(self._upcoming, begin, begin + self._batch_size)])

    def _ask(self, prompts: Sequence[Encoded]) -> None:
        requests = [request for request in map(self._request, prompts) if request.group_id not in self._asked]
        self._asked.update(request.group_id for request in requests)
        if requests:
            self._ticket.add(requests)

    def _look(self, n: int) -> None:
        """Have at least `n` upcoming prompts."""
        while len(self._upcoming) < n:
            (prompt,) = self._prompts.take(1)
            self._upcoming.append((prompt, self._stream_position()))

    def _stream_position(self) -> Position:
        return Position(self._prompts.position, self._prompts.dropped, self._prompts.escaped)
