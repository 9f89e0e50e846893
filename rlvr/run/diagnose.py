"""Diagnose saved rollouts: what `rlvr diagnose` does, as one function."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from rlvr.errors import RequestError
from rlvr.files import expanded
from rlvr.offpolicy.diagnosis import Advice, Evidence, PartDistances, RecordSample, measure, recommend
from rlvr.offpolicy.lineage import lineage_of
from rlvr.protocols import ModelSpec, TrainContext
from rlvr.record.schema import LogprobColumn, Rollout
from rlvr.record.store import read_rollouts
from rlvr.run.config import model_config, resolve
from rlvr.run.factories import trainer_factory
from rlvr.run.models import (
    context_length,
    load_configuration,
    load_tokenizer,
    local_weights_hash,
    tokenizer_hash,
    vocabulary_size,
)
from rlvr.run.reporting import counted
from rlvr.run.train import no_progress_bars
from rlvr.settings import command_line_settings
from rlvr.verify.score_names import can_judge, require_score, score_name

CHUNK = 64  # rollouts between two calls of `progress`
T = TypeVar("T")
Progress = Callable[[str], object]


@dataclass(frozen=True)
class Diagnosis:
    """How far saved rollouts are from a model, how many are usable, and which recipe fits."""

    files: tuple[str, ...]
    model: str
    temperature: float | None
    """Temperature of all log-probabilities; None if no record names one."""
    verifier: str | None
    """Name of the score that is the reward; None if no record has a score."""
    records: int
    usable: int
    """Records that can be trained on as they are."""
    only_logprobs_missing: int
    """Records that lack their log-probabilities and nothing else."""
    reasons: Mapping[str, int]
    """Why records are not usable → how many, most frequent first. A record may have several reasons."""
    scores: Mapping[str, int]
    """Verifier → records that it has scored."""
    measured: int
    """Rollouts whose log-probabilities the model computed."""
    parts: tuple[PartDistances, ...]
    """Distances of the measured rollouts: all of them, then one part per bucket of lag, or per file and versions."""
    advice: Advice
    """Row of the decision table that holds."""
    command: str | None
    """`rlvr train` with everything that it needs for these records; None if there is nothing to train on yet."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per part; `pandas.DataFrame(diagnosis.rows)` is the table that `rlvr diagnose` prints."""
        return [{name: _finite(value) for name, value in asdict(part).items()} for part in self.parts]

    def to_dict(self) -> dict[str, Any]:
        """Return what `rlvr diagnose --json` prints. Infinite numbers are None, since JSON has none."""
        return {
            "temperature": self.temperature,
            "verifier": self.verifier,
            "records": self.records,
            "usable": self.usable,
            "only_logprobs_missing": self.only_logprobs_missing,
            "reasons": dict(self.reasons),
            "measured": self.rows,
            "advice": {
                "name": self.advice.name,
                "recipe": self.advice.recipe,
                "settings": list(self.advice.settings),
                "condition": self.advice.condition,
                "why": self.advice.why,
                "command": self.command,
            },
        }


def diagnose(
    files: Path | str | Sequence[Path | str],
    model: Path | str,
    *,
    verifier: str | None = None,
    temperature: float | None = None,
    limit: int = 1024,
    trainer: str = "grpo",
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
    progress: Progress = lambda text: None,
) -> Diagnosis:
    """Measure how far saved rollouts are from a model. Nothing is trained and nothing is written.

    Every record is read and checked; the model computes log-probabilities of a sample of whole groups.

    Args:
        files: Record files, folders of them, or run directories.
        model: Model to train: a directory or a hub name.
        verifier: Verifier whose score is the reward; by default that of the first record's last score.
        temperature: Temperature of all log-probabilities; by default the first record's.
        limit: Rollouts that the model reads, approximately.
        trainer: Trainer whose code computes log-probabilities.
        device: auto, cpu, cuda, cuda:1, mps.
        dtype: Compute dtype: auto, float32, bfloat16.
        trust_remote_code: Run Python code that the model's repository brings, in this process and with your
            permissions.
        progress: Called often with a line of progress.

    Raises RequestError for files without records, an unknown model, or a verifier without scores there, and DataError
    for a broken record.
    """
    paths = [Path(files)] if isinstance(files, str | Path) else [Path(file) for file in files]
    spec = _spec(str(model), device, dtype, trust_remote_code)
    expected = _expected_by(spec)
    temperature = _first(paths, _temperature) if temperature is None else temperature
    verifier = _first(paths, _verifier) if verifier is None else verifier
    score = None if verifier is None else score_name(verifier)
    sample = RecordSample(limit, **expected, temperature=temperature, verifier=score)
    _read(paths, sample, progress)
    if score is not None:
        require_score(score, sample.scored, f"--verifier {verifier}: {' '.join(map(str, paths))}")
    parts = _measured(sample, trainer, spec, temperature, score, progress)
    advice = _advice(sample, parts)
    return Diagnosis(
        files=tuple(map(str, paths)),
        model=str(model),
        temperature=temperature,
        verifier=score,
        records=sample.records,
        usable=sample.usable,
        only_logprobs_missing=sample.only_logprobs,
        reasons=dict(sample.reasons.most_common()),
        scores=dict(sample.scored),
        measured=sample.kept,
        parts=tuple(parts),
        advice=advice,
        command=_command(paths, str(model), verifier, temperature, sample, advice),
    )


def _spec(model: str, device: str, dtype: str, trust_remote_code: bool) -> ModelSpec:
    return model_config(model, device=device, dtype=dtype, trust_remote_code=trust_remote_code).spec


def _records(paths: Sequence[Path]) -> Iterator[tuple[str, Path, Rollout]]:
    """Yield every record with the path that it came from and its file; a run directory stands for its rollouts.

    Raises RequestError if there is no record or a file is given twice.
    """
    expanded(paths)  # a missing file is an error before anything is read
    empty = True
    for path in paths:
        for file in expanded([path]):
            for rollout in read_rollouts(file):
                empty = False
                yield str(path), file, rollout
    if empty:
        raise RequestError(f"{' '.join(map(str, paths))}: there is no record to diagnose")


def _expected_by(spec: ModelSpec) -> dict[str, Any]:
    """Return what a record that the model can read must fit. Raises RequestError if there is no such model."""
    tokenizer, configuration = load_tokenizer(spec), load_configuration(spec)
    return {
        "tokenizer_hash": tokenizer_hash(tokenizer),
        "vocabulary": vocabulary_size(configuration),
        "positions": context_length(configuration),
    }


def _read(paths: Sequence[Path], sample: RecordSample, progress: Progress) -> None:
    """Offer every record to the sample. Raises as `_records`."""
    for source, file, rollout in _records(paths):
        sample.add(source, rollout, str(file))
        progress(f"{counted(sample.records, 'record')} read")


def _first(paths: Sequence[Path], value_of: Callable[[Rollout], T | None]) -> T | None:
    """Return the value of the first record that has one; None if none has."""
    return next((value for *_, rollout in _records(paths) if (value := value_of(rollout)) is not None), None)


def _temperature(rollout: Rollout) -> float | None:
    return None if rollout.sampling is None else rollout.sampling.temperature or None


def _verifier(rollout: Rollout) -> str | None:
    return rollout.scores[-1].verifier if rollout.scores else None


def _advice(sample: RecordSample, parts: Sequence[PartDistances]) -> Advice:
    by_part = {each.part: each for each in parts}
    return recommend(
        Evidence(sample.records, sample.usable, sample.only_logprobs, by_part.get("all"), by_part.get("lag 0"))
    )


def _measured(
    sample: RecordSample,
    trainer: str,
    spec: ModelSpec,
    temperature: float | None,
    score: str | None,
    progress: Progress,
) -> list[PartDistances]:
    """Return the distances of the sample; empty if no record is usable."""
    if not sample.usable:
        return []
    assert temperature is not None  # a record without a temperature is not usable
    groups = sample.groups
    rollouts = [each.rollout for group in groups for each in group]
    with no_progress_bars():
        factory = trainer_factory(trainer)
        if factory.owns_loop:
            raise RequestError(
                f"trainer {trainer!r} has a loop of its own and computes no log-probabilities: name another, e.g. grpo"
            )
        loaded = factory(factory.Options(), TrainContext(spec, seed=0, temperature=temperature, total_updates=1))
        own: list[LogprobColumn] = []
        for start in range(0, len(rollouts), CHUNK):
            own += loaded.logprobs(rollouts[start : start + CHUNK])
            progress(f"log-probabilities of {len(own):,} of {len(rollouts):,} rollouts")
    return measure(groups, own, lineage_of(spec.path, local_weights_hash(spec.path)), score)


def _command(
    paths: Sequence[Path],
    model: str,
    verifier: str | None,
    temperature: float | None,
    sample: RecordSample,
    advice: Advice,
) -> str | None:
    """Return the `rlvr train` command that takes these records as they were read here; None without a recipe."""
    if advice.recipe is None:
        return None
    assert verifier is not None  # a record without a score is not usable
    files = [str(path) for path in paths]
    words = ["rlvr", "train", "--rollouts", *files, "--model", model, "--recipe", advice.recipe, "--verifier", verifier]
    words += ["--skip-unusable"] if sample.usable < sample.records else []
    settings = list(advice.settings)
    given = {"rollouts.files": files, "model.name": model, "recipe": advice.recipe}
    config = resolve(command_line_settings([], {key: (key, value) for key, value in given.items()}))
    if config.sampling.temperature != temperature:
        settings.append(f"sampling.temperature={temperature}")
    if not can_judge(verifier):  # nothing could score held-out answers
        settings.append("eval.questions=0")
    return shlex.join([*words, *(word for each in settings for word in ("--set", each))])


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
