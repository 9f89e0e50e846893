"""Rows to prompts, prompts to ids, and the order: on files in the published layouts, with real small tokenizers."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast

from rlvr.data.prompts import CardSource, PromptStream, encode, load_source
from rlvr.errors import ConfigError, DataError, PluginError, RequestError
from rlvr.protocols import ModelSpec, Prompt, SourceRequest
from rlvr.record.schema import Message, Rollout, Task
from rlvr.record.store import read_rollouts, write_rollouts
from rlvr.run.config import resolve
from rlvr.run.models import load_tokenizer
from rlvr.run.plan import make_plan
from rlvr.settings import Setting

GSM8K = [
    {"question": "Janet has 3 ducks. How many legs?", "answer": "3 ducks have 3*2=<<3*2=6>>6 legs.\n#### 6"},
    {"question": "How much is a car?", "answer": "It is 1000*18.\n#### 18,000"},
]
MATH = [
    {"problem": "Find $x$.", "level": "Level 5", "type": "Algebra", "solution": r"So $x = \boxed{\frac{1}{2}}$."},
    {"problem": "Find $y$.", "level": "Level 1", "type": "Algebra", "solution": r"\boxed{1} no, $\boxed{\{1,2\}}$."},
]
MATH500 = [
    {
        "problem": "Find $p$.",
        "solution": "It is 3.",
        "answer": "3",
        "subject": "Algebra",
        "level": 2,
        "unique_id": "test/algebra/1.json",
    }
]
DEEPSCALER = [{"problem": "Sum?", "answer": "26", "solution": "1. ..."}]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows in the format of the file's ending."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def request(*files: Path, split: Any = "train", chat: bool = False, **options: Any) -> SourceRequest:
    return SourceRequest(split=split, seed=0, chat=chat, options=options, data_files=files)


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "csv", "json"])
@pytest.mark.parametrize(
    ("name", "split", "rows", "golds"),
    [
        ("gsm8k", "train", GSM8K, ["6", "18000"]),
        ("math", "train", MATH, [r"\frac{1}{2}", r"\{1,2\}"]),
        ("math500", "eval", MATH500, ["3"]),
        ("deepscaler", "train", DEEPSCALER, ["26"]),
    ],
)
def test_published_layouts_from_local_files(
    tmp_path: Path, ending: str, name: str, split: str, rows: list[dict[str, Any]], golds: list[str]
) -> None:
    source = load_source(name, request(write(tmp_path / f"rows.{ending}", rows), split=split))
    assert source.size == len(rows)
    assert [source[i].task.answer for i in range(len(rows))] == golds
    first = source[0]
    assert first.text is not None
    assert (rows[0].get("question") or rows[0]["problem"]) in first.text
    assert first.task.dataset == name
    assert first.task.split == split


def test_a_template_takes_further_columns(tmp_path: Path) -> None:
    rows = [{"question": f"{i}?", "answer": "1", "context": f"About {i}"} for i in range(3)]
    options = {"plain": "{context}: {question}", "system": r"{context}, in \boxed{{n}}", "user": "{question} {context}"}
    file = write(tmp_path / "q.jsonl", rows)
    assert load_source(str(file), request(**options))[1].text == "About 1: 1?"
    chat = load_source(str(file), request(chat=True, **options))[2].messages or ()
    assert [turn.content for turn in chat] == [r"About 2, in \boxed{n}", "2? About 2"]


def test_a_template_that_the_columns_do_not_fill_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "q.jsonl", [{"question": "1?", "answer": "1", "note": None}])
    with pytest.raises(
        ConfigError, match=r"dataset.options.user: \{nots\} names no column of .*q.jsonl \(did you mean"
    ):
        load_source(str(file), request(user="{question} {nots}"))
    with pytest.raises(DataError, match=r"row 1: column 'note' is empty, and dataset.options.plain fills it in"):
        load_source(str(file), request(plain="{question} {note}"))
    with pytest.raises(ConfigError, match=r"the template lacks {question}"):
        load_source(str(file), request(plain="{{question}}"))


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_questions_are_those_of_the_prompts(tmp_path: Path, ending: str) -> None:
    rows = [{"question": f"{i}?", "answer": "#### 1" if i % 3 else "none"} for i in range(7)]
    files = [write(tmp_path / f"{name}.{ending}", rows) for name in ("a", "b")]
    source = load_source("gsm8k", request(*files, without_gold="drop"))
    assert source.size == 8
    assert list(source.questions()) == [source.question(i) for i in range(8)] == ["1?", "2?", "4?", "5?"] * 2


def test_the_rest_of_a_row_travels_along(tmp_path: Path) -> None:
    task = load_source("math500", request(write(tmp_path / "m.jsonl", MATH500), split="eval"))[0].task
    assert task.row_id == "test/algebra/1.json"
    assert task.extra == {"solution": "It is 3.", "subject": "Algebra", "level": 2, "unique_id": "test/algebra/1.json"}


def test_chat_models_get_messages_and_base_models_text(tmp_path: Path) -> None:
    file = write(tmp_path / "g.jsonl", GSM8K)
    chat, base = load_source("gsm8k", request(file, chat=True))[0], load_source("gsm8k", request(file))[0]
    assert chat.messages is not None
    assert [turn.role for turn in chat.messages] == ["system", "user"]
    assert "\\boxed{}" in chat.messages[0].content
    assert chat.messages[1].content == GSM8K[0]["question"]
    assert base.messages is None
    assert base.text is not None
    assert base.text.endswith("Answer:")


def test_several_files_and_globs_make_one_source(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", GSM8K)
    write(tmp_path / "b.parquet", GSM8K[:1])
    assert load_source("gsm8k", request(tmp_path / "a.jsonl", tmp_path / "b.parquet")).size == 3
    assert load_source("gsm8k", request(tmp_path / "*.jsonl")).size == 2


def test_somebodys_own_card_and_own_columns(tmp_path: Path) -> None:
    card = tmp_path / "mine.yaml"
    card.write_text('question: q\nanswer: a\ngold: boxed\nplain: "Q: {question} {{x}}"\n')
    file = write(tmp_path / "d.jsonl", [{"q": "1+1?", "a": r"\boxed{2}"}])
    prompt = load_source(str(card), request(file))[0]
    assert (prompt.text, prompt.task.answer) == ("Q: 1+1? {x}", "2")
    again = load_source(str(file), request(question="q", answer="a", gold="boxed"))[0]
    assert again.task.answer == "2"


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (
            [{"question": "q", "solution": "3"}],
            {},
            r"no column 'answer' for the answer .*there are: question, solution",
        ),
        ([{"query": "q", "answer": "3"}], {}, r"no column 'question' for the question .*there are: query, answer"),
        ([GSM8K[0], {"question": "q", "answer": "just 5"}], {}, r"row 2: column 'answer' .*after '####', got 'just 5'"),
        (
            [{"question": "q", "answer": None}],
            {},
            r"row 1: column 'answer' holds no gold answer.*columns are: question",
        ),
        ([{"question": "q", "answer": "#### "}], {}, r"row 1: column 'answer' holds no gold answer"),
    ],
)
def test_rows_at_fault_are_named(tmp_path: Path, rows: list[Any], options: dict[str, Any], message: str) -> None:
    file = write(tmp_path / "bad.jsonl", rows)
    with pytest.raises(DataError, match=message) as error:
        load_source("gsm8k", request(file, **options))
    assert str(file) in str(error.value)


def test_an_empty_file_and_an_empty_question_are_known_before_a_prompt_is_asked(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match=r"empty.jsonl: there are no rows"):
        load_source("gsm8k", request(tmp_path / "empty.jsonl"))
    rows = [GSM8K[0], {"question": " ", "answer": "#### 1"}]
    with pytest.raises(DataError, match=r"q.jsonl, row 2: column 'question' holds no question"):
        load_source("gsm8k", request(write(tmp_path / "q.jsonl", rows)))
    rows = [{"prompt": ["1+1?"], "answer": "2"}]
    with pytest.raises(DataError, match=r"l.jsonl, row 1: column 'prompt' holds a list: expected text"):
        load_source(str(write(tmp_path / "l.jsonl", rows)), request())


def test_rows_without_a_gold_are_left_out_where_the_card_says_so(tmp_path: Path) -> None:
    rows = [{"problem": f"{i}?", "answer": "" if i in (0, 2) else str(i), "solution": ""} for i in range(5)]
    file = write(tmp_path / "d.json", rows)
    source = load_source("deepscaler", request(file))
    assert isinstance(source, CardSource)
    assert (source.size, source.without_gold) == (3, 2)
    assert [(source[i].task.row_id, source[i].task.answer) for i in range(3)] == [("1", "1"), ("3", "3"), ("4", "4")]
    with pytest.raises(DataError, match=r"d.json, row 1: .*no gold answer.*without_gold=drop"):
        load_source("deepscaler", request(file, without_gold="error"))
    with pytest.raises(DataError, match="no row has a gold answer"):
        load_source("deepscaler", request(write(tmp_path / "none.json", rows[:1])))


def test_rows_are_numbered_over_all_files_and_come_from_their_own(tmp_path: Path) -> None:
    files = [
        write(tmp_path / f"{name}.jsonl", [{"question": f"{name}{i}", "answer": f"{i}", "of": name} for i in range(n)])
        for name, n in (("a", 2), ("b", 3))
    ]
    (tmp_path / "aa.jsonl").write_text("")
    source = load_source(str(files[0]), request(files[0], tmp_path / "aa.jsonl", files[1], split="eval"))
    assert [source[i].text for i in range(5)] == ["a0", "a1", "b0", "b1", "b2"]
    assert [source[i].task.row_id for i in range(5)] == ["0", "1", "2", "3", "4"]
    assert source[4].task.extra == {"of": "b"}
    for index in (-1, 5):
        with pytest.raises(DataError, match=f"no question {index}"):
            source[index]


def test_held_out_files_are_read_instead_of_the_file_that_trains(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", [{"question": "t", "answer": "1"}])
    held_out = write(tmp_path / "held.jsonl", [{"question": "h", "answer": "1"}])
    assert load_source(str(train), request(held_out, split="eval"))[0].text == "h"
    with pytest.raises(RequestError, match="is a file of its own: leave out"):
        load_source(str(train), request(held_out))


def test_what_json_has_not_becomes_null_or_text_in_extra(tmp_path: Path) -> None:
    rows = [{"question": "q", "answer": "1", "a": float("nan"), "b": datetime(2026, 1, 2), "c": [1.5, float("inf")]}]
    task = load_source(str(write(tmp_path / "x.parquet", rows)), request())[0].task
    assert task.extra == {"a": None, "b": "2026-01-02T00:00:00", "c": [1.5, "inf"]}
    assert Task.model_validate(task.model_dump()) == task


def test_what_does_not_exist_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"no dataset 'gsm8'; did you mean 'gsm8k'"):
        load_source("gsm8", request())
    with pytest.raises(RequestError, match=r"dataset deepscaler has no 'eval' split \(it has: train\)"):
        load_source("deepscaler", request(split="eval"))
    file = write(tmp_path / "m.jsonl", MATH500)
    for files in ((), (file,)):
        with pytest.raises(RequestError, match="dataset math500 is for evaluation only"):
            load_source("math500", request(*files))
    with pytest.raises(ConfigError, match=r"dataset.options.plain .*the template lacks \{question\}"):
        load_source(str(write(tmp_path / "p.jsonl", GSM8K)), request(plain="Solve it."))
    with pytest.raises(RequestError, match="there is no file"):
        load_source(str(tmp_path / "absent.yaml"), request())
    with pytest.raises(ConfigError, match=r"no key dataset.options.quetsion .*did you mean 'dataset.options.question'"):
        load_source(str(write(tmp_path / "o.jsonl", GSM8K)), request(quetsion="q"))


def test_without_a_network_the_hub_is_one_line_with_data_files() -> None:
    with pytest.raises(
        RequestError, match=r"dataset gsm8k: openai/gsm8k \(main\), split 'train' could not .*--data-files"
    ):
        load_source("gsm8k", request())


# --- token ids ------------------------------------------------------------------------------------------------------


def messages(text: str) -> Prompt:
    return Prompt(Task(), messages=(Message(role="user", content=text),))


def test_a_chat_prompt_has_one_bos_and_the_prefilled_think(awkward_model: Path) -> None:
    tokenizer = load_tokenizer(ModelSpec(str(awkward_model)))
    ids = encode(messages("one plus two"), tokenizer)
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids).rstrip().endswith("<think>")


def test_plain_text_has_one_bos_and_no_eos(awkward_model: Path) -> None:
    tokenizer = load_tokenizer(ModelSpec(str(awkward_model)))
    ids = encode(Prompt(Task(), text="one plus two"), tokenizer)
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[-1] != tokenizer.eos_token_id
    assert tokenizer.decode(ids[1:]) == "one plus two"


def test_characters_that_the_tokenizer_lacks_are_named(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(ModelSpec(str(tiny_model)))
    assert len(encode(Prompt(Task(), text="1+1="), tokenizer)) == 4
    prompt = Prompt(Task(dataset="mine", row_id="7"), text="what is €5 in £?")
    with pytest.raises(DataError, match=r"row 7 of mine: .* no token for '£' \(U\+00A3\), '€' \(U\+20AC\)"):
        encode(prompt, tokenizer)


def wrapped(backend: Tokenizer, **special: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def of_characters(alphabet: str) -> Tokenizer:
    """Return a BPE tokenizer without merges and without an unknown token: it drops characters outside its alphabet."""
    return Tokenizer(models.BPE({character: i for i, character in enumerate(alphabet)}, []))


@pytest.mark.parametrize(
    ("text", "lost"), [("1 2", r"' ' \(U\+0020\)"), ("12\n", r"'\\n' \(U\+000A\)"), ("1é2", "'é'"), ("é", "'é'")]
)
def test_what_a_tokenizer_without_an_unknown_token_drops_is_named(text: str, lost: str) -> None:
    tokenizer = wrapped(of_characters("0123456789+="))
    assert encode(Prompt(Task(), text="1+2="), tokenizer) == (1, 10, 2, 11)
    with pytest.raises(DataError, match=f"row 3 of d: the model's tokenizer has no token for {lost}"):
        encode(Prompt(Task(dataset="d", row_id="3"), text=text), tokenizer)


def test_an_unknown_token_that_only_the_vocabulary_knows_is_noticed() -> None:
    backend = Tokenizer(models.WordLevel({"<pad>": 0, "a": 1}, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = wrapped(backend, pad_token="<pad>")
    assert encode(Prompt(Task(), text="a a <pad>"), tokenizer) == (1, 1, 0)
    with pytest.raises(DataError, match=r"no token for 'b' \(U\+0062\), 'cd'"):
        encode(Prompt(Task(), text="a b cd"), tokenizer)


def test_white_space_that_splits_words_is_not_lost(awkward_model: Path) -> None:
    backend = Tokenizer(models.WordLevel({"a": 0, "b": 1, "ab": 2, "?": 3}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    assert encode(Prompt(Task(), text="a b"), wrapped(backend)) == (0, 1)
    trimming = load_tokenizer(ModelSpec(str(awkward_model)))  # byte-level: its spans leave spaces out
    assert (
        trimming.decode(encode(Prompt(Task(), text=" one  plus\n\ntwo é€ "), trimming)[1:]) == " one  plus\n\ntwo é€ "
    )


def test_a_vocabulary_that_cannot_even_say_unknown_is_one_line() -> None:
    tokenizer = wrapped(Tokenizer(models.WordLevel({"a": 0}, unk_token="?")))
    with pytest.raises(DataError, match=r"row 1 of d: the model's tokenizer rejects it: .*UNK"):
        encode(Prompt(Task(dataset="d", row_id="1"), text="b"), tokenizer)
    with pytest.raises(DataError, match="the prompt has no token"):
        encode(Prompt(Task(), text=""), wrapped(of_characters("a")))


def test_an_appended_eos_goes_and_a_written_one_stays() -> None:
    backend = of_characters("abc")
    backend.add_special_tokens(["</s>"])
    silent = wrapped(backend, eos_token="</s>")
    assert encode(Prompt(Task(), text="ab</s>"), silent) == (0, 1, 3)
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 3)])
    appending = wrapped(backend, eos_token="</s>")
    assert appending("ab").input_ids == [0, 1, 3]
    assert encode(Prompt(Task(), text="ab"), appending) == (0, 1)
    assert encode(Prompt(Task(), text="ab</s>"), appending) == (0, 1, 3)


def test_one_token_for_bos_and_unknown_is_no_unknown_character(awkward_model: Path) -> None:
    tokenizer = load_tokenizer(ModelSpec(str(awkward_model)))
    tokenizer.unk_token = tokenizer.bos_token
    assert encode(messages("one"), tokenizer).count(tokenizer.bos_token_id) == 1
    assert encode(Prompt(Task(), text="one"), tokenizer).count(tokenizer.bos_token_id) == 1


class InPython(PreTrainedTokenizer):  # type: ignore[misc]
    """A tokenizer without offsets: single characters, only lower case, commas dropped."""

    def __init__(self, **special: Any) -> None:
        self.ids = {character: i for i, character in enumerate("?abc")}
        super().__init__(**special)

    @property
    def vocab_size(self) -> int:
        return len(self.ids)

    def get_vocab(self) -> dict[str, int]:
        return dict(self.ids)

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        return [character for character in text if character != ","]

    def _convert_token_to_id(self, token: str) -> int:
        return self.ids.get(token, 0)

    def _convert_id_to_token(self, index: int) -> str:
        return "?abc"[index]


def test_a_tokenizer_in_python_names_what_it_loses_too() -> None:
    tokenizer = InPython(unk_token="?")
    assert not tokenizer.is_fast
    assert encode(Prompt(Task(), text="cab"), tokenizer) == (3, 1, 2)
    with pytest.raises(DataError, match=r"no token for ',' \(U\+002C\), 'X' \(U\+0058\)"):
        encode(Prompt(Task(), text="aXb,"), tokenizer)


def test_a_template_that_refuses_a_system_prompt_says_how_to_do_without(awkward_model: Path) -> None:
    tokenizer = load_tokenizer(ModelSpec(str(awkward_model)))
    tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(RequestError, match=r"\(user\): System role not supported; .*dataset.options.system=null"):
        encode(messages("one"), tokenizer)
    tokenizer.chat_template = None
    with pytest.raises(RequestError, match="no chat template"):
        encode(messages("one"), tokenizer)


# --- order ----------------------------------------------------------------------------------------------------------


class Numbers:
    """A prompt source: prompt i has i characters (after i mod 7)."""

    def __init__(self, size: int | None, length: Callable[[int], int] = lambda i: i % 7 + 1) -> None:
        self.size, self.length = size, length

    def __getitem__(self, index: int, /) -> Prompt:
        return Prompt(Task(row_id=str(index)), text="x" * self.length(index))


def characters(prompt: Prompt) -> tuple[int, ...]:
    return tuple(range(len(prompt.text or "")))


@given(size=st.integers(1, 60), seed=st.integers(0, 9), cut=st.integers(0, 100))
def test_every_epoch_asks_each_question_once_and_a_position_resumes(size: int, seed: int, cut: int) -> None:
    stream = PromptStream(Numbers(size), characters, seed=seed, max_prompt_tokens=99)
    asked = [e.index for e in stream.take(2 * size)]
    assert sorted(asked[:size]) == sorted(asked[size:]) == list(range(size))
    whole = PromptStream(Numbers(size), characters, seed=seed, max_prompt_tokens=99).take(cut + 5)
    resumed = PromptStream(Numbers(size), characters, seed=seed, max_prompt_tokens=99)
    resumed.seek(cut)
    assert resumed.take(5) == whole[cut:]


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    def order(seed: int) -> list[int]:
        return [e.index for e in PromptStream(Numbers(50), characters, seed=seed, max_prompt_tokens=99).take(100)]

    assert order(0) == order(0)
    assert order(0) != order(1)
    assert order(0)[:50] != order(0)[50:]


def test_text_that_no_file_can_hold_is_escaped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Half a surrogate pair in a question, a gold answer, another column or its name, as broken decoders write it."""
    rows = [
        {"question": "a\ud800", "answer": "#### 1", "note": "x"},
        {"question": "b", "answer": "#### 2\udfff", "note": "x"},
        {"question": "c", "answer": "#### 3", "note": ["\ud801", {"\ud802": 1}]},
        {"question": "d", "answer": "#### 4", "note": "\ud83d\ude00"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    source = load_source("gsm8k", request(tmp_path / "rows.jsonl"))
    stream = PromptStream(
        source, lambda prompt: tuple(prompt.text.encode()), seed=0, max_prompt_tokens=99, shuffle=False
    )
    asked = [each.prompt for each in stream.take(4)]
    assert "a\\ud800" in (asked[0].text or "")
    assert asked[1].task.answer == "2\\udfff"
    assert asked[2].task.extra["note"] == ["\\ud801", {"\\ud802": 1}]
    assert asked[3].task.extra["note"] == "😀"
    assert stream.escaped == 3
    assert len(caplog.records) == 1
    rollouts = [Rollout(id=str(i), prompt=each.text, completion="", task=each.task) for i, each in enumerate(asked)]
    write_rollouts(tmp_path / "out.parquet", rollouts)
    assert [each.task for each in read_rollouts(tmp_path / "out.parquet")] == [each.task for each in asked]


def test_long_prompts_are_dropped_and_counted() -> None:
    stream = PromptStream(Numbers(7), characters, seed=0, max_prompt_tokens=5)
    assert all(len(e.token_ids) <= 5 for e in stream.take(10))
    assert stream.dropped == stream.position - 10 > 0
    stream = PromptStream(Numbers(7), characters, seed=0, max_prompt_tokens=0)
    for ask in (stream.take, stream.first):
        with pytest.raises(
            DataError, match=r"have more than 0 tokens \(the shortest has 1\): raise dataset.max_prompt"
        ):
            ask(1)
        assert (stream.position, stream.dropped) == (0, 0)
    with pytest.raises(DataError, match="10,000 prompts in a row"):
        PromptStream(Numbers(None), characters, seed=0, max_prompt_tokens=0).take(1)


@pytest.mark.parametrize("seed", range(8))
def test_one_short_prompt_is_found_wherever_two_epochs_put_it(seed: int) -> None:
    stream = PromptStream(Numbers(5, lambda i: 1 if i == 3 else 9), characters, seed=seed, max_prompt_tokens=5)
    assert [e.index for e in stream.take(6)] == [3] * 6


def test_the_first_are_asked_once_each_and_no_more_than_there_are() -> None:
    stream = PromptStream(Numbers(7), characters, seed=0, max_prompt_tokens=5)
    asked = stream.first(100)
    assert sorted(e.index for e in asked) == [0, 1, 2, 3, 4]
    assert stream.dropped == 2
    assert stream.first(3) == asked[:3]
    assert len(PromptStream(Numbers(None), characters, seed=0, max_prompt_tokens=99).first(20)) == 20


def test_nothing_moves_when_a_prompt_is_at_fault() -> None:
    def fail_at_four(prompt: Prompt) -> tuple[int, ...]:
        if prompt.task.row_id == "4":
            raise DataError("row 4")
        return (1,)

    stream = PromptStream(Numbers(9), fail_at_four, seed=0, max_prompt_tokens=5, shuffle=False)
    assert [e.index for e in stream.take(3)] == [0, 1, 2]
    with pytest.raises(DataError, match="row 4"):
        stream.take(3)
    assert stream.position == 3


def test_a_limit_uses_the_first_questions_only() -> None:
    stream = PromptStream(Numbers(50), characters, seed=0, max_prompt_tokens=99, limit=4)
    assert {e.index for e in stream.take(20)} == {0, 1, 2, 3}
    assert PromptStream(Numbers(None), characters, seed=0, max_prompt_tokens=99, limit=4).size == 4


def test_a_plan_asks_each_held_out_question_once_and_says_what_is_left_out(tmp_path: Path, tiny_model: Path) -> None:
    rows = [{"question": f"{i}+1=" + "0+" * 20 * (i == 2), "answer": str(i + 1) if i else ""} for i in range(4)]
    train, held_out = write(tmp_path / "a.jsonl", rows), write(tmp_path / "b.jsonl", rows[1:])
    told = {
        "model.name": str(tiny_model),
        "dataset.name": str(train),
        "dataset.options.without_gold": "drop",
        "dataset.max_prompt_tokens": 10,
        "sampling.max_tokens": 8,
        "eval.data_files": [str(held_out)],
        "eval.questions": 3,
        "verifier.workers": 0,
        "model.device": "cpu",
    }
    config = resolve({key: Setting(value, "test") for key, value in told.items()})
    with make_plan(config) as plan:
        assert sorted(e.prompt.text or "" for e in plan.questions) == ["1+1=", "3+1="]
        assert {e.prompt.task.row_id for e in plan.prompts.take(6)} == {"1", "3"}
        assert plan.dataset_size == 3
        assert any(note.startswith("1 held-out questions are not asked: they have more than 10") for note in plan.notes)
        assert f"1 rows of {train} are left out: no gold answer, or excluded by its card" in plan.notes
