"""Route a sampler's answers by id, so that training and evaluation share a sampler with groups in flight.

A sampler has one stream of answers. `submit` returns a `Ticket` that gives only the groups of these requests; groups
that arrive meanwhile for other tickets wait there. Answers that nobody waits for are treated as follows:

    answered before     dropped and counted as `duplicate`
    cancelled before    dropped and counted as `late`
    never asked for     RunError: the sampler mixes up ids
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Self, TypeAlias

from rlvr.errors import RunError
from rlvr.protocols import GroupRequest, SampledGroup, Sampler

Discarded: TypeAlias = Literal["duplicate", "late"]

REMEMBERED = 65_536
"""Settled ids that are kept, the newest, to tell duplicate and late answers from unknown ones."""


class Mailbox:
    """The only reader of a sampler's answers."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._waiting: dict[str, Ticket] = {}
        self._settled: OrderedDict[str, Discarded] = OrderedDict()
        """Id -> kind of any further answer: `duplicate` or `late`."""
        self.discarded: Counter[Discarded] = Counter()
        """Answers that were dropped so far."""

    def submit(self, requests: Sequence[GroupRequest]) -> Ticket:
        """Ask for groups and return the ticket to read them from. Raises ValueError if an id is in flight already."""
        ticket = Ticket(self)
        ticket.add(requests)
        return ticket

    def send(self, requests: Sequence[GroupRequest], ticket: Ticket) -> None:
        """Ask for groups that belong to a ticket."""
        for request in requests:
            if request.group_id in self._waiting:
                raise ValueError(f"group {request.group_id} is in flight already")
        self._sampler.submit(requests)
        for request in requests:
            self._settled.pop(request.group_id, None)
            self._waiting[request.group_id] = ticket

    def ask(self, requests: Sequence[GroupRequest]) -> Iterator[SampledGroup]:
        """Ask for groups now and return an iterator over them, each as soon as it is there.

        What is still outstanding when the iterator is closed is cancelled.
        """
        return self._read(self.submit(requests))

    @staticmethod
    def _read(ticket: Ticket) -> Iterator[SampledGroup]:
        with ticket:
            while ticket.outstanding:
                yield from ticket.collect()

    def receive(self, timeout: float | None) -> bool:
        """Collect answers and route them. Returns False if the sampler had none, within `timeout` seconds if given."""
        groups = self._sampler.collect(timeout)
        for group in groups:
            self._route(group)
        return bool(groups)

    def cancel(self, ids: Iterable[str]) -> None:
        """Give up requests that are in flight; other ids are ignored."""
        ours = [name for name in ids if name in self._waiting]
        for name in ours:
            del self._waiting[name]
            self._settle(name, "late")
        if ours:
            self._sampler.cancel(ours)

    def _route(self, group: SampledGroup) -> None:
        name = group.request.group_id
        ticket = self._waiting.pop(name, None)
        if ticket is not None:
            self._settle(name, "duplicate")
            ticket.deliver(group)
        elif name in self._settled:
            self.discarded[self._settled[name]] += 1
        else:
            raise RunError(f"the sampler has returned group {name}, which it was not asked for")

    def _settle(self, name: str, further: Discarded) -> None:
        self._settled[name] = further
        if len(self._settled) > REMEMBERED:
            self._settled.popitem(last=False)


class Ticket:
    """Requests of one reader. A context manager: leaving it cancels what is outstanding."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._requests: dict[str, GroupRequest] = {}
        self._asked = 0
        self._ready: deque[SampledGroup] = deque()

    def add(self, requests: Sequence[GroupRequest]) -> None:
        """Ask for further groups. Raises ValueError if an id is in flight already."""
        given = {request.group_id: request for request in requests}
        if len(given) < len(requests):
            raise ValueError("two requests have the same group id")
        self._mailbox.send(requests, self)
        self._requests |= given
        self._asked += len(requests)

    @property
    def outstanding(self) -> bool:
        """True until every group was collected or cancelled."""
        return bool(self._requests or self._ready)

    def collect(self, timeout: float | None = None) -> list[SampledGroup]:
        """Return this ticket's groups that have arrived since the last call.

        Blocks until there is one; with `timeout`, for at most that many seconds, and the list may be empty. Empty, too,
        if nothing is outstanding. Raises RunError if the sampler has no more to give and groups are missing.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._requests and not self._ready:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if self._mailbox.receive(left):
                continue
            if left is None:
                returned = self._asked - len(self._requests)
                raise RunError(f"the sampler has returned {returned} of {self._asked} groups and has no more")
            if left == 0:
                break
        groups = list(self._ready)
        self._ready.clear()
        return groups

    def cancel(self) -> None:
        """Give up what is outstanding; groups that have arrived but were not collected are dropped."""
        self._mailbox.cancel(list(self._requests))
        self._requests.clear()
        self._ready.clear()

    def deliver(self, group: SampledGroup) -> None:
        """Accept an answer to one of the requests. Raises RunError if it does not answer what was asked."""
        asked = self._requests.pop(group.request.group_id)
        if group.request is not asked and group.request != asked:
            raise RunError(f"the sampler has answered another request under the id of group {asked.group_id}")
        if len(group.samples) > asked.size:
            raise RunError(
                f"the sampler has returned {len(group.samples)} samples for group {asked.group_id}, which asked for "
                f"{asked.size}"
            )
        self._ready.append(group)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()
