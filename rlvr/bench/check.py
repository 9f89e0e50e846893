"""Test a verifier: what `rlvr check verifier` does, as one function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rlvr.bench.bench import run_bench
from rlvr.bench.questions import questions_of
from rlvr.bench.report import Limits, Report
from rlvr.bench.trials import BenchQuestion
from rlvr.errors import RequestError
from rlvr.verify.reward_limit import MAX_REWARD


def check(
    verifier: str,
    options: Mapping[str, Any] | None = None,
    *,
    cases: Path | str | Sequence[Path | str] = (),
    dataset: str | None = None,
    split: Literal["train", "eval"] = "train",
    data_files: Sequence[Path | str] = (),
    dataset_options: Mapping[str, Any] | None = None,
    limit: int | None = None,
    answer_form: str | None = None,
    workers: int | None = None,
    timeout: float = 5.0,
    max_reward: float = MAX_REWARD,
    write_protect: bool = False,
    threshold: float = 0.5,
    max_false_positive_rate: float = 0.0,
    max_false_negative_rate: float = 0.1,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Report:
    r"""Test a verifier on labeled cases, attacks, hostile completions and repeats. Look at `passed` of the result.

    Args:
        verifier: A registered name, `file.py:function` or `package.module:function`.
        options: Options of the verifier.
        cases: Files of labeled cases, instead of the one that the verifier brings.
        dataset: Prompt set, or a file of questions and answers, whose gold answers must accept themselves.
        split: Split of the prompt set.
        data_files: Local files of the prompt set.
        dataset_options: Options of the prompt set, as in `dataset.options` of a run: `{"question": "problem"}`.
        limit: Questions of the prompt set; all by default, 1,000 of an endless one.
        answer_form: How a completion states its answer (`#### {answer}`); by default what the verifier declares, or
            `\boxed{answer}`.
        workers: Worker processes; one per CPU by default, 0 runs in this process.
        timeout: Seconds per verdict.
        max_reward: Size of a reward beyond which the verdict is an `error`.
        write_protect: Let workers write to their scratch folders only (Landlock, Linux 6.2).
        threshold: Rewards at or above this count as correct.
        max_false_positive_rate: Largest share of the wrong cases that may be accepted.
        max_false_negative_rate: Largest share of the right cases that may be refused.
        progress: Called after each verdict with their number and the total.

    Raises RequestError for a wrong request, PluginError for a verifier that cannot be loaded, DataError for a broken
    case. A check that fails does not raise.
    """
    files = [Path(file) for file in data_files]
    return run_bench(
        verifier,
        options,
        cases=[Path(cases)] if isinstance(cases, str | Path) else [Path(file) for file in cases],
        questions=_questions(dataset, split=split, files=files, limit=limit, options=dataset_options),
        answer_form=answer_form,
        workers=workers,
        timeout=timeout,
        max_reward=max_reward,
        write_protect=write_protect,
        limits=Limits(threshold, max_false_positive_rate, max_false_negative_rate),
        advance=progress,
    )


def _questions(
    dataset: str | None, *, files: Sequence[Path], limit: int | None, options: Mapping[str, Any] | None, **more: Any
) -> Sequence[BenchQuestion]:
    """Return the rows of the prompt set, if one is named. Raises RequestError for what is about one otherwise."""
    if dataset is not None:
        return questions_of(dataset, files=files, limit=limit, options=options, **more)
    if files or options or limit is not None:
        option = "data_files" if files else "dataset_options" if options else "limit"
        raise RequestError(f"{option} needs a prompt set: give dataset as well")
    return ()
