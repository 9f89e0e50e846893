"""`rlvr show`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlvr.cli.columns import column_mapping
from rlvr.cli.json_output import print_json
from rlvr.cli.texts import inline
from rlvr.files import as_text
from rlvr.terminal import printable

if TYPE_CHECKING:
    from rlvr.record.fields import Fields

LONG = 4000
"""Characters. Longer texts are shown without their middle."""


def show(
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="Rollouts or any other rows, as for rlvr score.")],
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            "-w",
            metavar="EXPR",
            help="Condition on rows: status=unparsed, reward<1, completion~boxed, finish_reason=length, "
            "sampling.temperature>0, answer=null; repeatable. Fields: columns, version, tokens, and a score's: "
            "one score of the row must meet all conditions on these.",
        ),
    ] = None,
    group: Annotated[str | None, typer.Option("--group", "-g", metavar="ID", help="Print only this group.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="Rows to print; 0 is all.")] = 10,
    mappings: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="TARGET=SOURCE", help="Column names, as for rlvr score; repeatable."),
    ] = None,
    scores: Annotated[
        list[str] | None,
        typer.Option(
            "--scores",
            metavar="SIDECAR",
            help="Sidecar of rlvr score --scores-only; repeatable.",
        ),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Print long texts in full.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print rollouts: prompt, completion, verdicts, group, policy version, how sampling ended.

    Control characters in the texts are shown as escapes.
    """
    from rlvr.record.select import Matching
    from rlvr.record.select import show as run

    mapping = column_mapping(mappings or ())
    if as_json:
        result = run(files, where=where or (), group=group, limit=limit, mapping=mapping, sidecars=scores or ())
        print_json(result.to_dict())
        return
    found = Matching(files, where=where or (), group=group, mapping=mapping, sidecars=scores or ())
    for fields in found:
        if not limit or found.matching <= limit:
            print(printable(row_text(fields, full), sys.stdout.encoding))
    if limit and found.matching > limit:
        print(f"{found.matching - limit:,} more; --limit 0 shows all")
    elif not found.matching:
        none = f"none of {found.total:,} rows matches" if found.total else f"{', '.join(files)} has no rows"
        print(none, file=sys.stderr)


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
    if (identity := fields.get("id")) is not None and fields.row.made_id is None:
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
    named = score.get("parts")
    return "\n".join(["verdict " + ", ".join(parts), *map(_part, named if isinstance(named, list) else ())])


def _part(part: Any) -> str:
    """Return the line of a part, as files hold it: a struct with a name."""
    if not isinstance(part, Mapping):
        return f"    {inline(part)}"
    reward, reason = part.get("reward"), part.get("reason")
    verdict = f"{inline(part.get('status'))}{'' if reward is None else f' {inline(reward)}'}"
    return f"    {inline(part.get('name'))}: {verdict}{'' if reason is None else f', {inline(reason)}'}"


def _indented(text: str, full: bool) -> str:
    if not full and len(text) > LONG:
        half = LONG // 2
        text = f"{text[:half]}\n[{len(text) - 2 * half:,} characters left out; --full shows them]\n{text[-half:]}"
    return "\n".join(f"    {line}" for line in text.split("\n"))
