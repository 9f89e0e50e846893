"""`rlvr diagnose`: how far saved rollouts are from a model, before anything is trained on them."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from rlvr.cli.progress import Heartbeat
from rlvr.columns import columns

if TYPE_CHECKING:
    from rlvr.offpolicy.diagnosis import Advice, Line, Sample
    from rlvr.protocols import ModelSpec
    from rlvr.record.schema import Rollout

CHUNK = 64  # rollouts between two looks at the clock
T = TypeVar("T")


def diagnose(
    rollouts: Annotated[
        list[Path], typer.Argument(metavar="ROLLOUTS...", help="Files or folders of records, or a run's directory.")
    ],
    model: Annotated[str, typer.Option("--model", "-m", help="The model that is to learn: a directory or a hub name.")],
    verifier: Annotated[
        str | None,
        typer.Option(
            "--verifier",
            "-v",
            help="Whose score is the reward: a name, or FILE.py:FUNCTION. [default: the first record's last]",
        ),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=1e-6, help="Of all log-probabilities. [default: the first record's]")
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="About how many rollouts the model reads, whole groups drawn from all files.")
    ] = 1024,
    trainer: Annotated[str, typer.Option(help="Whose code computes log-probabilities.")] = "grpo",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="Of the computation: auto, float32, bfloat16.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say how far ROLLOUTS are from a model, by age; what of them is usable; and which recipe fits.

    Every record is read and checked; the model's log-probabilities are computed for a sample. Nothing is trained and
    nothing is written.
    """

    from rlvr.offpolicy.diagnosis import Evidence, measure, recommend
    from rlvr.offpolicy.lineage import lineage_of
    from rlvr.protocols import ModelSpec
    from rlvr.run.config import model_config
    from rlvr.run.models import load_configuration, load_tokenizer, local_weights_hash, tokenizer_hash, vocabulary_size
    from rlvr.verify.score_names import require_score, score_name

    named = model_config(model, device=device, dtype=dtype)
    spec = ModelSpec(named.location, revision=named.revision, device=named.device, dtype=named.dtype)
    tokenizer, vocabulary = tokenizer_hash(load_tokenizer(spec)), vocabulary_size(load_configuration(spec))
    if temperature is None:
        temperature = _of_the_first(rollouts, lambda r: None if r.sampling is None else r.sampling.temperature or None)
    if verifier is None:
        verifier = _of_the_first(rollouts, lambda r: r.scores[-1].verifier if r.scores else None)
    score = None if verifier is None else score_name(verifier)
    sample = _sample(
        _records(rollouts),
        limit,
        tokenizer_hash=tokenizer,
        temperature=temperature,
        vocabulary=vocabulary,
        verifier=score,
    )
    if score is not None:
        require_score(score, sample.scored, f"--verifier {verifier}: {' '.join(map(str, rollouts))}")
    lines: list[Line] = []
    if sample.usable:
        assert temperature is not None  # a record without one is not usable
        groups = sample.groups
        own = _logprobs([each.rollout for group in groups for each in group], trainer, spec, temperature)
        lines = measure(groups, own, lineage_of(spec.path, local_weights_hash(spec.path)), score)
    by_part = {line.part: line for line in lines}
    evidence = Evidence(sample.records, sample.usable, sample.only_logprobs, by_part.get("all"), by_part.get("lag 0"))
    advice = recommend(evidence)
    command = None
    if advice.recipe is not None:
        assert verifier is not None  # a record without a score is not usable
        assert temperature is not None
        command = _command(rollouts, model, verifier, temperature, sample, advice)
    if as_json:
        said = {"temperature": temperature, "verifier": score} | _as_json(sample, lines, advice, command)
        print(json.dumps(said, indent=2))
        return
    at = "" if temperature is None else f" at temperature {temperature}"
    by = "" if score is None else f", scores by {score}"
    print(f"{' '.join(map(str, rollouts))} against {model}{at}{by}\n")
    print("\n".join(_usable(sample)))
    if sample.usable:
        print(f"measured     {sample.kept:,} of them, whole groups drawn from all files (--limit)")
    if lines:
        print(f"\n{columns(_table(lines))}")
    print(f"\nrecommended  {advice.recipe or 'nothing yet'}: {advice.name} ({advice.condition})")
    print(f"             {advice.why}")
    if command:
        print(f"             {command}")


# --- reading ----------------------------------------------------------------------------------------------------------


def _records(paths: Sequence[Path]) -> Iterator[tuple[str, Path, Rollout]]:
    """Every record with the path that it came from, and the file there; a run's directory stands for its rollouts.
    Raises RequestError when there is none, or a file is given twice."""
    from rlvr.errors import RequestError
    from rlvr.files import expanded
    from rlvr.record.store import read_rollouts
    from rlvr.run.saved import rollouts_of

    expanded(map(rollouts_of, paths))  # what does not exist is said at once
    empty = True
    for path in paths:
        for file in expanded([rollouts_of(path)]):
            for rollout in read_rollouts(file):
                empty = False
                yield str(path), file, rollout
    if empty:
        raise RequestError(f"{' '.join(map(str, paths))}: there is no record to diagnose")


def _of_the_first(paths: Sequence[Path], what: Callable[[Rollout], T | None]) -> T | None:
    """Of the first record that has it; None where none has."""
    return next((value for *_, rollout in _records(paths) if (value := what(rollout)) is not None), None)


def _sample(records: Iterable[tuple[str, Path, Rollout]], limit: int, **expected: Any) -> Sample:
    from rlvr.offpolicy.diagnosis import Sample

    sample, say = Sample(limit, **expected), Heartbeat()
    for source, file, rollout in records:
        sample.add(source, rollout, str(file))
        say(f"{sample.records:,} records read")
    return sample


def _logprobs(
    rollouts: Sequence[Rollout], trainer: str, spec: ModelSpec, temperature: float
) -> list[tuple[float | None, ...]]:
    """Of the sampled tokens under the model, by the trainer's own code."""
    from transformers.utils.logging import disable_progress_bar

    from rlvr.protocols import TrainContext
    from rlvr.registry import registry

    disable_progress_bar()  # type: ignore[no-untyped-call]
    factory = registry().load("trainer", trainer)
    loaded = factory(factory.Options(), TrainContext(spec, seed=0, temperature=temperature, total_updates=1))
    found: list[tuple[float | None, ...]] = []
    say = Heartbeat()
    for start in range(0, len(rollouts), CHUNK):
        found += loaded.logprobs(rollouts[start : start + CHUNK])
        say(f"log-probabilities of {len(found):,} of {len(rollouts):,} rollouts")
    return found


# --- telling ----------------------------------------------------------------------------------------------------------


def _usable(sample: Sample) -> Iterator[str]:
    from rlvr.offpolicy.eligibility import remedy
    from rlvr.verify.score_names import counted

    yield f"records      {sample.records:,}"
    if len(sample.scored) > 1:
        yield f"scores       by {counted(sample.scored)}: --verifier says which is the reward"
    yield f"usable       {sample.usable:,} ({sample.usable / sample.records:.1%})"
    for reason, count in sample.reasons.most_common():
        yield f"not usable   {count:,} ({count / sample.records:.1%}): {reason}"
        yield f"             {remedy(reason)}"
    if sample.only_logprobs:
        mended = "rlvr train --behaviour-model MODEL mends these"
        yield f"             {sample.only_logprobs:,} of them lack nothing else: {mended}"


_SHOWN = {
    "part": ("AGE", "{}"),
    "rollouts": ("ROLLOUTS", "{:,}"),
    "tokens": ("TOKENS", "{:,}"),
    "ess_token": ("ESS TOKEN", "{:.3f}"),
    "ess_sequence": ("ESS SEQ", "{:.3f}"),
    "log_w_mean": ("LOG W", "{:+z.4f}"),
    "gap": ("|LOG W|", "{:.4f}"),
    "kl_k1": ("KL K1", "{:+z.4f}"),
    "kl_k3": ("KL K3", "{:.4f}"),
    "chi2": ("CHI2", "{:z.4f}"),
    "ratio_max": ("MAX W", "{:.2f}"),
    "signal": ("SIGNAL", "{:.0%}"),
    "truncated": ("TRUNCATED", "{:.0%}"),
}


def _table(lines: Sequence[Line]) -> list[list[str]]:
    rows = [[title for title, _ in _SHOWN.values()]]
    for line in lines:
        values = [(getattr(line, name), shown) for name, (_, shown) in _SHOWN.items()]
        rows.append(["–" if value is None else _shown(value, shown) for value, shown in values])
    return rows


def _shown(value: Any, shown: str) -> str:
    return f"{value:.3g}" if isinstance(value, float) and abs(value) >= 1000 else shown.format(value)


def _command(
    paths: Sequence[Path], model: str, verifier: str, temperature: float, sample: Sample, advice: Advice
) -> str:
    """`rlvr train`, with all that it needs to take these records as they were read here."""
    from rlvr.run.config import resolve
    from rlvr.settings import command_line_settings
    from rlvr.verify.score_names import can_judge

    assert advice.recipe is not None
    files = [str(path) for path in paths]
    words = ["rlvr", "train", "--rollouts", *files, "--model", model, "--recipe", advice.recipe, "--verifier", verifier]
    words += ["--skip-unusable"] if sample.usable < sample.records else []
    settings = list(advice.settings)
    given = {"rollouts.files": files, "model.name": model, "recipe": advice.recipe}
    config = resolve(command_line_settings([], {key: (key, value) for key, value in given.items()}))
    if config.sampling.temperature != temperature:
        settings.append(f"sampling.temperature={temperature}")
    if not can_judge(verifier):  # held-out answers
        settings.append("eval.questions=0")
    return shlex.join([*words, *(word for each in settings for word in ("--set", each))])


def _as_json(sample: Sample, lines: Sequence[Line], advice: Advice, command: str | None) -> dict[str, Any]:
    return {
        "records": sample.records,
        "usable": sample.usable,
        "only_logprobs_missing": sample.only_logprobs,
        "reasons": dict(sample.reasons.most_common()),
        "measured": [{name: _finite(value) for name, value in asdict(line).items()} for line in lines],
        "advice": {
            "name": advice.name,
            "recipe": advice.recipe,
            "settings": list(advice.settings),
            "condition": advice.condition,
            "why": advice.why,
            "command": command,
        },
    }


def _finite(value: Any) -> Any:
    """JSON has no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
