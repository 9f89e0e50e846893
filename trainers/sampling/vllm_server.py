"""`vllm-server`: the sampler on vLLM servers, one or several."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_validator
from safetensors.torch import load_file

from rlvr.errors import ConfigError, RequestError, RunError
from rlvr.protocols import GroupRequest, ModelSpec, SampledGroup, SamplerOptions, Snapshot
from rlvr.run.weights_files import memory_folder, write_weights

from ..model.models import resolve
from .saved_weights import load_weights, save_weights
from .vllm_http import Choice, ServerLostError, VLLMServer
from .vllm_requests import FRESH, EngineModel, engine_params, group_of

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

    @property
    def runs_elsewhere(self) -> bool:
        """True: the servers are other processes."""
        return True

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


@dataclass
class _Pending:
    """A request, and where it is being answered."""

    request: GroupRequest
    start: float
    server: VLLMServer | None = None
    """None while it waits for one."""


@dataclass
class _Endpoint:
    """State of one server."""

    server: VLLMServer
    under_way: set[str] = field(default_factory=set)
    lost: str | None = None
    """Why it is not used; None if it is."""


_Result = tuple[_Pending, VLLMServer, tuple[Choice, ...] | Exception]


class VLLMServerSampler:
    """A `Sampler` that asks vLLM servers over HTTP.

    A group goes to the server with the fewest groups under way. A server that is lost, or restarts with old weights,
    gets none: its groups are asked of the others, or of the same one when it is back and holds the current weights.
    """

    Options: ClassVar[type[SamplerOptions]] = VLLMServerOptions

    def __init__(self, model: ModelSpec, options: VLLMServerOptions) -> None:
        """Connect. The servers' weights are version 0 until the first sync.

        Raises ConfigError for a server that serves another model, cannot be given weights or does not answer.
        """
        self.options = options
        self.spec = resolve(model)
        self._model = EngineModel(self.spec)
        self._endpoints = [_Endpoint(VLLMServer(url, options.timeout)) for url in options.servers]
        for endpoint in self._endpoints:
            self._model.limit(_checked(endpoint.server, self.spec))
        self._engine_version = self._endpoints[0].server.engine_version()
        self.version = 0
        self._tied: dict[str, str] = {}
        self._stack = ExitStack()
        self._folder: Path | None = None
        """Weights of the last sync, for a server that comes back and for `save`; None before it."""
        self._asked: dict[str, _Pending] = {}
        self._results: queue.SimpleQueue[_Result] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(options.groups_per_server * len(self._endpoints), "vllm-server")
        self._alone_since: float | None = None

    # --- weights ----------------------------------------------------------------------------------------------------

    def sync(self, snapshot: Snapshot) -> None:
        """Load the weights into every server; requests under way go on with them.

        Raises RunError, with nothing changed, if names or shapes are not those of this model; RunError as well if a
        server refuses them or none is left.
        """
        self._model.check_weights(snapshot)
        stack = ExitStack()
        folder = stack.enter_context(memory_folder(self.options.sync_folder))
        write_weights(snapshot, folder / WEIGHTS, spell_out_tied=True)
        self._stack.close()
        self._stack, self._folder, self._tied = stack, folder, dict(snapshot.tied)
        self.version = snapshot.version
        self._each(self._give_weights)
        while not any(each.lost is None for each in self._endpoints):
            self._revive(1.0)

    def _give_weights(self, endpoint: _Endpoint) -> None:
        assert self._folder is not None
        endpoint.server.load_weights(self._folder, str(self.version))

    def _each(self, do: Callable[[_Endpoint], None]) -> None:
        """Do something with every server that is not lost, at the same time."""
        live = [each for each in self._endpoints if each.lost is None]
        with ThreadPoolExecutor(max(1, len(live))) as threads:
            for each, done in [(each, threads.submit(do, each)) for each in live]:
                try:
                    done.result()
                except ServerLostError as error:
                    self._lose(each, str(error))

    def save(self, directory: Path) -> None:
        """Write the weights held and their version. Outstanding requests are the caller's to submit again."""
        weights = {} if self._folder is None else load_file(self._folder / WEIGHTS)
        own = {name: tensor for name, tensor in weights.items() if name not in self._tied}
        save_weights(directory, self.version, own, self._tied)

    def load(self, directory: Path) -> None:
        """Give the servers what `save` wrote. Raises RunError if it is missing or belongs to another model."""
        snapshot = load_weights(directory)
        if snapshot is not None:
            self.sync(snapshot)

    def close(self) -> None:
        """Give up what is outstanding, and close the connections."""
        self.cancel(list(self._asked))
        self._threads.shutdown(wait=False, cancel_futures=True)
        for each in self._endpoints:
            each.server.close()
        self._stack.close()
        self._folder = None

    # --- sampling ---------------------------------------------------------------------------------------------------

    def submit(self, requests: Sequence[GroupRequest]) -> None:
        """Send the requests, or keep them until a server has room. Raises RequestError for a prompt that does not fit.

        Nothing is sent then.
        """
        self._model.check(requests)
        for request in requests:
            self._asked[request.group_id] = _Pending(request, time.perf_counter())
        self._dispatch()

    def cancel(self, ids: Collection[str]) -> None:
        """Abort the requests with these ids."""
        for endpoint in self._endpoints:
            ours = [name for name in ids if name in endpoint.under_way]
            endpoint.under_way.difference_update(ours)
            if ours and endpoint.lost is None:
                with suppress(ServerLostError):  # then nothing is under way there
                    endpoint.server.abort(ours)
        for name in ids:
            self._asked.pop(name, None)

    def collect(self, timeout: float | None = None) -> list[SampledGroup]:
        """Return the groups that have been answered; wait for one, with `timeout` for so many seconds.

        Raises RunError if no server is left for longer than `patience`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        finished: list[SampledGroup] = []
        while self._asked and not finished:
            left = 1.0 if deadline is None else min(1.0, deadline - time.monotonic())
            with suppress(queue.Empty):
                finished += self._settle(self._results.get(timeout=max(0.0, left)))
                while True:  # those that are there as well
                    finished += self._settle(self._results.get_nowait())
            if not finished:
                self._revive(0.0)
            self._dispatch()
            if deadline is not None and time.monotonic() >= deadline:
                break
        return finished

    def _dispatch(self) -> None:
        """Send waiting requests to the servers that have room, each to the one with the fewest."""
        for asked in self._asked.values():
            if asked.server is not None:
                continue
            free = [e for e in self._endpoints if e.lost is None and len(e.under_way) < self.options.groups_per_server]
            if not free:
                return
            endpoint = min(free, key=lambda each: len(each.under_way))
            endpoint.under_way.add(asked.request.group_id)
            asked.server = endpoint.server
            self._threads.submit(self._ask, asked, endpoint.server)

    def _ask(self, asked: _Pending, server: VLLMServer) -> None:
        """Ask for one group; runs in a thread of its own."""
        request = asked.request
        try:
            choices = server.generate(
                request.group_id, request.prompt_ids, engine_params(request, self._model.completions)
            )
        except Exception as error:  # raised where results are collected
            self._results.put((asked, server, error))
        else:
            self._results.put((asked, server, choices))

    def _settle(self, result: _Result) -> list[SampledGroup]:
        """Return the group that an answer holds; none if it has to be asked again, or nobody waits for it any more."""
        asked, server, given = result
        name = asked.request.group_id
        if self._asked.get(name) is not asked or asked.server is not server:
            return []
        endpoint = next(each for each in self._endpoints if each.server is server)
        endpoint.under_way.discard(name)
        if isinstance(given, ServerLostError):
            self._lose(endpoint, str(given))
            return []
        if isinstance(given, Exception):
            raise given
        fresh = [span.version == FRESH for choice in given for span in choice.weight_versions]
        if self._folder is not None and self.version != 0 and any(fresh):
            self._lose(endpoint, f"{server.url} was restarted and has the model's first weights")
            return []
        if self._folder is None and not all(fresh):
            raise RequestError(
                f"{server.url} holds weights that an earlier run gave it, not those of {self.spec.path!r}: restart the "
                "server"
            )
        if any(one.finish_reason == "abort" for one in given):
            asked.server = None
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
        sampling = self._model.sampling(request, self._engine_version, self.options.dtype)
        return group_of(request, samples, sampling, time.perf_counter() - asked.start)

    # --- servers that come and go -----------------------------------------------------------------------------------

    def _lose(self, endpoint: _Endpoint, why: str) -> None:
        """Use a server no more until it is back, and ask its groups again."""
        endpoint.lost = why
        endpoint.under_way.clear()
        for asked in self._asked.values():
            if asked.server is endpoint.server:
                asked.server = None

    def _revive(self, pause: float) -> None:
        """Use servers again that are back, with the current weights.

        Raises RunError if none has been there for longer than `patience`.
        """
        for endpoint in self._endpoints:
            if endpoint.lost is None or not endpoint.server.healthy():
                continue
            try:
                if self._folder is not None:
                    self._give_weights(endpoint)
                endpoint.lost = None
            except ServerLostError as error:
                endpoint.lost = str(error)
        if any(each.lost is None for each in self._endpoints):
            self._alone_since = None
            return
        now = time.monotonic()
        self._alone_since = now if self._alone_since is None else self._alone_since
        if now - self._alone_since > self.options.patience:
            reasons = "; ".join(str(each.lost) for each in self._endpoints)
            raise RunError(
                f"no vLLM server has answered for {self.options.patience:g} s: {reasons}. Start one again "
                "(rlvr serve MODEL), and continue the run with --resume"
            )
        time.sleep(pause)


def _checked(server: VLLMServer, spec: ModelSpec) -> int | None:
    """Return the longest sequence that a server takes. Raises ConfigError for one that cannot be used."""
    try:
        served = server.model()
        server.weight_version()
    except ServerLostError as error:
        raise ConfigError(f"sampling.options.servers: {error}; start it with: rlvr serve {spec.path}") from error
    names = {served.id, served.root or served.id}
    if spec.path not in names and not any(Path(name).name == Path(spec.path).name for name in names):
        raise ConfigError(
            f"sampling.options.servers: {server.url} serves {served.root or served.id!r}, and the run trains "
            f"{spec.path!r}; start it with: rlvr serve {spec.path}"
        )
    return served.max_model_len
