"""`check_verifier`: what `rlvr check verifier` does, as an assertion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlvr.bench.bench import run_bench
from rlvr.bench.questions import questions_of
from rlvr.bench.report import Limits, Report
from rlvr.bench.text import report_text
from rlvr.errors import RequestError
from rlvr.verify.reward_limit import MAX_REWARD

EXAMPLES = 10
"""Examples per kind of fault in the message of a failure."""


def check_verifier(
    verifier: str,
    *,
    cases: str | Path | Sequence[str | Path] = (),
    dataset: str | None = None,
    limit: int | None = None,
    options: Mapping[str, Any] | None = None,
    answer_form: str | None = None,
    workers: int | None = None,
    timeout: float = 5.0,
    max_reward: float = MAX_REWARD,
    write_protect: bool = False,
    threshold: float = 0.5,
    max_false_positive_rate: float = 0.0,
    max_false_negative_rate: float = 0.1,
) -> Report:
    """Assert what `rlvr check verifier` checks, and return its report.

    Args:
        verifier: A registered name, `file.py:function` or `package.module:function`.
        cases: One or several files of labeled cases, instead of the file that the verifier declares.
        dataset: A prompt set, or a file of questions and answers, whose gold answers must be accepted.
        limit: Largest number of questions from the prompt set.
        options, answer_form, workers, timeout, max_reward, write_protect: See `rlvr.bench.bench.run_bench`.
        threshold, max_false_positive_rate, max_false_negative_rate: See `rlvr.bench.report.Limits`.

    Raises AssertionError, with the tables, when a check fails or nothing was tested; RequestError when the request is
    wrong.
    """
    if dataset is None and limit is not None:
        raise RequestError("limit is about a prompt set: name it with dataset=")
    report = run_bench(
        verifier,
        options,
        cases=[Path(cases)] if isinstance(cases, str | Path) else [Path(file) for file in cases],
        questions=questions_of(dataset, limit=limit) if dataset is not None else (),
        answer_form=answer_form,
        workers=workers,
        timeout=timeout,
        max_reward=max_reward,
        write_protect=write_protect,
        limits=Limits(threshold, max_false_positive_rate, max_false_negative_rate),
    )
    if not report.passed:
        raise AssertionError(report_text(report, EXAMPLES))
    return report
