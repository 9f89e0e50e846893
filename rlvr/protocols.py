"""What each kind of plugin must do. Nothing here computes; nothing here imports torch.

    PromptSource --> Sampler --> Rollout --> Verifier --> Rollout + Score --> Trainer
                        ^                                                        |
                        +------------- push(weights, policy version) ------------+

The policy version is the number of optimizer steps completed. The lag of a token is the trainer's version before the
gradient step minus the version that sampled the token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from rlvr.alarms import Alarms
from rlvr.record.schema import (
    FinishReason,
    GroupStats,
    Message,
    Rollout,
    Sampling,
    SamplingParams,
    Task,
    Verdict,
    VersionRun,
)

Weights: TypeAlias = Mapping[str, Any]
"""Parameter name -> tensor, in the model's own names (as `state_dict()` has them)."""

Metrics: TypeAlias = Mapping[str, float]
"""Slash-separated name -> number, e.g. `{"clip/fraction": 0.02}`."""


# --- verifying ------------------------------------------------------------------------------------------------------


@runtime_checkable
class Verifier(Protocol):
    """Judges completions. Made by `rlvr.load_verifier`, usually from a decorated function; runs in worker processes.

    `verify` may raise (the verdict is `error`), hang (`timeout`) or die (`error`): it costs one verdict.
    """

    name: str
    version: str

    @property
    def config(self) -> Mapping[str, Any]:
        """Its options, resolved; with name and version they identify a verdict."""

    def verify(self, completion: str, task: Task) -> Verdict:
        """The verdict on one completion."""


# --- prompts --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prompt:
    """A question before it is put to a model: plain text for a base model, messages for a chat model (exactly one)."""

    task: Task
    text: str | None = None
    messages: tuple[Message, ...] | None = None

    def __post_init__(self) -> None:
        if (self.text is None) == (self.messages is None):
            raise ValueError("a prompt has either text or messages")


@runtime_checkable
class PromptSource(Protocol):
    """Prompts by index. The order they are asked in is not its business: the run draws it from (seed, epoch, i)."""

    @property
    def size(self) -> int | None:
        """How many prompts there are; None when endless (every index >= 0 exists)."""

    def __getitem__(self, index: int, /) -> Prompt:
        """Prompt `index`: the same one each time. Raises DataError when the row is at fault."""


@dataclass(frozen=True)
class SourceRequest:
    """What a prompt source's factory is told: `factory(request) -> PromptSource`.

    The name "train" or "eval" is the split's role; a source maps it to its own splits and must keep the two disjoint.
    """

    split: Literal["train", "eval"]
    seed: int
    chat: bool = field(default=False, metadata={"doc": "the model has a chat template: give messages, not text"})
    options: Mapping[str, Any] = field(default_factory=dict)
    data_files: tuple[Path, ...] = ()


# --- sampling -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelSpec:
    """Which model to load, and how: what samplers and trainers are told alike."""

    path: str
    """Local directory or hub name."""
    revision: str | None = None
    device: str = "auto"
    """As torch has it: "cpu", "cuda", "cuda:1", "mps"; "auto" is the best that the machine has."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the computation; a trainer keeps its master weights in float32 whatever this says. "auto" is bfloat16 on a
    GPU that computes in it, else float32."""


@dataclass(frozen=True)
class GroupRequest:
    """Ask for `size` completions of one prompt. `key` seeds the draws: same key, weights and prompt, same answer."""

    group_id: str
    prompt: Prompt
    prompt_ids: tuple[int, ...]
    """The prompt as the model sees it: special tokens and the chat template's generation prompt included."""
    size: int
    params: SamplingParams
    key: tuple[int | str, ...]


@dataclass(frozen=True)
class Sample:
    """One completion, in tokens. The behaviour log-probabilities are those of the distribution it was drawn from."""

    token_ids: tuple[int, ...]
    """(C,) what was sampled, the stop token among it."""
    logprobs: tuple[float, ...]
    """(C,) natural logarithms, at the sampling temperature and after the filters."""
    text: str
    """Decoded, without special tokens."""
    finish_reason: FinishReason
    stop_reason: str | None
    versions: tuple[VersionRun, ...]
    """Run lengths over the C tokens."""


@dataclass(frozen=True)
class SampledGroup:
    """A request, answered. Fewer samples than were asked for is legal (aborted ones are left out)."""

    request: GroupRequest
    samples: tuple[Sample, ...]
    sampling: Sampling
    seconds: float


@runtime_checkable
class Sampler(Protocol):
    """Draws completions from the behaviour policy, here or far away. Factory: `factory(model: ModelSpec, options)`.

    A group may finish late, in any order, and be asked for again; each answer says which version sampled each token.
    """

    def push(self, weights: Weights, version: int) -> None:
        """From now on sample from these weights, and call them `version`. The sampler copies what it keeps."""

    def submit(self, requests: Sequence[GroupRequest]) -> None:
        """Ask for groups. Returns at once."""

    def collect(self) -> list[SampledGroup]:
        """Groups that have finished, in any order; blocks until there is one, empty when none is outstanding."""

    def save(self, directory: Path) -> None:
        """Write what a resumed run needs to go on sampling as before: the weights held, their version."""

    def load(self, directory: Path) -> None:
        """Read back what `save` wrote."""

    def close(self) -> None:
        """Let go of processes and memory."""


# --- training -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """Rollouts that answer one prompt, and the reward that training uses for each (never None: drops are left out)."""

    rollouts: tuple[Rollout, ...]
    rewards: tuple[float, ...]
    stats: GroupStats
    """Of these rewards over the whole group as the behaviour policy sampled it, also when some were dropped since."""

    def __post_init__(self) -> None:
        if len(self.rollouts) != len(self.rewards):
            raise ValueError(f"{len(self.rollouts)} rollouts with {len(self.rewards)} rewards")


@dataclass(frozen=True)
class TrainContext:
    """What a trainer's factory is told: `factory(options, context) -> Trainer`.

    `factory.Options` is a pydantic model: the keys of the configuration's `trainer` section, with defaults. It may have
    a property `needs_lag`, which names the settings that can do nothing with rollouts of unknown lag, another
    `of_whole_rollouts`, of those that a rollout in several segments would mislead, a method `lacks(rollout)`, which
    says what else a saved rollout lacks for these options (None: nothing), and a method `with_run(max_tokens)`, which
    gives the options with what they leave to the run, and lines that say so.
    """

    model: ModelSpec
    seed: int
    temperature: float
    """Sampling temperature; every log-probability is taken at it."""
    total_updates: int
    """Calls of `update` that are planned, for schedules."""
    alarms: Alarms = field(default_factory=Alarms)
    """A trainer that can see its step's metrics before it takes the step asks `rlvr.alarms.blocking` about them."""


@runtime_checkable
class Trainer(Protocol):
    """Learns from groups. The loop that calls it is the core's."""

    @property
    def version(self) -> int:
        """Optimizer steps completed."""

    @property
    def push_every(self) -> int:
        """v of the paper: the sampler gets new weights every this many batches."""

    def update(self, groups: Sequence[Group]) -> Metrics:
        """Learn from one batch of groups. Raises RunError when a rollout cannot be trained on.

        Of a rollout whose `policy_versions` are None the lag is unknown: another run sampled it, or nobody noted it. A
        version below 0 is of a saved rollout, that many optimizer steps before this run's first.
        """

    def logprobs(self, rollouts: Sequence[Rollout]) -> list[tuple[float | None, ...]]:
        """Per rollout, (T,) log-probabilities under the current weights; None where the loss mask is False."""

    def weights(self) -> Weights:
        """The current weights (a view: copy what you keep)."""

    def save(self, directory: Path) -> None:
        """Write everything the next update depends on; `from_pretrained` must be able to read the model from it."""

    def load(self, directory: Path) -> None:
        """Read back what `save` wrote."""


@runtime_checkable
class OwnsLoop(Protocol):
    """A backend that samples and steps by itself (another framework's trainer) is driven as a whole."""

    def fit(self, run: Any) -> None:
        """Train to the end of `run` (a `run.loop.Run`), or until `run.stopping`, over its prompts and its verifier.

        The backend writes metrics, rollouts and checkpoints into `run.directory` itself.
        """


# --- reporting ------------------------------------------------------------------------------------------------------


@runtime_checkable
class Tracker(Protocol):
    """Receives what `metrics.jsonl` receives. Factory: `factory(directory: Path, config: Mapping)`."""

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """One step's metrics."""

    def close(self) -> None:
        """Flush and let go."""
