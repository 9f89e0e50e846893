"""Plugins as they arrive: distributions on disk, with metadata, some of them broken."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from rlvr import hookspecs
from rlvr.errors import PluginError
from rlvr.registry import KINDS, Entry, Registry, registry

Install = Callable[..., Path]

VERIFIER = """
    import rlvr

    @rlvr.hookimpl
    def rlvr_verifiers():
        return {"polite": "polite_checks:check"}
"""


def test_every_hook_is_a_kind_and_has_a_line_of_documentation() -> None:
    hooks = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("rlvr_")}
    assert sorted(KINDS.values()) == sorted(hooks)
    assert all(inspect.getdoc(hook) for hook in hooks.values())


def test_hookspecs_fit_on_one_screen() -> None:
    assert len(inspect.getsource(hookspecs).splitlines()) <= 60


def test_built_ins_come_from_rlvr_at_the_installed_version() -> None:
    built_in = {(entry.kind, entry.name): entry for entry in registry().entries() if entry.distribution == "rlvr"}
    assert {("verifier", "math"), ("trainer", "grpo"), ("trainer", "grpo-off"), ("sampler", "hf")} <= set(built_in)
    assert {entry.version for entry in built_in.values()} == {version("rlvr")}


def test_a_plugin_is_found_and_loaded_when_first_used(install: Install) -> None:
    install("rlvr-polite", "polite = polite_plugin", polite_plugin=VERIFIER, polite_checks="check = print")
    found = Registry().entry("verifier", "polite")
    assert found == Entry("verifier", "polite", "polite_checks:check", "rlvr-polite", "1.0")
    assert found.load() is print


def test_entries_are_sorted_and_can_be_had_by_kind(install: Install) -> None:
    install("rlvr-polite", "polite = polite_plugin", polite_plugin=VERIFIER)
    everything = Registry().entries()
    assert [(entry.kind, entry.name) for entry in everything] == sorted(
        (entry.kind, entry.name) for entry in everything
    )
    assert Registry().entries("verifier") == [entry for entry in everything if entry.kind == "verifier"]


def test_two_distributions_that_offer_one_name(install: Install) -> None:
    install("rlvr-polite", "polite = polite_plugin", polite_plugin=VERIFIER)
    install("rlvr-rude", "rude = rude_plugin", version="2.1", rude_plugin=VERIFIER)
    found = Registry()
    message = r"verifier .polite. is offered by rlvr-polite 1\.0 and rlvr-rude 2\.1: remove one \(pip uninstall "
    with pytest.raises(PluginError, match=message):
        found.entry("verifier", "polite")
    assert [contested.error[:36] for contested in found.contested] == ["verifier 'polite' is offered by rlvr"]
    assert "polite" in found.names("verifier")
    assert "polite" not in {entry.name for entry in found.entries()}
    assert found.load("verifier", "math") is registry().load("verifier", "math")


def test_three_distributions_that_offer_one_name(install: Install) -> None:
    for name in ("one", "two", "three"):
        install(f"rlvr-{name}", f"{name} = {name}_plugin", **{f"{name}_plugin": VERIFIER})
    (contested,) = Registry().contested
    assert contested.problem == "verifier 'polite' is offered by rlvr-one 1.0, rlvr-three 1.0 and rlvr-two 1.0"


def test_a_plugin_cannot_take_a_built_in_name(install: Install) -> None:
    install("rlvr-polite", "a = polite_plugin", polite_plugin=VERIFIER.replace('"polite"', '"math"'))
    with pytest.raises(PluginError, match=r"verifier 'math' is offered by rlvr-polite 1\.0 and rlvr "):
        Registry().entry("verifier", "math")


def test_one_name_may_stand_for_two_kinds_of_thing(install: Install) -> None:
    both = (
        VERIFIER
        + """
    @rlvr.hookimpl
    def rlvr_prompt_sources():
        return {"polite": "polite_prompts:Source"}
    """
    )
    install("rlvr-polite", "polite = polite_plugin", polite_plugin=both)
    assert [entry.kind for entry in Registry().entries() if entry.name == "polite"] == ["prompt_source", "verifier"]


def test_two_distributions_with_one_entry_point(install: Install) -> None:
    install("rlvr-polite", "polite = polite_plugin", polite_plugin=VERIFIER)
    install("rlvr-rude", "polite = rude_plugin", rude_plugin=VERIFIER.replace('"polite"', '"rude"'))
    assert {"polite", "rude"} <= Registry().names("verifier")


def test_one_distribution_with_one_entry_point_twice(install: Install) -> None:
    install("rlvr-polite", "polite = polite_plugin\npolite = rude_plugin", polite_plugin=VERIFIER)
    found = Registry()
    assert found.entry("verifier", "polite").distribution == "rlvr-polite"
    assert [broken.error.split("Error")[0] for broken in found.broken] == [
        "plugin 'polite' of rlvr-polite 1.0 failed to load: ModuleNotFound"
    ]


def test_one_distribution_that_offers_one_name_twice(install: Install) -> None:
    install("rlvr-polite", "a = polite_plugin\nb = rude_plugin", polite_plugin=VERIFIER, rude_plugin=VERIFIER)
    with pytest.raises(
        PluginError,
        match=r"verifier 'polite' is offered by rlvr-polite 1\.0 twice: ask the author of rlvr-polite to rename one, ",
    ):
        Registry().entry("verifier", "polite")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def broken(:", "SyntaxError: "),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("x = 1", "ValueError: it implements no hook"),
        (
            VERIFIER.replace("rlvr_verifiers", "rlvr_verifers"),
            "there is no hook 'rlvr_verifers'; did you mean 'rlvr_ver",
        ),
        (VERIFIER.replace("rlvr_verifiers()", "rlvr_verifiers(names)"), "PluginValidationError: "),
    ],
    ids=["missing module", "syntax", "exit", "no hook", "misspelt hook", "unknown argument"],
)
def test_a_plugin_that_does_not_load_is_named_with_its_distribution(
    install: Install, source: str, message: str
) -> None:
    install("rlvr-polite", "polite = polite_plugin", polite_plugin=source)
    found = Registry()
    (broken,) = found.broken
    assert (broken.plugin, broken.distribution, broken.version) == ("polite", "rlvr-polite", "1.0")
    assert broken.error.startswith("plugin 'polite' of rlvr-polite 1.0 failed to load: ")
    assert message in broken.error
    assert "\n" not in broken.error
    assert found.entries() == [each for each in Registry().entries() if each.distribution != "rlvr-polite"]
    with pytest.raises(PluginError) as caught:
        found.entry("verifier", "polite")
    assert str(caught.value).startswith("there is no verifier 'polite'; ")
    assert str(caught.value).endswith(f"; or a broken plugin offers it: {broken.error}")
    assert found.load("verifier", "math") is registry().load("verifier", "math")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 1 / 0", "ZeroDivisionError: division by zero"),
        ("return ['polite']", "AttributeError: 'list' object has no attribute 'items'"),
        ("return {'polite': check}", "neither 'package.module:attribute' nor a pathlib.Path"),
        ("return {'polite': 'polite_checks.check'}", "'polite_checks.check' is neither"),
        ("return {'polite': 'polite_checks:'}", "'polite_checks:' is neither"),
    ],
)
def test_a_hook_that_returns_nonsense_is_named_with_its_distribution(install: Install, body: str, message: str) -> None:
    source = f"import rlvr\n\ncheck = print\n\n@rlvr.hookimpl\ndef rlvr_verifiers():\n    {body}\n"
    install("rlvr-polite", "polite = polite_plugin", polite_plugin=source)
    found = Registry()
    (broken,) = found.broken
    assert broken.error.startswith("rlvr_verifiers of rlvr-polite 1.0 failed: ")
    assert message in broken.error
    assert broken.kinds == ("verifier",)
    with pytest.raises(PluginError, match=r"or a broken plugin offers it: rlvr_verifiers of rlvr-polite 1\.0 failed: "):
        found.entry("verifier", "polite")
    with pytest.raises(PluginError, match=r"there is no trainer 'polite'; known: [\w, -]+$"):
        found.entry("trainer", "polite")


def test_the_other_hooks_of_a_plugin_work_if_one_is_broken(install: Install) -> None:
    source = f"{VERIFIER}\n    @rlvr.hookimpl\n    def rlvr_trainers():\n        return 1 / 0\n"
    install("rlvr-polite", "polite = polite_plugin", polite_plugin=source, polite_checks="check = print")
    found = Registry()
    assert found.load("verifier", "polite") is print
    assert [broken.kinds for broken in found.broken] == [("trainer",)]


@pytest.mark.parametrize(
    ("checks", "message"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("chek = print", "AttributeError: module 'polite_checks' has no attribute 'check'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_name_that_does_not_load_is_named_with_its_distribution(install: Install, checks: str, message: str) -> None:
    install("rlvr-polite", "polite = polite_plugin", polite_plugin=VERIFIER, polite_checks=checks)
    with pytest.raises(PluginError) as caught:
        Registry().load("verifier", "polite")
    assert str(caught.value) == (
        f"verifier 'polite' of rlvr-polite 1.0 failed to load from polite_checks:check: {message}"
    )


def test_a_missing_module_that_an_extra_brings_names_the_extra(install: Install) -> None:
    metadata = """\
        Provides-Extra: dev
        Provides-Extra: deep
        Requires-Dist: pytest; extra == "dev"
        Requires-Dist: no-such.Module>=2; extra == "deep"
    """
    install(
        "rlvr-polite",
        "polite = polite_plugin",
        metadata,
        polite_plugin=VERIFIER,
        polite_checks="import no_such_module.inside",
    )
    with pytest.raises(PluginError, match=r"No module named 'no_such_module'; pip install 'rlvr-polite\[deep\]'$"):
        Registry().load("verifier", "polite")


def test_a_file_that_is_not_there(install: Install, tmp_path: Path) -> None:
    source = f"""
        import pathlib, rlvr

        @rlvr.hookimpl
        def rlvr_presets():
            return {{"polite": pathlib.Path({str(tmp_path / "polite.yaml")!r})}}
    """
    install("rlvr-polite", "polite = polite_plugin", polite_plugin=source)
    with pytest.raises(PluginError, match=r"preset 'polite' of rlvr-polite 1\.0 failed to load from .*polite\.yaml"):
        Registry().load("preset", "polite")
    (tmp_path / "polite.yaml").touch()
    assert Registry().load("preset", "polite") == tmp_path / "polite.yaml"


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(PluginError, match="there is no verifier 'maths'; did you mean 'math'"):
        registry().entry("verifier", "maths")
    with pytest.raises(PluginError, match="there is no prompt source 'qqq'; known: "):
        registry().load("prompt_source", "qqq")
