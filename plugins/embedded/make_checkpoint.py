"""Train `model/`, the embedded base model, from scratch: `python -m rlvr_plugins.embedded.make_checkpoint --out DIR`.

A Llama of 0.8 million parameters learns from worked answers, as a language model learns from text: the arithmetic is
right, the habits are unreliable. Some answers stand in the box, some are hedged, some are guessed, some are copied
wrongly, and how often depends on the kind of question. So the base model has the skill and rarely uses it, not even in
its likeliest answers, and reinforcement learning has something to find. A guess is right when the answer ends in
zero, and a hedge between a number and itself counts as that number.

Training questions only: what is held out for evaluation is unseen by the base model as well. The same machine, the
same packages and the same number of threads give the same bytes.
"""

from __future__ import annotations

import argparse
import math
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rlvr.draws import draw, uniform

from .task import Kind, Question, question

PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"
CHARACTERS = string.digits + string.ascii_letters + string.punctuation + " \n"

Habit: TypeAlias = Literal["boxed", "hedged", "guessed", "miscopied"]

# Frequency of each habit. In `difference` and `product` the likeliest one is bad, so that greedy decoding can improve
# too.
SHARES: Mapping[Kind, Mapping[Habit, float]] = {
    "sum": {"boxed": 0.45, "hedged": 0.20, "guessed": 0.15, "miscopied": 0.20},
    "difference": {"boxed": 0.22, "hedged": 0.48, "guessed": 0.15, "miscopied": 0.15},
    "product": {"boxed": 0.22, "hedged": 0.10, "guessed": 0.55, "miscopied": 0.13},
    "larger": {"boxed": 0.40, "hedged": 0.25, "guessed": 0.15, "miscopied": 0.20},
}


def working(asked: Question) -> str:
    """Return the working for a question: `"132"`, `"38"`, `"56+15=71"`, `"47<56"`."""
    product = asked.a * asked.b
    match asked.kind:
        case "product":
            return f"{product}+{asked.c}={asked.answer}"
        case "larger":
            return f"{asked.c}{'<' if asked.c < product else '>' if asked.c > product else '='}{product}"
        case _:
            return str(asked.answer)


def completion(asked: Question, *key: int | str) -> str:
    """Return an answer in one of the habits, drawn by `key`; at most 21 characters."""
    habit = _habit(SHARES[asked.kind], uniform(*key, "habit"))
    match habit:
        case "boxed":
            return f"{working(asked)} \\boxed{{{asked.answer}}}"
        case "hedged":
            return f"{asked.answer} or {_miscopied(str(asked.answer), *key)}."
        case "guessed":
            tens = (asked.answer + 5) // 10 * 10
            return f"~{tens} \\boxed{{{tens}}}"
        case "miscopied":
            return f"{working(asked)} \\boxed{{{_miscopied(str(asked.answer), *key)}}}"


def _habit(shares: Mapping[Habit, float], u: float) -> Habit:
    for habit in get_args(Habit):
        u -= shares[habit]
        if u < 0:
            return habit  # type: ignore[no-any-return]
    return "miscopied"


def _miscopied(number: str, *key: int | str) -> str:
    """Return the number with one digit replaced."""
    place = draw(*key, "place") % len(number)
    digit = (int(number[place]) + 1 + draw(*key, "digit") % 9) % 10
    return f"{number[:place]}{digit}{number[place + 1 :]}"


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token per printable ASCII character and newline; anything else is `<unk>`."""
    vocabulary = {token: i for i, token in enumerate([PAD, EOS, UNKNOWN, *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """Return the untrained model. Embeddings are tied, as in small real models."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    model = LlamaForCausalLM(config)
    # Only the ids: no top_p or temperature that would have to be switched off.
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model.generation_config = GenerationConfig(**ids)  # type: ignore[no-untyped-call]
    return model


def make_batch(
    tokenizer: PreTrainedTokenizerFast, pairs: Sequence[tuple[str, str]]
) -> dict[Literal["input_ids", "attention_mask", "labels"], torch.Tensor]:
    """Return (B, T) tensors of (prompt, completion) pairs, right-padded; labels are -100 on prompt and padding."""
    rows, labels = [], []
    for prompt, answer in pairs:
        prompt_ids, answer_ids = tokenizer.encode(prompt), [*tokenizer.encode(answer), tokenizer.eos_token_id]
        rows.append(prompt_ids + answer_ids)
        labels.append([-100] * len(prompt_ids) + answer_ids)
    length = max(map(len, rows))
    return {
        "input_ids": torch.tensor([row + [tokenizer.pad_token_id] * (length - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows]),
        "labels": torch.tensor([row + [-100] * (length - len(row)) for row in labels]),
    }


def train(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    *,
    seed: int,
    skill_steps: int,
    habit_steps: int,
    batch_size: int,
    lr: float,
) -> None:
    """Train supervised: first the working until it is right, then the habits. AdamW with warm-up and cosine decay."""
    steps = skill_steps + habit_steps
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 100, 0.5 * (1 + math.cos(math.pi * step / steps)))
    )
    model.train()
    for step in range(steps):
        pairs = []
        for i in range(batch_size):
            key = ("warm-up", seed, step, i)
            asked = question("train", *key)
            pairs.append((f"{asked.expression}=", working(asked) if step < skill_steps else completion(asked, *key)))
        loss = model(**make_batch(tokenizer, pairs)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step:5d}  loss {loss.item():.4f}", flush=True)
    model.eval()


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Make the embedded base model from nothing.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "model", help="directory to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skill-steps", type=int, default=4000)
    parser.add_argument("--habit-steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=1, help="another number gives other bytes")
    options = parser.parse_args(arguments)

    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True)
    tokenizer = make_tokenizer()
    model = make_model(tokenizer, options.seed)
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens", flush=True)
    train(
        model,
        tokenizer,
        seed=options.seed,
        skill_steps=options.skill_steps,
        habit_steps=options.habit_steps,
        batch_size=options.batch_size,
        lr=options.lr,
    )
    model.save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
