"""TRL's own trainers prepare exported data and take a step on it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

import rlvr
from rlvr.record.schema import Message, Rollout, Score, Task
from rlvr.record.store import write_rollouts

pytestmark = [
    pytest.mark.models,
    pytest.mark.filterwarnings("ignore"),  # TRL and transformers warn of what the other deprecates
]

TRAINERS: dict[str, tuple[Any, Any]] = {
    "sft": (SFTTrainer, SFTConfig),
    "dpo": (DPOTrainer, DPOConfig),
    "kto": (KTOTrainer, KTOConfig),
}
TEMPLATE = "{% for turn in messages %}{{ turn.role + '=' + turn.content + eos_token }}{% endfor %}"


def rollouts(chat: bool) -> list[Rollout]:
    """Return four groups of two rollouts, the first of each correct."""
    found = []
    for i in range(8):
        asked = f"{i // 2}+1?"
        prompt: dict[str, Any] = {"messages": (Message(role="user", content=asked),)} if chat else {"prompt": asked}
        score = Score(status="graded", reward=float(i % 2 == 0), verifier="math", version="1")
        completion = str(i // 2 + 1 + i % 2)
        task = Task(answer=str(i // 2 + 1))
        rollout = Rollout(id=str(i), group_id=str(i // 2), completion=completion, task=task, scores=(score,), **prompt)
        found.append(rollout)
    return found


@pytest.mark.parametrize("chat", [False, True], ids=["text", "chat"])
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("to", TRAINERS)
def test_trl_prepares_the_data_and_trains(tiny_model: Path, tmp_path: Path, to: str, ending: str, chat: bool) -> None:
    write_rollouts(tmp_path / "in.parquet", rollouts(chat))
    out = tmp_path / f"out.{ending}"
    rlvr.export(tmp_path / "in.parquet", out, to=to)
    trainer, config = TRAINERS[to]
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = TEMPLATE
    made = trainer(
        model=AutoModelForCausalLM.from_pretrained(tiny_model),
        args=config(
            output_dir=str(tmp_path / "run"), max_steps=1, per_device_train_batch_size=2, use_cpu=True, bf16=False,
            report_to=[], save_strategy="no", disable_tqdm=True,
        ),
        train_dataset=load_dataset(
            "json" if ending == "jsonl" else "parquet", data_files=str(out), split="train", cache_dir=str(tmp_path)
        ),
        processing_class=tokenizer,
    )  # fmt: skip
    assert len(made.train_dataset) == {"sft": 4, "dpo": 4, "kto": 8}[to]
    first = made.train_dataset[0]
    if not chat:
        expected = {
            "sft": {"input_ids": "0+1?1<eos>"},
            "dpo": {"prompt_ids": "0+1?", "chosen_ids": "1<eos>", "rejected_ids": "2<eos>"},
            "kto": {"prompt_ids": "0+1?", "completion_ids": "1<eos>"},
        }[to]
        assert {name: tokenizer.decode(first[name]) for name in expected} == expected
    else:
        assert tokenizer.decode(first["input_ids" if to == "sft" else "prompt_ids"]).startswith("user=0+1?<eos>")
    assert math.isfinite(made.train().training_loss)
