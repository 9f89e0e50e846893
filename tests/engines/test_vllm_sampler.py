"""vLLM in this process, for real: the protocol, the trainer's log-probabilities, weight syncs under way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from asked import PROMPTS, ROUNDING, ask, collected, differences, other_weights
from rlvr.protocols import ModelSpec, SampledGroup
from rlvr.record.schema import Stop
from rlvr.testing import check_sampler
from rlvr_trainers.model.models import load_model
from rlvr_trainers.model.snapshots import load_snapshot, snapshot_of
from rlvr_trainers.sampling.decode import log_distribution
from rlvr_trainers.sampling.vllm_sampler import VLLMOptions, VLLMSampler


@pytest.fixture(scope="module")
def spec(model: Path) -> ModelSpec:
    return ModelSpec(str(model), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def sampler(spec: ModelSpec) -> Iterator[VLLMSampler]:
    made = VLLMSampler(spec, VLLMOptions())
    yield made
    made.close()


def test_log_probabilities_are_the_trainer_s_before_and_after_a_sync(spec: ModelSpec, sampler: VLLMSampler) -> None:
    first = snapshot_of(load_model(spec, master=True), 0)
    sampler.sync(first)
    for group in collected(sampler, [ask(f"a{i}", ids) for i, ids in enumerate(PROMPTS)]):
        assert max(differences(spec, {0: first}, group)) < ROUNDING
        assert len({sample.token_ids for sample in group.samples}) > 1
    second = other_weights(spec, 4, seed=1)
    sampler.sync(second)
    for group in collected(sampler, [ask(f"b{i}", ids) for i, ids in enumerate(PROMPTS)]):
        assert max(differences(spec, {4: second}, group)) < ROUNDING


def test_sequences_under_way_go_on_with_new_weights_and_say_so(spec: ModelSpec, sampler: VLLMSampler) -> None:
    old, new = other_weights(spec, 5, seed=2), other_weights(spec, 6, seed=3)
    sampler.sync(old)
    requests = [ask(f"c{i}", ids, size=2, max_tokens=40) for i, ids in enumerate(PROMPTS)]
    sampler.submit(requests)
    for _ in range(9):
        sampler._engine.step()
    sampler.sync(new)
    found: list[SampledGroup] = []
    while len(found) < len(requests):
        found += sampler.collect()
    spans = {tuple(run.version for run in sample.versions) for group in found for sample in group.samples}
    assert (5, 6) in spans
    for group in found:
        assert max(differences(spec, {5: old, 6: new}, group)) < ROUNDING


def test_greedy_samples_are_equal_and_have_raw_log_probabilities(spec: ModelSpec, sampler: VLLMSampler) -> None:
    weights = other_weights(spec, 7, seed=4)
    sampler.sync(weights)
    (group,) = collected(sampler, [ask("greedy", [2, 3, 4], size=3, temperature=0)])
    assert len(group.samples) == 3
    assert len({sample.token_ids for sample in group.samples}) == 1
    assert group.sampling.logprob_mode == "raw"
    assert max(differences(spec, {7: weights}, group)) < ROUNDING


@pytest.mark.parametrize(
    "filters", [{}, {"top_k": 5}, {"top_k": 12, "top_p": 0.6}, {"top_k": 12, "min_p": 0.2}], ids=str
)
def test_the_likeliest_tokens_are_those_of_the_sampler_on_transformers(
    filters: dict[str, float], spec: ModelSpec, sampler: VLLMSampler
) -> None:
    weights = other_weights(spec, 8, seed=6)
    sampler.sync(weights)
    model = load_model(spec, master=True)
    load_snapshot(model, weights)
    request = replace(ask(f"top {filters}", [2, 3, 4], **filters), keep_topk=25)
    (group,) = collected(sampler, [request])
    for sample in group.samples:
        assert sample.top is not None
        ids = torch.tensor([[*request.prompt_ids, *sample.token_ids]])
        with torch.no_grad():
            logits = model(ids).logits[0][len(request.prompt_ids) - 1 : -1]
        expected = log_distribution(logits, request.params).topk(25)
        there = (expected.values > -torch.inf).numpy()
        assert ((sample.top.ids >= 0) == there).all()
        np.testing.assert_allclose(sample.top.logprobs[there], expected.values.numpy()[there], atol=1e-4)


def test_stops_are_those_of_the_sampler_on_transformers(spec: ModelSpec, sampler: VLLMSampler) -> None:
    tokenizer = sampler._model.completions._tokenizer
    ends = {tokenizer.convert_tokens_to_ids(character): character for character in "0123456789"}
    by_token, by_string = collected(
        sampler,
        [
            ask("token", [2, 3], size=8, max_tokens=60, stop=Stop(token_ids=tuple(ends))),
            ask("string", [2, 3], size=8, max_tokens=60, stop=Stop(strings=tuple(ends.values()))),
        ],
    )
    for group in (by_token, by_string):
        assert any(sample.finish_reason == "stop" for sample in group.samples)
        for sample in group.samples:
            last = ends.get(sample.token_ids[-1])
            if last is not None:
                assert (sample.finish_reason, sample.stop_reason) == ("stop", last)
            assert not set(sample.text) & set("0123456789")
            assert not set(sample.token_ids[:-1]) & set(ends)


def test_it_keeps_the_protocol(spec: ModelSpec, sampler: VLLMSampler, tmp_path: Path) -> None:
    """Each check starts with the same weights; one engine serves them all, because a process can hold only one."""
    start = other_weights(spec, 0, seed=5)

    def make() -> VLLMSampler:
        sampler.cancel(list(sampler._outstanding))
        sampler.sync(start)
        return sampler

    kept: Callable[[], None] = sampler.close
    sampler.close = lambda: None  # type: ignore[method-assign]
    try:
        check_sampler(make, replace(start, version=0), tmp_path, prompt_ids=(2, 3, 4))
    finally:
        sampler.close = kept  # type: ignore[method-assign]
        sampler.cancel(list(sampler._outstanding))
