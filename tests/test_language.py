"""Docstrings read as sentences by themselves, spelling is American, and a class name means one thing."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHIPPED = ("rlvr", "trainers", "verifiers", "plugins", "datasets_cfg")
BESIDES = ("tests", "benchmarks", "examples", "docs")
FILES = [path for folder in SHIPPED for path in sorted((ROOT / folder).rglob("*.py"))]
CODE = [*FILES, *(path for folder in BESIDES for path in sorted((ROOT / folder).rglob("*.py")))]
PROSE = [*sorted(ROOT.glob("*.md")), *(p for f in (*SHIPPED, *BESIDES) for p in sorted((ROOT / f).rglob("*.md")))]

FRAGMENT = re.compile(
    r"(As|Else|For which|From|In which|Least|Of|Than|That|Then|What|Where|Which|Who|Whom|Whose|Without)\b"
)
"""Beginnings that leave a reader of an editor's hover without a subject: "Of the oldest token." """
PHRASE = re.compile(r"(By|With)\b")
"""Further such beginnings in shipped code. In tests, `With seed 0, …` and the like are conditions."""

BRITISH = re.compile(
    r"(?<![a-z])(labelled|unlabelled|signalled|modelled|learnt|spelt|whilst|licence|favourite|centred|judgement|artefact"
    r"|neighbour\w*|colour\w*|behavioural"
    r"|(?:categori|generali|initiali|maximi|minimi|normali|optimi|organi|penali|randomi|recogni|seriali|summari|utili)"
    r"s(?:e|ed|es|ing|ation))(?![a-z])",
    re.IGNORECASE,
)
OLD_NAMES = {"licence", "centred"}
"""Former names of settings and values, which messages and tests quote."""

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


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_begin_with_a_verb_or_a_noun_phrase(path: Path) -> None:
    patterns = (FRAGMENT, PHRASE) if path in FILES else (FRAGMENT,)
    found = [(line, text) for line, text in docstrings(path) if any(pattern.match(text) for pattern in patterns)]
    assert not [f"line {line}: {text.splitlines()[0]}" for line, text in found]


@pytest.mark.parametrize("path", [*CODE, *PROSE], ids=lambda path: str(path.relative_to(ROOT)))
def test_spelling_is_american(path: Path) -> None:
    if path != Path(__file__):
        words = (match[1].lower() for match in BRITISH.finditer(path.read_text(encoding="utf-8")))
        assert not set(words) - OLD_NAMES


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
    assert all(FRAGMENT.match(text) or PHRASE.match(text) for text in found)
    assert not FRAGMENT.match("Offset of a line.")


def test_the_check_finds_british_words() -> None:
    text = "test_a_neighbour_is_recognised: a labelled COLOUR; no premise, no promise, and no neighborhood"
    assert [match[1] for match in BRITISH.finditer(text)] == ["neighbour_is_recognised", "labelled", "COLOUR"]
