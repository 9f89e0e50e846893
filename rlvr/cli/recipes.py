"""`rlvr recipes`: algorithms for `rlvr train --recipe`."""

from __future__ import annotations

from textwrap import indent
from typing import Annotated

import typer

from rlvr.cli.command import Command, CommandGroup
from rlvr.cli.json_output import print_json
from rlvr.cli.options import AsJson
from rlvr.columns import columns
from rlvr.terminal import neutral_streams


class RecipesGroup(CommandGroup):
    """`rlvr recipes`."""

    meant = "show"


recipes = typer.Typer(
    cls=RecipesGroup,
    invoke_without_command=True,
    help="List recipes: named algorithms, each a set of trainer settings.",
)


@recipes.callback()
def list_recipes(context: typer.Context, as_json: AsJson = False) -> None:
    """List recipes: named algorithms, each a set of trainer settings."""
    if context.invoked_subcommand is not None:
        return
    from rlvr.registry import registry
    from rlvr.run.config import read_recipe

    named = [(entry.name, read_recipe(entry.name)[0]) for entry in registry().entries("recipe")]
    rows = [[name, recipe.staleness, recipe.title] for name, recipe in named]
    if as_json:
        print_json([dict(zip(("name", "meant_for", "description"), row, strict=True)) for row in rows])
        return
    with neutral_streams():
        print(columns([["NAME", "MEANT FOR", "DESCRIPTION"], *rows]))


@recipes.command(cls=Command)
def show(name: Annotated[str, typer.Argument(help="Recipe: a name, or a YAML file.")], as_json: AsJson = False) -> None:
    """Print a recipe's formula, source, composition and settings."""
    from rlvr.run.config import RunConfig, read_recipe, trainer_options
    from rlvr.run.factories import trainer_factory
    from rlvr.settings import validate

    recipe, settings = read_recipe(name)
    config = validate(RunConfig, settings)
    options = trainer_options(config, trainer_factory(config.trainer.name).Options, settings)
    chosen = options.composition()
    if as_json:
        values = {key: setting.value for key, setting in settings.items()}
        parts_of = [dict(zip(("option", "name", "meaning"), row, strict=True)) for row in chosen]
        print_json({"name": name, **recipe.model_dump(mode="json"), "composition": parts_of, "settings": values})
        return
    print(f"{name}: {recipe.title}\n")
    print(columns([["source", recipe.source], ["meant for", recipe.staleness]]))
    _section("formula", recipe.formula)
    if chosen:
        _section(f"composition ({config.trainer.name})", columns([list(row) for row in chosen]))
    _section("settings", "\n".join(f"{key}: {setting.value}" for key, setting in settings.items()))
    _section("notes", "\n".join(f"- {note}" for note in recipe.notes))


@recipes.command(cls=Command)
def parts(
    trainer: Annotated[str, typer.Argument(help="Trainer whose options are listed.")] = "grpo-off",
    as_json: AsJson = False,
) -> None:
    """List the parts of a recipe: every value of the trainer's options, with its meaning."""
    from rlvr.errors import ConfigError
    from rlvr.run.factories import trainer_factory

    rows = trainer_factory(trainer).Options.parts()
    if not rows:
        raise ConfigError(f"trainer {trainer!r} is not composed of parts")
    if as_json:
        print_json([dict(zip(("option", "name", "meaning"), row, strict=True)) for row in rows])
        return
    print(columns([["OPTION", "NAME", "MEANING"], *(list(row) for row in rows)]))


def _section(title: str, text: str) -> None:
    if text:
        print(f"\n{title}\n{indent(text.rstrip(), '  ')}")
