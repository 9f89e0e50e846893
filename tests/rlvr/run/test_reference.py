"""The settings reference says every key, its default and what it means."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlvr.errors import ConfigError
from rlvr.run.config import RunConfig, resolve, to_yaml
from rlvr.run.reference import REQUIRED, SettingDoc, settings_reference, table
from rlvr.settings import command_line_settings
from rlvr.verify.verifying import load_options, load_verifier

DOCUMENT = Path(__file__).parents[3] / "docs" / "settings.md"


@pytest.fixture(scope="module")
def everything() -> tuple[SettingDoc, ...]:
    return settings_reference(distribution="rlvr").settings


def leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value of nested mappings."""
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        key: leaf for name, each in value.items() for key, leaf in leaves(each, f"{prefix}.{name}".lstrip(".")).items()
    }


def test_the_document_is_current() -> None:
    assert "\n".join(table()) in DOCUMENT.read_text(encoding="utf-8"), "python docs/refresh.py docs/settings.md"


def test_every_setting_has_a_meaning_and_its_values(everything: tuple[SettingDoc, ...]) -> None:
    assert [doc.key for doc in everything if not (doc.meaning and doc.values)] == []


def test_every_key_of_a_resolved_configuration_is_listed(everything: tuple[SettingDoc, ...]) -> None:
    documented = {doc.key: doc.default for doc in everything}
    defaults = leaves(yaml.safe_load(to_yaml(RunConfig())))
    for key, value in defaults.items():
        listed = next((k for k in documented if k == key or key.startswith(f"{k}.")), None)
        assert listed is not None, key
        if listed == key:
            assert documented[key] == value, key


def test_the_defaults_are_those_that_a_run_takes(everything: tuple[SettingDoc, ...]) -> None:
    """Every default, given as text as `--set` takes it, leaves the configuration as it is."""
    absent = ("dataset.options.", "dataset.curriculum.", "trainer.lora.", "eval.sets.NAME.")
    shared = [doc for doc in everything if not doc.taken_by and not doc.key.startswith(absent)]
    sets = [f"{doc.key}={doc.default_text}" for doc in shared if doc.default != REQUIRED]
    given = command_line_settings([*(each for each in sets if not each.startswith(("model.", "dataset.name")))], {})
    config = resolve(given)
    assert config.model_copy(update={"trainer": RunConfig().trainer}) == RunConfig(
        model=config.model, dataset=config.dataset
    )
    assert len(sets) > 80


def test_options_that_only_one_trainer_has_say_so(everything: tuple[SettingDoc, ...]) -> None:
    found = {doc.key: doc for doc in everything}
    assert found["trainer.push_every"].taken_by == ("grpo-off",)
    assert found["trainer.lr"].taken_by == ()
    assert found["sampling.options.max_batch_tokens"].taken_by == ("hf",)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("trainer.lr", "number > 0"),
        ("rollouts.share", "number > 0, ≤ 1"),
        ("sampling.group_size", "integer ≥ 2"),
        ("dataset.limit", "integer ≥ 1 or null"),
        ("model.dtype", "auto, float32, bfloat16"),
        ("trainer.betas", "list: number ≥ 0, < 1, number ≥ 0, < 1"),
        ("rollouts.files", "list of path"),
        ("trainer.lora", "section or null"),
        ("verifier.rewards", "mapping"),
    ],
)
def test_values_are_said_in_words(everything: tuple[SettingDoc, ...], key: str, values: str) -> None:
    assert next(doc for doc in everything if doc.key == key).values == values


def test_a_section_is_listed_alone() -> None:
    keys = [doc.key for doc in settings_reference("trainer.lora").settings]
    assert keys == ["trainer.lora", "trainer.lora.rank", "trainer.lora.alpha", "trainer.lora.targets"]
    assert [doc.key for doc in settings_reference("steps").settings] == ["steps"]


@pytest.mark.parametrize("section", ["trainr", "trainer.l", "sampling.option"])
def test_a_section_that_there_is_not_names_the_nearest(section: str) -> None:
    with pytest.raises(ConfigError, match=rf"there is no section or key '{section}'; did you mean '\w+"):
        settings_reference(section)


def test_a_section_like_no_other_is_told_the_sections() -> None:
    with pytest.raises(ConfigError, match=r"no section or key 'qqq'; sections: top level, model, dataset, [\w., ]+$"):
        settings_reference("qqq")


# --- options of a verifier ------------------------------------------------------------------------------------------

VERIFIER = '''
def check(completion, task, *, limit: int, strict: bool = False, other=(1, 2)):
    """Return True.

    Args:
        completion: Text.
        limit: Largest length,
            in characters.
        strict: Whether to be strict.

    Raises:
        other: not an argument.
    """
    return True
'''


def test_a_verifiers_options_are_its_parameters_and_their_docstring(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(VERIFIER)
    limit, strict, other = load_options(f"{tmp_path}/mine.py:check")
    assert (limit.name, limit.annotation, limit.required) == ("limit", int, True)
    assert limit.meaning == "Largest length, in characters"
    assert (strict.default, strict.meaning) == (False, "Whether to be strict")
    assert (other.default, other.meaning) == ((1, 2), "")


@pytest.mark.parametrize("name", ["math", "math-verify"])
def test_a_built_in_verifier_says_what_each_option_means(name: str) -> None:
    options = load_options(name)
    assert {option.name: option.default for option in options} == load_verifier(name).config
    assert [option.name for option in options if not option.meaning] == []


def test_the_command_prints_and_the_document_names_it(cli: Any) -> None:
    done = cli("settings", "checkpoint")
    assert (done.code, done.err) == (0, "")
    assert re.findall(r"^checkpoint\.(\w+) +(\d+) ", done.out, flags=re.MULTILINE) == [("every", "50"), ("keep", "2")]
    assert "rlvr settings" in DOCUMENT.read_text(encoding="utf-8")
    done = cli("settings", "checkpoints")
    assert (done.code, done.out) == (2, "")


def rows_of(page: str) -> list[list[str]]:
    """Return the cells of the first table of a page of docs/, without its head."""
    text = (DOCUMENT.parent / page).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


def test_every_setting_of_the_table_of_other_frameworks_exists(everything: tuple[SettingDoc, ...]) -> None:
    keys = {doc.key for doc in everything}
    keys |= {key.rpartition(".NAME.")[0] for key in keys if ".NAME." in key}
    rows = rows_of("coming_from.md")
    assert len(rows) > 25
    for row in rows:
        assert len(row) == 4, row
        named = re.findall(r"`([^`]+)`", row[3])
        assert named, row
        assert set(named) <= keys, row
