"""A local server for `benchmarks/verifiers.py`: what `http` and `judge` ask, in a process of its own.

It knows the right decisions, so the figures are those of the verifiers and their protocol, not of a model.
"""

from __future__ import annotations

import json
import multiprocessing
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

import rlvr
from rlvr.bench.cases import Case

Reply: TypeAlias = Callable[[Any], Any]
"""Returns the JSON of an answer for the JSON of a request."""


def judge_of(cases: Sequence[Case]) -> Reply:
    """Return an OpenAI-compatible judge that calls two answers the same if they are equal, or a right case."""
    same = {frozenset((case.gold, case.answer)) for case in cases if case.expected and case.answer is not None}
    return partial(_judged, same)


def _judged(same: set[frozenset[str]], body: Any) -> Any:
    text = body["messages"][-1]["content"]
    nonce = re.findall(r"exactly VERDICT (\w+) SAME", text)[-1]
    _, *answers = (json.loads(block) for block in re.findall(rf"{nonce}\n(.*)\n{nonce} ", text))
    decision = "SAME" if len(set(answers)) == 1 or frozenset(answers) in same else "DIFFERENT"
    return {
        "choices": [{"message": {"content": f"VERDICT {nonce} {decision}"}}],
        "usage": {"total_tokens": len(text) // 4},
    }


def verdicts_of(name: str) -> Reply:
    """Return a server's reply that is the verdict of another verifier."""
    verifier = rlvr.load_verifier(name)

    def reply(body: Any) -> Any:
        verdict = verifier.verify(body["completion"], rlvr.Task(answer=body["task"]["answer"]))
        return {"status": verdict.status.value, "reward": verdict.reward, "reason": verdict.reason}

    return reply


@contextmanager
def serving(reply: Reply) -> Iterator[str]:
    """Answer POST requests in a process of its own. Yield the server's address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one write for head and body, or each answer waits 40 ms for an acknowledgment

        def do_POST(self) -> None:
            content = json.dumps(reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    process = multiprocessing.get_context("fork").Process(target=server.serve_forever, daemon=True)
    process.start()
    server.socket.close()  # the child has its own
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        process.terminate()
        process.join()
