"""Compare the accuracy of the verifier `math` with math-verify, on labeled pairs.

    python benchmarks/math_accuracy.py [--errors] [--no-math-verify] [FILE.jsonl ...]

Without files, the verifier's own corpus is read. A row has `gold`, `expected` (true or false) and, to group by, `kind`
or `category`. Its answer is either `completion`, a whole text that both sides judge as it stands, or `pred`. A `pred`
that is a bare answer (`form` is "bare", or it has no box and the row says nothing) is put in a box for both sides.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rlvr import Task
from rlvr_verifiers.math import check

CORPUS = Path(__file__).parent.parent / "verifiers" / "math" / "corpus.jsonl"
Judge = Callable[[str, str], bool]


def rlvr_judge(gold: str, completion: str) -> bool:
    """Judge with rlvr's verifier, in process and without the pool's limits."""
    return check(completion, Task(answer=gold)).reward == 1.0


def math_verify_pair(gold: str, completion: str) -> bool:
    """Judge with math-verify as its documentation uses it; a bare gold is put in a box."""
    from math_verify import parse
    from math_verify import verify as compare

    marked = any(mark in gold for mark in ("\\boxed", "$", "\\(", "\\["))
    sides = [
        parse(gold if marked else f"\\boxed{{{gold}}}", parsing_timeout=None),
        parse(completion, parsing_timeout=None),
    ]
    return bool(compare(*sides, timeout_seconds=None))


def serve(pipe: Connection) -> None:
    """Answer pairs until killed."""
    logging.disable(logging.ERROR)
    while True:
        try:
            right = math_verify_pair(*pipe.recv())
        except (RecursionError, ValueError, MemoryError):
            right = False
        pipe.send(right)


class MathVerify:
    """Runs math-verify in a process that is killed after 20 s: some pairs hang it, and its own time-outs with it."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Start a fresh process."""
        self.pipe, other = Pipe()
        self.process = Process(target=serve, args=(other,), daemon=True)
        self.process.start()

    def __call__(self, gold: str, completion: str) -> bool:
        """Return the verdict; a pair that does not end counts as wrong."""
        self.pipe.send((gold, completion))
        if self.pipe.poll(20):
            return bool(self.pipe.recv())
        self.process.kill()
        self.start()
        return False


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the labeled rows of one file, each with `completion` and `group`."""
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["expected"] is None:  # unlabeled
            continue
        if "completion" not in row:
            bare = row["form"] == "bare" if "form" in row else "\\boxed" not in row["pred"] and not row.get("text")
            row["completion"] = f"\\boxed{{{row['pred']}}}" if bare else row["pred"]
        row["group"] = row.get("category") or row.get("kind") or "pairs"
        yield row


def main() -> None:
    """Print a table per file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--errors", action="store_true", help="list the pairs that rlvr gets wrong")
    parser.add_argument("--no-math-verify", action="store_true", help="rlvr alone")
    arguments = parser.parse_args()
    judges: dict[str, Judge] = {"rlvr": rlvr_judge}
    if not arguments.no_math_verify:
        judges["math-verify"] = MathVerify()
    totals: dict[str, list[int]] = {name: [0, 0, 0] for name in judges}
    for path in arguments.files or [CORPUS]:
        report(path, judges, totals, arguments.errors)
    if len(arguments.files) > 1:
        for name, (pairs, false_positives, false_negatives) in totals.items():
            wrong = false_positives + false_negatives
            print(f"all files  {name:12} {pairs:5} pairs  {1 - wrong / pairs:6.1%}  "
                  f"{false_positives} false positives  {false_negatives} false negatives")  # fmt: skip


def report(path: Path, judges: dict[str, Judge], totals: dict[str, list[int]], errors: bool) -> None:
    """Print one file's table by group: accuracy, false positives and negatives, the median time of rlvr's verdicts."""
    table: dict[str, dict[str, list[int]]] = defaultdict(lambda: {name: [0, 0, 0] for name in judges})
    seconds: dict[str, list[float]] = defaultdict(list)
    for row in rows(path):
        for name, judge in judges.items():
            with contextlib.redirect_stderr(None):
                start = time.perf_counter()
                right = judge(row["gold"], row["completion"])
                spent = time.perf_counter() - start
            if name == "rlvr":
                seconds[row["group"]].append(spent)
                if errors and right != row["expected"]:
                    verdict = check(row["completion"], Task(answer=row["gold"]))
                    what = "FALSE POSITIVE" if right else "false negative"
                    read = f"{verdict.status.value}, {(verdict.extracted or '')[:80]!r}: {verdict.reason}"
                    print(
                        f"  {what} {row['group']}: {row['gold'][:120]!r} answer {row['completion'][-120:]!r}"
                        f"\n      {read}"
                    )
            for counts in (table[row["group"]][name], totals[name]):
                counts[0] += 1
                counts[1] += right and not row["expected"]
                counts[2] += not right and row["expected"]
    seconds["all"] = [spent for group in list(seconds) for spent in seconds[group]]
    print(f"\n{path.name}: slowest {max(seconds['all']) * 1e3:.0f} ms")
    for group in [*sorted(table), "all"] if len(table) > 1 else sorted(table):
        for name in judges:
            cells = [table[group][name]] if group != "all" else [table[g][name] for g in table]
            pairs, false_positives, false_negatives = (sum(column) for column in zip(*cells, strict=True))
            median = f"  median {statistics.median(seconds[group]) * 1e3:.3f} ms" if name == "rlvr" else ""
            print(f"  {group:24} {name:12} {pairs:5} pairs  {1 - (false_positives + false_negatives) / pairs:6.1%}  "
                  f"{false_positives:4} false positives  {false_negatives:4} false negatives{median}")  # fmt: skip


if __name__ == "__main__":
    main()
