"""Measure the built-in verifiers: errors on their labeled cases, attacks won, latency and verdicts per second.

    python benchmarks/verifiers.py [NAME ...]

Runs `rlvr check verifier` with one worker process for each, and scores its labeled cases for half a second of CPU time.
`http` and `judge` ask a server on this machine that knows the right decisions; `http` is scored on `exact`'s cases.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from verdict_server import judge_of, serving, verdicts_of

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
ELSEWHERE = ("math", "math-verify")
"""Verifiers that `benchmarks/math_accuracy.py` measures."""
BEHIND_HTTP = "exact"
"""Verifier that gives the verdicts of the server that `http` asks."""

IN_OTHER_PROCESSES = ("code-python",)
"""Verifiers that work in processes of their own, whose CPU time is not this one's: see `benchmarks/code.py`."""


def row(name: str) -> list[str]:
    """Return one line of the table."""
    file, form = cases_of(name)
    cases = list(read_cases(file, lambda answer: form.replace("{answer}", answer)))
    replies = {"judge": lambda: judge_of(cases), "http": lambda: verdicts_of(BEHIND_HTTP)}
    with serving(replies[name]()) if name in replies else nullcontext("") as url:
        options = {"url": url} if name == "http" else {"url": url, "model": "scripted"} if name == "judge" else {}
        report = rlvr.check(name, options, cases=file, answer_form=form, workers=1)
        speed = "-" if name in IN_OTHER_PROCESSES else f"{per_second(name, options, cases):,.0f}"
    total = report.total
    if total is None or total.latency is None:
        raise SystemExit(f"{name} has no labeled cases")
    times = [f"{seconds * 1e3:.2f}" for seconds in (total.latency.p50, total.latency.p99)]
    tried = total.false_positives.trials + total.false_negatives.trials
    shares = (share(total.false_positives), share(total.false_negatives))
    return [name, f"{tried:,}", *shares, attacks(report), *times, speed]


def cases_of(name: str) -> tuple[Path, str]:
    """Return the file of a verifier's labeled cases, and the form of its answers."""
    with Scorer(
        BEHIND_HTTP if name == "http" else name, {"url": "-", "model": "-"} if name == "judge" else {}
    ) as scorer:
        return Path(scorer.claims.cases or ""), scorer.claims.answer_form


def share(found: Share) -> str:
    """Return hits, trials and the upper end of the interval."""
    return f"{found.hits} of {found.trials} (to {found.interval[1]:.1%})"


def attacks(report: Report) -> str:
    """Return how many attacks were won, of those tried; hostile completions are among them."""
    tried = [check for check in report.checks if check.name.startswith("attack: ") or check.name.startswith("hostile")]
    return f"{sum(len(check.faults) for check in tried)} of {sum(check.tried for check in tried):,}"


def per_second(name: str, options: Mapping[str, Any], cases: Sequence[Case]) -> float:
    """Return the verdicts per second of CPU time, on the labeled cases, over and over.

    CPU time is that of this process, so other work on the machine does not count.
    """
    with Scorer(name, options, workers=0) as scorer:
        items = [item(case) for case in cases]
        list(scorer.score(items))
        done, begin = 0, time.process_time()
        while time.process_time() - begin < SECONDS:
            done += len(list(scorer.score(items)))
        return done / (time.process_time() - begin)


def item(case: Case) -> Item:
    """Return a case as the pool takes it."""
    task = rlvr.Task(answer=case.gold, extra=case.extra)
    return Item(
        case.completion, task, rlvr.Rollout(id="1", prompt=case.prompt or "", completion=case.completion, task=task)
    )


def main(names: Sequence[str]) -> None:
    """Print the table."""
    known = [each.name for each in registry().entries("verifier") if each.distribution == "rlvr"]
    rows = [row(name) for name in names or [name for name in known if name not in ELSEWHERE]]
    print(columns([list(HEAD), *rows]))


if __name__ == "__main__":
    main(sys.argv[1:])
