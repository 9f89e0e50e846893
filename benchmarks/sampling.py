"""Compare tokens per second of the sampler `hf` with transformers' `generate` and with the bare forward pass.

    python benchmarks/sampling.py                     # three models; some 5 minutes on two quiet cores
    python benchmarks/sampling.py --model 152k        # one of them
    python benchmarks/sampling.py --rounds 1          # does it work?

The floor is the forward pass alone, as a loop around the model would have it: all prompts at once, then one token a row
and call with the library's own cache, and no choice of a token. The sampler can be faster than that where rows that are
still alike are computed once, where rows have ended, and where its cache does not copy what it has.

embedded asks the questions of `rlvr train` and lets completions end; 30M and 152k are random (`random_models.py`) and
never end. All three sides do the same questions and take turns; the figures are medians. Float32.

Writes `results/sampling.md` beside itself.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from against_trl import processor, torch_threads
from random_models import PROMPT_TOKENS, SHAPES, write_model
from transformers import AutoModelForCausalLM

from rlvr.protocols import ModelSpec
from rlvr.record.schema import SamplingParams
from rlvr.run.models import load_tokenizer
from rlvr_plugins.embedded.task import question
from rlvr_trainers.model.models import stop_ids
from rlvr_trainers.sampling.decode import decode

RESULTS = Path(__file__).parent / "results"
EMBEDDED = Path(__file__).parents[1] / "plugins" / "embedded" / "model"
WORK = {"embedded": (16, 16, 24), "30M": (4, 8, 128), "152k": (2, 8, 192)}
"""Number of questions, completions per question, and most tokens of a completion."""


def sides(name: str, path: Path) -> dict[str, Callable[[], int]]:
    """Return the contenders by name: functions that sample once and return the number of tokens."""
    questions, size, max_tokens = WORK[name]
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    tokenizer = load_tokenizer(ModelSpec(str(path)))
    if name == "embedded":
        texts = [f"{question('train', 'benchmark', i).expression}=" for i in range(questions)]
        stops = stop_ids(model, tokenizer)
    else:
        texts = [f"{i} plus {i + 1} is".rjust(PROMPT_TOKENS, "#") for i in range(questions)]
        stops = frozenset()
    prompts: list[list[int]] = tokenizer(texts)["input_ids"]
    rows = [row for row in range(questions) for _ in range(size)]
    padded = tokenizer.pad({"input_ids": [prompts[row] for row in rows]}, return_tensors="pt", padding_side="left")
    params = SamplingParams(temperature=1.0, max_tokens=max_tokens)

    def ours() -> int:
        return sum(len(c.token_ids) for c in decode(model, prompts, rows, range(len(rows)), params, stops))

    def generate() -> int:
        options: Any = {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.0, "max_new_tokens": max_tokens}
        stop = sorted(stops) or None
        with torch.inference_mode():
            output = model.generate(**padded, **options, pad_token_id=0, eos_token_id=stop)
        drawn = output[:, padded["input_ids"].shape[1] :]
        return int((drawn != 0).sum()) if stop else drawn.numel()

    @torch.inference_mode()
    def floor() -> int:
        cache, token_ids, mask = None, padded["input_ids"], padded["attention_mask"]
        for _ in range(max_tokens):
            output = model(
                input_ids=token_ids, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1
            )
            cache, token_ids = output.past_key_values, padded["input_ids"][:, -1:]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        return len(rows) * max_tokens

    return {"rlvr": ours, "generate": generate, "floor": floor}


def measure(name: str, path: Path, rounds: int) -> dict[str, float]:
    """Return tokens per second of each side."""
    functions = sides(name, path)
    rates: dict[str, list[float]] = {side: [] for side in functions}
    for n in range(rounds + 1):  # the first warms up
        for side, function in functions.items():
            began = time.perf_counter()
            tokens = function()
            if n:
                rates[side].append(tokens / (time.perf_counter() - began))
        print(f"{name}: round {n} of {rounds}", flush=True)
    return {side: statistics.median(values) for side, values in rates.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=WORK, action="append", help="repeatable; all by default")
    parser.add_argument("--rounds", type=int, default=5, help="how often each side samples")
    options = parser.parse_args(arguments)
    lines = ["| model | rows | rlvr | `generate` | forward pass alone | rlvr / `generate` | rlvr / forward pass |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name in options.model or WORK:
        with tempfile.TemporaryDirectory() as folder:
            path = write_model(name, Path(folder)) if name in SHAPES else EMBEDDED
            rate = measure(name, path, options.rounds)
        questions, size, _ = WORK[name]
        lines.append(
            f"| {name} | {questions} × {size} | {rate['rlvr']:,.0f} tok/s | {rate['generate']:,.0f} tok/s | "
            f"{rate['floor']:,.0f} tok/s | {rate['rlvr'] / rate['generate']:.1f} | {rate['rlvr'] / rate['floor']:.2f} |"
        )
    text = "\n".join(lines) + (
        f"\n\n`python benchmarks/sampling.py --rounds {options.rounds}`: medians of so many turns; {processor()}, "
        f"{torch_threads()} threads, torch {metadata.version('torch')}, transformers "
        f"{metadata.version('transformers')}, float32. Rows are questions × completions; the forward pass alone "
        "computes every row to the longest length.\n"
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "sampling.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
