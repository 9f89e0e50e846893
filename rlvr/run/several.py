"""Several samplers behind one: the copies of `sampling.copies`, and the servers of the sampler `vllm-server`."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from rlvr.errors import RlvrError, SamplerLostError
from rlvr.protocols import GroupRequest, SampledGroup, Sampler, Snapshot
from rlvr.run.weights_files import memory_folder, snapshot_in, write_weights

WEIGHTS = "weights.safetensors"
PAUSE = 0.002
"""Seconds between two looks at the samplers while none has an answer."""
RETRY = 5.0
"""Seconds between two attempts to replace a lost sampler."""

_log = logging.getLogger("rlvr")


@dataclass
class _Member:
    """One of the samplers."""

    sampler: Sampler
    requests: dict[str, GroupRequest] = field(default_factory=dict)
    """Outstanding requests by group id."""
    lost: SamplerLostError | None = None
    """Why it is not used; None if it is."""

    @property
    def work(self) -> int:
        """Tokens that it may have to sample yet."""
        return sum(request.size * request.params.max_tokens for request in self.requests.values())


class Several:
    """A `Sampler` over samplers of the same model.

    A group goes to the sampler with the least outstanding work. A sampler that raises SamplerLostError is used no more,
    and its groups are asked of the others: none is lost, and none is answered twice. Which sampler answers depends on
    timing, so samples are those of one sampler up to rounding.
    """

    def __init__(
        self,
        samplers: Sequence[Sampler],
        *,
        room: int | None = None,
        again: Callable[[int], Sampler] | None = None,
        patience: float = 0.0,
        folder: Path | None = None,
    ) -> None:
        """Take over the samplers; `close` closes them.

        Args:
            samplers: At least one.
            room: Groups that one sampler gets at a time; the others wait here. None is no limit.
            again: Returns a new sampler in place of lost sampler i, or raises SamplerLostError while there is none.
                With None a lost one stays lost.
            patience: Seconds to wait for a sampler when none is left.
            folder: Where weights are written for all of them; None is shared memory.
        """
        self._members = [_Member(sampler) for sampler in samplers]
        self._room, self._again, self._patience, self._folder = room, again, patience, folder
        self._waiting: dict[str, GroupRequest] = {}
        self._stack = ExitStack()
        self.held: Snapshot | None = None
        """Weights of the last sync, in a file, for a sampler that comes back; None before it or if none can."""
        self._tried = -math.inf
        self._alone_since: float | None = None

    @property
    def lost(self) -> list[str]:
        """Why samplers are not used, one entry for each."""
        return [member.lost.cause for member in self._members if member.lost is not None]

    # --- weights ----------------------------------------------------------------------------------------------------

    def sync(self, snapshot: Snapshot) -> None:
        """Sync every sampler, all at the same time. The weights are written once, and each sampler links the file.

        Raises RunError if a sampler refuses the weights, and SamplerLostError if none is left.
        """
        with ExitStack() as stack:
            file = stack.enter_context(memory_folder(self._folder)) / WEIGHTS
            write_weights(snapshot, file)
            given = replace(snapshot, file=file)
            self._each(lambda sampler: sampler.sync(given))
            if self._again is not None:
                self._stack.close()
                self._stack, self.held = stack.pop_all(), snapshot_in(snapshot, file)
        while not self._live:
            self._bring_back()
            time.sleep(PAUSE)

    def save(self, directory: Path) -> None:
        """Have one sampler write its state; all hold the same."""
        while True:
            for member in self._live:
                try:
                    member.sampler.save(directory)
                except SamplerLostError as error:
                    self._lose(member, error)
                else:
                    return
            self._bring_back()
            time.sleep(PAUSE)

    def load(self, directory: Path) -> None:
        """Have every sampler read what `save` wrote."""
        self._each(lambda sampler: sampler.load(directory))
        if not self._live:
            self._bring_back()

    def close(self) -> None:
        """Close all samplers."""
        self._waiting.clear()
        for member in self._members:
            member.requests.clear()
            member.sampler.close()
        self._stack.close()
        self.held = None

    def _each(self, do: Callable[[Sampler], None]) -> None:
        """Do something with every sampler that is left, at the same time; raise the first error after all are done."""
        live = self._live
        errors: list[RlvrError] = []
        with ThreadPoolExecutor(max(1, len(live))) as threads:
            for member, done in [(member, threads.submit(do, member.sampler)) for member in live]:
                try:
                    done.result()
                except SamplerLostError as error:
                    self._lose(member, error)
                except RlvrError as error:
                    errors.append(error)
        if errors:
            raise errors[0]

    # --- sampling ---------------------------------------------------------------------------------------------------

    def submit(self, requests: Sequence[GroupRequest]) -> None:
        """Hand out the requests, or keep them until a sampler has room.

        A request that a sampler refuses is an error of this call or of a later `collect`.
        """
        self._waiting |= {request.group_id: request for request in requests}
        self._dispatch()

    def collect(self, timeout: float | None = None) -> list[SampledGroup]:
        """Return the groups that samplers have finished; wait for one, with `timeout` for so many seconds.

        Raises SamplerLostError if no sampler is left for longer than `patience`.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while self._waiting or any(member.requests for member in self._members):
            self._dispatch()
            found = [group for member in self._live for group in self._answers(member)]
            self._replace_lost()
            self._dispatch()
            if found:
                return found
            self._require_one()
            if time.monotonic() >= deadline:
                break
            time.sleep(PAUSE)
        return []

    def cancel(self, ids: Collection[str]) -> None:
        """Give up these groups wherever they are."""
        for name in ids:
            self._waiting.pop(name, None)
        for member in self._members:
            ours = [name for name in ids if member.requests.pop(name, None) is not None]
            if ours and member.lost is None:
                self._try(member, lambda sampler, ours=ours: sampler.cancel(ours))  # type: ignore[misc]

    def _dispatch(self) -> None:
        """Hand out waiting requests, each to the sampler with the least work among those that have room."""
        given: dict[int, list[GroupRequest]] = {}
        for request in self._waiting.values():
            free = [m for m in self._live if self._room is None or len(m.requests) < self._room]
            if not free:
                break
            member = min(free, key=lambda each: each.work)
            member.requests[request.group_id] = request
            given.setdefault(id(member), []).append(request)
        for member in self._live:
            ours = given.get(id(member), [])
            for request in ours:
                del self._waiting[request.group_id]
            if ours:
                self._try(member, lambda sampler, ours=ours: sampler.submit(ours))  # type: ignore[misc]

    def _answers(self, member: _Member) -> list[SampledGroup]:
        """Return what a sampler has finished, without answers that nobody waits for any more."""
        if not member.requests:
            return []
        try:
            groups = member.sampler.collect(timeout=0.0)
        except SamplerLostError as error:
            self._lose(member, error)
            return []
        return [group for group in groups if member.requests.pop(group.request.group_id, None) is not None]

    # --- samplers that come and go ----------------------------------------------------------------------------------

    @property
    def _live(self) -> list[_Member]:
        return [member for member in self._members if member.lost is None]

    def _try(self, member: _Member, do: Callable[[Sampler], None]) -> None:
        try:
            do(member.sampler)
        except SamplerLostError as error:
            self._lose(member, error)

    def _lose(self, member: _Member, error: SamplerLostError) -> None:
        """Use a sampler no more, and ask its groups again, before all others."""
        member.lost = error
        self._waiting = {**member.requests, **self._waiting}
        member.requests.clear()
        member.sampler.close()
        _log.warning("%s; %d of %d samplers are left", error.cause, len(self._live), len(self._members))

    def _bring_back(self) -> None:
        """Replace lost samplers. Raises SamplerLostError if none was left for too long."""
        self._replace_lost()
        self._require_one()

    def _replace_lost(self) -> None:
        """Replace lost samplers where that is possible, every few seconds."""
        now, lost = time.monotonic(), [i for i, member in enumerate(self._members) if member.lost is not None]
        if self._again is not None and lost and now - self._tried >= RETRY:
            self._tried = now
            for i in lost:
                self._replace(i, self._members[i], self._again)

    def _require_one(self) -> None:
        """Raise SamplerLostError if no sampler has been left for longer than `patience`."""
        if self._live:
            self._alone_since = None
            return
        now = time.monotonic()
        self._alone_since = now if self._alone_since is None else self._alone_since
        if now - self._alone_since >= self._patience:
            since = f" has been left for {self._patience:g} s" if self._patience else " is left"
            raise SamplerLostError(f"no sampler{since}: {'; '.join(self.lost)}")

    def _replace(self, i: int, member: _Member, again: Callable[[int], Sampler]) -> None:
        """Put a new sampler with the current weights in the place of a lost one, if there is one again."""
        try:
            sampler = again(i)
        except SamplerLostError as error:
            member.lost = error
            return
        member.sampler, member.lost = sampler, None
        if self.held is not None:
            held = self.held
            self._try(member, lambda sampler: sampler.sync(held))
