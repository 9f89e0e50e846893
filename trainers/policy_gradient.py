"""What every policy-gradient trainer here shares: from groups to optimizer steps. The objective is the subclass's.

Shapes: B = rollouts of the batch, T = tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from torch import Tensor

from rlvr.protocols import Group, Metrics, TrainContext, Weights
from rlvr.schema import Rollout

from .advantage import has_signal
from .batch import Batch, collate, micro_batches, token_columns
from .lora import LoraOptions
from .losses import Aggregation, token_weights
from .metrics import off_policy_metrics
from .policy import Policy
from .prefix_tree import tree_micro_batches


class PolicyGradientOptions(BaseModel):
    """Keys of the configuration's `trainer` section that all policy-gradient trainers have."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    lr: float = Field(default=1e-6, gt=0, description="AdamW's learning rate")
    warmup_updates: int = Field(default=0, ge=0, description="optimizer steps over which lr rises linearly from 0")
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    updates_per_batch: int = Field(default=1, ge=1, description="i: gradient steps on each batch")
    beta: float = Field(default=0.0, ge=0, description="weight of KL(π ‖ π_ref); 0 holds no reference model")
    ref_reset_every: int | None = Field(default=None, ge=1, description="π_ref ← π_θ every this many batches (M)")
    aggregation: Aggregation = "sequence_mean"
    max_tokens: int = Field(default=1024, ge=1, description="the divisor of aggregation=constant")
    mask_zero_variance: bool = Field(default=True, description="eq. 8: groups with equal rewards train nothing")
    divide_by: Literal["all", "kept"] = Field(default="all", description="whether masked groups count in the mean")
    advantage_epsilon: float = Field(default=1e-6, ge=0, description="ε in A = (r - μ) / sqrt(σ² + ε)")
    micro_batch_tokens: int = Field(default=16384, ge=1, description="tokens, padding included, of one forward pass")
    gradient_checkpointing: bool = False
    float32_head: bool = Field(default=False, description="the output layer computes in float32 at any dtype")
    lora: LoraOptions | None = Field(default=None, description="train a low-rank adapter: {rank, alpha, targets}")
    share_prefixes: bool = Field(
        default=False,
        description="rows that begin alike go through the model once; the plain pass up to rounding; needs attention "
        "that takes a 4-D mask",
    )

    @field_validator("ref_reset_every")
    @classmethod
    def _reset_needs_a_reference(cls, every: int | None, info: ValidationInfo) -> int | None:
        if every is not None and info.data.get("beta") == 0:
            raise ValueError("there is no reference to reset while trainer.beta is 0")
        return every

    @field_validator("lora")
    @classmethod
    def _adapter_off_is_the_reference(cls, lora: LoraOptions | None, info: ValidationInfo) -> LoraOptions | None:
        if lora is not None and info.data.get("ref_reset_every") is not None:
            raise ValueError("the reference is then the model without the adapter: leave trainer.ref_reset_every out")
        return lora


class PolicyGradient(ABC):
    """A `Trainer` whose subclasses say what is maximised, token by token."""

    Options: ClassVar[type[PolicyGradientOptions]] = PolicyGradientOptions
    push_every: int = 1

    def __init__(self, options: PolicyGradientOptions, context: TrainContext) -> None:
        self.options = options
        self.policy = Policy(
            context.model,
            temperature=context.temperature,
            betas=options.betas,
            weight_decay=options.weight_decay,
            gradient_checkpointing=options.gradient_checkpointing,
            with_reference=options.beta > 0,
            share_prefixes=options.share_prefixes,
            float32_head=options.float32_head,
            lora=options.lora,
            seed=context.seed,
        )
        self.batches = 0

    @abstractmethod
    def objective(self, batch: Batch, logprobs_BT: Tensor) -> Tensor:
        """(B, T) what is maximised at each token. Entries outside the mask are ignored."""

    def prepare(self, batch: Batch) -> Batch:
        """The batch with the columns that stay fixed over its gradient steps. Subclasses add to it."""
        if self.options.beta == 0:
            return batch
        return replace(batch, reference_logprobs_BT=self._no_grad(batch, self.policy.reference_logprobs))

    @property
    def version(self) -> int:
        """Optimizer steps completed."""
        return self.policy.version

    def update(self, groups: Sequence[Group]) -> Metrics:
        """`updates_per_batch` optimizer steps on one batch. With no group to learn from, none: AdamW's momentum would
        move the weights without a gradient."""
        options = self.options
        if options.beta > 0 and options.ref_reset_every and self.batches % options.ref_reset_every == 0:
            self.policy.reset_reference()
        self.batches += 1
        if not groups:
            return {"signal/groups": 0.0, "train/optimizer_steps": 0.0}
        batch = collate(groups, advantage_epsilon=options.advantage_epsilon, temperature=self.policy.temperature)
        learns_B = batch.signal_B if options.mask_zero_variance else torch.ones_like(batch.signal_B)
        metrics = {
            "signal/groups": sum(has_signal(group.stats) for group in groups) / len(groups),
        }
        if not bool(learns_B.any()):
            return {**metrics, "train/optimizer_steps": 0.0}
        weights_BT = token_weights(
            batch.mask_BT, learns_B, options.aggregation, divide_by=options.divide_by, max_tokens=options.max_tokens
        )
        # Rows without weight add nothing to the gradient: they are not even computed.
        kept = learns_B.nonzero().squeeze(1)
        batch, weights_BT = batch.rows(kept), weights_BT[kept]
        batch = self.prepare(batch)
        for _ in range(options.updates_per_batch):
            metrics |= self._optimizer_step(batch, weights_BT)
        return {**metrics, "train/optimizer_steps": float(options.updates_per_batch)}

    def _optimizer_step(self, batch: Batch, weights_BT: Tensor) -> dict[str, float]:
        logprobs_BT = torch.zeros_like(batch.behaviour_logprobs_BT)
        entropy_BT = torch.zeros_like(logprobs_BT)
        loss = 0.0
        for part, index in self._parts(batch):
            width = part.token_ids_BT.shape[1]
            out = self.policy.logprobs(part.token_ids_BT, part.mask_BT)
            objective_BT = torch.where(part.mask_BT, self.objective(part, out.logprobs_BT), 0.0)
            part_loss = -(weights_BT[index, :width].to(objective_BT.device) * objective_BT).sum()
            part_loss.backward()  # type: ignore[no-untyped-call]
            loss += part_loss.item()
            logprobs_BT[index, :width] = out.logprobs_BT.detach().cpu()
            entropy_BT[index, :width] = out.entropy_BT.cpu()
        version = self.policy.version
        lr = self.options.lr * min(1.0, (version + 1) / max(1, self.options.warmup_updates))
        grad_norm = self.policy.step(lr, self.options.max_grad_norm)
        return {
            "train/loss": loss,
            "train/grad_norm": grad_norm,
            "train/lr": lr,
            **off_policy_metrics(batch, logprobs_BT, entropy_BT, version),
            **self.objective_metrics(batch, logprobs_BT),
        }

    def objective_metrics(self, batch: Batch, logprobs_BT: Tensor) -> dict[str, float]:
        """What the subclass wants to see of a gradient step."""
        return {}

    def logprobs(self, rollouts: Sequence[Rollout]) -> list[tuple[float | None, ...]]:
        """Per rollout, (T,) log-probabilities under the current weights; None where the loss mask is False.

        Raises RunError for a record without tokens or mask.
        """
        if not rollouts:
            return []
        batch = token_columns(rollouts)
        logprobs_BT = self.current_logprobs(batch)
        return [
            tuple(p if m else None for p, m in zip(row[: int(n)].tolist(), mask[: int(n)].tolist(), strict=True))
            for row, mask, n in zip(logprobs_BT, batch.mask_BT, batch.lengths_B, strict=True)
        ]

    def current_logprobs(self, batch: Batch) -> Tensor:
        """(B, T) under the current weights, without gradients, on the CPU."""
        return self._no_grad(batch, lambda token_ids, mask: self.policy.logprobs(token_ids, mask).logprobs_BT)

    @torch.no_grad()
    def _no_grad(self, batch: Batch, logprobs: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        result_BT = torch.zeros_like(batch.behaviour_logprobs_BT)
        for part, index in self._parts(batch):
            result_BT[index, : part.token_ids_BT.shape[1]] = logprobs(part.token_ids_BT, part.mask_BT).cpu()
        return result_BT

    def _parts(self, batch: Batch) -> Iterator[tuple[Batch, Tensor]]:
        """Micro-batches on the model's device, each with the rows that it holds."""
        budget = self.options.micro_batch_tokens
        if self.options.share_prefixes:
            indices = tree_micro_batches(batch.token_ids_BT, batch.mask_BT, budget)
        else:
            indices = micro_batches(batch.lengths_B, budget)
        for index in indices:
            yield batch.rows(index).to(self.policy.spec.device), index

    def weights(self) -> Weights:
        """The current float32 weights (a view: copy what you keep)."""
        return self.policy.weights()

    def save(self, directory: Path) -> None:
        """Write everything the next update depends on; `from_pretrained` reads the model from it."""
        self.policy.save(directory, {"batches": self.batches})

    def load(self, directory: Path) -> None:
        """Read back what `save` wrote."""
        self.batches = self.policy.load(directory)["batches"]
