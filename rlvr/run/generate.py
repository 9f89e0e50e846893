"""Sample completions without training: what `rlvr generate` does, as one function."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from rlvr.data.prompts import Encoded, PromptStream, load_source
from rlvr.errors import ConfigError
from rlvr.protocols import SampledGroup, SourceRequest
from rlvr.record.schema import Rollout
from rlvr.record.store import read_rollouts, write_rollouts
from rlvr.rescore.summary import Tally, VerifierSummary
from rlvr.run.auto_engine import with_engine
from rlvr.run.config import RunConfig, resolve
from rlvr.run.factories import configured_sampler
from rlvr.run.groups import Grader
from rlvr.run.mailbox import Mailbox
from rlvr.run.models import load_tokenizer, local_weights_hash, model_ref, tokenizer_hash
from rlvr.run.parts import Parts
from rlvr.run.prompting import Prompting
from rlvr.run.sampled import SampleRecorder, configured_scorer, request, sampler_score
from rlvr.run.train import no_progress_bars
from rlvr.settings import mapping_settings
from rlvr.verify.scoring import Scorer

Split: TypeAlias = Literal["train", "eval"]


@dataclass(frozen=True)
class GenerateProgress:
    """Progress of sampling."""

    questions: int
    """Questions answered so far."""
    total: int
    """Questions in all."""
    rollouts: int
    tokens: int
    """Tokens that this call sampled."""
    replayed: int
    """Questions whose rollouts are from an earlier, interrupted attempt."""


class GenerateReporter:
    """Receives the events of generating; a subclass overrides the methods that it needs."""

    def note(self, text: str) -> None:
        """Called with a note for the user."""

    def advance(self, progress: GenerateProgress) -> None:
        """Called after each batch of questions."""


@dataclass(frozen=True)
class GenerateResult:
    """The file that was written, and counts of what is in it."""

    file: Path
    questions: int
    """Questions that were asked."""
    rollouts: int
    tokens: int
    """Tokens that this call sampled."""
    truncated: int
    """Rollouts that reached the length limit."""
    replayed: int
    """Questions whose rollouts are from an earlier, interrupted attempt."""
    dropped: int
    """Questions that were left out because their prompts are too long."""
    verifier: VerifierSummary | None
    """Verdicts; None if nothing was verified."""
    seconds: float
    """Wall-clock time of sampling and verifying in this call."""
    notes: tuple[str, ...]

    @property
    def tokens_per_second(self) -> float:
        """Tokens sampled per second in this call; 0 if there was nothing to sample."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON-safe values."""
        return {
            "file": str(self.file),
            "questions": self.questions,
            "rollouts": self.rollouts,
            "tokens": self.tokens,
            "truncated": self.truncated,
            "replayed": self.replayed,
            "dropped": self.dropped,
            "verifier": None if self.verifier is None else self.verifier.to_dict(),
            "seconds": self.seconds,
            "notes": list(self.notes),
        }


def generate(
    model: str | Path = "embedded",
    dataset: str | Path | None = None,
    *,
    out: str | Path,
    n: int | None = None,
    limit: int | None = None,
    split: Split = "train",
    verifier: str | None = None,
    config: Mapping[str, Any] | Path | str | None = None,
    force: bool = False,
    reporter: GenerateReporter | None = None,
) -> GenerateResult:
    """Sample completions of a data set's questions and write them as records, without training.

    The records hold token ids and log-probabilities, so `rlvr train --rollouts OUT` trains on them. The same call
    continues where an interrupted one stopped.

    Args:
        model: A local directory, a hub name, or `embedded`.
        dataset: A data set's name, or a file of questions; the model's own by default.
        out: File to write, `.parquet` or `.jsonl`.
        n: Completions per question; `sampling.group_size` by default.
        limit: Ask only the first `limit` questions; required for an endless data set.
        split: `train`, or `eval` for the held-out questions.
        verifier: Score the completions at once with this verifier; by default, nothing is verified.
        config: Further settings of a run (`sampling`, `dataset`, `model`, `verifier`, `seed`), as a mapping or a YAML
            file.
        force: Replace `out` if it exists; discard unfinished work of another request.
        reporter: Receives the events of the work. By default nothing is printed.

    Raises RequestError (ConfigError, DataError, PluginError) if the request or a row is wrong, and RunError if the work
    cannot go on.
    """
    given: dict[str, Any] = {"model.name": str(model)}
    given |= {} if dataset is None else {"dataset.name": str(dataset)}
    given |= {} if verifier is None else {"verifier.name": verifier}
    file, more = (Path(config), {}) if isinstance(config, str | Path) else (None, config or {})
    settings = {**mapping_settings(more, "config"), **mapping_settings(given, "generate")}
    return generate_with(resolve(settings, file), out, n=n, limit=limit, split=split, force=force, reporter=reporter)


def generate_with(
    config: RunConfig,
    out: str | Path,
    *,
    n: int | None = None,
    limit: int | None = None,
    split: Split = "train",
    force: bool = False,
    reporter: GenerateReporter | None = None,
) -> GenerateResult:
    """Sample as a resolved configuration says; `verifier.name` verifies the completions. See `generate`."""
    return _Generation(config, Path(out), n, limit, split).run(reporter or GenerateReporter(), force)


class _Generation:
    """One request, checked before weights are loaded."""

    def __init__(self, config: RunConfig, out: Path, n: int | None, limit: int | None, split: Split) -> None:
        self.parts = Parts(out)
        if n is not None and n < 1:
            raise ConfigError(f"-n {n}: at least one completion per question is needed")
        if limit is not None and limit < 1:
            raise ConfigError(f"--limit {limit}: at least one question is needed")
        config, notes = with_engine(config)
        self.config, self.out, self.split = config, out, split
        self.size = config.sampling.group_size if n is None else n
        self.notes = notes
        self.factory, self.options = configured_sampler(config)
        self.model = config.model.spec
        tokenizer = load_tokenizer(self.model)
        self.tokenizer = tokenizer_hash(tokenizer)
        prompting = Prompting.of(config, self.model, tokenizer, self.notes)
        if config.dataset.mix:
            raise ConfigError("dataset.mix is for training: rlvr generate asks the questions of one data set")
        if config.dataset.name is None:
            raise ConfigError(f"model {config.model.name!r} has no default data set: name one with --dataset")
        source = load_source(
            config.dataset.name,
            SourceRequest(split, config.seed, prompting.chat, config.dataset.options, config.dataset.data_files),
        )
        limit = config.dataset.limit if limit is None else limit
        if source.size is None and limit is None:
            raise ConfigError(f"dataset {config.dataset.name} has no end: say how many questions to ask with --limit")
        self.stream: PromptStream = prompting.stream(source, seed=config.seed, limit=limit, shuffle=False)

    def run(self, reporter: GenerateReporter, force: bool) -> GenerateResult:
        """Sample missing batches, and write OUT."""
        for note in self.notes:
            reporter.note(note)
        with ExitStack() as stack:
            scorer = stack.enter_context(self._scorer()) if self.config.verifier.name is not None else None
            self.run_id = self.parts.begin(self._request(scorer), force)
            parts = self._sampled(reporter, scorer)
            counted = _Counts(None if scorer is None else scorer.name)
            write_rollouts(self.out, counted.through(read_rollouts(parts) if parts else iter(())))
        self.parts.discard()
        return GenerateResult(
            file=self.out,
            questions=counted.questions,
            rollouts=counted.rollouts,
            tokens=self._tokens,
            truncated=counted.truncated,
            replayed=self._replayed,
            dropped=self.stream.dropped,
            verifier=counted.summary(),
            seconds=self._seconds,
            notes=tuple(self.notes),
        )

    def _scorer(self) -> Scorer:
        verifier = self.config.verifier
        assert verifier.name is not None
        return configured_scorer(verifier.name, verifier)

    def _request(self, scorer: Scorer | None) -> dict[str, Any]:
        """Return all that decides which records there are."""
        return {
            "settings": self.config.model_dump(mode="json", include={"model", "dataset", "sampling", "seed"}),
            "size": self.size,
            "questions": self.stream.size,
            "split": self.split,
            "weights": local_weights_hash(self.model.path),
            "tokenizer": self.tokenizer,
            "verifier": None if scorer is None else [scorer.name, scorer.version, scorer.config_hash],
            "max_reward": self.config.verifier.max_reward,
        }

    def _sampled(self, reporter: GenerateReporter, scorer: Scorer | None) -> list[Path]:
        """Return the files of all batches, after sampling those that are not there. Loads the model if any is not."""
        parts: list[Path] = []
        self._tokens = self._replayed = done = 0
        self._seconds = 0.0
        with ExitStack() as stack:
            ask: _LoadedSampler | None = None
            for number, batch in enumerate(self.stream.batches(self.config.sampling.prompts_per_step)):
                part = self.parts.file(number)
                parts.append(part)
                done += len(batch)
                if part.is_file():
                    self._replayed += len(batch)
                    continue
                if ask is None:
                    with no_progress_bars():
                        ask = _LoadedSampler(self, scorer, stack)
                began = time.monotonic()
                rollouts = ask.rollouts(batch)
                write_rollouts(part, rollouts)
                self._seconds += time.monotonic() - began
                self._tokens += sum(rollout.sampled_tokens for rollout in rollouts)
                total = self.stream.size or done
                reporter.advance(GenerateProgress(done, total, done * self.size, self._tokens, self._replayed))
        return parts


class _LoadedSampler:
    """A loaded sampler, and the verifier."""

    def __init__(self, of: _Generation, scorer: Scorer | None, stack: ExitStack) -> None:
        self.of, self.scorer = of, scorer
        sampler = stack.enter_context(closing(of.factory(of.model, of.options)))
        self.mailbox = Mailbox(sampler)
        config = of.config
        verifying = config.verifier
        grader = Grader("" if scorer is None else scorer.name, verifying.rewards, verifying.max_reward)
        reference = model_ref(of.model, config.model.name, of.tokenizer)
        self.recorder = SampleRecorder(of.run_id, reference, scorer, grader)

    def rollouts(self, batch: Sequence[Encoded]) -> list[Rollout]:
        """Return the records of a batch of questions, in their order, with scores if there is a verifier."""
        config, size = self.of.config, self.of.size
        requests = [
            request(
                f"{self.of.run_id}-{prompt.position}",
                prompt,
                size,
                config.sampling.params,
                *(config.seed, "generate", prompt.position),
                keep_topk=config.sampling.kept,
            )
            for prompt in batch
        ]
        groups = self.mailbox.ask(requests)
        if self.scorer is not None:
            scored = self.recorder.scored(groups, config.alarms, "verdicts")
        else:
            scored = {group.request.group_id: self._unverified(group) for group in groups}
        return [rollout for each in requests for rollout in scored.get(each.group_id, ())]

    def _unverified(self, group: SampledGroup) -> list[Rollout]:
        """Return the records of a group; a reward that the sampler gives by itself is their only score."""
        limit = self.of.config.verifier.max_reward
        pairs = zip(self.recorder.records(group), group.samples, strict=True)
        return [
            rollout if (own := sampler_score(sample, rollout, limit)) is None else rollout.with_score(own)
            for rollout, sample in pairs
        ]


class _Counts:
    """Counts records as they pass."""

    def __init__(self, verifier: str | None) -> None:
        self.rollouts = self.truncated = self.questions = 0
        self._tally = None if verifier is None else Tally(verifier)
        self._last: str | None = None

    def through(self, rollouts: Iterator[Rollout]) -> Iterator[Rollout]:
        """Yield the rollouts and count them."""
        for rollout in rollouts:
            self.rollouts += 1
            self.truncated += rollout.finish_reason == "length"
            self.questions += rollout.group_id != self._last
            self._last = rollout.group_id
            if self._tally is not None and (score := rollout.last_score(self._tally.verifier)) is not None:
                self._tally.add([score])
            yield rollout

    def summary(self) -> VerifierSummary | None:
        """Return the counts of verdicts; None if nothing was verified."""
        return None if self._tally is None else self._tally.summary()
