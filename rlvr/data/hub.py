"""Finds out in seconds that the Hugging Face hub cannot be reached; its client retries each file for half a minute."""

from __future__ import annotations

import os
import socket
import time
from functools import lru_cache
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

CONNECT_SECONDS = 5.0
"""Time for a connection to one address. Only the handshake counts, so that slow connections pass."""
TOTAL_SECONDS = 15.0
"""Time for all addresses, after the name is resolved."""
REMEMBERED_SECONDS = 30.0
"""Time for which an answer holds."""


def unreachable() -> str | None:
    """Return why the hub cannot be reached, so that only its cache can be read; None if it can."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE is set"
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    return _unreachable(endpoint, int(time.monotonic() / REMEMBERED_SECONDS))


@lru_cache(maxsize=4)
def _unreachable(endpoint: str, period: int) -> str | None:
    """Return why a URL cannot be reached; None if it can, or if a proxy stands before it."""
    url = urlsplit(endpoint)
    host = url.hostname or ""
    proxies = getproxies()
    if (url.scheme in proxies or "all" in proxies) and not proxy_bypass(host):
        return None
    try:
        addresses = socket.getaddrinfo(host, url.port or (80 if url.scheme == "http" else 443), type=socket.SOCK_STREAM)
    except OSError as error:
        return f"{host} cannot be reached: {error.strerror or error}"
    reason, begin = "no address", time.monotonic()
    for family, kind, protocol, _, address in addresses:
        if time.monotonic() - begin > TOTAL_SECONDS:
            break
        with socket.socket(family, kind, protocol) as probe:
            probe.settimeout(CONNECT_SECONDS)
            try:
                probe.connect(address)
            except OSError as error:
                reason = error.strerror or str(error)
            else:
                return None
    return f"{host} cannot be reached: {reason}"
