"""Alarms: a number that went too far, at a stated threshold and with a stated consequence.

An alarm is a pure function of a step's metrics, so whoever has the metrics can say what fired: the trainer before its
optimizer step (to skip it), the loop after it (to report it, or to stop), a reader of `metrics.jsonl` later. What
counts over several steps is a metric itself (`signal/none_in_a_row`), so a resumed run goes on counting.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pydantic import Field, ValidationInfo, field_validator, model_validator

from rlvr.frozen import Frozen

Consequence: TypeAlias = Literal["none", "warn", "skip", "stop"]
"""none: the alarm is off; warn: say so; skip: the batch's next optimizer steps are not taken; stop: nor are they, and
the run ends."""
NumbersByName: TypeAlias = Mapping[str, Any]


class Alarm(Frozen):
    """One alarm's setting."""

    threshold: float
    consequence: Consequence


def _default(threshold: float, consequence: Consequence, description: str) -> Any:
    return Field(default=Alarm(threshold=threshold, consequence=consequence), description=description)


class Alarms(Frozen):
    """The configuration's section `alarms`. A key that is left out of one alarm keeps its default."""

    not_finite: Alarm = _default(0, "skip", "how many of a step's loss and gradient norm are NaN or infinite")
    ratio: Alarm = _default(1000, "warn", "the largest π/α of a token")
    ess: Alarm = _default(0.1, "warn", "effective sample size of the tokens, as a share")
    mismatch: Alarm = _default(0.1, "warn", "mean |log π - log α| at lag 0: sampler against trainer, nats")
    no_signal: Alarm = _default(10, "warn", "batches in a row without a group whose rewards differ")
    verdicts: Alarm = _default(0.05, "stop", "share of a batch's verdicts that are `error` or `invalid`")
    no_step: Alarm = _default(3, "stop", "batches with a signal in a row that masks or the correction left nothing of")
    skipped: Alarm = _default(3, "stop", "batches in a row of which a step was skipped that newer samples do not mend")

    @model_validator(mode="before")
    @classmethod
    def _keep_defaults(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        defaults = {name: field.default.model_dump() for name, field in cls.model_fields.items()}
        return {
            name: {**defaults.get(name, {}), **value} if isinstance(value, Mapping) else value
            for name, value in data.items()
        }

    @field_validator("*")
    @classmethod
    def _neither_always_nor_never(cls, alarm: Alarm, info: ValidationInfo) -> Alarm:
        rule = RULES[str(info.field_name)]
        if not rule.sensible(alarm.threshold):
            raise ValueError(
                f"with threshold {alarm.threshold:g} it would fire always or never: the threshold must be "
                f"{rule.thresholds} (alarms.{info.field_name}.consequence=none switches the alarm off)"
            )
        return alarm

    @field_validator("not_finite")
    @classmethod
    def _no_step_on_nan(cls, alarm: Alarm) -> Alarm:
        if alarm.consequence in ("none", "warn"):
            raise ValueError("such a step destroys the weights: its consequence is skip or stop")
        return alarm

    @field_validator("skipped", "no_signal", "no_step")
    @classmethod
    def _nothing_left_to_skip(cls, alarm: Alarm) -> Alarm:
        if alarm.consequence == "skip":
            raise ValueError("it is known after the batch, so there is nothing to skip: warn or stop")
        return alarm


@dataclass(frozen=True)
class Rule:
    """When an alarm fires: `compare(measure(metrics), threshold)`. A measure is None where there is none."""

    measure: Callable[[NumbersByName], float | None]
    symbol: Literal[">", "<", "≥"]
    number: str
    """How the measured number is written."""
    low: float = 0.0
    high: float = math.inf
    """Between which the measured number lies."""

    def sensible(self, threshold: float) -> bool:
        """Whether some numbers set the alarm off and others do not."""
        above = threshold >= self.low if self.symbol == ">" else threshold > self.low
        below = threshold < self.high if self.symbol == ">" else threshold <= self.high
        return above and below

    @property
    def thresholds(self) -> str:
        """The sensible ones, in words."""
        low, high = ("at least", "below") if self.symbol == ">" else ("above", "at most")
        return f"{low} {self.low:g}" + (f" and {high} {self.high:g}" if math.isfinite(self.high) else "")


_COMPARE: Mapping[str, Callable[[float, float], bool]] = {">": operator.gt, "<": operator.lt, "≥": operator.ge}


def _metric(name: str) -> Callable[[NumbersByName], float | None]:
    return lambda metrics: metrics.get(name)


def _not_finite(metrics: NumbersByName) -> float | None:
    values = [metrics[name] for name in ("train/loss", "train/grad_norm") if name in metrics]
    # A mean of nothing is null in what was logged; NaN too.
    return float(sum(value is None or not math.isfinite(value) for value in values)) if values else None


def _broken(metrics: NumbersByName) -> float | None:
    shares = [metrics[name] for name in ("verdict/error", "verdict/invalid") if name in metrics]
    return math.fsum(shares) if shares else None


RULES: Mapping[str, Rule] = {
    "not_finite": Rule(_not_finite, ">", ".0f", high=1),  # of both numbers, but one is enough to destroy the weights
    "ratio": Rule(_metric("ratio/max"), ">", ",.4g", low=1),  # weights are 1 on average
    "ess": Rule(_metric("ess/token"), "<", ".3f", high=1),
    "mismatch": Rule(_metric("mismatch/mean"), ">", ".3f"),
    "no_signal": Rule(_metric("signal/none_in_a_row"), "≥", ".0f"),
    "verdicts": Rule(_broken, ">", ".1%", high=1),
    "no_step": Rule(_metric("train/no_step_in_a_row"), "≥", ".0f"),
    "skipped": Rule(_metric("train/skipped_in_a_row"), "≥", ".0f"),
}
"""Alarm → its rule, in the order in which they are told."""


@dataclass(frozen=True)
class Fired:
    """An alarm that fired."""

    alarm: str
    value: float | None
    """None where it is infinite: JSON has no such number."""
    threshold: float
    consequence: Consequence

    @property
    def text(self) -> str:
        """As people read it: `ess 0.041 < 0.1 (warn)`."""
        rule = RULES[self.alarm]
        value = "infinite" if self.value is None else f"{self.value:{rule.number}}"
        return f"{self.alarm} {value} {rule.symbol} {self.threshold:g} ({self.consequence})"

    @property
    def about(self) -> str:
        """What is measured, in words."""
        return str(Alarms.model_fields[self.alarm].description)


def fired(metrics: NumbersByName, alarms: Alarms) -> list[Fired]:
    """The alarms that these metrics set off, in the order of `RULES`. A metric that is absent sets off none."""
    found = []
    for name, rule in RULES.items():
        alarm: Alarm = getattr(alarms, name)
        value = None if alarm.consequence == "none" else rule.measure(metrics)
        if value is not None and _COMPARE[rule.symbol](value, alarm.threshold):
            finite = value if math.isfinite(value) else None
            found.append(Fired(name, finite, alarm.threshold, alarm.consequence))
    return found


def blocking(found: Iterable[Fired]) -> bool:
    """Whether the optimizer step must not be taken."""
    return any(each.consequence != "warn" for each in found)


def in_a_row(
    before: NumbersByName, metrics: NumbersByName, alarms: Alarms, *, sampler_is_behind: bool
) -> dict[str, int]:
    """The metrics that count batches; `before` are the last batch's.

    signal/none_in_a_row: batches without a signal up to this one. train/no_step_in_a_row: batches with a signal, and
    not skipped, since the last optimizer step. train/skipped_in_a_row: batches up to this one of which a step was
    skipped, but for those that were only too far from the policy while `sampler_is_behind`: the next push mends these.
    """
    skipped = bool(metrics.get("train/skipped"))
    steps, signal = metrics.get("train/optimizer_steps"), metrics.get("signal/groups")
    now = {
        "signal/none_in_a_row": signal == 0 and not skipped,
        "train/no_step_in_a_row": steps == 0 and bool(signal) and not skipped,
        "train/skipped_in_a_row": skipped and not (sampler_is_behind and _only_too_far(metrics, alarms)),
    }
    goes_on = {"train/no_step_in_a_row": steps == 0}
    return {
        name: int(before.get(name) or 0) + again if again or goes_on.get(name) else 0 for name, again in now.items()
    }


def _only_too_far(metrics: NumbersByName, alarms: Alarms) -> bool:
    """Whether a step was skipped for nothing but the distance of its samples from the policy."""
    why = {each.alarm for each in fired(metrics, alarms) if each.consequence != "warn"}
    return bool(why) and why <= {"ratio", "ess"}


def summary(steps: Sequence[NumbersByName]) -> str:
    """Of a run's metrics, a line: `3 alarms: ess 2 times (steps 5 to 9), not_finite once (step 7)`; empty for none."""
    told = [(each["alarm"], line["step"] + 1) for line in steps for each in line.get("alarms", ())]
    if not told:
        return ""
    counts = Counter(name for name, _ in told)
    parts = []
    for name, count in counts.most_common():
        at = [step for other, step in told if other == name]
        where = f"step {at[0]}" if count == 1 else f"steps {at[0]} to {at[-1]}"
        parts.append(f"{name} {'once' if count == 1 else f'{count} times'} ({where})")
    return f"{len(told)} alarm{'s' if len(told) > 1 else ''}: {', '.join(parts)}"
