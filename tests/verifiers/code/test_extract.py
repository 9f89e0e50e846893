"""The program of a completion, and the comparison of outputs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_verifiers.code.extract import LONGEST, program_of
from rlvr_verifiers.code.outputs import same_output


@pytest.mark.parametrize(
    ("completion", "source"),
    [
        ("```python\nx = 1\n```", "x = 1\n"),
        ("```py\nx = 1\n```\n", "x = 1\n"),
        ("```Python3\nx = 1\n```", "x = 1\n"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("~~~python\nx = 1\n~~~", "x = 1\n"),
        ("````python\nx = '''\n```\n'''\n````", "x = '''\n```\n'''\n"),
        ("a\n```python\nx = 1\n```\nb\n```python\nx = 2\n```\nc", "x = 2\n"),
        ("```python\nx = 1\n```\n```bash\nls\n```", "x = 1\n"),
        ("```python\nx = 1\n```\n```bash\nls", "x = 1\n"),
        ("```python\nx = 1\n```\n```python\n\n```", "x = 1\n"),
        ("1. So:\n   ```python\n   x = 1\n   ```", "   x = 1\n"),
        ("<think>```python\nx = 1\n```</think>\n```python\nx = 2\n```", "x = 2\n"),
        ('```python title="a.py"\nx = 1\n```', "x = 1\n"),
        ("    return 1\n", "    return 1\n"),
        ("a `code` span", "a `code` span"),
    ],
)
def test_the_last_block_of_python_is_the_program(completion: str, source: str) -> None:
    found = program_of(completion)
    assert (found.source, found.reason) == (source, "")
    assert found.fenced is ("```" in completion or "~~~" in completion)


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ("", "no program after the thinking"),
        ("<think>```python\nx\n```</think>", "no program after the thinking"),
        ("<think>```python\nx\n```", "the thinking never ends"),
        ("```python\nx = 1", "a block of code that is never closed"),
        ("```python\nx = 1\n```\n```python\nx = 2", "a block of code that is never closed"),
        ("```cpp\nint x;\n```", "no block of Python"),
        ("```python\n\n```", "no block of Python"),
        ("```python\n" + "x" * LONGEST + "\n```", "a program of 200,001 characters: at most 200,000 are run"),
    ],
)
def test_a_completion_without_a_program_says_why(completion: str, reason: str) -> None:
    assert program_of(completion).reason == reason


@pytest.mark.parametrize("middle", [" ", "\t", "a", "-", "`", "~", "\n```", "```python\n"])
def test_long_fences_take_linear_time(middle: str) -> None:
    many = middle * (10**6 // len(middle))
    for completion in (f"```{many}`", f"```{many}\n`", f"{many}```", f"```python\n{many}"):
        assert program_of(completion).reason or program_of(completion).source


@given(st.text(st.sampled_from("`~\n python<think>/x"), max_size=60))
def test_any_text_has_a_program_or_a_reason(text: str) -> None:
    found = program_of(text)
    assert bool(found.source.strip()) is not bool(found.reason)


@pytest.mark.parametrize(
    ("printed", "expected", "lines", "tokens", "exact"),
    [
        ("1 2\n", "1 2\n", True, True, True),
        ("1 2", "1 2\n", True, True, False),
        ("1  2 \n\n", "1 2\n", True, True, False),
        ("\n1 2", "1 2", True, True, False),
        ("1\n2", "1 2", False, True, False),
        ("1\n\n2", "1\n2", False, True, False),
        ("0.5", "0.50", True, True, False),
        ("0.3333333", "0.333333", True, True, False),
        ("0.334", "0.333", False, False, False),
        ("1e-7", "0.0", True, True, False),
        ("2", "2.0", True, True, False),
        ("2.0", "2", False, False, False),
        ("1000000.5", "1000000.0", True, True, False),
        ("1000000", "1000001", False, False, False),
        ("nan", "nan", True, True, True),
        ("inf", "1.0", False, False, False),
        ("1e999", "1.0", False, False, False),
        ("0x1.8", "1.5", False, False, False),
        ("Yes", "YES", False, False, False),
        ("", "1", False, False, False),
        ("", "", True, True, True),
        ("1 1", "1", False, False, False),
    ],
)
def test_outputs_are_compared_in_three_ways(
    printed: str, expected: str, lines: bool, tokens: bool, exact: bool
) -> None:
    assert same_output(printed, expected, "lines", 1e-6) is lines
    assert same_output(printed, expected, "tokens", 1e-6) is tokens
    assert same_output(printed, expected, "exact", 1e-6) is exact


def test_without_tolerance_numbers_must_have_the_same_value() -> None:
    assert same_output("0.50", "0.5", "lines", 0)
    assert not same_output("0.5000001", "0.5", "lines", 0)
