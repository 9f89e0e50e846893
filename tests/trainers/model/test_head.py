"""The output layer in parts against the plain formula: values, gradients, memory, and models that transform their
logits."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    BloomForCausalLM,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

from rlvr.errors import ConfigError
from rlvr_trainers.model.head import Head, head_logprobs, split
from rlvr_trainers.model.logprobs import token_logprobs

P, H, V = 7, 5, 11
PLACE_M = torch.tensor([0, 0, 0, 2, 3, 3, 5, 6])  # positions 1 and 4 predict nothing that is asked for
TARGET_M = torch.tensor([4, 4, 10, 0, 3, 7, 9, 2])


in_parts = pytest.mark.parametrize("at_once", [1, 3 * V, 2**20], ids=["one at a time", "in parts", "at once"])


def plain(logits_PV: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    logprobs_PV = torch.log_softmax(logits_PV.double() / temperature, -1)
    entropy_P = -(logprobs_PV.exp() * logprobs_PV).sum(-1)
    return logprobs_PV[PLACE_M, TARGET_M], entropy_P.detach()


def draw(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def linear(bias: bool, dtype: torch.dtype) -> nn.Linear:
    layer = nn.Linear(H, V, bias=bias, dtype=dtype)
    with torch.no_grad():
        for i, parameter in enumerate(layer.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=i))
    return layer


@in_parts
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("changed", [False, True])
def test_derivatives_in_float64(bias: bool, changed: bool, at_once: int) -> None:
    """Compared with finite differences, for the hidden states and each parameter."""
    layer = linear(bias, torch.float64)
    head = Head(layer, V, *((0.5, 4.0) if changed else ()), logits_at_once=at_once)

    def logprobs(hidden_PH: Tensor, *_: Tensor) -> Tensor:
        return head_logprobs(head, hidden_PH, PLACE_M, TARGET_M, 0.7)[0]

    hidden_PH = draw(P, H, seed=5).requires_grad_()
    assert torch.autograd.gradcheck(logprobs, (hidden_PH, *layer.parameters()))


@in_parts
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_values_and_gradients_are_the_plain_formula_s(
    dtype: torch.dtype, tolerance: float, temperature: float, at_once: int
) -> None:
    layer = linear(True, torch.float32)
    hidden_PH = draw(P, H, dtype=torch.float32, seed=5).requires_grad_()
    weights_M = torch.arange(1.0, 1 + len(TARGET_M))

    exact, exact_hidden = linear(True, torch.float64), hidden_PH.detach().double().requires_grad_()
    logprobs_M, entropy_P = plain(exact(exact_hidden), temperature)
    (weights_M * logprobs_M).sum().backward()

    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        head = Head(layer, V, logits_at_once=at_once)
        found_M, found_P = head_logprobs(head, hidden_PH, PLACE_M, TARGET_M, temperature)
    assert found_M.dtype == found_P.dtype == torch.float32
    assert not found_P.requires_grad
    (weights_M * found_M).sum().backward()

    def agree(found: Tensor, expected: Tensor) -> bool:
        return bool((found.double() - expected).norm() <= tolerance * expected.norm())

    assert agree(found_M, logprobs_M)
    assert agree(found_P, entropy_P)
    assert hidden_PH.grad is not None
    assert agree(hidden_PH.grad, exact_hidden.grad)
    for parameter, expected in zip(layer.parameters(), exact.parameters(), strict=True):
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        assert agree(parameter.grad, expected.grad)


def test_a_frozen_head_passes_the_gradient_on() -> None:
    layer = linear(True, torch.float32).requires_grad_(False)
    hidden_PH = draw(P, H, dtype=torch.float32).requires_grad_()
    head_logprobs(Head(layer, V), hidden_PH, PLACE_M, TARGET_M, 1.0)[0].sum().backward()
    assert hidden_PH.grad is not None
    assert bool(hidden_PH.grad.any())
    assert all(parameter.grad is None for parameter in layer.parameters())


def test_a_float32_head_computes_in_float32_under_autocast() -> None:
    layer = linear(False, torch.float32)
    hidden_PH = draw(P, H).bfloat16()
    expected, _ = plain(layer(hidden_PH.float()), 1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded, exact = (
            head_logprobs(Head(layer, V, float32=float32), hidden_PH, PLACE_M, TARGET_M, 1.0)[0]
            for float32 in (False, True)
        )
    assert (exact - expected).abs().max() < 1e-5 < 1e-3 < (rounded - expected).abs().max()


def test_nothing_to_predict() -> None:
    layer, none = linear(False, torch.float32), torch.zeros(0, dtype=torch.long)
    hidden_PH = torch.zeros(0, H, requires_grad=True)
    logprobs_M, entropy_P = head_logprobs(Head(layer, V), hidden_PH, none, none, 1.0)
    assert len(logprobs_M) == len(entropy_P) == 0
    logprobs_M.sum().backward()
    assert layer.weight.grad is not None
    assert not layer.weight.grad.any()


@pytest.mark.parametrize("at_once", [100, 1000])
def test_no_more_logits_than_allowed_are_held(at_once: int) -> None:
    """Checks the largest tensor with the vocabulary's width, forward and backward."""
    sizes: list[int] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            if isinstance(result, Tensor) and result.dim() == 2 and result.shape[-1] == V:
                sizes.append(result.numel())
            return result

    hidden_PH = draw(400, H, dtype=torch.float32).requires_grad_()
    place_P = torch.arange(400)
    head = Head(linear(False, torch.float32), V, logits_at_once=at_once)
    with Watch():
        head_logprobs(head, hidden_PH, place_P, place_P % V, 1.0)[0].sum().backward()
    assert at_once / 2 < max(sizes) <= at_once


SMALL: dict[str, Any] = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA: dict[str, Any] = SMALL | {"intermediate_size": 32, "num_key_value_heads": 4, "initializer_range": 0.2}
TOKENS: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

MODELS: dict[str, Callable[[], Any]] = {
    "plain": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA)),
    "tied": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA, tie_word_embeddings=True)),
    "learned positions": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4)),
    "head with a bias": lambda: PhiForCausalLM(PhiConfig(**LLAMA)),
    "soft cap": lambda: Gemma2ForCausalLM(
        Gemma2Config(**LLAMA, **TOKENS, head_dim=8, final_logit_softcapping=2.0, attn_implementation="eager")
    ),
    "multiplied": lambda: CohereForCausalLM(CohereConfig(**LLAMA, **TOKENS, logit_scale=0.25)),
    "divided": lambda: GraniteForCausalLM(GraniteConfig(**LLAMA, **TOKENS, logits_scaling=4.0)),
    "alibi": lambda: BloomForCausalLM(BloomConfig(**SMALL, **TOKENS)),
    "recurrent": lambda: MambaForCausalLM(MambaConfig(**SMALL, initializer_range=0.2)),
}


class Odd(LlamaForCausalLM):
    """Halves the logits of even tokens, which no key of its configuration tells."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = output.logits * torch.where(torch.arange(50) % 2 == 0, 0.5, 1.0)
        return output


def build(make: Callable[[], Any]) -> Any:
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of architectures about kernels that are not installed
        torch.manual_seed(0)
        return make().eval()


IDS_BT = torch.tensor([[5, 9, 12, 3, 30, 7], [8, 8, 20, 2, 0, 0]])
MASK_BT = torch.tensor([[0, 0, 0, 1, 0, 1], [0, 0, 1, 1, 0, 0]], dtype=torch.bool)


def compare(model: Any, scored: Any) -> None:
    """Assert that values and gradients of `scored` equal those of the model's own logits."""
    found = token_logprobs(scored, IDS_BT, MASK_BT, 0.7)
    found.logprobs_BT.sum().backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    logprobs_BTV = torch.log_softmax(model(input_ids=IDS_BT, use_cache=False).logits[:, :-1] / 0.7, -1)
    entropy_BT = -(logprobs_BTV.exp() * logprobs_BTV).sum(-1)
    expected_BT = logprobs_BTV.gather(-1, IDS_BT[:, 1:, None]).squeeze(-1)
    assert torch.allclose(found.logprobs_BT[:, 1:][MASK_BT[:, 1:]], expected_BT[MASK_BT[:, 1:]], atol=1e-5)
    assert torch.allclose(found.entropy_BT[:, 1:][MASK_BT[:, 1:]], entropy_BT[MASK_BT[:, 1:]], atol=1e-5)
    expected_BT[MASK_BT[:, 1:]].sum().backward()
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert (gradient - parameter.grad).norm() <= 1e-4 * parameter.grad.norm() + 1e-7


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_an_architecture_s_logits_are_those_of_its_parts(make: Callable[[], Any]) -> None:
    model = build(make)
    scored = split(model)  # a warning would be an error here
    assert scored.body is not model
    compare(model, scored)


def test_a_model_with_logits_of_its_own_stays_whole_and_says_so() -> None:
    model = build(lambda: Odd(LlamaConfig(**LLAMA)))
    with pytest.warns(
        UserWarning, match=r"llama transforms its logits in an unknown way, so they are held all at once"
    ):
        scored = split(model)
    assert scored.body is model
    compare(model, scored)
    with pytest.raises(ConfigError, match=r"trainer.float32_head: llama transforms its logits in an unknown way"):
        split(model, float32_head=True)


def test_tied_weights_get_both_gradients(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    compare(model, split(model))
