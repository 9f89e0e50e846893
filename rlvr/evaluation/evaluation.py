"""Evaluation of a policy from recorded answers: figures by data set, with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlvr.evaluation.answers import Files, SetAnswers, none_of, read_answers
from rlvr.evaluation.contamination import contaminated, recorded_questions
from rlvr.evaluation.figures import RIGHT, Estimate, Figure, check_threshold, figures_of


@dataclass(frozen=True)
class QuestionResult:
    """Answers to one question, counted."""

    key: str
    """Identity within the data set: the row's id, or a hash of the prompt if it has none."""
    prompt: str
    """The end of the prompt; of a chat, of its last message. Untrusted text: escape it where it is shown."""
    gold: str | None
    counted: int
    """Sampled completions with a reward."""
    right: int
    """Those that are right."""
    greedy: float | None
    """Share of greedy completions that are right; None if there is none with a reward."""


@dataclass(frozen=True)
class Contamination:
    """Questions that training sets have too, and the accuracy without them."""

    train_sets: tuple[str, ...]
    overlapping: Mapping[str, float]
    """Key of a question → share of its words that stand in a sequence of 13 which a training question has too; those
    with at least half (`rlvr.data.overlap`)."""
    figure: str
    """Figure that is compared: `avg`, or `greedy` if nothing was sampled at a temperature."""
    within: Estimate
    """The figure over these questions."""
    without: Estimate
    """The figure over all others."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-safe values."""
        return {
            "train_sets": list(self.train_sets),
            "overlapping": dict(self.overlapping),
            "figure": self.figure,
            "within": self.within.to_dict(),
            "without": self.without.to_dict(),
        }


@dataclass(frozen=True)
class SetEvaluation:
    """Figures of one data set."""

    dataset: str
    """Name of the data set; empty for rows that name none."""
    split: str | None
    verifier: str
    versions: tuple[str, ...]
    """Versions of the verifier."""
    models: tuple[Mapping[str, Any], ...]
    """The models that sampled, as the records identify them; one for an evaluation."""
    sampling: tuple[Mapping[str, Any], ...]
    """Sampling parameters as recorded; those at temperature 0 are left out if there are others."""
    n: int
    """Sampled completions per question, at most; 0 if all are greedy."""
    completions: int
    """Completions in the file, greedy ones included."""
    statuses: Mapping[str, int]
    """Number of completions by status of their verdict, with `unscored`, and `missing` for those that the sampler did
    not return."""
    figures: Mapping[str, Estimate]
    """Estimates by name: `avg`, `pass@K`, `maj`, `greedy`, `reward`, `tokens`, `truncated`, `unparsed`, as far as the
    answers define them."""
    questions: tuple[QuestionResult, ...]
    contamination: Contamination | None = None

    @property
    def accuracy(self) -> Estimate | None:
        """Share of sampled completions that are right (avg@n); None if all are greedy."""
        return self.figures.get("avg")

    @property
    def greedy(self) -> Estimate | None:
        """Share that is right at temperature 0; None if nothing was asked so."""
        return self.figures.get("greedy")

    @property
    def majority(self) -> Estimate | None:
        """Share of questions whose most frequent answer is right (maj@n); None if it is not defined."""
        return self.figures.get("maj")

    @property
    def pass_at(self) -> dict[int, Estimate]:
        """k → pass@k, for the powers of two up to n."""
        return {int(name[5:]): each for name, each in self.figures.items() if name.startswith("pass@")}

    @property
    def not_counted(self) -> dict[str, int]:
        """Number of completions without a reward, by reason. They are part of no accuracy."""
        return none_of(self.statuses)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-safe values, without the questions."""
        told = {name: value for name, value in vars(self).items() if name != "questions"}
        return {
            **told,
            "versions": list(self.versions),
            "models": [dict(each) for each in self.models],
            "sampling": [dict(each) for each in self.sampling],
            "statuses": dict(self.statuses),
            "questions": len(self.questions),
            "figures": {name: each.to_dict() for name, each in self.figures.items()},
            "contamination": None if self.contamination is None else self.contamination.to_dict(),
        }


@dataclass(frozen=True)
class Evaluation:
    """Figures of a policy, by data set."""

    files: tuple[Path, ...]
    """The records that the figures are computed from."""
    threshold: float
    """Rewards at or above this count as correct."""
    sets: tuple[SetEvaluation, ...]
    notes: tuple[str, ...]
    """Sentences that a reader of the figures must know, such as several models in one file."""

    def __getitem__(self, dataset: str) -> SetEvaluation:
        """Return the figures of a data set. Raises KeyError if there is none of that name."""
        found = {each.dataset: each for each in self.sets}
        return found[dataset]

    @property
    def models(self) -> tuple[Mapping[str, Any], ...]:
        """The models that sampled, each once."""
        return tuple({str(sorted(each.items())): each for own in self.sets for each in own.models}.values())

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row per figure, with its interval; `pandas.DataFrame(evaluation.rows)` is a table."""
        return [
            {"dataset": own.dataset, "figure": name, **each.to_dict()}
            for own in self.sets
            for name, each in own.figures.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation as JSON-safe values, without the questions."""
        return {
            "files": list(map(str, self.files)),
            "threshold": self.threshold,
            "models": [dict(each) for each in self.models],
            "sets": [each.to_dict() for each in self.sets],
            "notes": list(self.notes),
        }


def evaluation_of(
    files: Files,
    *,
    verifier: str | None = None,
    threshold: float = RIGHT,
    mapping: Mapping[str, str] | None = None,
    sidecars: str | Path | Iterable[str | Path] = (),
    where: str | Sequence[str] = (),
    train_sets: str | Path | Sequence[str | Path] = (),
    questions: Mapping[str, Mapping[str, str]] | None = None,
) -> Evaluation:
    """Compute the figures of recorded answers, without sampling or verifying anything.

    The files may be those of `rlvr eval`, of `rlvr generate`, the rollouts of a run, or any other rows with scores.

    Args:
        files: Files, folders or patterns.
        verifier: Verifier whose last score counts; None is the only one of each data set.
        threshold: Rewards at or above this count as correct.
        mapping: Target → column of foreign files: `{"id": "uid"}`.
        sidecars: Files of `rlvr score --scores-only`, whose scores follow the rows' own.
        where: Conditions that rows must meet, as in `show`.
        train_sets: Data sets, or files of questions, to compare the questions with; see `SetEvaluation.contamination`.
        questions: Data set → key → text of its questions, for this comparison. None loads the data sets by name.

    Raises RequestError if there is no row or no score, or several verifiers have scores and none is named; DataError
    for a row that cannot be read.
    """
    check_threshold(threshold)
    listed = [files] if isinstance(files, str | Path) else list(files)
    found = read_answers(listed, verifier=verifier, mapping=mapping, sidecars=sidecars, where=where)
    trained = [str(each) for each in ([train_sets] if isinstance(train_sets, str | Path) else train_sets)]
    sets = tuple(_set_evaluation(each, threshold, trained, (questions or {}).get(each.dataset)) for each in found)
    return Evaluation(tuple(map(Path, listed)), threshold, sets, tuple(_notes(sets)))


def _notes(sets: Iterable[SetEvaluation]) -> list[str]:
    """Return what a reader of the figures must know."""
    notes = []
    for each in sets:
        of = f"{each.dataset}: " if each.dataset else ""
        if len(each.models) > 1:
            notes.append(f"{of}the answers are of {len(each.models)} models, and the figures mix them")
        if len(each.sampling) > 1:
            notes.append(f"{of}the answers were sampled with {len(each.sampling)} sets of parameters")
        if len(each.versions) > 1:
            notes.append(f"{of}the verdicts are of {each.verifier} {', '.join(each.versions)}")
    return notes


def _set_evaluation(
    of: SetAnswers, threshold: float, train_sets: Sequence[str], questions: Mapping[str, str] | None
) -> SetEvaluation:
    """Return the figures of the answers to one data set."""
    figures = figures_of(of.answers, len(of.questions), threshold)
    members_G = np.bincount(of.answers.question_N[~of.answers.greedy_N], minlength=len(of.questions))
    return SetEvaluation(
        dataset=of.dataset,
        split=of.split,
        verifier=of.verifier,
        versions=of.versions,
        models=of.models,
        sampling=of.sampling,
        n=int(members_G.max(initial=0)),
        completions=len(of.answers.question_N),
        statuses=of.statuses,
        figures={name: figure.estimate() for name, figure in figures.items()},
        questions=tuple(_questions(of, figures)),
        contamination=_contamination(of, figures, train_sets, questions) if train_sets else None,
    )


def _questions(of: SetAnswers, figures: Mapping[str, Figure]) -> list[QuestionResult]:
    average, greedy = figures.get("avg"), figures.get("greedy")
    results = []
    for i, asked in enumerate(of.questions):
        right, counted = (0, 0) if average is None else (int(average.sums_G[i]), int(average.sizes_G[i]))
        at_zero = None if greedy is None or not greedy.sizes_G[i] else float(greedy.sums_G[i] / greedy.sizes_G[i])
        results.append(QuestionResult(asked.key, asked.prompt, asked.gold, counted, right, at_zero))
    return results


def _contamination(
    of: SetAnswers, figures: Mapping[str, Figure], train_sets: Sequence[str], questions: Mapping[str, str] | None
) -> Contamination:
    """Return the accuracy with and without the questions that the training sets have too."""
    shares = contaminated(recorded_questions(of) if questions is None else questions, train_sets)
    name = "avg" if "avg" in figures else "greedy"
    there_G = np.array([asked.key in shares for asked in of.questions], dtype=np.bool_)
    within, without = (figures[name].estimate(chosen_G) for chosen_G in (there_G, ~there_G))
    return Contamination(tuple(train_sets), shares, name, within, without)
