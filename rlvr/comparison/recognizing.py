"""Kind of a comparison: verifiers on the same rollouts, or answers of several policies to the same questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from rlvr.comparison.policies import ComparedPolicy, PolicyAnswers
from rlvr.errors import RequestError
from rlvr.evaluation.answers import answers_of
from rlvr.files import refuse_twice
from rlvr.record.fields import Where
from rlvr.record.reading import read_rows, source_of
from rlvr.record.sidecar import Sidecars

Kind: TypeAlias = Literal["verifiers", "policies"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"

_WANTED = frozenset({"schema_version", "id", "group_id", "segment", "model"})


def kind_of_comparison(files: Sequence[Path], mapping: Mapping[str, str] | None, *, named: bool, judged: bool) -> Kind:
    """Return what is compared.

    One file, and two files with ids in common, are compared by verifier. Several files, and two without an id in
    common, hold answers of policies.

    Args:
        files: One or more.
        mapping: Target → column of foreign files.
        named: The request names the verifiers of two sides.
        judged: The request names the one verifier of all policies.

    Raises RequestError if two files have ids in common and were sampled by different models.
    """
    if named or len(files) == 1:
        return "verifiers"
    if judged or len(files) > 2:
        return "policies"
    (ids_a, models_a), (ids_b, models_b) = (_identities(path, mapping) for path in files)
    if not ids_a & ids_b:
        return "policies" if ids_a and ids_b else "verifiers"
    if models_a and models_b and not models_a & models_b:
        raise RequestError(
            f"{files[0]} and {files[1]} have ids in common, as the same rollouts do, and were sampled by different "
            "models. Say what to compare: --of verifiers (on the same rollouts) or --of policies (on the same "
            "questions)"
        )
    return "verifiers"


def _identities(path: Path, mapping: Mapping[str, str] | None) -> tuple[set[str], set[Any]]:
    """Return the ids of a file's rows, and what identifies the models that sampled them."""
    source = source_of(path, mapping)
    ids, models = set(), set()
    for row in read_rows(source, only=_WANTED | {source.columns["id"]}):
        if (identity := row.id) is not None:
            ids.add(identity)
        model = row.values.get("model") if row.is_record else None
        if isinstance(model, Mapping):
            models.add((model.get("name"), model.get("weights_hash")))
    return ids, models


def read_policies(
    files: Sequence[Path],
    beside: Sidecars,
    where: Where,
    *,
    verifier: str | None,
    mapping: Mapping[str, str] | None,
) -> list[PolicyAnswers]:
    """Read the answers of policies, a file each.

    Raises RequestError for fewer than two files, for a file that is given twice, and as `read_answers` does.
    """
    if not 2 <= len(files) <= len(LETTERS):
        raise RequestError(f"{len(files)} files: policies are compared from 2 to {len(LETTERS)} files, one each")
    refuse_twice(files)
    policies = []
    for name, path in zip(LETTERS, files, strict=False):
        found = answers_of([path], beside, where, verifier=verifier, mapping=mapping)
        models = {str(sorted(each.items())): each for own in found for each in own.models}
        side = ComparedPolicy(name, path, tuple(models.values()))
        policies.append(PolicyAnswers(side, {own.dataset: own for own in found}))
    beside.refuse_unused()
    where.require_known(", ".join(map(str, files)))
    return policies
