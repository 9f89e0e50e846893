"""Alarms: metrics that crossed a threshold, each with a consequence.

An alarm is a pure function of a step's metrics. The trainer evaluates it before its optimizer step (to skip the step),
the loop after it (to report, or to stop), and a reader of `metrics.jsonl` at any time. Counts over several steps are
metrics themselves (`signal/none_in_a_row`), so a resumed run continues to count.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pydantic import Field, ValidationInfo, field_validator, model_validator

from rlvr.frozen import Frozen

Consequence: TypeAlias = Literal["none", "warn", "skip", "stop"]
"""none: the alarm is off. warn: report it. skip: leave out the batch's next optimizer steps. stop: leave them out and
end the run."""
NumbersByName: TypeAlias = Mapping[str, Any]


class Alarm(Frozen):
    """Setting of one alarm."""

    threshold: float = Field(description="the alarm fires beyond this value")
    consequence: Consequence = Field(description="consequence of the alarm")


def _default(threshold: float, consequence: Consequence, description: str) -> Any:
    return Field(default=Alarm(threshold=threshold, consequence=consequence), description=description)


class Alarms(Frozen):
    """Section `alarms` of the configuration. A key left out of an alarm keeps its default."""

    not_finite: Alarm = _default(0, "skip", "number of NaN and infinite values among a step's loss and gradient norm")
    ratio: Alarm = _default(1000, "warn", "largest π/α of a token")
    ess: Alarm = _default(0.1, "warn", "effective sample size of the tokens, as a share")
    weights: Alarm = _default(
        20, "stop", "difference between sampler and trainer on probes after a weight sync, in units of rounding"
    )
    mismatch: Alarm = _default(0.1, "stop", "mean |log π - log α| at lag 0, sampler against trainer, in nats")
    no_signal: Alarm = _default(10, "warn", "consecutive batches without a group whose rewards differ")
    verdicts: Alarm = _default(0.05, "stop", "share of a batch's verdicts that are `error`, `invalid` or `timeout`")
    hacking: Alarm = _default(
        4, "warn", "growth of the gap between the training reward and a shadow verifier's, in standard errors"
    )
    no_step: Alarm = _default(
        3, "stop", "consecutive batches with a signal in which masks or corrections left no token"
    )
    skipped: Alarm = _default(3, "stop", "consecutive batches with a skipped step that newer samples would not fix")

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
                f"with threshold {alarm.threshold:g} it would always or never fire: the threshold must be "
                f"{rule.thresholds} (alarms.{info.field_name}.consequence=none switches the alarm off)"
            )
        return alarm

    @field_validator("not_finite")
    @classmethod
    def _no_step_on_nan(cls, alarm: Alarm) -> Alarm:
        if alarm.consequence in ("none", "warn"):
            raise ValueError("such a step destroys the weights: the consequence must be skip or stop")
        return alarm

    @field_validator("skipped", "no_signal", "no_step")
    @classmethod
    def _nothing_left_to_skip(cls, alarm: Alarm) -> Alarm:
        if alarm.consequence == "skip":
            raise ValueError("it is known only after the batch, so there is nothing to skip: use warn or stop")
        return alarm


@dataclass(frozen=True)
class Rule:
    """When an alarm fires: `measure` of some metrics against the threshold."""

    metrics: tuple[str, ...]
    """Names in the catalog (`rlvr.metrics`)."""
    symbol: Literal[">", "<", "≥"]
    number: str
    """Format of the measured number."""
    low: float = 0.0
    """Smallest value that the measured number can have."""
    high: float = math.inf
    """Largest value that the measured number can have."""
    combine: Callable[[Sequence[float | None]], float | None] = lambda values: values[0]
    """Turns the metrics that are present into one number."""

    def measure(self, metrics: NumbersByName) -> float | None:
        """Return the number to compare; None if the step has none of the metrics."""
        values = [metrics[name] for name in self.metrics if name in metrics]
        return self.combine(values) if values else None

    def sensible(self, threshold: float) -> bool:
        """Return True if some numbers set the alarm off and others do not."""
        above = threshold >= self.low if self.symbol == ">" else threshold > self.low
        below = threshold < self.high if self.symbol == ">" else threshold <= self.high
        return above and below

    @property
    def thresholds(self) -> str:
        """Sensible thresholds, in words."""
        low, high = ("at least", "below") if self.symbol == ">" else ("above", "at most")
        return f"{low} {self.low:g}" + (f" and {high} {self.high:g}" if math.isfinite(self.high) else "")


_COMPARE: Mapping[str, Callable[[float, float], bool]] = {">": operator.gt, "<": operator.lt, "≥": operator.ge}


def _not_finite(values: Sequence[float | None]) -> float:
    # NaN and infinity are null in `metrics.jsonl`.
    return float(sum(value is None or not math.isfinite(value) for value in values))


def _total(shares: Sequence[float | None]) -> float:
    return math.fsum(share or 0.0 for share in shares)


RULES: Mapping[str, Rule] = {
    # Two numbers are counted, but one that is not finite is enough to destroy the weights: hence high=1.
    "not_finite": Rule(("train/loss", "train/grad_norm"), ">", ".0f", high=1, combine=_not_finite),
    "ratio": Rule(("ratio/max",), ">", ",.4g", low=1),  # weights are 1 on average
    "ess": Rule(("ess/token",), "<", ".3f", high=1),
    "weights": Rule(("weights/excess",), ">", ",.0f"),
    "mismatch": Rule(("mismatch/mean",), ">", ".3f"),
    "no_signal": Rule(("signal/none_in_a_row",), "≥", ".0f"),
    "verdicts": Rule(("verdict/error", "verdict/invalid", "verdict/timeout"), ">", ".1%", high=1, combine=_total),
    "hacking": Rule(("shadow/excess",), ">", ".1f"),
    "no_step": Rule(("train/no_step_in_a_row",), "≥", ".0f"),
    "skipped": Rule(("train/skipped_in_a_row",), "≥", ".0f"),
}
"""Alarm → its rule, in the order in which they are reported."""


@dataclass(frozen=True)
class Fired:
    """An alarm that fired."""

    alarm: str
    value: float | None
    """None if it is infinite: JSON has no such number."""
    threshold: float
    consequence: Consequence

    @property
    def text(self) -> str:
        """One line for people: `ess 0.041 < 0.1 (warn)`."""
        rule = RULES[self.alarm]
        value = "infinite" if self.value is None else f"{self.value:{rule.number}}"
        return f"{self.alarm} {value} {rule.symbol} {self.threshold:g} ({self.consequence})"

    @property
    def about(self) -> str:
        """Description of the measured number."""
        return str(Alarms.model_fields[self.alarm].description)


def fired(metrics: NumbersByName, alarms: Alarms) -> list[Fired]:
    """Return the alarms that these metrics set off, in the order of `RULES`. An absent metric sets off none."""
    found = []
    for name, rule in RULES.items():
        alarm: Alarm = getattr(alarms, name)
        value = None if alarm.consequence == "none" else rule.measure(metrics)
        if value is not None and _COMPARE[rule.symbol](value, alarm.threshold):
            finite = value if math.isfinite(value) else None
            found.append(Fired(name, finite, alarm.threshold, alarm.consequence))
    return found


def blocking(found: Iterable[Fired]) -> bool:
    """Return True if the optimizer step must not be taken."""
    return any(each.consequence != "warn" for each in found)


def in_a_row(
    before: NumbersByName, metrics: NumbersByName, alarms: Alarms, *, sampler_is_behind: bool
) -> dict[str, int]:
    """Return the metrics that count batches. `before` are the metrics of the previous batch.

    - signal/none_in_a_row: batches without a signal, up to this one.
    - train/no_step_in_a_row: batches with a signal, and not skipped, since the last optimizer step.
    - train/skipped_in_a_row: batches with a skipped step, up to this one. A batch that was only too far from the policy
      does not count while `sampler_is_behind`, since the next weight sync fixes that.
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
    """Return True if the only reason for the skip is the distance of the samples from the policy."""
    why = {each.alarm for each in fired(metrics, alarms) if each.consequence != "warn"}
    return bool(why) and why <= {"ratio", "ess"}


def summary(steps: Sequence[NumbersByName]) -> str:
    """Return a line for a run: `3 alarms: ess 2 times (steps 5 to 9), not_finite once (step 7)`, or nothing."""
    seen = [(each["alarm"], line["step"] + 1) for line in steps for each in line.get("alarms", ())]
    if not seen:
        return ""
    counts = Counter(name for name, _ in seen)
    parts = []
    for name, count in counts.most_common():
        at = [step for other, step in seen if other == name]
        where = f"step {at[0]}" if count == 1 else f"steps {at[0]} to {at[-1]}"
        parts.append(f"{name} {'once' if count == 1 else f'{count} times'} ({where})")
    return f"{len(seen)} alarm{'s' if len(seen) > 1 else ''}: {', '.join(parts)}"


def table() -> Iterator[str]:
    """Yield the lines of the Markdown table of alarms in `docs/instruments.md`."""
    yield "| alarm | fires when | threshold | consequence |"
    yield "|---|---|---|---|"
    for name, rule in RULES.items():
        alarm: Alarm = Alarms.model_fields[name].default
        metrics = " + ".join(f"`{metric}`" for metric in rule.metrics)
        condition = "not finite, count >" if rule.combine is _not_finite else rule.symbol
        yield f"| `{name}` | {metrics} {condition} | {alarm.threshold:g} | {alarm.consequence} |"
