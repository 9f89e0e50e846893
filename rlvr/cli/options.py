"""Options of several commands: options of verifiers and data sets, limits of workers, and the sampler."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, TypeAlias

import typer

from rlvr.cli.progress import be_quiet
from rlvr.errors import ConfigError, RequestError

WriteProtect: TypeAlias = Annotated[
    bool,
    typer.Option("--write-protect", help="Let workers write to their scratch folders only (Landlock, Linux 6.2)."),
]
SamplerName: TypeAlias = Annotated[
    str | None, typer.Option("--sampler", help="Sampler: hf, vllm, vllm-server, auto, or a plugin's.")
]
Servers: TypeAlias = Annotated[
    str | None,
    typer.Option("--server", metavar="URL[,URL…]", help="Servers of --sampler vllm-server, as rlvr serve starts them."),
]
Quiet: TypeAlias = Annotated[
    bool, typer.Option("--quiet", "-q", callback=be_quiet, is_eager=True, help="Print the results, but no progress.")
]
Mappings: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="TARGET=SOURCE", help="Column names, as for rlvr score; repeatable."),
]
Sidecars: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--scores", metavar="SIDECAR", help="Sidecar of rlvr score --scores-only; repeatable."),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
MaxReward: TypeAlias = Annotated[
    float, typer.Option("--max-reward", metavar="NUMBER", help="Rewards beyond plus or minus this are errors.")
]


def verifier_options(pairs: Iterable[str], verifiers: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return verifier → options, from `[NAME:]KEY=VALUE` texts; a single verifier need not be named.

    Raises RequestError.
    """
    options: dict[str, dict[str, Any]] = {each: {} for each in verifiers}
    for pair in pairs:
        from rlvr.settings import parse_set  # a quarter of a second

        named = [each for each in verifiers if pair.startswith(f"{each}:")]
        if not named and len(verifiers) > 1:
            raise RequestError(f"--option {pair}: of which verifier? Write NAME:KEY=VALUE")
        name = max(named, key=len, default=verifiers[0])
        text = pair.removeprefix(f"{name}:")
        key, equals, _ = text.partition("=")
        if not (key and equals):
            raise RequestError(f"--option {pair}: write KEY=VALUE")
        if key in options[name]:
            raise RequestError(f"--option {pair}: {key} is given twice")
        try:
            options[name][key] = parse_set(text)[1].value
        except ConfigError as error:
            raise RequestError(f"--option {pair}: the value is not YAML; put quotes around text") from error
    return options


def dataset_options(sets: Sequence[str]) -> dict[str, Any]:
    """Return the options of a prompt set, from `dataset.options.KEY=VALUE` texts. Raises RequestError."""
    if not sets:
        return {}
    from rlvr.run.config import DatasetConfig
    from rlvr.settings import command_line_settings, validate

    settings = command_line_settings(sets, {})
    for key, setting in settings.items():
        if not key.startswith("dataset.options."):
            raise RequestError(
                f"{setting.source}: only dataset.options.KEY can be set here (rlvr settings dataset.options)"
            )
    options = {key.removeprefix("dataset."): setting for key, setting in settings.items()}
    return validate(DatasetConfig, options, "dataset.").options
