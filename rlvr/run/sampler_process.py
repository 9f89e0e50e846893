"""A sampler in a process of its own: `sampling.process: true`.

The process has one end of a socket and ends when the other is closed, however the run ends. Weights go through a file
in shared memory.

    run -> process      submit, cancel, sync, save, load (with their arguments)
    process -> run      groups, as they finish; done or failed, once for each call of sync, save and load, with the
                        call's number; failed, too, for requests that the sampler refuses
"""

from __future__ import annotations

import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from rlvr.errors import RlvrError, RunError, SamplerLostError
from rlvr.protocols import GroupRequest, ModelSpec, SampledGroup, Sampler, SamplerFactory, SamplerOptions, Snapshot
from rlvr.protocols import TensorLayout as Layout
from rlvr.run.threads import shares
from rlvr.run.weights_files import memory_folder, snapshot_in, write_weights

T = TypeVar("T")

WEIGHTS = "weights.safetensors"
TURN = 0.05
"""Seconds that the process samples before it looks for messages, if the sampler can be interrupted."""


@dataclass(frozen=True)
class _Load:
    """First message to the process: what to load."""

    factory: SamplerFactory
    model: ModelSpec
    options: SamplerOptions
    threads: int


@dataclass(frozen=True)
class _Call:
    """A method of the sampler."""

    number: int
    """Numbers the calls of one sampler from 1."""
    method: str
    argument: Any


@dataclass(frozen=True)
class _Weights:
    """A snapshot on its way: its values are in a file."""

    version: int
    layout: Mapping[str, Layout]
    tied: Mapping[str, str]
    lora: Mapping[str, Any] | None
    file: Path

    def snapshot(self) -> Snapshot:
        empty = Snapshot(self.version, self.layout, self.tied, lambda: iter(()), lora=self.lora)
        return snapshot_in(empty, self.file)


@dataclass(frozen=True)
class _Groups:
    groups: list[SampledGroup]


@dataclass(frozen=True)
class _Done:
    number: int
    """Number of the call; 0 for loading."""


@dataclass(frozen=True)
class _Failed:
    error: RlvrError | OSError
    number: int | None
    """Number of the call that failed; None if the sampler failed while it sampled."""
    refused: frozenset[str] = frozenset()
    """Ids of groups that will not be sampled."""


class ProcessSamplerFactory:
    """Makes a registered sampler, in a process of its own."""

    Options: ClassVar[type[SamplerOptions]]

    def __init__(self, factory: SamplerFactory, threads: int | None = None, *, at_once: bool = False) -> None:
        """Make samplers of `factory` with so many threads of torch; for None and `at_once` see `run.threads`."""
        self._factory, self._threads, self._at_once = factory, threads, at_once
        self.Options = factory.Options  # type: ignore[misc]

    def __call__(self, model: ModelSpec, options: SamplerOptions, /) -> ProcessSampler:
        """Start the process, load the model there, and return its `Sampler` here."""
        threads = shares(model.device, self._threads, at_once=self._at_once).sampler
        return ProcessSampler(self._factory, model, options, threads)


class ProcessSampler:
    """A `Sampler` whose work is done in another process.

    `submit` returns at once. A request that the sampler refuses is an error of the next `collect`, `sync`, `save` or
    `load`.
    """

    def __init__(
        self, factory: SamplerFactory, model: ModelSpec, options: SamplerOptions, threads: int | None = None
    ) -> None:
        """Start the process and load the model there, with so many threads of torch; by default as many as here.

        Raises what the factory raises, and SamplerLostError if the process dies.
        """
        import torch

        ours, theirs = socket.socketpair()
        with theirs:
            # In a session of its own: Ctrl-C is for the run, which closes the process when it is done.
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from {__name__} import main; main()", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._connection = Connection(ours.detach())
        self._outstanding: set[str] = set()
        self._arrived: list[SampledGroup] = []
        self._calls = 0
        self._send(_Load(factory, model, options, threads or torch.get_num_threads()))
        self._wait(0)

    def sync(self, snapshot: Snapshot) -> None:
        """Hand the weights over; the process copies what it keeps. Raises RunError if they do not fit its model."""
        with memory_folder() as folder:
            write_weights(snapshot, folder / WEIGHTS)
            names = dict(snapshot.layout), dict(snapshot.tied)
            self._call("sync", _Weights(snapshot.version, *names, snapshot.lora, folder / WEIGHTS))

    def submit(self, requests: Sequence[GroupRequest]) -> None:
        """Send the requests."""
        self._outstanding.update(request.group_id for request in requests)
        self._tell("submit", list(requests))

    def collect(self, timeout: float | None = None) -> list[SampledGroup]:
        """Return the groups that have arrived; wait for one, with `timeout` for so many seconds."""
        if not self._arrived and self._outstanding and self._connection.poll(timeout):
            self._take()
        while self._connection.poll(0):
            self._take()
        arrived, self._arrived = self._arrived, []
        return arrived

    def cancel(self, ids: Collection[str]) -> None:
        """Give up these groups."""
        self._outstanding.difference_update(ids)
        self._arrived = [group for group in self._arrived if group.request.group_id not in ids]
        self._tell("cancel", list(ids))

    def save(self, directory: Path) -> None:
        """Have the process write what it needs to go on."""
        self._call("save", directory)

    def load(self, directory: Path) -> None:
        """Have the process read what `save` wrote."""
        self._call("load", directory)

    def close(self) -> None:
        """End the process."""
        self._outstanding.clear()
        self._arrived.clear()
        self._connection.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:  # in the middle of a batch
            self._process.kill()
            self._process.wait()

    def _call(self, method: str, argument: Any) -> None:
        self._wait(self._tell(method, argument))

    def _tell(self, method: str, argument: Any) -> int:
        """Send a call, and return its number."""
        self._calls += 1
        self._send(_Call(self._calls, method, argument))
        return self._calls

    def _wait(self, number: int) -> None:
        """Wait until a call is done or has failed; groups that arrive meanwhile are kept.

        Raises the first error that arrives, after the call's own end: a refused request must not leave the call's
        answer behind for the next call, nor remove the weights that the process is about to read.
        """
        errors: list[Exception] = []
        message: _Groups | _Done | _Failed | None = None
        while message is None or isinstance(message, _Groups) or message.number != number:
            message = self._receive()
            if isinstance(message, _Failed):
                errors.append(message.error)
        if errors:
            raise errors[0]

    def _take(self) -> None:
        """Take one message. Raises the error that it holds."""
        message = self._receive()
        if isinstance(message, _Failed):
            raise message.error

    def _receive(self) -> _Groups | _Done | _Failed:
        """Return the next message; keep its groups, and forget what it says is refused."""
        try:
            message: _Groups | _Done | _Failed = self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error
        if isinstance(message, _Groups):
            # Groups that were cancelled while they were on their way are dropped.
            ours = [group for group in message.groups if group.request.group_id in self._outstanding]
            self._outstanding.difference_update(group.request.group_id for group in ours)
            self._arrived += ours
        elif isinstance(message, _Failed):
            self._outstanding -= message.refused
        return message

    def _send(self, message: _Load | _Call) -> None:
        try:
            self._connection.send(message)
        except OSError as error:
            raise self._died() from error

    def _died(self) -> SamplerLostError:
        code = self._process.wait()
        how = f"was killed by signal {-code}, perhaps for its memory" if code < 0 else f"ended with exit code {code}"
        return SamplerLostError(f"the sampler's process {how}; what it wrote is above")


class _Service:
    """The other end: a sampler and the socket to its run."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._outstanding: set[str] = set()

    def serve(self) -> None:
        """Load the sampler and work until the run closes its end."""
        load: _Load = self._connection.recv()
        sampler = self._attempt(partial(self._loaded, load), 0)
        if sampler is None:
            return
        self._connection.send(_Done(0))
        while True:
            if self._outstanding and not self._connection.poll(0):
                self._attempt(partial(self._sample, sampler), None)
            else:
                call: _Call = self._connection.recv()
                asked = call.argument if call.method == "submit" else ()
                refused = frozenset(request.group_id for request in asked)
                self._attempt(partial(self._do, sampler, call), call.number, refused)

    @staticmethod
    def _loaded(load: _Load) -> Sampler:
        import torch

        torch.set_num_threads(load.threads)
        return load.factory(load.model, load.options)

    def _sample(self, sampler: Sampler) -> None:
        groups = sampler.collect(timeout=TURN)
        self._outstanding.difference_update(group.request.group_id for group in groups)
        if groups:
            self._connection.send(_Groups(groups))

    def _do(self, sampler: Sampler, call: _Call) -> None:
        match call.method:
            case "submit":
                sampler.submit(call.argument)
                self._outstanding.update(request.group_id for request in call.argument)
                return
            case "cancel":
                sampler.cancel(call.argument)
                self._outstanding.difference_update(call.argument)
                return
            case "sync":
                sampler.sync(call.argument.snapshot())
            case "save":
                sampler.save(call.argument)
            case "load":
                sampler.load(call.argument)
        self._connection.send(_Done(call.number))

    def _attempt(self, work: Callable[[], T], number: int | None, refused: frozenset[str] = frozenset()) -> T | None:
        """Return what the work returns; None, after telling the run, if it fails."""
        try:
            return work()
        except (EOFError, BrokenPipeError, ConnectionResetError):  # the run has ended
            raise
        except (RlvrError, OSError) as error:  # a full disk is reported as it would be in the run's own process
            self._connection.send(_Failed(error, number, refused))
        except Exception as error:
            traceback.print_exc()
            text = f"the sampler failed in its process with {type(error).__name__}: {error}"
            self._connection.send(_Failed(RunError(text), number, refused))
        return None


def main() -> None:
    """Serve the socket that the argument names; end when the run closes it."""
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the run has ended
        _Service(Connection(int(sys.argv[1]))).serve()
