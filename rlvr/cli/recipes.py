"""`rlvr recipes`: the algorithms that `rlvr train --recipe` knows by name."""

from __future__ import annotations

from textwrap import indent
from typing import Annotated

import typer

from rlvr.columns import columns

recipes = typer.Typer(invoke_without_command=True, help="List recipes: settings that make an algorithm, by name.")


@recipes.callback()
def list_recipes(context: typer.Context) -> None:
    """List recipes: settings that make an algorithm, by name."""
    if context.invoked_subcommand is not None:
        return
    from rlvr.registry import registry
    from rlvr.run.config import read_recipe

    named = [(entry.name, read_recipe(entry.name)[0]) for entry in registry().entries("recipe")]
    rows = [[name, recipe.staleness, recipe.title] for name, recipe in named]
    print(columns([["NAME", "MEANT FOR", "WHAT IT IS"], *rows]))


@recipes.command()
def show(name: Annotated[str, typer.Argument(help="A recipe's name, or its YAML file.")]) -> None:
    """Print a recipe's formula, source, composition and settings."""
    from rlvr.run.config import RunConfig, read_recipe, trainer_options
    from rlvr.run.factories import trainer_factory
    from rlvr.settings import validate

    recipe, settings = read_recipe(name)
    config = validate(RunConfig, settings)
    options = trainer_options(config, trainer_factory(config.trainer.name).Options, settings)
    print(f"{name}: {recipe.title}\n")
    print(columns([["source", recipe.source], ["meant for", recipe.staleness]]))
    _section("formula", recipe.formula)
    if chosen := options.composition():
        _section(f"composition ({config.trainer.name})", columns([list(row) for row in chosen]))
    _section("settings", "\n".join(f"{key}: {setting.value}" for key, setting in settings.items()))
    _section("notes", "\n".join(f"- {note}" for note in recipe.notes))


@recipes.command()
def parts(trainer: Annotated[str, typer.Argument(help="The trainer that they are for.")] = "grpo-off") -> None:
    """List what a recipe can be composed of: every name that the trainer's options may have, and what it stands for."""
    from rlvr.errors import ConfigError
    from rlvr.run.factories import trainer_factory

    rows = trainer_factory(trainer).Options.parts()
    if not rows:
        raise ConfigError(f"trainer {trainer!r} is not composed of parts")
    print(columns([["OPTION", "NAME", "WHAT IT STANDS FOR"], *(list(row) for row in rows)]))


def _section(title: str, text: str) -> None:
    if text:
        print(f"\n{title}\n{indent(text.rstrip(), '  ')}")
