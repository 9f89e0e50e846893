"""What the core knows of models: tokenizers as they were saved, identities, and places that hold no model."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlvr.errors import RequestError
from rlvr.protocols import ModelSpec
from rlvr.run.models import check_directory, load_tokenizer, tokenizer_hash, weights_hash

# --- tokenizers -----------------------------------------------------------------------------------------------------


def test_tokenizer_json_is_taken_as_it_is(tiny_model: Path) -> None:
    """AutoTokenizer gives a Qwen2 model Qwen2's splitting rules, under which this vocabulary has no spaces."""
    tokenizer = load_tokenizer(ModelSpec(str(tiny_model)))
    text = "what is 12 + 7?\n"
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_the_chat_template_and_special_tokens_come_along(awkward_model: Path) -> None:
    tokenizer = load_tokenizer(ModelSpec(str(awkward_model)))
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert prompt == "<s><|user|>\nhi<|end|>\n<|assistant|>\n<think>\n"
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id) == (tokenizer.eos_token_id, 0)


def test_a_directory_without_a_tokenizer_is_refused(copy_of_awkward: Path) -> None:
    for file in copy_of_awkward.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(RequestError, match="cannot load the tokenizer"):
        load_tokenizer(ModelSpec(str(copy_of_awkward)))


# --- identity -------------------------------------------------------------------------------------------------------


def test_the_weights_hash_follows_the_weights(awkward_model: Path, copy_of_awkward: Path) -> None:
    assert weights_hash(copy_of_awkward) == weights_hash(awkward_model)
    with (copy_of_awkward / "model.safetensors").open("r+b") as stream:
        stream.seek(-1, 2)
        last = stream.read(1)[0]
        stream.seek(-1, 2)
        stream.write(bytes([last ^ 1]))
    assert weights_hash(copy_of_awkward) != weights_hash(awkward_model)


def test_no_weights_no_hash(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="holds no weights"):
        weights_hash(tmp_path)


def test_the_tokenizer_hash_follows_template_and_rules_and_no_call(awkward_model: Path) -> None:
    tokenizer = load_tokenizer(ModelSpec(str(awkward_model)))
    first = tokenizer_hash(tokenizer)
    tokenizer(["a", "a long one"], padding=True, truncation=True, max_length=4)
    assert tokenizer_hash(tokenizer) == first
    tokenizer.chat_template = "{{ messages }}"
    assert tokenizer_hash(tokenizer) != first


# --- places --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["./nowhere", "/nowhere/model", "a/b/c", "~/nowhere"])
def test_a_directory_that_is_not_there_is_refused_without_the_network(path: str) -> None:
    with pytest.raises(RequestError, match="there is no directory"):
        check_directory(ModelSpec(path))


def test_a_directory_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"has no config\.json"):
        check_directory(ModelSpec(str(tmp_path)))


def test_a_hub_name_that_cannot_be_reached_is_one_line_that_says_what_is_needed() -> None:
    with pytest.raises(RequestError, match="a local directory, or a hub name and a network") as caught:
        load_tokenizer(ModelSpec("nobody/no-such-model", revision="v1"))
    assert "\n" not in str(caught.value)
    assert "the tokenizer 'nobody/no-such-model' at revision 'v1'" in str(caught.value)
