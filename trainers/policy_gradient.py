"""Base class of the policy-gradient trainers: from groups to optimizer steps. Subclasses define the objective.

Shapes: B = rollouts of the batch, T = tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from rlvr.alarms import blocking, fired
from rlvr.errors import ConfigError, RunError
from rlvr.protocols import Group, Metrics, ModelSize, RunSize, Snapshot, TrainContext, TrainerOptions
from rlvr.record.schema import LogprobColumn, Rollout
from rlvr.verify.composition import weights_of

from .batch import UNKNOWN, Batch, Support, collate, micro_batches, mini_batches, token_columns
from .loss.advantage import ADVANTAGES, whiten_parts
from .loss.aggregation import AGGREGATIONS, token_weights
from .loss.axes import bind, one_of
from .loss.masks import FIXED_MASKS
from .loss.ratios import log_ratio
from .loss.shaping import shape_overlong
from .metrics import Removed, group_metrics, mask_metrics, step_metrics, worst
from .model.lora_options import LoraOptions
from .optimizer_options import OptimizerOptions
from .schedule import ess_factor, lag_factor, rates

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from . import late_torch as torch


FLOAT32 = 4
"""Bytes of a weight, a gradient and each of AdamW's moments."""


class PolicyGradientOptions(OptimizerOptions):
    """Keys of the configuration's `trainer` section that all policy-gradient trainers have."""

    updates_per_batch: int = Field(
        default=1, ge=1, description="i: passes over each batch, one gradient step per mini-batch"
    )
    mini_batches: int = Field(
        default=1,
        ge=1,
        description="number of parts, of whole groups, that a batch is split into; each is a gradient step",
    )
    beta: float = Field(default=0.0, ge=0, description="weight of KL(π ‖ π_ref); with 0, no reference model is loaded")
    ref_reset_every: int | None = Field(default=None, ge=1, description="π_ref ← π_θ every this many batches (M)")
    aggregation: Annotated[str, one_of("aggregation", AGGREGATIONS)] = Field(
        default="sequence_mean", description="mean over tokens: sequence_mean, token_mean or constant"
    )
    max_tokens: int | None = Field(
        default=None, ge=1, description="divisor of aggregation=constant; null is sampling.max_tokens"
    )
    mask_zero_variance: bool = Field(default=True, description="leave out groups whose rewards are equal (eq. 8)")
    masks: tuple[Annotated[str, one_of("mask", FIXED_MASKS)], ...] = Field(
        default=(), description="rollouts to leave out: truncated, max_lag"
    )
    max_lag: int | None = Field(
        default=None, ge=0, description="largest lag kept by the mask max_lag, in optimizer steps"
    )
    divide_by: Literal["all", "kept"] = Field(
        default="all",
        description="whether masked groups and rejected tokens count in the mean: all, kept; tokens removed by "
        "masks over π (opsm, dppo_tv, ipo, cppo) always count",
    )
    advantage: Annotated[str, one_of("advantage", ADVANTAGES)] = Field(
        default="whitened", description="advantage from a group's rewards: whitened, centered, opmd or raw"
    )
    advantage_epsilon: float = Field(default=1e-6, ge=0, description="ε in A = (r - μ) / sqrt(σ² + ε)")
    normalize_parts: bool = Field(
        default=False, description="whiten each part of a weighted sum of verifiers by itself, then add (GDPO)"
    )
    tau: float = Field(default=1.0, gt=0, description="τ of advantage=opmd")
    overlong_buffer: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="last part of max_tokens, as a share, over which a length penalty rises to 1 (DAPO)",
    )
    micro_batch_tokens: int = Field(default=16384, ge=1, description="tokens, padding included, of one forward pass")
    gradient_checkpointing: bool = Field(
        default=False, description="recompute activations in the backward pass: less memory, more time"
    )
    float32_head: bool = Field(default=False, description="compute the output layer in float32, whatever the dtype")
    lora: LoraOptions | None = Field(default=None, description="train a low-rank adapter: {rank, alpha, targets}")
    share_prefixes: bool = Field(
        default=False,
        description="compute the shared prefix of rows once; equal up to rounding; needs attention that accepts a "
        "4-D mask",
    )

    def with_run(self, max_tokens: int) -> tuple[Self, list[str]]:
        """Return the options with the divisor of `aggregation=constant` taken from the run, and a note if it was."""
        if self.aggregation != "constant" or self.max_tokens is not None:
            return self, []
        note = f"trainer.aggregation=constant divides by {max_tokens} tokens a rollout, the run's sampling.max_tokens"
        return self.model_copy(update={"max_tokens": max_tokens}), [f"{note} (trainer.max_tokens is not set)"]

    def memory(self, model: ModelSize, run: RunSize) -> Mapping[str, int]:
        """Return the bytes of each part. Activations are an estimate: each layer keeps its inputs and those of its
        products; the output layer's logits are computed in chunks."""
        trained = model.parameters
        if self.lora is not None:
            trained = self.lora.rank * sum(inputs + outputs for inputs, outputs in model.linear)
        held = model.parameters + (trained if self.lora is not None else 0)
        layer = 6 * model.hidden + 2 * model.key_value + 4 * model.intermediate
        kept = model.layers * model.hidden + layer if self.gradient_checkpointing else model.layers * layer
        tokens = max(self.micro_batch_tokens, run.longest)
        separate = self.beta > 0 and self.lora is None
        return {
            "weights": FLOAT32 * held,
            "gradients": FLOAT32 * trained,
            "optimizer": 2 * FLOAT32 * trained,
            **({"reference": FLOAT32 * model.parameters} if separate else {}),
            "activations": model.compute_bytes * kept * tokens,
        }

    @field_validator("ref_reset_every")
    @classmethod
    def _reset_needs_a_reference(cls, every: int | None, info: ValidationInfo) -> int | None:
        if every is not None and info.data.get("beta") == 0:
            raise ValueError("there is no reference to reset while trainer.beta is 0")
        return every

    @model_validator(mode="after")
    def _max_lag_is_a_mask_and_a_number(self) -> Self:
        if ("max_lag" in self.masks) != (self.max_lag is not None):
            raise ValueError("trainer.max_lag: set both masks: [max_lag] and max_lag: N, or neither")
        return self

    @model_validator(mode="after")
    def _parts_are_whitened_and_are_the_whole_reward(self) -> Self:
        if self.normalize_parts and self.advantage != "whitened":
            raise ValueError(
                f"trainer.normalize_parts whitens, and trainer.advantage is {self.advantage}: leave one out"
            )
        if self.normalize_parts and self.overlong_buffer is not None:
            raise ValueError(
                "trainer.normalize_parts: trainer.overlong_buffer adds to the sum and to no part; give the verifier a "
                "part with a negative weight instead"
            )
        return self

    @property
    def steps_per_batch(self) -> int:
        """i: `updates_per_batch` passes over `mini_batches` parts, with an optimizer step on each part."""
        return self.updates_per_batch * self.mini_batches

    @property
    def needs_lag(self) -> tuple[str, ...]:
        """Settings that cannot handle a token of unknown policy version."""
        given = {"max_lag": self.max_lag, "lag_base": self.lag_base}
        return tuple(f"trainer.{name}" for name, value in given.items() if value is not None)

    def lacks(self, rollout: Rollout) -> str | None:
        """Return the field that a saved rollout lacks for these options; None if it lacks none."""
        if "truncated" in self.masks and rollout.finish_reason is None:
            return "no finish_reason, which trainer.masks=truncated needs"
        limit = rollout.sampling.max_tokens if rollout.sampling is not None else None
        if self.overlong_buffer is not None and limit is None:
            return "no sampling.max_tokens, which trainer.overlong_buffer needs"
        if self.normalize_parts and not any(weights_of(score.config) for score in rollout.scores):
            return "no score that is a weighted sum, which trainer.normalize_parts needs"
        return None

    @property
    def needs_parts(self) -> tuple[str, ...]:
        """Settings that need rewards which are weighted sums of parts."""
        return ("trainer.normalize_parts",) if self.normalize_parts else ()

    @property
    def needs_whole_rollouts(self) -> tuple[str, ...]:
        """Settings that would mistake a segment of a rollout for a whole one. Aggregations do not."""
        given = {
            "overlong_buffer": self.overlong_buffer is not None,
            "advantage=opmd": self.advantage == "opmd",
            "ess_base": self.ess_base is not None,
            "normalize_parts": self.normalize_parts,
        }
        return tuple(f"trainer.{name}" for name, is_given in given.items() if is_given)

    @property
    def adapter_rank(self) -> int | None:
        """`trainer.lora.rank`; None without an adapter."""
        return None if self.lora is None else self.lora.rank

    @field_validator("lora")
    @classmethod
    def _adapter_off_is_the_reference(cls, lora: LoraOptions | None, info: ValidationInfo) -> LoraOptions | None:
        if lora is not None and info.data.get("ref_reset_every") is not None:
            raise ValueError("the reference is then the model without the adapter: leave trainer.ref_reset_every out")
        return lora


class PolicyGradient(ABC):
    """A `Trainer` whose subclasses define the objective, token by token."""

    Options: ClassVar[type[TrainerOptions]] = PolicyGradientOptions
    owns_loop: ClassVar[Literal[False]] = False

    def __init__(self, options: PolicyGradientOptions, context: TrainContext) -> None:
        if options.aggregation == "constant" and options.max_tokens is None:
            raise ConfigError("trainer.max_tokens: aggregation=constant needs its divisor")
        from .model.policy import Policy  # imports torch and transformers, which reading options does not need

        self.options = options
        self.alarms = context.alarms
        self.policy = Policy(
            context.model,
            temperature=context.temperature,
            betas=options.betas,
            adam_epsilon=options.adam_epsilon,
            weight_decay=options.weight_decay,
            gradient_checkpointing=options.gradient_checkpointing,
            with_reference=options.beta > 0,
            share_prefixes=options.share_prefixes,
            float32_head=options.float32_head,
            lora=options.lora,
            seed=context.seed,
        )
        updates = context.total_updates * options.steps_per_batch
        self._rate = rates(options.lr_schedule, updates, warmup=options.warmup(updates), floor=options.lr_floor)
        self.batches = 0

    @abstractmethod
    def objective(self, batch: Batch, logprobs_BT: Tensor) -> Tensor:
        """Return (B, T) the objective of each token, to be maximized. Entries outside the mask are ignored."""

    def prepare(self, batch: Batch) -> Batch:
        """Return the batch with the columns that stay fixed over its gradient steps. Subclasses may add columns."""
        if self.options.beta == 0:
            return batch
        return replace(batch, reference_logprobs_BT=self._no_grad(batch, self.policy.reference_logprobs))

    @property
    def version(self) -> int:
        """Optimizer steps completed."""
        return self.policy.version

    def update(self, groups: Sequence[Group]) -> Metrics:
        """Make `updates_per_batch` passes over one batch, with an optimizer step on each of its `mini_batches`.

        An alarm that forbids a step ends the update. If no token is left to train on, no step is taken, because AdamW's
        momentum would move the weights without a gradient.
        """
        options, version = self.options, self.version
        if options.ref_reset_every and self.batches and self.batches % options.ref_reset_every == 0:
            self.policy.reset_reference()
        self.batches += 1
        if not groups:
            return {"signal/groups": 0.0, "train/optimizer_steps": 0.0}
        if options.overlong_buffer is not None:
            groups = [shape_overlong(group, options.overlong_buffer) for group in groups]
        advantage = bind(ADVANTAGES[options.advantage], options)
        by_part = bind(whiten_parts, options) if options.normalize_parts else None
        batch = collate(
            groups,
            advantage=advantage,
            temperature=self.policy.temperature,
            by_part=by_part,
            needs_topk=options.needs_topk,
        )
        whole, signal_BT = batch, self.signal(batch)
        batch = replace(batch, keep_BT=self.keep(batch))
        masked_BT = signal_BT & ~batch.keep_BT
        metrics = group_metrics(groups, version)
        # Rows without weight add nothing to the gradient: they are not even computed.
        rows = batch.keep_BT.any(1).nonzero().squeeze(1)
        if len(rows) == 0:
            masks = mask_metrics(whole, signal_BT, masked_BT, version)
            return {**metrics, **masks, "train/optimizer_steps": 0.0}
        keep_BT = torch.zeros_like(batch.keep_BT)
        batch = self.prepare(batch.rows(rows))
        keep_BT[rows, : batch.mask_BT.shape[1]] = batch.keep_BT
        divisor = bind(AGGREGATIONS[options.aggregation], options)
        parts = []
        for own in mini_batches(groups, options.mini_batches):
            weights_PT = token_weights(
                whole.mask_BT[own],
                keep_BT[own],
                divisor,
                divide_by=options.divide_by,
                rollout_B=whole.rollout_B[own],
            )
            computed = torch.isin(own, rows)
            if computed.any():
                parts.append((own[computed], weights_PT[computed]))
        for done, (own, weights_PT) in enumerate(parts * options.updates_per_batch):
            before = self.version
            rate = self._rate((self.batches - 1) * options.steps_per_batch + done)
            part = self.begin_step(batch.rows(torch.searchsorted(rows, own)), before - version)
            width = part.mask_BT.shape[1]
            found, masked_BT[own, :width] = self._optimizer_step(part, weights_PT[:, :width], rate)
            metrics |= found | worst(metrics, found) | mask_metrics(whole, signal_BT, masked_BT, before)
            if metrics["train/skipped"]:
                break
        return {**metrics, "train/optimizer_steps": float(self.version - version)}

    def signal(self, batch: Batch) -> Tensor:
        """Return (B, T) bool: the sampled tokens, without the groups that `mask_zero_variance` leaves out."""
        return batch.mask_BT & batch.signal_B[:, None] if self.options.mask_zero_variance else batch.mask_BT

    def keep(self, batch: Batch) -> Tensor:
        """Return (B, T) bool: the tokens that the masks over recorded columns keep."""
        keep_BT = self.signal(batch)
        for name in self.options.masks:
            if name in FIXED_MASKS:
                keep_BT = keep_BT & bind(FIXED_MASKS[name], self.options)(batch, self.version)
        return keep_BT

    def begin_step(self, batch: Batch, step: int) -> Batch:
        """Return the batch with the columns that gradient step `step` (from 0) computes over the whole batch."""
        return batch

    def _optimizer_step(self, batch: Batch, weights_BT: Tensor, rate: float) -> tuple[dict[str, float], Tensor]:
        """Take one optimizer step at a share `rate` of the learning rate; return its metrics, and (B, T) bool: tokens
        that a mask or a correction took out."""
        logprobs_BT = torch.zeros_like(batch.behaviour_logprobs_BT)
        entropy_BT = torch.zeros_like(logprobs_BT)
        loss = 0.0
        for part, index in self._parts(batch):
            width = part.token_ids_BT.shape[1]
            out = self.policy.logprobs(part.token_ids_BT, part.mask_BT, part.support)
            part = replace(part, kept_logprobs_BTK=out.kept_BTK)
            objective_BT = torch.where(part.keep_BT, self.objective(part, out.logprobs_BT), 0.0)
            part_loss = -(weights_BT[index, :width].to(objective_BT.device) * objective_BT).sum()
            part_loss.backward()  # type: ignore[no-untyped-call]
            loss += part_loss.item()
            logprobs_BT[index, :width] = out.logprobs_BT.detach().cpu()
            entropy_BT[index, :width] = out.entropy_BT.cpu()
        version = self.policy.version
        removed = self.removed(batch, logprobs_BT)
        lr = self.options.lr * rate * self._lr_factor(batch, logprobs_BT)
        metrics = {
            "train/loss": loss,
            "train/grad_norm": self.policy.clip_gradients(self.options.max_grad_norm),
            "train/lr": lr,
            **step_metrics(batch, logprobs_BT, entropy_BT, removed.clipped_BT, version),
            **self.objective_metrics(batch, logprobs_BT),
        }
        skipped = blocking(fired(metrics, self.alarms))
        # Where everything is masked, AdamW's momentum would move the weights without a gradient. Tokens removed by a
        # live mask keep their KL term.
        learned_BT = batch.keep_BT if self.options.beta > 0 else batch.mask_BT & ~removed.masked_BT
        if skipped or not learned_BT.any():
            self.policy.discard_gradients()
        else:
            self.policy.step(lr)
        return {**metrics, "train/skipped": float(skipped)}, removed.masked_BT

    def removed(self, batch: Batch, logprobs_BT: Tensor) -> Removed:
        """Return the tokens without an effect on the objective at these log-probabilities."""
        return Removed(torch.zeros_like(batch.mask_BT), batch.mask_BT & ~batch.keep_BT)

    def _lr_factor(self, batch: Batch, logprobs_BT: Tensor) -> float:
        options, version = self.options, self.version
        factor = 1.0
        if options.ess_base is not None:
            log_ratio_BT = log_ratio(logprobs_BT, batch.behaviour_logprobs_BT, batch.mask_BT)
            factor *= ess_factor(log_ratio_BT, options.ess_base)
        if options.lag_base is not None:
            versions_N = batch.versions_BT[batch.mask_BT]
            if bool((versions_N == UNKNOWN).any()):
                raise RunError("trainer.lag_base needs the policy version of every sampled token, and some are unknown")
            factor *= lag_factor(version - versions_N.double().mean().item(), options.lag_base)
        return factor

    def objective_metrics(self, batch: Batch, logprobs_BT: Tensor) -> dict[str, float]:
        """Return further metrics of a gradient step. By default there are none."""
        return {}

    def logprobs(self, rollouts: Sequence[Rollout]) -> list[LogprobColumn]:
        """Return (T,) log-probabilities under the current weights for each rollout, NaN where the loss mask is False.

        Raise RunError for a record without tokens or mask.
        """
        if not rollouts:
            return []
        batch = token_columns(rollouts)
        logprobs_BT = self.current_logprobs(batch).masked_fill(~batch.mask_BT, torch.nan).numpy()
        return [row[:n] for row, n in zip(logprobs_BT, batch.lengths_B.tolist(), strict=True)]

    def current_logprobs(self, batch: Batch) -> Tensor:
        """Return (B, T) log-probabilities under the current weights, without gradients, on the CPU."""
        return self._no_grad(batch, lambda *inputs: self.policy.logprobs(*inputs).logprobs_BT)

    def _no_grad(self, batch: Batch, logprobs: Callable[[Tensor, Tensor, Support | None], Tensor]) -> Tensor:
        result_BT = torch.zeros_like(batch.behaviour_logprobs_BT)
        with torch.no_grad():
            for part, index in self._parts(batch):
                result_BT[index, : part.token_ids_BT.shape[1]] = logprobs(
                    part.token_ids_BT, part.mask_BT, part.support
                ).cpu()
        return result_BT

    def _parts(self, batch: Batch) -> Iterator[tuple[Batch, Tensor]]:
        """Yield micro-batches on the model's device, each with the indices of its rows."""
        budget = self.options.micro_batch_tokens
        if self.options.share_prefixes:
            from .model.prefix_tree import tree_micro_batches

            indices = tree_micro_batches(batch.token_ids_BT, batch.mask_BT, budget)
        else:
            indices = micro_batches(batch.lengths_B, budget)
        for index in indices:
            yield batch.rows(index).to(self.policy.spec.device), index

    def snapshot(self) -> Snapshot:
        """Return the current float32 weights by checkpoint name, an adapter merged into them."""
        return self.policy.snapshot()

    def save(self, directory: Path) -> None:
        """Write everything the next update depends on; `from_pretrained` reads the model from it."""
        self.policy.save(directory, {"batches": self.batches})

    def load(self, directory: Path) -> None:
        """Read what `save` wrote."""
        self.batches = self.policy.load(directory)["batches"]
