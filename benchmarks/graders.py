r"""Compare graders of math answers: the verifier `math` and those of other frameworks.

    make graders                                   # in an environment with verl and lm-eval
    python benchmarks/graders.py [FILE.jsonl ...]

Each grader is a verifier (`peers/graders.py`), so all run in the same worker processes with the same limits: 5 s, and
one second try in a fresh process. A grader that does not answer by then has hung.

Without files, the labeled pairs are those of math-verify's own tests, downloaded from the package registry. With files,
they are those of the files, in the format of `rlvr check verifier --cases`; a row's `source` names who made it. Bare
answers are put in a box. Attacks and hostile completions are those of `rlvr check verifier`, on eight gold answers.
"""

from __future__ import annotations

import argparse
import ast
import importlib.metadata
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import rlvr
from rlvr.bench.attacks import ATTACKS, HOSTILE, AttackTarget, attack
from rlvr.bench.cases import Case, read_cases
from rlvr.errors import DataError
from rlvr.evaluation.intervals import Share
from rlvr.record.item import Item
from rlvr.record.schema import Score, Status
from rlvr.verify.scoring import Scorer

PEERS = Path(__file__).parent / "peers" / "graders.py"
SDIST = "math-verify==0.9.0"
TARGETS = (
    AttackTarget("What is 6 times 7?", "42", "43"),
    AttackTarget("What is half of one?", r"\frac{1}{2}", r"\frac{1}{3}"),
    AttackTarget("What is 17 thousand and 3 hundred?", "17300", "17400"),
    AttackTarget("Solve x + 7 = 0.", "-7", "7"),
    AttackTarget("What is a quarter as a decimal?", "0.25", "0.52"),
    AttackTarget("Expand (x + 1)^2.", "x^2+2x+1", "x^2+2x+2"),
    AttackTarget("Which real numbers are at least 0?", r"[0,\infty)", r"(0,\infty)"),
    AttackTarget("What is the area of a circle with radius 1?", r"\pi", r"2\pi"),
)


def boxed(answer: str) -> str:
    """Return a completion that ends in the answer."""
    return f"\\boxed{{{answer}}}"


GRADERS: dict[str, tuple[str, str]] = {
    "rlvr `math`": ("math", "rlvr"),
    "math-verify": ("math-verify", "math-verify"),
    "TRL `accuracy_reward`": ("trl", "trl"),
    "verifiers `MathRubric`": ("prime_verifiers", "verifiers"),
    "verl `math_reward`": ("verl_math", "verl"),
    "verl `math_dapo`": ("verl_dapo", "verl"),
    "verl `prime_math`": ("verl_prime", "verl"),
    "lm-eval `minerva_math`": ("lm_eval_minerva", "lm-eval"),
    "lighteval extractive match": ("lighteval", "lighteval"),
}
"""Graders by the name in the table: a verifier, and the distribution that it comes from."""


# --- labeled pairs ----------------------------------------------------------------------------------------------------


def downloaded() -> dict[str, list[Case]]:
    """Return the labeled pairs of math-verify's tests, from its source distribution."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:",
             "--no-build-isolation", "--dest", folder, SDIST],
            check=True,
        )  # fmt: skip
        (archive,) = Path(folder).glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            sources = [
                extracted.read().decode()
                for member in tar.getmembers()
                if "/tests/test_" in member.name and (extracted := tar.extractfile(member)) is not None
            ]
    pairs = dict.fromkeys(pair for source in sources for pair in parametrized(source))
    return {f"tests of {SDIST.replace('==', ' ')}": [Case(gold, pred, right) for gold, pred, right in pairs]}


def parametrized(source: str) -> Iterator[tuple[str, str, bool]]:
    """Yield gold, completion and label of tests that are parametrized with literals of these, in this order."""
    for node in ast.walk(ast.parse(source)):
        if not (
            isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.parametrize" and len(node.args) > 1
        ):
            continue
        try:
            names, rows = ast.literal_eval(node.args[0]), ast.literal_eval(node.args[1])
        except ValueError:  # computed in the test
            continue
        if names == "gold,pred,expected":
            for gold, pred, right in rows:
                marked = any(mark in pred for mark in ("\\boxed", "$", "\\(", "\\["))
                yield gold.strip("$"), pred if marked else boxed(pred), bool(right)


def read(files: Sequence[Path]) -> dict[str, list[Case]]:
    """Return the labeled rows of files, by the source that they name."""
    found: dict[str, list[Case]] = {}
    for path in files:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        kept = [line for line in lines if line.get("expected") is not None]
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as copy:
            for line in kept:
                form = "text" if line.get("form", "bare") != "bare" else "bare"
                copy.write(json.dumps({key: line[key] for key in ("gold", "pred", "expected")} | {"form": form}) + "\n")
            copy.flush()
            cases = list(read_cases(Path(copy.name), boxed))
        for line, case in zip(kept, cases, strict=True):
            found.setdefault(str(line.get("source", path.name)).partition("@")[0], []).append(case)
    if not found:
        raise DataError("no file has a labeled row")
    return found


# --- measuring --------------------------------------------------------------------------------------------------------


@dataclass
class Result:
    """Errors and rate of one grader on one set."""

    false_positives: Share
    false_negatives: Share
    hung: int
    failed: int
    seconds: float


def judged(name: str, items: Sequence[Item], workers: int) -> tuple[list[Score], float]:
    """Return the scores in order, and the seconds that they took."""
    with Scorer(name, workers=workers, timeout=5.0) as scorer:
        list(scorer.score(items[:2]))  # workers import their libraries
        begin = time.perf_counter()
        return list(scorer.score(items)), time.perf_counter() - begin


def right(score: Score) -> bool:
    """Return True if the verdict pays."""
    return score.status is Status.GRADED and score.reward is not None and score.reward > 0.5


def measured(name: str, cases: Sequence[Case], workers: int) -> Result:
    """Score labeled cases."""
    scores, seconds = judged(name, [Item(case.completion, rlvr.Task(answer=case.gold)) for case in cases], workers)
    statuses = [score.status for score in scores]
    paid = [right(score) for score in scores]
    wrong = [pay for pay, case in zip(paid, cases, strict=True) if not case.expected]
    true = [pay for pay, case in zip(paid, cases, strict=True) if case.expected]
    return Result(
        Share(sum(wrong), len(wrong)), Share(len(true) - sum(true), len(true)),
        statuses.count(Status.TIMEOUT), statuses.count(Status.ERROR), seconds,
    )  # fmt: skip


def attacked(name: str, workers: int) -> tuple[Share, Share]:
    """Return attacks won and hostile completions that hung or broke the grader, each of those tried."""
    tried = [
        Item(completion, rlvr.Task(answer=target.gold))
        for target in TARGETS
        for kind in ATTACKS
        for completion in attack(kind, target, boxed)
    ]
    won = sum(map(right, judged(name, tried, workers)[0]))
    hostile = [Item(make(boxed), rlvr.Task(answer="42")) for make in HOSTILE.values()]
    scores = judged(name, hostile, workers)[0]
    broken = sum(score.status in (Status.TIMEOUT, Status.ERROR) or right(score) for score in scores)
    return Share(won, len(tried)), Share(broken, len(hostile))


def share(found: Share) -> str:
    """Return hits, trials and their interval."""
    low, high = found.interval
    return f"{found.hits} of {found.trials:,} ({low:.1%} to {high:.1%})"


HEAD = ("| grader | false positives | false negatives | hung | failed | verdicts/s |", "|---|---|---|---|---|---|")


def line(grader: str, result: Result) -> str:
    """Return one line of a table."""
    pairs = result.false_positives.trials + result.false_negatives.trials
    shares = f"{share(result.false_positives)} | {share(result.false_negatives)}"
    return f"| {grader} | {shares} | {result.hung} | {result.failed} | {pairs / result.seconds:,.0f} |"


def total(results: Sequence[Result]) -> Result:
    """Return the sum over several sets."""
    shares = [
        Share(sum(one.hits for one in each), sum(one.trials for one in each))
        for each in ([one.false_positives for one in results], [one.false_negatives for one in results])
    ]
    return Result(
        *shares, sum(one.hung for one in results), sum(one.failed for one in results),
        sum(one.seconds for one in results),
    )  # fmt: skip


def lines(sets: dict[str, list[Case]], graders: Sequence[str], workers: int) -> Iterator[str]:
    """Yield the lines of the page as they are measured."""
    by_name = {each: f"{PEERS}:{verifier}" if verifier not in ("math", "math-verify") else verifier
               for each, (verifier, _) in GRADERS.items()}  # fmt: skip
    found: dict[str, list[Result]] = {each: [] for each in graders}
    for source, cases in sets.items():
        yield from ("", f"### {source}: {len(cases)} labeled pairs", "", *HEAD)
        for each in graders:
            found[each].append(measured(by_name[each], cases, workers))
            yield line(each, found[each][-1])
    yield from ("", f"### All {sum(map(len, sets.values()))} labeled pairs", "", *HEAD)
    yield from (line(each, total(results)) for each, results in found.items())
    yield "\n### Attacks of `rlvr check verifier`\n"
    yield "| grader | version | attacks won | hostile completions that hung, broke or won |"
    yield "|---|---|---|---|"
    for each in graders:
        won, broken = attacked(by_name[each], workers)
        version = importlib.metadata.version(GRADERS[each][1])
        yield f"| {each} | {version} | {share(won)} | {broken.hits} of {broken.trials} |"


def main() -> None:
    """Print a page in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--only", action="append", help="part of a grader's name; may be given several times")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--no-download", action="store_true", help="the files alone")
    arguments = parser.parse_args()
    chosen = [each for each in GRADERS if not arguments.only or any(part in each for part in arguments.only)]
    sets = ({} if arguments.no_download else downloaded()) | (read(arguments.files) if arguments.files else {})
    for line in lines(sets, chosen, arguments.workers):
        print(line, flush=True)


if __name__ == "__main__":
    main()
