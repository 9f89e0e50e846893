"""`rlvr compare`: two verifiers on the same rollouts."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlvr.cli.columns import column_mapping
from rlvr.cli.texts import inline, printable
from rlvr.columns import columns
from rlvr.errors import RequestError, RunError

if TYPE_CHECKING:
    from rlvr.comparison.comparing import Change, Comparison
    from rlvr.comparison.verdict_pairs import Flip, FlippedVerdict, Pairs


def compare(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="One file with scores by both, or one for each; matched by id."),
    ],
    a: Annotated[
        str | None,
        typer.Option("--a", metavar="NAME", help="The verifier to compare from: a name, or FILE.py:FUNCTION."),
    ] = None,
    b: Annotated[str | None, typer.Option("--b", metavar="NAME", help="The verifier to compare with.")] = None,
    flips: Annotated[int, typer.Option("--flips", min=0, help="How many of the worst flips to show.")] = 5,
    threshold: Annotated[
        float, typer.Option("--threshold", metavar="REWARD", help="A reward of at least this is right.")
    ] = 0.5,
    resamples: Annotated[int, typer.Option("--resamples", min=1, help="Of the bootstrap behind the intervals.")] = 2000,
    mappings: Annotated[
        list[str] | None, typer.Option("--map", metavar="TARGET=SOURCE", help="As for rlvr score.")
    ] = None,
    scores: Annotated[
        list[str] | None,
        typer.Option("--scores", metavar="SIDECAR", help="Scores of rlvr score --scores-only, to take with the rows'."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as one JSON object.")] = False,
) -> None:
    """Compare two verifiers' scores on the same rollouts: flips, what they do to training, agreement, the worst ones.

    Of several scores by one verifier the last counts. Without --a and --b, the two verifiers of a file are compared.
    """
    from rlvr.comparison.comparing import compare as compared
    from rlvr.comparison.comparing import worst
    from rlvr.comparison.verdict_pairs import pair, read_flips, read_verdicts
    from rlvr.files import existing
    from rlvr.record.reading import source_of
    from rlvr.record.sidecar import Sidecars

    if len(files) > 2:
        raise RequestError(f"{len(files)} files: one with scores by both verifiers, or two")
    for file in files:
        existing(file)
    mapping = column_mapping(mappings or ())
    sources = [source_of(file, mapping) for file in files]
    beside = Sidecars(scores or ())
    try:
        sides = [read_verdicts(source, beside) for source in sources]
        beside.refuse_unused()
        if len(files) == 1 and not sides[0].ids:
            raise RequestError(_nothing_to_compare(files))
        pairs = pair(*sides, a=a, b=b)
        if not pairs.ids:
            raise RequestError(_nothing_to_compare(files))
        comparison = compared(pairs, threshold=threshold, resamples=resamples)
        shown = read_flips(pairs, worst(pairs, flips), beside)
    except OSError as error:
        raise RunError(f"{' and '.join(map(str, files))} could not be read to the end: {error.strerror}") from error
    if as_json:
        print(json.dumps(_report(pairs, comparison, shown, threshold, resamples), indent=2))
    else:
        print(printable(_text(pairs, comparison, shown, threshold, resamples), sys.stdout.encoding))


def _nothing_to_compare(files: list[Path]) -> str:
    return f"{files[0]} has no rows" if len(files) == 1 else f"{files[0]} and {files[1]} have no id in common"


# --- for programs ---------------------------------------------------------------------------------------------------


def _report(
    pairs: Pairs, comparison: Comparison, flips: list[Flip], threshold: float, resamples: int
) -> dict[str, Any]:
    from rlvr.comparison.verdict_pairs import KINDS

    found = asdict(comparison)
    matrix = found.pop("matrix")
    at_k = [{"pass" if key == "passed" else key: value for key, value in row.items()} for row in found.pop("at_k")]
    sides = {
        name: {"verifier": side.verifier, "versions": side.versions, "file": str(side.path)}
        for name, side in (("a", pairs.a), ("b", pairs.b))
    }
    return {
        **sides,
        "threshold": threshold,
        "resamples": resamples,
        "unmatched": {"a": pairs.only_a, "b": pairs.only_b},
        "without_group": pairs.without_group,
        **found,
        "matrix": {of_a: dict(zip(KINDS, counts, strict=True)) for of_a, counts in zip(KINDS, matrix, strict=True)},
        "at_k": at_k,
        "flips": [asdict(flip) for flip in flips],
    }


# --- for people -----------------------------------------------------------------------------------------------------


def _text(pairs: Pairs, comparison: Comparison, flips: list[Flip], threshold: float, resamples: int) -> str:
    blocks = [
        _heading(pairs, comparison),
        _matrix(comparison, threshold),
        _figures(comparison, resamples),
        _training(comparison),
        *(_flip(flip) for flip in flips),
    ]
    return "\n\n".join(blocks)


def _heading(pairs: Pairs, comparison: Comparison) -> str:
    lines = [
        [name, inline(side.verifier), _versions(side.versions), inline(str(side.path))]
        for name, side in (("a", pairs.a), ("b", pairs.b))
    ]
    said = [f"{_counted(comparison.rows, 'rollout')} in {_counted(comparison.groups, 'group')}"]
    if pairs.without_group:
        said.append(f"{pairs.without_group:,} without a group, each taken as one")
    if pairs.only_a or pairs.only_b:
        said.append(f"left out: {pairs.only_a:,} only in the first file, {pairs.only_b:,} only in the second")
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
    said = f"{comparison.gained:,} become right, {comparison.lost:,} no longer are ({share:.2%} of all)"
    if comparison.regraded:
        said += f"; {comparison.regraded:,} stay what they are with another reward"
    if threshold != 0.5:
        said += f"; right is a reward of at least {threshold:g}"
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
