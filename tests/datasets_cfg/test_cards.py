"""Every card of the package is complete and documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rlvr.data.prompts import DatasetCard
from rlvr.registry import registry
from rlvr.settings import read_settings, validate

CARDS = sorted((Path(__file__).parents[2] / "datasets_cfg").glob("*.yaml"))


def test_the_four_are_there_and_registered() -> None:
    names = {path.stem for path in CARDS}
    assert {"gsm8k", "math", "math500", "deepscaler"} <= names
    assert names <= {entry.name for entry in registry().entries("prompt_source")}


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_a_card_says_all_that_a_user_must_know(path: Path) -> None:
    card = validate(DatasetCard, read_settings(path, named=()))
    for field in ("hub", "revision", "splits", "question", "answer", "license", "source", "system"):
        assert getattr(card, field), field
    assert "\\boxed{}" in card.plain
    assert re.fullmatch("[0-9a-f]{40}", card.revision or ""), "a branch moves: pin the commit whose layout was checked"
    assert path.read_text().startswith("# ")
    assert card.verifier in {entry.name for entry in registry().entries("verifier")}
    documented = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text()
    assert f"`{path.stem}`" in documented
    assert f"{card.hub}" in documented
