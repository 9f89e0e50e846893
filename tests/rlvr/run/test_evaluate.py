"""`rlvr.evaluate` and `rlvr eval`: the embedded model and two checkpoints of it, continuation, and errors."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rlvr
from interrupted import StopAfter
from rlvr.errors import ConfigError, RequestError
from rlvr.record.store import read_rollouts

SMALL = {"sampling.prompts_per_step": 4, "verifier.workers": 0, "model.device": "cpu"}
QUESTIONS = 12


class Notes(rlvr.GenerateReporter):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Keep a note."""
        self.notes.append(text)


def evaluated(out: Path, model: str | Path = "embedded", **more: Any) -> rlvr.Evaluation:
    return rlvr.evaluate(model, out=out, **{"n": 2, "limit": 6, "config": SMALL, **more})


def lines(path: Path) -> list[tuple[str | None, str | None, float | None]]:
    """Return what an evaluation depends on: question, completion and reward of every record."""
    return [(each.task.row_id, each.completion, each.scores[0].reward) for each in read_rollouts(path)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a run of four batches with checkpoints after two and four."""
    path: Path = tmp_path_factory.mktemp("run") / "run"
    settings = {
        "steps": 4,
        "trainer.lr": 2e-4,
        "eval.questions": QUESTIONS,
        "checkpoint.every": 2,
        "verifier.workers": 0,
    }
    rlvr.train({**settings, "sampling": {"prompts_per_step": 4}, "model.device": "cpu"}, out=path)
    return path


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of four questions."""
    path: Path = tmp_path_factory.mktemp("data") / "sums.jsonl"
    rows = [{"question": f"{i + 10}+{i + 21}=", "answer": str(2 * i + 31)} for i in range(4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


CARD = """
question: question
answer: answer
plain: "{question}"
evaluation: {n: 3, temperature: 0.7, top_p: 0.9, max_tokens: 9, seed: 5, plain: "{question} "}
"""


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """A card that says how evaluations ask."""
    path = tmp_path / "sums.yaml"
    path.write_text(CARD)
    return path


def test_every_completion_is_kept_and_the_file_gives_the_figures_again(tmp_path: Path) -> None:
    out = tmp_path / "e.parquet"
    found = evaluated(out, greedy=True)
    rollouts = list(read_rollouts(out))
    assert len(rollouts) == 6 * 3
    assert [each.sampling.temperature for each in rollouts[:3]] == [1.0, 1.0, 0.0]
    own = found["arithmetic"]
    assert (own.n, own.split, own.verifier, len(own.questions)) == (2, "eval", "math", 6)
    assert set(own.figures) == {
        *("avg", "pass@1", "pass@2", "maj", "greedy", "reward", "tokens", "truncated", "unparsed")
    }
    right = [(each.scores[0].reward or 0) >= 0.5 for each in rollouts if each.sampling.temperature]
    assert own.accuracy.value == sum(right) / 12
    assert rlvr.evaluation_of(out) == found


def test_greedy_accuracy_is_that_of_the_run_s_own_evaluation(run: Path, tmp_path: Path) -> None:
    reporter = Notes()
    found = evaluated(tmp_path / "e.parquet", run, n=0, greedy=True, limit=QUESTIONS, reporter=reporter)
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert found["arithmetic"].greedy.value == last["eval/greedy_accuracy"]
    ends = (found["arithmetic"].greedy.low, found["arithmetic"].greedy.high)
    assert ends == (last["eval/greedy_accuracy_low"], last["eval/greedy_accuracy_high"])
    folder = run / "checkpoints" / "step-000004"
    assert reporter.notes == [f"evaluating {folder} (newest); the run also has step-000002: --checkpoint"]
    assert [model["name"] for model in found.models] == [str(folder)]
    assert found["arithmetic"].sampling[0]["max_tokens"] == 24, "as in the run"


def test_two_checkpoints_are_compared(run: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{step}.parquet" for step in (2, 4)]
    for step, file in zip((2, 4), files, strict=True):
        evaluated(file, run, checkpoint=step)
    result = rlvr.compare(*files)
    assert isinstance(result, rlvr.PolicyComparison)
    (found,) = result.differences
    assert (found.dataset, found.verifier, found.main.questions) == ("arithmetic", "math", 6)
    accuracies = [rlvr.evaluation_of(file)["arithmetic"].accuracy.value for file in files]
    assert [found.main.a, found.main.b] == accuracies
    assert result.notes == ()


def test_a_checkpoint_by_number_and_by_its_folder(run: Path, tmp_path: Path) -> None:
    by_number = evaluated(tmp_path / "a.parquet", run, checkpoint=2, limit=3)
    by_folder = evaluated(tmp_path / "b.parquet", run / "checkpoints" / "step-000002", limit=3)
    assert by_number.models == by_folder.models
    assert lines(tmp_path / "a.parquet") == lines(tmp_path / "b.parquet")
    with pytest.raises(RequestError, match="no best checkpoint"):
        evaluated(tmp_path / "c.parquet", run, checkpoint="best")
    with pytest.raises(ConfigError, match="checkpoint 2: embedded is no run directory"):
        evaluated(tmp_path / "c.parquet", checkpoint=2)


def test_the_same_call_goes_on_where_an_interrupted_one_stopped(tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.parquet", tmp_path / "e.parquet"
    evaluated(whole)
    with pytest.raises(KeyboardInterrupt):
        evaluated(out, reporter=StopAfter(1))
    assert not out.exists()
    (part,) = sorted((tmp_path / "e.parquet.partial").glob("*.parquet"))
    kept = part.read_bytes()
    with pytest.raises(RequestError, match=r"holds the beginning of another request \(other datasets\)"):
        evaluated(out, temperature=0.5)
    shutil.copytree(tmp_path / "e.parquet.partial", tmp_path / "copy")
    evaluated(out)
    assert (tmp_path / "copy" / part.name).read_bytes() == kept
    assert lines(out) == lines(whole)
    assert len({each.run_id for each in read_rollouts(out)}) == 1
    assert not (tmp_path / "e.parquet.partial").exists()
    with pytest.raises(RequestError, match="exists: name another file, or replace it with --force"):
        evaluated(out)


def test_a_kill_between_the_last_file_and_the_end_costs_nothing(tmp_path: Path) -> None:
    """OUT is complete, its parts are still there, and a torn file is beside them."""
    out, partial = tmp_path / "e.parquet", tmp_path / "e.parquet.partial"
    with pytest.raises(KeyboardInterrupt):
        evaluated(out, reporter=StopAfter(2))
    shutil.copytree(partial, tmp_path / "kept")
    found = evaluated(out)
    before = lines(out)
    (tmp_path / "kept").rename(partial)
    (partial / ".000001.parquet.0.tmp").write_bytes(b"PAR1")
    assert evaluated(out) == found
    assert lines(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["e.parquet"]


GROUP = """
import rlvr

@rlvr.verifier(name="grouped", version="1", needs_answer=False)
def grouped(rollouts) -> list[float]:
    return [float(len(rollouts))] * len(rollouts)
"""


def test_a_verifier_of_groups_gets_as_many_completions_as_it_needs(tmp_path: Path) -> None:
    (tmp_path / "grouped.py").write_text(GROUP)
    verifier = f"{tmp_path}/grouped.py:grouped"
    found = evaluated(tmp_path / "e.parquet", limit=2, greedy=True, verifier=verifier)["arithmetic"]
    assert (found.completions, found.figures["reward"].value, found.greedy.value) == (8, 2.0, 1.0)
    with pytest.raises(ConfigError, match="-n 1: verifier 'grouped' judges groups of at least 2 completions"):
        evaluated(tmp_path / "f.parquet", n=1, verifier=verifier)


def test_a_card_says_how_to_ask_and_the_request_goes_before_it(card: Path, sums: Path, tmp_path: Path) -> None:
    config = SMALL | {"dataset.data_files": [str(sums)]}
    found = evaluated(tmp_path / "a.parquet", datasets=card, n=None, config=config)
    (sampling,) = found["sums"].sampling
    assert [sampling[name] for name in ("temperature", "top_p", "max_tokens", "seed")] == [0.7, 0.9, 9, 5]
    assert found["sums"].n == 3
    assert {each.prompt for each in read_rollouts(tmp_path / "a.parquet")} == {f"{i + 10}+{i + 21}= " for i in range(4)}
    config |= {"sampling.max_tokens": 7, "dataset.options": {"plain": "{question}"}}
    found = evaluated(tmp_path / "b.parquet", datasets=card, n=1, temperature=1.0, seed=0, config=config)
    (sampling,) = found["sums"].sampling
    assert [sampling[name] for name in ("temperature", "top_p", "max_tokens", "seed")] == [1.0, 0.9, 7, 0]
    assert {each.prompt for each in read_rollouts(tmp_path / "b.parquet")} == {f"{i + 10}+{i + 21}=" for i in range(4)}


def test_several_data_sets_each_with_its_figures(sums: Path, tmp_path: Path) -> None:
    found = evaluated(tmp_path / "e.jsonl", datasets=["arithmetic", sums], limit=3, train_sets=sums)
    assert [own.dataset for own in found.sets] == ["arithmetic", "sums"]
    assert [len(own.questions) for own in found.sets] == [3, 3]
    first, second = (own.contamination for own in found.sets)
    assert not first.overlapping
    assert first.without == found["arithmetic"].accuracy
    assert (len(second.overlapping), second.without.value) == (3, None)
    with pytest.raises(RequestError, match="two data sets are called sums"):
        evaluated(tmp_path / "f.jsonl", datasets=[sums, sums])


def test_temperature_0_asks_once(tmp_path: Path) -> None:
    found = evaluated(tmp_path / "e.parquet", n=None, temperature=0, limit=3)["arithmetic"]
    assert (found.n, found.accuracy, found.greedy.questions, found.completions) == (0, None, 3, 3)
    with pytest.raises(ConfigError, match="at temperature 0 all completions of a question of arithmetic are equal"):
        evaluated(tmp_path / "f.parquet", n=2, temperature=0)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"n": 0}, "-n 0: nothing is asked; --greedy asks"),
        ({"n": -1}, "-n -1: expected"),
        ({"limit": 0}, "--limit 0: at least one"),
        ({"temperature": -1}, "sampling of arithmetic: temperature must be at least 0, not -1"),
        ({"temperature": math.nan}, "sampling of arithmetic: temperature must be"),
        ({"top_p": 0}, "sampling of arithmetic: top_p must be"),
        ({"max_tokens": 0}, "sampling of arithmetic: max_tokens must be"),
        ({"model": Path(__file__).parent}, "is neither a run"),
        ({"split": "train", "limit": None}, "arithmetic has no end: say how many questions to ask with --limit"),
        ({"config": {"verifier.rewards": {"timeout": 0}}}, "verifier.rewards is for training"),
        ({"config": {"dataset.mix": ["arithmetic"]}}, "dataset.mix is for training"),
        ({"train_sets": "arithmetic"}, "training set arithmetic has no end"),
        ({"train_sets": "no.jsonl"}, "no.jsonl"),
        ({"model": "no/such/model/at/all", "datasets": "arithmetic"}, "there is no directory"),
        ({"config": {"dataset.data_files": ["x"]}, "datasets": ["a", "b"]}, "data files are those of one data set"),
    ],
)
def test_wrong_requests_are_refused_before_anything_is_written(
    tmp_path: Path, wrong: dict[str, Any], told: str
) -> None:
    with pytest.raises(RequestError, match=told):
        evaluated(tmp_path / "e.parquet", **wrong)
    assert not list(tmp_path.iterdir())


def test_the_command(cli: Callable[..., Any], sums: Path, tmp_path: Path) -> None:
    asked = ["eval", "embedded", "--dataset", f"arithmetic,{sums}", "-n", "2", "--limit", "2", "--greedy"]
    done = cli(*asked, "--out", "e.parquet", "--max-tokens", "20", "--set", "verifier.workers=0", "--device", "cpu")
    assert done.code == 0
    assert "data set     arithmetic (eval): 2 questions, 2 completions each and 1 greedy" in done.out
    assert "data set     sums (eval): 2 questions" in done.out
    assert "accuracy (avg@2)" in done.out
    again = cli("eval", "e.parquet")
    assert (again.code, again.out, again.err) == (0, done.out, "")
    further = ["--verifier", "math", "--train-set", sums, "-w", "task.split=eval", "-w", "task.dataset=arithmetic"]
    told = json.loads(cli("eval", "e.parquet", "--json", *further).out)
    assert [each["dataset"] for each in told["sets"]] == ["arithmetic"]
    assert told["sets"][0]["contamination"]["overlapping"] == {}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["embedded"], "name the file for completions and verdicts: --out FILE.parquet"),
        (
            ["embedded", "--out", "e.parquet", "--where", "a=1"],
            "--where is for recorded answers, and embedded is no file",
        ),
        (["e.parquet", "--limit", "3"], "--limit is for sampling, and e.parquet is a file of answers"),
        (["e.parquet"], "e.parquet"),
    ],
)
def test_the_command_refuses_in_one_line(cli: Callable[..., Any], arguments: list[str], told: str) -> None:
    done = cli("eval", *arguments)
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1)
    assert told in done.err


def test_a_scored_again_file_is_compared_by_the_named_verifier(tmp_path: Path) -> None:
    out, again = tmp_path / "e.parquet", tmp_path / "again.parquet"
    evaluated(out, limit=2)
    rlvr.score(out, "exact", out=again)
    with pytest.raises(RequestError, match=r"which verifier\? There are scores by exact \(4\), math \(4\)"):
        rlvr.evaluation_of(again)
    assert rlvr.evaluation_of(again, verifier="exact")["arithmetic"].verifier == "exact"
