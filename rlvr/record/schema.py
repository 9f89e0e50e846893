"""The record: what travels between sampling, scoring, storing and training.

A `Rollout` is one sampled completion of one prompt: exact token ids, the behavior policy's log-probabilities, which
policy version sampled each token, and an append-only list of scores. A field that is unknown is None, never a made-up
zero. All per-token columns are index-aligned with `token_ids` and of equal length T (prompt tokens included; the mask
tells them apart).

Validation happens here, once, when a record enters (from a sampler, a file, a foreign program); what is built is
frozen.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    model_validator,
)

from rlvr.frozen import Frozen

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SCHEMA_VERSION = 2


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def canonical_json(value: Any) -> str:
    """Return JSON text that is equal for equal values: sorted keys, no spaces. Raises ValueError on NaN or infinity."""
    return _canonical(value)


def digest(value: Any) -> str:
    """Return the first 16 hex digits of the SHA-256 of `canonical_json(value)`."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _from_json_text(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _writable(value: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        canonical_json(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"cannot be written as JSON: {error}") from error
    return value


# A mapping in Python, JSON text in storage: Arrow cannot hold free-form values. Values that cannot be written are
# refused at once, not hours later when they are stored.
JsonMapping = Annotated[
    Mapping[str, Any],
    BeforeValidator(_from_json_text),
    AfterValidator(_writable),
    PlainSerializer(canonical_json, return_type=str),
]


@lru_cache(maxsize=1)
def _token_columns() -> ModuleType:
    """`rlvr.record.token_columns`, which imports numpy: for records that have tokens."""
    return import_module("rlvr.record.token_columns")


def _plain(column: NDArray[Any] | None) -> list[Any] | None:
    plain: list[Any] | None = None if column is None else _token_columns().plain(column)
    return plain


# Any sequence is accepted; `Rollout` turns it into a read-only array. All columns at once are faster than one by one.
if TYPE_CHECKING:
    IdColumn: TypeAlias = NDArray[np.int32] | NDArray[np.int64]
    MaskColumn: TypeAlias = NDArray[np.bool_]
    LogprobColumn: TypeAlias = NDArray[np.float32] | NDArray[np.float64]
    ExtraColumn: TypeAlias = NDArray[Any]
else:
    IdColumn = MaskColumn = LogprobColumn = ExtraColumn = Annotated[Any, PlainSerializer(_plain)]


class Message(Frozen):
    """One turn of a chat."""

    role: str
    content: str


class Task(Frozen):
    """Row of the prompt data set that the prompt was made from; a completion is judged against it."""

    dataset: str | None = None
    row_id: str | None = None
    split: str | None = None
    answer: str | None = Field(default=None, description="the gold answer; numbers keep their literal text")
    extra: JsonMapping = Field(default_factory=dict, description="the rest of the row")


class Status(StrEnum):
    """How a verification ended. Only `graded` carries a reward."""

    GRADED = "graded"
    UNPARSED = "unparsed"  # no readable answer in the completion
    ABSTAINED = "abstained"  # the verifier has no opinion
    INVALID = "invalid"  # the row is at fault: no completion, no gold, unreadable gold
    TIMEOUT = "timeout"
    ERROR = "error"  # the verifier broke


def _parts(value: Any) -> Any:
    """Return parts by name, from a mapping or from the structs with a `name` that files hold."""
    if not isinstance(value, list | tuple):
        return value
    if not all(isinstance(part, Mapping) and isinstance(part.get("name"), str) for part in value):
        raise ValueError("expected verdicts by name, or a list of verdicts with a name")
    parts = {part["name"]: {key: item for key, item in part.items() if key != "name"} for part in value}
    if len(parts) < len(value):
        raise ValueError("two parts have the same name")
    return parts


def _part_structs(parts: Mapping[str, Verdict] | None) -> list[dict[str, Any]] | None:
    if parts is None:
        return None
    fields = {name: part.model_dump(mode="json", exclude={"parts"}) for name, part in parts.items()}
    return [{"name": name, **values} for name, values in fields.items()]


class Verdict(Frozen):
    """A verifier's answer for one completion. `reward` is a finite number exactly when `status` is `graded`."""

    status: Status
    reward: float | None = None
    extracted: str | None = Field(default=None, description="the answer as it was read out of the completion")
    reason: str | None = None
    parts: Annotated[Mapping[str, Verdict] | None, BeforeValidator(_parts), PlainSerializer(_part_structs)] = Field(
        default=None, description="verdicts on aspects of the completion, by name; they have no parts themselves"
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.parts is not None:
            for name, part in self.parts.items():
                if part.parts is not None:
                    raise ValueError(f"part {name!r} has parts of its own: only a whole verdict has parts")
        if (self.status is Status.GRADED) != (self.reward is not None):
            raise ValueError(f"status {self.status.value!r} with reward {self.reward!r}: only 'graded' has a reward")
        return self

    def packed(self) -> list[Any]:
        """Return the verdict as JSON values, for channels and caches; see `unpacked`."""
        fields = [self.status.value, self.reward, self.extracted, self.reason]
        return fields if self.parts is None else [*fields, _part_structs(self.parts)]

    @staticmethod
    def unpacked(fields: Sequence[Any]) -> Verdict:
        """Return the verdict that `packed` made these values of. Raise ValueError or TypeError for any others."""
        status, reward, extracted, reason, *rest = fields
        (parts,) = rest or (None,)
        return Verdict(status=status, reward=reward, extracted=extracted, reason=reason, parts=parts)


class Score(Verdict):
    """A verdict with its provenance, as it is stored. Scores are appended to a rollout, never overwritten."""

    verifier: str
    version: str
    config: JsonMapping = Field(default_factory=dict, description="the verifier's options, resolved")
    config_hash: str = ""
    seconds: float | None = Field(default=None, ge=0, description="verification alone: no start-up, no queueing")
    created_at: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _hash_the_config(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("config_hash"):
            return {**data, "config_hash": digest(_from_json_text(data.get("config", {})))}
        return data


TOPK_IDS = "sampler/topk_ids"
"""Column of `extra_tokens`, (T, K): the likeliest tokens of the distribution that a token was drawn from, the likeliest
first; -1 in place of tokens that it has not."""
TOPK_LOGPROBS = "sampler/topk_logprobs"
"""Column of `extra_tokens`, (T, K): their log-probabilities; NaN where `TOPK_IDS` is -1."""


class SamplingParams(Frozen):
    """How tokens are drawn. The defaults filter nothing: the behavior policy is softmax(logits / temperature)."""

    temperature: float = Field(default=1.0, ge=0, description="0 is greedy")
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0, description="0 is off")
    min_p: float = Field(default=0.0, ge=0, lt=1)
    repetition_penalty: float = Field(default=1.0, gt=0)
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    max_tokens: int = Field(default=1024, ge=1)
    seed: int | None = None

    @property
    def filters(self) -> list[str]:
        """Names of the settings that make the behavior policy differ from softmax(logits / temperature)."""
        return [name for name, neutral in _NEUTRAL.items() if getattr(self, name) != neutral]


_NEUTRAL = {
    name: SamplingParams.model_fields[name].default
    for name in ("top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")
}


class Stop(Frozen):
    """A stop condition of a sample: text, or a token."""

    strings: tuple[str, ...] = ()
    token_ids: tuple[Annotated[int, Field(ge=0)], ...] = ()


class Sampling(SamplingParams):
    """Sampling parameters of a rollout, and its engine."""

    temperature: float = Field(ge=0, description="0 is greedy")
    max_tokens: int | None = Field(default=None, ge=1, description="limit on sampled tokens")  # type: ignore[assignment]
    engine: str | None = None
    engine_version: str | None = None
    dtype: str | None = None
    logprob_mode: Literal["processed", "raw"] | None = Field(
        default=None, description="processed: at the temperature and after the filters; raw: of the unscaled logits"
    )
    stop: Stop | None = Field(default=None, description="what ended a sample before max_tokens; null when unknown")

    @model_validator(mode="before")
    @classmethod
    def _temperature_is_known(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("temperature") is None:
            raise ValueError("no temperature: if the sampling parameters are unknown, set sampling to null")
        return data


class ModelRef(Frozen):
    """Identity of the weights that sampled. A name alone does not identify them."""

    name: str | None = None
    revision: str | None = None
    weights_hash: str | None = None
    tokenizer_hash: str | None = None


class VersionRun(Frozen):
    """`count` consecutive sampled tokens came from policy `version` (optimizer steps completed)."""

    version: int = Field(ge=0)
    count: int = Field(ge=1)


class GroupStats(Frozen):
    """Statistics of the whole group's rewards when it was sampled. A filtered or rescored file cannot reproduce
    them."""

    mean: float
    std: float = Field(ge=0, description="population standard deviation; exactly 0 when all rewards are equal")
    count: int = Field(ge=1, description="how many rewards went in")

    @classmethod
    def of(cls, rewards: Sequence[float]) -> Self:
        """Return the statistics of one or more rewards.

        Equal rewards have a deviation of exactly 0. Computed in float32, sixteen times 0.1 would have 7.7e-9, and
        whitening would turn that into a signal.
        """
        mean = math.fsum(rewards) / len(rewards)
        if min(rewards) == max(rewards):
            return cls(mean=rewards[0], std=0.0, count=len(rewards))
        variance = math.fsum((reward - mean) ** 2 for reward in rewards) / len(rewards)
        return cls(mean=mean, std=math.sqrt(variance), count=len(rewards))

    def whiten(self, rewards: Sequence[float], epsilon: float = 0.0) -> list[float]:
        """Return (r - μ) / sqrt(σ² + ε) for each reward; 0 in a group without a signal.

        A difference from the mean that is only rounding counts as 0: the mean of 0.1, 0.2 and 0.3 is
        0.19999999999999998, but the advantage of 0.2 is 0.
        """
        if not self.has_signal:
            return [0.0] * len(rewards)
        scale = 1.0 / math.sqrt(self.std**2 + epsilon)
        rounding = 1e-12 * max((abs(reward) for reward in rewards), default=0.0)
        deviations = (reward - self.mean for reward in rewards)
        return [away * scale if abs(away) > rounding else 0.0 for away in deviations]

    @property
    def has_signal(self) -> bool:
        """1[σ ≠ 0] of arXiv 2505.22257, eq. 8: the rewards differ, so there is something to learn from them."""
        return self.std > 0


class Timings(Frozen):
    """Wall-clock seconds, for reports; null where unknown."""

    sample: float | None = None
    verify: float | None = None


FinishReason = Literal["stop", "length", "abort", "error"]


class Rollout(Frozen):
    """One sampled sequence. See the module's docstring; `../docs/record.md` has the table."""

    schema_version: int = SCHEMA_VERSION
    run_id: str | None = None
    branch: int = Field(default=0, ge=0, description="policy versions compare only within one (run_id, branch)")
    id: str
    group_id: str | None = Field(default=None, description="members of a group answer one prompt")
    index: int | None = Field(default=None, ge=0, description="place within the group")
    group_size: int | None = Field(default=None, ge=1, description="as planned, so that a filtered group is seen")
    segment: int = Field(default=0, ge=0, description="several sequences of one rollout share id and reward")

    prompt: str | None = None
    messages: Annotated[
        tuple[Message, ...] | None,
        BeforeValidator(_from_json_text),
        PlainSerializer(
            lambda turns: None if turns is None else canonical_json([turn.model_dump() for turn in turns]),
            return_type=str | None,
        ),
    ] = None
    completion: str | None = Field(default=None, description="may omit a stop string that token_ids holds")
    task: Task = Field(default_factory=Task)  # a default that is an object is copied for every record

    token_ids: IdColumn | None = Field(default=None, description="(T,) exact ids as sampled")
    loss_mask: MaskColumn | None = Field(default=None, description="(T,) True: the policy sampled this token")
    behaviour_logprobs: LogprobColumn | None = Field(
        default=None,
        description="(T,) log p(token_ids[t] | token_ids[:t]) under the policy that sampled it; not shifted; "
        "NaN (in files null) where the mask is False; the whole column None when unknown",
    )
    policy_versions: tuple[VersionRun, ...] | None = Field(
        default=None, description="run lengths over sampled tokens; more than one is legal"
    )
    extra_tokens: Mapping[str, ExtraColumn] = Field(
        default_factory=dict,
        description="further columns, (T,) or (T, K), of integers or fractions, by a namespaced name",
    )

    sampling: Sampling | None = None
    model: ModelRef | None = None
    recomputed_by: ModelRef | None = Field(
        default=None, description="the model that behaviour_logprobs were recomputed with; null: the sampler gave them"
    )
    finish_reason: FinishReason | None = None
    stop_reason: str | None = Field(default=None, description="which stop token or string")
    group_stats: GroupStats | None = None
    scores: tuple[Score, ...] = ()
    created_at: str | None = None
    timings: Timings | None = None

    @model_validator(mode="after")
    def _columns_agree(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("exactly one of 'prompt' and 'messages' must be given")
        if self.index is not None and self.group_size is not None and self.index >= self.group_size:
            raise ValueError(f"index {self.index} is outside a group of {self.group_size}")
        if self.token_ids is not None:
            self._check_columns()
            return self
        given = [name for name in ("loss_mask", "behaviour_logprobs") if getattr(self, name) is not None]
        given += [f"extra_tokens.{name}" for name in self.extra_tokens]
        if self.policy_versions is not None:
            given.append("policy_versions")
        if given:
            raise ValueError(f"{', '.join(given)} without token_ids")
        return self

    def _check_columns(self) -> None:
        tokens = _token_columns()
        tokens.replace_columns(vars(self))
        assert self.token_ids is not None
        length, sampled, logprobs = len(self.token_ids), self.loss_mask, self.behaviour_logprobs
        if sampled is not None and len(sampled) != length:
            raise ValueError(f"loss_mask has {len(sampled)} entries, token_ids has {length}")
        if logprobs is not None and len(logprobs) != length:
            raise ValueError(f"behaviour_logprobs has {len(logprobs)} entries, token_ids has {length}")
        for name, column in self.extra_tokens.items():
            if len(column) != length:
                raise ValueError(f"extra_tokens.{name} has {len(column)} entries, token_ids has {length}")
            tokens.check_extra(name, column)
        if sampled is None:
            if logprobs is not None or self.policy_versions is not None:
                raise ValueError("behaviour_logprobs and policy_versions need a loss_mask")
            return
        if logprobs is not None:
            tokens.check_logprobs(logprobs, sampled)
        if self.policy_versions is not None:
            counted, sampled_tokens = sum([run.count for run in self.policy_versions]), tokens.count(sampled)
            if counted != sampled_tokens:
                raise ValueError(f"policy_versions count {counted} tokens, loss_mask marks {sampled_tokens}")

    @property
    def sampled_tokens(self) -> int:
        """Number of tokens that the policy sampled; 0 without a loss mask."""
        return 0 if self.loss_mask is None else int(_token_columns().count(self.loss_mask))

    # pydantic's own comparison asks an array whether it is true, and its own copies forget that arrays are read-only.

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Rollout):
            return NotImplemented
        mine, theirs = vars(self), vars(other)
        return all(_equal(name, value, theirs[name]) for name, value in mine.items())

    def __hash__(self) -> int:
        return hash((self.run_id, self.branch, self.id, self.segment))

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self._freeze()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        copied = super().__deepcopy__(memo)
        copied._freeze()
        return copied

    def _freeze(self) -> None:
        for array in (self.token_ids, self.loss_mask, self.behaviour_logprobs, *self.extra_tokens.values()):
            if array is not None:
                array.flags.writeable = False

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some fields changed, without validation. Token columns become arrays all the same."""
        if update and not _TOKEN_FIELDS.isdisjoint(update):
            update = dict(update)
            _token_columns().replace_columns(update)
        return super().model_copy(update=update, deep=deep)

    def last_score(self, verifier: str | None = None) -> Score | None:
        """Return the last score, or the last one by the named verifier; None if there is none."""
        return next((score for score in reversed(self.scores) if verifier in (None, score.verifier)), None)

    def with_score(self, score: Score) -> Rollout:
        """Return a copy with one more score."""
        return self.model_copy(update={"scores": (*self.scores, score)})


_TOKEN_FIELDS = frozenset({"token_ids", "loss_mask", "behaviour_logprobs", "extra_tokens"})


def _equal(name: str, one: Any, other: Any) -> bool:
    if name not in _TOKEN_FIELDS:
        return bool(one == other)
    equal = _token_columns().equal
    if name == "extra_tokens":
        return one.keys() == other.keys() and all(equal(column, other[key]) for key, column in one.items())
    return bool(equal(one, other))


def utc_now() -> str:
    """Return the current time as records store it: ISO 8601, UTC, whole seconds."""
    return _written(int(time.time()))


@lru_cache(maxsize=1)  # thousands of verdicts per second have the same time
def _written(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat().replace("+00:00", "Z")
