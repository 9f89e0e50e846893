"""`vllm-server`: the sampler on vLLM servers, one or several."""

from __future__ import annotations

import queue
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from rlvr.errors import ConfigError, RequestError, SamplerLostError
from rlvr.protocols import GroupRequest, ModelSpec, SampledGroup, SamplerOptions, Snapshot
from rlvr.run.several import Several
from rlvr.run.weights_files import memory_folder, write_weights

from ..model.models import resolve
from .saved_weights import load_weights, save_weights
from .vllm_http import Choice, VLLMServer
from .vllm_requests import FRESH, EngineModel, engine_params, group_of
from .vllm_transfer import Transfer, require_gpu

WEIGHTS = "model.safetensors"


class VLLMServerOptions(SamplerOptions):
    """Keys of `sampling.options` for the sampler `vllm-server`."""

    servers: tuple[str, ...] = Field(
        default=(), validate_default=True, description="URLs, as `rlvr serve` prints them; at least one"
    )
    groups_per_server: int = Field(
        default=64, ge=1, description="requests under way at one server; the others wait here"
    )
    timeout: float = Field(
        default=1800.0, gt=0, description="seconds for one group, after which its server counts as lost"
    )
    patience: float = Field(
        default=300.0, ge=0, description="seconds to wait for a server when none is left, before the run stops"
    )
    sync_folder: Path | None = Field(
        default=None,
        description="folder that the servers see as well, for weights; null is this machine's shared memory",
    )
    dtype: Literal["float32", "bfloat16", "float16"] | None = Field(
        default=None, description="dtype of the servers; null is the run's"
    )

    transfer: Literal["files", "nccl", "ipc"] = Field(
        default="files",
        description="how weights are sent: files; nccl or ipc (one machine) from GPU to GPU, which has not been run",
    )

    @property
    def runs_elsewhere(self) -> bool:
        """True: the servers are other processes."""
        return True

    @property
    def engines(self) -> int:
        """Number of servers."""
        return len(self.servers)

    @field_validator("servers", mode="before")
    @classmethod
    def _one_or_several(cls, servers: object) -> object:
        return tuple(url.strip() for url in servers.split(",")) if isinstance(servers, str) else servers

    @field_validator("servers")
    @classmethod
    def _are_urls(cls, servers: tuple[str, ...]) -> tuple[str, ...]:
        if not servers:
            raise ValueError("no server is named: start one with `rlvr serve MODEL`, and name it with --server URL")
        for url in servers:
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"{url!r} is no URL, such as http://localhost:8000")
        if len(set(servers)) < len(servers):
            raise ValueError("a server is named twice")
        return servers


class VLLMServerSampler:
    """A `Sampler` that asks vLLM servers over HTTP.

    It is `Several` samplers of one server each. A server that is lost, or restarts with old weights, gets no groups
    until it is back and holds the current weights.
    """

    Options: ClassVar[type[SamplerOptions]] = VLLMServerOptions

    def __init__(self, model: ModelSpec, options: VLLMServerOptions) -> None:
        """Connect. The servers' weights are version 0 until the first sync.

        Raises ConfigError for a server that serves another model, cannot be given weights or does not answer.
        """
        self.options = options
        self.spec = resolve(model)
        if options.transfer != "files":
            require_gpu(options.transfer, self.spec.device)
        self._model = EngineModel(self.spec)
        servers = [VLLMServer(url, options.timeout) for url in options.servers]
        for server in servers:
            self._model.limit(_checked(server, self.spec))
        self._engine_version = servers[0].engine_version()
        self.several = Several(
            [self._sampler(server) for server in servers],
            room=options.groups_per_server,
            again=self._again,
            patience=options.patience,
            folder=options.sync_folder,
        )

    def sync(self, snapshot: Snapshot) -> None:
        """Load the weights into every server; requests under way go on with them.

        Raises RunError, with nothing changed, if names or shapes are not those of this model; RunError as well if a
        server refuses them or none is left.
        """
        self._model.check_weights(snapshot)
        self.several.sync(snapshot)

    def save(self, directory: Path) -> None:
        """Write the weights held and their version. Outstanding requests are the caller's to submit again."""
        held = self.several.held
        tensors = {} if held is None else dict(held.tensors())
        save_weights(directory, 0 if held is None else held.version, tensors, None if held is None else held.tied)

    def load(self, directory: Path) -> None:
        """Give the servers what `save` wrote. Raises RunError if it is missing or belongs to another model."""
        snapshot = load_weights(directory)
        if snapshot is not None:
            self.sync(snapshot)

    def submit(self, requests: Sequence[GroupRequest]) -> None:
        """Send the requests, or keep them until a server has room. Raises RequestError for a prompt that does not fit.

        Nothing is sent then.
        """
        self._model.check(requests)
        self.several.submit(requests)

    def collect(self, timeout: float | None = None) -> list[SampledGroup]:
        """Return the groups that have been answered; wait for one, with `timeout` for so many seconds.

        Raises RunError if no server is left for longer than `patience`.
        """
        return self.several.collect(timeout)

    def cancel(self, ids: Collection[str]) -> None:
        """Abort the requests with these ids."""
        self.several.cancel(ids)

    def close(self) -> None:
        """Give up what is outstanding, and close the connections."""
        self.several.close()

    def _sampler(self, server: VLLMServer) -> _OneServer:
        return _OneServer(server, self._model, self.options, self._engine_version)

    def _again(self, i: int) -> _OneServer:
        """Return a sampler of server i if it answers again."""
        server = VLLMServer(self.options.servers[i], self.options.timeout)
        if not server.healthy():
            server.close()
            raise SamplerLostError(f"{server.url} does not answer; start it again with: rlvr serve {self.spec.path}")
        return self._sampler(server)


@dataclass
class _Pending:
    """A request under way."""

    request: GroupRequest
    start: float


_Result = tuple[_Pending, tuple[Choice, ...] | Exception]


class _OneServer:
    """A `Sampler` that asks one server. Methods raise SamplerLostError if it is gone."""

    def __init__(self, server: VLLMServer, model: EngineModel, options: VLLMServerOptions, engine_version: str) -> None:
        self._server, self._model, self._options, self._engine_version = server, model, options, engine_version
        self._version: int | None = None
        """Version of the last sync; None before it."""
        self._transfer: Transfer | None = None
        self._asked: dict[str, _Pending] = {}
        self._results: queue.SimpleQueue[_Result] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(options.groups_per_server, "vllm-server")

    def sync(self, snapshot: Snapshot) -> None:
        """Load the weights; requests under way go on with them."""
        if self._options.transfer == "files":
            with memory_folder(self._options.sync_folder) as folder:
                write_weights(snapshot, folder / WEIGHTS)
                self._server.load_weights(folder, str(snapshot.version))
        else:
            if self._transfer is None:
                server = self._server
                self._transfer = Transfer(self._options.transfer, server.url, server.workers(), snapshot)
            self._server.replace_weights(str(snapshot.version), partial(self._transfer.send, snapshot))
        self._version = snapshot.version

    def save(self, directory: Path) -> None:
        """Not needed: the weights are saved from the file that all servers read."""
        raise NotImplementedError

    def load(self, directory: Path) -> None:
        """Not needed, as with `save`."""
        raise NotImplementedError

    def close(self) -> None:
        """Give up what is outstanding, and close the connections."""
        with suppress(SamplerLostError):  # then nothing is under way there
            self.cancel(list(self._asked))
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._transfer is not None:
            self._transfer.close()
        self._server.close()

    def submit(self, requests: Sequence[GroupRequest]) -> None:
        """Send the requests, each from a thread of its own."""
        for request in requests:
            self._asked[request.group_id] = asked = _Pending(request, time.perf_counter())
            self._threads.submit(self._ask, asked)

    def cancel(self, ids: Collection[str]) -> None:
        """Abort the requests with these ids."""
        ours = [name for name in ids if self._asked.pop(name, None) is not None]
        if ours:
            self._server.abort(ours)

    def collect(self, timeout: float | None = None) -> list[SampledGroup]:
        """Return the groups that have been answered; wait for one, with `timeout` for so many seconds."""
        finished: list[SampledGroup] = []
        with suppress(queue.Empty):
            if self._asked:
                finished += self._settle(*self._results.get(timeout=timeout))
            while True:  # those that are there as well
                finished += self._settle(*self._results.get_nowait())
        return finished

    def _ask(self, asked: _Pending) -> None:
        """Ask for one group; runs in a thread of its own."""
        request = asked.request
        try:
            choices = self._server.generate(
                request.group_id, request.prompt_ids, engine_params(request, self._model.completions)
            )
        except Exception as error:  # raised where results are collected
            self._results.put((asked, error))
        else:
            self._results.put((asked, choices))

    def _settle(self, asked: _Pending, given: tuple[Choice, ...] | Exception) -> list[SampledGroup]:
        """Return the group that an answer holds; none if nobody waits for it any more."""
        name, url = asked.request.group_id, self._server.url
        if self._asked.get(name) is not asked:
            return []
        if isinstance(given, Exception):
            raise given
        fresh = [span.version == FRESH for choice in given for span in choice.weight_versions]
        if self._version and any(fresh):
            raise SamplerLostError(f"{url} was restarted and has the model's first weights")
        if self._version is None and not all(fresh):
            raise RequestError(
                f"{url} holds weights that an earlier run gave it, not those of {self._model.path!r}: restart the "
                "server"
            )
        if any(one.finish_reason == "abort" for one in given):
            self._threads.submit(self._ask, asked)
            return []
        del self._asked[name]
        return [self._group(asked, given)]

    def _group(self, asked: _Pending, choices: Sequence[Choice]) -> SampledGroup:
        request = asked.request
        samples = []
        for choice in choices:
            logprobs = [token.logprob for token in choice.logprobs.content]
            samples.append(
                self._model.sample(request, choice.token_ids, logprobs, choice.finish_reason, choice.weight_versions)
            )
        sampling = self._model.sampling(request, self._engine_version, self._options.dtype)
        return group_of(request, samples, sampling, time.perf_counter() - asked.start)


def _checked(server: VLLMServer, spec: ModelSpec) -> int | None:
    """Return the longest sequence that a server takes. Raises ConfigError for one that cannot be used."""
    try:
        served = server.model()
        server.weight_version()
    except SamplerLostError as error:
        raise ConfigError(f"sampling.options.servers: {error.cause}; start it with: rlvr serve {spec.path}") from error
    names = {served.id, served.root or served.id}
    if spec.path not in names and not any(Path(name).name == Path(spec.path).name for name in names):
        raise ConfigError(
            f"sampling.options.servers: {server.url} serves {served.root or served.id!r}, and the run trains "
            f"{spec.path!r}; start it with: rlvr serve {spec.path}"
        )
    return served.max_model_len
