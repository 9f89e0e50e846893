"""Models of a given shape with random weights, their tokenizer and questions, for measurements of time and memory.

What such a model says is noise, so lengths are made equal: its end-of-text id lies beyond its vocabulary and is never
drawn, every question has `PROMPT_TOKENS` tokens, and the reward is a hash of the text, so that groups have a signal.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import rlvr

PROMPT_TOKENS = 60
SHAPES: dict[str, dict[str, int]] = {
    # 30 million parameters, 12 of them in the embedding, which is the output layer too.
    "30M": {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 10, "num_attention_heads": 6}
    | {"vocab_size": 32_000},
    # Qwen's vocabulary on a small body: nearly all of the work is in the output layer.
    "152k": {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 4}
    | {"vocab_size": 151_936},
}


@rlvr.verifier(name="coin", version="1")
def coin(completion: str, task: rlvr.Task) -> bool:
    """Return a reward that depends only on the text and is 1 for half of all texts."""
    return zlib.crc32(completion.encode()) % 2 == 1


def write_model(shape: str, directory: Path) -> Path:
    """Write a checkpoint of this shape. Return `directory`."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = SHAPES[shape]["vocab_size"]
    characters = [chr(c) for c in range(32, 127)]
    ids = {token: i for i, token in enumerate(["<pad>", "<unk>", *characters])} | {"<eos>": vocabulary}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    ).save_pretrained(directory)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            **SHAPES[shape],
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=None,
        )
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(pad_token_id=0)
    model.save_pretrained(directory)
    return directory


def write_questions(file: Path, count: int) -> Path:
    """Write `count` questions of `PROMPT_TOKENS` characters each. Return `file`."""
    questions = (f"{i} plus {i + 1} is".rjust(PROMPT_TOKENS, "#") for i in range(count))
    lines = [json.dumps({"question": question, "answer": "0"}) for question in questions]
    file.write_text("\n".join(lines) + "\n")
    return file
