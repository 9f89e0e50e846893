"""`rlvr compare`: text, JSON, and messages for wrong requests."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlvr.record.schema import Rollout, Score
from rlvr.record.store import write_rollouts

Compare = Callable[..., Any]


@pytest.fixture
def compare(cli: Compare) -> Compare:
    """Function that runs `rlvr compare` in this process."""

    def run(*arguments: str) -> Any:
        return cli("compare", *arguments)

    return run


def verdict(verifier: str, reward: float | None, **more: Any) -> Score:
    status = "unparsed" if reward is None else "graded"
    return Score.model_validate({"verifier": verifier, "version": "1", "status": status, "reward": reward} | more)


ROLLOUTS = [
    Rollout.model_validate(
        {
            "id": f"r-{g}-{i}",
            "group_id": f"g-{g}",
            "prompt": f"1 + {g}?\n",
            "completion": "c",
            "task": {"answer": str(1 + g)},
            "scores": [
                verdict("math", float(i < g), extracted="2", reason="numbers"),
                verdict("math@strict", None if g == 1 and i == 0 else float(i < g), reason="no\x1b[31m box"),
            ],
        }
    )
    for g in range(3)
    for i in range(2)
]


def test_a_condition_on_rows(compare: Compare) -> None:
    write_rollouts("in.parquet", ROLLOUTS)
    done = compare("in.parquet", "--where", "task.answer=2", "-w", "reward=1")
    assert (done.code, done.err) == (0, "")
    assert "1 rollout in 1 group" in done.out


@pytest.mark.parametrize("file", ["in.jsonl", "in.parquet"])
def test_a_report_for_people(compare: Compare, file: str) -> None:
    write_rollouts(file, ROLLOUTS)
    done = compare(file)
    assert (done.code, done.err) == (0, "")
    assert done.out.split("\n") == [
        f"a  math         version 1  {file}",
        f"b  math@strict  version 1  {file}",
        "6 rollouts in 3 groups",
        "",
        "a \\ b     right  wrong  unparsed",
        "right         2      0         1",
        "wrong         0      3         0",
        "unparsed      0      0         0",
        "flips: 0 to right, 1 from right (16.67% of all)",
        "",
        "                  a       b    b - a       95 % interval  groups",
        "mean reward  0.5000  0.3333  -0.1667  [-0.5000, +0.0000]",
        "avg@2        0.5000  0.3333  -0.1667  [-0.5000, +0.0000]       3",
        "pass@1       0.5000  0.3333  -0.1667  [-0.5000, +0.0000]       3",
        "pass@2       0.6667  0.3333  -0.3333  [-1.0000, +0.0000]       3",
        "agreement 0.8333, Cohen's kappa 0.6667 [0.0000, 1.0000]",
        "(over the 6 rollouts with a reward from both; bootstrap of whole groups, 2,000 resamples)",
        "",
        "groups with a signal    1 by a, 0 by b",
        "gain or lose it         0 gain it, 1 lose it",
        "advantage changes sign  2 rollouts in 1 group",
        "dropped by training     0 by a, 0 by b",
        "",
        "--- id r-1-0 | group g-1",
        "prompt  1 + 1?\\n",
        "gold    2",
        "a       graded 1, extracted 2, numbers",
        "b       unparsed, no\\x1b[31m box",
        "",
    ]


def test_a_report_for_programs(compare: Compare) -> None:
    write_rollouts("in.parquet", ROLLOUTS)
    done = compare(
        "in.parquet", "--a", "math@strict", "--b", "math", "--json", "--resamples", "100", "--threshold", "1"
    )
    found = json.loads(done.out)
    documented = Path(__file__).parents[3] / "docs" / "comparing.md"
    text = documented.read_text()
    for key in keys(found):
        assert f"`{key}`" in text, f"docs/comparing.md does not say what {key} is"
    assert found["a"] == {"verifier": "math@strict", "versions": ["1"], "file": "in.parquet"}
    assert (found["threshold"], found["resamples"], found["gained"], found["lost"]) == (1, 100, 1, 0)
    assert found["matrix"]["unparsed"] == dict.fromkeys(found["matrix"], 0) | {"right": 1}
    assert [at["k"] for at in found["at_k"]] == [1, 2]
    assert found["flips"] == [
        {
            "id": "r-1-0",
            "group_id": "g-1",
            "prompt": "1 + 1?\n",
            "gold": "2",
            "a": {"status": "unparsed", "reward": None, "extracted": None, "reason": "no\x1b[31m box"},
            "b": {"status": "graded", "reward": 1.0, "extracted": "2", "reason": "numbers"},
        }
    ]


def keys(value: Any) -> set[str]:
    """Yield every key, except those of the matrix, which are kinds of verdicts."""
    if isinstance(value, list):
        return set().union(*map(keys, value))
    if not isinstance(value, dict):
        return set()
    return set(value).union(*(keys(item) for key, item in value.items() if key != "matrix"))


def test_two_files(compare: Compare) -> None:
    write_rollouts("old.parquet", [r.model_copy(update={"scores": r.scores[:1]}) for r in ROLLOUTS])
    write_rollouts("new.jsonl", [r.model_copy(update={"scores": r.scores[1:]}) for r in ROLLOUTS[1:]])
    done = compare("old.parquet", "new.jsonl", "--flips", "0")
    assert done.code == 0
    assert "5 rollouts in 3 groups; left out: 1 only in the first file, 0 only in the second" in done.out
    assert "---" not in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("in.jsonl", "--a", "maht", "--b", "math"),
            "in.jsonl: no score by 'maht'; the scores there are by: math (6), math@strict (6)",
        ),
        (("in.jsonl", "in.jsonl"), "--a: which verifier? in.jsonl has scores by: math (6), math@strict (6)"),
        (("in.jsonl", "nothing.jsonl"), "nothing.jsonl does not exist"),
        (("in.jsonl", "in.jsonl", "in.jsonl"), "in.jsonl is given twice"),
        (("in.jsonl", "in.jsonl", "other.jsonl", "--a", "math"), "3 files"),
        (("in.jsonl", "other.jsonl"), "which verifier? There are scores by math (6), math@strict (6)"),
        (("in.jsonl", "--verifier", "math"), "verifier math: verifiers are compared"),
        (("in.jsonl", "other.jsonl", "--of", "policies", "--a", "math"), "a math: policies are compared"),
        (("in.jsonl", "--of", "policies"), "1 files: policies are compared from 2 to 26 files"),
        (("in.csv",), "in.csv does not exist"),
        (("in.jsonl", "--map", "id"), "--map id: write TARGET=SOURCE"),
        (("empty.jsonl",), "empty.jsonl has no rows"),
        (("in.jsonl", "other.jsonl", "--a", "math", "--b", "math"), "have no id in common"),
        (("broken.jsonl",), "broken.jsonl, line 1 is not JSON"),
    ],
)
def test_a_wrong_request_is_one_line(compare: Compare, arguments: tuple[str, ...], message: str) -> None:
    write_rollouts("in.jsonl", ROLLOUTS)
    write_rollouts("other.jsonl", [ROLLOUTS[0].model_copy(update={"id": "another"})])
    Path("empty.jsonl").write_text("")
    Path("broken.jsonl").write_text('{"id": \n')
    done = compare(*arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert done.err.count("\n") == 1


def test_a_console_that_has_no_such_letters(tmp_path: Path) -> None:
    rollout = ROLLOUTS[2].model_copy(update={"prompt": "½ 🙂?"})
    write_rollouts(tmp_path / "in.jsonl", [rollout])
    command = [sys.executable, "-m", "rlvr", "compare", str(tmp_path / "in.jsonl")]
    done = subprocess.run(command, env={"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True, check=True)
    assert "prompt  \\xbd \\U0001f642?" in done.stdout


def test_the_second_verifier_s_scores_may_lie_beside_the_file(compare: Compare) -> None:
    both = [rollout.model_dump(mode="json") for rollout in ROLLOUTS]
    Path("both.jsonl").write_text("".join(json.dumps(row) + "\n" for row in both))
    alone = [row | {"scores": row["scores"][:1]} for row in both]
    Path("alone.jsonl").write_text("".join(json.dumps(row) + "\n" for row in alone))
    beside = [{"id": row["id"], "segment": 0, "scores": row["scores"][1:]} for row in both]
    Path("beside.jsonl").write_text("".join(json.dumps(row) + "\n" for row in beside))
    one, two = compare("both.jsonl", "--json"), compare("alone.jsonl", "--scores", "beside.jsonl", "--json")
    assert json.loads(two.out) == json.loads(one.out.replace("both.jsonl", "alone.jsonl"))
    none = compare("alone.jsonl", "--scores", "stranger.jsonl")
    assert (none.code, none.err) == (2, "rlvr: stranger.jsonl does not exist\n")
    Path("stranger.jsonl").write_text('{"id": "x", "scores": []}\n')
    unused = compare("alone.jsonl", "--scores", "stranger.jsonl")
    assert unused.code == 2
    assert "stranger.jsonl has none of the ids of the rows" in unused.err


def test_a_row_without_an_id_is_nobody_s(compare: Compare) -> None:
    """In particular not that of a row whose id is the text None. Numeric ids are text in a sidecar."""
    rows = [{"completion": "c", "scores": [verdict("a", 1.0).model_dump(mode="json")]} for _ in range(2)]
    rows[1]["id"] = 7
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    beside = [{"id": name, "scores": [verdict("b", 0.0).model_dump(mode="json")]} for name in ("None", "7")]
    Path("beside.jsonl").write_text("".join(json.dumps(row) + "\n" for row in beside))
    found = json.loads(compare("in.jsonl", "--scores", "beside.jsonl", "--a", "a", "--b", "b", "--json").out)
    assert found["matrix"]["right"] | {"wrong": 0, "unscored": 0} == dict.fromkeys(found["matrix"]["right"], 0)
    assert (found["matrix"]["right"]["wrong"], found["matrix"]["right"]["unscored"]) == (1, 1)
