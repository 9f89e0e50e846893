"""Compare two verifiers on the same rollouts, or policies on the same questions: what `rlvr compare` does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, overload

from rlvr.comparison.comparing import RESAMPLES, Change, Comparison, compare_pairs, worst
from rlvr.comparison.policies import PolicyComparison
from rlvr.comparison.policy_differences import compare_answers
from rlvr.comparison.recognizing import Kind, kind_of_comparison, read_policies
from rlvr.comparison.verdict_pairs import KINDS, FileVerdicts, Flip, Side, pair, read_flips, read_verdicts
from rlvr.errors import RequestError, RunError
from rlvr.evaluation.figures import RIGHT, check_threshold
from rlvr.record.fields import Where
from rlvr.record.reading import Source, source_of
from rlvr.record.row_files import row_files
from rlvr.record.sidecar import Sidecars

POLICY_RESAMPLES = 10_000
"""Resamples for policies: intervals that hold for several comparisons at once need the tails."""


@dataclass(frozen=True)
class ComparedVerifier:
    """One of the two sides."""

    verifier: str
    versions: tuple[str, ...]
    file: Path


@dataclass(frozen=True)
class CompareResult:
    """Comparison of two verifiers: flipped verdicts, their effect on training, and intervals."""

    a: ComparedVerifier
    b: ComparedVerifier
    threshold: float
    resamples: int
    only_a: int
    """Rollouts that only the first file has."""
    only_b: int
    without_group: int
    """Rollouts without a group, each taken as a group of its own."""
    comparison: Comparison
    flips: tuple[Flip, ...]
    """The worst flips, with their texts."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row per figure, with its interval; `pandas.DataFrame(result.rows)` is a table."""
        found = self.comparison
        rows = [_figure("mean reward", None, found.groups, found.reward)]
        for at in found.at_k:
            rows += [_figure("avg", at.k, at.groups, at.avg), _figure("pass", at.k, at.groups, at.passed)]
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON-safe values, as `rlvr compare --json` prints them."""
        found = asdict(self.comparison)
        matrix = found.pop("matrix")
        at_k = [{"pass" if key == "passed" else key: value for key, value in row.items()} for row in found.pop("at_k")]
        return {
            "a": {**asdict(self.a), "file": str(self.a.file)},
            "b": {**asdict(self.b), "file": str(self.b.file)},
            "threshold": self.threshold,
            "resamples": self.resamples,
            "unmatched": {"a": self.only_a, "b": self.only_b},
            "without_group": self.without_group,
            **found,
            "matrix": {of_a: dict(zip(KINDS, counts, strict=True)) for of_a, counts in zip(KINDS, matrix, strict=True)},
            "at_k": at_k,
            "flips": [asdict(flip) for flip in self.flips],
        }


def _figure(name: str, k: int | None, groups: int, change: Change) -> dict[str, Any]:
    low, high = change.interval or (None, None)
    figure = {"figure": name, "k": k, "groups": groups, "a": change.a, "b": change.b}
    return {**figure, "difference": change.difference, "low": low, "high": high}


class CompareOptions(TypedDict, total=False):
    """Keyword arguments of `compare` that do not decide what it returns."""

    a: str | None
    b: str | None
    verifier: str | None
    flips: int
    threshold: float
    resamples: int | None
    mapping: Mapping[str, str] | None
    sidecars: Iterable[str | Path]
    where: str | Sequence[str]


@overload
def compare(
    file: str | Path, *, of: Literal["verifiers"] | None = None, **options: Unpack[CompareOptions]
) -> CompareResult: ...


@overload
def compare(
    file: str | Path, *others: str | Path, of: Literal["verifiers"], **options: Unpack[CompareOptions]
) -> CompareResult: ...


@overload
def compare(
    file: str | Path, *others: str | Path, of: Literal["policies"], **options: Unpack[CompareOptions]
) -> PolicyComparison: ...


@overload
def compare(
    file: str | Path, *others: str | Path, of: Kind | None = None, **options: Unpack[CompareOptions]
) -> CompareResult | PolicyComparison: ...


def compare(
    file: str | Path,
    *others: str | Path,
    of: Kind | None = None,
    a: str | None = None,
    b: str | None = None,
    verifier: str | None = None,
    flips: int = 5,
    threshold: float = RIGHT,
    resamples: int | None = None,
    mapping: Mapping[str, str] | None = None,
    sidecars: Iterable[str | Path] = (),
    where: str | Sequence[str] = (),
) -> CompareResult | PolicyComparison:
    """Compare two verifiers' scores on the same rollouts, or several policies' answers to the same questions.

    Two files with the same ids hold the same rollouts. Files without an id in common are answers of policies, such as
    the outputs of `rlvr eval`. If a row has several scores by one verifier, the last one counts.

    Args:
        file: A file with scores by both verifiers, or by the first; or the answers of the first policy.
        others: A file with scores by the second verifier; or the answers of the other policies.
        of: What is compared, `verifiers` or `policies`; None recognizes it.
        a: The verifier to compare from: a name, or `FILE.py:FUNCTION`. None is the only one, or the first of two.
        b: The verifier to compare with.
        verifier: The verifier whose verdicts on policies are compared. None is the only one.
        flips: How many of the worst flips, or of the questions that changed most each way, to return with their texts.
        threshold: Rewards at or above this count as correct.
        resamples: Resamples of the bootstrap behind the intervals; 2,000 for verifiers and 10,000 for policies.
        mapping: Target → column of foreign files: `{"id": "uid"}`.
        sidecars: Files of `rlvr score --scores-only`, whose scores follow the rows' own.
        where: Conditions that rows must meet, as in `show`.

    Raises RequestError if the request is wrong or there is nothing to compare, DataError for a row that cannot be read,
    RunError if a file changes while it is read.
    """
    check_threshold(threshold)
    files = [path for each in (file, *others) for path in row_files([each])]
    if len(files) != 1 + len(others):
        raise RequestError(f"{len(files)} files: name one for each side, and no folder or pattern")
    beside, conditions = Sidecars(sidecars), Where([where] if isinstance(where, str) else where)
    kind = of or kind_of_comparison(files, mapping, named=a is not None or b is not None, judged=verifier is not None)
    try:
        if kind == "policies":
            _refuse_options(kind, {"a": a, "b": b})
            samples = POLICY_RESAMPLES if resamples is None else resamples
            policies = read_policies(files, beside, conditions, verifier=verifier, mapping=mapping)
            return compare_answers(policies, threshold=threshold, resamples=samples, changed=flips)
        _refuse_options(kind, {"verifier": verifier})
        sources = [source_of(path, mapping) for path in files]
        return _verifiers(
            sources, a, b, flips, threshold, RESAMPLES if resamples is None else resamples, beside, conditions
        )
    except OSError as error:
        raise RunError(f"{' and '.join(map(str, files))} could not be read to the end: {error.strerror}") from error


def _refuse_options(kind: Kind, given: Mapping[str, str | None]) -> None:
    for name, value in given.items():
        if value is not None:
            raise RequestError(f"{name} {value}: {kind} are compared, and this is not about them")


def _verifiers(
    sources: Sequence[Source],
    a: str | None,
    b: str | None,
    flips: int,
    threshold: float,
    resamples: int,
    beside: Sidecars,
    where: Where,
) -> CompareResult:
    """Compare two verifiers."""
    if len(sources) > 2:
        raise RequestError(f"{len(sources)} files: one with scores by both verifiers, or two")
    sides = _sides(sources, beside, where)
    pairs = pair(*sides, a=a, b=b)
    if not pairs.ids:
        raise RequestError(f"{' and '.join(str(source.path) for source in sources)} have no id in common")
    comparison = compare_pairs(pairs, threshold=threshold, resamples=resamples)
    shown = read_flips(pairs, worst(pairs, flips), beside)
    return CompareResult(
        a=_told(pairs.a),
        b=_told(pairs.b),
        threshold=threshold,
        resamples=resamples,
        only_a=pairs.only_a,
        only_b=pairs.only_b,
        without_group=pairs.without_group,
        comparison=comparison,
        flips=tuple(shown),
    )


def _sides(sources: Sequence[Source], beside: Sidecars, where: Where) -> list[FileVerdicts]:
    """Return the verdicts of each file. Raises RequestError for an unknown field, and if the only file has no row."""
    sides = [read_verdicts(source, beside, where) for source in sources]
    beside.refuse_unused()
    where.require_known(", ".join(str(source.path) for source in sources))
    if len(sides) == 1 and not sides[0].ids:
        conditions = " ".join(f"--where {each.text}" for each in where.conditions)
        why = f"has no row that meets {conditions}" if conditions else "has no rows"
        raise RequestError(f"{sources[0].path} {why}")
    return sides


def _told(side: Side) -> ComparedVerifier:
    return ComparedVerifier(side.verifier, side.versions, side.path)
