"""Prompts that are chats: TRL's and verl's data sets, and saved rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rlvr.record
from rlvr.data.prompts import load_source
from rlvr.errors import DataError
from rlvr.protocols import SourceRequest
from rlvr.record.item import item_of
from rlvr.record.schema import Message

SYSTEM, USER = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Find 100+4."}
VERL = {
    "data_source": "math_dapo",
    "prompt": [USER],
    "ability": "MATH",
    "reward_model": {"ground_truth": "104", "style": "rule"},
    "extra_info": {"index": "u1"},
}


def source(path: Path, *, chat: bool = True, **options: Any) -> Any:
    return load_source(str(path), SourceRequest(options=options, split="train", seed=0, data_files=(), chat=chat))


def put(path: Path, *rows: dict[str, Any]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def messages(*turns: dict[str, Any]) -> tuple[Message, ...]:
    return tuple(Message(**turn) for turn in turns)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_verls_data_sets_are_read_as_they_are(tmp_path: Path, ending: str) -> None:
    found = source(put(tmp_path / f"in.{ending}", VERL, {**VERL, "prompt": [SYSTEM, USER]}))
    assert [found[i].messages for i in range(2)] == [messages(USER), messages(SYSTEM, USER)]
    assert [found[i].task.answer for i in range(2)] == ["104", "104"]
    assert found[0].task.extra["data_source"] == "math_dapo"
    assert list(found.questions()) == ["Find 100+4."] * 2 == [found.question(i) for i in range(2)]


def test_thinking_in_a_prompt_is_left_out(tmp_path: Path) -> None:
    parts = [{"type": "thinking", "thinking": "Ten?"}, {"type": "text", "text": "Which base?"}]
    answer = {"role": "user", "content": "Ten."}
    found = source(
        put(tmp_path / "in.jsonl", {**VERL, "prompt": [USER, {"role": "assistant", "content": parts}, answer]})
    )
    assert found[0].messages == messages(USER, {"role": "assistant", "content": "Which base?"}, answer)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_trls_prompts_are_chats(tmp_path: Path, ending: str) -> None:
    turns = [USER, {"role": "assistant", "content": "Which base?"}, {"role": "user", "content": "Ten."}]
    found = source(put(tmp_path / f"in.{ending}", {"prompt": turns, "answer": "104"}))
    assert found[0].messages == messages(*turns)
    assert found.question(0) == "Ten."


def test_a_chat_as_json_text_and_one_of_parts_are_chats(tmp_path: Path) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "Find 100"}, {"type": "text", "text": "+4."}]}]
    rows = ({"prompt": json.dumps([USER]), "answer": "104"}, {"prompt": parts, "answer": "104"})
    found = source(put(tmp_path / "in.jsonl", *rows))
    assert [found[i].messages for i in range(2)] == [messages(USER)] * 2


def test_templates_apply_to_the_last_question_and_the_own_system_prompt_stays(tmp_path: Path) -> None:
    path = put(tmp_path / "in.jsonl", VERL, {**VERL, "prompt": [SYSTEM, USER]})
    found = source(path, user="{question} Box it.", system="Think.")
    asked = {"role": "user", "content": "Find 100+4. Box it."}
    assert found[0].messages == messages({"role": "system", "content": "Think."}, asked)
    assert found[1].messages == messages(SYSTEM, asked)


def test_a_base_model_gets_one_question_as_text(tmp_path: Path) -> None:
    path = put(tmp_path / "in.jsonl", VERL, {**VERL, "prompt": [SYSTEM, USER]})
    found = source(path, chat=False, plain="Q: {question}\nA:")
    assert [found[i].text for i in range(2)] == ["Q: Find 100+4.\nA:", "Q: Be brief.\n\nFind 100+4.\nA:"]
    turns = [USER, {"role": "assistant", "content": "Which base?"}, USER]
    found = source(put(tmp_path / "more.jsonl", {**VERL, "prompt": turns}), chat=False)
    with pytest.raises(DataError, match=r"row 1: a base model takes text, and the prompt is a chat \(user, "):
        found[0]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (
            [USER, {"role": "assistant", "content": "104"}],
            "row 1: the chat in 'prompt' ends with a message of 'assistant'",
        ),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}], "expected text or messages of role"),
        ([{"role": "user", "content": " "}], "row 1: column 'prompt' holds no question"),
        ([1, 2], "column 'prompt' holds a list: expected text"),
    ],
)
def test_a_chat_that_asks_nothing_is_an_error_of_its_row(tmp_path: Path, prompt: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        source(put(tmp_path / "in.jsonl", {**VERL, "prompt": prompt}))


def test_the_answer_may_be_a_path(tmp_path: Path) -> None:
    row = {"question": "1+1?", "meta": json.dumps({"gold": 2.50})}
    (tmp_path / "in.jsonl").write_text(json.dumps(row).replace("2.5}", "2.50}") + "\n")
    assert source(tmp_path / "in.jsonl", answer="meta.gold")[0].task.answer == "2.50"


def test_a_folder_of_save_to_disk_is_a_data_set(tmp_path: Path) -> None:
    from datasets import Dataset

    Dataset.from_list([VERL, VERL]).select([1]).save_to_disk(str(tmp_path / "saved"))
    found = source(tmp_path / "saved")
    assert (found.size, found[0].messages, found[0].task.answer) == (1, messages(USER), "104")


def test_a_missing_answer_names_the_likely_column(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'answer' .* names another, for example ground_truth\)"):
        source(put(tmp_path / "in.jsonl", {"question": "q", "ground_truth": "1"}))


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_chats_of_saved_rows_reach_verifiers_as_messages(tmp_path: Path, ending: str) -> None:
    named = {**USER, "name": None}
    rows = [{"prompt": [SYSTEM | {"name": "s"}, named], "completion": "104", "answer": "104"}]
    if ending == "jsonl":
        rows.append({"prompt": json.dumps([SYSTEM, USER]), "completion": "104", "answer": "104"})
    for row in rlvr.record.open(put(tmp_path / f"in.{ending}", *rows)):
        rollout = item_of(row, wants_rollout=True).rollout
        assert rollout is not None
        assert rollout.messages == messages(SYSTEM, USER)
