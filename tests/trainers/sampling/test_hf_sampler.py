"""The sampler on transformers, with a plain tiny model and with one that has the peculiarities of real checkpoints.

Its reports are compared with one full forward pass of the same weights over each prompt and completion alone: no cache,
no padding, no batch.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rlvr.errors import ConfigError, RequestError, RunError
from rlvr.protocols import GroupRequest, ModelSpec, Prompt, Sample, SampledGroup, Sampler
from rlvr.record.schema import SamplingParams, Stop, Task, VersionRun
from rlvr.settings import sampler_options
from rlvr_trainers.model.models import load_model
from rlvr_trainers.model.snapshots import snapshot_from, snapshot_of
from rlvr_trainers.sampling import decode
from rlvr_trainers.sampling.hf_sampler import HFSampler, HFSamplerOptions

PROMPT = Prompt(task=Task(), text="in tokens below")


def make(path: Path, dtype: Any = "float32", **options: Any) -> HFSampler:
    return HFSampler(ModelSpec(str(path), device="cpu", dtype=dtype), HFSamplerOptions(**options))


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> HFSampler:
    """Shared by tests that sync nothing."""
    return make(tiny_model)


@pytest.fixture(scope="module")
def awkward(awkward_model: Path) -> HFSampler:
    """Shared by tests that sync nothing."""
    return make(awkward_model)


@pytest.fixture(params=["tiny", "awkward"])
def sampler(request: pytest.FixtureRequest) -> HFSampler:
    shared: HFSampler = request.getfixturevalue(request.param)
    return shared


def ask(
    ids: tuple[int, ...] = (5, 6, 7), size: int = 4, key: Any = "key", name: str = "g", **params: Any
) -> GroupRequest:
    return GroupRequest(name, PROMPT, ids, size, SamplingParams(**{"max_tokens": 12, **params}), ("seed", key))


def ragged(groups: int, longest: int = 30, **params: Any) -> list[GroupRequest]:
    """Return requests with prompts of many lengths, with EOS (which may be the pad) among their tokens, and groups of
    many sizes."""
    rng = random.Random(4)
    requests = []
    for g in range(groups):
        ids = tuple(rng.randrange(50) for _ in range(rng.randint(1, longest)))
        requests.append(ask(ids, rng.randint(1, 6), key=g, name=f"g{g}", **params))
    assert any(1 in request.prompt_ids for request in requests)
    return requests


def sample(sampler: HFSampler, *requests: GroupRequest) -> list[SampledGroup]:
    """Return all groups, in the order of the requests."""
    sampler.submit(requests)
    groups: list[SampledGroup] = []
    while finished := sampler.collect():
        groups += finished
    assert sorted(map(id, requests)) == sorted(id(group.request) for group in groups)
    return sorted(groups, key=lambda group: [r is group.request for r in requests].index(True))


def tokens(groups: list[SampledGroup]) -> list[list[tuple[int, ...]]]:
    return [[one.token_ids for one in group.samples] for group in groups]


@torch.no_grad()
def logits_alone(sampler: HFSampler, request: GroupRequest, one: Sample) -> Tensor:
    """Return the (C, V) logits of the sample's tokens, from one pass without a cache."""
    ids = torch.tensor([[*request.prompt_ids, *one.token_ids]])
    logits: Tensor = sampler.model(ids, use_cache=False).logits[0].float()
    return logits[len(request.prompt_ids) - 1 : -1]


def logprob_errors(sampler: HFSampler, groups: list[SampledGroup]) -> Tensor:
    """Return |reported - recomputed| for every token."""
    errors = []
    for group in groups:
        temperature = group.request.params.temperature or 1.0
        for one in group.samples:
            logprobs_CV = torch.log_softmax(logits_alone(sampler, group.request, one) / temperature, -1)
            recomputed = logprobs_CV.gather(-1, torch.tensor(one.token_ids)[:, None]).squeeze(-1)
            errors.append((recomputed - torch.tensor(one.logprobs)).abs())
    return torch.cat(errors)


def assert_parity(sampler: HFSampler, groups: list[SampledGroup]) -> None:
    errors = logprob_errors(sampler, groups)
    assert errors.median() <= 1e-6
    assert errors.max() <= 1e-4


# --- parity ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_equal_a_full_forward_pass(sampler: HFSampler, temperature: float) -> None:
    groups = sample(sampler, *ragged(12, temperature=temperature, max_tokens=50))
    lengths = {len(one.token_ids) for group in groups for one in group.samples}
    assert len(lengths) > 5  # rows left the batch at many times
    assert_parity(sampler, groups)


def test_logprobs_equal_a_full_forward_pass_without_padding(sampler: HFSampler) -> None:
    assert_parity(
        sampler, sample(sampler, ask((9, 8, 7), 3, key=0), ask((4, 3, 2), 3, key=1), ask((30,) * 3, 1, key=2))
    )


def test_logprobs_equal_a_full_forward_pass_where_layers_have_sliding_windows(
    build_tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    path = build_tiny_model(tmp_path, use_sliding_window=True, sliding_window=8, max_window_layers=1)
    sampler = make(path)
    assert sampler.model.config.layer_types == ["full_attention", "sliding_attention"]
    assert_parity(sampler, sample(sampler, *ragged(8, max_tokens=30)))


def test_ids_beyond_the_tokenizer_are_drawn_and_decode_to_nothing(awkward: HFSampler) -> None:
    groups = sample(awkward, ask(size=64, max_tokens=20))
    beyond = [one for one in groups[0].samples if any(t >= len(awkward.tokenizer) for t in one.token_ids)]
    assert beyond
    for one in beyond:
        known = [t for t in one.token_ids if t < len(awkward.tokenizer)]
        ended = one.finish_reason == "stop"
        assert one.text == awkward.tokenizer.decode(known[:-1] if ended else known)
    assert_parity(awkward, groups)


def test_bfloat16_reports_what_it_drew_from(awkward_model: Path) -> None:
    """Compared to the precision of bfloat16, whose sums depend on the batch's shape."""
    sampler = make(awkward_model, dtype="bfloat16")
    groups = sample(sampler, *ragged(6))
    assert groups[0].sampling.dtype == "bfloat16"
    assert logprob_errors(sampler, groups).median() < 0.05


# --- distribution ---------------------------------------------------------------------------------------------------


def chi_square(observed: Tensor, probs: Tensor) -> float:
    """Return the number of standard deviations by which Pearson's statistic exceeds its mean; rare outcomes share a
    bin."""
    expected = probs.double() * observed.sum()
    rare = expected < 5
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    counts = torch.cat([observed[~rare], observed[rare].sum()[None]]).double()
    statistic = ((counts - expected) ** 2 / expected.clamp_min(1e-9)).sum().item()
    freedom = len(expected) - 1
    return (statistic - freedom) / math.sqrt(2 * freedom)


def test_tokens_follow_the_softmax_at_the_temperature(sampler: HFSampler) -> None:
    request = ask(size=4000, temperature=1.3, max_tokens=1)
    samples = sample(sampler, request)[0].samples
    logits = logits_alone(sampler, request, samples[0])[0]
    observed = torch.bincount(torch.tensor([one.token_ids[0] for one in samples]), minlength=len(logits))
    assert chi_square(observed, torch.softmax(logits / 1.3, -1)) < 4
    assert chi_square(observed, torch.softmax(logits, -1)) > 10  # it would have seen a missing temperature


def test_later_tokens_follow_it_whatever_came_before(tiny: HFSampler) -> None:
    request = ask(size=6000, max_tokens=2)
    samples = [one for one in sample(tiny, request)[0].samples if len(one.token_ids) == 2]
    (first, _), *_ = Counter(one.token_ids[0] for one in samples).most_common()
    after = [one for one in samples if one.token_ids[0] == first]
    logits = logits_alone(tiny, request, after[0])[1]
    observed = torch.bincount(torch.tensor([one.token_ids[1] for one in after]), minlength=len(logits))
    assert chi_square(observed, torch.softmax(logits, -1)) < 4


def test_the_generation_config_of_the_checkpoint_filters_nothing(awkward: HFSampler) -> None:
    config = awkward.model.generation_config
    assert config is not None
    assert (config.top_k, config.top_p, config.repetition_penalty) == (20, 0.8, 1.1)
    request = ask(size=500, max_tokens=1)
    samples = sample(awkward, request)[0].samples
    likely = set(logits_alone(awkward, request, samples[0])[0].topk(20).indices.tolist())
    assert {one.token_ids[0] for one in samples} - likely


@pytest.mark.parametrize("filters", [{"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.3}, {"top_k": 8, "top_p": 0.8}], ids=str)
def test_filters_hold_and_logprobs_are_those_after_them(sampler: HFSampler, filters: dict[str, Any]) -> None:
    groups = sample(sampler, *ragged(4, temperature=0.8, **filters))
    assert groups[0].sampling.logprob_mode == "processed"
    for group in groups:
        for one in group.samples:
            logprobs_CV = decode.log_distribution(logits_alone(sampler, group.request, one), group.request.params)
            expected = logprobs_CV.gather(-1, torch.tensor(one.token_ids)[:, None]).squeeze(-1)
            torch.testing.assert_close(torch.tensor(one.logprobs), expected, atol=1e-4, rtol=0)


def test_greedy_takes_the_likeliest_and_says_its_logprobs_are_raw(sampler: HFSampler) -> None:
    groups = sample(sampler, *ragged(5, temperature=0))
    for group in groups:
        assert group.sampling.logprob_mode == "raw"
        assert len({one.token_ids for one in group.samples}) == 1
        one = group.samples[0]
        assert tuple(logits_alone(sampler, group.request, one).argmax(-1).tolist()) == one.token_ids
    assert_parity(sampler, groups)


def test_a_sampler_may_have_a_dtype_of_its_own(tiny_model: Path) -> None:
    """The weights of a float32 trainer are rounded, and the record says so."""
    spec = ModelSpec(str(tiny_model), device="cpu", dtype="float32")
    exact, rounded = (HFSampler(spec, HFSamplerOptions(dtype=dtype)) for dtype in (None, "bfloat16"))
    rounded.sync(snapshot_of(exact.model, 3))
    for sampler, dtype in ((exact, "float32"), (rounded, "bfloat16")):
        (group,) = sample(sampler, ask(size=8))
        assert group.sampling.dtype == dtype
        gap = logprob_errors(exact, [group]).max()
        assert gap < 1e-4 if dtype == "float32" else 1e-4 < gap < 0.1


@pytest.mark.parametrize("penalty", ["repetition_penalty", "presence_penalty", "frequency_penalty"])
def test_penalties_are_refused_not_ignored(tiny: HFSampler, penalty: str) -> None:
    with pytest.raises(ConfigError, match=rf"sampling\.{penalty}"):
        tiny.submit([ask(**{penalty: 1.2})])


# --- randomness -----------------------------------------------------------------------------------------------------


def test_the_same_request_is_answered_the_same(sampler: HFSampler) -> None:
    first, again = sample(sampler, *ragged(5)), sample(sampler, *ragged(5))
    assert [group.samples for group in first] == [group.samples for group in again]


def test_company_does_not_change_what_a_request_draws(sampler: HFSampler) -> None:
    requests = ragged(8, max_tokens=40)
    together = tokens(sample(sampler, *requests))
    assert tokens(sample(sampler, *reversed(requests)))[::-1] == together
    assert [tokens(sample(sampler, request))[0] for request in requests] == together


def test_a_smaller_group_is_the_beginning_of_a_larger(tiny: HFSampler) -> None:
    large, small = sample(tiny, ask(size=9)), sample(tiny, ask(size=4))
    assert tokens(small)[0] == tokens(large)[0][:4]


def test_keys_seeds_and_places_in_the_group_draw_differently(tiny: HFSampler) -> None:
    groups = sample(tiny, ask(key=1), ask(key=2), ask(key="1"), ask(key=1, seed=5), ask(key=1, seed=6))
    drawn = [ids for group in tokens(groups) for ids in group]
    assert len(set(drawn)) == len(drawn) == 20


def test_no_global_generator_is_touched(tiny: HFSampler) -> None:
    before = torch.random.get_rng_state()
    sample(tiny, ask())
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("compact_at", [0.0, 1.0])
def test_when_finished_rows_leave_the_batch_changes_nothing(sampler: HFSampler, compact_at: float) -> None:
    def drawn(**settings: float) -> list[list[int]]:
        prompts, rows = [(5, 6, 7), (8, 9)], [0] * 12 + [1] * 12
        params = SamplingParams(max_tokens=60)
        found = decode.decode(sampler.model, prompts, rows, range(24), params, sampler.stop_ids, **settings)
        return [completion.token_ids for completion in found]

    expected = drawn()
    assert len({len(ids) for ids in expected}) > 3, "rows end one after the other"
    assert drawn(compact_at=compact_at) == expected


# --- stopping -------------------------------------------------------------------------------------------------------


def test_any_stop_token_ends_a_completion_and_is_part_of_it(awkward: HFSampler) -> None:
    tokenizer = awkward.tokenizer
    assert awkward.stop_ids == {1, 4}
    assert tokenizer.pad_token_id in awkward.stop_ids
    samples = [one for group in sample(awkward, *ragged(10, max_tokens=100)) for one in group.samples]
    assert {one.stop_reason for one in samples} == {"</s>", "<|end|>", None}
    for one in samples:
        *inside, last = one.token_ids
        assert not awkward.stop_ids & set(inside)
        if one.finish_reason == "stop":
            assert one.stop_reason == tokenizer.convert_ids_to_tokens([last])[0]
            assert last in awkward.stop_ids
        else:
            assert (one.finish_reason, one.stop_reason, len(one.token_ids)) == ("length", None, 100)
            assert last not in awkward.stop_ids
        assert "</s>" not in one.text
        assert "<|end|>" not in one.text


def test_special_tokens_that_end_nothing_stay_in_the_text(awkward: HFSampler) -> None:
    """A verifier reads harmony's channels and tool calls, which are special tokens."""
    texts = [one.text for group in sample(awkward, *ragged(10, max_tokens=100)) for one in group.samples]
    assert any("<|user|>" in text or "<|assistant|>" in text for text in texts)


def stopping_at(request: GroupRequest, *strings: str, ids: tuple[int, ...] = ()) -> GroupRequest:
    return replace(request, stop=Stop(strings=strings, token_ids=ids))


@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_first_stop_string_ends_a_completion(sampler: HFSampler, length: int) -> None:
    """The same draws as without it, cut at the first token whose text completes a stop string."""
    requests = ragged(8, max_tokens=60)
    free = [one for group in sample(sampler, *requests) for one in group.samples]
    words = [found.group() for one in free if (found := re.search(f"[a-z0-9 .]{{{length}}}", one.text))]
    stops = tuple(dict.fromkeys(words[:6]))
    stopped = sample(sampler, *(stopping_at(request, *stops) for request in requests))
    ended = 0
    for before, after in zip(free, [one for group in stopped for one in group.samples], strict=True):
        texts = [sampler.tokenizer.decode(before.token_ids[: n + 1]) for n in range(len(before.token_ids))]
        cut = next((n + 1 for n, text in enumerate(texts) if any(stop in text for stop in stops)), None)
        if cut is None or (cut == len(before.token_ids) and before.finish_reason == "stop"):
            assert (after.token_ids, after.text) == (before.token_ids, before.text)
            continue
        ended += 1
        assert after.token_ids == before.token_ids[:cut]
        assert after.finish_reason == "stop"
        assert after.stop_reason in stops
        assert after.text + after.stop_reason == texts[cut - 1][: len(after.text) + len(after.stop_reason)]
        assert not any(stop in after.text for stop in stops)
    assert ended >= len(stops) > 1
    assert stopped[0].sampling.stop == Stop(strings=stops, token_ids=tuple(sorted(sampler.stop_ids)))


def test_a_stop_id_that_is_asked_for_ends_a_completion(tiny: HFSampler) -> None:
    (comma,) = tiny.tokenizer(",")["input_ids"]
    free, stopped = sample(tiny, ask(size=64))[0], sample(tiny, stopping_at(ask(size=64), ids=(comma,)))[0]
    cut = [one for one in free.samples if comma in one.token_ids]
    assert cut
    for before, after in zip(free.samples, stopped.samples, strict=True):
        if before in cut:
            assert after.token_ids == before.token_ids[: before.token_ids.index(comma) + 1]
            assert (after.finish_reason, after.stop_reason) == ("stop", ",")
            assert "," not in after.text
        else:
            assert after.token_ids == before.token_ids
    assert stopped.sampling.stop == Stop(token_ids=tuple(sorted({*tiny.stop_ids, comma})))


def test_requests_with_other_stops_are_not_decoded_together(tiny: HFSampler) -> None:
    plain, other = ask(name="a", size=16), stopping_at(ask(name="b", size=16), "1")
    together = {group.request.group_id: group for group in sample(tiny, plain, other)}
    assert tokens([together["a"]]) == tokens(sample(tiny, plain))
    assert tokens([together["b"]]) == tokens(sample(tiny, other))


def test_a_stop_token_at_the_last_place_counts_as_stopping(awkward: HFSampler) -> None:
    long = sample(awkward, ask(size=64, max_tokens=60))[0].samples
    one = next(one for one in long if one.finish_reason == "stop" and len(one.token_ids) > 1)
    index = long.index(one)
    cut = sample(awkward, ask(size=64, max_tokens=len(one.token_ids)))[0].samples[index]
    assert (cut.token_ids, cut.finish_reason) == (one.token_ids, "stop")
    shorter = sample(awkward, ask(size=64, max_tokens=len(one.token_ids) - 1))[0].samples[index]
    assert (shorter.token_ids, shorter.finish_reason) == (one.token_ids[:-1], "length")


def test_columns_agree_and_the_text_is_the_tokens(sampler: HFSampler) -> None:
    for group in sample(sampler, *ragged(5)):
        assert len(group.samples) == group.request.size
        for one in group.samples:
            assert len(one.token_ids) == len(one.logprobs) > 0
            assert one.versions == (VersionRun(version=0, count=len(one.token_ids)),)
            written = one.token_ids[:-1] if one.finish_reason == "stop" else one.token_ids
            assert one.text == sampler.tokenizer.decode(written, clean_up_tokenization_spaces=False)
        assert group.sampling.engine == "transformers"
        assert group.sampling.max_tokens == group.request.params.max_tokens


def test_rows_answer_the_prompt_they_name(tiny: HFSampler) -> None:
    def draw(rows: list[int], seeds: list[int]) -> list[decode.Completion]:
        return decode.decode(tiny.model, [(5, 6), (7, 8, 9)], rows, seeds, SamplingParams(max_tokens=8), {1})

    first, second = draw([0, 1], [10, 11])
    assert [c.token_ids for c in draw([1, 0], [11, 10])] == [second.token_ids, first.token_ids]


# --- batches --------------------------------------------------------------------------------------------------------


@pytest.fixture
def passes(tiny: HFSampler) -> Iterator[list[tuple[int, int]]]:
    """Record (rows, tokens) of every forward pass during the test."""
    seen: list[tuple[int, int]] = []

    def record(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        seen.append(tuple(kwargs["input_ids"].shape))

    handle = tiny.model.register_forward_pre_hook(record, with_kwargs=True)
    yield seen
    handle.remove()


def test_samples_share_every_pass_until_they_differ(tiny: HFSampler, passes: list[tuple[int, int]]) -> None:
    groups = sample(tiny, ask((5,) * 9, size=16, key=0), ask((6,) * 7, size=8, key=1))
    assert passes[0] == (2, 9)
    for t, (rows, length) in enumerate(passes[1:], 1):
        drawn = [(g.request.group_id, one.token_ids[:t]) for g in groups for one in g.samples if len(one.token_ids) > t]
        assert length == 1
        assert len(set(drawn)) <= rows <= len(set(drawn)) / 0.9 + 1
    assert passes[1][0] < 24, "the fixture's samples all differ in their first token"


def test_finished_rows_leave_the_batch(tiny: HFSampler, passes: list[tuple[int, int]]) -> None:
    samples = sample(tiny, ask(size=64, max_tokens=80))[0].samples
    running = [sum(len(one.token_ids) > t for one in samples) for t in range(len(passes))]
    assert running[-1] < 64 / 2
    assert all(rows <= math.ceil(live / 0.9) for (rows, _), live in zip(passes[1:], running[1:], strict=True))


@pytest.mark.parametrize("limits", [{"max_sequences": 5}, {"max_batch_tokens": 150}, {"max_sequences": 1}], ids=str)
def test_limits_bound_a_batch_and_change_no_answer(
    tiny: HFSampler, passes: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch, limits: dict[str, int]
) -> None:
    requests = [*ragged(6), ask((3,) * 20, size=13, key="large")]
    expected = tokens(sample(tiny, *requests))
    passes.clear()
    monkeypatch.setattr(tiny, "options", tiny.options.model_copy(update=limits))
    assert tokens(sample(tiny, *requests)) == expected
    prompt = 0
    for rows, length in passes:
        prompt = length if length > 1 else prompt
        assert rows <= limits.get("max_sequences", 1000)
        assert rows == 1 or rows * (prompt + 12) <= limits.get("max_batch_tokens", 10**9)


def test_groups_come_as_their_batches_finish(tiny_model: Path) -> None:
    sampler = make(tiny_model, max_sequences=4)
    sampler.submit([ask(key=0), ask(key=1, size=9), ask(key=2)])
    arrived = []
    while finished := sampler.collect():
        arrived.append(len(finished))
        assert all(group.seconds > 0 for group in finished)
    assert arrived == [1, 1, 1]


def test_cancelled_requests_are_not_decoded(tiny_model: Path) -> None:
    sampler = make(tiny_model, max_sequences=4)
    sampler.submit([ask(key=0, name="a"), ask(key=1, size=9, name="b"), ask(key=2, name="c")])
    sampler.cancel(["b", "unknown"])
    arrived = []
    while finished := sampler.collect():
        arrived += [group.request.group_id for group in finished]
    assert sorted(arrived) == ["a", "c"]


def test_a_timeout_ends_a_collect_between_two_batches(tiny_model: Path) -> None:
    sampler = make(tiny_model, max_sequences=4)
    sampler.submit([ask(size=9)])
    assert sampler.collect(timeout=0.0) == [], "of the group's three batches one was decoded"
    assert len(sampler.collect()) == 1


def test_parameters_may_differ_between_requests(tiny: HFSampler) -> None:
    requests = [ask(key=0), ask(key=1, temperature=0), ask(key=2, max_tokens=3), ask(key=3, temperature=0.5)]
    groups = sample(tiny, *requests)
    assert [group.sampling.temperature for group in groups] == [1, 0, 1, 0.5]
    assert max(len(one.token_ids) for one in groups[2].samples) == 3
    assert tokens(groups) == [tokens(sample(tiny, request))[0] for request in requests]


def test_nothing_asked_nothing_answered(tiny: HFSampler) -> None:
    tiny.submit([])
    assert tiny.collect() == []


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ask(()), "group g: the prompt has no tokens"),
        (ask((5, 52)), "outside the model's vocabulary of 52"),
        (ask(size=0), "a group of 0 samples"),
        (ask((5,) * 500, max_tokens=13), "500 tokens of prompt and sampling.max_tokens 13 exceed the model's 512"),
    ],
    ids=["empty", "vocabulary", "size", "context"],
)
def test_what_the_model_cannot_do_is_refused_and_nothing_is_queued(
    tiny: HFSampler, request_: GroupRequest, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        tiny.submit([ask(), request_])
    assert tiny.collect() == []


def test_the_last_position_can_be_used(tiny: HFSampler) -> None:
    assert_parity(tiny, sample(tiny, ask((5,) * 500, max_tokens=12)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_sequence": 3}, "no key sampling.options.max_sequence; did you mean 'sampling.options.max_sequences'"),
        ({"max_sequences": 0}, "sampling.options.max_sequences must be at least 1, not 0"),
    ],
    ids=["unknown", "value"],
)
def test_wrong_options_are_refused_before_anything_is_loaded(options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sampler_options(options, HFSampler.Options)


# --- weights --------------------------------------------------------------------------------------------------------


def weights_of(path: Path, factor: float = 1.1) -> dict[str, Tensor]:
    """Return another policy's weights in a trainer's form: float32, all names of the state dict."""
    model = load_model(ModelSpec(str(path), device="cpu"), master=True)
    return {name: tensor * factor for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("name", ["tiny_model", "awkward_model"])
def test_synced_weights_are_sampled_from_and_named(name: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(name)
    sampler = make(path)
    before = sample(sampler, ask())
    weights = weights_of(path)
    sampler.sync(snapshot_from(weights, 7))
    for tensor in weights.values():
        tensor.zero_()  # the sampler has its own copy
    after = sample(sampler, ask())
    assert tokens(before) != tokens(after)
    assert after[0].samples[0].versions == (VersionRun(version=7, count=len(after[0].samples[0].token_ids)),)
    expected = weights_of(path)
    assert all(torch.equal(tensor, expected[key]) for key, tensor in sampler.model.state_dict().items())
    assert_parity(sampler, after)


def test_outstanding_requests_are_drawn_from_the_weights_of_the_moment_and_say_so(tiny_model: Path) -> None:
    sampler = make(tiny_model, max_sequences=4)
    sampler.submit([ask(key=0), ask(key=1)])
    versions = [sampler.collect()[0].samples[0].versions[0].version]
    sampler.sync(snapshot_from(weights_of(tiny_model), 1))
    versions.append(sampler.collect()[0].samples[0].versions[0].version)
    assert versions == [0, 1]


def test_float32_weights_are_rounded_into_a_bfloat16_sampler(awkward_model: Path) -> None:
    sampler = make(awkward_model, dtype="bfloat16")
    weights = weights_of(awkward_model)
    sampler.sync(snapshot_from(weights, 1))
    state = sampler.model.state_dict()
    assert all(torch.equal(state[name], tensor.bfloat16()) for name, tensor in weights.items())


def test_one_of_two_tied_weights_is_enough(tiny_model: Path) -> None:
    sampler = make(tiny_model)
    weights = weights_of(tiny_model)
    del weights["lm_head.weight"]
    sampler.sync(snapshot_from(weights, 1))
    assert torch.equal(sampler.model.state_dict()["lm_head.weight"], weights["model.embed_tokens.weight"])


def test_weights_of_another_model_are_refused_whole(awkward_model: Path) -> None:
    sampler = make(awkward_model)
    before = {name: tensor.clone() for name, tensor in sampler.model.state_dict().items()}
    good = weights_of(awkward_model)
    norm = "model.norm.weight"
    for weights, message in (
        ({name: tensor for name, tensor in good.items() if name != "lm_head.weight"}, r"lack lm_head\.weight"),
        (good | {"module.extra": torch.ones(2)}, r"hold module\.extra, which the sampler's model lacks"),
        (good | {norm: torch.ones(3)}, r"'model\.norm\.weight' has the shape \(3,\)"),
    ):
        with pytest.raises(RunError, match=message):
            sampler.sync(snapshot_from(weights, 1))
    assert sampler.version == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in sampler.model.state_dict().items())


def test_weights_that_diverged_stop_the_run(tiny_model: Path) -> None:
    sampler = make(tiny_model)
    sampler.sync(snapshot_from(weights_of(tiny_model, math.nan), 3))
    sampler.submit([ask()])
    with pytest.raises(RunError, match=r"weights of version 3 give log-probabilities that are not finite for group g"):
        sampler.collect()


@pytest.mark.parametrize(("name", "dtype"), [("tiny_model", "float32"), ("awkward_model", "bfloat16")])
def test_a_loaded_sampler_goes_on_bitwise_as_before(
    name: str, dtype: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path: Path = request.getfixturevalue(name)
    sampler = make(path, dtype=dtype)
    sampler.sync(snapshot_from(weights_of(path), 12))
    sampler.save(tmp_path / "sampler")
    expected = sample(sampler, *ragged(4))

    resumed = make(path, dtype=dtype)
    resumed.load(tmp_path / "sampler")
    assert resumed.version == 12
    assert [group.samples for group in sample(resumed, *ragged(4))] == [group.samples for group in expected]


def test_loading_what_was_never_saved_is_an_error(tiny: HFSampler, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no saved sampler in .*sampler\.json is missing"):
        tiny.load(tmp_path)


def test_an_interrupted_batch_is_not_lost(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = make(tiny_model)
    expected = tokens(sample(sampler, ask()))
    sampler.submit([ask()])
    with monkeypatch.context() as patch:
        patch.setattr(sampler.model, "forward", interrupt)
        with pytest.raises(KeyboardInterrupt):
            sampler.collect()
    assert tokens(sampler.collect()) == expected


def interrupt(*args: Any, **kwargs: Any) -> None:
    raise KeyboardInterrupt


def test_it_is_a_sampler_and_lets_go(tiny_model: Path) -> None:
    sampler = make(tiny_model)
    assert isinstance(sampler, Sampler)
    sampler.submit([ask()])
    sampler.close()
    sampler.close()
    assert not hasattr(sampler, "model")
    assert sampler.collect() == []


class Copies(TorchDispatchMode):
    """Counts copies of rows into a buffer: two for each move of a layer's cache, its keys and its values."""

    count = 0

    def __torch_dispatch__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function is torch.ops.aten.index_select.out
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["tiny_model", "awkward_model"])
def test_a_cache_with_room_gives_the_model_s_own_logprobs(name: str, request: pytest.FixtureRequest) -> None:
    """Rows branch, end and outgrow the room repeatedly; each token equals that of a pass over its whole row."""
    spec = ModelSpec(str(request.getfixturevalue(name)), device="cpu", dtype="float32")
    model = load_model(spec, master=False)
    prompts, rows, params = [[5, 9, 12], [8, 20]], [0, 0, 0, 1, 1, 1], SamplingParams(temperature=1.0, max_tokens=40)
    stops = range(0, model.config.vocab_size, 25)
    plain = decode.decode(model, prompts, rows, range(6), params, stops)
    with Copies() as copies:
        found = decode.decode(model, prompts, rows, range(6), params, stops, room=3)
    assert copies.count > 2 * 8
    assert [c.token_ids for c in found] == [c.token_ids for c in plain]
    assert len({len(c.token_ids) for c in found}) > 1
    for row, completion in zip(rows, found, strict=True):
        ids = torch.tensor([prompts[row] + completion.token_ids])
        with torch.no_grad():
            logprobs_TV = torch.log_softmax(model(input_ids=ids).logits[0], -1)
        expected = logprobs_TV[:-1].gather(-1, ids[0, 1:, None])[len(prompts[row]) - 1 :, 0]
        assert (torch.tensor(completion.logprobs) - expected).abs().max() <= 5e-6
