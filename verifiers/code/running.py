"""Tests of a row, run against a program in a box."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from .box import Allowance, Box, Calls, Ended
from .errors import RowError
from .inside.claims import ClaimError, encode, matches
from .inside.zygote import BUSY
from .outputs import Comparison, same_output
from .rows import CallTest, CodeTest, RowTests, ScriptTest

PATIENCE_OF_TESTS = 5
"""Time of test code, in times of a program: it waits for the program."""

Numbered: TypeAlias = "Sequence[tuple[int, Any]]"
"""Tests with their places in the row."""


@dataclass(frozen=True)
class TestResult:
    """Result of one test."""

    number: int
    """Place of the test in the row, from 1."""
    passed: bool
    reason: str = ""


@dataclass(frozen=True)
class TestRun:
    """A program and the tests that it must pass."""

    box: Box
    source: str
    row: RowTests
    limits: Allowance
    compare: Comparison = "lines"
    tolerance: float = 1e-6

    def outcomes(self) -> Iterator[TestResult]:
        """Yield the outcome of each test. A caller that has seen enough stops asking.

        Raises BoxError if the box breaks, RowError if the row's own test code does.
        """
        for kind, run in ((ScriptTest, self._scripts), (CallTest, self._calls), (CodeTest, self._codes)):
            tests = [(number, test) for number, test in enumerate(self.row.tests, 1) if isinstance(test, kind)]
            yield from run(tests)

    def _scripts(self, tests: Numbered) -> Iterator[TestResult]:
        spent = _Spent(self.limits.total)
        for number, test in tests:
            if spent.all:
                yield TestResult(number, False, spent.reason)
                continue
            ended = self.box.script(self.source, test.given.encode("utf-8", "surrogatepass"), self.limits)
            spent.add(ended)
            reason = _how(ended, self.limits)
            if not reason:
                printed = ended.output.decode("utf-8", "surrogateescape")
                if same_output(printed, test.expected, self.compare, self.tolerance):
                    yield TestResult(number, True)
                    continue
                reason = f"printed {_short(printed)}" if printed.strip() else "printed nothing"
            yield TestResult(number, False, reason)

    def _program(self) -> Calls:
        job = {"kind": "calls", "source": self.source, "prelude": self.row.prelude}
        return self.box.calls(job, self.limits)

    def _calls(self, tests: Numbered) -> Iterator[TestResult]:
        waiting, spent = list(tests), _Spent(self.limits.total)
        while waiting and not spent.all:  # once for each process that a test has ended
            with self._program() as program:
                if (reason := _loaded(program, self.limits)) is not None:
                    yield from (TestResult(number, False, reason) for number, _ in waiting)
                    return
                while waiting and program.ended is None:
                    number, test = waiting.pop(0)
                    reason = _called(program, test, self.limits)
                    yield TestResult(number, not reason, reason)
            spent.add(program.ended)
        yield from (TestResult(number, False, spent.reason) for number, _ in waiting)

    def _codes(self, tests: Numbered) -> Iterator[TestResult]:
        waiting, spent = list(tests), _Spent(self.limits.total)
        while waiting and not spent.all:
            with ExitStack() as stack:
                program = stack.enter_context(self._program())
                if (reason := _loaded(program, self.limits)) is not None:
                    yield from (TestResult(number, False, reason) for number, _ in waiting)
                    return
                steps = [test.source for _, test in waiting]
                job = {"kind": "tests", "setup": self.row.setup, "names": dict(self.row.names), "steps": steps}
                patient = replace(
                    self.limits,
                    seconds=PATIENCE_OF_TESTS * self.limits.seconds,
                    total=PATIENCE_OF_TESTS * self.limits.total,
                )
                test_code = stack.enter_context(self.box.calls(job, patient))
                while waiting and program.ended is None and test_code.ended is None:
                    number, _ = waiting.pop(0)
                    reason = _stepped(program, test_code, self.limits)
                    yield TestResult(number, not reason, reason)
            spent.add(program.ended)
            spent.add(test_code.ended)
        yield from (TestResult(number, False, spent.reason) for number, _ in waiting)


class _Spent:
    """Time that the tests of one completion have taken, of `total` seconds."""

    def __init__(self, total: float) -> None:
        self._total = total
        self._cpu = self._clock = 0.0
        self.reason = f"no time left: all tests together may take {total:g} s"

    def add(self, ended: Ended | None) -> None:
        """Count a process that has ended."""
        if ended is not None:
            self._cpu, self._clock = self._cpu + ended.cpu, self._clock + ended.clock

    @property
    def all(self) -> bool:
        """True if nothing is left: it has computed for that long, or waited."""
        return self._cpu >= self._total or (self._clock >= self._total and self._cpu < BUSY * self._clock)


def _loaded(program: Calls, limits: Allowance) -> str | None:
    """Return why a program does not load; None if it does."""
    reply = program.receive()
    if reply is None:
        return _end(program, limits)
    return None if reply[0] == "value" else _raised(reply)


def _called(program: Calls, test: CallTest, limits: Allowance) -> str:
    """Return why a call fails its test; "" if it passes."""
    program.allow()
    try:
        request = ["call", test.name, encode(list(test.arguments)), encode(dict(test.keywords)), False]
    except ClaimError as error:
        raise RowError(f"an argument is {error}") from error
    program.send(request)
    reply = program.receive()
    if reply is None:
        return _end(program, limits)
    if reply[0] != "value" or len(reply) < 2:
        return _raised(reply)
    for expected in test.expected:
        if matches(expected, reply[1], tolerance=test.tolerance, sequences=test.sequences):
            return ""
    return f"{test.name}(…) returned another value"


def _stepped(program: Calls, tests: Calls, limits: Allowance) -> str:
    """Return why a step of test code fails; "" if it passes. Passes its calls on to the program."""
    tests.allow()
    asked = False
    while True:
        message = tests.receive()
        if message is None:
            return f"the test code: {_end(tests, limits)}"
        if message[0] == "passed":
            return ""
        if message[0] == "broken" and not asked:  # else the program may be the reason
            raise RowError(f"the row's own test code fails: {message[1]}")
        if message[0] != "ask":
            return str(message[1])
        asked = True
        program.allow()
        program.send(message[1])
        reply = program.receive()
        if reply is None:
            return _end(program, limits)
        tests.allow()
        tests.send([*reply, None, None][:3])


def _raised(reply: list[Any]) -> str:
    return _short(reply[2]) if len(reply) > 2 and isinstance(reply[2], str) else "no answer"


def _end(calls: Calls, limits: Allowance) -> str:
    assert calls.ended is not None
    return _how(calls.ended, limits) or "it ended before it answered"


def _how(ended: Ended, limits: Allowance) -> str:
    """Return how a program ended, in words; "" if it ended well."""
    words = {
        "cpu": f"more than {limits.seconds:g} s of CPU",
        "clock": f"it waited for more than {limits.clock:g} s",
        "output": f"more than {limits.output:,} bytes of output",
        "malformed": "an answer that is none",
    }
    if ended.how in words:
        return words[ended.how]
    if ended.code < 0:
        late = ended.cpu >= limits.total
        return f"more than {limits.total:g} s of CPU in all tests" if late else f"ended by signal {-ended.code}"
    return "" if ended.code == 0 else ended.message or f"exit code {ended.code}"


def _short(text: str) -> str:
    """Return the beginning of a text that a program wrote, on one line."""
    text = text[:2_000].encode("utf-8", "backslashreplace").decode()
    text = " ".join(itertools.islice(text.split(), 40))
    return text if len(text) <= 200 else f"{text[:200]}…"
