"""Several data sets as one: shares, order, and what they must agree about."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Any

import pytest

from rlvr.data.mixing import MixedDataset, MixedSource, parse_member
from rlvr.errors import ConfigError
from rlvr.protocols import Prompt, PromptSource
from rlvr.record.schema import Task


class Numbers(PromptSource):
    """`size` questions that are their numbers; endless without."""

    def __init__(self, name: str, size: int | None, **attributes: Any) -> None:
        self.name, self._size = name, size
        vars(self).update(attributes)

    @property
    def size(self) -> int | None:
        return self._size

    def __getitem__(self, index: int, /) -> Prompt:
        return Prompt(Task(dataset=self.name, row_id=str(index)), text=f"{self.name}{index}")


def mixed(*members: tuple[Numbers, float], seed: int = 0, limit: int | None = None) -> MixedSource:
    return MixedSource(
        [MixedDataset(source.name, weight, source) for source, weight in members], seed=seed, limit=limit
    )


def asked(source: MixedSource, n: int) -> list[str]:
    return [source[i].asked for i in range(n)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a:0.7", ("a", 0.7)), ("a", ("a", 1.0)), ("c:/x.jsonl:2", ("c:/x.jsonl", 2.0)), ("c:x", ("c:x", 1.0))],
)
def test_a_member_is_a_name_and_a_weight(text: str, expected: tuple[str, float]) -> None:
    assert parse_member(text) == expected


@pytest.mark.parametrize("text", ["a:0", "a:-1", "a:nan", "a:inf"])
def test_a_weight_is_above_0(text: str) -> None:
    with pytest.raises(ConfigError, match="the weight must be a number above 0"):
        parse_member(text)


def test_every_stretch_has_the_data_sets_in_proportion() -> None:
    source = mixed((Numbers("a", 50), 7), (Numbers("b", 30), 2), (Numbers("c", None), 1))
    names = [source[i].task.dataset for i in range(400)]
    for begin in range(0, 400, 20):
        counts = Counter(names[begin : begin + 20])
        assert all(abs(counts[name] - 20 * share) <= 1 for name, share in (("a", 0.7), ("b", 0.2), ("c", 0.1)))


def test_each_data_set_is_asked_whole_before_it_is_asked_again() -> None:
    own = [text for text in asked(mixed((Numbers("a", 10), 1), (Numbers("b", 5), 1)), 40) if text[0] == "a"]
    assert sorted(own[:10]) == sorted(own[10:20]) == sorted(f"a{i}" for i in range(10))
    assert own[:10] != own[10:20]


def test_a_position_alone_says_which_prompt_it_is() -> None:
    members = ((Numbers("a", 10), 3), (Numbers("b", 5), 2))
    whole = asked(mixed(*members), 60)
    assert mixed(*members)[47].asked == whole[47]
    assert asked(mixed(*members, seed=1), 60) != whole


def test_a_limit_is_that_of_each_data_set() -> None:
    source = mixed((Numbers("a", 10), 1), (Numbers("b", None), 1), limit=3)
    assert set(asked(source, 40)) == {f"{name}{i}" for name in "ab" for i in range(3)}
    assert list(source.questions()) == ["a0", "a1", "a2"]
    assert list(islice(mixed((Numbers("a", 2), 1)).questions(), 5)) == ["a0", "a1"]


def test_data_sets_with_other_stop_strings_are_refused() -> None:
    with pytest.raises(ConfigError, match="end completions at different strings"):
        mixed((Numbers("a", 2, stop=("\n",)), 1), (Numbers("b", 2), 1))


def test_a_verifier_that_all_have_is_the_default() -> None:
    same = mixed((Numbers("a", 2, default_verifier="x"), 1), (Numbers("b", 2, default_verifier="x"), 1))
    assert (same.default_verifier, same.verifiers_differ) == ("x", False)
    other = mixed((Numbers("a", 2, default_verifier="x"), 1), (Numbers("b", 2, default_verifier="y"), 1))
    assert (other.default_verifier, other.verifiers_differ) == (None, True)
