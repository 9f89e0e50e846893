"""`rlvr check verifier`: text, JSON and exit codes; and the same check as an assertion."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlvr import load_verifier
from rlvr.errors import PluginError, RequestError
from rlvr.evaluation.intervals import wilson
from rlvr.testing import check_verifier
from rlvr.verify.verifying import verifier

HERE = Path(__file__).parents[1]
FEW = """\
{"category": "fractions", "gold": "1/2", "pred": "1/2", "expected": true}
{"category": "fractions", "gold": "1/2", "pred": "0.5", "expected": true}
{"category": "hedging", "gold": "7", "completion": "\\\\boxed{7} or \\\\boxed{8}\\u001b[31m", "expected": false}
{"category": "hedging", "gold": "7", "pred": "8", "expected": false}
"""


Run = Callable[..., Any]


@pytest.fixture
def check(cli: Run) -> Run:
    """Runs `rlvr check verifier` with one worker, in a folder that holds the mistaken verifiers and a few cases."""
    for name in ("mistaken.py", "mistaken.jsonl"):
        shutil.copy(HERE / name, name)
    Path("few.jsonl").write_text(FEW)

    def run(*arguments: str) -> Any:
        return cli("check", "verifier", *arguments, "--workers", "1")

    return run


def test_a_sound_verifier_with_its_own_cases(check: Run) -> None:
    done = check("mistaken.py:sound")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].startswith("sound ")
    assert [line.split()[0] for line in lines[3:6]] == ["other", "same", "all"]
    assert "0 of 3" in lines[5]
    assert "0.0–56.1 %" in lines[5]  # Wilson's upper end for 0 of 3
    assert "attack: several boxes               pass" in done.out
    assert lines[-1] == "passed"


def test_without_cases_it_says_so_and_checks_the_rest(check: Run) -> None:
    done = check("mistaken.py:compute_score")
    assert done.code == 0
    assert "no labeled cases (--cases FILE)" in done.out
    assert done.out.splitlines()[-1] == "passed"


def test_faults_come_worst_first_with_examples_that_are_safe_to_print(check: Run) -> None:
    done = check("mistaken.py:any_box", "--cases", "few.jsonl", "--errors", "1")
    assert done.code == 1
    assert "\x1b" not in done.out
    fault = (
        "false positives\n"
        "  hedging: gold '7', completion '\\boxed{7} or \\boxed{8}\\x1b[31m' -> graded 1\n\n"
        "false negatives\n"
        "  fractions: gold '1/2', completion '\\boxed{0.5}' -> graded 0\n\n"
        "attack: several boxes (1 of "
    )
    assert fault in done.out
    assert done.out.splitlines()[-1].startswith("FAILED: false positives, false negatives, attack: several boxes")


def test_the_prompt_set_has_options(check: Run) -> None:
    rows = [{"problem": "1+1?", "solution": "so: #### 2"}, {"problem": "2+1?", "solution": "#### 3"}]
    Path("rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    dataset = ("mistaken.py:sound", "--dataset", "rows.jsonl")
    assert check(*dataset).code == 2
    keys = {"question": "problem", "answer": "solution", "gold": "hashes"}
    sets = [text for key, value in keys.items() for text in ("--set", f"dataset.options.{key}={value}")]
    done = check(*dataset, *sets)
    assert (done.code, done.err) == (0, "")
    assert json.loads(check(*dataset, *sets, "--json").out)["passed"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "dataset.options.question=problem"], "--set needs a prompt set: name it with --dataset"),
        (["--dataset", "a.jsonl", "--set", "steps=3"], "--set steps=3: only dataset.options.KEY can be set here"),
        (["--dataset", "few.jsonl", "--set", "dataset.options.qestion=a"], "did you mean 'dataset.options.question'?"),
    ],
)
def test_a_setting_that_is_no_option_of_the_prompt_set(check: Run, arguments: list[str], message: str) -> None:
    done = check("mistaken.py:sound", *arguments)
    assert done.code == 2
    assert message in done.err


def test_the_limits_are_options(check: Run) -> None:
    limits = ("--max-false-positive-rate", "0.5", "--max-false-negative-rate", "0.5")
    for function, code in (("sound", 0), ("any_box", 1)):
        assert check(f"mistaken.py:{function}", "--cases", "few.jsonl", *limits).code == code
    assert check("mistaken.py:sound", "--cases", "few.jsonl").code == 1


def test_limits_of_workers_are_those_of_rlvr_score(check: Run) -> None:
    done = check("mistaken.py:sound", "--max-reward", "0.5")
    assert done.code == 1
    assert "a reward of 1, beyond the limit of ±0.5 (max_reward)" in done.out
    refused = check("mistaken.py:sound", "--max-reward", "-1")
    assert (refused.code, refused.err) == (2, "rlvr: max_reward is -1.0: expected a number above 0, at most 1e+100\n")


def test_json_has_it_all(check: Run) -> None:
    done = check("mistaken.py:any_box", "--cases", "few.jsonl", "--errors", "0", "--json")
    assert done.code == 1
    report: dict[str, Any] = json.loads(done.out)
    assert set(report) == {
        *("verifier", "version", "config", "answer_form", "timeout", "limits", "passed", "failed", "tested", "latency"),
        *("cases", "categories", "checks"),
    }
    assert report["limits"] == {"threshold": 0.5, "false_positives": 0.0, "false_negatives": 0.1}
    assert not report["passed"]
    assert report["cases"]["false_positives"] == {"count": 1, "of": 2, "share": 0.5, "interval": list(wilson(1, 2))}
    assert [category["category"] for category in report["categories"]] == ["fractions", "hedging"]
    assert set(report["latency"]) == {"p50", "p99", "max"}
    checks = {one["name"]: one for one in report["checks"]}
    assert report["failed"] == [name for name, one in checks.items() if one["result"] == "FAIL"]
    assert {one["result"] for one in checks.values()} <= {"pass", "FAIL", "note", "skip"}
    assert checks["false positives"]["faults"] == [
        {
            "what": "hedging",
            "gold": "7",
            "completion": "\\boxed{7} or \\boxed{8}\x1b[31m",
            "status": "graded",
            "reward": 1.0,
            "extracted": None,
            "reason": None,
        }
    ]


def test_long_completions_are_without_their_middle(check: Run) -> None:
    done = check("mistaken.py:fragile", "--json")
    (hostile,) = [one for one in json.loads(done.out)["checks"] if one["name"] == "hostile completions"]
    longest = max(len(fault["completion"]) for fault in hostile["faults"])
    assert 2000 < longest < 2100
    assert any("characters ...]" in fault["completion"] for fault in hostile["faults"])
    assert len(check("mistaken.py:fragile").out) < 20_000


def test_rows_of_a_file_are_a_data_set(check: Run) -> None:
    Path("rows.jsonl").write_text('{"question": "6 * 7?", "answer": "42"}\n{"question": "1 + 1?", "answer": "2"}\n')
    report = json.loads(check("mistaken.py:trl", "--dataset", "rows.jsonl", "--json").out)
    tried = {one["name"]: one["tried"] for one in report["checks"]}
    assert tried["a gold accepts itself"] == 2
    report = json.loads(check("mistaken.py:trl", "--dataset", "rows.jsonl", "--limit", "1", "--json").out)
    assert {one["name"]: one["tried"] for one in report["checks"]}["a gold accepts itself"] == 1


def test_nothing_to_test_is_an_exit_code_of_its_own(check: Run) -> None:
    done = check("mistaken.py:brief")
    assert done.code == 3
    assert done.out.splitlines()[-1].startswith("NOT TESTED: no check tried right and wrong answers")
    with pytest.raises(AssertionError, match="NOT TESTED"):
        check_verifier("mistaken.py:brief", workers=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mth"], "there is no verifier 'mth'; did you mean 'math'?"),
        (["mistaken.py:nothing"], "there is no function 'nothing'"),
        (["mistaken.py:sound", "--cases", "gone.jsonl"], "cases: there is no file gone.jsonl"),
        (["mistaken.py:sound", "--option", "x=1"], "has no option 'x'"),
        (["mistaken.py:sound", "--option", "x"], "--option x: write KEY=VALUE"),
        (["mistaken.py:sound", "--dataset", "nowhere"], "there is no dataset 'nowhere'"),
        (["mistaken.py:sound", "--limit", "3"], "--limit needs a prompt set: name it with --dataset"),
        (["mistaken.py:sound", "--answer-form", "x"], "write {answer} in place of the answer"),
        (["mistaken.py:sound", "--timeout", "0"], "timeout is 0.0: expected seconds"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_code_2(check: Run, arguments: list[str], message: str) -> None:
    done = check(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_progress_is_said_on_standard_error(check: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLVR_PROGRESS_SECONDS", "0")
    said = check("mistaken.py:sound").err.splitlines()
    assert len(said) > 100
    assert said[0].startswith("1 of ")
    assert said[-1].split(" completions")[0].split(" of ")[0] == said[-1].split(" completions")[0].split(" of ")[1]


def test_the_assertion_gives_the_report_or_the_table(check: Run) -> None:
    report = check_verifier("mistaken.py:sound", workers=1)
    assert report.passed
    with pytest.raises(AssertionError) as error:
        check_verifier("mistaken.py:sound", cases="few.jsonl", workers=1)
    assert "FAILED: false negatives" in str(error.value)
    assert "completion '\\boxed{0.5}'" in str(error.value)
    with pytest.raises(RequestError, match="limit is about a prompt set"):
        check_verifier("mistaken.py:sound", limit=3)
    cases = [Path("few.jsonl"), Path("mistaken.jsonl")]
    assert check_verifier("mistaken.py:sound", cases=cases, max_false_negative_rate=0.5, workers=1).total is not None


def test_a_declared_file_of_cases_is_found_beside_the_function(check: Run) -> None:
    claims = load_verifier("mistaken.py:sound").claims
    assert claims.cases == str(Path("mistaken.jsonl").absolute())
    assert claims.compares_answers
    assert not load_verifier("mistaken.py:brief").claims.compares_answers
    assert load_verifier("mistaken.py:anywhere").claims.cases is None


def test_an_answer_form_without_a_place_is_refused_where_it_is_declared() -> None:
    with pytest.raises(PluginError, match="answer_form"):
        verifier(answer_form="\\boxed{}")


ROOT = HERE.parents[1]


def test_the_page_shows_the_example_and_the_example_passes(check: Run) -> None:
    source = (ROOT / "examples" / "exact.py").read_text()
    shown = (ROOT / "docs" / "verifiers.md").read_text().partition("```python\n")[2].partition("```")[0]
    assert source.partition('"""\n\n')[2] == shown
    assert check(str(ROOT / "examples" / "exact.py:exact")).code == 0
    assert "attack: thinking blocks" in check(str(ROOT / "examples" / "mine.py:short")).out.splitlines()[-1]


def test_every_check_is_explained_on_the_page() -> None:
    page = (ROOT / "docs" / "verifiers.md").read_text()
    table = page.partition("## What is checked")[2].partition("## ")[0]
    names = {check.name.partition(":")[0] for check in check_verifier(f"{HERE}/mistaken.py:sound", workers=1).checks}
    for name in names:
        assert ("attacks" if name == "attack" else name) in table, name
