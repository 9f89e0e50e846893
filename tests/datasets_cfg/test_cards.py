"""Every card of the package is complete and documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rlvr.data.prompts import DatasetCard
from rlvr.registry import registry
from rlvr.settings import read_settings, validate

CARDS = sorted((Path(__file__).parents[2] / "datasets_cfg").glob("*.yaml"))


PINNED = {"gsm8k", "math", "math500", "deepscaler"}
"""Cards whose repository was read at a commit. The layouts of the others come from public code that reads them."""


def test_the_cards_are_there_and_registered() -> None:
    names = {path.stem for path in CARDS}
    assert names >= PINNED
    assert len(names) == 29
    assert names <= {entry.name for entry in registry().entries("prompt_source")}


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_a_card_says_all_that_a_user_must_know(path: Path) -> None:
    card = validate(DatasetCard, read_settings(path, named=()))
    for field in ("hub", "splits", "question", "answer", "license", "source"):
        assert getattr(card, field), field
    assert card.rows.keys() <= card.splits.keys()
    if card.verifier in ("math", "choice") and path.stem != "dapo":  # its prompts hold their own instructions
        assert "\\boxed{}" in card.plain
        assert card.system
    assert bool(card.revision) is (path.stem in PINNED)
    if card.revision:
        assert re.fullmatch("[0-9a-f]{40}", card.revision), "a branch moves: pin the commit whose layout was checked"
    assert path.read_text().startswith("# ")
    assert card.verifier in {entry.name for entry in registry().entries("verifier")}
    documented = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text()
    assert re.search(rf"^{path.stem} .* {card.hub}$", documented, re.MULTILINE), "docs/refresh.py docs/datasets.md"
