"""Models: saved tokenizers, identities, and directories without a model."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rlvr.errors import RequestError
from rlvr.protocols import ModelSpec
from rlvr.run.models import check_directory, end_ids, load_tokenizer, tokenizer_hash, weights_hash
from rlvr.run.plan import make_plan
from small_runs import small_config

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


@pytest.mark.parametrize("kind", ["qwen2", "gpt2", "llama"])
@pytest.mark.parametrize("beside", [(), ("tokenizer_config.json",)], ids=["alone", "with a configuration"])
def test_a_model_alone_has_no_tokenizer_of_its_kind(tmp_path: Path, kind: str, beside: tuple[str, ...]) -> None:
    """AutoTokenizer makes an empty one, which later rejects every prompt."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    for name in beside:
        (tmp_path / name).write_text("{}")
    with pytest.raises(RequestError, match="cannot load the tokenizer") as error:
        load_tokenizer(ModelSpec(str(tmp_path)))
    assert beside or str(error.value).endswith(
        "there are no tokenizer files beside the model; save them there with tokenizer.save_pretrained(DIRECTORY)"
    )


def strip_end_tokens(model: Path) -> None:
    """Remove the end-of-sequence token from a saved model's files."""
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        file = model / name
        content = json.loads(file.read_text())
        file.write_text(json.dumps({key: value for key, value in content.items() if not key.startswith("eos_token")}))


def test_a_model_without_an_end_token_is_warned_of(tiny_model: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_model, tmp_path / "copy"))
    (copy / "generation_config.json").unlink()
    spec = ModelSpec(str(copy))
    assert end_ids(spec, load_tokenizer(spec)) == {1}
    shutil.copytree(tiny_model, copy, dirs_exist_ok=True)
    strip_end_tokens(copy)
    assert end_ids(spec, load_tokenizer(spec)) == set()
    with make_plan(small_config(copy)) as plan:
        assert any("has no end-of-sequence token, so every completion runs to" in note for note in plan.notes)
    with make_plan(small_config(tiny_model)) as plan:
        assert not any("end-of-sequence" in note for note in plan.notes)


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
    with pytest.raises(RequestError, match="Give the directory of a model: --model DIRECTORY") as caught:
        load_tokenizer(ModelSpec("nobody/no-such-model", revision="v1"))
    assert "\n" not in str(caught.value)
    assert "the model 'nobody/no-such-model' at revision 'v1': there is no directory of this name" in str(caught.value)


HUB = "from rlvr.data.hub import unreachable\nprint(unreachable())"
LOAD = (
    "from rlvr.protocols import ModelSpec\nfrom rlvr.run.models import load_tokenizer as load\nload(ModelSpec('a/b'))"
)
DATA = "from rlvr.data.tables import hub_table\nhub_table('x', 'a/b', None, 'train', None)"


def asked(code: str, **environment: str) -> str:
    """Return the last line that a new process prints, in which the hub's client may use the network."""
    allowed = {**os.environ, "HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0", **environment}
    done = subprocess.run([sys.executable, "-c", code], env=allowed, capture_output=True, text=True)
    return (done.stdout + done.stderr).splitlines()[-1]


def test_a_hub_that_cannot_be_reached_is_not_asked_again_and_again() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        assert asked(HUB, HF_ENDPOINT=endpoint) == "127.0.0.1 cannot be reached: Connection refused"
        model, data = asked(LOAD, HF_ENDPOINT=endpoint), asked(DATA, HF_ENDPOINT=endpoint)
    assert "and 127.0.0.1 cannot be reached: Connection refused. Give the directory of a model: --model" in model
    assert "could not be loaded (127.0.0.1 cannot be reached: Connection refused); without a network, name" in data


def test_a_hub_that_answers_or_stands_behind_a_proxy_is_used() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert asked(HUB, HF_ENDPOINT=f"http://127.0.0.1:{server.getsockname()[1]}") == "None"
    assert asked(HUB, HF_ENDPOINT="http://somewhere.invalid", http_proxy="http://127.0.0.1:9") == "None"
