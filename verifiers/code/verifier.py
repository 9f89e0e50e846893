"""The verifier `code-python`, and its options."""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from rlvr import Status, Task, Verdict, verifier

from ..stated import invalid, unparsed
from .box import Allowance, Box, Kind
from .errors import BoxError, RowError
from .extract import program_of
from .outputs import Comparison
from .rows import RowTests, completed, read_tests
from .running import TestResult, TestRun

Sandbox: TypeAlias = Literal["auto", "bubblewrap", "landlock", "none"]

SANDBOXES: tuple[Kind, ...] = ("bubblewrap", "landlock")
"""Sandboxes that protect, the better first."""
MOST_PARTS = 100
"""Tests whose results are parts of a verdict."""


def opened(sandbox: Sandbox) -> Box:
    """Return a box that works, started. Raises BoxError if there is none, with what to do.

    `auto` is bubblewrap, or Landlock where that does not work; never none.
    """
    reasons = []
    kinds: tuple[Kind, ...] = SANDBOXES if sandbox == "auto" else (sandbox,)
    for kind in kinds:
        try:
            return _proven(kind)
        except BoxError as error:
            reasons.append(f"{kind}: {error}")
    what = "no sandbox works here" if sandbox == "auto" else f"the sandbox {sandbox} does not work here"
    raise BoxError(
        f"{what} ({'; '.join(reasons)}). Install bubblewrap (apt-get install bubblewrap) where user namespaces are "
        "allowed, or use Linux 6.2 or newer with Landlock. The option sandbox=none runs what a model writes with your "
        "rights"
    )


def _proven(kind: Kind) -> Box:
    """Return a box that has run a program. Raises BoxError."""
    box = Box(kind)
    try:
        ended = box.script("print(int(input()) + 1)", b"41\n", Allowance(seconds=10.0))
        if ended.output != b"42\n":
            raise BoxError(f"programs do not run ({ended.how}, {ended.code}, {ended.message})")
    except BoxError:
        box.close()
        raise
    return box


@verifier(
    name="code-python", version="1", needs_answer=False, answer_form=None, partial_credit=True, cases="cases.jsonl"
)
class CodePython:
    """A verifier that pays for a program which passes the tests of its row, in a sandbox.

    Args:
        sandbox: bubblewrap; landlock; auto: the first of these that works; none: no protection at all.
        partial: Pay the share of the tests that pass, and run all of them. Otherwise all must pass.
        seconds: CPU seconds of a test. A program that waits has twice that by the clock.
        total_seconds: CPU seconds of all tests of a completion; keep it below the verifier's time limit.
        memory_mb: Memory of a program, in MB of address space.
        output_kb: Output of a test, in kB.
        stdout: How output is compared: lines (tokens, line by line), tokens, exact.
        tolerance: Relative or absolute error of printed numbers where the expected one has a decimal point.
    """

    def __init__(
        self,
        *,
        sandbox: Sandbox = "auto",
        partial: bool = False,
        seconds: Annotated[float, Field(gt=0)] = 2.0,
        total_seconds: Annotated[float, Field(gt=0)] = 4.0,
        memory_mb: Annotated[int, Field(ge=64)] = 512,
        output_kb: Annotated[int, Field(ge=1)] = 4_096,
        stdout: Comparison = "lines",
        tolerance: Annotated[float, Field(ge=0, lt=1)] = 1e-6,
    ) -> None:
        self._sandbox = sandbox
        self._partial = partial
        self._limits = Allowance(
            seconds, memory=memory_mb * 2**20, output=output_kb * 1_000, total=max(seconds, total_seconds)
        )
        self._compare, self._tolerance = stdout, tolerance
        self._box: Box | None = None
        self._last: tuple[Task, RowTests] | None = None

    @staticmethod
    def doctor() -> str:
        """Return which sandboxes work on this machine. Raises BoxError if none does."""
        opened("auto").close()
        found = []
        for kind in SANDBOXES:
            try:
                _proven(kind).close()
                found.append(f"{kind} works")
            except BoxError as error:
                found.append(f"{kind} does not: {error}")
        return "; ".join(found)

    def setup(self) -> None:
        """Start the sandbox. Raises BoxError if none works."""
        self._box = opened(self._sandbox)

    def close(self) -> None:
        """End the sandbox."""
        if self._box is not None:
            self._box.close()
            self._box = None

    def check(self, completion: str, task: Task) -> Verdict:
        """Return 1.0 when the program in `completion` passes all tests of the row, and 0.0 when it does not.

        Each test is a part of the verdict.

        Args:
            completion: Text whose last block of Python is the program; the whole text if it has no block.
            task: Has the tests, in one of the layouts of `rlvr_verifiers.code.rows`.
        """
        try:
            row = self._tests(task)
            found = program_of(completion)
            if found.reason:
                return unparsed(found.reason)
            outcomes = self._run(_whole(found.source, row), row)
        except RowError as error:
            return invalid(str(error))
        failed = [outcome for outcome in outcomes if not outcome.passed]
        if not found.fenced and failed and _is_no_python(failed[0].reason):
            return unparsed("no block of code, and the whole text is no Python")
        return self._verdict(found.source, outcomes, failed, len(row.tests))

    def _tests(self, task: Task) -> RowTests:
        """Return the tests of a row. Completions of one row come one after another, so the last row's are kept."""
        if self._last is None or self._last[0] != task:
            self._last = (task, read_tests(task))
        return self._last[1]

    def _run(self, source: str, row: RowTests) -> list[TestResult]:
        if self._box is None:
            self.setup()
        assert self._box is not None
        outcomes = []
        for outcome in TestRun(self._box, source, row, self._limits, self._compare, self._tolerance).outcomes():
            outcomes.append(outcome)
            if not outcome.passed and not self._partial:
                break
        return outcomes

    def _verdict(self, source: str, outcomes: list[TestResult], failed: list[TestResult], count: int) -> Verdict:
        passed = len(outcomes) - len(failed)
        reward = passed / count if self._partial else float(passed == count)
        reason = f"{passed} of {count} tests passed"
        if failed:
            reason += f"; test {failed[0].number}: {failed[0].reason}"
        parts = {
            f"test {each.number}": Verdict(status=Status.GRADED, reward=float(each.passed), reason=each.reason or None)
            for each in sorted(outcomes[:MOST_PARTS], key=lambda each: each.number)
        }
        return Verdict(status=Status.GRADED, reward=reward, extracted=source, reason=reason, parts=parts)


check = CodePython
"""The verifier, by the name that the registry asks for."""


def _whole(source: str, row: RowTests) -> str:
    """Return the program to run: HumanEval's prompt stands before it, and a mere continuation completes that."""
    if not row.before:
        return source
    name = re.escape(row.entry)
    defines = re.search(rf"^(?:(?:async\s+)?def\s+{name}\b|{name}\s*=)", source, re.MULTILINE)
    return f"{completed(row.before)}\n\n{source}" if defines else f"{row.before}{source}"


def _is_no_python(reason: str) -> bool:
    return reason.startswith(("SyntaxError", "IndentationError", "TabError"))
