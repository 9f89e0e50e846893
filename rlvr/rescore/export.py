"""Export scored rollouts as training data for other software: what `rlvr export` does, as one function.

The files are read twice: the first reading chooses rows by their scores and keeps a few numbers of each, the second one
writes those that were chosen.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import pyarrow as pa

from rlvr.errors import DataError, RequestError, RunError, nearest
from rlvr.files import ending, replacing, to_json, writing_lines
from rlvr.record.fields import Fields
from rlvr.record.parquet import BATCH_ROWS, RowGroups, arrow_column
from rlvr.record.row_files import STDIN, row_files
from rlvr.record.rows import Row, messages_of
from rlvr.record.select import Matching
from rlvr.record.values import json_safe
from rlvr.verify.reward_limit import stored_verdict
from rlvr.verify.score_names import counted, require_score, score_name
from rlvr.verify.scoring import DEFAULT_REWARDS

Layout: TypeAlias = Literal["sft", "dpo", "kto", "jsonl"]
Message: TypeAlias = Mapping[str, Any]
Text: TypeAlias = str | Sequence[Message]
"""Text, or the messages of a chat."""

LAYOUTS: tuple[Layout, ...] = get_args(Layout)


@dataclass(frozen=True)
class ExportResult:
    """File of training data, and counts of the rows left out."""

    file: Path
    to: Layout
    verifier: str | None
    """The verifier whose scores chose the rows; None if the rows have no scores."""
    total: int
    """Rows that were read."""
    used: int
    """Rows that were used: a pair uses two."""
    written: int
    """Rows, or pairs, that were written."""
    left_out: Mapping[str, int]
    """Reason → number of rows, the most frequent first."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row per reason; `pandas.DataFrame(result.rows)` is a table."""
        return [{"reason": reason, "rows": count} for reason, count in self.left_out.items()]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON-safe values."""
        return {
            "file": str(self.file),
            "to": self.to,
            "verifier": self.verifier,
            "total": self.total,
            "used": self.used,
            "written": self.written,
            "left_out": dict(self.left_out),
        }


def export(
    files: str | Path | Iterable[str | Path],
    out: str | Path,
    *,
    to: Layout = "sft",
    verifier: str | None = None,
    where: str | Sequence[str] = (),
    threshold: float = 0.5,
    pairs: int = 1,
    messages: bool = False,
    mapping: Mapping[str, str] | None = None,
    sidecars: str | Path | Iterable[str | Path] = (),
    force: bool = False,
) -> ExportResult:
    """Write rollouts in a layout that other software reads (TRL, axolotl).

    - `sft`: `prompt` and `completion` of right rows, or `messages`.
    - `dpo`: `prompt`, `chosen` and `rejected`: a right and a wrong completion of one group, or of one prompt.
    - `kto`: `prompt`, `completion` and `label`, whether it is right.
    - `jsonl`: one flat object per row, with its answer and score.

    Duplicate rows (equal prompt and completion) are written once.

    Args:
        files: Records or any other rows: files, folders of files, patterns; `-` is standard input.
        out: File to write, `.jsonl` (also `.gz`, `.zst`) or `.parquet`; `-` is standard output.
        to: The layout.
        verifier: The verifier whose last score on a row is its reward. None is the only one in the files.
        where: Conditions that rows must meet, as in `show`.
        threshold: Rewards at or above this count as right.
        pairs: Largest number of pairs per group.
        messages: Write every prompt and completion as messages; for `sft` in one column `messages`.
        mapping: Target → column of foreign files, or path into one.
        sidecars: Files of `rlvr score --scores-only`, whose scores follow the rows' own.
        force: Replace `out` if it exists.

    Raises RequestError if the request is wrong or no row is left, DataError for a row that cannot be read, RunError if
    a file changes while it is read.
    """
    if to not in LAYOUTS:
        raise RequestError(f"--to {to}: there is no such layout{nearest(to, LAYOUTS)}")
    if pairs < 1:
        raise RequestError(f"--pairs {pairs}: at least 1")
    given = [files] if isinstance(files, str | Path) else list(files)
    paths = row_files(given)
    conditions = [where] if isinstance(where, str) else list(where)
    beside = [sidecars] if isinstance(sidecars, str | Path) else list(sidecars)

    def rows() -> Matching:
        return Matching(paths, where=conditions, mapping=mapping, sidecars=beside)

    request = _Request(rows, to, verifier, threshold, pairs, messages)
    if str(out) != STDIN:
        _refuse_to_lose(Path(out), paths, force)
        return request.write(Path(out))
    return _to_standard_output(request)


def _to_standard_output(request: _Request) -> ExportResult:
    with tempfile.TemporaryDirectory(prefix="rlvr-stdout-") as folder:
        result = request.write(Path(folder, "stdout.jsonl"))
        with result.file.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.flush()
    return replace(result, file=Path(STDIN))


def _refuse_to_lose(out: Path, paths: Sequence[Path], force: bool) -> None:
    ending(out)
    if not out.parent.is_dir():
        raise RequestError(f"{out} cannot be written: No such file or directory: {out.parent}")
    if not out.exists():
        return
    if any(path.exists() and out.samefile(path) for path in paths):
        raise RequestError(f"--out {out} is FILE itself: training data goes to another file")
    if out.is_dir():
        raise RequestError(f"--out {out} is a folder")
    if not force:
        raise RequestError(f"{out} exists; --force replaces it")


# --- the first reading: which rows ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Candidate:
    """A row that meets the conditions, without its texts."""

    number: int
    """Its place among the rows that meet the conditions, from 0."""
    group: str | bytes
    """Its group, or the hash of its prompt."""
    prompt: bytes
    content: bytes
    """Hash of prompt and completion."""
    is_chat: bool
    scores: Mapping[str, float | str]
    """Verifier → reward of its last score, or the status of one that has no reward."""


@dataclass
class _Plan:
    """The rows to write."""

    verifier: str | None
    is_chat: bool
    labels: dict[int, bool] = field(default_factory=dict)
    """Number of a row → whether it is right."""
    pairs: list[tuple[int, int]] = field(default_factory=list)
    """Numbers of the chosen and the rejected row of each pair."""


@dataclass
class _Request:
    """Request, and the counts of what was left out."""

    matching: Callable[[], Matching]
    to: Layout
    verifier: str | None
    threshold: float
    pairs: int
    messages: bool
    left_out: Counter[str] = field(default_factory=Counter)
    total: int = 0

    def write(self, out: Path) -> ExportResult:
        """Choose the rows and write them to `out`, which gets its name only when it is complete."""
        candidates = list(self._candidates())
        plan = self._plan(candidates)
        used = len(plan.labels) + 2 * len(plan.pairs)
        written = len(plan.labels) + len(plan.pairs)
        reasons = dict(self.left_out.most_common())
        if not written:
            why = "; ".join(f"{count:,} {reason}" for reason, count in reasons.items()) or "there are none"
            raise RequestError(f"no row is left to export as {self.to}, of {self.total:,}: {why}")
        with replacing(out) as temporary, _writing(temporary, out, self._schema(plan)) as add:
            for row in self._texts(plan):
                add(row)
        return ExportResult(out, self.to, plan.verifier, self.total, used, written, reasons)

    def _candidates(self) -> Iterator[_Candidate]:
        rows = self.matching()
        for number, fields in enumerate(rows):
            texts = _texts_of(fields.row)
            if texts is None:
                self.left_out["without a prompt or a completion"] += 1
                continue
            prompt, completion = texts
            asked = _digest(prompt)
            group = fields.row.group
            yield _Candidate(
                number,
                asked if group is None else group,
                asked,
                _digest([asked.hex(), completion]),
                not (isinstance(prompt, str) and isinstance(completion, str)),
                _rewards(fields),
            )
        self.total = rows.total
        if unmet := rows.total - rows.matching:
            self.left_out["do not meet --where"] += unmet

    def _plan(self, candidates: Sequence[_Candidate]) -> _Plan:
        verifier = self._chosen_verifier(candidates)
        kinds = {each.is_chat for each in candidates}
        if len(kinds) > 1 and not self.messages and self.to != "jsonl":
            raise RequestError("some prompts are texts and others are chats: --messages writes all of them as chats")
        plan = _Plan(verifier, self.messages or kinds == {True})
        rewarded: list[tuple[_Candidate, float]] = []
        seen: set[bytes] = set()
        for each in candidates:
            reward = each.scores.get(verifier) if verifier is not None else None
            if each.content in seen:
                self.left_out["equal to an earlier row in prompt and completion"] += 1
            elif self.to == "jsonl" or (self.to == "sft" and verifier is None):
                plan.labels[each.number] = True
            elif reward is None:
                self.left_out[f"without a score by {verifier}"] += 1
                continue
            elif isinstance(reward, str):
                self.left_out[f"without a reward: {reward}"] += 1
                continue
            else:
                rewarded.append((each, reward))
            seen.add(each.content)
        if self.to == "dpo":
            self._pair(rewarded, plan)
            return plan
        for each, reward in rewarded:
            if self.to == "kto" or reward >= self.threshold:
                plan.labels[each.number] = reward >= self.threshold
            else:
                self.left_out[f"with a reward below {self.threshold:g}"] += 1
        return plan

    def _chosen_verifier(self, candidates: Sequence[_Candidate]) -> str | None:
        """Return the verifier that is named, or the only one. Raises RequestError if the choice is not clear."""
        there = Counter(name for each in candidates for name in each.scores)
        if self.verifier is not None:
            name = score_name(self.verifier)
            require_score(name, there, f"--verifier {self.verifier}")
            return name
        if len(there) > 1 and self.to != "jsonl":
            raise RequestError(f"--verifier: whose score? There are scores by: {counted(there)}")
        if not there and candidates and self.to in ("dpo", "kto"):
            raise RequestError(f"--to {self.to} chooses rows by a score, and there are none: rlvr score adds them")
        return next(iter(there)) if len(there) == 1 else None

    def _pair(self, rewarded: Iterable[tuple[_Candidate, float]], plan: _Plan) -> None:
        """Pair the best right with the worst wrong completions of each group, the earlier row first among equals."""
        groups: defaultdict[str | bytes, list[tuple[_Candidate, float]]] = defaultdict(list)
        for each, reward in rewarded:
            if groups[each.group] and groups[each.group][0][0].prompt != each.prompt:
                self.left_out["with another prompt than the rest of their group"] += 1
            else:
                groups[each.group].append((each, reward))
        for members in groups.values():
            right = sorted((m for m in members if m[1] >= self.threshold), key=lambda m: -m[1])
            wrong = sorted((m for m in members if m[1] < self.threshold), key=lambda m: m[1])
            if not right or not wrong:
                self.left_out[f"in a group that is all {'wrong' if wrong else 'right'}"] += len(members)
                continue
            chosen = [(a[0].number, b[0].number) for a, b in zip(right, wrong, strict=False)][: self.pairs]
            plan.pairs += chosen
            if rest := len(members) - 2 * len(chosen):
                self.left_out["beyond the pairs of their group"] += rest

    # --- the second reading: their texts ---

    def _texts(self, plan: _Plan) -> Iterator[dict[str, Any]]:
        """Yield the rows of the output, each pair when both of its completions have been read."""
        partner = {number: pair for pair in plan.pairs for number in pair}
        held: dict[int, tuple[Text, Text]] = {}
        left = len(plan.labels) + len(partner)
        for number, fields in enumerate(self.matching()):
            if number not in plan.labels and number not in partner:
                continue
            left -= 1
            texts = _texts_of(fields.row)
            if texts is None:
                raise RunError(f"{fields.row.where} changed while it was read")
            if self.to == "jsonl":
                yield _flat(fields, plan.verifier, texts)
                continue
            prompt, completion = _as_messages(*texts) if plan.is_chat else texts
            if number in plan.labels:
                yield self._row(plan, number, prompt, completion)
                continue
            held[number] = prompt, completion
            chosen, rejected = partner[number]
            if chosen in held and rejected in held:
                (prompt, good), (_, bad) = held.pop(chosen), held.pop(rejected)
                yield {"prompt": prompt, "chosen": good, "rejected": bad}
        if left:
            raise RunError("a file changed while it was read: it has fewer rows now")

    def _row(self, plan: _Plan, number: int, prompt: Text, completion: Text) -> dict[str, Any]:
        if self.to == "kto":
            return {"prompt": prompt, "completion": completion, "label": plan.labels[number]}
        if self.messages:
            return {"messages": [*prompt, *completion]}
        return {"prompt": prompt, "completion": completion}

    def _schema(self, plan: _Plan) -> pa.Schema:
        text = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})) if plan.is_chat else pa.string()
        match self.to:
            case "jsonl":
                return _FLAT
            case "dpo":
                return pa.schema({"prompt": text, "chosen": text, "rejected": text})
            case "kto":
                return pa.schema({"prompt": text, "completion": text, "label": pa.bool_()})
            case _:
                return pa.schema({"messages": text} if self.messages else {"prompt": text, "completion": text})


# --- rows -----------------------------------------------------------------------------------------------------------


def _texts_of(row: Row) -> tuple[Text, Text] | None:
    """Return prompt and completion, each as text or as messages; None if one is missing or empty."""
    prompt, completion = _chat_or_text(row.prompt), _completion_of(row)
    return (prompt, completion) if prompt and completion else None


def _chat_or_text(value: Any) -> Text | None:
    if isinstance(value, str) and not value.lstrip().startswith("[{"):
        return value
    turns = messages_of(value)
    return value if turns is None else [_message(turn) for turn in turns]


def _completion_of(row: Row) -> Text | None:
    """Return the completion; that of a chat as its messages, so that tool calls and reasoning stay."""
    value = None if row.is_record else row.at(row.columns["completion"])
    turns = messages_of(value) if isinstance(value, list) else None
    return [_message(turn) for turn in turns] if turns and row.completion else row.completion


def _message(turn: Message) -> Message:
    """Return a message without the nulls that Parquet adds."""
    return {key: json_safe(value) for key, value in turn.items() if value is not None}


def _as_messages(prompt: Text, completion: Text) -> tuple[Text, Text]:
    return (
        [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt,
        [{"role": "assistant", "content": completion}] if isinstance(completion, str) else completion,
    )


def _rewards(fields: Fields) -> dict[str, float | str]:
    """Return verifier → reward of its last score as training uses it, or its status."""
    found: dict[str, float | str] = {}
    for score in fields.scores:
        name, status, reward = stored_verdict(score, fields.row.where)
        used = DEFAULT_REWARDS.get(status) if reward is None else reward
        found[name] = status.value if used is None else used
    return found


_SCORE_PARTS = ("verifier", "status", "reward", "extracted", "reason")
_FLAT = pa.schema(
    {name: pa.string() for name in ("id", "group_id", "prompt", "completion", "answer", *_SCORE_PARTS)}
    | {"reward": pa.float64()}
)


def _flat(fields: Fields, verifier: str | None, texts: tuple[Text, Text]) -> dict[str, Any]:
    """Return one flat row: identity, texts (a chat as JSON text), answer, and a score."""
    by_name = [score for score in fields.scores if verifier is not None and score.get("verifier") == verifier]
    score = by_name[-1] if by_name else {name: fields.get(name) for name in _SCORE_PARTS}
    prompt, completion = (each if isinstance(each, str) else to_json(each) for each in texts)
    row = {"id": fields.row.id, "group_id": fields.row.group, "prompt": prompt, "completion": completion}
    return {**row, "answer": fields.row.gold, **{name: score.get(name) for name in _SCORE_PARTS}}


def _digest(value: Any) -> bytes:
    return hashlib.sha256(to_json(value).encode()).digest()[:16]


@contextmanager
def _writing(temporary: Path, path: Path, schema: pa.Schema) -> Iterator[Callable[[dict[str, Any]], object]]:
    """Yield a function that appends a row to a file of the format that the ending of `path` says."""
    if ending(path) != ".parquet":
        with writing_lines(temporary, path) as file:
            yield lambda row: file.write(to_json(row) + "\n")
        return
    held: list[dict[str, Any]] = []
    with RowGroups(temporary, schema) as groups:

        def flush() -> None:
            arrays = [
                arrow_column([row[name.name] for row in held], name, lambda i: f"{path}, a row of the last {len(held)}")
                for name in schema
            ]
            groups.add(pa.RecordBatch.from_arrays(arrays, schema=schema))
            held.clear()

        def add(row: dict[str, Any]) -> None:
            for turn in (turn for text in row.values() if isinstance(text, list) for turn in text):
                if more := turn.keys() - {"role", "content"} or not isinstance(turn.get("content", ""), str):
                    raise DataError(f"{path}: Parquet holds messages of role and content; write .jsonl for {more}")
            held.append(row)
            if len(held) == BATCH_ROWS:
                flush()

        yield add
        if held:
            flush()
