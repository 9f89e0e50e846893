"""`rlvr compare`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from rlvr.cli.columns import column_mapping
from rlvr.cli.compare_policies import policies_text
from rlvr.cli.json_output import print_json
from rlvr.cli.options import Mappings, Sidecars
from rlvr.cli.texts import inline
from rlvr.columns import columns
from rlvr.terminal import printable

if TYPE_CHECKING:
    from rlvr.comparison.compare import CompareOptions, CompareResult
    from rlvr.comparison.comparing import Change, Comparison
    from rlvr.comparison.verdict_pairs import Flip, FlippedVerdict

Texts: TypeAlias = list[str] | None

Files: TypeAlias = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE",
        help="Evaluations of two or more policies; or a file with scores by two verifiers, or two files with those of "
        "one each, matched by id.",
    ),
]
SideA: TypeAlias = Annotated[
    str | None, typer.Option("--a", metavar="NAME", help="Verifier to compare from: a name, or FILE.py:FUNCTION.")
]
SideB: TypeAlias = Annotated[str | None, typer.Option("--b", metavar="NAME", help="Verifier to compare with.")]
KindName: TypeAlias = Annotated[
    Literal["policies", "verifiers"] | None,
    typer.Option("--of", help="What is compared. [default: recognized by the files]"),
]
OneVerifier: TypeAlias = Annotated[
    str | None,
    typer.Option("--verifier", "-v", metavar="NAME", help="Verifier whose verdicts on policies are compared."),
]
Flips: TypeAlias = Annotated[
    int, typer.Option("--flips", min=0, help="Number of worst flips, or changed questions each way, to show.")
]
Resamples: TypeAlias = Annotated[
    int | None,
    typer.Option("--resamples", min=1, help="Bootstrap resamples. [default: 2,000 for verifiers, 10,000 for policies]"),
]
Threshold: TypeAlias = Annotated[
    float, typer.Option("--threshold", metavar="REWARD", help="Rewards at or above this count as correct.")
]
Conditions: TypeAlias = Annotated[
    Texts, typer.Option("--where", "-w", metavar="EXPR", help="Condition on rows, as in rlvr show; repeatable.")
]


def compare(
    files: Files,
    a: SideA = None,
    b: SideB = None,
    of: KindName = None,
    verifier: OneVerifier = None,
    flips: Flips = 5,
    threshold: Threshold = 0.5,
    resamples: Resamples = None,
    mappings: Mappings = None,
    scores: Sidecars = None,
    where: Conditions = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare policies on the same questions, or two verifiers' scores on the same rollouts.

    For evaluations of checkpoints or models (rlvr eval): difference in accuracy with its interval, sign test, what the
    questions can show, and which of them changed. For two verifiers: flips, effect on training, agreement; without --a
    and --b, the file must have scores by exactly two verifiers. Of several scores by one verifier, the last one counts.
    """
    from rlvr.comparison.compare import CompareResult
    from rlvr.comparison.compare import compare as run

    options: CompareOptions = {
        "verifier": verifier,
        "a": a,
        "b": b,
        "flips": flips,
        "threshold": threshold,
        "resamples": resamples,
        "mapping": column_mapping(mappings or ()),
        "sidecars": scores or (),
        "where": where or (),
    }
    result = run(*files, of=of, **options)
    if as_json:
        print_json(result.to_dict())
        return
    text = _text(result) if isinstance(result, CompareResult) else policies_text(result)
    print(printable(text, sys.stdout.encoding))


def _text(result: CompareResult) -> str:
    comparison = result.comparison
    blocks = [
        _heading(result),
        _matrix(comparison, result.threshold),
        _figures(comparison, result.resamples),
        _training(comparison),
        *(_flip(flip) for flip in result.flips),
    ]
    return "\n\n".join(blocks)


def _heading(result: CompareResult) -> str:
    lines = [
        [name, inline(side.verifier), _versions(side.versions), inline(str(side.file))]
        for name, side in (("a", result.a), ("b", result.b))
    ]
    said = [f"{_counted(result.comparison.rows, 'rollout')} in {_counted(result.comparison.groups, 'group')}"]
    if result.without_group:
        said.append(f"{result.without_group:,} without a group, each taken as one")
    if result.only_a or result.only_b:
        said.append(f"left out: {result.only_a:,} only in the first file, {result.only_b:,} only in the second")
    return columns(lines) + "\n" + "; ".join(said)


def _versions(versions: tuple[str, ...]) -> str:
    return f"version{'' if len(versions) == 1 else 's'} {', '.join(map(inline, versions))}" if versions else ""


def _matrix(comparison: Comparison, threshold: float) -> str:
    from rlvr.comparison.verdict_pairs import KINDS

    matrix = comparison.matrix
    used = [i for i in range(len(KINDS)) if any(matrix[i]) or any(row[i] for row in matrix)]
    lines = [["a \\ b", *(KINDS[i] for i in used)]]
    lines += [[KINDS[i], *(f"{matrix[i][j]:,}" for j in used)] for i in used]
    share = (comparison.gained + comparison.lost) / comparison.rows
    said = f"flips: {comparison.gained:,} to right, {comparison.lost:,} from right ({share:.2%} of all)"
    if comparison.regraded:
        said += f"; {comparison.regraded:,} differ in reward only"
    if threshold != 0.5:
        said += f"; a reward of {threshold:g} or more is right"
    return columns(lines, numbers=True) + "\n" + said


def _figures(comparison: Comparison, resamples: int) -> str:
    lines = [["", "a", "b", "b - a", "95 % interval", "groups"]]
    lines.append(["mean reward", *_change(comparison.reward), ""])
    at_k = comparison.at_k
    for place, at in enumerate(at_k):
        # The unbiased estimate of avg@k is the same for every k that the same groups allow.
        if place + 1 == len(at_k) or at_k[place + 1].groups != at.groups:
            lines.append([f"avg@{at.k}", *_change(at.avg), f"{at.groups:,}"])
    lines += [[f"pass@{at.k}", *_change(at.passed), f"{at.groups:,}"] for at in at_k]
    agreement = comparison.agreement
    kappa = "not defined" if agreement.kappa is None else f"{agreement.kappa:.4f}"
    raw = "not defined" if agreement.raw is None else f"{agreement.raw:.4f}"
    return (
        columns(lines, numbers=True)
        + f"\nagreement {raw}, Cohen's kappa {kappa} {_interval(agreement.kappa_interval, '')}".rstrip()
        + f"\n(over the {_counted(comparison.paired, 'rollout')} with a reward from both; bootstrap of whole groups, "
        + f"{resamples:,} resamples)"
    )


def _training(comparison: Comparison) -> str:
    found = comparison.advantages
    lines = [
        ["groups with a signal", f"{found.signal_a:,} by a, {found.signal_b:,} by b"],
        ["gain or lose it", f"{found.gained_signal:,} gain it, {found.lost_signal:,} lose it"],
        [
            "advantage changes sign",
            f"{_counted(found.changed_rollouts, 'rollout')} in {_counted(found.changed_groups, 'group')}",
        ],
        ["dropped by training", f"{comparison.dropped_a:,} by a, {comparison.dropped_b:,} by b"],
    ]
    return columns(lines)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _change(change: Change) -> list[str]:
    if change.a is None or change.b is None or change.difference is None:
        return ["-", "-", "-", "-"]
    shown = _interval(change.interval, "+")
    return [f"{change.a:.4f}", f"{change.b:.4f}", f"{change.difference:+.4f}", shown or "-"]


def _interval(interval: tuple[float, float] | None, sign: str) -> str:
    return "" if interval is None else f"[{interval[0]:{sign}.4f}, {interval[1]:{sign}.4f}]"


def _flip(flip: Flip) -> str:
    place = [f"id {inline(flip.id)}"] if flip.id is not None else []
    place += [f"group {inline(flip.group_id)}"] if flip.group_id is not None else []
    lines = [f"--- {' | '.join(place) or 'flip'}"]
    if flip.prompt is not None:
        lines.append(f"prompt  {inline(flip.prompt)}")
    if flip.gold is not None:
        lines.append(f"gold    {inline(flip.gold)}")
    lines += [f"{name}       {_flipped(verdict)}" for name, verdict in (("a", flip.a), ("b", flip.b))]
    return "\n".join(lines)


def _flipped(verdict: FlippedVerdict) -> str:
    parts = [f"{verdict.status}{'' if verdict.reward is None else f' {verdict.reward:g}'}"]
    if verdict.extracted is not None:
        parts.append(f"extracted {inline(verdict.extracted)}")
    if verdict.reason is not None:
        parts.append(inline(verdict.reason))
    return ", ".join(parts)
