"""The verifier does what its README says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import rlvr_verifiers.math
from rlvr import Task
from rlvr_verifiers.math import check

README = (Path(rlvr_verifiers.math.__file__).parent / "README.md").read_text("utf-8")
CELL = re.compile(r"`([^`]+)`")


def table(heading: str) -> list[list[str]]:
    section = README.split(f"## {heading}")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def right(gold: str, answer: str, **options: Any) -> bool:
    return check(f"\\boxed{{{answer}}}", Task(answer=gold), **options).reward == 1.0


def code(cell: str) -> str:
    found = CELL.search(cell)
    assert found, cell
    return found[1]


@pytest.mark.parametrize("row", table("Conventions and options"), ids=lambda row: " ".join(row[:2]))
def test_conventions(row: list[str]) -> None:
    gold, answer, default, option = code(row[0]), code(row[1]), row[2], row[3].strip("` |")
    assert right(gold, answer) is (default == "right")
    if option:
        name, _, value = option.partition("=")
        parsed = {"True": True, "False": False, "0": 0.0}.get(value, value.strip('"'))
        assert right(gold, answer, **{name: parsed}) is (default == "wrong")


@pytest.mark.parametrize("row", table("Wrong answers"), ids=lambda row: " ".join(row[:2]))
def test_refusals(row: list[str]) -> None:
    assert not right(code(row[0]), code(row[1]))
