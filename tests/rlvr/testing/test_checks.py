"""The checks of `rlvr.testing`: built-in parts pass, and each rule detects a violation."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlvr.data.prompts import load_source
from rlvr.errors import DataError
from rlvr.protocols import GroupRequest, Prompt, PromptSource, SampledGroup, Snapshot, SourceRequest, TensorLayout
from rlvr.record.schema import Message, Task, VersionRun
from rlvr.testing import FakeSampler, FakeSamplerOptions, check_prompt_source, check_sampler
from rlvr_plugins.embedded.task import Arithmetic

SNAPSHOT = Snapshot(0, {}, {}, lambda: iter(()))

# --- samplers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"reversed_order": True, "per_collect": 1}, {"turns": True, "rewards": True}, {"aborted": 0.3}, {"late": 0.5}],
    ids=str,
)
def test_the_fake_sampler_passes(tmp_path: Path, options: dict[str, Any]) -> None:
    check_sampler(lambda: FakeSampler(options=FakeSamplerOptions(**options)), SNAPSHOT, tmp_path)


class Odd(FakeSampler):
    """Sampler whose subclasses change each answer."""

    def collect(self, timeout: float | None = None) -> list[SampledGroup]:
        return [self.changed(group) for group in super().collect(timeout)]

    def changed(self, group: SampledGroup) -> SampledGroup:
        return group


class OfAnotherId(Odd):
    def changed(self, group: SampledGroup) -> SampledGroup:
        return replace(group, request=replace(group.request, group_id="other"))


class OfAnotherPrompt(Odd):
    def changed(self, group: SampledGroup) -> SampledGroup:
        return replace(group, request=replace(group.request, prompt_ids=(7,)))


class Twofold(FakeSampler):
    def __init__(self) -> None:
        super().__init__(options=FakeSamplerOptions(duplicated=1.0))


class TooMany(Odd):
    def changed(self, group: SampledGroup) -> SampledGroup:
        return replace(group, samples=group.samples * 2)


class TooLong(Odd):
    def submit(self, requests: Sequence[GroupRequest]) -> None:
        super().submit([replace(r, params=r.params.model_copy(update={"max_tokens": 64})) for r in requests])

    def changed(self, group: SampledGroup) -> SampledGroup:
        params = group.request.params.model_copy(update={"max_tokens": 8})
        return replace(group, request=replace(group.request, params=params))


class Hot(Odd):
    def changed(self, group: SampledGroup) -> SampledGroup:
        return replace(group, sampling=group.sampling.model_copy(update={"temperature": 0.5}))


class Nameless(Odd):
    def changed(self, group: SampledGroup) -> SampledGroup:
        return replace(group, sampling=group.sampling.model_copy(update={"engine": None}))


class Unlikely(Odd):
    def changed(self, group: SampledGroup) -> SampledGroup:
        samples = tuple(replace(one, logprobs=(0.5,) * len(one.logprobs)) for one in group.samples)
        return replace(group, samples=samples)


class Constant(FakeSampler):
    def submit(self, requests: Sequence[GroupRequest]) -> None:
        super().submit(requests)

    def _sample(self, request: GroupRequest, index: int) -> Any:
        return super()._sample(replace(request, key=("always",)), 0)


class Forgetful(FakeSampler):
    calls = 0

    def _sample(self, request: GroupRequest, index: int) -> Any:
        self.calls += 1
        return super()._sample(request, index + self.calls)


class Stubborn(FakeSampler):
    def __init__(self) -> None:
        super().__init__(options=FakeSamplerOptions(ignores_cancel=True))


class Stale(FakeSampler):
    def sync(self, snapshot: Snapshot) -> None:
        if self.version == 0:
            super().sync(snapshot)


class Trusting(FakeSampler):
    """Takes any snapshot."""


class Unversioned(Odd):
    def changed(self, group: SampledGroup) -> SampledGroup:
        samples = tuple(
            replace(one, versions=(VersionRun(version=99, count=len(one.logprobs)),)) for one in group.samples
        )
        return replace(group, samples=samples)


class Amnesiac(FakeSampler):
    def load(self, directory: Path) -> None:
        pass


class Fragile(FakeSampler):
    def close(self) -> None:
        if self.closed:
            raise RuntimeError("closed already")
        super().close()


class Talkative(FakeSampler):
    def collect(self, timeout: float | None = None) -> Any:
        return super().collect(timeout) or None


@pytest.mark.parametrize(
    ("made", "rule"),
    [
        (Talkative, r"collect returns \[\] when nothing was submitted"),
        (OfAnotherId, "only what was submitted is answered, not 'other'"),
        (OfAnotherPrompt, "the answer to 'g0' holds the request as it was submitted"),
        (Twofold, "each request is answered once|a group is returned once"),
        (TooMany, "group g0 has at most as many samples as requested"),
        (TooLong, "the request as it was submitted|samples 1 to max_tokens tokens"),
        (Hot, "group g0 says its sampling temperature"),
        (Nameless, "group g0 names the engine"),
        (Unlikely, "group g0 has finite log-probabilities of at most 0"),
        (Constant, "different keys and places in a group draw differently"),
        (Forgetful, "the same key, weights and prompt give the same samples"),
        (Stubborn, "a cancelled request is not answered|only what was submitted is answered, not 'g3'"),
        (Unversioned, r"tokens in flight across a sync are of version 3 or 5, not of \[99\]"),
        (Stale, r"tokens sampled after the sync to version 5 say so, not \[3\]"),
        (Amnesiac, r"a loaded sampler has the version that was saved, 7, not \[0\]"),
        (Fragile, "close may be called twice"),
    ],
)
def test_a_broken_sampler_fails(tmp_path: Path, made: Any, rule: str) -> None:
    with pytest.raises(AssertionError, match=f"check_sampler: .*({rule})"):
        check_sampler(made, SNAPSHOT, tmp_path)


def test_a_sampler_that_takes_weights_of_another_model_fails(tmp_path: Path) -> None:
    snapshot = replace(SNAPSHOT, layout={"a": TensorLayout("float32", (1,))})
    with pytest.raises(AssertionError, match="a snapshot with a weight that the model has not is refused"):
        check_sampler(Trusting, snapshot, tmp_path)


# --- prompt sources -------------------------------------------------------------------------------------------------


def test_arithmetic_passes() -> None:
    check_prompt_source(Arithmetic)


def test_a_card_on_files_passes(tmp_path: Path) -> None:
    files = {}
    for split in ("train", "eval"):
        file = tmp_path / f"{split}.jsonl"
        rows = [{"question": f"How much is {i}+{i} in {split}?", "answer": f"#### {2 * i}"} for i in range(3)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        files[split] = (file,)
    check_prompt_source(lambda request: load_source("gsm8k", request), data_files=files)  # type: ignore[arg-type]


class Source(PromptSource):
    """Keeps every rule; subclasses break one each."""

    def __init__(self, request: SourceRequest) -> None:
        self.request = request

    @property
    def size(self) -> int | None:
        return 3

    def __getitem__(self, index: int, /) -> Prompt:
        if not 0 <= index < 3:
            raise DataError(f"no prompt {index}")
        return self.prompt(index)

    def prompt(self, index: int) -> Prompt:
        task = Task(dataset="mine", row_id=str(index), split=self.request.split, answer="1")
        text = f"{self.request.split} {index}"
        if self.request.chat:
            return Prompt(task, messages=(Message(role="user", content=text),))
        return Prompt(task, text=text)


class Empty(Source):
    @property
    def size(self) -> int | None:
        return 0


class Moody(Source):
    calls = 0

    def prompt(self, index: int) -> Prompt:
        self.calls += 1
        prompt = super().prompt(index)
        return replace(prompt, task=prompt.task.model_copy(update={"answer": str(self.calls)}))


class Unbounded(Source):
    def __getitem__(self, index: int, /) -> Prompt:
        return self.prompt(index)


class TextOnly(Source):
    def prompt(self, index: int) -> Prompt:
        return Prompt(Task(dataset="m", row_id="1", split=self.request.split), text=f"{self.request.split} {index}")


class MessagesOnly(Source):
    def prompt(self, index: int) -> Prompt:
        task = Task(dataset="mine", row_id=str(index), split=self.request.split)
        return Prompt(task, messages=(Message(role="user", content=f"{self.request.split} {index}"),))


class Splitless(Source):
    def prompt(self, index: int) -> Prompt:
        prompt = super().prompt(index)
        return replace(prompt, task=prompt.task.model_copy(update={"split": None}))


class Rowless(Source):
    def prompt(self, index: int) -> Prompt:
        prompt = super().prompt(index)
        return replace(prompt, task=prompt.task.model_copy(update={"row_id": None}))


class Anonymous(Source):
    def prompt(self, index: int) -> Prompt:
        prompt = super().prompt(index)
        return replace(prompt, task=prompt.task.model_copy(update={"dataset": None}))


class Leaking(Source):
    def prompt(self, index: int) -> Prompt:
        if self.request.chat or index:
            return super().prompt(index)
        return replace(super().prompt(index), text="asked in both")


class NoSource:
    size = 3

    def __init__(self, request: SourceRequest) -> None:
        pass


_MADE = []


class Sequential(Source):
    def __init__(self, request: SourceRequest) -> None:
        super().__init__(request)
        _MADE.append(self)
        self.number = len(_MADE)

    def prompt(self, index: int) -> Prompt:
        prompt = super().prompt(index)
        return replace(prompt, task=prompt.task.model_copy(update={"answer": str(self.number)}))


def test_a_source_that_keeps_every_rule_passes() -> None:
    check_prompt_source(Source)


@pytest.mark.parametrize(
    ("made", "rule"),
    [
        (NoSource, "a source inherits from rlvr.protocols.PromptSource"),
        (Empty, "size is None or at least 1, not 0"),
        (Moody, "a prompt is the same each time"),
        (Sequential, "a prompt depends on the request alone"),
        (Unbounded, "index 3 is out of range, which is an error"),
        (TextOnly, "prompt 0 of 'train' has messages for a chat model"),
        (MessagesOnly, "prompt 0 of 'train' has text for a base model"),
        (Splitless, "says its split in task.split, not None"),
        (Rowless, "identifies its row in task.row_id"),
        (Anonymous, "names its data set in task.dataset"),
        (Leaking, "training and evaluation share no prompt, but both have asked in both"),
    ],
)
def test_a_broken_source_fails(made: Any, rule: str) -> None:
    with pytest.raises(AssertionError, match=f"check_prompt_source: .*{rule}"):
        check_prompt_source(made)


def test_ids_to_cancel_may_be_any_collection() -> None:
    sampler, ids = FakeSampler(), {"a"}
    given: Collection[str] = ids
    sampler.cancel(given)
    assert sampler.cancelled == []
