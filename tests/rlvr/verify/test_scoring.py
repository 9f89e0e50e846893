"""Scores: recorded fields, rows, and rewards in training."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rlvr
from rlvr.errors import ConfigError, DataError, PluginError, RunError
from rlvr.record.item import Item
from rlvr.record.schema import Message, Rollout, Score, Status, Task, digest
from rlvr.registry import registry
from rlvr.verify.scoring import DEFAULT_REWARDS, Scorer, score_rows, training_reward

MISBEHAVING = str(Path(__file__).parents[1] / "misbehaving.py")


@pytest.fixture(autouse=True)
def _same_import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture(params=[0, 2], ids=["in process", "2 workers"])
def workers(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def rollout(i: int, completion: str | None, group: str | None = None, **fields: Any) -> Rollout:
    prompt = {} if "messages" in fields else {"prompt": "p"}
    return Rollout(id=str(i), group_id=group, completion=completion, task=Task(answer="1"), **prompt, **fields)


def items(*rollouts: Rollout) -> list[Item]:
    return [Item(member.completion, member.task, member) for member in rollouts]


def test_a_score_says_by_whom_and_how(tmp_path: Path, workers: int) -> None:
    (tmp_path / "mine.py").write_text(
        "import rlvr\n"
        "@rlvr.verifier(name='near', version='1')\n"
        "def check(completion, task, *, tolerance: float = 0.0):\n"
        "    return rlvr.Verdict(status='graded', reward=abs(float(completion) - float(task.answer)) <= tolerance,\n"
        "                        extracted=completion, reason='within ' + repr(tolerance))\n"
    )
    with Scorer(f"{tmp_path}/mine.py:check", {"tolerance": "0.5"}, workers=workers) as scorer:
        (result,) = scorer.score([Item("1.25", Task(answer="1"))])
        assert (scorer.name, scorer.config) == ("near", {"tolerance": 0.5})
        assert scorer.config_hash == digest({"tolerance": 0.5})
    assert (result.status, result.reward) == (Status.GRADED, 1.0)
    assert (result.extracted, result.reason) == ("1.25", "within 0.5")
    assert (result.verifier, result.version, result.config) == ("near", scorer.version, {"tolerance": 0.5})
    assert result.config_hash == scorer.config_hash
    assert result.seconds is not None
    assert result.created_at is not None
    assert Score.model_validate(result.model_dump()) == result


def test_misdeeds_that_a_process_survives_score_alike_everywhere(workers: int) -> None:
    deeds = ["!raise", "!sys.exit", "!nan", "!string", "!None", "1", "0", "", None]
    with Scorer(f"{MISBEHAVING}:check", workers=workers) as scorer:
        scores = list(scorer.score(Item(deed, Task(answer="1")) for deed in deeds))
    expected = ["error"] * 4 + ["abstained", "graded", "graded", "unparsed", "invalid"]
    assert [result.status.value for result in scores] == expected


def test_a_group_is_consecutive_rollouts_of_one_group_id(workers: int) -> None:
    rows = items(
        rollout(0, "aaa", "x"),
        rollout(1, "a", "x"),
        rollout(2, "aa", "x"),
        rollout(3, "aaaa", "y"),
        rollout(4, "a", None),
        rollout(5, "aa", None),
        rollout(6, "aaaaa", "z"),
    )
    with Scorer(f"{MISBEHAVING}:relative", workers=workers) as scorer:
        assert [result.reward for result in scorer.score(rows)] == [2, 0, 1, 0, 0, 0, 0]
        foreign = list(scorer.score([Item("a", Task(answer="1")), *rows[:2]]))
    assert [result.status.value for result in foreign] == ["invalid", "graded", "graded"]
    assert foreign[1].reward == 1


def test_a_group_of_the_wrong_length_costs_that_group(workers: int) -> None:
    rows = items(rollout(0, "a", "x"), rollout(1, "aa", "x"))
    with Scorer(f"{MISBEHAVING}:relative", {"cut": 1}, workers=workers) as scorer:
        scores = list(scorer.score(rows))
    assert [result.reason for result in scores] == ["returned 1 results for 2"] * 2


def test_a_group_that_hangs_costs_that_group() -> None:
    rows = items(rollout(0, "aa", "x"), rollout(1, "hang", "y"), rollout(2, "a", "y"), rollout(3, "a", "z"))
    with Scorer(f"{MISBEHAVING}:relative", workers=1, timeout=1.0) as scorer:
        scores = list(scorer.score(rows))
    assert [result.status.value for result in scores] == ["graded", "timeout", "timeout", "graded"]
    assert scores[1].reason == "not done after 2 s"  # 1 s a verdict
    assert scores[1].seconds == scores[2].seconds
    assert scores[1].seconds is not None
    assert scores[1].seconds >= 0.2


def test_functions_of_other_frameworks_score_as_they_are(tmp_path: Path, workers: int) -> None:
    (tmp_path / "trl_style.py").write_text(
        "def reward(prompts, completions, answer, **columns):\n"
        "    return [float(c[0]['content'] == a) for c, a in zip(completions, answer)]\n"
    )
    (tmp_path / "verl_style.py").write_text(
        "def compute_score(data_source, solution_str, ground_truth, extra_info=None):\n"
        "    return {'score': float(solution_str == ground_truth), 'acc': 1.0}\n"
    )
    chat = rollout(0, "1", messages=(Message(role="user", content="?"),))
    with Scorer(f"{tmp_path}/trl_style.py:reward", workers=workers) as scorer:
        assert [result.reward for result in scorer.score(items(chat))] == [1.0]
    with Scorer(f"{tmp_path}/verl_style.py:compute_score", workers=workers) as scorer:
        assert [result.reward for result in scorer.score(items(chat, rollout(1, "2")))] == [1.0, 0.0]


def test_many_rows_keep_their_order(workers: int) -> None:
    rows = [Item(str(i % 3), Task(answer="1")) for i in range(10_000)]
    with Scorer(f"{MISBEHAVING}:check", workers=workers) as scorer:
        for _ in range(2):
            assert [result.reward for result in scorer.score(rows)] == [float(i % 3 == 1) for i in range(10_000)]


def test_rows_of_every_kind() -> None:
    record = rollout(0, "1")
    rows: list[Any] = [
        record,
        record.model_dump(),
        Item("1", Task(answer="1")),
        {"completion": "1", "answer": "1"},
        {"completion": "1", "answer": 1, "prompt": "p", "id": 7, "group_id": 8, "level": 3},
        {"completion": "1", "answer": 1, "prompt": [{"role": "user", "content": "p"}]},
        {"completion": "1"},
        {"answer": "1"},
    ]
    statuses = [result.status.value for result in score_rows(rows, f"{MISBEHAVING}:check", workers=1)]
    assert statuses == ["graded"] * 6 + ["invalid"] * 2


def test_a_foreign_row_keeps_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import rlvr\n"
        "@rlvr.verifier()\n"
        "def check(rollout):\n"
        "    told = [rollout.id, rollout.group_id, rollout.prompt, rollout.task.answer, dict(rollout.task.extra)]\n"
        "    return rlvr.Verdict(status='abstained', reason=repr(told))\n"
    )
    row = {"completion": "1", "answer": 0.1, "prompt": "p", "id": 7, "group_id": "g", "level": 3}
    (result,) = score_rows([row], f"{tmp_path}/mine.py:check", workers=0)
    assert result.reason == "['7', 'g', 'p', '0.1', {'level': 3}]"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1", "row 1 is a str: expected a Rollout, an Item or a mapping"),
        ({"completion": ["1"]}, "row 1: 'completion' is .*: expected text, a number or messages"),
        ({"completion": "1", "answer": ["1"]}, "row 1: 'answer' is .*: expected text or a number"),
        ({"completion": "1", "answer": True}, "row 1: 'answer' is .*: expected text or a number"),
        ({"completion": "1", "prompt": [1]}, "row 1: 'prompt' is a list: expected text or messages"),
        ({"schema_version": 1, "id": "x"}, "row 1: exactly one of 'prompt' and 'messages'"),
        ({"schema_version": 1, "id": "x", "task": {"extra": "{"}}, "row 1: .*task.extra"),
    ],
)
def test_a_row_that_is_nothing_is_an_error(row: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        list(score_rows([Item("1", Task()), row], f"{MISBEHAVING}:check", workers=0))
    assert "\n" not in str(caught.value)


def test_the_default_verifier_is_math_and_the_caller_imports_no_algebra(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            r"""
            import sys
            import rlvr

            rows = [{"completion": "\\boxed{4}", "answer": "4"}, {"completion": "\\boxed{5}", "answer": "4"}]
            print([(score.verifier, score.reward) for score in rlvr.score(rows, workers=1)])
            print([name for name in ("sympy", "math_verify", "torch") if name in sys.modules])
            """
        )
    )
    result = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert result.stdout == "[('math', 1.0), ('math', 0.0)]\n[]\n", result.stderr


def test_an_installed_packages_verifier(install: Callable[..., Path], workers: int) -> None:
    install(
        "outsider",
        "outsider = outsiders_scoring_plugin",
        version="2.1",
        outsiders_scoring_plugin="""
            import rlvr

            @rlvr.hookimpl
            def rlvr_verifiers():
                return {"outsider": "outsiders_scoring:check"}
        """,
        outsiders_scoring="def check(completion, task): return completion == task.answer",
    )
    registry.cache_clear()
    try:
        with Scorer("outsider", workers=workers) as scorer:
            assert (scorer.name, scorer.version) == ("outsider", "2.1")
            assert next(scorer.score([Item("1", Task(answer="1"))])).reward == 1
    finally:
        registry.cache_clear()


def test_errors_at_once_are_the_same_in_process() -> None:
    with pytest.raises(PluginError, match="did you mean 'math'"):
        Scorer("mth", workers=0)
    with pytest.raises(ConfigError, match="no option 'cutt'"):
        Scorer(f"{MISBEHAVING}:relative", {"cutt": 1}, workers=0)


def test_what_training_makes_of_a_score() -> None:
    def of(status: Status, reward: float | None = None) -> Score:
        return Score(status=status, reward=reward, verifier="v", version="1")

    assert training_reward(of(Status.GRADED, -0.5), DEFAULT_REWARDS) == -0.5
    assert training_reward(of(Status.GRADED, 0.0), {}) == 0.0
    made_of_it = {status.value: training_reward(of(status)) for status in Status if status is not Status.GRADED}
    assert made_of_it == {"unparsed": 0.0, "timeout": None, "abstained": None, "invalid": None, "error": None}
    assert training_reward(of(Status.ERROR), {**DEFAULT_REWARDS, Status.ERROR: -1.0}) == -1.0
    with pytest.raises(ConfigError, match="no reward is configured for the status 'error'"):
        training_reward(of(Status.ERROR), {})


def test_the_package_offers_it() -> None:
    assert rlvr.score.__module__ == "rlvr.rescore.score"


def test_a_closed_scorer_is_closed(workers: int) -> None:
    scorer = Scorer(f"{MISBEHAVING}:check", workers=workers)
    scorer.close()
    scorer.close()
    if workers:
        with pytest.raises(RunError, match="closed"):
            next(scorer.score([Item("1", Task(answer="1"))]))


def test_a_generator_of_scores_that_is_dropped_ends_its_processes() -> None:
    scores: Iterator[Score] = score_rows(
        [{"completion": "!zygote", "answer": "1"}] * 10, f"{MISBEHAVING}:check", workers=1
    )
    zygote = int(next(scores).reward or 0)
    assert Path(f"/proc/{zygote}").exists()
    scores.close()  # type: ignore[attr-defined]
    assert not Path(f"/proc/{zygote}").exists()


@pytest.mark.parametrize("reward", ["1e7", "-1e300"])
def test_a_reward_beyond_the_limit_is_an_error(tmp_path: Path, workers: int, reward: str) -> None:
    (tmp_path / "mine.py").write_text("def check(completion, task): return float(completion)\n")
    ref = f"{tmp_path}/mine.py:check"
    rows = [{"completion": each, "answer": "1"} for each in (reward, "1e6", "-1e6")]
    beyond, *within = score_rows(rows, ref, workers=workers)
    assert (beyond.status, beyond.reward) == (Status.ERROR, None)
    assert beyond.reason == f"a reward of {float(reward):g}, beyond the limit of ±1e+06 (max_reward)"
    assert [score.reward for score in within] == [1e6, -1e6]
    (allowed,) = score_rows(rows[:1], ref, workers=workers, max_reward=1e100) if reward == "1e7" else within[:1]
    assert allowed.status is Status.GRADED


def test_a_reward_of_a_part_is_limited_too(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import rlvr\n"
        "def check(completion, task):\n"
        "    return rlvr.Verdict(status='graded', reward=1.0, extracted=completion,\n"
        "                        parts={'length': rlvr.Verdict(status='graded', reward=3.0)})\n"
    )
    rows = [{"completion": "x", "answer": "1"}]
    (score,) = score_rows(rows, f"{tmp_path}/mine.py:check", workers=0, max_reward=2.0)
    assert (score.status, score.extracted) == (Status.ERROR, "x")


@pytest.mark.parametrize("limit", [0.0, -1.0, 1e101, float("nan"), float("inf")])
def test_a_limit_of_rewards_that_bounds_no_sum_is_refused(limit: float) -> None:
    with pytest.raises(ConfigError, match=r"max_reward is .*: expected a number above 0, at most 1e\+100"):
        Scorer("math", workers=0, max_reward=limit)
