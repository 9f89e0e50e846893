"""Differences between the answers of two policies besides the policy: sampling, prompts, verifiers, gold answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlvr.comparison.policies import PolicyAnswers, titled
from rlvr.errors import RequestError
from rlvr.evaluation.answers import SetAnswers


def differing_conditions(first: PolicyAnswers, other: PolicyAnswers, dataset: str, common: Sequence[str]) -> list[str]:
    """Return what differs between two policies' answers besides the policy.

    Raises RequestError for different verifiers, or different gold answers to one question.
    """
    a, b = first.sets[dataset], other.sets[dataset]
    name_a, name_b = first.side.name, other.side.name
    of_a, of_b = (f"{each.side.name} ({each.side.file})" for each in (first, other))
    if (a.verifier, a.versions, a.configs) != (b.verifier, b.versions, b.configs):
        what = "verifiers" if a.verifier != b.verifier else "versions or options of the verifier"
        raise RequestError(
            f"{titled(dataset)}: the verdicts are of different {what}: {_verifier(a)} in {of_a}, {_verifier(b)} in "
            f"{of_b}. Score one file again (rlvr score --verifier {a.verifier}), or name a verifier that both have "
            "with --verifier"
        )
    asked_a, asked_b = ({each.key: each for each in own.questions} for own in (a, b))
    for key in common:
        if asked_a[key].gold != asked_b[key].gold:
            raise RequestError(
                f"{titled(dataset)}: question {key!r} has the gold answer {asked_a[key].gold!r} in {of_a} and "
                f"{asked_b[key].gold!r} in {of_b}: these are different data sets"
            )
    notes = []
    if others := sum(asked_a[key].prompt_hash != asked_b[key].prompt_hash for key in common):
        notes.append(
            f"{titled(dataset)}: {others:,} of {len(common):,} questions were asked in other words by {name_a} and "
            f"{name_b} (template, chat or system prompt)"
        )
    notes += [f"{titled(dataset)}: {text}" for text in _sampling(a, b, name_a, name_b)]
    weights = {each.get("weights_hash") for each in (*a.models, *b.models)}
    if len(weights) == 1 and None not in weights:
        notes.append(f"{name_a} and {name_b} were sampled from the same weights ({weights.pop()})")
    notes += [
        f"{policy.side.name}: the answers are of {len(own.models)} models, which the comparison mixes"
        for policy, own in ((first, a), (other, b))
        if len(own.models) > 1
    ]
    return notes


def _verifier(of: SetAnswers) -> str:
    return " ".join([of.verifier, ", ".join(of.versions), *(f"[{config}]" for config in of.configs)])


def _sampling(a: SetAnswers, b: SetAnswers, name_a: str, name_b: str) -> list[str]:
    """Return how sampling parameters differ, and the numbers of completions. The seed may."""

    def values(of: SetAnswers, name: str) -> list[Any]:
        found: list[Any] = []
        for each in of.sampling:
            if each.get(name) not in found:
                found.append(each.get(name))
        return found

    names = dict.fromkeys(name for each in (*a.sampling, *b.sampling) for name in each)
    names = {name: None for name in names if name not in ("seed", "engine_version", "logprob_mode")}
    differing = [name for name in names if values(a, name) != values(b, name)]
    told = [
        f"{name} {_shown(values(a, name))} in {name_a}, {_shown(values(b, name))} in {name_b}" for name in differing
    ]
    notes = [f"sampling differs: {'; '.join(told)}"] if told else []
    n_a, n_b = (int(np.bincount(own.answers.question_N[~own.answers.greedy_N]).max(initial=0)) for own in (a, b))
    return notes + ([f"completions per question: {n_a} in {name_a}, {n_b} in {name_b}"] if n_a != n_b else [])


def _shown(values: Sequence[Any]) -> str:
    return " and ".join(
        "unknown" if each is None else f"{each:g}" if isinstance(each, float) else str(each) for each in values
    )
