"""`grpo`: on-policy GRPO (arXiv 2402.03300, eq. 3), v1-i1 by default; v1-i10 with `updates_per_batch: 10`.

Deviations from the paper: the KL penalty is off by default (`beta: 0`), and groups whose rewards are all equal are
masked (arXiv 2505.22257, eq. 8; `mask_zero_variance: false` restores the original).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from pydantic import model_validator

from rlvr.protocols import TrainContext
from rlvr.record.schema import TOPK_IDS, TOPK_LOGPROBS, Rollout

from .batch import Batch
from .loss.advantage import ADVANTAGES
from .loss.aggregation import AGGREGATIONS
from .loss.axes import readers, summary
from .loss.composition import LOSS_AXES, LossOptions, compose
from .loss.corrections import CORRECTIONS
from .loss.masks import FIXED_MASKS, LIVE_MASKS
from .loss.ratios import log_ratio, token
from .metrics import Removed
from .policy_gradient import PolicyGradient, PolicyGradientOptions

if TYPE_CHECKING:
    from torch import Tensor

AXES: Mapping[str, Mapping[str, Any]] = {
    "advantage": ADVANTAGES,
    **LOSS_AXES,
    "aggregation": AGGREGATIONS,
    "divide_by": {
        "all": "tokens that masks and corrections remove count in the mean",
        "kept": "tokens that masks and corrections remove do not count in the mean, except those of the masks over π",
    },
    "masks": {**FIXED_MASKS, **LIVE_MASKS},
    "mask_zero_variance": {
        "true": "groups whose rewards are all equal are left out: the factor 1[σ ≠ 0] of arXiv 2505.22257, eq. 8",
        "false": "groups whose rewards are all equal train too: through the KL term, and advantages that are not 0",
    },
}


class GrpoOptions(LossOptions, PolicyGradientOptions):
    """Keys of `trainer` for `grpo`."""

    @property
    def needs_lag(self) -> tuple[str, ...]:
        """Return the settings that need policy versions, including an interpolated center."""
        return super().needs_lag + (("trainer.center=interpolated",) if self.center == "interpolated" else ())

    @property
    def needs_whole_rollouts(self) -> tuple[str, ...]:
        """Return the settings that look at whole rollouts, including products and means over a completion."""
        correction = CORRECTIONS[self.correction]
        given = {
            f"ratio={self.ratio}": self.ratio != "token",
            f"correction={self.correction}": correction is not None and correction.level is not token,
            "masks=opsm": "opsm" in self.masks,
            "masks=cppo": "cppo" in self.masks,
        }
        return super().needs_whole_rollouts + tuple(f"trainer.{name}" for name, is_given in given.items() if is_given)

    @property
    def needs_topk(self) -> tuple[str, ...]:
        """Return the settings that need the sampler's likeliest tokens."""
        return ("trainer.centering=score",) if self.centering == "score" else ()

    def lacks(self, rollout: Rollout) -> str | None:
        """Return the field that a saved rollout lacks, including its likeliest tokens."""
        if self.needs_topk and not {TOPK_IDS, TOPK_LOGPROBS} <= rollout.extra_tokens.keys():
            return f"no extra_tokens.{TOPK_IDS}, which {self.needs_topk[0]} needs"
        return super().lacks(rollout)

    @model_validator(mode="after")
    def _reject_unused_numbers(self) -> Self:
        """Reject a number that was changed from its default and that no chosen part reads."""
        chosen = {(axis, name) for axis, name, _ in self.composition()}
        for option, parts in readers(AXES, type(self)).items():
            default = type(self).model_fields[option].default
            if option in self.model_fields_set and getattr(self, option) != default and not chosen & parts:
                belongs = " or ".join(f"{axis}={name}" for axis, name in sorted(parts))
                raise ValueError(
                    f"trainer.{option} does nothing here: it belongs to {belongs}. Leave it out, or, where a recipe "
                    f"sets it, put its default back: --set trainer.{option}={json.dumps(default)}"
                )
        if self.beta == 0 and self.kl != type(self).model_fields["kl"].default:
            raise ValueError(f"trainer.kl={self.kl} does nothing while trainer.beta is 0, leave it out")
        return self

    @classmethod
    def parts(cls) -> list[tuple[str, str, str]]:
        """Return all parts: axis, name, and a one-line description."""
        return [(axis, name, summary(entry)) for axis, table in AXES.items() for name, entry in table.items()]

    def composition(self) -> list[tuple[str, str, str]]:
        """Return the parts that these options choose: axis, name, and a one-line description."""
        given = {axis: getattr(self, axis) for axis in AXES} | {
            "mask_zero_variance": str(self.mask_zero_variance).lower()
        }
        without = {"kl"} if self.beta == 0 else set()
        return [
            (axis, name, self._as_set(axis, name, what))
            for axis, name, what in self.parts()
            if axis not in without and (name in given[axis] if axis == "masks" else name == given[axis])
        ]

    def _as_set(self, axis: str, name: str, what: str) -> str:
        """Return a part's description with the numbers that these options give it."""
        correction = CORRECTIONS[self.correction]
        if axis == "correction" and correction is not None:
            return correction.within(self.stale_bounds, self.mismatch_bounds)
        read = [option for option, parts in readers(AXES, type(self)).items() if (axis, name) in parts]
        numbers = {option: getattr(self, option) for option in sorted(read)}
        if "max_tokens" in numbers and self.max_tokens is None:
            numbers["max_tokens"] = "sampling.max_tokens"
        shown = ", ".join(f"{option} = {value}" for option, value in numbers.items() if value is not None)
        return f"{what}; {shown}" if shown else what


class Grpo(PolicyGradient):
    """Trainer of a composed loss. By default, the objective per token is f_ε(π/α, r', A) - β·KL(π ‖ π_ref) with r' = 1
    (arXiv 2505.22257, eqs. 6 and 7)."""

    Options = GrpoOptions
    options: GrpoOptions

    def __init__(self, options: GrpoOptions, context: TrainContext) -> None:
        super().__init__(options, context)
        self.loss = compose(options, options.beta)

    def prepare(self, batch: Batch) -> Batch:
        """Add log π_k, of the policy before the batch's first gradient step, and the correction, if the loss uses
        them."""
        batch = super().prepare(batch)
        if self.loss.needs_iterate:
            batch = replace(batch, iterate_logprobs_BT=self.current_logprobs(batch))
        return self.loss.correct(batch, self.version)

    def begin_step(self, batch: Batch, step: int) -> Batch:
        """Add what the loss derives from the whole batch before it is split."""
        return self.loss.begin_step(batch, self.version, step, lambda: self.current_logprobs(batch))

    def objective(self, batch: Batch, logprobs_BT: Tensor) -> Tensor:
        """Return the (B, T) objective of the composition."""
        return self.loss.objective(batch, logprobs_BT)

    def removed(self, batch: Batch, logprobs_BT: Tensor) -> Removed:
        """Return the tokens where the band acts, and those that a mask or the correction has removed."""
        return Removed(self.loss.bounded(batch, logprobs_BT), self.loss.masked(batch, logprobs_BT))

    def objective_metrics(self, batch: Batch, logprobs_BT: Tensor) -> dict[str, float]:
        """Return the width of a band that is solved for the batch, and KL(π ‖ π_ref) per token."""
        metrics: dict[str, float] = {}
        if batch.width_B is not None:
            metrics["clip/width"] = batch.width_B[0].item()
        if batch.reference_logprobs_BT is not None:
            log_ratio_BT = log_ratio(logprobs_BT, batch.behaviour_logprobs_BT, batch.mask_BT)
            kl_BT = self.loss.kl(logprobs_BT, batch.reference_logprobs_BT, log_ratio_BT.exp())
            metrics["kl/reference"] = kl_BT[batch.mask_BT].mean().item()
        return metrics
