"""`rlvr eval`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from rlvr.cli.columns import column_mapping
from rlvr.cli.generate import (
    ConfigFile,
    DataFiles,
    Device,
    Dtype,
    Force,
    MaxTokens,
    Seed,
    Sets,
    SplitName,
    Temperature,
    plain,
    sampling_reporter,
)
from rlvr.cli.json_output import print_json
from rlvr.cli.options import Quiet, SamplerName, Servers, Sidecars
from rlvr.cli.texts import inline
from rlvr.columns import columns
from rlvr.errors import RequestError
from rlvr.terminal import printable

if TYPE_CHECKING:
    from rlvr.evaluation.evaluation import Contamination, Evaluation, SetEvaluation
    from rlvr.evaluation.figures import Estimate

Texts: TypeAlias = list[str] | None

ENDINGS = (".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".csv")
FLAGS = {
    "data_files": ("--data-files", "dataset.data_files"),
    "verifier": ("--verifier", "verifier.name"),
    "sampler": ("--sampler", "sampling.engine"),
    "server": ("--server", "sampling.options.servers"),
    "device": ("--device", "model.device"),
    "dtype": ("--dtype", "model.dtype"),
}
"""Parameter of `evaluate` → its flag and the setting that it sets."""
OF_A_FILE = ("mappings", "scores", "where", "threshold")
"""Parameters that are about recorded answers; all others except `OF_BOTH` are about sampling."""
OF_BOTH = ("model", "verifier", "train_set", "as_json")

Model: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Model: a local directory, a hub name, embedded, a run directory or a checkpoint in one. Or FILE, the "
        "output of an earlier rlvr eval, to print its figures again.",
    ),
]
Datasets: TypeAlias = Annotated[
    Texts,
    typer.Option(
        "--dataset",
        metavar="NAME[,NAME…]",
        help="Data sets: names, or files of questions; repeatable. [default: the model's or the run's own]",
    ),
]
Out: TypeAlias = Annotated[
    Path | None, typer.Option("--out", "-o", help="File for completions and verdicts: .parquet or .jsonl.")
]
Completions: TypeAlias = Annotated[
    int | None,
    typer.Option("-n", min=0, help="Completions per question; 0 with --greedy. [default: the card's, or 16]"),
]
Limit: TypeAlias = Annotated[int | None, typer.Option(min=1, help="Ask so many questions of each data set.")]
Greedy: TypeAlias = Annotated[bool, typer.Option("--greedy", help="Also ask each question once at temperature 0.")]
TopP: TypeAlias = Annotated[float | None, typer.Option("--top-p", help="Nucleus of the sampling distribution.")]
Verifiers: TypeAlias = Annotated[
    Texts,
    typer.Option(
        "--verifier",
        "-v",
        help="Verifier of all data sets: a name, FILE.py:FUNCTION, a YAML file, or several times NAME:WEIGHT. With "
        "FILE, the one whose scores count. [default: that of each data set's card]",
    ),
]
Checkpoint: TypeAlias = Annotated[
    str, typer.Option("--checkpoint", metavar="N", help="Of a run directory: number of batches, newest, or best.")
]
TrainSets: TypeAlias = Annotated[
    Texts,
    typer.Option(
        "--train-set", metavar="NAME", help="Training set to look the questions up in: a name or a file; repeatable."
    ),
]
Mappings: TypeAlias = Annotated[
    Texts, typer.Option("--map", metavar="TARGET=SOURCE", help="Column names of FILE, as for rlvr score; repeatable.")
]
Conditions: TypeAlias = Annotated[
    Texts, typer.Option("--where", "-w", metavar="EXPR", help="Condition on rows of FILE, as in rlvr show; repeatable.")
]
Threshold: TypeAlias = Annotated[
    float, typer.Option("--threshold", metavar="REWARD", help="With FILE: rewards at or above this count as correct.")
]


def evaluate(
    context: typer.Context,
    model: Model,
    dataset: Datasets = None,
    n: Completions = None,
    limit: Limit = None,
    out: Out = None,
    greedy: Greedy = False,
    split: SplitName = "eval",
    verifier: Verifiers = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    max_tokens: MaxTokens = None,
    seed: Seed = None,
    checkpoint: Checkpoint = "newest",
    train_set: TrainSets = None,
    data_files: DataFiles = None,
    sampler: SamplerName = None,
    server: Servers = None,
    device: Device = None,
    dtype: Dtype = None,
    config: ConfigFile = None,
    set_: Sets = None,
    force: Force = False,
    mappings: Mappings = None,
    scores: Sidecars = None,
    where: Conditions = None,
    threshold: Threshold = 0.5,
    quiet: Quiet = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Evaluate a model or checkpoint: accuracy, pass@k, majority votes and lengths, with intervals.

    Every completion and verdict is written to OUT, which rlvr show, score and compare read. After an interrupt, run the
    same command again to continue.
    """
    run = _recorded if model.endswith(ENDINGS) else _sampled
    evaluation = run(context)
    if as_json:
        print_json(evaluation.to_dict())
    else:
        print(printable(evaluation_text(evaluation), sys.stdout.encoding))


def _recorded(context: typer.Context) -> Evaluation:
    """Return the figures of a file."""
    from rlvr.evaluation.evaluation import evaluation_of
    from rlvr.verify.composition import weighted

    given = context.params
    of_sampling = [name for name in given if name not in (*OF_A_FILE, *OF_BOTH)]
    _refuse(context, of_sampling, f"is for sampling, and {given['model']} is a file of answers")
    return evaluation_of(
        given["model"],
        verifier=weighted(given["verifier"] or ()),
        threshold=given["threshold"],
        mapping=column_mapping(given["mappings"] or ()),
        sidecars=given["scores"] or (),
        where=given["where"] or (),
        train_sets=given["train_set"] or (),
    )


def _sampled(context: typer.Context) -> Evaluation:
    """Return the figures of a model, after asking it the questions."""
    from rlvr.run.evaluate import EvaluationRequest, evaluate_with
    from rlvr.settings import command_line_settings, read_settings
    from rlvr.verify.composition import weighted

    given = context.params
    _refuse(context, OF_A_FILE, f"is for recorded answers, and {given['model']} is no file ({', '.join(ENDINGS)})")
    if given["out"] is None:
        raise RequestError("name the file for completions and verdicts: --out FILE.parquet")
    parameters = {**given, "verifier": weighted(given["verifier"] or ())}
    flags = {key: (flag, plain(parameters[name]) or None) for name, (flag, key) in FLAGS.items()}
    written = {} if given["config"] is None else read_settings(given["config"])
    names = ("n", "limit", "split", "greedy", "temperature", "top_p", "max_tokens", "seed", "force")
    asked = EvaluationRequest(
        **{name: given[name] for name in names},
        model=given["model"],
        out=given["out"],
        datasets=tuple(_listed(given["dataset"] or ())),
        checkpoint=given["checkpoint"],
        train_sets=tuple(given["train_set"] or ()),
        settings={**written, **command_line_settings(given["set_"] or [], flags)},
    )
    with ExitStack() as stack:
        return evaluate_with(asked, sampling_reporter(stack))


def _refuse(context: typer.Context, names: Sequence[str], why: str) -> None:
    """Raise RequestError if one of the parameters was given on the command line."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in names and source is not None and source.name == "COMMANDLINE":
            raise RequestError(f"{max(parameter.opts, key=len)} {why}")


def _listed(datasets: Sequence[str]) -> list[str]:
    """Return the names in comma-separated texts; the path of a file is one name."""
    return [name for text in datasets for name in ([text] if Path(text).exists() else text.split(",")) if name]


# --- text -----------------------------------------------------------------------------------------------------------


def evaluation_text(evaluation: Evaluation) -> str:
    """Return the figures of every data set as tables."""
    blocks = [_set_text(each) for each in evaluation.sets]
    heading = [f"model        {model_text(each)}" for each in evaluation.models[:4]]
    heading += [f"             … and {len(evaluation.models) - 4} more"] if len(evaluation.models) > 4 else []
    if evaluation.threshold != 0.5:
        heading.append(f"correct      a reward of {evaluation.threshold:g} or more")
    heading.append(f"records      {', '.join(inline(str(file)) for file in evaluation.files)}")
    notes = [f"note: {inline(note)}" for note in evaluation.notes]
    return "\n\n".join(["\n".join(heading), *blocks, *notes])


def model_text(model: Mapping[str, Any]) -> str:
    """Return the name of a model and what identifies its weights."""
    identity = model.get("weights_hash") or model.get("revision")
    return inline(model.get("name") or "unnamed") + (f" (weights {inline(identity)})" if identity else "")


def _set_text(found: SetEvaluation) -> str:
    greedy = found.greedy is not None
    asked = [f"{found.n} completion{'' if found.n == 1 else 's'} each"] if found.n else []
    asked += ["1 greedy"] if greedy else []
    name, split = inline(found.dataset or "not named"), f" ({inline(found.split)})" if found.split else ""
    version = ", ".join(map(inline, found.versions))
    questions = f"{len(found.questions):,} question{'' if len(found.questions) == 1 else 's'}"
    lines = [
        f"data set     {name}{split}: {questions}, {' and '.join(asked)}",
        f"verifier     {inline(found.verifier)} {version}".rstrip(),
        *(f"sampling     {sampling_text(each)}" for each in found.sampling[:4]),
        "",
        columns([["", "value", "95 % interval", "questions"], *_figures(found)], numbers=True),
    ]
    if found.not_counted:
        counts = ", ".join(f"{count:,} {inline(name)}" for name, count in found.not_counted.items())
        lines.append(f"in no accuracy: {counts} (of {found.completions:,} completions)")
    if found.contamination is not None:
        lines.append(_contamination(found.contamination, len(found.questions)))
    return "\n".join(lines)


def sampling_text(sampling: Mapping[str, Any]) -> str:
    """Return the sampling parameters that differ from the neutral ones."""
    neutral = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
    neutral |= {"presence_penalty": 0.0, "frequency_penalty": 0.0}
    shown = ("temperature", *neutral, "max_tokens", "seed", "engine", "dtype")
    given = {name: sampling[name] for name in shown if sampling.get(name) not in (None, neutral.get(name))}
    return ", ".join(
        f"{name} {f'{value:g}' if isinstance(value, float) else inline(value)}" for name, value in given.items()
    )


def _figures(found: SetEvaluation) -> list[list[str]]:
    named = {"avg": f"accuracy (avg@{found.n})", "maj": f"maj@{found.n}"}
    named |= {"tokens": "mean tokens", "reward": "mean reward"}
    same = found.figures.get("avg") or found.figures.get("greedy")
    rows = []
    for name, each in found.figures.items():
        is_repeated = name == "pass@1" or (name == "reward" and same is not None and each.value == same.value)
        if not is_repeated:
            rows.append([named.get(name, name), *estimate_cells(each, name not in ("tokens", "reward"))])
    return rows


def estimate_cells(each: Estimate, share: bool) -> list[str]:
    """Return value, interval and number of questions of a figure as cells of a table."""
    if each.value is None:
        return ["-", "-", "0"]
    unit, scale, digits = (" %", 100, 1) if share else ("", 1, 2)
    value = f"{each.value * scale:.{digits}f}{unit}"
    if each.low is None or each.high is None:
        return [value, "-", f"{each.questions:,}"]
    return [value, f"[{each.low * scale:.{digits}f}, {each.high * scale:.{digits}f}]", f"{each.questions:,}"]


def _contamination(found: Contamination, questions: int) -> str:
    sets = ", ".join(map(inline, found.train_sets))
    if not found.overlapping:
        return f"contamination: no question is in {sets}"
    value, interval, count = estimate_cells(found.without, True)
    on_them, their_interval, _ = estimate_cells(found.within, True)
    shown = ", ".join(inline(key) for key in list(found.overlapping)[:5])
    more = len(found.overlapping) - 5
    return (
        f"contamination: {len(found.overlapping):,} of {questions:,} questions are in {sets}: {shown}"
        f"{f' and {more:,} more' if more > 0 else ''}\n"
        f"{'accuracy' if found.figure == 'avg' else found.figure} without them {value} {interval} over {count}, "
        f"on them {on_them} {their_interval}"
    )
