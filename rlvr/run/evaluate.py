"""Evaluate a model on data sets: what `rlvr eval` does, as one function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from rlvr.data.prompts import Encoded, load_source
from rlvr.errors import ConfigError, RequestError
from rlvr.evaluation.contamination import texts_of, training_questions
from rlvr.evaluation.evaluation import Evaluation, evaluation_of
from rlvr.protocols import EvaluationDefaults, PromptSource, SourceRequest
from rlvr.record.schema import Rollout, SamplingParams
from rlvr.record.store import read_rollouts, write_rollouts
from rlvr.run.auto_engine import with_engine
from rlvr.run.config import RunConfig
from rlvr.run.evaluated_model import evaluated_model
from rlvr.run.factories import configured_sampler
from rlvr.run.generate import GenerateProgress, GenerateReporter, Split
from rlvr.run.groups import Grader
from rlvr.run.held_out import EVAL_SEED
from rlvr.run.mailbox import Mailbox
from rlvr.run.models import load_tokenizer, local_weights_hash, model_ref, tokenizer_hash
from rlvr.run.parts import Parts
from rlvr.run.prompting import Prompting
from rlvr.run.sampled import SampleRecorder, configured_scorer, request
from rlvr.run.stopping import uses_chat_template
from rlvr.run.train import no_progress_bars
from rlvr.secret_options import secret_values
from rlvr.settings import Settings, mapping_settings, read_settings
from rlvr.validation_messages import validation_message
from rlvr.verify.scoring import DEFAULT_REWARDS, Scorer

if TYPE_CHECKING:
    from rlvr.run.models import Tokenizer

COMPLETIONS = 16
"""Completions per question if neither the request nor the card says how many."""


@dataclass(frozen=True)
class EvaluationRequest:
    """Arguments of `evaluate`."""

    model: str | Path
    out: Path
    datasets: tuple[str, ...] = ()
    """Names or files; empty is the model's own, or that of the run."""
    n: int | None = None
    limit: int | None = None
    split: Split = "eval"
    greedy: bool = False
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    checkpoint: int | str = "newest"
    train_sets: tuple[str, ...] = ()
    settings: Settings = field(default_factory=dict)
    """Further settings of a run: `model`, `dataset`, `sampling`, `verifier`."""
    force: bool = False


def evaluate(
    model: str | Path = "embedded",
    datasets: str | Path | Sequence[str | Path] = (),
    *,
    out: str | Path,
    n: int | None = None,
    limit: int | None = None,
    split: Split = "eval",
    greedy: bool = False,
    temperature: float | None = None,
    top_p: float | None = None,
    max_tokens: int | None = None,
    seed: int | None = None,
    verifier: str | None = None,
    checkpoint: int | str = "newest",
    train_sets: str | Path | Sequence[str | Path] = (),
    config: Mapping[str, Any] | Path | str | None = None,
    force: bool = False,
    reporter: GenerateReporter | None = None,
) -> Evaluation:
    """Ask a model the questions of data sets, have the answers verified, and return the figures.

    All completions with their verdicts are in `out`; `evaluation_of(out)` computes the figures again. The same call
    continues where an interrupted one stopped.

    Args:
        model: A local directory, a hub name, `embedded`, a run directory, or a checkpoint in one.
        datasets: Names of data sets, or files of questions; by default the model's own, or that of the run.
        out: File to write, `.parquet` or `.jsonl`.
        n: Completions per question; by default the card's number, or 16. 0 asks greedily only.
        limit: Ask so many questions of each data set: the same ones for every model, and those of a run's evaluations.
        split: `eval` for the held-out questions, or `train`.
        greedy: Also ask each question once at temperature 0.
        temperature: Sampling temperature; by default the card's, or `sampling.temperature`. 0 is greedy.
        top_p: Nucleus of the sampling distribution; by default the card's, or `sampling.top_p`.
        max_tokens: Length limit in tokens; by default the card's, or `sampling.max_tokens`.
        seed: Seed of the sampling; by default the card's, or 0.
        verifier: Verifier of all data sets; by default each has that of its card.
        checkpoint: For a run directory: a number of batches, `newest`, or `best`.
        train_sets: Data sets, or files of questions, that the model was trained on: questions that are in them too are
            reported, with the accuracy without them.
        config: Further settings of a run (`model`, `dataset`, `sampling`, `verifier`), as a mapping or a YAML file.
        force: Replace `out` if it exists; discard unfinished work of another request.
        reporter: Receives the events of the work. By default nothing is printed.

    Raises RequestError (ConfigError, DataError, PluginError) if the request or a row is wrong, and RunError if the work
    cannot go on.
    """
    given = mapping_settings({} if verifier is None else {"verifier.name": verifier}, "evaluate")
    how = (n, limit, split, greedy, temperature, top_p, max_tokens, seed)
    settings = {**_written(config), **given}
    asked = EvaluationRequest(
        model, Path(out), _names(datasets), *how, checkpoint, _names(train_sets), settings, force=force
    )
    return evaluate_with(asked, reporter)


def _names(sets: str | Path | Sequence[str | Path]) -> tuple[str, ...]:
    return (str(sets),) if isinstance(sets, str | Path) else tuple(map(str, sets))


def _written(config: Mapping[str, Any] | Path | str | None) -> Settings:
    """Return the settings of a mapping or a YAML file."""
    return read_settings(Path(config)) if isinstance(config, str | Path) else mapping_settings(config or {}, "config")


def evaluate_with(asked: EvaluationRequest, reporter: GenerateReporter | None = None) -> Evaluation:
    """Evaluate as a request says. See `evaluate`."""
    return _Evaluating(asked).run(reporter or GenerateReporter())


@dataclass(frozen=True)
class _QuestionSet:
    """Questions of one data set, and how they are asked."""

    name: str
    """The name that records have."""
    config: RunConfig
    source: PromptSource
    questions: tuple[Encoded, ...]
    params: SamplingParams
    n: int
    greedy: bool
    verifier: str
    dropped: int
    """Questions that are not asked, because their prompts are too long."""

    def passes(self, scorer: Scorer) -> list[tuple[str, SamplingParams, int]]:
        """Return mark in the group's id, parameters and number of completions of each way to ask a question.

        A verifier of groups gets as many greedy answers as it needs, all equal. Raises ConfigError for fewer sampled
        completions than that.
        """
        if 0 < self.n < scorer.min_group:
            raise ConfigError(
                f"-n {self.n}: verifier {scorer.name!r} judges groups of at least {scorer.min_group} completions"
            )
        sampled = [("", self.params, self.n)] if self.n else []
        return sampled + ([("greedy-", _greedy(self.params), scorer.min_group)] if self.greedy else [])


def _greedy(params: SamplingParams) -> SamplingParams:
    """Return the parameters at temperature 0, where the filters change nothing."""
    return SamplingParams(temperature=0.0, max_tokens=params.max_tokens, seed=params.seed)


class _Evaluating:
    """One request, checked before weights are loaded."""

    def __init__(self, asked: EvaluationRequest) -> None:
        _check_counts(asked)
        self.asked, self.parts = asked, Parts(asked.out)
        model = evaluated_model(asked.model, asked.checkpoint)
        self.notes = list(model.notes)
        names: Sequence[str | None] = asked.datasets or (None,)
        configs = [model.configured(asked.settings, name) for name in names]
        first, notes = with_engine(configs[0])
        self.notes += notes
        self.config = first
        self.factory, self.options = configured_sampler(first)
        tokenizer = load_tokenizer(first.model.spec)
        self.tokenizer = tokenizer_hash(tokenizer)
        self.sets = [_question_set(asked, config, tokenizer, self.notes) for config in configs]
        twice = [each.name for i, each in enumerate(self.sets) if each.name in {own.name for own in self.sets[:i]}]
        if twice:
            raise RequestError(f"two data sets are called {twice[0]}: evaluate them into two files")
        for name in asked.train_sets:
            training_questions(name)  # an error now, not after sampling

    def run(self, reporter: GenerateReporter) -> Evaluation:
        """Sample what is missing, write OUT and return its figures."""
        for note in dict.fromkeys(self.notes):
            reporter.note(note)
        with ExitStack() as stack:
            scorers = [stack.enter_context(configured_scorer(e.verifier, e.config.verifier)) for e in self.sets]
            self.passes = [own.passes(scorer) for own, scorer in zip(self.sets, scorers, strict=True)]
            self.run_id = self.parts.begin(self._request(scorers), self.asked.force)
            files = list(self._sampled(reporter, scorers))
            write_rollouts(self.asked.out, read_rollouts(files))
        self.parts.discard()
        trained = self.asked.train_sets
        asked = [(each.name, each.source, [question.index for question in each.questions]) for each in self.sets]
        texts = {name: texts_of(source, indices) for name, source, indices in asked} if trained else {}
        return evaluation_of(self.asked.out, train_sets=trained, questions=texts)

    def _request(self, scorers: Sequence[Scorer]) -> dict[str, Any]:
        """Return all that decides which records there are."""
        return {
            "model": self.config.model.model_dump(mode="json"),
            "weights": local_weights_hash(self.config.model.spec.path),
            "tokenizer": self.tokenizer,
            "engine": [self.config.sampling.engine, self.config.sampling.prompts_per_step],
            "split": self.asked.split,
            "datasets": [
                {
                    "dataset": each.config.dataset.model_dump(mode="json"),
                    "templates": each.source.evaluation.templates,
                    "questions": len(each.questions),
                    "passes": [
                        (mark, params.model_dump(mode="json"), size) for mark, params, size in each.passes(scorer)
                    ],
                    "verifier": [scorer.name, scorer.version, scorer.config_hash],
                    "stop": each.questions[0].stop.model_dump(mode="json"),
                }
                for each, scorer, passes in zip(self.sets, scorers, self.passes, strict=True)
            ],
        }

    def _batches(self) -> Iterator[tuple[int, Sequence[Encoded]]]:
        """Yield the number of a data set, and questions of it."""
        for number, each in enumerate(self.sets):
            size = each.config.sampling.prompts_per_step
            for start in range(0, len(each.questions), size):
                yield number, each.questions[start : start + size]

    def _sampled(self, reporter: GenerateReporter, scorers: Sequence[Scorer]) -> Iterator[Path]:
        """Yield the files of all batches, after sampling those that are not there. Loads the model if any is not."""
        total = sum(len(each.questions) for each in self.sets)
        done = rollouts = tokens = replayed = 0
        with ExitStack() as stack:
            ask: _Asking | None = None
            for place, (number, batch) in enumerate(self._batches()):
                part = self.parts.file(place)
                done += len(batch)
                rollouts += len(batch) * sum(size for _, _, size in self.passes[number])
                if part.is_file():
                    replayed += len(batch)
                    yield part
                    continue
                if ask is None:
                    with no_progress_bars():
                        ask = _Asking(self, scorers, stack)
                answers = ask.answers(number, batch)
                write_rollouts(part, answers)
                tokens += sum(rollout.sampled_tokens for rollout in answers)
                reporter.advance(GenerateProgress(done, total, rollouts, tokens, replayed))
                yield part


class _Asking:
    """A loaded sampler, and the verifiers of the data sets."""

    def __init__(self, of: _Evaluating, scorers: Sequence[Scorer], stack: ExitStack) -> None:
        self.of = of
        spec = of.config.model.spec
        self.mailbox = Mailbox(stack.enter_context(closing(of.factory(spec, of.options))))
        reference = model_ref(spec, of.config.model.name, of.tokenizer)
        self.recorders = [
            SampleRecorder(of.run_id, reference, scorer, Grader(scorer.name, DEFAULT_REWARDS)) for scorer in scorers
        ]

    def answers(self, number: int, batch: Sequence[Encoded]) -> list[Rollout]:
        """Return the scored records of a batch of questions, in their order."""
        own, run_id = self.of.sets[number], self.of.run_id
        requests = [
            request(
                f"{run_id}-{number}-{mark}{question.position}",
                question,
                size,
                params,
                *("evaluate", own.name, question.position),
            )
            for question in batch
            for mark, params, size in self.of.passes[number]
        ]
        where = f"verdicts on {own.name}"
        scored = self.recorders[number].scored(self.mailbox.ask(requests), own.config.alarms, where)
        return [rollout for each in requests for rollout in scored.get(each.group_id, ())]


def _check_counts(asked: EvaluationRequest) -> None:
    """Raise ConfigError for numbers that make no sense."""
    if asked.n is not None and asked.n < 0:
        raise ConfigError(f"-n {asked.n}: expected a number of completions per question")
    if asked.n == 0 and not asked.greedy:
        raise ConfigError("-n 0: nothing is asked; --greedy asks each question once at temperature 0")
    if asked.limit is not None and asked.limit < 1:
        raise ConfigError(f"--limit {asked.limit}: at least one question is needed")
    if asked.datasets and "dataset.data_files" in asked.settings and len(asked.datasets) > 1:
        raise ConfigError("data files are those of one data set: evaluate the others into a file of their own")
    if "verifier.rewards" in {".".join(key.split(".")[:2]) for key in asked.settings}:
        raise ConfigError(
            "verifier.rewards is for training: an evaluation counts unparsed answers as wrong, and leaves out answers "
            "without a verdict"
        )


def _question_set(asked: EvaluationRequest, config: RunConfig, tokenizer: Tokenizer, notes: list[str]) -> _QuestionSet:
    """Load the questions of a data set. Adds to `notes`."""
    source = _source(asked, config, uses_chat_template(tokenizer, config.model.chat))
    name = config.dataset.name
    assert name is not None
    params = _params(asked, config, source.evaluation, frozenset(asked.settings))
    n = _completions(asked, source.evaluation, params, name)
    sampling = config.sampling.model_copy(update={"max_tokens": params.max_tokens})
    config = config.model_copy(update={"sampling": sampling})
    prompting = Prompting.of(config, config.model.spec, tokenizer, notes)
    stream = prompting.stream(source, seed=EVAL_SEED)
    most = asked.limit if asked.limit is not None else config.dataset.limit or source.size
    if most is None:
        raise ConfigError(f"dataset {name} has no end: say how many questions to ask with --limit")
    questions = tuple(stream.first(most))
    if stream.dropped:
        notes.append(
            f"{stream.dropped:,} questions of {name} are not asked: they have more than {prompting.longest} tokens "
            "(dataset.max_prompt_tokens)"
        )
    # At temperature 0, samples are greedy answers: they are asked for once.
    greedy = asked.greedy or params.temperature == 0
    return _QuestionSet(
        name=questions[0].prompt.task.dataset or name,
        config=config,
        source=source,
        questions=questions,
        params=params,
        n=0 if params.temperature == 0 else n,
        greedy=greedy,
        verifier=config.verifier.name or source.default_verifier or "math",
        dropped=stream.dropped,
    )


def _source(asked: EvaluationRequest, config: RunConfig, chat: bool) -> PromptSource:
    """Return the source of the questions, with the templates that its card has for evaluations."""
    dataset = config.dataset
    assert dataset.name is not None
    options = secret_values(dataset.options, "dataset.options.")

    def load(more: Mapping[str, Any]) -> PromptSource:
        wanted = SourceRequest(asked.split, EVAL_SEED, chat, {**more, **options}, dataset.data_files)
        return load_source(str(dataset.name), wanted)

    source = load({})
    return load(source.evaluation.templates) if source.evaluation.templates else source


def _params(
    asked: EvaluationRequest, config: RunConfig, card: EvaluationDefaults, written: frozenset[str]
) -> SamplingParams:
    """Return the sampling parameters: the request's, else those written in settings, else the card's, else a run's.

    Raises ConfigError for values that no sampler can have.
    """

    def chosen(given: Any, key: str, of_card: Any, default: Any) -> Any:
        candidates = [given, default if key in written else None, of_card]
        return next((value for value in candidates if value is not None), default)

    sampling = config.sampling
    try:
        return SamplingParams(
            temperature=chosen(asked.temperature, "sampling.temperature", card.temperature, sampling.temperature),
            top_p=chosen(asked.top_p, "sampling.top_p", card.top_p, sampling.top_p),
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            max_tokens=chosen(asked.max_tokens, "sampling.max_tokens", card.max_tokens, sampling.max_tokens),
            seed=chosen(asked.seed, "seed", card.seed, config.seed),
        )
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, each['loc']))} {validation_message(each)}" for each in error.errors())
        raise ConfigError(f"sampling of {config.dataset.title}: {'; '.join(faults)}") from error


def _completions(asked: EvaluationRequest, card: EvaluationDefaults, params: SamplingParams, name: str) -> int:
    """Return the number of completions per question. Raises ConfigError for several at temperature 0."""
    if params.temperature == 0:
        if (asked.n or 0) > 1:
            raise ConfigError(
                f"-n {asked.n}: at temperature 0 all completions of a question of {name} are equal; give --temperature"
            )
        return 1
    if asked.n is not None:
        return asked.n
    return COMPLETIONS if card.n is None else card.n
