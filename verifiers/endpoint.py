"""Requests to servers that judge: repeated while a server is busy, and never turned into a reward when they fail."""

from __future__ import annotations

import atexit
import json
import time
from functools import lru_cache
from typing import Any

import httpx2

LARGEST_ANSWER = 4_000_000
"""Bytes of an answer that are read."""
LONGEST_WAIT = 10.0
"""Seconds between two tries."""
_BUSY = (408, 409, 425, 429)


class EndpointError(Exception):
    """The server gave no usable answer to this request, also when it was tried again; the message says why."""


class RefusedError(Exception):
    """The server refuses requests of this kind: the address, the key or the model is wrong."""


@lru_cache(maxsize=8)
def _client(timeout: float) -> httpx2.Client:
    """Return this process's client, which keeps its connections open."""
    client = httpx2.Client(timeout=httpx2.Timeout(timeout, connect=min(timeout, 5.0)), follow_redirects=False)
    atexit.register(client.close)
    return client


def post(url: str, body: Any, *, key: str | None, timeout: float, retries: int, pause: float) -> Any:
    """Return the JSON that a server answers to JSON.

    Args:
        url: Address of the server.
        body: JSON value to send.
        key: Sent as a bearer token.
        timeout: Seconds for one try.
        retries: Further tries after a failed one.
        pause: Seconds before the second try, doubled before each further one.

    Raises EndpointError if no try gave an answer, RefusedError if the server refuses the request.
    """
    headers = {"Content-Type": "application/json"} | ({} if key is None else {"Authorization": f"Bearer {key}"})
    content = json.dumps(body).encode("ascii")  # escaped, because completions may hold lone surrogates
    problem = ""
    for tried in range(retries + 1):
        if tried:
            time.sleep(min(pause * 2 ** (tried - 1), LONGEST_WAIT))
        try:
            answer = _client(timeout).post(url, content=content, headers=headers)
        except httpx2.TransportError as error:
            problem = f"{type(error).__name__}: {error}"
            continue
        if answer.status_code in _BUSY or answer.status_code >= 500:
            problem = f"status {answer.status_code}: {answer.text[:100]}"
            continue
        if answer.status_code != httpx2.codes.OK:
            raise RefusedError(f"{url} refuses the request ({answer.status_code}): {answer.text[:200]}")
        try:
            if len(answer.content) > LARGEST_ANSWER:
                raise EndpointError(f"{url} answered with {len(answer.content):,} bytes")
            return answer.json()
        except ValueError as error:
            raise EndpointError(f"{url} answered without JSON: {answer.text[:100]!r}") from error
    raise EndpointError(f"{url} gave no answer in {retries + 1} tries; {problem}")
