"""Gold answers from the published columns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.data.gold_extraction import after_hashes, last_boxed


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("She has 9 * 2 = $<<9*2=18>>18.\n#### 18", "18"),
        ("x #### 1\n#### -1,234.5 ", "-1234.5"),
        ("#### 1,000,000", "1000000"),
        ("#### $2,125", "$2125"),
        ("#### 0.10", "0.10"),
        ("#### (1,2)", "(1,2)"),
        ("#### 1,2", "1,2"),
        ("#### 12,34,567", "12,34,567"),
        ("#### 1,0000", "1,0000"),
        ("####", ""),
        ("no", None),
    ],
)
def test_after_hashes(text: str, gold: str | None) -> None:
    assert after_hashes(text) == gold


@given(st.integers())
def test_commas_of_thousands_are_only_spelling(number: int) -> None:
    assert after_hashes(f"work\n#### {number:,}") == str(number)


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        (r"a \boxed{1} b \boxed{2}", "2"),
        (r"\boxed{\frac{1}{\sqrt{2}}}.", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\{1\}}", r"\{1\}"),
        (r"\boxed{\left\{ x \right\}}", r"\left\{ x \right\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"\boxed{a\\{b}}", r"a\\{b}"),
        ("\\boxed {3}", "3"),
        (r"\fbox{7}", "7"),
        (r"\boxed{1}, or \fbox{7}", "7"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"$\boxed 5$", "5"),
        (r"$\boxed5$, so the answer is 5.", "5"),
        (r"\(\boxed 25\text{ cm}\) is long", r"25\text{ cm}"),
        (r"\boxed\frac{1}{2}", r"\frac{1}{2}"),
        (r"\boxed{}", ""),
        (r"\boxed{1", None),
        (r"\fbox{1} but \boxed{2", None),
        (r"\boxedtext{1}", None),
        ("nothing", None),
    ],
)
def test_the_last_box(text: str, gold: str | None) -> None:
    assert last_boxed(text) == gold


def balanced() -> st.SearchStrategy[str]:
    leaf = st.text("ab1 ,^_", max_size=4) | st.sampled_from([r"\{", r"\}", r"\frac", r"\\"])
    return st.recursive(leaf, lambda inner: st.lists(inner.map("{{{}}}".format) | leaf, max_size=3).map("".join))


@given(balanced())
def test_whatever_stands_in_a_box_comes_out(content: str) -> None:
    assert last_boxed(rf"So \boxed{{1}} is wrong: $\boxed{{{content}}}$.") == content.strip()
