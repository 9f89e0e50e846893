"""Requests to an engine, and the trainer's word on its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from rlvr.protocols import GroupRequest, ModelSpec, Prompt, SampledGroup, Sampler, Snapshot
from rlvr.record.schema import SamplingParams, Stop, Task
from rlvr_trainers.model.models import load_model
from rlvr_trainers.model.snapshots import load_snapshot, snapshot_of

TEMPERATURE = 0.7
ROUNDING = 5e-5
PROMPTS = ([2, 3, 4], list(range(2, 40)), [5] * 200)  # the last fills more than a cache block of 128


def other_weights(spec: ModelSpec, version: int, seed: int) -> Snapshot:
    """Return a snapshot of the model with other random weights."""
    model = load_model(spec, master=True)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return snapshot_of(model, version)


def ask(name: str, prompt_ids: Sequence[int], size: int = 4, stop: Stop | None = None, **params: float) -> GroupRequest:
    given = SamplingParams.model_validate({"temperature": TEMPERATURE, "max_tokens": 12, **params})
    return GroupRequest(name, Prompt(Task(), text="?"), tuple(prompt_ids), size, given, (0, name), stop or Stop())


def collected(sampler: Sampler, requests: Sequence[GroupRequest]) -> list[SampledGroup]:
    sampler.submit(requests)
    found: dict[str, SampledGroup] = {}
    while len(found) < len(requests):
        found |= {group.request.group_id: group for group in sampler.collect()}
    return [found[request.group_id] for request in requests]


def differences(spec: ModelSpec, weights: Mapping[int, Snapshot], group: SampledGroup) -> list[float]:
    """|log π - log α| of each sampled token, under the weights that are said to have sampled it."""
    temperature = group.request.params.temperature or 1.0
    found = []
    for version, snapshot in weights.items():
        model = load_model(spec, master=True)
        load_snapshot(model, snapshot)
        for sample in group.samples:
            ids = torch.tensor([*group.request.prompt_ids, *sample.token_ids])
            with torch.no_grad():
                logits = model(ids[None]).logits[0].double() / temperature
            own = logits.log_softmax(-1)[len(group.request.prompt_ids) - 1 : -1]
            own = own.gather(1, torch.tensor(sample.token_ids)[:, None])[:, 0]
            versions = [run.version for run in sample.versions for _ in range(run.count)]
            found += [
                abs(float(trained) - sampled)
                for trained, sampled, said in zip(own, sample.logprobs, versions, strict=True)
                if said == version
            ]
    assert len(found) == sum(len(sample.token_ids) for sample in group.samples)
    return found
