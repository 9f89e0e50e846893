"""Plan of a run: everything that can be checked before weights are loaded.

`make_plan` checks the configuration, the plugins, the data set's rows, the prompts' lengths and the verifier.
`--dry-run` prints a plan; `rlvr.run.loop` runs one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Self

from rlvr.alarms import fired
from rlvr.data.curriculum import Curriculum
from rlvr.data.mixing import MixedDataset, MixedSource
from rlvr.data.prompts import Encoded, PromptStream, load_source
from rlvr.errors import ConfigError, DataError, RequestError, nearest
from rlvr.offpolicy.lineage import Lineage, lineage_of
from rlvr.protocols import (
    ModelSpec,
    PromptSource,
    SamplerFactory,
    SamplerOptions,
    SourceRequest,
    TrackerFactory,
    TrainerOptions,
)
from rlvr.record.item import Item
from rlvr.record.schema import ModelRef, Score, Stop
from rlvr.registry import registry
from rlvr.run.auto_engine import with_engine
from rlvr.run.config import (
    RunConfig,
    TrainerConfig,
    model_config,
    replayed_groups,
    sampled_groups,
    saved_groups,
    trainer_options,
)
from rlvr.run.factories import AnyTrainerFactory, configured_sampler, tracker_factory, trainer_factory
from rlvr.run.groups import Grader
from rlvr.run.held_out import (
    HeldOut,
    held_out_digests,
    held_out_sets,
    tell_late,
    tell_shared,
    tell_shared_with,
)
from rlvr.run.inputs import model_digests, prompt_digests
from rlvr.run.memory import MemoryPlan, memory_plan
from rlvr.run.models import (
    context_length,
    end_ids,
    load_configuration,
    load_tokenizer,
    local_weights_hash,
    model_ref,
    tokenizer_hash,
    vocabulary_size,
)
from rlvr.run.prompting import Prompting
from rlvr.run.proof import PROBES, probe_prompts
from rlvr.run.sampled import configured_scorer
from rlvr.run.saved import Expected, SavedRollouts
from rlvr.run.shadow import Shadows
from rlvr.run.stopping import uses_chat_template
from rlvr.secret_options import MASK, secret_values, writable_model
from rlvr.verify.composition import references, weights_of
from rlvr.verify.score_names import SAMPLER, can_judge, score_name
from rlvr.verify.scoring import Scorer

if TYPE_CHECKING:
    from rlvr.run.models import Tokenizer


@dataclass
class Plan:
    """A checked run that has not begun."""

    config: RunConfig
    model: ModelSpec
    tokenizer_hash: str
    prompts: PromptStream | None
    """None if the run trains on saved rollouts only."""
    dataset_size: int | None
    held_out: tuple[HeldOut, ...]
    """Sets of held-out questions."""
    source: PromptSource | None
    """Source of the prompts to train on; None if nothing is sampled for training."""
    first_prompt: str | None
    """First prompt of the run as the model sees it, or else the first held-out one; None if nothing is asked."""
    scorer: Scorer | None
    """None if nothing is verified: the rewards come from the files, or from the sampler."""
    grader: Grader
    shadows: Shadows
    """Verifiers that are only logged."""
    saved: SavedRollouts | None
    behaviour: ModelSpec | None
    """Model that sampled the saved records without log-probabilities."""
    trainer: AnyTrainerFactory
    options: TrainerOptions
    """Validated; an instance of `trainer.Options`."""
    sampler: SamplerFactory
    sampler_options: SamplerOptions
    """Validated; an instance of `sampler.Options`."""
    trackers: dict[str, TrackerFactory]
    """Name -> factory."""
    notes: list[str]
    """Notes for the user, a line each."""

    @property
    def weights(self) -> dict[str, str]:
        """Hashes of the initial and the behavior model's weights, if they are in local directories. Reads all files."""
        paths = {role: spec.path for role, spec in self._models.items()}
        return {role: found for role, path in paths.items() if (found := local_weights_hash(path)) is not None}

    @property
    def _models(self) -> dict[str, ModelSpec]:
        return {"model": self.model} | ({} if self.behaviour is None else {"behaviour": self.behaviour})

    @property
    def model_files(self) -> dict[str, str]:
        """Hashes of the models' files besides weights, and of the tokenizer."""
        return {"tokenizer": self.tokenizer_hash} | model_digests(self._models)

    @property
    def prompt_files(self) -> dict[str, str]:
        """Hashes of the data behind the prompts. Reads all of it."""
        return prompt_digests(self.source, self.config.dataset.data_files)

    @property
    def held_out_files(self) -> dict[str, str]:
        """Hashes of the data behind the held-out questions. Reads all of it."""
        return held_out_digests(self.held_out)

    @property
    def questions(self) -> list[Encoded]:
        """Held-out questions of all sets."""
        return [question for each in self.held_out for question in each.questions]

    @property
    def needs_sampler(self) -> bool:
        """True if the loop samples, to train or to evaluate. A backend samples by itself."""
        return not self.trainer.owns_loop and (self.config.samples or bool(self.questions))

    @cached_property
    def memory(self) -> MemoryPlan:
        """Memory that the run takes, by part."""
        return memory_plan(self.config, self.model, self.options, self.sampler_options if self.needs_sampler else None)

    @property
    def probes(self) -> list[tuple[int, ...]]:
        """Prompts of the probes that compare sampler and trainer, one for each engine at least.

        Empty if nothing is sampled.
        """
        if not self.needs_sampler:
            return []
        count = max(PROBES, self.sampler_options.engines * self.config.sampling.copies)
        questions = self.questions[:count]
        if self.prompts is not None:
            position, dropped = self.prompts.position, self.prompts.dropped
            questions = self.prompts.take(count)
            self.prompts.seek(position, dropped)
        return probe_prompts(questions, context_length(load_configuration(self.model)))

    @property
    def distributions(self) -> set[str]:
        """Distributions whose code affects results: rlvr, and those of the run's plugins."""
        config = self.config
        names: set[tuple[str, str | None]] = {("trainer", config.trainer.name), ("sampler", config.sampling.engine)}
        sources = config.dataset.members if self.prompts is not None else ()
        names |= {("prompt_source", name) for name, _ in sources}
        if self.scorer is not None and config.verifier.name is not None:
            names |= {("verifier", name) for name in references(config.verifier.name)}
        return {"rlvr"} | {each.distribution for each in registry().entries() if (each.kind, each.name) in names}

    @property
    def sampled_groups(self) -> int:
        """Groups of a batch that are sampled, if enough past groups can be replayed."""
        return sampled_groups(self.config)

    @property
    def saved_groups(self) -> int:
        """Groups of a batch that come from files."""
        return saved_groups(self.config)

    @property
    def replayed_groups(self) -> int:
        """Groups of a batch that are replayed, once there are enough past ones."""
        return replayed_groups(self.config)

    @property
    def rollouts_per_step(self) -> int:
        """Rollouts sampled per step: prompts × group size."""
        return self.sampled_groups * self.config.sampling.group_size

    @property
    def steps_per_epoch(self) -> int | None:
        """Batches until every question was asked once; None if the source is endless."""
        if self.dataset_size is None:
            return None
        return math.ceil(self.dataset_size / self.sampled_groups)

    def try_gold(self, rows: int = 4) -> Iterator[tuple[Encoded, Score]]:
        """Yield the first questions of the run, each with the verdict on its gold answer in the verifier's own form."""
        if self.prompts is None or self.scorer is None:
            return
        encoded = self.prompts.peek(rows)
        form = self.scorer.claims.answer_form
        items = (Item(form.replace("{answer}", str(e.prompt.task.answer)), e.prompt.task) for e in encoded)
        yield from zip(encoded, self.scorer.score(items), strict=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes of all verifiers."""
        self.shadows.close()
        if self.scorer is not None:
            self.scorer.close()


def make_plan(config: RunConfig, told: Callable[[str], None] = lambda text: None) -> Plan:
    """Check everything that can be checked without weights, and return the plan.

    `told` receives lines of progress during long work. Raises RequestError for a wrong request.
    """
    _refuse_several_processes()
    config, choice = with_engine(config)
    return _checked(config, choice, told)


def _checked(config: RunConfig, choice: Sequence[str], told: Callable[[str], None]) -> Plan:
    """Return the plan of a configuration that names its sampler; `choice` says how it was chosen."""
    trainer = trainer_factory(config.trainer.name)
    _check_backend(config, trainer)
    given_options = trainer_options(config, trainer.Options)
    sampler, engine_options = _sampler(config, given_options)
    trackers = {name: tracker_factory(name) for name in config.trackers}
    model = config.model.spec
    tokenizer = load_tokenizer(model)
    options, notes = given_options.with_run(max_tokens=config.sampling.max_tokens)
    _check_max_lag(config, options)
    notes = [*choice, *notes, *_trusted(config)]
    asked = _asked(config, model, tokenizer, engine_options, notes)
    notes += _never_ends(model, tokenizer, asked.first)
    scorer = _scorer(config, asked.verifier, needed=config.samples or bool(asked.questions))
    grader = _grader(config, asked.verifier, scorer)
    behaviour = _behaviour(config, model)
    saved = None
    try:
        if config.rollouts.files:
            expected = _expected(config, model, tokenizer, behaviour, grader)
            saved = _saved(config, expected, grader, options, told)
            notes += _notes_on(config, saved, asked.questions)
        _check_fit(asked, scorer, options)
        config = _count_epochs(_count_steps(config, saved), asked.prompts)
        if not trainer.owns_loop:
            tell_late(config, options.batches_per_sync, asked.held_out, notes)
        shadows = Shadows(config, grader)
        config = _spelled_out(config, asked.verifier, given_options, engine_options, scorer)
    except BaseException:
        if scorer is not None:
            scorer.close()
        raise
    return Plan(
        config=config,
        model=model,
        tokenizer_hash=tokenizer_hash(tokenizer),
        prompts=asked.prompts,
        dataset_size=None if asked.prompts is None else asked.prompts.size,
        held_out=asked.held_out,
        source=asked.source,
        first_prompt=None if (first := asked.first) is None else _text(first, tokenizer),
        scorer=scorer,
        grader=grader,
        shadows=shadows,
        saved=saved,
        behaviour=behaviour,
        trainer=trainer,
        options=options,
        sampler=sampler,
        sampler_options=engine_options,
        trackers=trackers,
        notes=notes,
    )


def _grader(config: RunConfig, verifier: str, scorer: Scorer | None) -> Grader:
    name = score_name(verifier) if scorer is None else scorer.name
    verifying = config.verifier
    return Grader(name, verifying.rewards, verifying.max_reward, config.rollouts.single_version)


def _spelled_out(
    config: RunConfig, verifier: str, trainer: TrainerOptions, engine: SamplerOptions, scorer: Scorer | None
) -> RunConfig:
    """Return the configuration with the name of the verifier and every option of the plugins, defaults included.

    Options that take their value from the run stay null. An option whose default is a mapping or an object is left out
    unless it was given: without an annotation, its JSON could not be turned back into it. So is a secret of the code.
    """
    given = config.verifier.options
    judged = {} if scorer is None else scorer.config
    judging = {
        key: value for key, value in judged.items() if key in given or not (isinstance(value, Mapping) or value == MASK)
    }
    return config.model_copy(
        update={
            "trainer": TrainerConfig(name=config.trainer.name, **writable_model(trainer, config.trainer.options)),
            "verifier": config.verifier.model_copy(update={"name": verifier, "options": {**given, **judging}}),
            "sampling": config.sampling.model_copy(update={"options": writable_model(engine, config.sampling.options)}),
        }
    )


def _refuse_several_processes() -> None:
    """Raise RequestError under torchrun: each of its processes would train the same run."""
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes.strip() not in ("", "1"):
        raise RequestError(
            f"WORLD_SIZE is {processes}: rlvr trains in one process, and {processes} would train the same run side by "
            "side; start it once, without torchrun (or unset WORLD_SIZE)"
        )


def _check_backend(config: RunConfig, trainer: AnyTrainerFactory) -> None:
    """Raise ConfigError if a backend that draws its own groups is asked to train on groups from elsewhere."""
    if not trainer.owns_loop:
        return
    given = {
        "rollouts.files": bool(config.rollouts.files),
        "replay.share": config.replay.share > 0,
        "sampling.refill": config.sampling.refill,
        "sampling.keep_topk": config.sampling.kept > 0,
        "verifier.shadow": bool(config.verifier.shadow),
    }
    for key, is_given in given.items():
        if is_given:
            raise ConfigError(
                f"{key} does nothing with trainer {config.trainer.name!r}, which samples its own batches; leave it out"
            )


def _sampler(config: RunConfig, trainer: TrainerOptions) -> tuple[SamplerFactory, SamplerOptions]:
    """Return the factory of the sampler and its options.

    Raises ConfigError if it is to load an adapter that is not trained, or is larger than it takes.
    """
    factory, options = configured_sampler(config)
    most, rank = options.adapter_rank, trainer.adapter_rank
    if most is not None and (rank is None or rank > most):
        trained = "all weights are trained" if rank is None else f"the adapter has rank {rank} (trainer.lora.rank)"
        raise ConfigError(
            f"sampling.options.lora_rank is {most}, and {trained}: "
            + ("leave it out, or set trainer.lora" if rank is None else f"set it to at least {rank}")
        )
    _check_topk(config, trainer, options)
    return factory, options


def _check_topk(config: RunConfig, trainer: TrainerOptions, sampler: SamplerOptions) -> None:
    """Raise ConfigError if the likeliest tokens are to be recorded and the sampler gives none, or the reverse."""
    sampling = config.sampling
    if sampling.kept and not sampler.keeps_topk:
        setting = "top_k" if sampling.top_k else "keep_topk"
        raise ConfigError(
            f"sampling.{setting}: the sampler {sampling.engine!r} does not report the likeliest tokens, which training "
            "needs in the record; leave it out, or use the sampler 'hf' or 'vllm'"
        )
    if trainer.needs_topk and config.samples and not sampling.kept:
        raise ConfigError(
            f"{trainer.needs_topk[0]} needs the likeliest tokens of the sampler in the record: set sampling.keep_topk, "
            "e.g. to 20"
        )


@dataclass(frozen=True)
class _Asked:
    """Prompts of the run, their sources, and its verifier's name."""

    prompts: PromptStream | None
    held_out: tuple[HeldOut, ...]
    source: PromptSource | None
    verifier: str

    @property
    def questions(self) -> list[Encoded]:
        """Held-out questions of all sets."""
        return [question for each in self.held_out for question in each.questions]

    @property
    def first(self) -> Encoded | None:
        """The first prompt to train on, or else the first held-out one."""
        if self.prompts is None:
            return self.questions[0] if self.questions else None
        (first,) = self.prompts.peek(1)
        return first


def _asked(
    config: RunConfig, model: ModelSpec, tokenizer: Tokenizer, engine: SamplerOptions, notes: list[str]
) -> _Asked:
    """Load the prompts of training and the held-out questions. Adds to `notes`."""
    source = _train_source(config, uses_chat_template(tokenizer, config.model.chat)) if config.samples else None
    held_out = tuple(held_out_sets(config, model, tokenizer, notes))
    prompts = None
    if source is not None or held_out:
        prompting = Prompting.of(config, model, tokenizer, notes)
    if source is not None:
        if source.without_gold:
            why = "no gold answer, or excluded by its card"
            notes.append(f"{source.without_gold:,} rows of {config.dataset.title} are left out: {why}")
        limit = None if config.dataset.mix else config.dataset.limit  # a mixture limits each of its data sets
        prompts = prompting.stream(source, seed=config.seed, limit=limit, curriculum=_curriculum(config))
        if prompts.curriculum is not None and prompts.size is None:
            raise ConfigError(
                f"dataset.curriculum: {config.dataset.title} has no end, so its questions never come again: set "
                "dataset.limit, or leave the curriculum out"
            )
        tell_shared_with(source, limit, held_out, notes)
    sources = [each for each in (source, *(each.source for each in held_out)) if each is not None]
    by_sampler = bool(sources) and engine.gives_rewards and not config.rollouts.files
    default = SAMPLER if by_sampler else next((each.default_verifier for each in sources), None) or "math"
    verifier = config.verifier.name or default
    if sources and verifier == SAMPLER and not engine.gives_rewards:
        raise ConfigError(
            f"verifier.name: {SAMPLER} takes the rewards that a sampler gives, and {config.sampling.engine!r} gives "
            "none with these options; name a verifier"
        )
    return _Asked(prompts, held_out, source, verifier)


def _text(encoded: Encoded, tokenizer: Tokenizer) -> str:
    return str(tokenizer.decode(list(encoded.token_ids), clean_up_tokenization_spaces=False))


def _never_ends(model: ModelSpec, tokenizer: Tokenizer, first: Encoded | None) -> list[str]:
    """Return a warning if nothing ends a completion of this model before the length limit."""
    if first is None or first.stop != Stop() or end_ids(model, tokenizer):
        return []
    return [
        f"warning: the model {model.path!r} has no end-of-sequence token, so every completion runs to "
        "sampling.max_tokens. Set eos_token_id in its generation_config.json, eos_token in its tokenizer, or "
        "sampling.stop"
    ]


def _saved(
    config: RunConfig, expected: Expected, grader: Grader, options: TrainerOptions, told: Callable[[str], None]
) -> SavedRollouts:
    """Read and check the saved rollouts. Raises RequestError if the trainer's options cannot handle them."""
    saved = SavedRollouts(
        config.rollouts.files,
        expected,
        grader,
        sidecars=config.rollouts.scores,
        skip_unusable=config.rollouts.skip_unusable,
        lacks=options.lacks,
        told=told,
    )
    _refuse_ageless(saved, options.needs_lag)
    _refuse_segments(saved, options.needs_whole_rollouts)
    return saved


def _notes_on(config: RunConfig, saved: SavedRollouts, questions: Sequence[Encoded]) -> list[str]:
    """Return the notes on saved rollouts. Raises DataError if the alarm about broken verdicts stops the run."""
    notes = [*saved.notes, *_broken_verdicts(config, saved)]
    tell_shared(sum(saved.asked(question.prompt.asked) for question in questions), len(questions), notes)
    return notes


def _trusted(config: RunConfig) -> list[str]:
    """Return a note if code of the model's repository is trusted."""
    if not config.model.trust_remote_code:
        return []
    return [
        f"model.trust_remote_code: Python code of {config.model.location} runs in this process, with your permissions"
    ]


def _scorer(config: RunConfig, verifier: str, *, needed: bool) -> Scorer | None:
    """Return the verifier's processes; None if the rewards are in saved records or come from the sampler."""
    if not needed or verifier == SAMPLER:
        return None
    if config.rollouts.files and not can_judge(verifier):
        known = registry().names("verifier")
        raise ConfigError(
            f"there is no verifier {verifier!r} to score answers with{nearest(verifier, known)}"
            f"{registry().hint('verifier')}. If the saved records have scores of that name, sample nothing and skip "
            "the evaluation: --set eval.questions=0"
        )
    return configured_scorer(verifier, config.verifier)


def _behaviour(config: RunConfig, model: ModelSpec) -> ModelSpec | None:
    """Return the model that sampled the saved records; its name is resolved like that of the trained model."""
    name = config.rollouts.behaviour_model
    if name is None:
        return None
    named = model_config(name)
    return replace(model, path=named.location, revision=config.rollouts.behaviour_revision or named.revision)


def _expected(
    config: RunConfig, model: ModelSpec, tokenizer: Tokenizer, behaviour: ModelSpec | None, grader: Grader
) -> Expected:
    """Return the requirements on saved records. Raises ConfigError if the behavior model has another tokenizer."""
    own = tokenizer_hash(tokenizer)
    reference: ModelRef | None = None
    lineage = Lineage()
    if behaviour is not None:
        theirs = tokenizer_hash(load_tokenizer(behaviour))
        if theirs != own:
            raise ConfigError(
                f"rollouts.behaviour_model {behaviour.path!r} has another tokenizer ({theirs}) than the model that "
                f"learns ({own}): so its token ids have another meaning"
            )
        reference = model_ref(behaviour, behaviour.path, theirs)
        lineage = lineage_of(behaviour.path, reference.weights_hash)
    configuration = load_configuration(model)
    return Expected(
        tokenizer_hash=own,
        temperature=config.sampling.temperature,
        vocabulary=vocabulary_size(configuration),
        positions=context_length(configuration),
        verifier=grader.verifier,
        behaviour=reference,
        lineage=lineage,
        learner=lineage_of(model.path, local_weights_hash(model.path)),
    )


def _check_max_lag(config: RunConfig, options: TrainerOptions) -> None:
    """Raise ConfigError if groups that finish in time would be dropped."""
    most = config.sampling.max_lag
    if most is None:
        return
    in_time = (options.batches_per_sync + config.batches_ahead) * options.steps_per_batch
    if most < in_time:
        raise ConfigError(
            f"sampling.max_lag {most}: groups that finish in time have a lag of up to {in_time} optimizer steps "
            f"({options.batches_per_sync} batches between two weight syncs, {config.batches_ahead} asked for ahead). "
            f"Set it to at least {in_time}, or sync more often"
        )


def _refuse_ageless(saved: SavedRollouts, needs_lag: Sequence[str]) -> None:
    """Raise RequestError if settings need the lag of rollouts and some saved rollouts have an unknown lag."""
    if needs_lag and saved.ageless:
        raise RequestError(
            f"{needs_lag[0]} needs the lag of rollouts, and that of {saved.ageless:,} of {saved.members:,} saved "
            "rollouts is unknown: policy versions compare only within a run, so they give a lag only for checkpoints "
            "of the run that sampled (--model RUN/checkpoints/step-N). Leave the setting out, or these rollouts"
        )


def _refuse_segments(saved: SavedRollouts, needs_whole_rollouts: Sequence[str]) -> None:
    """Raise RequestError if settings look at whole rollouts and some are saved in several segments."""
    if needs_whole_rollouts and saved.segments:
        raise RequestError(
            f"{needs_whole_rollouts[0]} needs whole rollouts, but {saved.segments:,} saved records are further "
            "segments of one: each would be taken for a rollout of its own. Leave the setting out"
        )


def _check_fit(asked: _Asked, scorer: Scorer | None, options: TrainerOptions) -> None:
    """Raise ConfigError if the prompts lack a column of the verifier, or the verifier the parts that settings need."""
    if scorer is None:
        return
    if options.needs_parts and not weights_of(scorer.config):
        raise ConfigError(
            f"{options.needs_parts[0]} needs a reward that is a weighted sum without clip (--verifier math:1.0 "
            f"--verifier form.py:form:0.2), and {asked.verifier!r} is none: leave the setting out"
        )
    for encoded in [*([] if asked.prompts is None else asked.prompts.peek(1)), *asked.questions[:1]]:
        task = encoded.prompt.task
        if missing := [name for name in scorer.claims.columns if name not in task.extra]:
            raise ConfigError(
                f"verifier {scorer.name!r} needs the column {missing[0]!r}, and row {task.row_id} of {task.dataset} "
                f"has none; its columns are: {', '.join(task.extra) or 'none besides prompt and answer'}"
            )


def _broken_verdicts(config: RunConfig, saved: SavedRollouts) -> list[str]:
    """Return notes of the alarm about broken verdicts on the saved scores; metrics of steps do not include these.

    Raises DataError if the alarm stops the run.
    """
    notes = []
    for alarm in fired(saved.verdicts, config.alarms):
        notes.append(
            f"{alarm.text}: too many of the saved scores by {saved.grader.verifier} are `error`, `invalid` or "
            "`timeout`, so the verifier or the data is broken"
        )
        if alarm.consequence == "stop":
            raise DataError(
                f"{notes[-1]}. Score the rollouts anew with a fixed verifier (rlvr score), or train on the rest: "
                "--set alarms.verdicts.consequence=warn"
            )
    return notes


def _count_steps(config: RunConfig, saved: SavedRollouts | None) -> RunConfig:
    """Convert `rollouts.epochs` to `steps`."""
    epochs = config.rollouts.epochs
    if epochs is None or saved is None:
        return config
    steps = epochs * math.ceil(len(saved.groups) / config.sampling.prompts_per_step)
    return config.model_copy(update={"steps": steps, "rollouts": config.rollouts.model_copy(update={"epochs": None})})


def _curriculum(config: RunConfig) -> Curriculum | None:
    asked = config.dataset.curriculum
    if asked is None:
        return None
    return Curriculum(low=asked.low, high=asked.high, rare=asked.rare, seed=config.seed)


def _train_source(config: RunConfig, chat: bool) -> PromptSource:
    dataset = config.dataset
    request = SourceRequest(
        split="train",
        seed=config.seed,
        chat=chat,
        options=secret_values(dataset.options, "dataset.options."),
        data_files=dataset.data_files,
    )
    sources = [MixedDataset(name, weight, load_source(name, request)) for name, weight in dataset.members]
    if not dataset.mix:
        return sources[0].source
    mixed = MixedSource(sources, seed=config.seed, limit=dataset.limit)
    if mixed.verifiers_differ and config.verifier.name is None:
        named = ", ".join(f"{each.name}: {each.source.default_verifier or 'math'}" for each in sources)
        raise ConfigError(f"the data sets of the mixture have different verifiers ({named}): name one with --verifier")
    return mixed


def _count_epochs(config: RunConfig, prompts: PromptStream | None) -> RunConfig:
    """Convert `dataset.epochs` to `steps`; questions that are too long do not count. Raises ConfigError for an endless
    data set."""
    epochs = config.dataset.epochs
    if epochs is None or prompts is None:
        return config
    if prompts.size is None:
        raise ConfigError(f"dataset.epochs: {config.dataset.title} has no end; give steps")
    at = (prompts.position, prompts.dropped, prompts.escaped)
    questions = sum(map(len, prompts.batches(1000)))
    prompts.seek(*at)
    steps = math.ceil(epochs * questions / sampled_groups(config))
    dataset = config.dataset.model_copy(update={"epochs": None})
    return config.model_copy(update={"steps": steps, "dataset": dataset})
