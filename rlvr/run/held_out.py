"""Held-out questions of a run: one set that `eval` describes, and further ones by name (`eval.sets`)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr.data.overlap import shared_questions
from rlvr.data.prompts import Encoded, load_source
from rlvr.errors import ConfigError, RlvrError, nearest
from rlvr.protocols import ModelSpec, PromptSource, SourceRequest
from rlvr.record.schema import SamplingParams
from rlvr.registry import registry
from rlvr.run.config import RunConfig
from rlvr.run.inputs import prompt_digests
from rlvr.run.prompting import Prompting
from rlvr.run.stopping import uses_chat_template
from rlvr.secret_options import secret_values

if TYPE_CHECKING:
    from rlvr.run.models import Tokenizer

EVAL_SEED = 0  # the same questions for every run, so that runs compare


@dataclass(frozen=True)
class HeldOut:
    """Questions of an evaluation, and how they are asked."""

    name: str
    """Empty for the questions that `eval` describes."""
    source: PromptSource
    questions: tuple[Encoded, ...]
    samples: int
    """Completions per question."""
    params: SamplingParams
    greedy: bool
    """Ask once more at temperature 0."""
    data_files: tuple[Path, ...]

    @property
    def prefix(self) -> str:
        """Beginning of its metrics' names: `eval/` or `eval_NAME/`."""
        return f"eval_{self.name}/" if self.name else "eval/"

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that tell how good weights are."""
        kinds = ("", "greedy_") if self.greedy else ("",)
        return [f"{self.prefix}{kind}{what}" for kind in kinds for what in ("accuracy", "reward")]


def held_out_sets(config: RunConfig, model: ModelSpec, tokenizer: Tokenizer, notes: list[str]) -> list[HeldOut]:
    """Load the questions of every set. Adds to `notes`.

    Raises RequestError for a data set that is not available, for questions that are named for training as well, and if
    `checkpoint.best` is none of their metrics.
    """
    chat = uses_chat_template(tokenizer, config.model.chat)
    held_out = []
    for each, number in _described(config, chat, notes):
        sampling = config.sampling.model_copy(update={"max_tokens": each.params.max_tokens})
        prompting = Prompting.of(config.model_copy(update={"sampling": sampling}), model, tokenizer, [])
        stream = prompting.stream(each.source, seed=EVAL_SEED)
        held_out.append(replace(each, questions=tuple(stream.first(number))))
        if stream.dropped:
            notes.append(
                f"{stream.dropped:,} held-out questions {_of(each.name)}are not asked: they have more than "
                f"{prompting.longest} tokens (dataset.max_prompt_tokens)"
            )
    _check_best(config, held_out)
    return held_out


def tell_shared_with(train: PromptSource, limit: int | None, held_out: Sequence[HeldOut], notes: list[str]) -> None:
    """Add a warning for each set with questions that are trained on."""
    for each in held_out:
        shared = shared_questions(train, limit, each.source, each.questions)
        tell_shared(shared, len(each.questions), notes, each.name)


def tell_shared(shared: int, questions: int, notes: list[str], name: str = "") -> None:
    """Add a warning about held-out questions that are trained on, if there are any."""
    if shared:
        notes.append(
            f"warning: {shared:,} of the {questions:,} held-out questions {_of(name)}are also trained on, so held-out "
            "accuracy overstates what was learned. Name questions that are not, with --set eval.dataset=NAME or "
            "--set eval.data_files=[FILE]"
        )


def tell_late(config: RunConfig, batches_per_sync: int, held_out: Sequence[HeldOut], notes: list[str]) -> None:
    """Add a note if evaluations come later than asked for: the sampler has the weights of the last sync only."""
    every = config.eval.every
    if not held_out or every % batches_per_sync == 0:
        return
    asked = range(0, config.steps, every)
    taken = sorted({-(-step // batches_per_sync) * batches_per_sync for step in asked})
    shown = ", ".join(f"{step:,}" for step in taken[:4] if step < config.steps) + (", …" if len(taken) > 4 else "")
    notes.append(
        f"eval.every is {every}, and the sampler gets new weights every {batches_per_sync} batches: evaluations wait "
        f"for that, and come after {shown} batches and at the end. For others, set eval.every to a multiple of "
        f"{batches_per_sync}"
    )


def held_out_digests(held_out: Sequence[HeldOut]) -> dict[str, str]:
    """Return the hashes of the data behind the questions. Reads all of it."""
    found: dict[str, str] = {}
    for each in held_out:
        found |= prompt_digests(each.source, each.data_files)
    return found


def _check_best(config: RunConfig, held_out: Sequence[HeldOut]) -> None:
    """Raise ConfigError if the best weights are to be kept by a metric that this run does not have."""
    name = config.checkpoint.best
    if name is None:
        return
    known = [metric for each in held_out for metric in each.metrics]
    if not known:
        raise ConfigError(
            f"checkpoint.best={name}: no held-out questions are asked, so no weights are better; leave it out"
        )
    if name not in known:
        raise ConfigError(f"checkpoint.best: the evaluation has no metric {name!r}{nearest(name, known)}")


def _of(name: str) -> str:
    return f"of {name} " if name else ""


def _described(config: RunConfig, chat: bool, notes: list[str]) -> list[tuple[HeldOut, int]]:
    """Return each set that the configuration describes, without questions, and how many it is to have."""
    evaluation, sampling = config.eval, config.sampling
    found = []
    if (source := _own_source(config, chat, notes)) is not None:
        own = HeldOut("", source, (), evaluation.samples, sampling.params, True, evaluation.data_files)
        found.append((own, evaluation.questions))
    for name, each in evaluation.sets.items():
        source = _source(each.dataset, each.data_files, each.options, chat, f"eval.sets.{name}")
        temperature = sampling.temperature if each.temperature is None else each.temperature
        params = SamplingParams(temperature=temperature, max_tokens=each.max_tokens or sampling.max_tokens)
        found.append((HeldOut(name, source, (), each.samples, params, each.greedy, each.data_files), each.questions))
    trained = set(map(os.path.realpath, config.dataset.data_files))
    for named, _ in found:
        if both := trained & set(map(os.path.realpath, named.data_files)):
            where = f"eval.sets.{named.name}.data_files" if named.name else "eval.data_files"
            raise ConfigError(f"{min(both)} is in dataset.data_files and in {where}: held-out means not trained on")
    return found


def _own_source(config: RunConfig, chat: bool, notes: list[str]) -> PromptSource | None:
    """Return the source of the questions without a name; None, mostly with a note, if the configuration names none."""
    if config.eval.questions == 0:
        return None
    name = config.eval.dataset or config.dataset.name
    if name is None:
        if not config.eval.sets:
            of = " of a mixture" if config.dataset.mix else ""
            notes.append(f"no held-out questions{of}: name a data set with --set eval.dataset=NAME")
        return None
    known = registry().names("prompt_source")
    own_files = config.eval.dataset is None and not config.eval.data_files
    if own_files and (config.dataset.data_files or name not in known):
        if not config.eval.sets:
            notes.append(
                "no held-out questions: the data files are for training. Name some with "
                "--set eval.data_files=[FILE], or another data set with --set eval.dataset=NAME"
            )
        return None
    options = {} if config.eval.dataset else config.dataset.options
    return _source(name, config.eval.data_files, options, chat, "eval")


def _source(
    name: str, data_files: tuple[Path, ...], options: Mapping[str, Any], chat: bool, section: str
) -> PromptSource:
    request = SourceRequest(
        split="eval",
        seed=EVAL_SEED,
        chat=chat,
        options=secret_values(options, "dataset.options."),
        data_files=data_files,
    )
    try:
        return load_source(name, request)
    except RlvrError as error:
        hint = f"name another with --set {section}.dataset=NAME"
        hint += ", or do without: --set eval.questions=0" if section == "eval" else ""
        raise type(error)(f"held-out questions: {error} ({hint})") from error
