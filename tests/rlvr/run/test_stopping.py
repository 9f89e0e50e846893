"""Stop conditions, and when prompts are messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from rlvr.errors import ConfigError, RequestError
from rlvr.protocols import ModelSpec
from rlvr.record.schema import Stop
from rlvr.run.config import resolve
from rlvr.run.models import load_tokenizer
from rlvr.run.plan import make_plan
from rlvr.run.stopping import end_of_turn, stop_conditions, uses_chat_template
from rlvr.settings import command_line_settings

# The shapes of published templates, written anew: where the end of an assistant's turn stands, and what follows.
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
LLAMA_3 = "<s>{% for m in messages %}<|start|>{{ m.role }}<|header|>\n\n{{ m.content | trim }}<|im_end|>{% endfor %}"
MISTRAL = (
    "<s>{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %}{{ m.content }}</s>{% endif %}{% endfor %}"
)
PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
REJECTS = "{% if messages | length > 1 %}{{ raise_exception('one message only') }}{% endif %}{{ messages[0].content }}"
SWITCHED = "{% for m in messages %}{{ m.content }}{{ '<|im_end|>' if closed else '' }}\n{% endfor %}"


@pytest.fixture
def tokenizer(awkward_model: Path) -> Any:
    found = load_tokenizer(ModelSpec(str(awkward_model)))
    found.add_special_tokens({"extra_special_tokens": ["<|im_end|>", "<|im_start|>"]})
    return found


@pytest.mark.parametrize(
    ("template", "expected"),
    [(CHATML, "<|im_end|>"), (LLAMA_3, "<|im_end|>"), (MISTRAL, "</s>"), (PLAIN, None), (REJECTS, None)],
    ids=["chatml", "llama-3", "mistral", "plain", "rejects"],
)
def test_the_end_of_turn_is_the_special_token_after_an_answer(
    tokenizer: Any, template: str, expected: str | None
) -> None:
    tokenizer.chat_template = template
    assert end_of_turn(tokenizer, {}) == (None if expected is None else tokenizer.convert_tokens_to_ids(expected))


def test_template_arguments_reach_the_template(tokenizer: Any) -> None:
    tokenizer.chat_template = SWITCHED
    assert end_of_turn(tokenizer, {}) is None
    assert end_of_turn(tokenizer, {"closed": True}) == tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_a_special_token_is_a_stop_id_and_other_text_a_stop_string(tokenizer: Any) -> None:
    end, turn = tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer.convert_tokens_to_ids("</s>")
    found = stop_conditions(tokenizer, ("<|im_end|>", "\n\n", 7), ("Question:", "\n\n"), len(tokenizer), turn)
    assert found == Stop(strings=("\n\n", "Question:"), token_ids=tuple(sorted({7, end, turn})))


@pytest.mark.parametrize(
    ("stop", "message"),
    [("", "an empty string"), (-1, "-1 is no token id"), (320, "320 is no token id; the model has 0 to 319")],
)
def test_a_stop_that_can_not_be_is_refused(tokenizer: Any, stop: str | int, message: str) -> None:
    with pytest.raises(ConfigError, match=f"sampling.stop: {message}"):
        stop_conditions(tokenizer, (stop,), (), 320, None)


@pytest.mark.parametrize(
    ("template", "chat", "expected"),
    [(PLAIN, "auto", True), (PLAIN, False, False), (PLAIN, True, True), (None, "auto", False), (None, False, False)],
)
def test_a_chat_template_is_used_as_model_chat_says(
    tokenizer: Any, template: str | None, chat: Any, expected: bool
) -> None:
    tokenizer.chat_template = template
    assert uses_chat_template(tokenizer, chat) is expected


def test_messages_without_a_template_are_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    with pytest.raises(ConfigError, match=r"model\.chat is on, and the model's tokenizer has no chat template"):
        uses_chat_template(tokenizer, True)


# --- in a run -------------------------------------------------------------------------------------------------------


@pytest.fixture
def sets(awkward_model: Path, tmp_path: Path) -> list[str]:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"question": "What is 1 + 1?", "answer": "2"}) + "\n")
    card = tmp_path / "card.yaml"
    card.write_text('plain: "Q: {question}\\nA:"\nstop: ["\\nQ:"]\n')
    return [f"model.name={awkward_model}", f"dataset.name={card}", f"dataset.data_files=[{rows}]", "eval.questions=0"]


def asked(sets: list[str]) -> Any:
    with make_plan(resolve(command_line_settings([*sets, "sampling.max_tokens=8"], {}))) as plan:
        assert plan.prompts is not None
        return plan.prompts.take(1)[0]


def test_a_chat_model_stops_at_the_end_of_its_turn(sets: list[str], awkward_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(awkward_model)
    one = asked([*sets, "sampling.stop=[END]"])
    assert one.prompt.messages is not None
    assert one.stop == Stop(strings=("END",), token_ids=(tokenizer.convert_tokens_to_ids("<|end|>"),))


def test_a_chat_model_can_be_asked_as_a_base_model_with_the_stops_of_the_data_set(sets: list[str]) -> None:
    one = asked([*sets, "model.chat=off", "sampling.stop=[END, 3]"])
    assert one.prompt.text == "Q: What is 1 + 1?\nA:"
    assert one.stop == Stop(strings=("END", "\nQ:"), token_ids=(3,))


def test_template_arguments_change_the_prompt_and_are_refused_where_no_template_is_used(
    sets: list[str], copy_of_awkward: Path
) -> None:
    (copy_of_awkward / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}{{ '<think>' if thinking else '' }}"
    )
    sets = [f"model.name={copy_of_awkward}", *sets[1:]]
    tokenizer = load_tokenizer(ModelSpec(str(copy_of_awkward)))
    thinking = asked([*sets, "model.chat_template_kwargs={thinking: true}"])
    assert tokenizer.decode(thinking.token_ids) == "What is 1 + 1?<|end|><think>"
    assert tokenizer.decode(asked(sets).token_ids) == "What is 1 + 1?<|end|>"
    with pytest.raises(ConfigError, match="chat_template_kwargs does nothing"):
        asked([*sets, "model.chat=off", "model.chat_template_kwargs={thinking: true}"])


def test_several_processes_are_refused(sets: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(RequestError, match="WORLD_SIZE is 4: rlvr trains in one process"):
        asked(sets)
    monkeypatch.setenv("WORLD_SIZE", "1")
    asked(sets)
