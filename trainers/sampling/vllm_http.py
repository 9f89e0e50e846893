"""One vLLM server over HTTP: what is asked of it, and how its answers are checked.

The server runs with `--enable-scale-out` (token ids in and out) and VLLM_SERVER_DEV_MODE=1 (weights), as `rlvr serve`
starts it. Many of its endpoints answer 200 whatever happened, so bodies are checked as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import httpx2
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from rlvr.errors import ConfigError, RunError, SamplerLostError

JSON: TypeAlias = Mapping[str, Any]
T = TypeVar("T")

SOON = 5.0
"""Seconds for calls that a server answers at once."""
REQUEST_PREFIX = "generate-tokens-"
"""Prefix that the server gives the id of a request; an abort names the whole."""


class _Read(BaseModel):
    """Fields that are read of an answer; a server of another version has more."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class TokenSpan(_Read):
    """Tokens `[start, end)` of a choice that weights of one version sampled."""

    version: str
    start: int
    end: int


class _Token(_Read):
    logprob: float


class _Logprobs(_Read):
    content: tuple[_Token, ...]


class Choice(_Read):
    """One completion."""

    index: int
    token_ids: tuple[int, ...]
    logprobs: _Logprobs
    finish_reason: str | None
    weight_versions: tuple[TokenSpan, ...]


class ServedModel(_Read):
    """A server's description of its model."""

    id: str
    root: str | None = None
    max_model_len: int | None = None


class VLLMServer:
    """Calls to one server. Methods raise SamplerLostError if it is gone, and RunError if it refuses."""

    def __init__(self, url: str, timeout: float) -> None:
        """`timeout`: seconds without an answer after which the server counts as lost."""
        self.url = url.rstrip("/")
        unlimited = httpx2.Limits(max_connections=None)
        self._client = httpx2.Client(timeout=httpx2.Timeout(timeout, connect=SOON), limits=unlimited)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def healthy(self) -> bool:
        """Return True if the server answers and its engine runs."""
        try:
            return self._client.get(f"{self.url}/health", timeout=SOON).status_code == httpx2.codes.OK
        except httpx2.TransportError:
            return False

    def model(self) -> ServedModel:
        """Return the model that is served."""
        return self._read(TypeAdapter(tuple[ServedModel, ...]), self._json("GET", "/v1/models").get("data"))[0]

    def engine_version(self) -> str:
        """Return vLLM's version."""
        return str(self._json("GET", "/version")["version"])

    def weight_version(self) -> str:
        """Return the version of the weights that the engine holds, as it was last told.

        Raises ConfigError for a server that has no endpoints for weights.
        """
        try:
            return str(self._json("GET", "/weight_info")["weight_version"])
        except (RunError, KeyError) as error:
            raise ConfigError(
                f"the vLLM server at {self.url} cannot be given weights ({error}); start it with: rlvr serve MODEL"
            ) from error

    def generate(self, name: str, prompt_ids: Sequence[int], params: JSON) -> tuple[Choice, ...]:
        """Sample the completions of one prompt, ordered by their index."""
        body = {"request_id": name, "token_ids": list(prompt_ids), "sampling_params": params}
        answer = self._json("POST", "/inference/v1/generate", body)
        choices = self._read(TypeAdapter(tuple[Choice, ...]), answer.get("choices"))
        return tuple(sorted(choices, key=lambda choice: choice.index))

    def abort(self, names: Sequence[str]) -> None:
        """Give up requests."""
        body = {"request_ids": [REQUEST_PREFIX + name for name in names]}
        self._json("POST", "/abort_requests", body, timeout=SOON)

    def load_weights(self, folder: Path, version: str) -> None:
        """Load the weights of a folder and name them, while requests under way are held and then go on."""
        self.replace_weights(version, partial(self._load_files, folder))

    def replace_weights(self, version: str, load: Callable[[], None]) -> None:
        """Hold requests under way, load weights, name them, and let the requests go on.

        Their caches are cleared, so that every later token is of the new weights alone.
        """
        self._json("POST", "/pause?mode=keep")
        load()
        self._json("POST", "/update_weight_version", {"new_version": version})
        self._json("POST", "/resume")
        held = self.weight_version()
        if held != version:
            raise RunError(f"the vLLM server at {self.url} holds weights {held!r} after a sync to {version!r}")

    def workers(self) -> int:
        """Return the number of processes that hold the model's parts."""
        return int(self._json("GET", "/get_world_size")["world_size"])

    def _load_files(self, folder: Path) -> None:
        self._json("POST", "/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}})

    def _read(self, type_: TypeAdapter[T], given: object) -> T:
        try:
            return type_.validate_python(given)
        except ValidationError as error:
            raise RunError(
                f"the vLLM server at {self.url} answered in a form that rlvr does not know: {error}; rlvr needs vLLM "
                "0.32 or newer"
            ) from error

    def _json(
        self, method: str, path: str, body: JSON | None = None, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Return the body of an answer; an empty one is {}. `timeout` replaces that of the server."""
        try:
            limit = self._client.timeout if timeout is None else timeout
            answer = self._client.request(method, self.url + path, json=body, timeout=limit)
        except httpx2.TransportError as error:
            raise SamplerLostError(f"{self.url} does not answer: {error or type(error).__name__}") from error
        if answer.status_code >= 500:
            raise SamplerLostError(f"{self.url}{path} answered {answer.status_code}: {_shown(answer)}")
        if answer.status_code != httpx2.codes.OK:
            raise RunError(f"the vLLM server at {self.url} refused {path} ({answer.status_code}): {_shown(answer)}")
        if not answer.content:
            return {}
        try:
            content = answer.json()
        except ValueError as error:
            raise RunError(f"the vLLM server at {self.url} answered {path} without JSON: {_shown(answer)}") from error
        if not isinstance(content, dict) or content.get("success") is False or "error" in content:
            raise RunError(f"the vLLM server at {self.url} did not do {path}: {_shown(answer)}")
        return content


def _shown(answer: httpx2.Response) -> str:
    return answer.text[:500]
