"""`rlvr generate`."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from rlvr.cli.interrupts import answered
from rlvr.cli.json_output import print_json
from rlvr.cli.options import Quiet, SamplerName, Servers
from rlvr.cli.progress import Heartbeat
from rlvr.terminal import one_line

if TYPE_CHECKING:
    from rlvr.run.generate import GenerateProgress, GenerateReporter, GenerateResult

Texts: TypeAlias = list[str] | None

Model: TypeAlias = Annotated[str, typer.Argument(help="Model: a local directory, a hub name, or embedded.")]
Dataset: TypeAlias = Annotated[
    str | None, typer.Option(help="Data set: a name, or a file of questions. [default: the model's own]")
]
DataFiles: TypeAlias = Annotated[
    list[Path] | None, typer.Option("--data-files", help="Local files in the data set's layout; repeatable.")
]
Out: TypeAlias = Annotated[Path, typer.Option("--out", "-o", help="File to write: .parquet or .jsonl.")]
Completions: TypeAlias = Annotated[
    int | None, typer.Option("-n", min=1, help="Completions per question. [default: sampling.group_size]")
]
Limit: TypeAlias = Annotated[int | None, typer.Option(min=1, help="Ask only the first N questions.")]
SplitName: TypeAlias = Annotated[
    Literal["train", "eval"], typer.Option("--split", help="Questions for training, or the held-out ones.")
]
VerifierNames: TypeAlias = Annotated[
    Texts,
    typer.Option(
        "--verifier", "-v", help="Also score: a name, FILE.py:FUNCTION, a YAML file, or several times NAME:WEIGHT."
    ),
]
Temperature: TypeAlias = Annotated[float | None, typer.Option(help="Sampling temperature.")]
MaxTokens: TypeAlias = Annotated[int | None, typer.Option(help="Length limit of a completion, in tokens.")]
Device: TypeAlias = Annotated[str | None, typer.Option(help="Device: auto, cpu, cuda, cuda:1, mps.")]
Dtype: TypeAlias = Annotated[str | None, typer.Option(help="Compute dtype: auto, float32, bfloat16.")]
Seed: TypeAlias = Annotated[int | None, typer.Option(help="Random seed.")]
ConfigFile: TypeAlias = Annotated[Path | None, typer.Option(help="YAML file of a run's settings.")]
Sets: TypeAlias = Annotated[
    Texts, typer.Option("--set", help="Any setting of sampling, model, dataset or verifier; repeatable.")
]
Force: TypeAlias = Annotated[
    bool, typer.Option("--force", help="Replace OUT if it exists; discard unfinished work of another request.")
]

FLAGS = {
    "model": ("MODEL", "model.name"),
    "dataset": ("--dataset", "dataset.name"),
    "data_files": ("--data-files", "dataset.data_files"),
    "verifier": ("--verifier", "verifier.name"),
    "temperature": ("--temperature", "sampling.temperature"),
    "max_tokens": ("--max-tokens", "sampling.max_tokens"),
    "sampler": ("--sampler", "sampling.engine"),
    "server": ("--server", "sampling.options.servers"),
    "device": ("--device", "model.device"),
    "dtype": ("--dtype", "model.dtype"),
    "seed": ("--seed", "seed"),
}
"""Parameter of `generate` → its flag and the setting that it sets."""


def generate(
    context: typer.Context,
    model: Model,
    out: Out,
    dataset: Dataset = None,
    data_files: DataFiles = None,
    n: Completions = None,
    limit: Limit = None,
    split: SplitName = "train",
    verifier: VerifierNames = None,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    sampler: SamplerName = None,
    server: Servers = None,
    device: Device = None,
    dtype: Dtype = None,
    seed: Seed = None,
    config: ConfigFile = None,
    set_: Sets = None,
    force: Force = False,
    quiet: Quiet = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Sample completions for the questions of a data set and write them to OUT as records, without training.

    `rlvr train --rollouts OUT` trains on them; `rlvr score`, `compare` and `show` read them. After an interrupt, run
    the same command again to continue.
    """
    from rlvr.run.config import resolve
    from rlvr.run.generate import generate_with
    from rlvr.settings import command_line_settings
    from rlvr.verify.composition import weighted

    parameters = {**context.params, "verifier": weighted(verifier or ())}
    given = {key: (flag, plain(parameters[name])) for name, (flag, key) in FLAGS.items()}
    with ExitStack() as stack:
        result = generate_with(
            resolve(command_line_settings(set_ or [], given), config),
            out,
            n=n,
            limit=limit,
            split=split,
            force=force,
            reporter=sampling_reporter(stack),
        )
    if as_json:
        print_json(result.to_dict())
    else:
        print(_summary(result))


def plain(value: Any) -> Any:
    """Return an option's value as YAML would hold it."""
    return [str(each) for each in value] if isinstance(value, list) else value


def sampling_reporter(stack: ExitStack) -> GenerateReporter:
    """Return a reporter that prints notes and progress to standard error."""
    from rlvr.run.generate import GenerateReporter

    class BatchLines(GenerateReporter):
        heartbeat = Heartbeat()

        def note(self, text: str) -> None:
            print(f"rlvr: {text}", file=sys.stderr)

        def advance(self, progress: GenerateProgress) -> None:
            self.heartbeat(
                f"{progress.questions:,} of {progress.total:,} questions, {progress.rollouts:,} rollouts, "
                f"{progress.tokens:,} tokens"
            )

    stack.enter_context(answered("interrupted; run the same command again to continue"))
    return BatchLines()


def _summary(result: GenerateResult) -> str:
    """Return counts of questions, rollouts, tokens and verdicts, and the written file."""
    share = result.truncated / max(1, result.rollouts)
    lines = [
        ("questions", f"{result.questions:,}" + (f" ({result.dropped:,} too long)" if result.dropped else "")),
        ("rollouts", f"{result.rollouts:,}"),
        ("truncated", f"{result.truncated:,} ({share:.0%})"),
    ]
    if result.verifier is not None:
        mean = result.verifier.mean_reward
        lines.append(("mean reward", "none: no verdict counts" if mean is None else f"{mean:.4f}"))
        lines += [(status, f"{count:,}") for status, count in result.verifier.statuses.items()]
    lines.append(("tokens/s", f"{result.tokens_per_second:,.0f}"))
    return "\n".join([*(f"{name:<12} {value}" for name, value in lines), f"written to {one_line(str(result.file))}"])
