"""Prompt data sets: rows to prompts, prompts to token ids, and the seeded order of prompts.

A data set is described by a YAML file (in `datasets_cfg/`, or a user's own) and read by the `datasets` library from the
hub or from local files in the same layout; or a plugin's factory makes it. Gold answers are extracted from all rows
when the source is made, so that bad rows are reported before any weights are loaded.
"""

from __future__ import annotations

import itertools
import logging
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias
from weakref import WeakKeyDictionary

from pydantic import Field, field_validator, model_validator

from rlvr.data.curriculum import Curriculum
from rlvr.data.databases import database_schema
from rlvr.data.gold_extraction import EXPECTED, EXTRACTORS, Gold
from rlvr.data.selection import is_kept, lettered, options_of, question_mark, right_letter
from rlvr.data.tables import ENDINGS, Table, file_table, hub_table, joined, local_files
from rlvr.data.templates import CHOICES, QUESTION, SCHEMA, columns_in, fill, placeholders
from rlvr.draws import permuted
from rlvr.errors import DataError, PluginError, RequestError, nearest
from rlvr.files import utf8_text
from rlvr.frozen import Frozen
from rlvr.protocols import EvaluationDefaults, Prompt, PromptSource, SourceRequest
from rlvr.record.foreign_formats import likely_column
from rlvr.record.paths import at_path
from rlvr.record.row_files import is_saved_dataset
from rlvr.record.schema import Message, Stop, Task, canonical_json, digest
from rlvr.record.values import json_safe
from rlvr.registry import registry
from rlvr.settings import Setting, formerly, read_settings, validate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

_log = logging.getLogger("rlvr")

Role: TypeAlias = Literal["train", "eval"]

_QUESTION_COLUMNS = ("question", "prompt", "problem")
DATABASE = "db_id"
"""Column that names the database of a row, in text-to-SQL data sets."""
VERL_ANSWER = "reward_model.ground_truth"
"""Path of the gold answers in verl's data sets."""

_ENCODABLE: WeakKeyDictionary[Any, dict[str, bool]] = (
    WeakKeyDictionary()
)  # per tokenizer: whether it can encode a character
_MANY = 10_000  # consecutive prompts that are too long, after which an endless source is assumed to have no short ones


class DatasetCard(Frozen):
    """The description of a prompt data set, as in its YAML file."""

    hub: str | None = Field(default=None, description="repository of the Hugging Face hub")
    configs: tuple[str | None, ...] = Field(
        default=(None,), description="configurations of the repository, one after another"
    )
    revision: str | None = Field(default=None, description="branch, tag or commit")
    splits: dict[Role, str] = Field(default_factory=dict, description="the split for training, and the held-out split")
    question: str | None = Field(
        default=None, description="column with the question, text or a chat, or a path into one"
    )
    answer: str = Field(default="answer", description="column that holds the gold answer, or a path into one")
    gold: Gold = Field(
        default="whole",
        description="where the gold answer is: whole (the column), hashes (after the last ####), boxed (the last box), "
        "json (the column's value as JSON text)",
    )
    without_gold: Literal["error", "drop"] = Field(
        default="error", description="rows without a gold answer: reject the data set, or leave them out and count them"
    )
    not_gold: tuple[str, ...] = Field(
        default=(), description="texts in the column of the answer that are no gold answer"
    )
    keep: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="column → its values in the rows that are kept; others are left out"
    )
    distinct: bool = Field(default=False, description="leave out rows whose question has come before")
    choices: tuple[str, ...] = Field(
        default=(),
        description="columns with the options of a multiple-choice question, for the placeholder {choices}: one with a "
        "list, or the right option's and then the wrong ones', which are shuffled by the question",
    )
    join: str | None = Field(
        default=None,
        description="column by which several files are one table: rows with the same value are one row with the "
        "columns of all",
    )
    databases: str | None = Field(
        default=None,
        description="folder with a SQLite file NAME/NAME.sqlite for each value of the column db_id, for the "
        "placeholder {schema}",
    )
    question_in_task: bool = Field(
        default=False, description="give the verifier the column of the question as well, in task.extra"
    )
    id: str | None = Field(default=None, description="column that identifies a row; default: its number, from 0")
    plain: str = Field(
        default="{question}", description="prompt for a base model; {COLUMN} is filled in, {{text}} is literal"
    )
    stop: tuple[str, ...] = Field(default=(), description="strings that end a base model's completion")
    system: str | None = Field(default=None, description="system prompt for a chat model, a template like plain")
    user: str = Field(default="{question}", description="user message for a chat model, a template like plain")
    verifier: str = Field(default="math", description="verifier to use if the run names none")
    evaluation: EvaluationDefaults = Field(
        default=EvaluationDefaults(), description="how rlvr eval asks the questions, unless the request says otherwise"
    )
    license: str | None = Field(
        default=None, description="license of the data set", json_schema_extra=formerly("licence")
    )
    source: str | None = Field(default=None, description="where the data set is documented")
    rows: dict[Role, int] = Field(default_factory=dict, description="number of rows of each split, as published")

    @field_validator("plain", "user")
    @classmethod
    def _asks_the_question(cls, template: str) -> str:
        if QUESTION not in placeholders(template):
            raise ValueError("the template lacks {question}")
        return template

    @model_validator(mode="after")
    def _shows_the_choices(self) -> Self:
        if self.choices and any(CHOICES not in placeholders(template) for template in (self.plain, self.user)):
            raise ValueError("the card has choices, and the templates plain and user need {choices}")
        if len(self.choices) > 1 and self.choices[0] != self.answer:
            raise ValueError(f"the first of the choices is the right one: it must be the answer, {self.answer!r}")
        return self

    def identity(self) -> str:
        """Return a hash of what decides the prompts and gold answers. Newer keys count only if they are used."""
        newer = {"not_gold", "keep", "distinct", "choices", "join", "question_in_task"}
        unused = {key for key in newer if not getattr(self, key)}
        # A folder may move: what decides the prompts is in it, and `CardSource.digests` has the hash of that.
        return digest(self.model_dump(mode="json", exclude={"rows", "evaluation", "databases", *unused}))


class CardSource(PromptSource):
    """Prompts from the rows of a data set that a card describes."""

    def __init__(self, name: str, card: DatasetCard, request: SourceRequest) -> None:
        """Read every question and extract every gold answer.

        Raises RequestError if the data set or its split is not available, DataError for a bad column or row.
        """
        self._tables = _tables(name, card, request)
        card = _with_verls_answer(card, self._tables)
        self.name, self.card, self.chat, self.split = name, card, request.chat, request.split
        self.default_verifier, self.evaluation = card.verifier, card.evaluation
        self.stop = () if request.chat else card.stop
        self._first_rows = _running_sum(len(table.rows) for table in self._tables)
        if not self._first_rows[-1]:
            raise DataError(f"{', '.join(table.where for table in self._tables)}: there are no rows")
        self._question = _question_column(self._tables, card)
        self._schemas = _schemas(self._tables, card)
        """db_id → statements that make the tables of its database; empty if the card names no databases."""
        self._filled = _filled_columns(self._tables, card, chat=self.chat)
        self._golds: list[str] = []
        seen: set[bytes] = set()
        self._rows = array("Q")  # the row of each prompt, counted over all tables
        for first, table in zip(self._first_rows, self._tables, strict=False):
            for row, gold in _golds(table, card, self._question, seen):
                self._rows.append(first + row)
                self._golds.append(gold)
        self.without_gold = self._first_rows[-1] - len(self._rows)
        """Number of rows that were left out: without a gold answer, or not kept by the card."""
        if not self._rows:
            raise DataError(f"{', '.join(table.where for table in self._tables)}: no row has a gold answer")

    @property
    def size(self) -> int:
        """Number of prompts."""
        return len(self._rows)

    def digests(self) -> Mapping[str, str]:
        """Return hashes of the card and of every table. Reads all rows."""
        schemas = {f"databases of {self.name}": digest(self._schemas)} if self._schemas else {}
        tables = {table.name: table.digest() for table in self._tables}
        return {f"card of {self.name}": self.card.identity(), **schemas, **tables}

    def __getitem__(self, index: int, /) -> Prompt:
        """Return prompt `index`. Raises DataError if there is none."""
        if not 0 <= index < self.size:
            raise DataError(f"dataset {self.name} has no question {index} in its split {self.split!r}")
        card, number = self.card, self._rows[index]
        place = bisect_right(self._first_rows, number) - 1
        table, i = self._tables[place], number - self._first_rows[place]
        row = table.rows[i]
        asked = at_path(row, self._question)
        question = table.question(self._question, i, asked)
        assert question is not None, "every question was read when the source was made"
        used = {card.answer} if card.gold == "whole" else set()
        if not card.question_in_task:
            used.add(self._question)
        task = Task(
            dataset=self.name,
            row_id=str(number) if card.id is None else table.text(card.id, i, row.get(card.id)),
            split=self.split,
            answer=self._golds[index],
            extra={key: json_safe(value) for key, value in row.items() if key not in used},
        )
        values = {name: table.shown(name, i, row.get(name)) or "" for name in self._filled}
        if card.choices:
            options = options_of(question, [at_path(row, column) for column in card.choices]) or []
            task = task.model_copy(update={"extra": {**task.extra, CHOICES: options}})
            values[CHOICES] = lettered(options)
        if self._schemas:
            values[SCHEMA] = self._schemas[row[DATABASE]]
        turns = table.chat(self._question, i, asked) or [{"role": "user", "content": question}]
        if not self.chat:
            return Prompt(
                task, text=fill(card.plain, values | {QUESTION: _as_text(turns, f"{table.where}, row {i + 1}")})
            )
        user = Message(role="user", content=fill(card.user, values | {QUESTION: question}))
        before = [Message(**turn) for turn in turns[:-1]]
        if card.system and all(turn.role != "system" for turn in before):
            before = [Message(role="system", content=fill(card.system, values | {QUESTION: question})), *before]
        return Prompt(task, messages=(*before, user))

    def question(self, index: int) -> str:
        """Return the question of prompt `index`, without the template around it."""
        place = bisect_right(self._first_rows, self._rows[index]) - 1
        table, i = self._tables[place], self._rows[index] - self._first_rows[place]
        return table.question(self._question, i, at_path(table.rows[i], self._question)) or ""

    def questions(self) -> Iterator[str]:
        """Yield the question of every prompt. Only the column of the questions is read."""
        with_gold = iter(self._rows)
        due = next(with_gold)
        for first, table in zip(self._first_rows, self._tables, strict=False):
            cells = table.cells(self._question) if len(table.rows) else ()
            for row, (value,) in enumerate(cells):
                if first + row == due:
                    yield table.question(self._question, row, value) or ""
                    due = next(with_gold, -1)


def load_source(name: str, request: SourceRequest) -> PromptSource:
    """Return a prompt source by name: a registered one, a user's `.yaml`, or a file of questions and answers.

    `request.options` changes the card of a data set (`{"question": "problem"}`), or goes to a plugin's factory.
    `request.data_files` are read instead of the hub, or instead of the file that `name` is. Raises RequestError or
    PluginError for something that does not exist, DataError for bad rows.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise RequestError(f"dataset: there is no file {name}")
        return CardSource(path.stem, _card(path, request.options), request)
    if path.suffix in ENDINGS or is_saved_dataset(path):
        if request.data_files and request.split == "train":
            raise RequestError(f"dataset {name} is a file of its own: leave out {request.data_files[0]}, or name it")
        card = validate(DatasetCard, _options(request.options), "dataset.options.")
        files = request.data_files or (path,)
        return CardSource(path.stem, card, replace(request, data_files=files))
    known = registry().names("prompt_source")
    if name not in known:
        raise PluginError(
            f"there is no dataset {name!r}{nearest(name, known)} (a file of questions ends in "
            f"{', '.join(ENDINGS)}, or is a folder of save_to_disk; a description of a data set ends in .yaml)"
            f"{registry().hint('prompt_source')}"
        )
    target = registry().load("prompt_source", name)
    if isinstance(target, Path):
        return CardSource(name, _card(target, request.options), request)
    source = target(request)
    if not isinstance(source, PromptSource):
        raise PluginError(
            f"prompt source {name!r} made a {type(source).__name__}, which is no rlvr.protocols.PromptSource: let its "
            "class inherit from it"
        )
    return source


def _card(path: Path, options: Mapping[str, Any]) -> DatasetCard:
    return validate(DatasetCard, read_settings(path, named=()) | _options(options))


def _options(options: Mapping[str, Any]) -> dict[str, Setting]:
    return {key: Setting(value, "dataset.options") for key, value in options.items()}


def _tables(name: str, card: DatasetCard, request: SourceRequest) -> list[Table]:
    if request.split == "train" and set(card.splits) == {"eval"}:
        raise RequestError(
            f"dataset {name} is for evaluation only: train on another data set, and set eval.dataset to this one"
        )
    if request.data_files:
        tables = [file_table(path) for path in local_files(name, request.data_files)]
        return [joined(tables, card.join)] if card.join is not None and len(tables) > 1 else tables
    if card.join is not None:
        raise RequestError(
            f"dataset {name} is published as several files that belong together by their column {card.join!r}: "
            "download them, and name all of them with --data-files"
        )
    if request.split not in card.splits:
        has = ", ".join(card.splits) or "none"
        raise RequestError(f"dataset {name} has no {request.split!r} split (it has: {has}); give --data-files FILE")
    if card.hub is None:
        raise RequestError(f"dataset {name} names no hub repository: give --data-files FILE")
    split = card.splits[request.split]
    return [hub_table(name, card.hub, configuration, split, card.revision) for configuration in card.configs]


def _schemas(tables: Sequence[Table], card: DatasetCard) -> dict[str, str]:
    """Return the statements that make the tables of each row's database, by name. Raises DataError for a row without
    one."""
    found: dict[str, str] = {}
    if card.databases is None:
        return found
    for table in tables:
        for row, (name,) in enumerate(table.cells(DATABASE) if len(table.rows) else ()):
            if not isinstance(name, str):
                raise DataError(f"{table.where}, row {row + 1}: column {DATABASE!r} names no database")
            if name not in found:
                try:
                    found[name] = database_schema(Path(card.databases), name)
                except DataError as error:
                    raise DataError(f"{table.where}, row {row + 1}: {error}") from error
    return found


def _running_sum(lengths: Iterable[int]) -> list[int]:
    return [0, *itertools.accumulate(lengths)]


def _question_column(tables: Sequence[Table], card: DatasetCard) -> str:
    """Return the column of the question. Raises DataError if a table lacks it, or the answer's or the id's column."""
    filled = [table for table in tables if len(table.rows)]
    others = [*((column, "choices") for column in card.choices), *((column, "keep") for column in card.keep)]
    question = card.question
    if question is None:
        found = [column for column in _QUESTION_COLUMNS if column in filled[0].columns]
        if len(found) != 1:
            raise DataError(
                f"{filled[0].where}: which column is the question? Set it with "
                f"--set dataset.options.question=COLUMN; there are: {', '.join(filled[0].columns)}"
            )
        question = found[0]
    for table in filled:
        for column, what in ((question, "question"), (card.answer, "answer"), (card.id, "id"), *others):
            if column is not None and not table.has(column):
                likely = likely_column(what, table.columns)
                hint = f", for example {likely}" if likely else ""
                raise DataError(
                    f"{table.where}: there is no column {column!r} for the {what} (dataset.options.{what} names "
                    f"another{hint}); there are: {', '.join(table.columns)}"
                )
    return question


def _with_verls_answer(card: DatasetCard, tables: Sequence[Table]) -> DatasetCard:
    """Return the card, with the gold answers where verl's data sets have them if there is no column `answer`."""
    filled = [table for table in tables if len(table.rows)]
    if card.answer != "answer" or not filled or any(table.has("answer") for table in filled):
        return card
    verls = all(isinstance(at_path(table.rows[0], VERL_ANSWER), str | int | float) for table in filled)
    return card.model_copy(update={"answer": VERL_ANSWER}) if verls else card


def _as_text(turns: Sequence[Mapping[str, str]], where: str) -> str:
    """Return a chat of one question as text for a base model, its system prompt first.

    Raises DataError for a chat of several turns.
    """
    if any(turn["role"] not in ("system", "user") for turn in turns) or len(turns) > 2:
        roles = ", ".join(turn["role"] for turn in turns)
        raise DataError(f"{where}: a base model takes text, and the prompt is a chat ({roles}): use a chat model")
    return "\n\n".join(turn["content"] for turn in turns)


def _filled_columns(tables: Sequence[Table], card: DatasetCard, *, chat: bool) -> list[str]:
    """Return the columns, besides the question, that the templates of this kind of model use.

    Raises ConfigError for a placeholder in any template that no column fills, DataError for a row without the text.
    """
    used: list[str] = []
    for key, template in (("plain", card.plain), ("system", card.system or ""), ("user", card.user)):
        for table in (table for table in tables if len(table.rows)):
            setting = f"dataset.options.{key}"
            own = [*([CHOICES] if card.choices else []), *([SCHEMA] if card.databases is not None else [])]
            known = (*table.columns, *own)
            found = columns_in(template, known, answer=card.answer, key=setting, where=table.where)
            found = [column for column in found if column not in own]
            if chat != (key == "plain"):
                _require_cells(table, found, setting)
                used += found
    return list(dict.fromkeys(used))


def _require_cells(table: Table, columns: Sequence[str], setting: str) -> None:
    """Raise DataError for a row without text in one of these columns, which the template of `setting` fills in."""
    for row, cells in enumerate(table.cells(*columns) if columns else ()):
        for column, value in zip(columns, cells, strict=True):
            if table.shown(column, row, value) is None:
                raise DataError(f"{table.where}, row {row + 1}: column {column!r} is empty, and {setting} fills it in")


def _golds(table: Table, card: DatasetCard, question: str, seen: set[bytes]) -> Iterator[tuple[int, str]]:
    """Yield `(row, gold answer)` for each row that has one and that the card keeps. `seen` holds earlier questions."""
    if not len(table.rows):
        return
    for row, (asked, answer, *more) in enumerate(table.cells(question, card.answer, *card.keep, *card.choices)):
        if not is_kept(card.keep, more[: len(card.keep)]):
            continue
        text = table.question(question, row, asked) or ""
        if not text.strip():
            raise DataError(
                f"{table.where}, row {row + 1}: column {question!r} holds no question; {_columns(table, row)}"
            )
        if card.distinct:
            if (mark := question_mark(text)) in seen:
                continue
            seen.add(mark)
        gold = _gold(table, card, row, answer)
        options = more[len(card.keep) :]
        if options and options_of(text, options) is None:
            raise DataError(f"{table.where}, row {row + 1}: no options in {', '.join(card.choices)}; expected texts")
        if gold is not None:
            yield row, right_letter(text, options) if len(options) > 1 else gold


def _gold(table: Table, card: DatasetCard, row: int, answer: Any) -> str | None:
    """Return the gold answer of a row; None if it has none and may be left out. Raises DataError otherwise."""
    if card.gold == "json" and not isinstance(answer, str | None):
        answer = canonical_json(json_safe(answer))
    text = table.text(card.answer, row, answer)
    gold = EXTRACTORS[card.gold](text) if text is not None else None
    if gold and gold.casefold() not in card.not_gold:
        return gold
    if card.without_gold == "drop":
        return None
    raise DataError(
        f"{table.where}, row {row + 1}: column {card.answer!r} holds no gold answer: expected "
        f"{EXPECTED[card.gold]}, got {str(answer)[-60:]!r}; {_columns(table, row)} (to leave such rows out: "
        "--set dataset.options.without_gold=drop)"
    )


def _columns(table: Table, row: int) -> str:
    return f"its columns are: {', '.join(table.rows[row])}"


# --- token ids ------------------------------------------------------------------------------------------------------


def encode(
    prompt: Prompt, tokenizer: Tokenizer, template_kwargs: Mapping[str, Any] = MappingProxyType({})
) -> tuple[int, ...]:
    """Return the prompt's token ids, as the model sees it. `template_kwargs` go to the chat template.

    Messages go through the chat template, with its generation prompt (a prefilled `<think>` belongs to the prompt). The
    template writes its own BOS, so the tokenizer adds none. Plain text gets the tokenizer's special tokens, but never
    an EOS at its end. Raises DataError if characters would be lost, RequestError if the chat template rejects the
    messages.
    """
    chat = prompt.messages is not None
    text = _chat_text(prompt, tokenizer, template_kwargs) if chat else prompt.text or ""
    where = f"row {prompt.task.row_id} of {prompt.task.dataset}"
    try:
        encoding = tokenizer(text, add_special_tokens=not chat, return_offsets_mapping=bool(tokenizer.is_fast))
        ids: list[int] = encoding["input_ids"]
        lost = _lost(text, ids, encoding.get("offset_mapping"), tokenizer, special=not chat)
    except Exception as error:  # the Rust library raises bare Exceptions, for a vocabulary without an unknown token
        raise DataError(f"{where}: the model's tokenizer rejects it: {error}") from error
    if lost:
        named = [f"{part!r} (U+{ord(part):04X})" if len(part) == 1 else repr(part) for part in lost]
        more = f" and {len(named) - 10} more" if len(named) > 10 else ""
        raise DataError(f"{where}: the model's tokenizer has no token for {', '.join(named[:10])}{more}")
    if not chat and ids and ids[-1] == tokenizer.eos_token_id:
        written: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        if ids[-len(written) :] != written:  # otherwise the text itself ends with it
            ids = ids[:-1]
    if not ids:
        raise DataError(f"{where}: the prompt has no token")
    return tuple(ids)


def _chat_text(prompt: Prompt, tokenizer: Tokenizer, template_kwargs: Mapping[str, Any]) -> str:
    from jinja2 import TemplateError

    assert prompt.messages is not None
    if tokenizer.chat_template is None:
        raise RequestError("the model's tokenizer has no chat template: a base model takes text, not messages")
    turns = [turn.model_dump() for turn in prompt.messages]
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **template_kwargs))
    except TemplateError as error:
        raise RequestError(
            f"the model's chat template rejects the messages ({', '.join(turn['role'] for turn in turns)}): {error}; "
            "leave out a system prompt with --set dataset.options.system=null"
        ) from error


def _lost(
    text: str, ids: Sequence[int], offsets: Sequence[tuple[int, int]] | None, tokenizer: Tokenizer, special: bool
) -> list[str]:
    """Return the characters that the tokenizer drops or maps to its unknown token.

    A character is dropped if it has no token of its own and does not change the ids. (White space may have no token and
    still split words. A BPE model's offsets do not show what it drops.)
    """
    unknown = _unknown(tokenizer)

    def ids_of(part: str, special: bool) -> list[int]:
        return list(tokenizer(part, add_special_tokens=special)["input_ids"])

    known = _ENCODABLE.setdefault(tokenizer, {})
    for part in set(text) - known.keys():
        alone = ids_of(part, special=False)
        known[part] = bool(alone) and unknown.isdisjoint(alone)
    suspects = {part for part in set(text) if not known[part]}
    if not suspects:
        return []
    lost: set[str] = set()
    if offsets is None and not unknown.isdisjoint(ids):  # a tokenizer in Python has no offsets
        lost = {part for part in suspects if not unknown.isdisjoint(ids_of(part, special=False))}
    for (a, b), token in zip(offsets or (), ids if offsets else (), strict=True):
        if token in unknown and text[a:b].strip() not in ("", tokenizer.convert_ids_to_tokens(token)):
            lost.add(text[a:b].strip())
    named = set("".join(lost))
    lost |= {part for part in suspects - named if ids_of(text.replace(part, ""), special) == list(ids)}
    return sorted(lost)


def _unknown(tokenizer: Tokenizer) -> set[int]:
    """Return ids of unknown tokens: the tokenizer's, and its model's, which may be undeclared (a pad token, say)."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    name = getattr(backend.model, "unk_token", None) if backend is not None else None
    found = {tokenizer.unk_token_id, backend.token_to_id(name) if backend is not None and name is not None else None}
    return {i for i in found if i is not None}


def _escaped(prompt: Prompt) -> Prompt:
    """Return the prompt with lone surrogates as escapes; the same object if it has none."""
    given = (dict(prompt.task), prompt.text, [turn.model_dump() for turn in prompt.messages or ()])
    task, text, turns = clean = _escaped_value(given)
    if clean == given:
        return prompt
    return Prompt(Task(**task), text, None if prompt.messages is None else tuple(Message(**turn) for turn in turns))


def _escaped_value(value: Any) -> Any:
    if isinstance(value, str):
        return utf8_text(value)
    if isinstance(value, Mapping):
        return {_escaped_value(key): _escaped_value(entry) for key, entry in value.items()}
    if isinstance(value, tuple):
        return tuple(map(_escaped_value, value))
    return list(map(_escaped_value, value)) if isinstance(value, list) else value


# --- order ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Encoded:
    """A prompt at its position in the order, ready for a sampler."""

    position: int
    index: int
    prompt: Prompt
    token_ids: tuple[int, ...]
    stop: Stop = field(default_factory=Stop)


class PromptStream:
    """The order of a source's prompts: a function of (seed, epoch, position), so a position is enough to resume.

    Every epoch has every question once, in its own order. An endless source is read in its own order. Text with lone
    surrogates, which no UTF-8 file and no tokenizer takes, is escaped, counted in `escaped`, and logged once.
    """

    def __init__(
        self,
        source: PromptSource,
        encode: Callable[[Prompt], tuple[int, ...]],
        *,
        seed: int,
        max_prompt_tokens: int,
        shuffle: bool = True,
        limit: int | None = None,
        stop: Stop | None = None,
        curriculum: Curriculum | None = None,
    ) -> None:
        """Use the first `limit` questions of the source. Prompts over `max_prompt_tokens` are dropped and counted.

        `stop` ends the completions of every prompt. `curriculum` passes over questions; its rates are state, too.
        """
        self.curriculum = curriculum
        self._stop = stop or Stop()
        self._source, self._encode, self._seed, self._shuffle = source, encode, seed, shuffle
        self._max_prompt_tokens = max_prompt_tokens
        self.size = source.size if limit is None else min(limit, source.size or limit)
        self.position = 0
        """Position of the next prompt. With `dropped` and `escaped`, it is the state to resume from."""
        self.dropped = 0
        """Number of prompts that were too long, counted each time they came up."""
        self.escaped = 0
        """Number of prompts with text that had to be escaped, counted each time they came up."""

    def seek(self, position: int, dropped: int = 0, escaped: int = 0) -> None:
        """Continue at a position."""
        self.position, self.dropped, self.escaped = position, dropped, escaped

    def take(self, n: int) -> list[Encoded]:
        """Return the next `n` prompts that are short enough. Raises DataError, and stays, if there seem to be none."""
        return self._take(n, end=None)

    def peek(self, n: int) -> list[Encoded]:
        """Return what `take` would, without moving on."""
        position, dropped, escaped = self.position, self.dropped, self.escaped
        try:
            return self.take(n)
        finally:
            self.position, self.dropped, self.escaped = position, dropped, escaped

    def first(self, n: int) -> list[Encoded]:
        """Return the first `n` distinct prompts that are short enough, or all of them: the questions of an
        evaluation."""
        self.seek(0)
        return self._take(n, end=self.size)

    def batches(self, n: int) -> Iterator[list[Encoded]]:
        """Yield every prompt that is short enough once, from the current position on, in lists of `n`."""
        while self.position != self.size:
            if batch := self._take(n, end=self.size):
                yield batch

    def _take(self, n: int, end: int | None) -> list[Encoded]:
        taken: list[Encoded] = []
        too_long: list[int] = []  # lengths, since the last prompt that was short enough
        # One short prompt may be first in an epoch and last in the next, with all others twice in between.
        enough = _MANY if self.size is None else 2 * self.size - 1
        dropped, position = self.dropped, self.position
        while len(taken) < n and position != end:
            index = self._index(position)
            if self.curriculum is not None and not self.curriculum.asks(index, position):
                position += 1
                continue
            prompt = self._storable(self._source[index])
            token_ids = self._encode(prompt)
            if len(token_ids) <= self._max_prompt_tokens:
                taken.append(Encoded(position, index, prompt, token_ids, self._stop))
                too_long = []
            else:
                too_long.append(len(token_ids))
                dropped += 1
            position += 1
            if len(too_long) == enough or (position == end and not taken and self.position == 0):
                raise DataError(
                    f"{len(too_long):,} prompts in a row have more than {self._max_prompt_tokens} tokens (the shortest "
                    f"has {min(too_long):,}): raise dataset.max_prompt_tokens or, if the model's positions "
                    "limit them, lower sampling.max_tokens"
                )
        self.position, self.dropped = position, dropped
        return taken

    def _storable(self, prompt: Prompt) -> Prompt:
        storable = _escaped(prompt)
        if storable is not prompt:
            if not self.escaped:
                _log.warning(
                    "row %s of %s holds lone surrogates, which no file can hold: they are escaped, here and elsewhere",
                    storable.task.row_id,
                    storable.task.dataset,
                )
            self.escaped += 1
        return storable

    def _index(self, position: int) -> int:
        if self.size is None:
            return position
        epoch, place = divmod(position, self.size)
        return permuted(self.size, place, self._seed, "prompts", epoch) if self._shuffle else place
