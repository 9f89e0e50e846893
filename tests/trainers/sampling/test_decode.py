"""Numerics of sampling, without a model: draws, distributions, the choice of a token."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.draws import draw
from rlvr.record.schema import SamplingParams
from rlvr_trainers.sampling.decode import choose, log_distribution, uniform

FIRST = torch.tensor([0])


def splitmix64(seed: int, steps: int) -> list[int]:
    """Return draws of the published algorithm, with its state, in Python integers."""
    outputs = []
    mask = 2**64 - 1
    for _ in range(steps):
        seed = (seed + 0x9E3779B97F4A7C15) & mask
        z = seed
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        outputs.append(z ^ (z >> 31))
    return outputs


def test_the_reference_has_the_published_outputs() -> None:
    assert splitmix64(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_draw_t_is_the_t_th_output_of_splitmix64(seeds: list[int]) -> None:
    drawn = torch.stack([uniform(torch.tensor(seeds), t) for t in range(4)], 1)
    assert drawn.tolist() == [[(z >> 11) / 2**53 for z in splitmix64(seed, 4)] for seed in seeds]


def test_draws_of_neighboring_keys_and_steps_look_independent() -> None:
    seeds = torch.tensor([draw("sample", "key", index) for index in range(20_000)])
    u = torch.stack([uniform(seeds, t) for t in range(4)])
    assert u.min() >= 0
    assert u.max() < 1
    assert (u.mean(1) - 0.5).abs().max() < 4 / math.sqrt(12 * 20_000)
    between_steps = torch.corrcoef(u) - torch.eye(4)
    between_rows = torch.corrcoef(torch.stack([u[0, :-1], u[0, 1:]]))[0, 1]
    assert max(between_steps.abs().max(), between_rows.abs()) < 4 / math.sqrt(20_000)


def test_a_token_without_probability_is_never_chosen() -> None:
    logprobs_BV = torch.tensor([[-torch.inf, -torch.inf, math.log(0.5), -torch.inf, math.log(0.5), -torch.inf]])
    last_below_one = 1 - 2.0**-53
    for u, token in ((0.0, 2), (0.49, 2), (0.51, 4), (last_below_one, 4)):
        assert choose(logprobs_BV, FIRST, torch.tensor([u], dtype=torch.float64)).tolist() == [token]


@given(
    st.lists(st.floats(-30, 0), min_size=1, max_size=30),
    st.floats(0, 1, exclude_max=True),
)
@settings(deadline=None)
def test_the_choice_inverts_the_cumulative_distribution(scores: list[float], u: float) -> None:
    logprobs = torch.log_softmax(torch.tensor(scores), -1)
    token = int(choose(logprobs[None], FIRST, torch.tensor([u], dtype=torch.float64))[0])
    cumulative = [0.0, *itertools.accumulate(math.exp(x) for x in logprobs.tolist())]
    slack = 1e-6
    assert cumulative[token] - slack <= u * cumulative[-1] <= cumulative[token + 1] + slack


@given(st.integers(1, 1600), st.integers(0, 2**32 - 1), st.floats(0.1, 30))
@settings(max_examples=60, deadline=None)
def test_the_choice_is_that_of_the_whole_running_sum(vocabulary: int, seed: int, spread: float) -> None:
    """Exact in integers, for rows that share a distribution."""
    generator = torch.Generator().manual_seed(seed)
    logprobs_NV = torch.log_softmax(spread * torch.randn(3, vocabulary, generator=generator), -1)
    node_B = torch.tensor([2, 0, 0, 1, 2])
    uniform_B = torch.rand(5, generator=generator, dtype=torch.float64)
    uniform_B[:2] = torch.tensor([0.0, 1 - 2.0**-53])
    expected = []
    for node, u in zip(node_B.tolist(), uniform_B.tolist(), strict=True):
        weights = [int(p * 2**62) for p in logprobs_NV[node].exp().tolist()]
        ends = list(itertools.accumulate(weights))
        target = min(int(u * float(ends[-1])), ends[-1] - 1)
        expected.append(next(token for token, end in enumerate(ends) if end > target))
    assert choose(logprobs_NV, node_B, uniform_B).tolist() == expected


def test_a_row_of_nan_chooses_something_and_leaves_the_others_alone() -> None:
    logprobs_BV = torch.tensor([[math.nan, math.nan, math.nan], [-torch.inf, 0.0, -torch.inf]])
    tokens = choose(logprobs_BV, torch.arange(2), torch.tensor([0.3, 0.3], dtype=torch.float64)).tolist()
    assert tokens[0] in range(3)
    assert tokens[1] == 1


def filtered(logits: list[float], params: SamplingParams) -> list[float]:
    """Return probabilities after the filters, token by token from their definitions."""
    scaled = [x / params.temperature for x in logits]
    probs = [math.exp(x - max(scaled)) for x in scaled]
    order = sorted(range(len(probs)), key=lambda i: (-probs[i], i))
    if params.top_k:
        order = order[: params.top_k]
    if params.top_p < 1:
        total = sum(probs[i] for i in order)
        nucleus: list[int] = []
        while sum(probs[i] for i in nucleus) < params.top_p * total:
            nucleus.append(order[len(nucleus)])
        order = nucleus
    order = [i for i in order if probs[i] >= params.min_p * max(probs)]
    total = sum(probs[i] for i in order)
    return [probs[i] / total if i in order else 0.0 for i in range(len(probs))]


@pytest.mark.parametrize(
    "settings_",
    [
        {},
        {"temperature": 0.6},
        {"temperature": 2.5},
        {"top_k": 1},
        {"top_k": 4},
        {"top_k": 100},
        {"top_p": 1e-9},
        {"top_p": 0.55},
        {"top_p": 0.95, "temperature": 0.7},
        {"min_p": 0.2},
        {"top_k": 6, "top_p": 0.7, "min_p": 0.3, "temperature": 1.4},
    ],
    ids=str,
)
def test_the_distribution_is_the_filters_definition(settings_: dict[str, float]) -> None:
    params = SamplingParams.model_validate(settings_)
    logits_BV = torch.randn(6, 11, generator=torch.Generator().manual_seed(3)) * 2
    logprobs_BV = log_distribution(logits_BV, params)
    assert logprobs_BV.dtype == torch.float32
    expected_BV = torch.tensor([filtered(row, params) for row in logits_BV.tolist()])
    assert torch.equal(logprobs_BV == -torch.inf, expected_BV == 0)
    torch.testing.assert_close(logprobs_BV.exp(), expected_BV, rtol=1e-5, atol=1e-7)


def test_top_k_keeps_exactly_k_of_equal_tokens() -> None:
    logprobs_BV = log_distribution(torch.zeros(1, 5), SamplingParams(top_k=2))
    assert (logprobs_BV > -torch.inf).tolist() == [[True, True, False, False, False]]


def test_half_precision_logits_are_normalized_in_float32() -> None:
    logits_BV = torch.randn(2, 4000).to(torch.bfloat16)
    logprobs_BV = log_distribution(logits_BV, SamplingParams(temperature=0.7))
    assert (logprobs_BV.double().exp().sum(-1) - 1).abs().max() < 1e-5


def test_greedy_is_reported_under_the_models_own_distribution() -> None:
    logits_BV = torch.tensor([[1.0, 3.0, 2.0]])
    logprobs_BV = log_distribution(logits_BV, SamplingParams(temperature=0, top_k=1))
    torch.testing.assert_close(logprobs_BV, torch.log_softmax(logits_BV, -1))
