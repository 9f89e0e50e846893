"""`rlvr show`: rollouts for reading."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlvr.cli.filters import Condition, as_text, condition
from rlvr.cli.texts import inline, printable
from rlvr.errors import RequestError, nearest

if TYPE_CHECKING:
    from rlvr.record.rows import Row

LONG = 4000
"""Longer texts are shown without their middle."""

# Of the last score, and of the record: what --where may name beside the row's own columns.
_OF_SCORE = ("status", "reward", "verifier", "extracted", "reason", "seconds")
_OF_ROW = ("completion", "answer", "prompt", "id", "group_id", "version", "tokens", *_OF_SCORE)


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
    from rlvr.files import existing
    from rlvr.rescore.rescoring import source_of

    conditions = [condition(expression) for expression in where or ()]
    sources = source_of(existing(file), mappings or ()).columns
    seen: set[str] = set()
    matching = rows = 0
    for row in _rows(file, sources, scores or ()):
        rows += 1
        view = View(row, sources)
        seen.update(view.names())
        if group is not None and view.get("group_id") != group:
            continue
        if not all(each.holds(view.get(each.field)) for each in conditions):
            continue
        matching += 1
        if not limit or matching <= limit:
            print(printable(view.text(full), sys.stdout.encoding))
    refuse_unknown(conditions, seen, str(file))
    if limit and matching > limit:
        print(f"{matching - limit:,} more; --limit 0 shows all")
    elif not matching:
        print(f"none of {rows:,} rows matches" if rows else f"{file} has no rows", file=sys.stderr)


def _rows(file: Path, sources: Mapping[str, str], sidecars: Sequence[str]) -> Iterator[Row]:
    from rlvr.record.rows import joined, read_batches
    from rlvr.record.sidecar import Sidecars
    from rlvr.record.store import TOKEN_COLUMNS

    beside = Sidecars(sidecars)
    for batch in read_batches(file):
        for row in batch.rows(sources.values(), without=TOKEN_COLUMNS - {"loss_mask"}):
            yield joined(row, sources, beside)
    beside.refuse_unused()


def refuse_unknown(conditions: Sequence[Condition], seen: set[str], file: str) -> None:
    """A field that no row has is a mistake, and not a condition that nothing meets."""
    for each in conditions:
        name = each.field.partition(".")[0]
        if seen and each.field not in seen and name not in seen:
            raise RequestError(f"--where {each.text}: {file} has no field {each.field!r}{nearest(name, seen)}")


class View:
    """A row as people ask for it, whatever file it is from and however damaged it is."""

    def __init__(self, row: Row, sources: Mapping[str, str]) -> None:
        """Raises DataError for a record of a schema version that is unknown here."""
        from rlvr.record.rows import UnusableError
        from rlvr.record.store import upgrade

        self._place = row.where.rpartition(", ")[2]
        self._values = upgrade(row.values, row.where) if row.is_record else row.values
        scores = self._values.get("scores")
        self._scores = [each for each in scores if isinstance(each, dict)] if isinstance(scores, list) else []
        self._named: dict[str, Any] = {}
        if row.is_record:
            self._named["answer"] = self._at("task.answer")
            self._named["prompt"] = _messages(self._values.get("messages")) or self._values.get("prompt")
            if isinstance(mask := self._values.get("loss_mask"), list):
                self._named["tokens"] = sum(map(bool, mask))
            if runs := self._versions():
                self._named["version"] = runs[-1]
        else:
            for target, column in sources.items():
                try:
                    self._named[target] = row.text(column)
                except UnusableError:
                    self._named[target] = _messages(row.values[column]) or row.values[column]
        if self._scores:
            self._named.update({name: self._scores[-1].get(name) for name in _OF_SCORE})

    def names(self) -> set[str]:
        """What `get` knows."""
        return {*self._values, *_OF_ROW}

    def get(self, name: str) -> Any:
        """A field by its name: of the last score, of the row, or inside one of its structs (`task.answer`)."""
        return self._named[name] if name in self._named else self._at(name)

    def _at(self, name: str) -> Any:
        if name in self._values:
            return self._values[name]
        found: Any = self._values
        for part in name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        return found

    def _versions(self) -> list[int]:
        runs = self._values.get("policy_versions")
        versions = [run.get("version") for run in runs if isinstance(run, dict)] if isinstance(runs, list) else []
        return [version for version in versions if isinstance(version, int)]

    def text(self, full: bool) -> str:
        """The row for reading."""
        blocks = [f"--- {' | '.join(self._heading())}"]
        prompt = self.get("prompt")
        turns = prompt if isinstance(prompt, list) else [{"role": "prompt", "content": prompt}]
        turns = [*turns, {"role": "completion", "content": self.get("completion")}]
        for turn in turns:
            content = turn.get("content")
            if content is not None:
                blocks.append(f"{inline(turn.get('role'))}\n{_indented(as_text(content), full)}")
        verdicts = [_verdict(each) for each in self._scores] or ["no verdict"]
        if (answer := self.get("answer")) is not None:
            verdicts.append(f"gold {inline(answer)}")
        return "\n".join([*blocks, *verdicts, ""])

    def _heading(self) -> Iterator[str]:
        yield self._place
        if (identity := self.get("id")) is not None:
            yield f"id {inline(identity)}"
        if (group := self.get("group_id")) is not None:
            index, size = self.get("index"), self.get("group_size")
            place = f", {index + 1} of {size}" if isinstance(index, int) and isinstance(size, int) else ""
            yield f"group {inline(group)}{place}"
        if versions := self._versions():
            first, last = min(versions), max(versions)
            yield f"policy version {first}" if first == last else f"policy versions {first} to {last}"
        if (tokens := self.get("tokens")) is not None:
            yield f"{inline(tokens)} tokens"
        if (finish := self.get("finish_reason")) is not None:
            stop = self.get("stop_reason")
            yield f"finished: {inline(finish)}{'' if stop is None else f' ({inline(stop)})'}"


def _messages(value: Any) -> list[dict[str, Any]] | None:
    """A chat, from a list of messages or its JSON text; None when it is none."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, list) and all(isinstance(turn, dict) for turn in value) else None


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
