"""Rows of a prompt set for the test bench, each with a gold answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rlvr.bench.trials import BenchQuestion
from rlvr.data.prompts import load_source
from rlvr.errors import RequestError
from rlvr.protocols import SourceRequest

OF_AN_ENDLESS_SET = 1000


def questions_of(
    dataset: str,
    *,
    split: Literal["train", "eval"] = "train",
    files: Sequence[Path] = (),
    limit: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[BenchQuestion]:
    """Return the first `limit` questions of a prompt set; by default all, or 1,000 of an endless one.

    Args:
        dataset: A registered name, a `.yaml` card, or a file of questions and answers.
        split: Split of the prompt set.
        files: Local files to read instead of the hub.
        options: Options of the prompt set (`dataset.options`).

    Raises the errors of `load_source`, and RequestError if no question has a gold answer.
    """
    source = load_source(dataset, SourceRequest(split=split, seed=0, options=options or {}, data_files=tuple(files)))
    size = OF_AN_ENDLESS_SET if source.size is None else source.size
    prompts = (source[i] for i in range(size if limit is None else min(limit, source.size or limit)))
    questions = [BenchQuestion(prompt.task, prompt.text, prompt.messages) for prompt in prompts if prompt.task.answer]
    if not questions:
        raise RequestError(f"dataset {dataset} has no gold answers to test a verifier with")
    return questions
