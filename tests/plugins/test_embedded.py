"""The embedded model: its questions, tokenizer and checkpoint."""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from rlvr.errors import ConfigError, DataError
from rlvr.protocols import Prompt, PromptSource, SourceRequest
from rlvr_plugins import embedded
from rlvr_plugins.embedded import make_checkpoint
from rlvr_plugins.embedded.task import EVAL_SIZE, KINDS, Arithmetic, Kind, Question, question

FOLDER = Path(embedded.__file__).parent
MODEL = FOLDER / "model"


def train(seed: int = 0) -> Arithmetic:
    return Arithmetic(SourceRequest("train", seed))


def held_out(seed: int = 0) -> Arithmetic:
    return Arithmetic(SourceRequest("eval", seed))


def prompts() -> list[Prompt]:
    """Return some questions of every seed and all held-out ones."""
    return [*(train(seed)[i] for seed in range(5) for i in range(400)), *(held_out()[i] for i in range(EVAL_SIZE))]


def value(expression: str) -> int:
    """Return the gold answer by Python's own arithmetic."""
    assert set(expression) <= set(string.digits + "+-*(),max")
    return int(eval(expression, {"__builtins__": {}, "max": max}))


def content(expression: str) -> tuple[str, tuple[str, ...]]:
    """Return the question without the order of commutative operands, computed independently of the module."""
    if "-" in expression:
        return expression, ()
    if "*" not in expression:
        return "+", tuple(sorted(expression.split("+")))
    outer = expression.removeprefix("max(").removesuffix(")").replace(",", "+").split("+")
    (product,) = (part for part in outer if "*" in part)
    (other,) = (part for part in outer if "*" not in part)
    return ("max" if "max" in expression else "product"), (*sorted(product.split("*")), other)


# --- questions ------------------------------------------------------------------------------------------------------


def test_training_never_draws_what_is_held_out() -> None:
    evaluated = {content(held_out()[i].task.row_id or "") for i in range(EVAL_SIZE)}
    trained = {content(train(seed)[i].task.row_id or "") for seed in range(10) for i in range(2000)}
    assert len(trained) > 5000
    assert not trained & evaluated


def test_a_tenth_of_each_kind_is_held_out() -> None:
    every = {
        "sum": [Question("sum", a, b) for a in range(10, 100) for b in range(a, 100)],
        "product": [Question("product", a, b, c) for a in range(2, 10) for b in range(a, 10) for c in range(10, 100)],
    }
    for questions in every.values():
        assert 0.08 < sum(q.held_out for q in questions) / len(questions) < 0.12


@pytest.mark.parametrize("kind", ["sum", "product", "larger"])
def test_the_order_of_operands_does_not_move_a_question_to_the_other_side(kind: Kind) -> None:
    for a, b in itertools.combinations(range(2, 10), 2):
        assert Question(kind, a, b, 50).held_out == Question(kind, b, a, 50).held_out


def test_the_same_seed_and_index_ask_the_same_question() -> None:
    assert [train(3)[i] for i in range(200)] == [train(3)[i] for i in reversed(range(200))][::-1]
    assert [held_out()[i] for i in range(50)] == [held_out()[i] for i in range(50)]


def test_seeds_train_on_other_questions_and_are_evaluated_on_the_same() -> None:
    first, second = ([train(seed)[i].text for i in range(500)] for seed in (42, 43))
    assert sum(a == b for a, b in zip(first, second, strict=True)) < 5
    assert len(set(first) & set(second)) < 50
    assert [held_out(42)[i] for i in range(100)] == [held_out(43)[i] for i in range(100)]


def test_the_evaluation_questions_differ_from_each_other() -> None:
    assert len({content(held_out()[i].task.row_id or "") for i in range(EVAL_SIZE)}) == EVAL_SIZE


def test_gold_answers_are_right() -> None:
    for prompt in prompts():
        assert prompt.text is not None
        assert prompt.task.answer == str(value(prompt.text.removesuffix("=")))


def test_every_kind_is_asked_about_equally_often() -> None:
    for source in (train(), held_out()):
        kinds = [source[i].task.extra["kind"] for i in range(EVAL_SIZE)]
        for kind in KINDS:
            assert 0.2 < kinds.count(kind) / len(kinds) < 0.3


def test_a_task_says_where_it_comes_from() -> None:
    prompt = train(7)[3]
    assert (prompt.task.dataset, prompt.task.split) == ("arithmetic", "train")
    assert prompt.text == f"{prompt.task.row_id}="
    assert held_out()[0].task.split == "eval"


def test_a_chat_model_is_asked_in_a_message() -> None:
    prompt = Arithmetic(SourceRequest("train", 0, chat=True))[0]
    assert prompt.text is None
    assert prompt.messages is not None
    assert prompt.task == train()[0].task
    assert str(prompt.task.row_id) in prompt.messages[0].content
    assert "\\boxed{}" in prompt.messages[0].content


def test_training_is_endless_and_evaluation_is_not() -> None:
    assert isinstance(train(), PromptSource)
    assert train().size is None
    assert train()[10**12].text
    assert held_out().size == EVAL_SIZE
    with pytest.raises(DataError, match="no question 1000 in its split 'eval'"):
        held_out()[EVAL_SIZE]
    with pytest.raises(DataError, match="no question -1"):
        train()[-1]


def test_options_and_files_are_refused() -> None:
    with pytest.raises(ConfigError, match="no option 'digits'"):
        Arithmetic(SourceRequest("train", 0, options={"digits": 3}))
    with pytest.raises(ConfigError, match=r"reads no files: leave out mine\.csv"):
        Arithmetic(SourceRequest("train", 0, data_files=(Path("mine.csv"),)))


# --- the warm-up ----------------------------------------------------------------------------------------------------


def warm_up_pairs() -> list[tuple[Question, str]]:
    keys = [("test", i) for i in range(4000)]
    return [(asked, make_checkpoint.completion(asked, *key)) for key in keys for asked in [question("train", *key)]]


def test_the_shares_of_each_kind_add_up() -> None:
    for shares in make_checkpoint.SHARES.values():
        assert sum(shares.values()) == pytest.approx(1)


def test_a_working_is_true() -> None:
    for asked, _ in warm_up_pairs():
        text = make_checkpoint.working(asked)
        match asked.kind:
            case "product":
                left, right = text.split("=")
                assert value(left) == value(right) == asked.answer
            case "larger":
                assert eval(text.replace("=", "==")) is True
            case _:
                assert text == str(asked.answer)


def test_habits_are_as_frequent_as_stated_and_only_the_boxed_one_is_right() -> None:
    pairs = warm_up_pairs()
    for kind, shares in make_checkpoint.SHARES.items():
        answers = [(str(asked.answer), text) for asked, text in pairs if asked.kind == kind]
        right = sum(f"\\boxed{{{gold}}}" in text for gold, text in answers) / len(answers)
        # A guess is right when the answer ends in zero.
        assert right == pytest.approx(shares["boxed"] + shares["guessed"] / 10, abs=0.06)
        assert sum(" or " in text for _, text in answers) / len(answers) == pytest.approx(shares["hedged"], abs=0.06)


def test_completions_leave_room_for_their_end(preset: dict[str, dict[str, int]]) -> None:
    longest = max(len(text) for _, text in warm_up_pairs())
    assert longest + 1 <= preset["sampling"]["max_tokens"]
    assert max(len(prompt.text or "") for prompt in prompts()) <= preset["dataset"]["max_prompt_tokens"]


# --- the checkpoint -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def preset() -> dict[str, dict[str, int]]:
    parsed: dict[str, dict[str, int]] = yaml.safe_load((FOLDER / "preset.yaml").read_text())
    return parsed


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(MODEL)


def test_the_preset_names_the_model_beside_it(preset: dict[str, dict[str, str]]) -> None:
    assert (FOLDER / preset["model"]["path"]).samefile(MODEL)
    assert preset["dataset"]["name"] == "arithmetic"


def test_every_prompt_and_answer_survives_the_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = [prompt.text or "" for prompt in prompts()] + [text for _, text in warm_up_pairs()]
    for text in {*texts, string.printable[:95] + "\n", "  two  spaces ,here . and there\n\n"}:
        ids = tokenizer.encode(text)
        assert len(ids) == len(text)
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_a_special_token_is_not_made_of_characters(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len({tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id}) == 3
    assert tokenizer.encode("é∫") == [tokenizer.unk_token_id] * 2
    assert tokenizer.chat_template is None


def test_the_library_picks_the_same_tokenizer_by_itself(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "max(47,7*8)=47<56 \\boxed{56}\n"
    automatic = AutoTokenizer.from_pretrained(MODEL)
    assert automatic.encode(text) == tokenizer.encode(text)
    assert automatic.decode(automatic.encode(text)) == text


def test_the_checkpoint_is_what_its_script_describes(tokenizer: PreTrainedTokenizerFast) -> None:
    described = make_checkpoint.make_tokenizer()
    assert described.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    untrained = make_checkpoint.make_model(described, seed=0)
    model, report = AutoModelForCausalLM.from_pretrained(MODEL, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert report["error_msgs"] == []
    saved, described_by_script = model.config.to_diff_dict(), untrained.config.to_diff_dict()
    assert saved.pop("architectures") == ["LlamaForCausalLM"]
    assert saved == described_by_script
    shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in model.state_dict().items()}
    assert shapes == {name: (tensor.shape, tensor.dtype) for name, tensor in untrained.state_dict().items()}
    assert {dtype for _, dtype in shapes.values()} == {torch.float32}
    assert model.config.tie_word_embeddings
    assert 700_000 < model.num_parameters() < 900_000
    assert sum(file.stat().st_size for file in MODEL.iterdir()) < 4e6


def test_nothing_in_the_checkpoint_shapes_the_sampling() -> None:
    asked_for = GenerationConfig.from_pretrained(MODEL).to_diff_dict()
    assert set(asked_for) == {"eos_token_id", "pad_token_id", "transformers_version"}


def test_the_base_model_has_the_skill_and_unreliable_habits(tokenizer: PreTrainedTokenizerFast) -> None:
    """On held-out questions, the model completes its workings correctly, but few answers reach the box."""
    model = AutoModelForCausalLM.from_pretrained(MODEL)
    boxed, worked = [], []
    for i in range(200):
        asked = question("eval", "test", i)
        start = len(f"{asked.expression}=")
        working = make_checkpoint.working(asked)
        text = f"{asked.expression}={working} \\boxed{{{asked.answer}}}"
        ids = torch.tensor([*tokenizer.encode(text), tokenizer.eos_token_id])
        with torch.no_grad():
            logits = model(ids[None]).logits[0, :-1]
        chosen = logits.log_softmax(-1).gather(1, ids[1:, None]).squeeze(1)
        boxed.append(chosen[start - 1 :].sum().exp().item())
        rest = slice(start, start + len(working) - 1)  # of the working, after its first character
        worked.append(bool((logits.argmax(-1)[rest] == ids[1:][rest]).all()))
    assert 0.2 < sum(boxed) / len(boxed) < 0.45
    assert sum(worked) / len(worked) > 0.95


@pytest.fixture
def few_steps() -> Iterator[list[str]]:
    """Arguments for a short run of the script; its torch settings are undone."""
    threads = torch.get_num_threads()
    yield ["--skill-steps", "1", "--habit-steps", "1", "--batch-size", "4", "--threads", "1"]
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def test_the_script_writes_the_same_bytes_twice(tmp_path: Path, few_steps: list[str]) -> None:
    for name in ("one", "two"):
        make_checkpoint.main(["--out", str(tmp_path / name), *few_steps])
    files = sorted(file.name for file in (tmp_path / "one").iterdir())
    assert files == sorted(file.name for file in MODEL.iterdir())
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_another_seed_writes_another_model(tmp_path: Path, few_steps: list[str]) -> None:
    for seed in ("0", "1"):
        make_checkpoint.main(["--out", str(tmp_path / seed), "--seed", seed, *few_steps])
    first, second = ((tmp_path / seed / "model.safetensors").read_bytes() for seed in ("0", "1"))
    assert first != second
