"""Compare `rlvr score` with math-verify in a plain loop, in `datasets.map`, and in TRL's accuracy reward.

    python benchmarks/scoring.py [--rows 20000] [--baseline-rows 20000] [--many 200000]

Makes its own rollouts: whole completions of a few hundred words in groups of 16, half of them wrong, some without an
answer; every row says whether it is right. Each contender is a program of its own, start-up included, and writes the
rewards that it gives. A baseline that is given fewer rows than the file has says so in the table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "scoring.md"
GROUP = 16

SENTENCES = (
    "First I write down what is given: the value of $x_{a}$ is {b}, and the sum of the other terms is ${c}$.",
    "If we substitute this into the equation, we obtain ${a}y + {b} = {c}$, so $y = \\frac{{{c} - {b}}}{{{a}}}$.",
    "Wait, let me check that again, because the second case was not considered; there are {a} of them.",
    "By the quadratic formula, $t = \\frac{{-{a} \\pm \\sqrt{{{b}^2 + 4 \\cdot {c}}}}}{{2}}$, which does not help.",
    "Counting the pairs gives $\\binom{{{a}}}{{2}}$ possibilities, of which {b} have to be left out.",
    "Therefore the area of the triangle is half of the product of {a} and {b}, and its perimeter follows from that.",
    "We can also see this modulo {a}: the remainder of ${b}^{{{c}}}$ repeats with a period that divides {c}.",
    "The remaining cases are symmetric, so it is enough to look at the one where $a < b$ and to double the result.",
    "Simplifying, the left side becomes ${a}x^2 - {b}x + {c}$ and the right side stays as it is.",
    "This agrees with the estimate from the beginning, which was somewhere between {a} and {b}.",
)


# --- the rollouts ---------------------------------------------------------------------------------------------------

Question: TypeAlias = tuple[str, list[str], list[str]]


def integer(draw: random.Random, n: int) -> Question:
    """Return a gold answer, spellings of it, and wrong answers; they depend on `n`."""
    m = draw.randint(-500, 5000) + 6000 * n
    return str(m), [str(m), f"{m:,}" if m > 999 else f" {m} ", f"{m}.0"], [str(m + draw.randint(1, 9)), str(2 * m + 1)]


def fraction(draw: random.Random, n: int) -> Question:
    """See `integer`."""
    value = Fraction(draw.randint(1, 99) + 100 * n, draw.choice([2, 4, 5, 8, 20, 25]))
    p, q = value.numerator, value.denominator
    spellings = [f"\\frac{{{p}}}{{{q}}}", f"{p}/{q}", f"\\dfrac{{{2 * p}}}{{{2 * q}}}", str(p / q)]
    return spellings[0], spellings, [f"\\frac{{{p + 1}}}{{{q}}}", f"\\frac{{{q}}}{{{p + q}}}", f"{p}/{q + 1}"]


def surd(draw: random.Random, n: int) -> Question:
    """See `integer`."""
    a, b = draw.randint(2, 30) + 31 * n, draw.choice([2, 3, 5, 6, 7, 10, 11])
    right = [f"{a}\\sqrt{{{b}}}", f"\\sqrt{{{a * a * b}}}", f"{a} \\cdot \\sqrt{{{b}}}"]
    return right[0], right, [f"{a + 1}\\sqrt{{{b}}}", f"\\sqrt{{{a * b}}}"]


def polynomial(draw: random.Random, n: int) -> Question:
    """See `integer`."""
    a, b = draw.randint(1, 20) + 20 * n, draw.randint(1, 20)
    right = [f"x^2 + {a + b}x + {a * b}", f"(x + {a})(x + {b})", f"{a * b} + x^2 + {a + b}x"]
    return right[0], right, [f"x^2 + {a + b + 1}x + {a * b}", f"(x - {a})(x + {b})"]


def interval(draw: random.Random, n: int) -> Question:
    """See `integer`."""
    a, b = draw.randint(-40, 0) - 41 * n, draw.randint(1, 40)
    right = [f"[{a}, {b})", f"\\left[{a}, {b}\\right)"]
    return right[0], right, [f"[{a}, {b}]", f"[{a - 1}, {b})"]


def point(draw: random.Random, n: int) -> Question:
    """See `integer`."""
    a, b = draw.randint(-40, 40) + 81 * n, draw.randint(-40, 40)
    right = [f"({a}, {b})", f"\\left({a}, {b}\\right)"]
    return right[0], right, [f"({a + 1}, {b})", f"({b}, {a + b + 1})"]


KINDS = (integer, integer, integer, fraction, fraction, surd, polynomial, interval, point)


def words(draw: random.Random) -> str:
    """Return reasoning of 150 to 500 words."""
    count = draw.randint(8, 26)
    numbers = ({name: draw.randint(2, 97) for name in "abc"} for _ in range(count))
    return " ".join(draw.choice(SENTENCES).format(**each) for each in numbers)


def rollouts(rows: int, *, distinct: bool) -> Iterator[dict[str, Any]]:
    """Rows with `completion`, `answer`, `group_id`, and `expected`: whether it is right.

    With `distinct` every row has a question of its own, so that no gold and no answer comes twice in a row.
    """
    for i in range(rows):
        group = i if distinct else i // GROUP
        question = random.Random(f"question {group}")
        gold, right, wrong = question.choice(KINDS)(question, i if distinct else 0)
        draw = random.Random(f"row {i} {distinct}")
        expected = draw.random() < 0.5
        text = words(draw)
        if draw.random() < 0.03:
            expected = False  # cut off before the answer
        else:
            answer = draw.choice(right if expected else wrong)
            text += f" So the answer is $\\boxed{{{answer}}}$."
        yield {"id": str(i), "group_id": str(group), "completion": text, "answer": gold, "expected": expected}


HOSTILE = (
    "9^{9^{9^{9}}}",
    "(10^{100})!",
    "99999999^{99999999}",
    "\\left(\\frac{1}{3}\\right)^{10^{8}}",
    "(" * 3000 + "1" + ")" * 3000,
    "\\frac{1}{" * 2000 + "1" + "}" * 2000,
    "1+" * 200_000 + "1",
    "9" * 1_000_000,
    "{" * 100_000,
    "x=" * 5000 + "x",
    "\\sqrt{" * 1000 + "2" + "}" * 1000,
    "\x00\x1b[2J\u202e" * 2000,
)


def with_hostile(rows: list[dict[str, Any]], share: float) -> Iterator[dict[str, Any]]:
    """Yield the rows, a share of them with a hostile answer."""
    every = round(1 / share)
    for i, row in enumerate(rows):
        if i % every == every // 2:
            hostile = HOSTILE[i // every % len(HOSTILE)]
            yield {**row, "completion": f"So the answer is $\\boxed{{{hostile}}}$.", "expected": False}
        else:
            yield row


def put(path: Path, rows: Iterator[dict[str, Any]] | list[dict[str, Any]]) -> Path:
    """Write the rows as JSON lines."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


# --- the others: each a program of its own --------------------------------------------------------------------------


def load(path: str) -> list[dict[str, Any]]:
    """Return the rows of a file."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def math_verify_reward(completion: str, answer: str) -> float:
    """Score with math-verify as in its documentation: the gold in a box, time-outs by SIGALRM."""
    from math_verify import parse, verify

    return float(verify(parse(f"\\boxed{{{answer}}}"), parse(completion)))


def plain_loop(path: str) -> list[float]:
    """Score with math-verify, row by row."""
    return [math_verify_reward(row["completion"], row["answer"]) for row in load(path)]


def datasets_map(path: str) -> list[float]:
    """Score with math-verify in two processes of `datasets`."""
    from datasets import Dataset

    def judged(row: dict[str, Any]) -> dict[str, Any]:
        return {"reward": math_verify_reward(row["completion"], row["answer"])}

    with tempfile.TemporaryDirectory() as cache:
        data = Dataset.from_json(path, cache_dir=cache)
        return list(data.map(judged, num_proc=2)["reward"])


def trl_accuracy(path: str) -> list[float]:
    """Score with TRL's accuracy reward, group by group."""
    from trl.rewards import accuracy_reward

    rows = load(path)
    rewards: list[float | None] = []
    for start in range(0, len(rows), GROUP):
        group = rows[start : start + GROUP]
        completions = [[{"role": "assistant", "content": row["completion"]}] for row in group]
        rewards += accuracy_reward(completions, [f"\\boxed{{{row['answer']}}}" for row in group])
    return [reward or 0.0 for reward in rewards]


BASELINES: dict[str, Callable[[str], list[float]]] = {
    "math-verify, plain loop": plain_loop,
    "math-verify, `datasets.map(num_proc=2)`": datasets_map,
    "TRL's `accuracy_reward`": trl_accuracy,
}


# --- measuring ------------------------------------------------------------------------------------------------------


class Measured(NamedTuple):
    """One run of one contender."""

    rows: int
    seconds: float
    megabytes: float
    """Peak memory of all its processes together, with shared pages counted once (sampled)."""
    right: float
    """Share of rows whose reward is the labeled one."""

    @property
    def speed(self) -> float:
        """Rows per second, start-up included."""
        return self.rows / self.seconds


def descendants(pid: int) -> list[int]:
    """Return the process and all its descendants."""
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        for task in Path(f"/proc/{found[-1]}/task").glob("*/children"):
            try:
                waiting += map(int, task.read_text().split())
            except OSError:
                continue
    return found


def memory_of(pid: int) -> int:
    """Return the bytes of a process and its descendants, with shared pages counted once."""
    total = 0
    for each in descendants(pid):
        try:
            text = Path(f"/proc/{each}/smaps_rollup").read_text()
        except OSError:
            continue
        total += next((int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("Pss:")), 0)
    return total


def timed(command: list[str]) -> tuple[float, float]:
    """Return seconds and peak MiB. Raises CalledProcessError with the program's output if it fails."""
    most = 0
    done = threading.Event()

    def watch(pid: int) -> None:
        nonlocal most
        while not done.wait(0.2):
            most = max(most, memory_of(pid))

    begin = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env={**os.environ, "OMP_NUM_THREADS": "1"})
        watcher = threading.Thread(target=watch, args=(process.pid,))
        watcher.start()
        process.wait()
        seconds = time.perf_counter() - begin
        done.set()
        watcher.join()
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)}\n{said.read()}")
    return seconds, most / 2**20


def rlvr_score(path: Path, *more: str) -> Measured:
    """Measure `rlvr score`, including start-up."""
    out = path.with_name(f"scored-{path.name}")
    command = [sys.executable, "-m", "rlvr", "score", str(path), "-v", "math", "-o", str(out), "--force", *more]
    seconds, megabytes = timed(command)
    rows = load(str(out))
    right = sum((row["scores"][-1]["reward"] == 1.0) == row["expected"] for row in rows)
    return Measured(len(rows), seconds, megabytes, right / len(rows))


def baseline(name: str, path: Path, rows: int) -> Measured:
    """Measure one of the others, on the first rows of the file."""
    some = path.with_name(f"some-{path.name}")
    some.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:rows]), encoding="utf-8")
    out = path.with_name("rewards.json")
    seconds, megabytes = timed([sys.executable, __file__, "--baseline", name, str(some), str(out)])
    expected, rewards = [row["expected"] for row in load(str(some))], json.loads(out.read_text())
    right = sum((reward == 1.0) == each for reward, each in zip(rewards, expected, strict=True))
    return Measured(len(expected), seconds, megabytes, right / len(expected))


def table(title: str, path: Path, baseline_rows: int) -> list[str]:
    """Return a table of all contenders on one file."""
    print(title, flush=True)
    measured = {"**`rlvr score -v math`**": rlvr_score(path)}
    for name in BASELINES:
        measured[name] = baseline(name, path, baseline_rows)
        print(f"  {name}: {measured[name].speed:,.0f} rows/s", flush=True)
    slowest = measured["math-verify, plain loop"].speed
    lines = [f"## {title}", "", "| | rows | seconds | rows/s | times the loop | verdicts as labeled |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for name, each in measured.items():
        lines.append(
            f"| {name} | {each.rows:,} | {each.seconds:.1f} | {each.speed:,.0f} | {each.speed / slowest:.1f} | "
            f"{each.right:.2%} |"
        )
    return [*lines, ""]


def main(rows: int, baseline_rows: int, many: int) -> None:
    """Run everything and write the results."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        repeated = put(folder / "repeated.jsonl", rollouts(rows, distinct=False))
        distinct = put(folder / "distinct.jsonl", rollouts(rows, distinct=True))
        lengths = [len(row["completion"].split()) for row in load(str(repeated))]
        lines = [
            "# Scoring saved rollouts",
            "",
            f"`python benchmarks/scoring.py --rows {rows} --baseline-rows {baseline_rows} --many {many}` on "
            f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}. Every contender is a "
            f"program of its own; its seconds are from its start to its end. Completions have {min(lengths)} to "
            f"{max(lengths)} words, {sum(lengths) / len(lengths):.0f} on average; about half of the answers are wrong, "
            "3 % of the completions have none.",
            "",
        ]
        lines += table(f"Groups of {GROUP}", repeated, baseline_rows)
        lines += table("Every answer different", distinct, baseline_rows)

        print("memory", flush=True)
        lines += ["## Memory", "", "| rows | MiB, all processes | rows/s |", "|---:|---:|---:|"]
        for count in (rows, many):
            each = rlvr_score(put(folder / "many.jsonl", rollouts(count, distinct=False)))
            lines.append(f"| {count:,} | {each.megabytes:.0f} | {each.speed:,.0f} |")

        print("hostile", flush=True)
        tame = list(rollouts(1000, distinct=False))
        lines += ["", "## Hostile answers", "", "| 1,000 rows | seconds |", "|---|---:|"]
        for title, some in (("as they are", tame), ("2 % of them hostile", list(with_hostile(tame, 0.02)))):
            each = rlvr_score(put(folder / "hostile.jsonl", some), "--max-error-rate", "1")
            lines.append(f"| {title} | {each.seconds:.2f} |")

        one = put(folder / "one.jsonl", list(rollouts(1, distinct=False)))
        starts = sorted(rlvr_score(one).seconds for _ in range(5))
        lines += ["", "## One row", "", f"From a cold start: {starts[2]:.2f} s (median of 5).", ""]
        RESULTS.write_text("\n".join(lines), encoding="utf-8")
        print("\n".join(lines))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--baseline"]:
        _, _, name, source, target = sys.argv
        Path(target).write_text(json.dumps(BASELINES[name](source)))
    else:
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--rows", type=int, default=20_000)
        parser.add_argument("--baseline-rows", type=int, default=20_000, help="how many of them the others are given")
        parser.add_argument(
            "--many", type=int, default=200_000, help="rows of the larger file whose memory is measured"
        )
        asked = parser.parse_args()
        main(asked.rows, min(asked.rows, asked.baseline_rows), asked.many)
