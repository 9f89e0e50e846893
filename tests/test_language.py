"""Docstrings read as sentences by themselves, and a class name means one thing."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHIPPED = ("rlvr", "trainers", "verifiers", "plugins", "datasets_cfg")
FILES = [path for folder in SHIPPED for path in sorted((ROOT / folder).rglob("*.py"))]

FRAGMENT = re.compile(r"(As|By|For which|From|In which|Of|Than|That|Then|What|Where|Which|Who|Whom|Whose|With)\b")
"""Beginnings that leave a reader of an editor's hover without a subject: "Of the oldest token." """


UNFINISHED: set[str] = set()
"""Files that still have such beginnings. This list only shrinks."""

SHARED_CLASS_NAMES: set[str] = set()
"""Class names that still mean several things. This list only shrinks."""


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring, including those that stand below an attribute."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        described = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        for statement in body:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and described:
                yield statement.lineno, str(statement.value.value).strip()
            described = isinstance(statement, ast.Assign | ast.AnnAssign)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_begin_with_a_verb_or_a_noun_phrase(path: Path) -> None:
    if str(path.relative_to(ROOT)) not in UNFINISHED:
        found = [f"line {line}: {text.splitlines()[0]}" for line, text in docstrings(path) if FRAGMENT.match(text)]
        assert not found


def test_a_class_name_means_one_thing() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not {name: found for name, found in places.items() if len(found) > 1 and name not in SHARED_CLASS_NAMES}


def test_the_check_finds_fragments(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        '''"""Of a module."""
class A:
    """With a class."""
    x = 1
    """Than an attribute."""
    def f(self):
        """As a function does."""
        return "Of no docstring"
'''
    )
    found = [text for _, text in docstrings(path)]
    assert found == ["Of a module.", "With a class.", "Than an attribute.", "As a function does."]
    assert all(map(FRAGMENT.match, found))
    assert not FRAGMENT.match("Offset of a line.")
