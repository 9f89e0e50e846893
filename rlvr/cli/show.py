"""`rlvr show`: rollouts for reading."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlvr.cli.columns import column_mapping
from rlvr.cli.texts import inline, printable
from rlvr.files import as_text

if TYPE_CHECKING:
    from rlvr.record.fields import Fields
    from rlvr.record.rows import Row

LONG = 4000
"""Longer texts are shown without their middle."""


def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Rollouts or any other rows: .parquet or .jsonl.")],
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            "-w",
            metavar="EXPR",
            help="Only rows where it holds: status=unparsed, reward<1, completion~boxed, finish_reason=length, "
            "sampling.temperature>0, answer=null. Fields: columns, those of the last score, version, tokens.",
        ),
    ] = None,
    group: Annotated[str | None, typer.Option("--group", "-g", metavar="ID", help="Only this group.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="How many to print; 0 is all.")] = 10,
    mappings: Annotated[
        list[str] | None, typer.Option("--map", metavar="TARGET=SOURCE", help="As for rlvr score.")
    ] = None,
    scores: Annotated[
        list[str] | None,
        typer.Option("--scores", metavar="SIDECAR", help="Scores of rlvr score --scores-only, to show with the rows."),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Long texts with their middle.")] = False,
) -> None:
    """Print rollouts: prompt, completion, verdicts, group, policy version, how sampling ended.

    Control characters in the texts are shown as escapes.
    """
    from rlvr.record.fields import Fields, Where

    wanted = Where(where or ())
    matching = rows = 0
    for row in _rows(file, column_mapping(mappings or ()), scores or ()):
        rows += 1
        fields = Fields(row)
        holds = wanted.holds(fields)
        if (group is not None and fields.get("group_id") != group) or not holds:
            continue
        matching += 1
        if not limit or matching <= limit:
            print(printable(row_text(fields, full), sys.stdout.encoding))
    wanted.require_known(str(file))
    if limit and matching > limit:
        print(f"{matching - limit:,} more; --limit 0 shows all")
    elif not matching:
        print(f"none of {rows:,} rows matches" if rows else f"{file} has no rows", file=sys.stderr)


def _rows(file: Path, mapping: Mapping[str, str], sidecars: Sequence[str]) -> Iterator[Row]:
    import rlvr.record
    from rlvr.files import existing
    from rlvr.record.store import TOKEN_COLUMNS

    return rlvr.record.open(existing(file), mapping=mapping, sidecars=sidecars, without=TOKEN_COLUMNS - {"loss_mask"})


def row_text(fields: Fields, full: bool) -> str:
    """Return a row for reading."""
    blocks = [f"--- {' | '.join(_heading(fields))}"]
    prompt = fields.get("prompt")
    turns = prompt if isinstance(prompt, list) else [{"role": "prompt", "content": prompt}]
    turns = [*turns, {"role": "completion", "content": fields.get("completion")}]
    for turn in turns:
        content = turn.get("content")
        if content is not None:
            blocks.append(f"{inline(turn.get('role'))}\n{_indented(as_text(content), full)}")
    verdicts = [_verdict(each) for each in fields.scores] or ["no verdict"]
    if (answer := fields.get("answer")) is not None:
        verdicts.append(f"gold {inline(answer)}")
    return "\n".join([*blocks, *verdicts, ""])


def _heading(fields: Fields) -> Iterator[str]:
    yield fields.row.where.rpartition(", ")[2]
    if (identity := fields.get("id")) is not None:
        yield f"id {inline(identity)}"
    if (group := fields.get("group_id")) is not None:
        index, size = fields.get("index"), fields.get("group_size")
        place = f", {index + 1} of {size}" if isinstance(index, int) and isinstance(size, int) else ""
        yield f"group {inline(group)}{place}"
    if versions := fields.versions:
        first, last = min(versions), max(versions)
        yield f"policy version {first}" if first == last else f"policy versions {first} to {last}"
    if (tokens := fields.get("tokens")) is not None:
        yield f"{inline(tokens)} tokens"
    if (finish := fields.get("finish_reason")) is not None:
        stop = fields.get("stop_reason")
        yield f"finished: {inline(finish)}{'' if stop is None else f' ({inline(stop)})'}"


def _verdict(score: Mapping[str, Any]) -> str:
    reward, seconds = score.get("reward"), score.get("seconds")
    parts = [f"{inline(score.get('status'))}{'' if reward is None else f' {inline(reward)}'}"]
    parts.append(f"by {inline(score.get('verifier'))} {inline(score.get('version'))}")
    if (extracted := score.get("extracted")) is not None:
        parts.append(f"extracted {inline(extracted)}")
    if (reason := score.get("reason")) is not None:
        parts.append(inline(reason))
    if isinstance(seconds, int | float):
        parts.append(f"{seconds:.3f} s")
    return "verdict " + ", ".join(parts)


def _indented(text: str, full: bool) -> str:
    if not full and len(text) > LONG:
        half = LONG // 2
        text = f"{text[:half]}\n[{len(text) - 2 * half:,} characters left out; --full shows them]\n{text[-half:]}"
    return "\n".join(f"    {line}" for line in text.split("\n"))
