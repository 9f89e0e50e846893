"""`rlvr recipes` on the command line, and each recipe's own description."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlvr.registry import registry
from rlvr.run.config import read_recipe

Cli = Callable[..., Any]
RECIPES = [entry.name for entry in registry().entries("recipe")]
NAMED = {
    *("paper-v10-i1", "paper-v1-i10", "paper-v1-i1", "dapo", "dr-grpo", "gspo", "cispo", "m2po", "dppo-tv"),
    *("decoupled-ppo", "topr", "opmd"),
}


def test_the_list_has_a_line_for_each(cli: Cli) -> None:
    code, out, _ = cli("recipes")
    assert code == 0
    assert {line.split()[0] for line in out.splitlines()[1:]} == set(RECIPES) >= NAMED


@pytest.mark.parametrize("name", RECIPES)
def test_show_prints_formula_source_composition_and_settings(name: str, cli: Cli) -> None:
    code, out, err = cli("recipes", "show", name)
    assert code == 0, err
    recipe, settings = read_recipe(name)
    assert recipe.title in out
    assert recipe.source in out
    assert all(line in out for line in recipe.formula.splitlines())
    assert all(note in out for note in recipe.notes)
    for key, setting in settings.items():
        assert f"  {key}: {setting.value}" in out
        axis = key.removeprefix("trainer.")
        if axis in ("ratio", "center", "band", "surrogate", "advantage", "aggregation"):
            assert f"  {axis} " in out
            assert f" {setting.value} " in out


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_leaves_alone_what_depends_on_the_model(name: str) -> None:
    _, settings = read_recipe(name)
    tied = {"trainer.lr", "trainer.max_tokens", "trainer.micro_batch_tokens", "steps"}
    assert not settings.keys() & tied
    assert {key.partition(".")[0] for key in settings} <= {"trainer", "sampling"}
    assert not {
        key for key in settings if key.startswith("sampling.") and key not in ("sampling.refill", "sampling.keep_topk")
    }


def test_the_recipe_of_the_document_is_one(tmp_path: Path, cli: Cli) -> None:
    page = (Path(__file__).parents[3] / "docs" / "recipes.md").read_text()
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    (tmp_path / "mine.yaml").write_text(text)
    code, out, err = cli("recipes", "show", str(tmp_path / "mine.yaml"))
    assert code == 0, err
    assert "c = clip(w, lo, hi); w = π_k/α of the token, [lo, hi] = [0, 2] (TIS" in out
    assert "denominator         iterate " in out
    assert "the band is around the policy that sampled" not in out


def test_a_dry_run_says_what_a_constant_aggregation_divides_by(cli: Cli) -> None:
    code, out, err = cli("train", "--recipe", "dr-grpo", "--dry-run", "--max-tokens", "20")
    assert code == 0, err
    assert "note: trainer.aggregation=constant divides by 20 tokens a rollout, the run's sampling.max_tokens" in out


def test_parts_name_everything_that_an_option_may_say(cli: Cli) -> None:
    code, out, _ = cli("recipes", "parts")
    assert code == 0
    rows = [line.split(maxsplit=2) for line in out.splitlines()[1:]]
    assert all(len(row) == 3 for row in rows), "each with a line of what it stands for"
    assert {"surrogate", "ratio", "center", "band", "correction", "kl", "masks", "advantage"} < {row[0] for row in rows}
    said = {(axis, name): what for axis, name, what in rows}
    assert {"behavior", "iterate", "all", "kept", "true", "false"} < {name for _, name in said}
    for name in ("tis", "mis", "icepop", "sequence_tis", "sequence_mis", "geo_rs"):
        assert re.search(r"c = .*; w = .*, \[lo, hi\] = \[.*\] \(.* as in ", said["correction", name])
    assert "at v = 50 it rejects nearly everything" in said["correction", "geo_rs"]


@pytest.mark.parametrize(
    "arguments", [["recipes"], ["recipes", "show", "gspo"], ["recipes", "parts"], ["recipes", "show", "gsop"]]
)
def test_what_only_prints_text_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom rlvr.cli import main\n"
        f"sys.argv = ['rlvr', *{arguments!r}]\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recipes", "show", "gsop"], "there is no recipe 'gsop'; did you mean 'gspo'?"),
        (["train", "--recipe", "gsop"], "there is no recipe 'gsop'; did you mean 'gspo'?"),
        (["recipes", "show", "nowhere.yaml"], "cannot read nowhere.yaml: No such file or directory"),
        (
            ["train", "--recipe", "gspo", "--set", "recipe=dapo"],
            "recipe is given twice: by --recipe and by --set recipe",
        ),
        (
            ["train", "--recipe", "gspo", "--set", "trainer.surrogate=topr"],
            "trainer.surrogate=topr needs ratio=sequence: it is not defined for any other",
        ),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_code_2(arguments: list[str], message: str, cli: Cli) -> None:
    code, _, err = cli(*arguments)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1
