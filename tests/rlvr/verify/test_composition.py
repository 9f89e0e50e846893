"""Verifiers that are combined: sums, gates, fallbacks, routes, ranges, and what the record holds of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlvr.errors import ConfigError, PluginError
from rlvr.record.item import Item
from rlvr.record.schema import Rollout, Score, Status, Task, Verdict
from rlvr.run.groups import MOST_PARTS, part_metrics
from rlvr.verify.composition import absolute_reference, is_composition, references, weighted
from rlvr.verify.loaded import LoadedVerifier
from rlvr.verify.score_names import can_judge, score_name
from rlvr.verify.scoring import Scorer
from rlvr.verify.verifying import load_verifier

SOURCE = '''
import rlvr

@rlvr.verifier(name="says", version="1", needs_answer=False)
def says(completion, task, *, word: str = "yes"):
    """1 if the completion has the word; the word fail raises, skip abstains, mute is unparsed."""
    if "fail" in completion:
        raise ValueError("broken")
    if "skip" in completion:
        return None
    if "mute" in completion:
        return rlvr.Verdict(status="unparsed", reason="mute")
    return word in completion

@rlvr.verifier(name="right", version="2")
def right(completion, task):
    return rlvr.Verdict(status="graded", reward=task.answer in completion, extracted=completion)

@rlvr.verifier(name="size", version="1", needs_answer=False, reward_range=(-1, 3))
def size(completion, task):
    return float(len(completion)) - 1

@rlvr.verifier(name="first", version="1", needs_answer=False)
def first(rollouts):
    return [rollout is rollouts[0] for rollout in rollouts]

def trl(prompts, completions, **columns):
    return [5.0 for _ in completions]

@rlvr.verifier(name="sealed", version="1", needs_answer=False)
def sealed(completion, task, *, api_key: str = ""):
    return completion == api_key
'''

Write = Callable[..., str]
EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Function that writes a composition beside the verifiers and returns its path, from another folder."""
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "v.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "reward.yaml") -> str:
        (tmp_path / "all" / name).write_text(text)
        return f"all/{name}"

    return write


def judged(verifier: LoadedVerifier, completion: str, **task: Any) -> tuple[str, float | None]:
    verdict = verifier.verify(completion, Task(**{"answer": "4", **task}))
    return verdict.status.value, verdict.reward


def test_a_sum_weighs_rewards_and_keeps_every_part(write: Write) -> None:
    loaded = load_verifier(
        write("sum: {answer: {verifier: v.py:right, weight: 1.0}, form: {verifier: v.py:says, weight: 0.25}}")
    )
    verdict = loaded.verify("4 yes", Task(answer="4"))
    assert (loaded.name, verdict.status, verdict.reward, verdict.extracted) == ("reward", Status.GRADED, 1.25, "4 yes")
    assert verdict.parts == {
        "answer": Verdict(status=Status.GRADED, reward=1.0, extracted="4 yes"),
        "form": Verdict(status=Status.GRADED, reward=1.0),
    }
    assert judged(loaded, "4") == ("graded", 1.0)
    assert judged(loaded, "yes") == ("graded", 0.25)


def test_the_short_form_is_a_sum_named_after_its_verifiers(write: Write) -> None:
    write("")
    loaded = load_verifier("all/v.py:right:1.0 + all/v.py:says:0.2")
    assert (loaded.name, judged(loaded, "4 yes")) == ("right+says", ("graded", 1.2))
    assert score_name("all/v.py:right:1.0 + all/v.py:says:0.2") == "right+says"
    assert weighted(["math:1", "v.py:says:0.2"]) == "math:1 + v.py:says:0.2"
    assert (weighted(["math"]), weighted([])) == ("math", None)
    with pytest.raises(ConfigError, match=r"2 verifiers, and math has no weight: write math:1\.0 for a weighted sum"):
        weighted(["math", "v.py:says:0.2"])
    with pytest.raises(ConfigError, match="two parts are called 'says'; give them names in a YAML file"):
        load_verifier("all/v.py:says:1.0 + all/v.py:says:0.2")


@pytest.mark.parametrize(
    ("completion", "status"), [("4 fail", "error"), ("4 skip", "abstained"), ("4 mute", "graded"), ("mute", "graded")]
)
def test_a_member_that_fails_is_never_a_zero_and_unparsed_adds_nothing(
    write: Write, completion: str, status: str
) -> None:
    loaded = load_verifier(write("sum: {answer: v.py:right, form: {verifier: v.py:says, weight: 0.5}}"))
    verdict = loaded.verify(completion, Task(answer="4"))
    assert verdict.status.value == status
    assert verdict.reward == (float("4" in completion) if status == "graded" else None)
    assert verdict.parts is not None
    assert verdict.parts["answer"].status is Status.GRADED
    assert loaded.verify(completion, Task()).status.value == ("error" if status == "error" else "invalid")


def test_if_all_parts_are_unparsed_so_is_the_sum(write: Write) -> None:
    loaded = load_verifier(write("sum: {a: v.py:says, b: {verifier: v.py:says, options: {word: nay}}}"))
    verdict = loaded.verify("mute", Task())
    assert (verdict.status, verdict.reason) == (Status.UNPARSED, "a: mute")


def test_a_gate_asks_the_next_part_only_if_it_is_passed(write: Write) -> None:
    loaded = load_verifier(write("gate: {form: v.py:says, answer: v.py:right}"))
    assert judged(loaded, "4 yes") == ("graded", 1.0)
    assert judged(loaded, "5 yes") == ("graded", 0.0)
    closed = loaded.verify("4", Task(answer="4"))
    assert (closed.reward, closed.reason) == (0.0, "form: a reward of 0, below 1")
    assert closed.parts is not None
    assert set(closed.parts) == {"form"}
    assert [judged(loaded, f"4 {word}")[0] for word in ("mute", "skip", "fail")] == ["unparsed", "abstained", "error"]


def test_a_fallback_asks_the_next_part_unless_one_accepts(write: Write) -> None:
    loaded = load_verifier(write("fallback: {exact: v.py:right, judge: v.py:says}"))
    assert [judged(loaded, text) for text in ("4", "yes", "no")] == [("graded", 1.0), ("graded", 1.0), ("graded", 0.0)]
    accepted = loaded.verify("4 fail", Task(answer="4"))
    assert (accepted.reward, set(accepted.parts or ())) == (1.0, {"exact"})
    # Wrong for the first, and the second did not say anything: not a 0.
    assert [judged(loaded, word)[0] for word in ("skip", "fail")] == ["abstained", "error"]
    early = load_verifier(write("fallback: {size: {verifier: v.py:size, at_least: 1}, judge: v.py:says}\nclip: [0, 1]"))
    assert set(early.verify("abc", Task()).parts or ()) == {"size"}


def test_a_route_goes_by_a_column_of_the_row(write: Write) -> None:
    loaded = load_verifier(
        write("by: source\nroute: {openai/gsm8k: v.py:right, 7: v.py:says}\notherwise: {verifier: v.py:says}")
    )
    assert loaded.sees == "task"
    verdict = loaded.verify("4", Task(answer="4", extra={"source": "openai/gsm8k"}))
    assert (verdict.reward, set(verdict.parts or ())) == (1.0, {"openai-gsm8k"})
    assert judged(loaded, "4", extra={"source": 7}) == ("graded", 0.0)
    assert judged(loaded, "yes", extra={"source": "other"}) == judged(loaded, "yes") == ("graded", 1.0)
    strict = load_verifier(write("by: dataset\nroute: {gsm8k: v.py:right}"))
    assert judged(strict, "4", dataset="gsm8k") == ("graded", 1.0)
    unknown = strict.verify("4", Task(answer="4", dataset="math"))
    assert (unknown.status, unknown.reason) == (
        Status.INVALID,
        "no part judges rows whose dataset is 'math', and the route has no `otherwise`",
    )


def test_parts_nest_and_penalties_are_clipped(write: Write) -> None:
    text = """
    sum:
      task: {gate: {form: v.py:says, answer: v.py:right}, weight: 2}
      long: {verifier: v.py:size, weight: -0.25}
    clip: [0, 1.5]
    """
    loaded = load_verifier(write(text))
    verdict = loaded.verify("4yes", Task(answer="4"))
    assert verdict.reward == 1.25
    assert set(verdict.parts or ()) == {"task", "task.form", "task.answer", "long"}
    assert judged(loaded, "no") == ("graded", 0.0)
    assert loaded.claims.reward_range == (0.0, 1.5)


@pytest.mark.parametrize("workers", [0, 1])
def test_group_verifiers_see_the_whole_group(write: Write, workers: int) -> None:
    name = write("gate: {form: v.py:says, first: v.py:first}")
    task = Task(answer="4")
    rollouts = [Rollout(id=str(i), group_id="g", prompt="", completion=text, task=task) for i, text in enumerate(
        ["yes", "no", "fail", "yes"]
    )]  # fmt: skip
    with Scorer(name, workers=workers) as scorer:
        scores = list(scorer.score(Item(each.completion, task, each) for each in rollouts))
    assert [(score.status.value, score.reward) for score in scores] == [
        ("graded", 1.0),
        ("graded", 0.0),
        ("error", None),
        ("graded", 0.0),
    ]


def test_the_record_names_every_member_and_its_version(write: Write) -> None:
    text = "sum: {answer: v.py:right, form: {verifier: v.py:says, weight: 0.5, options: {word: nay}}}"
    loaded = load_verifier(write(text))
    parts = loaded.config["composition"]["sum"]
    assert parts["form"] == {
        "weight": 0.5,
        "verifier": "says",
        "version": load_verifier("all/v.py:says").version,
        "options": {"word": "nay"},
        "range": [0.0, 1.0],
    }
    assert "right" in loaded.version
    heavier, other = text.replace("0.5", "0.6"), text.replace("nay", "ja")
    assert len({load_verifier(write(each)).version for each in (text, heavier, other)}) == 3
    assert load_verifier(write(text)).version == loaded.version


MISTAKES = {
    "sum: {a: v.py:says, b: {verifier: v.py:says, weight: -0.5}}": "can reward from -0.5 to 1, below 0: write `clip",
    "verifier: v.py:size": "can reward from -1 to 3, below 0",
    "sum:\n  a: v.py:says\n  b: {verifier: v.py:says, wieght: 2}": "reward.yaml:3: sum.b.wieght is no key of this part",
    "sum: {a: {verifier: v.py:says, weight: 0}}": "reward.yaml:1: sum.a.weight: the weight is 0: expected a finite",
    "gate: {a: v.py:says}": "gate has too few parts",
    "sum: {a: {}}": "sum.a must have exactly one of verifier, sum, gate, fallback, route; it has none",
    "sum: {}\ngate: {}": "it has sum and gate",
    "sum: {a: other.yaml}": "sum.a.verifier is 'other.yaml', a composition itself: write its parts here",
    "route: {a: v.py:says}": "by must name the column that routes",
    "sum: {a.b: v.py:says}": "sum.a.b is no name of a part",
    "sum: {a: v.py:says}\nclip: [1, 0]": "reward.yaml:2: clip is [1, 0]: expected the smallest and the largest",
    "sum: {a: v.py:says}\nsum: {b: v.py:says}": "reward.yaml:2: sum is given twice",
    "sum: {a: {verifier: v.py:says, options: {wrod: x}}}": "verifier 'says' has no option 'wrod'",
    "- a": "expected `key: value` pairs",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_refused_with_its_place(write: Write, text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_verifier(write(text))
    assert MISTAKES[text] in str(refused.value)


def test_other_mistakes(write: Write) -> None:
    write("")
    with pytest.raises(ConfigError, match="option 'word' is of which part"):
        load_verifier("all/v.py:says:1.0", word="x")
    with pytest.raises(ConfigError, match=r"cannot read gone\.yaml"):
        load_verifier("gone.yaml")
    with pytest.raises(PluginError, match="there is no verifier 'mth'"):
        Scorer("mth:1.0 + math:1.0", workers=1)


def test_a_reward_outside_of_the_range_that_weights_count_on_is_an_error(write: Write) -> None:
    loaded = load_verifier(write("sum: {a: v.py:trl}"))
    verdict = loaded.verify("x", Task())
    assert verdict.status is Status.ERROR
    assert "a reward of 5, outside of 0 to 1" in str(verdict.reason)
    assert judged(load_verifier(write("sum: {a: {verifier: v.py:trl, range: [0, 5]}}")), "x") == ("graded", 5.0)
    assert judged(load_verifier(write("verifier: v.py:size\nnegative: true")), "") == ("graded", -1.0)


def test_references(write: Write) -> None:
    name = write("sum: {a: v.py:says, b: math}")
    assert references(name) == ["all/v.py:says", "math"]
    assert references("math:1 + v.py:x:2") == ["math", "v.py:x"]
    assert references("math") == ["math"]
    assert [is_composition(ref) for ref in ("math", "v.py:x", "a.b:c", "math:1", "a.yml")] == [False] * 3 + [True] * 2
    assert absolute_reference("math:1 + v.py:x:2") == f"math:1 + {os.getcwd()}/v.py:x:2"
    assert absolute_reference("a.yaml") == f"{os.getcwd()}/a.yaml"
    assert can_judge(name)


def test_secret_options_of_members_come_from_the_environment(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE", "sesame")
    name = write("sum: {a: {verifier: v.py:sealed, options: {api_key: 'env:JUDGE'}}}")
    with Scorer(name, workers=1) as scorer:
        (score,) = scorer.score([Item("sesame", Task())])
    assert score.reward == 1.0
    assert score.config["composition"]["sum"]["a"]["options"] == {"api_key": "env:JUDGE"}


def test_metrics_of_parts() -> None:
    def score(**parts: float | None) -> Score:
        graded = {
            name: Verdict(status=Status.UNPARSED) if reward is None else Verdict(status=Status.GRADED, reward=reward)
            for name, reward in parts.items()
        }
        return Score(status=Status.GRADED, reward=1.0, verifier="x", version="1", parts=graded or None)

    assert part_metrics([score(a=1.0, b=None), score(a=0.5)]) == {
        "part/a/reward": 0.75,
        "part/a/share": 1.0,
        "part/b/reward": 0.0,
        "part/b/share": 0.5,
    }
    assert part_metrics([score()]) == {}
    assert part_metrics([score(**{f"test{i}": 1.0 for i in range(MOST_PARTS + 1)})]) == {}


def test_the_examples_combine() -> None:
    loaded = load_verifier(f"{EXAMPLES}/reward.yaml")
    assert judged(loaded, r"<think>2+2</think> \boxed{4}") == ("graded", 1.2)
    assert judged(loaded, r"\boxed{5}" + " " * 400) == ("graded", 0.1)
