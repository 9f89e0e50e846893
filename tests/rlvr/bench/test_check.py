"""`rlvr.check`: the test bench as one function."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

import rlvr
from rlvr.bench.attacks import ATTACKS
from rlvr.bench.trials import ATTACK
from rlvr.errors import PluginError, RequestError
from rlvr.verify import landlock

MISTAKEN = Path(__file__).parents[1] / "mistaken.py"


def test_a_sound_verifier_passes_quietly_and_gives_a_table(capfd: pytest.CaptureFixture[str]) -> None:
    counts: list[tuple[int, int]] = []
    report = rlvr.check(f"{MISTAKEN}:sound", workers=1, progress=lambda done, total: counts.append((done, total)))
    assert capfd.readouterr() == ("", "")
    assert report.passed
    assert counts[-1][0] == counts[-1][1]
    table = pd.DataFrame(report.rows).set_index("name")
    assert list(table.index) == [check.name for check in report.checks]
    assert table.loc["rewards", "tried"] == report.check("rewards").tried
    assert table.loc["hostile completions", "seconds_p50"] == report.check("hostile completions").latency.p50
    assert json.loads(json.dumps(report.to_dict())) == report.to_dict()


def test_a_check_that_fails_does_not_raise_and_the_limits_are_arguments() -> None:
    cases = MISTAKEN.with_name("mistaken.jsonl")
    report = rlvr.check(f"{MISTAKEN}:anywhere", workers=1, cases=cases)
    assert not report.passed
    faults = {row["name"]: row["faults"] for row in report.rows}
    assert faults[f"{ATTACK}echo of the prompt"] > 0
    assert report.to_dict()["failed"] == [check.name for check in report.failed]
    assert report.check("false positives") in report.failed
    lenient = rlvr.check(f"{MISTAKEN}:anywhere", workers=1, cases=str(cases), max_false_positive_rate=1.0)
    assert lenient.check("false positives") not in lenient.failed


def test_a_wrong_request_is_refused_before_anything_runs() -> None:
    with pytest.raises(RequestError, match="limit needs a prompt set: give dataset as well"):
        rlvr.check("math", limit=3)
    with pytest.raises(RequestError, match="data_files needs a prompt set"):
        rlvr.check("math", data_files=["a.jsonl"])
    with pytest.raises(PluginError, match="there is no verifier 'maths'; did you mean 'math'"):
        rlvr.check("maths")


def test_the_limit_of_rewards_is_an_argument(tmp_path: Path) -> None:
    (tmp_path / "generous.py").write_text(
        "def check(completion, task):\n    return 50.0 * (completion.count('boxed') == 1 and "
        "completion.endswith('boxed{' + task.answer + '}'))\n"
    )
    report = rlvr.check(f"{tmp_path}/generous.py:check", workers=1, max_reward=10.0)
    (broken,) = (check for check in report.failed if check.name == "no errors, no time-outs")
    assert broken.faults[0].score.reason == "a reward of 50, beyond the limit of ±10 (max_reward)"


@pytest.mark.skipif(landlock.version() < landlock.NEEDED, reason="the kernel has no Landlock that prevents truncation")
def test_a_verifier_that_writes_is_found_out_under_write_protection(tmp_path: Path) -> None:
    (tmp_path / "writer.py").write_text(
        "from pathlib import Path\n"
        "def check(completion, task):\n"
        "    Path(__file__).with_name('log').open('a').write('x')\n"
        "    return completion.strip() == '\\\\boxed{' + task.answer + '}'\n"
    )
    report = rlvr.check(f"{tmp_path}/writer.py:check", workers=1, write_protect=True)
    assert not (tmp_path / "log").exists()
    assert "PermissionError" in (report.check("no errors, no time-outs").faults[0].score.reason or "")


# --- columns and options of the rows --------------------------------------------------------------------------------

NEEDY = """
import rlvr

def right(completion, answer):
    return completion.strip().endswith("boxed{" + answer + "}") and completion.count("boxed") == 1

@rlvr.verifier(name="needy", version="1", columns=["unit"])
def check(completion, task):
    return right(completion, task.answer) and bool(task.extra["unit"])

def trl(completions, solution, unit, **kwargs):
    return [float(right(c, s) and bool(u)) for c, s, u in zip(completions, solution, unit)]
"""


@pytest.fixture
def needy(tmp_path: Path) -> Path:
    """Verifiers that need a column."""
    (tmp_path / "needy.py").write_text(NEEDY)
    rows = [{"problem": f"{i}+{i}", "solution": str(2 * i), "unit": "m"} for i in range(1, 6)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    cases = [{"gold": "3", "pred": pred, "expected": pred == "3", "unit": "km"} for pred in ("3", "4")]
    (tmp_path / "cases.jsonl").write_text("".join(f"{json.dumps(case)}\n" for case in cases))
    return tmp_path


@pytest.mark.parametrize("name", ["check", "trl"])
def test_rows_of_the_bench_carry_the_columns_that_a_verifier_declares(needy: Path, name: str) -> None:
    with pytest.raises(RequestError, match="the verifier reads 'unit': give rows that have it, with --dataset or --ca"):
        rlvr.check(f"{needy}/needy.py:{name}", workers=1)
    for rows in (
        {"cases": needy / "cases.jsonl"},
        {"dataset": f"{needy}/rows.jsonl", "dataset_options": {"question": "problem", "answer": "solution"}},
    ):
        report = rlvr.check(f"{needy}/needy.py:{name}", workers=1, **rows)
        assert report.check("no errors, no time-outs").faults == ()
        assert report.check("a gold accepts itself").tried
        tried = {check.name for check in report.checks if check.name.startswith(ATTACK) and check.tried}
        assert tried == {f"{ATTACK}{attack}" for attack in ATTACKS}


def test_options_of_a_prompt_set_need_one() -> None:
    with pytest.raises(RequestError, match="dataset_options needs a prompt set: give dataset as well"):
        rlvr.check("math", dataset_options={"question": "problem"})
