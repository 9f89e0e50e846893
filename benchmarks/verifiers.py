"""Measure the built-in verifiers: errors on their labeled cases, attacks won, latency and verdicts per second.

    python benchmarks/verifiers.py [NAME ...]

Runs `rlvr check verifier` with one worker process for each, and scores its labeled cases for half a second of CPU time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import rlvr
from rlvr.bench.cases import Case, read_cases
from rlvr.bench.report import Report
from rlvr.columns import columns
from rlvr.evaluation.intervals import Share
from rlvr.record.item import Item
from rlvr.registry import registry
from rlvr.verify.scoring import Scorer

HEAD = ("VERIFIER", "CASES", "FALSE POSITIVES", "FALSE NEGATIVES", "ATTACKS WON", "P50 MS", "P99 MS", "PER CPU SECOND")
SECONDS = 0.5
ELSEWHERE = ("math", "math-verify", "http", "judge")
"""Verifiers that `benchmarks/math_accuracy.py` measures, or that need a server."""

IN_OTHER_PROCESSES = ("code-python",)
"""Verifiers that work in processes of their own, whose CPU time is not this one's: see `benchmarks/code.py`."""


def row(name: str) -> list[str]:
    """Return one line of the table."""
    report = rlvr.check(name, workers=1)
    total = report.total
    if total is None or total.latency is None:
        raise SystemExit(f"{name} has no labeled cases")
    times = [f"{seconds * 1e3:.2f}" for seconds in (total.latency.p50, total.latency.p99)]
    cases = total.false_positives.trials + total.false_negatives.trials
    shares = (share(total.false_positives), share(total.false_negatives))
    speed = "-" if name in IN_OTHER_PROCESSES else f"{per_second(name):,.0f}"
    return [name, f"{cases:,}", *shares, attacks(report), *times, speed]


def share(found: Share) -> str:
    """Return hits, trials and the upper end of the interval."""
    return f"{found.hits} of {found.trials} (to {found.interval[1]:.1%})"


def attacks(report: Report) -> str:
    """Return how many attacks were won, of those tried; hostile completions are among them."""
    tried = [check for check in report.checks if check.name.startswith("attack: ") or check.name.startswith("hostile")]
    return f"{sum(len(check.faults) for check in tried)} of {sum(check.tried for check in tried):,}"


def per_second(name: str) -> float:
    """Return the verdicts per second of CPU time, on the labeled cases, over and over.

    CPU time is that of this process, so other work on the machine does not count.
    """
    with Scorer(name, workers=0) as scorer:
        form = scorer.claims.answer_form
        file = Path(scorer.claims.cases or "")
        items = [item(case) for case in read_cases(file, lambda answer: form.replace("{answer}", answer))]
        list(scorer.score(items))
        done, begin = 0, time.process_time()
        while time.process_time() - begin < SECONDS:
            done += len(list(scorer.score(items)))
        return done / (time.process_time() - begin)


def item(case: Case) -> Item:
    """Return a case as the pool takes it."""
    return Item(case.completion, rlvr.Task(answer=case.gold, extra=case.extra))


def main(names: Sequence[str]) -> None:
    """Print the table."""
    known = [each.name for each in registry().entries("verifier") if each.distribution == "rlvr"]
    rows = [row(name) for name in names or [name for name in known if name not in ELSEWHERE]]
    print(columns([list(HEAD), *rows]))


if __name__ == "__main__":
    main(sys.argv[1:])
