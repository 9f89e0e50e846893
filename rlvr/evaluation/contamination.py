"""Contamination: questions of an evaluation that a training set has too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Literal

from rlvr.data.overlap import OVERLAP, overlaps
from rlvr.data.prompts import load_source
from rlvr.errors import RequestError, RlvrError
from rlvr.evaluation.answers import SetAnswers, question_key
from rlvr.protocols import PromptSource, SourceRequest


def contaminated(questions: Mapping[str, str], train_sets: Sequence[str | Path]) -> dict[str, float]:
    """Return key → share of the words, for the questions of which at least half stands in training questions.

    Args:
        questions: Key → text of a question.
        train_sets: Names of data sets, or files of questions.

    Raises RequestError for a data set that is not available or has no end.
    """
    trained = chain.from_iterable(training_questions(str(name)) for name in train_sets)
    shares = overlaps(list(questions.values()), trained)
    return {key: share for key, share in zip(questions, shares, strict=True) if share >= OVERLAP}


def training_questions(name: str) -> Iterator[str]:
    """Return the questions of a training set. Raises RequestError if it is not available or has no end."""
    source = load_source(name, SourceRequest(split="train", seed=0))
    if source.size is None:
        raise RequestError(f"training set {name} has no end: it cannot be searched")
    return source.questions()


def texts_of(source: PromptSource, indices: Sequence[int]) -> dict[str, str]:
    """Return key → text of the questions at `indices`, without the templates around them."""
    return {question_key(source[index]): source.question(index) for index in indices}


def recorded_questions(of: SetAnswers) -> dict[str, str]:
    """Return key → text of the questions that the answers are to, from the data set that the records name.

    Raises RequestError if it cannot be loaded or lacks one of them.
    """
    hint = f"which questions the answers are to is looked up in the data set {of.dataset!r}"
    splits: dict[str | None, Literal["train", "eval"]] = {"train": "train", "eval": "eval"}
    if of.split not in splits:
        raise RequestError(f"{hint}, and the records name no split of it: give --train-set when sampling")
    try:
        source = load_source(of.dataset, SourceRequest(split=splits[of.split], seed=0))
    except RlvrError as error:
        raise type(error)(f"{hint}: {error}; or give --train-set when sampling") from error
    if source.size is None:
        raise RequestError(f"{hint}, which has no end: give --train-set when sampling")
    texts = texts_of(source, range(source.size))
    wanted = [asked.key for asked in of.questions]
    if missing := [key for key in wanted if key not in texts]:
        raise RequestError(f"{hint}, which lacks the question {missing[0]!r}: give --train-set when sampling")
    return {key: texts[key] for key in wanted}
