"""Math-Verify itself, through the pool: its answers, and its hangs, which cost one verdict."""

from __future__ import annotations

import pytest

from rlvr import Status, Task
from rlvr.record.item import Item
from rlvr.verify.scoring import Scorer


@pytest.fixture(scope="module")
def scorer():
    with Scorer("math-verify", workers=1, timeout=5.0) as scorer:
        yield scorer


def test_it_answers_as_the_library_does(scorer: Scorer) -> None:
    items = [
        Item(r"So \boxed{\frac{1}{2}}.", Task(answer="0.5")),
        Item(r"So \boxed{3}.", Task(answer="4")),
        Item("I do not know", Task(answer="4")),
        Item(r"\boxed{1/2^{99}}", Task(answer="1/2^{98}")),  # the library's own false positive: this is its verdict
    ]
    scores = list(scorer.score(items))
    assert [(score.status, score.reward) for score in scores] == [
        (Status.GRADED, 1.0),
        (Status.GRADED, 0.0),
        (Status.UNPARSED, None),
        (Status.GRADED, 1.0),
    ]
    assert {score.verifier for score in scores} == {"math-verify"}


def test_what_hangs_it_is_a_time_out_and_its_neighbors_are_right() -> None:
    hang = Item(r"\boxed{99999999^{99999999}}", Task(answer="1"))
    right = Item(r"\boxed{2}", Task(answer="2"))
    with Scorer("math-verify", workers=1, timeout=1.0) as scorer:
        scores = list(scorer.score([right, hang, right]))
    assert [score.status for score in scores] == [Status.GRADED, Status.TIMEOUT, Status.GRADED]
    assert scores[0].reward == scores[2].reward == 1.0


def test_options_reach_the_library() -> None:
    item = Item(r"\boxed{0.333}", Task(answer=r"\frac{1}{3}"))
    for rounding, reward in ((6, 0.0), (3, 1.0)):
        with Scorer("math-verify", {"float_rounding": rounding}, workers=0) as scorer:
            assert next(scorer.score([item])).reward == reward
