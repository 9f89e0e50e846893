"""`rlvr watch`: the report of a run that goes on, served to a browser on this machine.

The server answers GET requests for two things: the page, and its newest content. It listens on the loopback address
unless another is named; then every request needs the token in the page's address. A request whose Host header names
something else is refused, so that no web page can reach the server under a name of its own (DNS rebinding).
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import secrets
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from rlvr.errors import RequestError, RlvrError
from rlvr.reports.browsing import Budget
from rlvr.reports.observations import Observer
from rlvr.reports.report import RunReport, gather

LOOPBACK = "127.0.0.1"
WATCHED = Budget(rollouts=4_000, characters=6_000_000, tokens=300_000)
"""Limits on the rollouts of a page that is sent again and again."""
REST = 2.0
"""Seconds between two looks at the files, at least; and five times as long as the last one took."""
_SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass
class _Content:
    """The newest report, made at most every few seconds and only if a file has changed."""

    paths: Sequence[Path]
    verifier: str | None
    rest: float
    observer: Observer = field(default_factory=Observer)
    lock: threading.Lock = field(default_factory=threading.Lock)
    report: RunReport | None = None
    error: str = ""
    version: int = 0
    looked: float = float("-inf")
    took: float = 0.0
    seen: tuple[tuple[str, int, int], ...] | None = None

    def newest(self) -> tuple[int, RunReport | None, str]:
        """Return version, report and error. The report is the last good one if the files cannot be read now."""
        with self.lock:
            if monotonic() - self.looked >= max(self.rest, 5 * self.took if self.rest else 0.0):
                self._look()
                self.looked = monotonic()
            return self.version, self.report, self.error

    def _look(self) -> None:
        seen = tuple(_state(path) for path in self.paths)
        flat = tuple(entry for each in seen for entry in each)
        if flat == self.seen:
            return
        begun = monotonic()
        try:
            self.report = gather(list(self.paths), verifier=self.verifier, observer=self.observer, budget=WATCHED)
            self.error = ""
        except (RlvrError, OSError) as error:  # a file that is being replaced, or was damaged: tell, and look again
            self.error = str(error)
        self.took = monotonic() - begun
        self.seen = None if self.error else flat
        self.version += 1


def _state(path: Path) -> list[tuple[str, int, int]]:
    """Return name, time and size of what a report of the path reads."""
    folders = [path, path / "rollouts", path / "evaluations"]
    files = [file for folder in folders if folder.is_dir() for file in sorted(folder.iterdir()) if file.is_file()]
    found = []
    for file in files or [path]:
        try:
            about = file.stat()
        except FileNotFoundError:  # replaced between the list and here
            continue
        found.append((str(file), about.st_mtime_ns, about.st_size))
    return found


class _Server(ThreadingHTTPServer):
    """A server that is silent about requests that fail: what they hold is somebody else's text."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing; the connection is closed."""


class _ServerV6(_Server):
    """The same on an address of IPv6."""

    address_family = socket.AF_INET6


class Watcher:
    """A server of the report of runs that go on. A context manager: it answers requests inside the block.

    Attributes:
        url: Address of the page, with the token if one is needed.
    """

    def __init__(
        self,
        paths: str | Path | Sequence[str | Path],
        *,
        host: str = LOOPBACK,
        port: int = 0,
        verifier: str | None = None,
        rest: float = REST,
    ) -> None:
        """Bind the address and read the runs once.

        Args:
            paths: Run directories and files, as for `report`.
            host: Address or name to listen on. Any but a loopback address makes a token necessary.
            port: Port to listen on; 0 is any free one.
            verifier: As for `report`.
            rest: Seconds between two looks at the files, at least; 0 looks at every request.

        Raises RequestError for a path that is neither a run nor holds rollouts, and for an address that cannot be
        listened on; DataError for a file that cannot be read.
        """
        named = [paths] if isinstance(paths, str | Path) else list(paths)
        self._content = _Content([Path(path) for path in named], verifier, rest)
        self._content.report = gather(named, verifier=verifier, observer=self._content.observer, budget=WATCHED)
        self.token = None if _is_loopback(host) else secrets.token_urlsafe(24)
        try:
            kind = _ServerV6 if ":" in host else _Server
            self._server = kind((host, port), _handler(self._content, self.token, host))
        except OSError as error:
            raise RequestError(f"--host {host} --port {port}: cannot listen there: {error.strerror}") from error
        self.port = int(self._server.server_address[1])
        name = socket.gethostname() if host in ("", "0.0.0.0", "::") else host
        shown = f"[{name}]" if ":" in name else name
        self.url = f"http://{shown}:{self.port}/" + ("" if self.token is None else f"?token={self.token}")
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop answering and release the address."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait(self) -> None:
        """Return when the server has stopped; an interrupt (Ctrl-C) ends the wait."""
        while self._thread.is_alive():
            self._thread.join(1.0)


def watch(
    paths: str | Path | Sequence[str | Path], *, host: str = LOOPBACK, port: int = 0, verifier: str | None = None
) -> Watcher:
    """Return a server of the report of runs that go on: `with rlvr.watch("runs/first") as server: print(server.url)`.

    The arguments and the errors are those of `Watcher`.
    """
    return Watcher(paths, host=host, port=port, verifier=verifier)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def allowed_host(header: str | None, host: str, token: str | None) -> bool:
    """Return whether a request's Host header names this server.

    On the loopback address, only loopback names count: a web page that had its own name point here would send that
    name. On any other address, the token protects, and a name is the user's own business.
    """
    if not header:
        return False
    if token is not None:
        return True
    try:
        address = urlsplit(f"//{header}")
    except ValueError:  # an address in brackets that is none
        return False
    name = address.hostname or ""
    return address.netloc == header and "@" not in header and (name == host or _is_loopback(name))


def _handler(content: _Content, token: str | None, host: str) -> type[BaseHTTPRequestHandler]:
    """Return the class that answers requests."""

    class Handler(BaseHTTPRequestHandler):
        """Answers GET for `/` and `/data`."""

        server_version, sys_version = "rlvr", ""
        timeout = 30  # a client that says nothing does not hold a thread forever

        def do_GET(self) -> None:
            try:
                address = urlsplit(self.path)
            except ValueError:
                self.answer(400, b"that is no address\n")
                return
            query = parse_qs(address.query)
            if not allowed_host(self.headers.get("Host"), host, token):
                self.answer(403, b"this server answers requests for its own address only\n")
            elif token is not None and not hmac.compare_digest(query.get("token", [""])[0].encode(), token.encode()):
                self.answer(403, b"the token is missing or wrong: use the address that rlvr watch printed\n")
            elif address.path == "/":
                self.page()
            elif address.path == "/data":
                self.data(query.get("since", [""])[0])
            else:
                self.answer(404, b"there is only the page at /\n")

        def page(self) -> None:
            version, report, error = content.newest()
            if report is None:
                self.answer(503, error.encode(), "text/plain; charset=utf-8")
            else:
                self.answer(200, report.html(live=True, state=version).encode("utf-8"), "text/html; charset=utf-8")

        def data(self, since: str) -> None:
            version, report, error = content.newest()
            changed: dict[str, Any] = {"state": version, "error": error}
            if report is not None and since != str(version):
                changed |= {"data": report.data(live=True, state=version), "packed": dict(report.packed)}
            self.answer(200, json.dumps(changed).encode("ascii"), "application/json")

        def answer(self, code: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
            self.send_response(code)
            for name, value in {**_SECURITY, "Content-Type": kind, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Log nothing: a request's line is somebody else's text."""

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except (ConnectionError, TimeoutError):  # the reader has closed the page
                self.close_connection = True

    return Handler
