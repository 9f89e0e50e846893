"""Log-probabilities and entropies against a softmax written out in float64."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from rlvr_trainers.model.head import split
from rlvr_trainers.model.logprobs import token_logprobs

IDS_BT = torch.tensor([[5, 9, 12, 3, 30, 7], [8, 8, 20, 2, 0, 0], [4, 6, 0, 0, 0, 0]])
MASK_BT = torch.tensor([[0, 0, 0, 1, 0, 1], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0]], dtype=torch.bool)
LENGTHS = [6, 4, 2]


@pytest.mark.parametrize("model", ["tiny_model", "awkward_model"])
@pytest.mark.parametrize("temperature", [1.0, 0.6, 2.5])
def test_values_and_entropies(model: str, temperature: float, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(model)
    exact = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()
    found = token_logprobs(
        split(AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()), IDS_BT, MASK_BT, temperature
    )
    for b, length in enumerate(LENGTHS):
        with torch.no_grad():
            logits_TV = exact(input_ids=IDS_BT[b : b + 1, :length]).logits[0] / temperature  # alone, without padding
        for t in range(length):
            if not MASK_BT[b, t]:
                continue
            p = logits_TV[t - 1].exp() / logits_TV[t - 1].exp().sum()
            assert found.logprobs_BT[b, t].item() == pytest.approx(p[IDS_BT[b, t]].log().item(), abs=1e-5)
            assert found.entropy_BT[b, t].item() == pytest.approx(-(p * p.log()).sum().item(), abs=1e-5)
    assert not found.logprobs_BT[~MASK_BT].any()
    assert not found.entropy_BT[~MASK_BT].any()
    assert not found.entropy_BT.requires_grad


def test_gradient_is_that_of_the_log_softmax(tiny_model: Path) -> None:
    exact = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64).eval()
    logits_BTV = exact(input_ids=IDS_BT).logits / 0.6
    expected = sum(
        torch.log_softmax(logits_BTV[b, t - 1], 0)[IDS_BT[b, t]] for b in range(3) for t in range(6) if MASK_BT[b, t]
    )
    expected.backward()
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    token_logprobs(split(model), IDS_BT, MASK_BT, 0.6).logprobs_BT.sum().backward()
    for (name, parameter), wanted in zip(model.named_parameters(), exact.parameters(), strict=True):
        difference = (parameter.grad.double() - wanted.grad).norm() / wanted.grad.norm()
        assert difference < 1e-5, name


@pytest.mark.parametrize("rows", [[2], [1, 2]])
def test_rows_without_sampled_tokens_are_zero(rows: list[int], tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    found = token_logprobs(split(model), IDS_BT[rows], MASK_BT[rows], 1.0)
    assert not found.logprobs_BT[-1].any()
    assert bool(found.logprobs_BT.any()) == (rows != [2])


def test_the_second_token_can_be_sampled(tiny_model: Path) -> None:
    """With a prompt of one token, the first position predicts."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    mask_BT = torch.tensor([[False, True, True]])
    found = token_logprobs(split(model), IDS_BT[:1, :3], mask_BT, 1.0)
    with torch.no_grad():
        expected = torch.log_softmax(model(IDS_BT[:1, :3]).logits[0, 0], 0)[9]
    assert found.logprobs_BT[0, 1].item() == pytest.approx(expected.item(), abs=1e-5)


def test_equal_rows_are_computed_once(tiny_model: Path) -> None:
    """Rows with equal tokens and masks; the gradient is that of all of them."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    computed: list[int] = []
    scored = split(model)
    scored.body.register_forward_pre_hook(lambda _, __, kw: computed.append(len(kw["input_ids"])), with_kwargs=True)
    index = torch.tensor([0, 1, 0, 2, 1, 0])
    ids_BT, mask_BT = IDS_BT[index], MASK_BT[index]
    mask_BT[5, 4] = True  # the third copy of row 0 has another mask
    weights_BT = torch.arange(36.0).reshape(6, 6)

    found = token_logprobs(scored, ids_BT, mask_BT, 1.0)
    assert computed == [4]
    (weights_BT * found.logprobs_BT).sum().backward()
    together = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    for b in range(6):
        alone = token_logprobs(split(model), ids_BT[b : b + 1], mask_BT[b : b + 1], 1.0)
        assert torch.allclose(found.logprobs_BT[b], alone.logprobs_BT[0], atol=1e-5)
        assert torch.allclose(found.entropy_BT[b], alone.entropy_BT[0], atol=1e-5)
        (weights_BT[b] * alone.logprobs_BT[0]).sum().backward()
    for expected, gradient in zip(model.parameters(), together, strict=True):
        assert (gradient - expected.grad).norm() < 1e-5 * expected.grad.norm()
