"""A host to attack: a secret, a folder, sockets and a process, and a sandbox in which programs try to reach them."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from attacks import Attack, Trace
from rlvr_verifiers.code.box import Allowance, Box
from rlvr_verifiers.code.inside.claims import matches

HONEST = Allowance(seconds=5.0)
LIMITS = Allowance(seconds=0.2, memory=256 * 2**20, output=2**20)


class Arena:
    """A sandbox, and what it must protect."""

    def __init__(self, box: Box, folder: Path) -> None:
        self.box = box
        self._folder = folder
        self._token = secrets.token_hex(16)
        self._secret = folder / "secret"
        self._secret.write_text(self._token)
        self._server = socket.create_server(("127.0.0.1", 0))
        self._path = folder / "socket"
        self._local = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._local.bind(str(self._path))
        self._abstract = socket.socket(socket.AF_UNIX)
        self._abstract.bind(f"\0{self._token}")
        self._abstract.listen()
        self._process = subprocess.Popen(["sleep", "1000"])
        self._files = sorted(path.name for path in folder.iterdir())

    def close(self) -> None:
        """End the host."""
        self._process.kill()
        self._process.wait()
        for each in (self._server, self._local, self._abstract):
            each.close()

    def won(self, attack: Attack) -> list[str]:
        """Return what an attack has won."""
        source = attack.source
        values = {
            "secret": self._secret,
            "folder": self._folder,
            "port": self._server.getsockname()[1],
            "socket": self._path,
            "abstract": self._token,
            "pid": self._process.pid,
        }
        for name, value in values.items():
            source = source.replace(f"{{{name}}}", str(value))
        found = self._answered(source) if attack.calls else self._printed(source)
        return [f"{attack.name}: {each}" for each in (*found, *self._harm())]

    def _printed(self, source: str) -> Iterator[str]:
        expected = f"expected-{secrets.token_hex(8)}"
        ended = self.box.script(source, b"21\n", LIMITS)
        text = ended.output.decode("utf-8", "replace")
        for word in ("WON", self._token, expected):
            if word in text:
                yield text[-300:]
        if len(ended.output) > LIMITS.output:
            yield f"{len(ended.output)} bytes"

    def _answered(self, source: str) -> Iterator[str]:
        expected = f"expected-{secrets.token_hex(8)}"
        with self.box.calls({"kind": "calls", "source": source, "prelude": False}, LIMITS) as calls:
            loaded = calls.receive()
            if loaded is None or loaded[0] != "value":
                return
            for _ in range(2):
                calls.allow()
                calls.send(["call", "f", ["l", [21]], ["d", []], False])
                reply = calls.receive()
                if reply is not None and len(reply) > 1 and matches(expected, reply[1]):
                    yield f"it returned {reply}"

    def _harm(self) -> Iterator[str]:
        """Yield what the last program has broken."""
        if self._process.poll() is not None:
            yield "a process of the host has ended"
        if self._secret.read_text() != self._token:
            yield "a file has changed"
        if (now := sorted(path.name for path in self._folder.iterdir())) != self._files:
            yield f"files have changed: {now}"
        if self.box.script("print(int(input()) * 2)", b"21\n", HONEST).output != b"42\n":
            yield "an honest program after it fails"

    def traced(self, trace: Trace) -> list[str]:
        """Return what a program finds of the program before it."""
        self.box.script(trace.leaves, b"", HONEST)
        ended = self.box.script(trace.finds, b"", HONEST)
        if ended.output.strip() == b"no" and ended.code == 0:
            return []
        return [f"{trace.name}: {ended.output.decode()} {ended.message}"]


@contextlib.contextmanager
def arena(box: Box) -> Iterator[Arena]:
    """Open an arena with a folder that every user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="arena", dir="/tmp"))
    folder.chmod(0o755)
    try:
        with box:
            box.start()
            host = Arena(box, folder)
            try:
                yield host
            finally:
                host.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
