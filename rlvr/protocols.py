"""Protocols and base classes of plugins. This module computes nothing and does not import torch at run time.

    PromptSource --> Sampler --> Rollout --> Verifier --> Rollout + Score --> Trainer
                        ^                                                        |
                        +--------------------- sync(snapshot) -------------------+

The policy version is the number of optimizer steps completed. The lag of a token is the trainer's version before the
gradient step minus the version that sampled the token.

`rlvr.testing` has a check for each protocol here (`check_prompt_source`, `check_sampler`, `check_trainer`,
`check_verifier`); call it from the tests of your plugin.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self, TypeAlias, runtime_checkable

from pydantic import Field

from rlvr.alarms import Alarms
from rlvr.frozen import Frozen
from rlvr.record.schema import (
    FinishReason,
    GroupStats,
    LogprobColumn,
    Message,
    Rollout,
    Sampling,
    SamplingParams,
    Stop,
    Task,
    Verdict,
    VersionRun,
)

if TYPE_CHECKING:
    from torch import Tensor

    from rlvr.record.token_columns import Array

Metrics: TypeAlias = Mapping[str, float]
"""Slash-separated name -> number, e.g. `{"clip/fraction": 0.02}`."""


# --- verifying ------------------------------------------------------------------------------------------------------


@runtime_checkable
class Verifier(Protocol):
    """Judges completions. `rlvr.load_verifier` makes one, usually from a decorated function.

    It runs in worker processes. `verify` may raise (the verdict is `error`), hang (`timeout`) or die (`error`).
    """

    name: str
    version: str

    @property
    def config(self) -> Mapping[str, Any]:
        """Resolved options; together with name and version they identify a verdict."""

    def verify(self, completion: str, task: Task) -> Verdict:
        """Return the verdict on one completion."""


@runtime_checkable
class Diagnosed(Protocol):
    """A registered object that depends on the machine, such as a verifier's class with a static method `doctor`."""

    def doctor(self) -> str:
        """Return what it works with on this machine, for `rlvr doctor`. Raises an error that says what is missing."""


# --- prompts --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prompt:
    """One question: plain text for a base model, messages for a chat model (exactly one of the two)."""

    task: Task
    text: str | None = None
    messages: tuple[Message, ...] | None = None

    def __post_init__(self) -> None:
        if (self.text is None) == (self.messages is None):
            raise ValueError("a prompt has either text or messages")

    @property
    def asked(self) -> str:
        """The text; of a chat, that of the last message."""
        return self.messages[-1].content if self.messages else self.text or ""


class EvaluationDefaults(Frozen):
    """How `rlvr eval` asks the questions of a data set, unless the request says otherwise: `evaluation` of a card.

    What is null is as in training.
    """

    n: int | None = Field(default=None, ge=1, description="completions per question")
    temperature: float | None = Field(default=None, ge=0, description="sampling temperature; 0 is greedy")
    top_p: float | None = Field(default=None, gt=0, le=1, description="nucleus of the sampling distribution")
    max_tokens: int | None = Field(default=None, ge=1, description="length limit of a completion, in tokens")
    seed: int | None = Field(default=None, ge=0, description="seed of the sampling")
    plain: str | None = Field(default=None, description="prompt for a base model, in place of the card's")
    system: str | None = Field(default=None, description="system prompt for a chat model, in place of the card's")
    user: str | None = Field(default=None, description="user message for a chat model, in place of the card's")

    @property
    def templates(self) -> dict[str, str]:
        """The templates that are given, by the name that a card gives them."""
        given = {"plain": self.plain, "system": self.system, "user": self.user}
        return {name: template for name, template in given.items() if template is not None}


@runtime_checkable
class PromptSource(Protocol):
    """Prompts by index. The run chooses the order, as a function of (seed, epoch, index).

    Inherit from this class to get the defaults of the optional attributes.
    """

    default_verifier: str | None = None
    """Verifier to use when the run names none; None for `math`."""
    without_gold: int = 0
    """Rows left out because they have no gold answer; the run reports the number."""
    stop: tuple[str, ...] = ()
    """Strings that end a base model's completion, e.g. "\\n\\nQuestion:" after few-shot examples."""
    evaluation: EvaluationDefaults = EvaluationDefaults()
    """How `rlvr eval` asks the questions by default."""

    def digests(self) -> Mapping[str, str]:
        """Return name -> hash of the data that the prompts come from; a resumed run refuses other hashes.

        Override it if the prompts depend on more than the source's distribution, the options and `data_files`.
        """
        return {}

    @property
    @abstractmethod
    def size(self) -> int | None:
        """Number of prompts; None if the source is endless (every index >= 0 exists)."""

    @abstractmethod
    def __getitem__(self, index: int, /) -> Prompt:
        """Return prompt `index`, the same one each time. Raises DataError if the row is at fault."""

    def question(self, index: int) -> str:
        """Return the question of prompt `index`, without its template. Equal texts in two data sets are the same
        question."""
        return self[index].asked

    def questions(self) -> Iterator[str]:
        """Yield the question of every prompt; nothing for an endless source. A subclass may have a faster way."""
        return (self.question(index) for index in range(self.size or 0))


@dataclass(frozen=True)
class SourceRequest:
    """Argument of a prompt source's factory: `factory(request) -> PromptSource`.

    The split "train" or "eval" is a role. A source maps it to its own splits and must keep the two disjoint.
    """

    split: Literal["train", "eval"]
    seed: int
    chat: bool = field(default=False, metadata={"doc": "the model has a chat template: return messages, not text"})
    options: Mapping[str, Any] = field(default_factory=dict)
    data_files: tuple[Path, ...] = ()


# --- weights --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelSpec:
    """The model to load, and how. Samplers and trainers receive the same one."""

    path: str
    """Local directory or hub name."""
    revision: str | None = None
    device: str = "auto"
    """A torch device: "cpu", "cuda", "cuda:1", "mps"; "auto" is the best one of this machine."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Compute dtype; a trainer keeps float32 master weights regardless. "auto" is bfloat16 on a GPU that computes in
    it, else float32."""
    attn_implementation: str | None = None
    """Attention of transformers: "eager", "sdpa", "flash_attention_2", "flex_attention"; None is the fastest that
    the model supports without further packages."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Pass it to every `from_pretrained`."""


@dataclass(frozen=True)
class TensorLayout:
    """Dtype and shape of one tensor, known before its values are."""

    dtype: str
    """Name without prefix: "float32", "bfloat16"."""
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Snapshot:
    """Weights of one policy version, readable one full tensor at a time.

    Names are checkpoint names, the ones that `save_pretrained` writes, whatever the trainer's own modules are called.
    The layout is complete before any tensor is read, so that a receiver can check it, allocate, or refuse.
    A snapshot is a view: it is valid until the trainer's next `update`, and a receiver copies what it keeps.
    """

    version: int
    """Optimizer steps completed."""
    layout: Mapping[str, TensorLayout]
    """Checkpoint name -> layout, in the order in which `tensors` yields them."""
    tied: Mapping[str, str]
    """Parameter name -> checkpoint name whose tensor it shares, e.g. `{"lm_head.weight": "model.embed_tokens.weight"}`.
    Tied parameters are not in `layout`."""
    read: Callable[[], Iterator[tuple[str, Tensor]]]
    file: Path | None = None
    """Safetensors file that holds the same weights, tied parameters under their own names as well; None if there is
    none. A receiver that passes weights on as a file links it."""
    lora: Mapping[str, Any] | None = None
    """peft's configuration, if these are the tensors of an adapter alone, by peft's names; None for all weights."""
    adapter: Snapshot | None = None
    """The same weights as an adapter on top of the model's own; None if all weights are trained."""

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (checkpoint name, full tensor), each name of the layout once. May be called again."""
        return self.read()


@dataclass(frozen=True)
class ModelSize:
    """Size of a model, known without its weights."""

    parameters: int
    linear: tuple[tuple[int, int], ...]
    """(inputs, outputs) of every linear layer except the output layer."""
    layers: int
    hidden: int
    intermediate: int
    key_value: int
    """Width of the keys of a token in one layer, all heads together; that of the values is equal."""
    compute_bytes: int
    """Bytes of a number in the compute dtype."""


@dataclass(frozen=True)
class RunSize:
    """Size of a run's batches, and memory of its device."""

    rollouts: int
    """Rollouts of a batch."""
    longest: int
    """Largest number of tokens of a prompt and its completion."""
    device: str
    """The torch device, never "auto"."""
    device_bytes: int | None
    """Memory of the device; None if it is unknown."""


# --- sampling -------------------------------------------------------------------------------------------------------


class SamplerOptions(Frozen):
    """Base class of a sampler's `Options`: the keys of `sampling.options`. By default there are none."""

    @property
    def runs_elsewhere(self) -> bool:
        """True if the sampler computes outside the run's process, so that it works while the run trains."""
        return False

    @property
    def keeps_topk(self) -> bool:
        """True if samples come with their likeliest tokens where a request asks for them (`sampling.keep_topk`)."""
        return False

    @property
    def gives_rewards(self) -> bool:
        """True if every sample comes with a reward. A run that names no verifier then trains on these rewards."""
        return False

    def memory(self, model: ModelSize, run: RunSize) -> Mapping[str, int]:
        """Return the bytes that the sampler takes on the run's device, as `sampler` and `cache`; empty by default."""
        return {}

    @property
    def engines(self) -> int:
        """Number of engines that share the requests; the proof of weights probes each."""
        return 1

    @property
    def adapter_rank(self) -> int | None:
        """Largest rank of an adapter that is synced by itself (`Snapshot.adapter`); None to get all weights, merged."""
        return None


@dataclass(frozen=True)
class GroupRequest:
    """Asks for `size` completions of one prompt.

    `key` seeds the draws: the same key, weights and prompt give the same completions where the engine can promise it.
    """

    group_id: str
    prompt: Prompt
    prompt_ids: tuple[int, ...]
    """The prompt as the model sees it: special tokens and the chat template's generation prompt included."""
    size: int
    params: SamplingParams
    key: tuple[int | str, ...]
    stop: Stop = field(default_factory=Stop)
    """Stop conditions, besides the end-of-text ids of the model and its tokenizer."""
    keep_topk: int = 0
    """K of the `TopTokens` that each sample must come with; 0 for none. Only samplers whose options say `keeps_topk`
    get another number."""


@dataclass(frozen=True, eq=False)
class TopTokens:
    """The K likeliest tokens of the distribution that each sampled token was drawn from, the likeliest first.

    With filters (top_p, top_k, min_p) and K of at least `top_k`, these are all tokens that could have been drawn: the
    kept support.
    """

    ids: Array
    """(S, K) int32; -1 if the distribution has fewer tokens."""
    logprobs: Array
    """(S, K) float32, at the temperature and after the filters; NaN where the id is -1."""

    def __eq__(self, other: object) -> bool:
        from rlvr.record.token_columns import equal

        if not isinstance(other, TopTokens):
            return NotImplemented
        return equal(self.ids, other.ids) and equal(self.logprobs, other.logprobs)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Sample:
    """One completion in tokens. Log-probabilities are those of the distribution that each token was drawn from."""

    token_ids: tuple[int, ...]
    """(C,) tokens after the prompt, the stop token included."""
    logprobs: tuple[float, ...]
    """(S,) natural logarithms, at the sampling temperature and after its filters, of the tokens that the policy
    sampled."""
    text: str
    """Decoded, without the stop token or stop string that ended it. Other special tokens stay: a verifier may need
    them (`<think>`, harmony's channels, tool calls)."""
    finish_reason: FinishReason
    stop_reason: str | None
    """The stop token or stop string; None if nothing ended the completion but its length."""
    versions: tuple[VersionRun, ...]
    """Policy versions as run lengths over the S sampled tokens."""
    loss_mask: tuple[bool, ...] | None = None
    """(C,) True where the policy sampled the token, False where an environment wrote it; None if it sampled all."""
    reward: float | None = None
    """Reward that the sampler gives by itself, e.g. an environment's. It is recorded as a score by the verifier
    `sampler`, after the score of the run's verifier; a run trains on it only if it names no other verifier."""
    top: TopTokens | None = None
    """The likeliest tokens at the S sampled tokens, if the request asked for them (`keep_topk`)."""

    def __post_init__(self) -> None:
        if self.loss_mask is not None and len(self.loss_mask) != len(self.token_ids):
            raise ValueError(f"{len(self.token_ids)} tokens with a loss_mask of {len(self.loss_mask)}")
        sampled = len(self.token_ids) if self.loss_mask is None else sum(self.loss_mask)
        if len(self.logprobs) != sampled:
            raise ValueError(f"{sampled} sampled tokens with {len(self.logprobs)} log-probabilities")
        if sum(run.count for run in self.versions) != sampled:
            raise ValueError(f"{sampled} sampled tokens, but the versions count {sum(r.count for r in self.versions)}")
        if self.reward is not None and not math.isfinite(self.reward):
            raise ValueError(f"a reward of {self.reward}: expected a finite number")
        if self.top is not None and not len(self.top.ids) == len(self.top.logprobs) == sampled:
            raise ValueError(f"{sampled} sampled tokens with the likeliest tokens of {len(self.top.ids)}")


@dataclass(frozen=True)
class SampledGroup:
    """Answer to one request. It may hold fewer samples than requested: aborted ones are left out."""

    request: GroupRequest
    samples: tuple[Sample, ...]
    sampling: Sampling
    seconds: float


@runtime_checkable
class Sampler(Protocol):
    """Draws completions from the behavior policy, in this process or elsewhere.

    Groups may finish late and in any order. Each sample says which policy version sampled each of its tokens.
    """

    def sync(self, snapshot: Snapshot) -> None:
        """Sample from these weights from now on, and report their version. Copies what it keeps.

        Raises RunError, with nothing changed, if the layout does not fit the sampler's model.
        """

    def submit(self, requests: Sequence[GroupRequest]) -> None:
        """Ask for groups. Returns at once."""

    def collect(self, timeout: float | None = None) -> list[SampledGroup]:
        """Return groups that have finished since the last call, in any order, each once.

        Blocks until there is one; with `timeout`, for about that many seconds (a sampler that computes in this process
        finishes the batch that it began). Empty if none finished in time or nothing is outstanding.
        """

    def cancel(self, ids: Collection[str]) -> None:
        """Give up the requests with these group ids. Ids that are unknown or finished are ignored."""

    def save(self, directory: Path) -> None:
        """Write the state for a resumed run: the weights and their version."""

    def load(self, directory: Path) -> None:
        """Read what `save` wrote."""

    def close(self) -> None:
        """Release processes and memory."""


class SamplerFactory(Protocol):
    """Makes a sampler; usually the sampler's class."""

    Options: ClassVar[type[SamplerOptions]]

    def __call__(self, model: ModelSpec, options: Any, /) -> Sampler:
        """Load the model and return the sampler. `options` is an instance of this factory's `Options`."""


# --- training -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RewardPart:
    """One part of rewards that are weighted sums, over the rollouts of a group."""

    name: str
    weight: float
    rewards: tuple[float, ...]
    """Rewards of the part, without weight."""


@dataclass(frozen=True)
class Group:
    """Rollouts that answer one prompt, with the reward that training uses for each. Dropped rollouts are left out."""

    rollouts: tuple[Rollout, ...]
    rewards: tuple[float, ...]
    stats: GroupStats
    """Statistics of the rewards of the whole group as it was sampled, even if rollouts were dropped since."""
    parts: tuple[RewardPart, ...] = ()
    """Parts of the rewards, if these are weighted sums; empty if not."""

    def __post_init__(self) -> None:
        for rewards in (self.rewards, *(part.rewards for part in self.parts)):
            if len(self.rollouts) != len(rewards):
                raise ValueError(f"{len(self.rollouts)} rollouts with {len(rewards)} rewards")


class TrainerOptions(Frozen):
    """Base class of a trainer's `Options`: the keys of the configuration's `trainer` section, with their defaults.

    A run reads the properties below before it loads weights. Override those that differ.
    """

    @property
    def batches_per_sync(self) -> int:
        """v of arXiv 2505.22257: batches between two weight syncs."""
        return 1

    @property
    def steps_per_batch(self) -> int:
        """i of arXiv 2505.22257: optimizer steps taken on each batch, if none is skipped."""
        return 1

    @property
    def adapter_rank(self) -> int | None:
        """Rank of the low-rank adapter that is trained; None if all weights are."""
        return None

    @property
    def needs_lag(self) -> tuple[str, ...]:
        """Settings that cannot handle rollouts of unknown lag, by their dotted names."""
        return ()

    @property
    def needs_whole_rollouts(self) -> tuple[str, ...]:
        """Settings that would mistake a segment of a rollout for a whole one, by their dotted names."""
        return ()

    @property
    def depends_on_steps(self) -> tuple[str, ...]:
        """Settings whose effect depends on the run's number of steps, by their dotted names."""
        return ()

    @property
    def needs_parts(self) -> tuple[str, ...]:
        """Settings that need rewards which are weighted sums of parts, by their dotted names."""
        return ()

    @property
    def needs_topk(self) -> tuple[str, ...]:
        """Settings that need the sampler's likeliest tokens in the records, by their dotted names."""
        return ()

    def lacks(self, rollout: Rollout) -> str | None:
        """Return the field that a saved rollout lacks for training with these options; None if it lacks none."""
        return None

    def memory(self, model: ModelSize, run: RunSize) -> Mapping[str, int]:
        """Return the bytes of weights, gradients, optimizer, reference and activations; empty if they are unknown."""
        return {}

    def with_run(self, max_tokens: int) -> tuple[Self, list[str]]:
        """Return the options completed with values from the run, and a note on each of these values.

        `max_tokens` is the run's limit on sampled tokens.
        """
        return self, []

    @classmethod
    def parts(cls) -> list[tuple[str, str, str]]:
        """Return the parts that these options can be composed of: (option, name, summary). None by default."""
        return []

    def composition(self) -> list[tuple[str, str, str]]:
        """Return the parts that these options choose: (option, name, summary)."""
        return []


@dataclass(frozen=True)
class TrainContext:
    """Second argument of a trainer's factory."""

    model: ModelSpec
    seed: int
    temperature: float
    """Sampling temperature; every log-probability is taken at it."""
    total_updates: int
    """Planned calls of `update`, for schedules."""
    alarms: Alarms = field(default_factory=Alarms)
    """A trainer that can see a step's metrics before it takes the step asks `rlvr.alarms.blocking` about them."""


@runtime_checkable
class Trainer(Protocol):
    """Learns from groups. The core's loop calls it."""

    @property
    def version(self) -> int:
        """Optimizer steps completed."""

    def update(self, groups: Sequence[Group]) -> Metrics:
        """Learn from one batch of groups and return its metrics. Raises RunError if a rollout cannot be trained on.

        A rollout whose `policy_versions` are None has an unknown lag. A version below 0 belongs to a saved rollout,
        sampled that many optimizer steps before this run's first.
        """

    def logprobs(self, rollouts: Sequence[Rollout]) -> list[LogprobColumn]:
        """Return (T,) log-probabilities under the current weights for each rollout; NaN where the mask is False."""

    def snapshot(self) -> Snapshot:
        """Return the current weights."""

    def save(self, directory: Path) -> None:
        """Write everything that the next update depends on, with a model that `from_pretrained` reads."""

    def load(self, directory: Path) -> None:
        """Read what `save` wrote."""


class TrainerFactory(Protocol):
    """Makes a trainer; usually the trainer's class.

    A backend that samples and steps by itself sets `owns_loop` to True: see `rlvr.run.factories.BackendFactory`.
    """

    Options: ClassVar[type[TrainerOptions]]
    owns_loop: ClassVar[Literal[False]]

    def __call__(self, options: Any, context: TrainContext, /) -> Trainer:
        """Load the model and return the trainer. `options` is an instance of this factory's `Options`."""


# --- reporting ------------------------------------------------------------------------------------------------------


@runtime_checkable
class Tracker(Protocol):
    """Receives the metrics that `metrics.jsonl` receives."""

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Report one step's metrics."""

    def close(self) -> None:
        """Flush and release."""


@dataclass(frozen=True)
class TrackedSample:
    """A rollout and its verdict, as a row of a tracker's table."""

    batch: int
    """Number of the step; trackers reserve the name `step`."""
    dataset: str | None
    prompt: str
    completion: str
    gold: str | None
    verdict: str
    """Status of the verdict that counts."""
    reward: float | None
    """Reward that training uses; None if the rollout was dropped."""


@runtime_checkable
class SampleTracker(Tracker, Protocol):
    """A tracker that also shows samples."""

    def log_samples(self, step: int, samples: Sequence[TrackedSample]) -> None:
        """Report rollouts of a step, after its metrics."""


class TrackerFactory(Protocol):
    """Makes a tracker; usually the tracker's class."""

    def __call__(self, directory: Path, config: Mapping[str, Any], /) -> Tracker:
        """Return a tracker that writes below the run's `directory`; `config` is the run's resolved configuration."""
