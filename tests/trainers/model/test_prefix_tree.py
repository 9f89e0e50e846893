"""Shared prefixes: properties of the trees, and equality with the plain forward pass."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
)

import small_runs
from rlvr.errors import ConfigError
from rlvr.protocols import ModelSpec, TrainContext
from rlvr_trainers.grpo import Grpo, GrpoOptions
from rlvr_trainers.model.head import split
from rlvr_trainers.model.logprobs import token_logprobs
from rlvr_trainers.model.prefix_tree import (
    prefix_trees,
    require_tree_attention,
    shared_token_logprobs,
    tree_micro_batches,
)

Row = tuple[list[int], list[int]]
"""Prompt and completion."""


def tensors(rows: list[Row]) -> tuple[Tensor, Tensor]:
    """Return tensors padded on the right with 0, which is also a token."""
    width = max(len(prompt) + len(completion) for prompt, completion in rows)
    token_ids_BT, mask_BT = torch.zeros(len(rows), width, dtype=torch.int64), torch.zeros(len(rows), width).bool()
    for b, (prompt, completion) in enumerate(rows):
        token_ids_BT[b, : len(prompt) + len(completion)] = torch.tensor(prompt + completion)
        mask_BT[b, len(prompt) : len(prompt) + len(completion)] = True
    return token_ids_BT, mask_BT


token = st.integers(0, 2)  # so few that rows meet
prompts = st.lists(st.lists(token, min_size=1, max_size=3), min_size=1, max_size=3)
batches = prompts.flatmap(
    lambda p: st.lists(st.tuples(st.sampled_from(p), st.lists(token, max_size=5)), min_size=1, max_size=12)
)


@settings(deadline=None)
@given(batches)
def test_every_distinct_prefix_of_a_prompt_s_rows_is_one_node(rows: list[Row]) -> None:
    token_ids_BT, mask_BT = tensors(rows)
    trees = prefix_trees(token_ids_BT, mask_BT)
    ids, depths = trees.token_ids_SN.flatten().tolist(), trees.position_ids_SN.flatten().tolist()
    prefixes: dict[int, tuple[int, tuple[int, ...]]] = {}  # slot → (tree, the tokens to the node)
    for b, (prompt, completion) in enumerate(rows):
        read = (prompt + completion[:-1]) if completion else []  # the last token predicts nothing
        path = trees.slot_BT[b].tolist()
        assert path[len(read) :] == [-1] * (len(path) - len(read))
        assert [ids[slot] for slot in path[: len(read)]] == read
        assert [depths[slot] for slot in path[: len(read)]] == list(range(len(read)))
        for t, slot in enumerate(path[: len(read)]):
            place = (int(trees.tree_B[b]), tuple(read[: t + 1]))
            assert prefixes.setdefault(slot, place) == place
    assert len(set(prefixes.values())) == len(prefixes) == int(trees.size_G.sum())
    trees_of_prompts = {(tuple(p) if c else (), int(g)) for (p, c), g in zip(rows, trees.tree_B, strict=True)}
    assert len(trees_of_prompts) == len({p for p, _ in trees_of_prompts}) == len({g for _, g in trees_of_prompts})

    attention, width = trees.attention(), trees.token_ids_SN.shape[1]
    for i in range(len(ids)):
        seen = {i // width * width + j for j in attention[i // width, i % width].nonzero().flatten().tolist()}
        if i not in prefixes:
            assert seen == {i}
            continue
        tree, own = prefixes[i]
        assert seen == {j for j, (g, other) in prefixes.items() if g == tree and own[: len(other)] == other}


@settings(deadline=None)
@given(batches, st.integers(1, 30))
def test_micro_batches_hold_every_row_once_and_keep_the_budget(rows: list[Row], budget: int) -> None:
    token_ids_BT, mask_BT = tensors(rows)
    parts = list(tree_micro_batches(token_ids_BT, mask_BT, budget))
    assert sorted(b for part in parts for b in part.tolist()) == list(range(len(rows)))
    whole = prefix_trees(token_ids_BT, mask_BT)
    for part in parts:
        trees = prefix_trees(token_ids_BT[part], mask_BT[part])
        assert trees.token_ids_SN.numel() <= budget or len(part) == 1
    for g in (whole.size_G <= budget).nonzero().flatten().tolist():
        assert sum(bool((whole.tree_B[part] == g).any()) for part in parts) == 1


MANY: list[Row] = [
    ([5, 9, 12], [3, 30, 7]),
    ([5, 9, 12], [3, 30, 8, 8, 2]),
    ([5, 9, 12], [3, 30]),  # a prefix of others
    ([8], [8, 20, 2]),  # another prompt, of one token
    ([5, 9, 12], [3, 30, 7]),  # the first row again
    ([5, 9, 12, 3], [30, 7]),  # the same tokens under a longer prompt
    ([8], [0, 0, 0]),  # the padding's id
    ([4, 6], []),
]
BATCHES = {"many": MANY, "one": MANY[:1], "one token": [([8], [3])], "equal": MANY[:1] * 3, "nothing": MANY[-1:]}


@pytest.mark.parametrize("rows", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("name", ["tiny_model", "awkward_model"])
def test_values_and_gradients_are_the_plain_pass_s(name: str, rows: list[Row], request: pytest.FixtureRequest) -> None:
    model = AutoModelForCausalLM.from_pretrained(request.getfixturevalue(name), dtype=torch.float32).eval()
    token_ids_BT, mask_BT = tensors(rows)
    if len(rows) == len(MANY):
        mask_BT[1, 5] = False  # a turn that was not sampled
    weights_BT = torch.arange(1.0, 1 + mask_BT.numel()).view_as(token_ids_BT)
    results = []
    for function in (token_logprobs, shared_token_logprobs):
        model.zero_grad(set_to_none=False)
        out = function(split(model), token_ids_BT, mask_BT, 0.7)
        (weights_BT * out.logprobs_BT).sum().backward()
        results.append((out, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])))
    (plain, expected), (shared, found) = results
    assert torch.allclose(shared.logprobs_BT, plain.logprobs_BT, rtol=1e-5, atol=1e-5)
    assert torch.allclose(shared.entropy_BT, plain.entropy_BT, rtol=1e-5, atol=1e-5)
    assert not shared.logprobs_BT[~mask_BT].any()
    assert not shared.entropy_BT.requires_grad
    assert (found - expected).norm() <= 1e-5 * expected.norm()
    assert bool(expected.any()) == bool(mask_BT.any())


def test_the_model_reads_each_prefix_once(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    read: list[int] = []
    scored = split(model)
    scored.body.register_forward_pre_hook(lambda _, __, kw: read.append(kw["input_ids"].numel()), with_kwargs=True)
    shared_token_logprobs(scored, *tensors(MANY[:3]), 1.0)
    assert read == [7]  # 5 9 12 3 30 8 8


SMALL: dict[str, Any] = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA: dict[str, Any] = SMALL | {"intermediate_size": 32, "initializer_range": 0.2}


def test_learned_positions_are_served() -> None:
    require_tree_attention(split(GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4)).eval()))


def eager() -> PreTrainedModel:
    """Return a model whose attention adds the mask to the scores, even a boolean one."""
    return LlamaForCausalLM(LlamaConfig(**LLAMA, attn_implementation="eager"))


REFUSED: dict[str, tuple[Any, str]] = {
    "recurrent": (lambda: MambaForCausalLM(MambaConfig(**SMALL, initializer_range=0.2)), "mamba"),
    "alibi": (lambda: BloomForCausalLM(BloomConfig(**SMALL)), "bloom"),
    "window": (
        lambda: MistralForCausalLM(MistralConfig(**LLAMA, num_key_value_heads=4, sliding_window=64)),
        "sliding_window=64",
    ),
    "eager": (eager, "differ by"),
}


@pytest.mark.parametrize(("build", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_read_a_tree_is_refused(build: Any, reason: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build().eval()
    with pytest.raises(ConfigError, match=rf"{reason}.*set trainer.share_prefixes=false"):
        require_tree_attention(split(model))


@pytest.mark.parametrize("name", ["tiny_model", "awkward_model"])
def test_updates_end_in_the_same_weights(name: str, oracle: ModuleType, request: pytest.FixtureRequest) -> None:
    """Two batches, two steps each, with a reference, in one forward pass and in several."""
    path: Path = request.getfixturevalue(name)
    batches = []
    for seed in (1, 2):
        groups = oracle.Oracle(path).groups(seed, [[0.0, 1.0, 1.0], [1.0, 0.0, 0.25, 0.5]], noise=0.2)
        batches.append(groups)

    def train(**options: Any) -> tuple[Tensor, list[dict[str, float]]]:
        options |= {"lr": 1e-3, "beta": 0.1, "updates_per_batch": 2}
        context = TrainContext(
            ModelSpec(str(path), device="cpu", dtype="float32"),
            seed=0,
            temperature=0.7,
            total_updates=4,
            alarms=small_runs.NOISY,
        )
        trainer = Grpo(GrpoOptions(**options), context)
        start = torch.cat([w.flatten() for w in trainer.policy.weights().values()])
        metrics = [dict(trainer.update(groups)) for groups in batches]
        return torch.cat([w.flatten() for w in trainer.policy.weights().values()]) - start, metrics

    moved, metrics = train()
    for budget in (16384, 30, 1):
        found, found_metrics = train(share_prefixes=True, micro_batch_tokens=budget)
        assert (found - moved).norm() < 2e-3 * moved.norm()  # AdamW's first steps magnify the rounding of small entries
        for one, other in zip(found_metrics, metrics, strict=True):
            assert one == pytest.approx(other, rel=1e-3, abs=1e-5)
