"""`rlvr watch`: who gets an answer, and what it holds while a run goes on."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rlvr
from report_runs import make_run, metrics, rollout, score
from rlvr.errors import RequestError
from rlvr.record.store import write_rollouts
from rlvr.reports.watch import Watcher, allowed_host


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(
        tmp_path / "run", [metrics(0)], [[rollout("a", 0, "<script>x</script>", score("math", 1.0))]], steps=9
    )


def get(server: Watcher, path: str, method: str = "GET", **headers: str) -> tuple[int, str, dict[str, str]]:
    """Return status, body and headers of a request."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), dict(answer.getheaders())


def newest(server: Watcher, since: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(get(server, f"/data?since={since}")[1])
    return found


def test_the_page_is_served_on_the_loopback_address(run: Path) -> None:
    with rlvr.watch(run) as server:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", server.url)
        status, page, headers = get(server, "/")
    assert status == 200
    assert "connect-src 'self'" in page
    assert "<script>x" not in page
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cache-Control"] == "no-store"


def test_new_steps_arrive_and_old_ones_are_not_sent_again(run: Path) -> None:
    with Watcher(run, rest=0.0) as server:
        first = newest(server, -1)
        assert [len(source["alarms"]) for source in first["data"]["sources"]] == [0]
        assert "data" not in newest(server, first["state"])
        with (run / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(metrics(1)) + "\n")
            file.write('{"step": 2, "rew')  # a kill, or a line that is being written
        write_rollouts(run / "rollouts" / "step-000001.parquet", [rollout("b", 0, "y", score("math", 0.0))])
        second = newest(server, first["state"])
        assert second["state"] > first["state"]
        assert second["data"]["sources"][0]["steps"] == 2
        assert second["data"]["rollouts"]["total"] == 2
        assert "rollouts" in second["packed"]


def test_a_damaged_file_is_told_and_the_last_page_stays(run: Path) -> None:
    with Watcher(run, rest=0.0) as server:
        (run / "rollouts" / "step-000001.parquet").write_bytes(b"PAR1 torn")
        found = newest(server, -1)
        assert "step-000001.parquet is not a Parquet file" in found["error"]
        assert get(server, "/")[0] == 200
        (run / "rollouts" / "step-000001.parquet").unlink()
        assert newest(server, found["state"])["error"] == ""


@pytest.mark.parametrize(
    ("path", "method", "headers", "status"),
    [
        ("/", "GET", {"Host": "evil.example"}, 403),  # a page whose name points here
        ("/data", "GET", {"Host": "evil.example:80"}, 403),
        ("/", "GET", {"Host": "localhost:1"}, 200),
        ("/config.yaml", "GET", {}, 404),
        ("/../metrics.jsonl", "GET", {}, 404),
        ("/rollouts/", "GET", {}, 404),
        ("/", "GET", {"Host": "[evil]"}, 403),
        ("/", "GET", {"Host": "evil.example@127.0.0.1"}, 403),
        ("/", "POST", {}, 501),
        ("/", "PUT", {}, 501),
        ("/", "DELETE", {}, 501),
    ],
)
def test_only_the_page_is_answered(run: Path, path: str, method: str, headers: dict[str, str], status: int) -> None:
    with rlvr.watch(run) as server:
        assert get(server, path, method, **headers)[0] == status


def test_another_address_needs_the_token(run: Path) -> None:
    with rlvr.watch(run, host="0.0.0.0") as server:
        assert server.token is not None
        assert server.url.endswith(f":{server.port}/?token={server.token}")
        assert get(server, "/")[0] == 403
        assert get(server, "/?token=wrong")[0] == 403
        assert get(server, f"/?token={server.token}x")[0] == 403
        assert get(server, f"/data?token={server.token}")[0] == 200
        assert get(server, f"/?token={server.token}", Host="machine.example")[0] == 200


def test_a_request_that_fails_prints_nothing(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with rlvr.watch(run) as server:
        for line in (b"GET http://[ HTTP/1.0\r\n\r\n", b"GET / HTTP/1.0\r\nHost: [\r\n\r\n", b"\x00\xff\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
                client.sendall(line)
                assert client.recv(100).startswith((b"HTTP/1.0 40", b"<!DOCTYPE"))
    assert capfd.readouterr() == ("", "")


def test_an_error_is_gone_once_its_file_is(run: Path) -> None:
    with Watcher(run, rest=0.0) as server:
        before = (run / "metrics.jsonl").read_text()
        (run / "metrics.jsonl").write_text("no JSON\n" + before)
        assert "is not JSON" in newest(server, -1)["error"]
        shutil.rmtree(run)
        assert "is not JSON" not in newest(server, -1)["error"]


def test_files_of_others_among_the_held_out_answers_are_left_out(run: Path) -> None:
    (run / "evaluations").mkdir(exist_ok=True)
    (run / "evaluations" / "notes.parquet").write_bytes(b"PAR1 none of ours")
    with Watcher(run, rest=0.0) as server:
        assert newest(server, -1)["error"] == ""


def test_hosts() -> None:
    assert allowed_host("127.0.0.1:8000", "127.0.0.1", None)
    assert allowed_host("[::1]:8000", "127.0.0.1", None)
    assert not allowed_host(None, "127.0.0.1", None)
    assert not allowed_host("127.0.0.1.evil.example", "127.0.0.1", None)
    assert allowed_host("anything", "0.0.0.0", "token")


def test_wrong_requests(run: Path) -> None:
    with pytest.raises(RequestError, match="does not exist"):
        rlvr.watch(run.parent / "missing")
    with rlvr.watch(run) as server, pytest.raises(RequestError, match="cannot listen there: Address already in use"):
        rlvr.watch(run, port=server.port)
    with pytest.raises(RequestError, match="cannot listen there"):
        rlvr.watch(run, host="no such host")


def test_the_command_prints_the_address_and_ends_on_an_interrupt(run: Path) -> None:
    command = [sys.executable, "-m", "rlvr", "watch", str(run)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ})
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
    assert found, line
    connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=30)
    connection.request("GET", "/")
    assert connection.getresponse().status == 200
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in err
