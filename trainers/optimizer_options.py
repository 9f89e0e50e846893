"""Options of AdamW and of its learning rate."""

from __future__ import annotations

from math import ceil
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from rlvr.protocols import TrainerOptions

Decay: TypeAlias = Annotated[float, Field(ge=0, lt=1)]
Share: TypeAlias = Annotated[float, Field(ge=0, lt=1)]


class OptimizerOptions(TrainerOptions):
    """Keys of the configuration's `trainer` section that set the optimizer and the learning rate."""

    lr: float = Field(default=1e-6, gt=0, description="AdamW's learning rate")
    lr_schedule: Literal["constant", "linear", "cosine"] = Field(
        default="constant", description="course of lr over the planned optimizer steps: constant, linear, cosine"
    )
    lr_floor: Share = Field(
        default=0.0, description="lowest rate of lr_schedule=linear and cosine, as a share of lr; 0.1 ends at lr / 10"
    )
    warmup_updates: int = Field(default=0, ge=0, description="optimizer steps over which lr rises linearly from 0")
    warmup_share: Share = Field(
        default=0.0, description="the same as a share of the planned optimizer steps, instead of warmup_updates"
    )
    ess_base: float | None = Field(
        default=None, gt=0, le=1, description="lr × sqrt(min(1, (ESS/B) / this)), ESS of the sequences (VCPO)"
    )
    lag_base: float | None = Field(
        default=None, gt=0, description="lr × min(1, this / mean lag): staleness × lr stays bounded"
    )
    betas: tuple[Decay, Decay] = Field(default=(0.9, 0.999), description="AdamW's decay rates")
    adam_epsilon: float = Field(default=1e-8, gt=0, description="AdamW's ε, added to the root of the second moment")
    weight_decay: float = Field(
        default=0.0, ge=0, description="AdamW's weight decay, of matrices and embeddings; norms and biases have none"
    )
    max_grad_norm: float = Field(default=1.0, gt=0, description="gradients are clipped to this norm")

    @model_validator(mode="after")
    def _one_warmup_and_a_floor_that_is_reached(self) -> Self:
        if self.warmup_updates and self.warmup_share:
            raise ValueError("trainer.warmup_updates and trainer.warmup_share both set the warmup: give one of them")
        if self.lr_floor and self.lr_schedule == "constant":
            raise ValueError("trainer.lr_floor does nothing while trainer.lr_schedule is constant")
        return self

    @property
    def depends_on_steps(self) -> tuple[str, ...]:
        """Settings whose effect depends on the run's number of steps."""
        given = {"lr_schedule": self.lr_schedule != "constant", "warmup_share": self.warmup_share > 0}
        return tuple(f"trainer.{name}" for name, is_given in given.items() if is_given)

    def warmup(self, updates: int) -> int:
        """Return the optimizer steps of the warmup, for a run of `updates` planned ones."""
        return ceil(self.warmup_share * updates) or self.warmup_updates
