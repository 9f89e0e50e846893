"""Rollouts that a page shows: which, and what of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from report_runs import make_run, metrics, rollout, score
from rlvr.reports.browsing import BUDGET, Budget, Shown, browsed, choose, outcome
from rlvr.reports.observations import Observations, Observer
from rlvr.reports.sources import ReportSource, read_sources


def read(run: Path) -> tuple[ReportSource, Observations]:
    (source,) = read_sources([run])
    return source, Observer().read(source)


def shown(run: Path, budget: Budget = BUDGET, **more: Any) -> Shown:
    source, found = read(run)
    return browsed([source], [found], budget, **more)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    batches = [
        [
            rollout(f"g{step}", 0, "right", score("math", 1.0, config={"digits": 3}, reason="equal", extracted="4")),
            rollout(f"g{step}", 1, "wrong", score("math", 0.0), score("other", 1.0)),
        ]
        for step in range(4)
    ]
    batches[2] = [rollout("g2", i, "right", score("math", 1.0)) for i in (0, 1)]
    return make_run(tmp_path / "run", [metrics(i) for i in range(4)], batches)


def test_everything_is_shown_if_there_is_room(run: Path) -> None:
    found = shown(run)
    assert (found.total, found.count, found.total_groups, found.with_tokens) == (8, 8, 4, 8)
    rows = found.rows
    assert rows["status"][:2] == ["right", "wrong"]
    assert rows["advantage"][:2] == [1.0, -1.0]
    assert rows["advantage"][4:6] == [0.0, 0.0]  # no signal in the group
    assert (rows["flip"][:2], rows["step"][:3], rows["lag"][2]) == ([False, True], [1, 1, 2], 1)
    assert found.groups["prompt"][0] == "prompt of g0"
    assert [each["options"] for each in found.verifiers] == ['{"digits":3}', "{}", "{}"]
    assert rows["scores"][0] == [[0, "graded", 1.0, "4", "equal", None, None]]


def test_tokens_are_the_sampled_ones_with_their_log_probabilities(run: Path) -> None:
    found = shown(run)
    ids, milli, weights = found.chunks[found.rows["chunk"][0]]["rows"][0]
    assert (ids, milli, weights) == ([4, 5, 6, 7, 8], [100, 200, 500, 1000, 4000], None)  # thousandths of -log p
    assert found.without_text == ["run"]  # ids without a tokenizer have no text


@pytest.mark.parametrize(("letters", "texts"), [("?abcHelio", "Helio"), ("?abcWrong", "")])
def test_a_tokenizer_counts_only_if_it_gives_back_the_completions(tmp_path: Path, letters: str, texts: str) -> None:
    """The sampled ids are 4 to 8, the completion is `Helio`."""
    run = make_run(tmp_path / "run", [metrics(0)], [[rollout("g", 0, "Helio", score("math", 1.0))]])
    tokenizer = Tokenizer(models.WordLevel({letter: place for place, letter in enumerate(letters)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    checkpoint = run / "checkpoints" / "step-000001"
    checkpoint.mkdir(parents=True)
    tokenizer.save(str(checkpoint / "tokenizer.json"))
    found = shown(run)
    assert found.chunks[0]["texts"] == {f"0:{place}": letter for place, letter in enumerate(texts, start=4)}
    assert found.without_text == ([] if texts else ["run"])


def test_rare_outcomes_are_shown_before_common_ones(run: Path) -> None:
    _, found = read(run)
    groups = choose(found, Budget(rollouts=4))
    assert len(groups) == 2
    many = Observations("math", [each for group in found.groups() for each in group])
    assert {outcome(group) for group in many.groups()} == {"mixed", "right"}


def test_the_choice_depends_on_names_alone_and_keeps_groups_whole(run: Path) -> None:
    found = shown(run, Budget(rollouts=5))
    again = shown(run, Budget(rollouts=5))
    assert found.rows["id"] == again.rows["id"]
    assert (found.count, len(found.groups["id"])) == (4, 2)


def test_the_first_are_shown_whatever_the_budget_is(run: Path) -> None:
    found = shown(run, Budget(rollouts=0), first=[frozenset({"g3-1"})])
    assert found.rows["id"] == ["g3-0", "g3-1"]


def test_tokens_have_a_budget_of_their_own(run: Path) -> None:
    found = shown(run, Budget(tokens=12))
    assert (found.count, found.with_tokens) == (8, 2)
    assert sum(chunk is None for chunk in found.rows["chunk"]) == 6
