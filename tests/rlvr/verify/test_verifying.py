"""Forms, options and results of verifiers, in this process."""

from __future__ import annotations

import asyncio
import hashlib
import math
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rlvr
from rlvr.errors import ConfigError, PluginError
from rlvr.protocols import Verifier
from rlvr.record.schema import Message, Rollout, Score, Status, Task, Verdict
from rlvr.registry import registry
from rlvr.verify.results import verdict_of
from rlvr.verify.verifying import FunctionVerifier, load_verifier, verifier

TASK = Task(dataset="sums", answer="4", extra={"question": "2 + 2", "level": 1})


@pytest.fixture(autouse=True)
def _same_import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    """Function that writes a file and returns the reference of its function `check`."""

    def write(source: str) -> str:
        (tmp_path / "mine.py").write_text(source)
        return f"{tmp_path / 'mine.py'}:check"

    return write


def made(function: Callable[..., Any], **options: Any) -> FunctionVerifier:
    return FunctionVerifier(function, "made", "1", options)


def rollout(completion: str | None, i: int = 0, **fields: Any) -> Rollout:
    prompt = {} if "messages" in fields else {"prompt": "2 + 2 = "}
    return Rollout(id=str(i), completion=completion, task=TASK, **prompt, **fields)


# --- results


@pytest.mark.parametrize(
    ("result", "reward"),
    [
        (True, 1.0),
        (False, 0.0),
        (3, 3.0),
        (-0.5, -0.5),
        (np.float32(0.5), 0.5),
        (np.bool_(True), 1.0),
        (np.array(2), 2.0),
        (np.array([2.0]), 2.0),
        (torch.tensor(0.25), 0.25),
        (torch.tensor([1]), 1.0),
    ],
    ids=repr,
)
def test_numbers_are_rewards(result: Any, reward: float) -> None:
    verdict = verdict_of(result)
    assert verdict == Verdict(status=Status.GRADED, reward=reward)
    assert type(verdict.reward) is float


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (math.nan, "returned float nan: a reward is a finite number"),
        (-math.inf, "returned float -inf: a reward is a finite number"),
        (10**400, "a reward is a finite number"),
        (torch.tensor(math.nan), "a reward is a finite number"),
        ("1.0", "returned str '1.0': expected a bool, a number, None or a Verdict"),
        (b"1", "returned bytes b'1': expected"),
        ([1.0], "returned list [1.0]: expected"),
        ({"score": 1}, "returned dict {'score': 1}: expected"),
        (Fraction(1, 2), "returned Fraction Fraction(1, 2): expected"),
        (1 + 0j, "returned complex (1+0j): expected"),
        (torch.ones(2), "returned a Tensor of several elements"),
        (np.ones(2), "returned a ndarray of several elements"),
        (np.array("1"), "expected a bool"),
    ],
    ids=repr,
)
def test_anything_else_is_an_error_that_says_what_came(result: Any, reason: str) -> None:
    verdict = verdict_of(result)
    assert verdict.status is Status.ERROR
    assert reason in (verdict.reason or "")


def test_none_abstains_and_a_verdict_is_itself() -> None:
    assert verdict_of(None) == Verdict(status=Status.ABSTAINED)
    own = Verdict(status=Status.UNPARSED, extracted="x", reason="y")
    assert verdict_of(own) == own
    score = Score(status=Status.GRADED, reward=1, verifier="other", version="1")
    assert type(verdict_of(score)) is Verdict


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_every_result_has_a_meaning(result: Any) -> None:
    verdict = verdict_of(result)
    is_number = isinstance(result, bool | int | float) and -1.8e308 < result < 1.8e308
    assert (verdict.status is Status.GRADED) == is_number
    assert (verdict.status is Status.ABSTAINED) == (result is None)
    assert verdict.status in (Status.GRADED, Status.ABSTAINED, Status.ERROR)


def test_an_exception_is_an_error_that_says_where() -> None:
    def check(completion: str, task: Task) -> bool:
        return completion.index("x") > 0

    line = check.__code__.co_firstlineno + 1
    verdict = made(check).verify("4", TASK)
    assert verdict == Verdict(status=Status.ERROR, reason=f"ValueError: substring not found (test_verifying.py:{line})")


def test_reasons_are_short() -> None:
    def check(completion: str, task: Task) -> bool:
        raise ValueError("x" * 10_000)

    assert len(made(check).verify("4", TASK).reason or "") < 600


def test_ctrl_c_is_the_users() -> None:
    def check(completion: str, task: Task) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(check).verify("4", TASK)


def test_leaving_the_process_is_an_error() -> None:
    def check(completion: str, task: Task) -> bool:
        sys.exit(1)

    assert made(check).verify("4", TASK).status is Status.ERROR


# --- the decorator and the statuses that need no call


def test_a_decorated_function_stays_a_function() -> None:
    @rlvr.verifier(name="mine", version="1")
    def check(completion: str, task: Task, *, tolerance: float = 0.0) -> bool:
        return abs(float(completion) - 4) <= tolerance

    assert check("4", TASK) is True
    assert check("4.5", TASK, tolerance=0.5) is True


def test_a_gold_is_needed_unless_the_verifier_says_otherwise() -> None:
    def check(completion: str | None, task: Task) -> int:
        return len(completion or "")

    strict = made(verifier()(check))
    assert strict.verify("4", Task()) == Verdict(status=Status.INVALID, reason="the row has no gold answer")
    assert strict.verify(" \n", TASK) == Verdict(status=Status.UNPARSED, reason="the completion is empty")
    assert strict.verify(None, TASK) == Verdict(status=Status.INVALID, reason="the row has no completion")
    lenient = made(verifier(needs_answer=False)(check))
    assert lenient.verify("4", Task()).reward == 1
    assert lenient.verify("", Task()).reward == 0
    assert lenient.verify(None, Task()).status is Status.INVALID


def test_a_plain_function_is_a_verifier() -> None:
    assert made(lambda completion, task: completion == task.answer).verify("4", TASK).reward == 1


def test_an_asynchronous_function_is_awaited() -> None:
    async def check(completion: str, task: Task) -> bool:
        await asyncio.sleep(0)
        return completion == task.answer

    assert made(check).verify("4", TASK).reward == 1


# --- whole rollouts and groups


@pytest.mark.parametrize("takes", ["rollout", None])
def test_a_verifier_may_take_the_rollout(takes: Any) -> None:
    @verifier(takes=takes)
    def check(rollout: Rollout, *, most: int = 1) -> bool:
        return rollout.token_ids is None or len(rollout.token_ids) <= most

    member = rollout("4", token_ids=(1, 2), loss_mask=(False, True))
    assert made(check).verify(member.completion, member.task, member).reward == 0
    assert made(check, most=2).verify(member.completion, member.task, member).reward == 1
    verdict = made(check).verify("4", TASK)
    assert (verdict.status, verdict.reason) == (
        Status.INVALID,
        "verifier 'made' takes rollouts, and the row has no prompt",
    )


@verifier(takes="group")
def longest(members: list[Rollout], *, tie: float | None = None) -> list[float | None]:
    lengths = [len(member.completion or "") for member in members]
    return [tie if lengths.count(max(lengths)) > 1 else float(length == max(lengths)) for length in lengths]


def test_a_verifier_may_take_a_group() -> None:
    group = [rollout("4"), rollout("4444"), rollout("44")]
    assert [verdict.reward for verdict in made(longest).verify_group(group)] == [0, 1, 0]
    assert {verdict.status for verdict in made(longest).verify_group(group[:1] * 2)} == {Status.ABSTAINED}
    assert [verdict.reward for verdict in made(longest, tie=0.5).verify_group(group[:1] * 2)] == [0.5, 0.5]


def test_a_group_that_is_too_small_is_invalid_unless_the_verifier_declares_otherwise() -> None:
    verdict = made(longest).verify("4", TASK, rollout("4"))
    assert (verdict.status, verdict.reason) == (
        Status.INVALID,
        "verifier 'made' judges groups of at least 2 rollouts, and this one has 1 that can be judged",
    )
    found = made(longest).verify_group([rollout("4"), rollout(" "), rollout(None)])
    assert [each.status.value for each in found] == ["invalid", "unparsed", "invalid"]
    alone = verifier(takes="group", min_group=1)(lambda rollouts: [1.0] * len(rollouts))
    assert made(alone).verify("4", TASK, rollout("4")).reward == 1
    three = verifier(takes="group", min_group=3)(lambda rollouts: [1.0] * len(rollouts))
    assert {each.status for each in made(three).verify_group([rollout("4")] * 2)} == {Status.INVALID}
    with pytest.raises(PluginError, match="a group has at least 1 rollout"):
        verifier(takes="group", min_group=0)


def test_members_that_cannot_be_judged_are_left_out_of_the_group() -> None:
    verdicts = made(longest).verify_group([rollout("4"), rollout(None), rollout(" "), rollout("44")])
    assert [verdict.status.value for verdict in verdicts] == ["graded", "invalid", "unparsed", "graded"]
    assert [verdicts[0].reward, verdicts[3].reward] == [0, 1]
    assert [verdict.status.value for verdict in made(longest).verify_group([rollout(None)])] == ["invalid"]


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ([1.0], "returned 1 results for 2"),
        ([1.0] * 3, "returned 3 results for 2"),
        (1.0, "returned float 1.0: expected a list of 2"),
        ("ab", "returned str 'ab': expected a list of 2"),
        (None, "returned NoneType None: expected a list of 2"),
        ({1: 1, 2: 2}, "expected a list of 2"),
    ],
)
def test_a_group_is_never_broadcast(result: Any, reason: str) -> None:
    verdicts = made(verifier(takes="group")(lambda rollouts: result)).verify_group([rollout("4"), rollout("5")])
    assert [verdict.status for verdict in verdicts] == [Status.ERROR] * 2
    assert all(reason in (verdict.reason or "") for verdict in verdicts)


def test_a_groups_results_may_be_an_array_and_one_may_be_wrong() -> None:
    group = [rollout("4"), rollout("5")]
    assert [v.reward for v in made(lambda rollouts: torch.tensor([0.5, 1.0])).verify_group(group)] == [0.5, 1.0]
    verdicts = made(lambda rollouts: [1.0, "x"]).verify_group(group)
    assert [verdict.status for verdict in verdicts] == [Status.GRADED, Status.ERROR]


def test_a_group_that_raises_is_an_error_for_each() -> None:
    def check(rollouts: list[Rollout]) -> list[float]:
        raise ValueError("all of them")

    verdicts = made(check).verify_group([rollout("4"), rollout("5")])
    assert [verdict.status for verdict in verdicts] == [Status.ERROR] * 2


# --- other frameworks' functions


def test_a_trl_function_gets_what_trl_would_pass() -> None:
    seen: dict[str, Any] = {}

    def reward(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float | None]:
        seen.update(columns, prompts=prompts, completions=completions)
        return [0.5]

    member = rollout("4", token_ids=(7, 8, 9), loss_mask=(False, True, True))
    assert made(reward).verify("4", TASK, member).reward == 0.5
    gold = {name: ["4"] for name in ("answer", "solution", "ground_truth")}
    rest = {"question": ["2 + 2"], "level": [1]}
    assert seen == {"prompts": ["2 + 2 = "], "completions": ["4"], "completion_ids": [[8, 9]], **gold, **rest}

    seen.clear()
    chat = rollout("4", messages=(Message(role="user", content="2 + 2"),))
    made(reward).verify("4", TASK, chat)
    assert seen["prompts"] == [[{"role": "user", "content": "2 + 2"}]]
    assert seen["completions"] == [[{"role": "assistant", "content": "4"}]]
    assert "completion_ids" not in seen  # unknown

    seen.clear()
    made(reward).verify("4", Task(answer="4", extra={"solution": "2 + 2 is 4", "prompt": "x"}))
    assert (seen["solution"], seen["answer"], seen["prompts"]) == (["2 + 2 is 4"], ["4"], [None])
    assert "prompt" not in seen


def test_a_trl_function_names_the_columns_that_it_needs() -> None:
    def reward(completions: list[str], solution: list[str], level: list[int]) -> list[float | None]:
        return [float(c == s) if x else None for c, s, x in zip(completions, solution, level, strict=True)]

    assert made(reward).verify("4", TASK).reward == 1
    assert made(reward).verify("4", Task(answer="4", extra={"level": 0})).status is Status.ABSTAINED
    assert made(reward).verify("4", Task(extra={"level": 0})).status is Status.INVALID
    missing = made(reward).verify("4", Task(answer="4", extra={"levels": 0}))
    assert missing.status is Status.ERROR
    assert "no column 'level'; did you mean 'levels'" in (missing.reason or "")


def test_a_trl_function_without_a_gold_needs_none() -> None:
    assert made(lambda completions, **columns: [len(completions[0])]).verify("", Task()).reward == 0


def test_a_trl_function_may_be_asynchronous_and_returns_one_each() -> None:
    async def reward(completions: list[str], **columns: Any) -> list[float]:
        return [1.0] * len(completions)

    assert made(reward).verify("4", TASK).reward == 1
    wrong = made(lambda completions, **columns: [1.0, 1.0]).verify("4", TASK)
    assert wrong.reason == "returned 2 results for 1"


def test_a_trl_function_has_no_options() -> None:
    with pytest.raises(ConfigError, match="has no option 'solution'; it has none"):
        made(lambda completions, solution: [1.0], solution="x")


def test_trls_own_reward_works_as_it_is() -> None:
    reward = load_verifier("trl.rewards:accuracy_reward")
    chat = rollout(r"so \boxed{\frac{8}{2}}", messages=(Message(role="user", content="2 + 2"),))
    assert reward.verify(chat.completion, chat.task, chat).reward == 1
    wrong = reward.verify(r"\boxed{5}", chat.task, chat)
    assert wrong.reward == 0
    assert reward.name == "trl.rewards:accuracy_reward"


def test_a_verl_function_gets_what_verl_would_pass() -> None:
    seen: dict[str, Any] = {}

    def compute_score(
        data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None, *, format_score: float = 0.0
    ) -> dict[str, Any]:
        seen.update(data_source=data_source, ground_truth=ground_truth, extra_info=extra_info)
        return {"score": 1.0 if solution_str == ground_truth else format_score, "acc": True, "pred": solution_str}

    assert made(compute_score).verify("4", TASK) == Verdict(status=Status.GRADED, reward=1, extracted="4")
    assert seen == {"data_source": "sums", "ground_truth": "4", "extra_info": dict(TASK.extra)}
    assert made(compute_score, format_score="0.1").verify("5", TASK).reward == 0.1
    verl_row = Task(answer="4", extra={"data_source": "openai/gsm8k", "extra_info": {"index": 3}})
    made(compute_score).verify("4", verl_row)
    assert seen == {"data_source": "openai/gsm8k", "ground_truth": "4", "extra_info": {"index": 3}}
    assert made(compute_score).verify("4", Task()).status is Status.INVALID


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (1.0, Status.GRADED),
        (True, Status.GRADED),
        ({"score": 0}, Status.GRADED),
        ({"reward": 0}, Status.ERROR),
        ({"score": "1"}, Status.ERROR),
        (None, Status.ABSTAINED),
    ],
)
def test_what_a_verl_function_returns(result: Any, status: Status) -> None:
    assert made(lambda solution_str, ground_truth: result).verify("4", TASK).status is status


# --- options


def test_options_are_validated_and_coerced() -> None:
    @verifier()
    def check(completion: str, task: Task, *, tolerance: float = 0, words: list[str] | None = None) -> bool:
        assert isinstance(tolerance, int | float)
        return abs(float(completion) - 4) <= tolerance

    loaded = made(check, tolerance="0.5")
    assert loaded.config == {"tolerance": 0.5, "words": None}
    assert loaded.verify("4.5", TASK).reward == 1
    assert made(check).config == {"tolerance": 0, "words": None}
    with pytest.raises(ConfigError, match="'made' has no option 'tolerence'; did you mean 'tolerance'"):
        made(check, tolerence=1)
    with pytest.raises(ConfigError, match="option 'tolerance' is str 'wide': Input should be a valid number"):
        made(check, tolerance="wide")
    with pytest.raises(ConfigError, match="option 'words' is int 3"):
        made(check, words=3)


def test_an_option_without_a_default_must_be_given() -> None:
    def check(completion: str, task: Task, *, least: int) -> bool:
        return len(completion) >= least

    with pytest.raises(ConfigError, match="needs a value for its option 'least'"):
        made(check)
    assert made(check, least=2).verify("4", TASK).reward == 0


def test_annotations_of_other_parameters_need_not_resolve() -> None:
    def check(completion: NotImported, task: NotImported, *, least: int = 0) -> bool:  # type: ignore[name-defined]  # noqa: F821
        return True

    assert made(check, least="3").config == {"least": 3}

    def broken(completion: str, task: Task, *, least: NotImported = 0) -> bool:  # type: ignore[name-defined]  # noqa: F821
        return True

    with pytest.raises(PluginError, match="annotation cannot be used: name 'NotImported'"):
        made(broken, least="3")


def test_an_option_that_cannot_be_recorded_is_refused() -> None:
    def check(completion: str, task: Task, *, how: Any = object()) -> bool:  # noqa: B008
        return True

    with pytest.raises(PluginError, match="an option that JSON cannot hold"):
        made(check)


# --- references


def test_a_file_and_its_version(write: Callable[[str], str]) -> None:
    source = "def check(completion, task): return completion == task.answer\n"
    loaded = load_verifier(write(source))
    assert (loaded.name, loaded.version) == ("mine:check", hashlib.sha256(source.encode()).hexdigest()[:16])
    assert loaded.verify("4", TASK).reward == 1
    other = load_verifier(write(source + "\n"))
    assert other.version != loaded.version
    assert loaded.verify("4", TASK).reward == 1


def test_a_file_may_decorate_import_its_neighbor_and_define_classes(
    write: Callable[[str], str], tmp_path: Path
) -> None:
    (tmp_path / "the_neighbor.py").write_text("GOLD = '4'\n")
    ref = write(
        """
from __future__ import annotations
from dataclasses import dataclass
import rlvr
from the_neighbor import GOLD

@dataclass
class Parsed:
    text: str

@rlvr.verifier(name="neighborly", version="7")
def check(completion: str, task: rlvr.Task, *, gold: str = GOLD) -> bool:
    return Parsed(completion).text == gold
"""
    )
    loaded = load_verifier(ref, gold="5")
    assert loaded.name == "neighborly"
    assert loaded.version != "7"  # the source's hash tells more
    assert loaded.verify("5", TASK).reward == 1


def test_a_module(write: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("import rlvr\ndef check(completion, task): return True\npinned = rlvr.verifier(version='3')(check)\n")
    monkeypatch.syspath_prepend(tmp_path)
    source = (tmp_path / "mine.py").read_bytes()
    (tmp_path / "mine_as_module.py").write_bytes(source)
    assert load_verifier("mine_as_module:pinned").version == "3"
    loaded = load_verifier("mine_as_module:check")
    assert loaded.name == "mine_as_module:check"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nonsense_that_is_not_there", r"mine.py failed to load: ModuleNotFoundError.*\(mine.py:1\)$"),
        ("\nx = 1 +", r"SyntaxError: invalid syntax \(mine.py:2\)$"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def chekc(completion, task): ...", "no function 'check'; did you mean 'chekc'"),
        ("from math import sqrt", "no function 'check'$"),
        ("check = 3", "is int 3, not a function"),
        ("check = int", "none of the known forms|cannot be called|a class without a method `check`"),
        ("def check(a, b): ...", r"takes \(a, b\), which is none of the known forms: check\(completion, task\)"),
        (
            "import rlvr\n@rlvr.verifier(takes='completion')\ndef check(a): ...",
            "takes='completion' and has 1 positional parameters, not 2",
        ),
    ],
)
def test_a_broken_file_is_an_error_of_one_line(write: Callable[[str], str], source: str, message: str) -> None:
    with pytest.raises(PluginError, match=message) as caught:
        load_verifier(write(source))
    assert "\n" not in str(caught.value)


def test_references_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"nowhere.py cannot be read: No such file or directory"):
        load_verifier(f"{tmp_path}/nowhere.py:check")
    with pytest.raises(PluginError, match=r"which function of mine.py\? Write mine.py:NAME"):
        load_verifier("mine.py")
    with pytest.raises(PluginError, match=r"'no_such_package.x:y' failed to load: ModuleNotFoundError"):
        load_verifier("no_such_package.x:y")
    with pytest.raises(PluginError, match="there is no verifier 'mth'; did you mean 'math'"):
        load_verifier("mth")


def test_ctrl_c_during_an_import_is_the_users(write: Callable[[str], str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        load_verifier(write("raise KeyboardInterrupt"))


@pytest.fixture
def registered(install: Callable[..., Path]) -> Iterator[None]:
    """Registry with an installed package."""
    install(
        "outsider",
        "outsider = outsiders_plugin",
        version="2.1",
        outsiders_plugin="""
            import rlvr

            @rlvr.hookimpl
            def rlvr_verifiers():
                return {name: f"outsiders_checks:{name}" for name in ("plain", "named", "other")}
        """,
        outsiders_checks="""
            import rlvr

            def plain(completion, task):
                return completion == task.answer

            named = rlvr.verifier(name="named", version="5")(lambda completion, task: True)
            other = rlvr.verifier(name="named", version="5")(lambda completion, task: True)
        """,
    )
    registry.cache_clear()
    yield
    registry.cache_clear()


@pytest.mark.usefixtures("registered")
def test_a_registered_name() -> None:
    plain, named = load_verifier("plain"), load_verifier("named")
    assert (plain.name, plain.version) == ("plain", "2.1")
    assert (named.name, named.version) == ("named", "5")
    assert plain.verify("4", TASK).reward == 1
    with pytest.raises(PluginError, match=r"outsider 2.1 registers .* as verifier 'other'.*decorator calls it 'named'"):
        load_verifier("other")


def test_the_one_that_comes_with_rlvr() -> None:
    math = load_verifier("math")
    assert isinstance(math, Verifier)
    assert math.name == "math"
    assert math.verify("4", TASK).status in Status


def test_the_decorator_is_the_packages() -> None:
    """No submodule may shadow it: importing `rlvr.NAME` sets the attribute `NAME` of the package."""
    assert rlvr.verifier is verifier
    assert rlvr.load_verifier is load_verifier
