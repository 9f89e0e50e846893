"""The verifier `code-python`: its labeled cases, statuses, options, and the sandbox that it chooses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlvr import Status, Task, Verdict
from rlvr.bench.cases import read_cases
from rlvr.protocols import Diagnosed
from rlvr.record.item import Item
from rlvr.verify.scoring import Scorer
from rlvr_verifiers.code import check
from rlvr_verifiers.code.errors import BoxError
from rlvr_verifiers.code.verifier import opened

CASES = Path(__file__).parents[3] / "verifiers" / "code" / "cases.jsonl"
SUM = json.dumps({"inputs": ["1 2\n", "3 4\n", "5 6\n"], "outputs": ["3\n", "7\n", "11\n"]})
ADD = "print(sum(map(int, input().split())))"


@pytest.fixture(scope="module")
def verifier() -> Iterator[check]:
    found = check(seconds=3.0, total_seconds=6.0)
    yield found
    found.close()


def judged(verifier: check, source: str, answer: str | None = SUM, **columns: Any) -> Verdict:
    return verifier.check(f"```python\n{source}\n```", Task(answer=answer, extra=columns))


@pytest.fixture
def partial() -> Iterator[check]:
    found = check(partial=True)
    yield found
    found.close()


def test_labeled_cases_get_their_verdict(verifier: check) -> None:
    wrong = [
        (case.category, case.completion, verdict.reason)
        for case in read_cases(CASES, str)
        if "while True" not in case.completion
        for verdict in [verifier.check(case.completion, Task(answer=case.gold, extra=case.extra))]
        if bool(verdict.reward) is not case.expected
    ]
    assert wrong == []


def test_statuses(verifier: check) -> None:
    assert judged(verifier, ADD).status is Status.GRADED
    assert judged(verifier, "print(").reward == 0, "in a block, it is a program"
    assert verifier.check("Sorry, no.", Task(answer=SUM)).status is Status.UNPARSED
    assert verifier.check("```python\nx", Task(answer=SUM)).status is Status.UNPARSED
    assert judged(verifier, ADD, answer="7").status is Status.INVALID
    broken = judged(verifier, "f = int", None, test_list=["assert f(1) < g"], test_setup_code="1/0")
    assert (broken.status, broken.reason) == (
        Status.INVALID,
        "the row's own test code fails: ZeroDivisionError: division by zero",
    )


def test_the_first_failing_test_ends_the_trial(verifier: check) -> None:
    verdict = judged(verifier, "a, b = map(int, input().split())\nprint(a + b if a < 3 else 0)")
    assert (verdict.reward, verdict.reason) == (0.0, "1 of 3 tests passed; test 2: printed 0")
    assert verdict.parts is not None
    assert {name: part.reward for name, part in verdict.parts.items()} == {"test 1": 1.0, "test 2": 0.0}


def test_partial_credit_is_the_share_of_the_tests(partial: check) -> None:
    verdict = judged(partial, "a, b = map(int, input().split())\nprint(a + b if a != 3 else 0)")
    assert verdict.reward == pytest.approx(2 / 3)
    assert verdict.parts is not None
    assert [part.reward for part in verdict.parts.values()] == [1.0, 0.0, 1.0]


def test_a_program_that_ends_in_a_call_is_started_again_for_the_next_test(partial: check) -> None:
    asserts = ["assert f(1) == 1", "assert f(2) == 2", "assert f(3) == 3", "assert f(4) > 3", "assert f(2) > 1"]
    verdict = judged(partial, "import os\ndef f(x):\n    if x == 2: os._exit(0)\n    return x", None, test_list=asserts)
    assert verdict.parts is not None
    assert [part.reward for part in verdict.parts.values()] == [1, 0, 1, 1, 0]
    assert verdict.reason == "3 of 5 tests passed; test 2: it ended before it answered"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("while True: pass", "more than 0.2 s of CPU"),
        ("import time\ntime.sleep(60)", "it waited for more than 0.4 s"),
        ("x = bytearray(10**9)", "MemoryError"),
        ("while True: print('x' * 999)", "more than 100,000 bytes of output"),
        ("raise KeyError('a')", "KeyError: 'a'"),
        ("exit(2)", "exit code 2"),
        ("import ctypes\nctypes.string_at(0)", "ended by signal 11"),
    ],
)
def test_what_goes_wrong_in_a_program_is_a_verdict_with_a_reason(source: str, reason: str) -> None:
    verifier = check(seconds=0.2, total_seconds=0.2, memory_mb=128, output_kb=100)
    try:
        verdict = judged(verifier, source)
    finally:
        verifier.close()
    assert (verdict.status, verdict.reward) == (Status.GRADED, 0.0)
    assert verdict.reason == f"0 of 3 tests passed; test 1: {reason}"


def test_a_program_that_breaks_the_setup_of_a_row_is_wrong(verifier: check) -> None:
    columns = {"test_list": ["assert f(root) > 1"], "test_setup_code": "root = Node(1)"}
    for source in ("f = int", "def Node(x): raise ValueError", "import os\ndef Node(x): os._exit(99)"):
        assert judged(verifier, source, None, **columns).reward == 0, source
    assert judged(verifier, "Node = float\ndef f(x): return x + 1", None, **columns).reward == 1


def test_what_a_program_prints_can_be_stored(verifier: check) -> None:
    verdict = judged(verifier, "import os\nos.write(1, b'\\xff\\xed\\xa0\\x80' * 300)")
    assert verdict.reward == 0
    assert verdict.reason is not None
    assert verdict.reason.encode()
    verdict = judged(verifier, "def f(x): raise ValueError('\\ud800')", None, test_list=["assert f(1) == 1"])
    assert verdict.reason == "0 of 1 tests passed; test 1: ValueError: \\ud800"


def test_programs_that_end_and_are_started_again_share_the_time() -> None:
    verifier = check(seconds=0.2, total_seconds=0.5, partial=True)
    asserts = [f"assert f({number}) == {number}" for number in range(50)]
    try:
        verdict = judged(verifier, "def f(x):\n    while x != 9: pass\n    return x", None, test_list=asserts)
    finally:
        verifier.close()
    assert verdict.parts is not None
    reasons = [part.reason or "" for part in verdict.parts.values()]
    assert len(reasons) == 50
    assert reasons[0] == "more than 0.2 s of CPU"
    assert reasons[-1] == "no time left: all tests together may take 0.5 s"


def test_all_tests_together_have_a_limit() -> None:
    verifier = check(seconds=0.3, total_seconds=0.3, partial=True)
    try:
        verdict = judged(
            verifier, "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass\n" + ADD
        )
        assert verdict.reason == "2 of 3 tests passed; test 3: no time left: all tests together may take 0.3 s"
    finally:
        verifier.close()


def test_a_sandbox_that_does_not_work_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(
        BoxError, match=r"^the sandbox bubblewrap does not work here \(bubblewrap: bubblewrap is not installed .*=none"
    ) as error:
        opened("bubblewrap")
    assert "landlock" not in str(error.value), "it was not asked for"
    verifier = check(sandbox="bubblewrap")
    with pytest.raises(BoxError):
        judged(verifier, ADD)


def test_auto_takes_what_works_and_never_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened("auto") as box:
        assert box.kind in ("bubblewrap", "landlock")
    monkeypatch.setenv("PATH", "/nowhere")
    with opened("auto") as box:
        assert box.kind == "landlock"
    with opened("none") as box:
        assert box.kind == "none"


def test_it_works_in_worker_processes() -> None:
    items = [Item(f"```python\n{ADD}\n```", Task(answer=SUM)), Item("```python\nprint(3)\n```", Task(answer=SUM))]
    with Scorer("code-python", workers=1, timeout=30.0) as scorer:
        assert [score.reward for score in scorer.score(items * 3)] == [1.0, 0.0] * 3


def test_the_doctor_says_which_sandboxes_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(check, Diagnosed)
    assert "works" in check.doctor()
    monkeypatch.setenv("PATH", "/nowhere")
    assert check.doctor() == (
        "bubblewrap does not: bubblewrap is not installed (apt-get install bubblewrap); landlock works"
    )
