"""Options of an adapter, in a module of their own: reading options needs no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class LoraOptions(BaseModel):
    """Keys of `trainer.lora`."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    rank: int = Field(default=16, ge=1, description="rank of the adapter's matrices")
    alpha: int = Field(default=32, ge=1, description="the adapter's output is multiplied by alpha / rank")
    targets: Literal["all-linear"] | tuple[str, ...] = Field(
        default="all-linear",
        description="names of the layers to adapt; all-linear is every linear layer except the output layer",
    )
