"""Forms of a verifier besides a function of one completion: batches, coroutines, classes, and models of options."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import rlvr
from rlvr.errors import ConfigError, PluginError, RequestError
from rlvr.record.item import Item
from rlvr.record.schema import Rollout, Status, Task, Verdict
from rlvr.verify.scoring import Scorer
from rlvr.verify.verifying import load_options, load_verifier

EXAMPLES = Path(__file__).parents[3] / "examples" / "forms.py"
SOURCE = """
import asyncio
from pathlib import Path
import rlvr

@rlvr.verifier(name="sizes", needs_answer=False, at_once=4)
def sizes(completions, tasks):
    if "fail" in completions:
        raise ValueError("one of them")
    return [len(completions)] * len(completions)

@rlvr.verifier(name="slow", needs_answer=False, deterministic=False)
async def slow(completion, task):
    if completion == "fail":
        raise ValueError("broken")
    await asyncio.sleep(60 if completion == "hang" else 0.3)
    return True

@rlvr.verifier(name="kept", needs_answer=False)
class Kept:
    def __init__(self, *, folder: str, fail: bool = False):
        self.folder, self.fail, self.calls = Path(folder), fail, 0

    async def setup(self):
        if self.fail:
            raise OSError("no database")
        (self.folder / "setup").touch()

    async def check(self, completion, task):
        self.calls += 1
        return float(self.calls)

    def close(self):
        (self.folder / "close").touch()

class Nothing:
    pass
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own.py").write_text(SOURCE)
    return str(tmp_path / "own.py")


def scores(verifier: str, completions: list[str], workers: int = 1, timeout: float = 5.0, **options: Any) -> list[Any]:
    with Scorer(verifier, options, workers=workers, timeout=timeout) as scorer:
        found = list(scorer.score(Item(completion, Task(answer="4")) for completion in completions))
    return [(score.status.value, score.reward) for score in found]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_is_judged_in_calls_of_its_size(own: str, workers: int) -> None:
    assert scores(f"{own}:sizes", ["a"] * 6, workers) == [("graded", 4.0)] * 4 + [("graded", 2.0)] * 2
    alone = [("graded", 1.0), ("error", None), ("graded", 1.0)]
    assert scores(f"{own}:sizes", ["a", "fail", "a"], workers) == alone, "one that raises costs itself"


@pytest.mark.parametrize("workers", [0, 1])
def test_coroutines_wait_at_the_same_time_and_each_has_its_own_limit(own: str, workers: int) -> None:
    begun = time.monotonic()
    found = scores(f"{own}:slow", ["a"] * 200 + ["fail", "hang"], workers, timeout=2.0)
    assert found == [("graded", 1.0)] * 200 + [("error", None), ("timeout", None)]
    assert time.monotonic() - begun < 30, "one after the other, they would take a minute"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_class_is_set_up_and_closed_once_in_a_worker(own: str, tmp_path: Path, workers: int) -> None:
    rewards = [reward for _, reward in scores(f"{own}:Kept", ["a"] * 3, workers, folder=str(tmp_path))]
    assert sorted(rewards) == [1.0, 2.0, 3.0], "one instance judged all"
    assert (tmp_path / "setup").exists()
    assert (tmp_path / "close").exists()


def test_a_setup_that_fails_is_an_error_and_not_a_zero(own: str, tmp_path: Path) -> None:
    with Scorer(f"{own}:Kept", {"folder": str(tmp_path), "fail": True}, workers=1) as scorer:
        (score,) = scorer.score([Item("a", Task())])
    assert (score.status, score.reward) == (Status.ERROR, None)
    assert str(score.reason).startswith("setup failed: OSError: no database")
    with pytest.raises(PluginError, match="setup failed: OSError: no database"):
        Scorer(f"{own}:Kept", {"folder": str(tmp_path), "fail": True}, workers=0)
    with pytest.raises(PluginError, match="a class without a method `check`"):
        load_verifier(f"{own}:Nothing")


def test_compositions_have_members_of_every_form(own: str, tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(
        f"sum: {{a: {{verifier: own.py:sizes, range: [0, 9]}}, b: own.py:slow, "
        f"c: {{verifier: own.py:Kept, range: [0, 9], options: {{folder: '{tmp_path}'}}}}}}"
    )
    with Scorer(str(tmp_path / "all.yaml"), workers=1) as scorer:
        found = list(scorer.score(Item("a", Task()) for _ in range(3)))
    assert [score.status for score in found] == [Status.GRADED] * 3
    assert (tmp_path / "close").exists()


@pytest.mark.parametrize("name", ["batched", "remote"])
def test_the_examples_of_forms_judge_answers(name: str) -> None:
    assert scores(f"{EXAMPLES}:{name}", [r"\boxed{4}", r"\boxed{5}"], 0) == [("graded", 1.0), ("graded", 0.0)]


def test_the_example_of_a_group() -> None:
    task = Task(answer="4")
    said = [r"\boxed{4}", r"so \boxed{4}.     ", r"\boxed{5}"]
    rollouts = [Rollout(id=str(i), group_id="g", prompt="", completion=c, task=task) for i, c in enumerate(said)]
    verdicts = load_verifier(f"{EXAMPLES}:shortest").verify_group(rollouts)
    assert [verdict.reward for verdict in verdicts] == [1.0, 0.5, 0.0]


def test_the_example_of_a_class_has_a_model_of_options_and_a_column() -> None:
    lookup = load_verifier(f"{EXAMPLES}:Lookup", strict="false")
    assert lookup.config == {"table": "capitals", "strict": False}
    assert lookup.claims.columns == ("country",)
    assert lookup.verify("paris", Task(extra={"country": "France"})).reward == 1.0
    assert lookup.verify("x", Task(extra={"country": "Mars"})) == Verdict(
        status=Status.INVALID, reason="no capital of 'Mars' is known"
    )
    assert [(option.name, option.default, option.meaning) for option in load_options(f"{EXAMPLES}:Lookup")] == [
        ("table", "capitals", "name of the table"),
        ("strict", True, "refuse other spellings"),
    ]
    with pytest.raises(ConfigError, match=r"verifier 'lookup' has no option 'tabel'; did you mean 'table'\?"):
        load_verifier(f"{EXAMPLES}:Lookup", tabel="x")
    with pytest.raises(ConfigError, match="verifier 'lookup': option strict"):
        load_verifier(f"{EXAMPLES}:Lookup", strict="perhaps")


def test_a_missing_column_is_refused_before_anything_is_scored(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"completion": "Paris", "land": "France"}')
    message = "verifier 'lookup' needs the column 'country', and no row has it; the columns are: completion, land"
    with pytest.raises(RequestError, match=message):
        rlvr.score(rows, f"{EXAMPLES}:Lookup", out=tmp_path / "out.jsonl", workers=0)
    assert not (tmp_path / "out.jsonl").exists()
