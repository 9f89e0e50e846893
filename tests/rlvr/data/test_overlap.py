"""Overlap of questions with training questions."""

from __future__ import annotations

import pytest

from rlvr.data.overlap import overlaps, words_of

LONG = "A farmer sells 12 eggs a day at the market for 3 dollars each and keeps the rest."


def test_words_numbers_and_signs() -> None:
    assert words_of("What is  X_1+12.5?") == ["what", "is", "x_1", "+", "12", ".", "5", "?"]


def test_the_same_question_overlaps_whatever_its_case_and_white_space() -> None:
    assert overlaps([LONG, "2+2="], [LONG.upper().replace(" ", "\n"), "2 + 2 ="]) == [1.0, 1.0]
    assert overlaps([LONG, "2+2="], ["2+3=", "Another question."]) == [0.0, 0.0]


def test_a_short_question_is_not_looked_for_inside_others() -> None:
    assert overlaps(["2+2="], ["12+2+2="]) == [0.0]


def test_the_share_of_words_that_stand_in_a_shared_sequence() -> None:
    words = LONG.split()
    other = " ".join(words[:14]) + " and gives the rest away to many other people."
    assert overlaps([LONG], [other]) == [pytest.approx(15 / 19)]  # and the `and` after it
    assert overlaps([LONG], [" ".join(words[:12])]) == [0.0], "twelve words are not enough"
    assert overlaps([LONG], [" ".join(words[:13]), " ".join(words[4:])]) == [1.0]


def test_nothing_overlaps_with_nothing() -> None:
    assert overlaps(["", "?"], ["", "!"]) == [0.0, 0.0]
    assert overlaps([], ["a"]) == []
