"""Groups of rollouts as tensors, and how a batch is cut into micro-batches.

Shapes: B = rollouts of all groups, T = tokens of the longest. Sequences are padded on the right: with causal attention
no real token sees the padding, so no attention mask is needed. Per-token tensors are index-aligned with token_ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from rlvr.errors import RunError
from rlvr.protocols import Group, RewardPart
from rlvr.record.schema import GroupStats, Rollout

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from . import late_torch as torch

UNKNOWN = -(2**62)
"""Policy version of a token whose version is unknown. Known versions may be below 0: saved rollouts have them."""

_ENOUGH = 1 / 8
"""Share of a micro-batch's token limit that is worth a forward pass of its own."""
_MUCH_SHORTER = 0.8
"""Share of the longest row."""


@dataclass(frozen=True)
class Batch:
    """Rows on one device, in the order of the groups they came from."""

    token_ids_BT: Tensor
    mask_BT: Tensor
    """bool: the behavior policy sampled this token, so it is part of the loss."""
    behaviour_logprobs_BT: Tensor
    """float32: log α, 0 where the mask is False."""
    versions_BT: Tensor
    """int64: the policy version that sampled the token; `UNKNOWN` if it is unknown or the mask is False."""
    lengths_B: Tensor
    """int64: tokens of the row without padding."""
    advantages_B: Tensor
    signal_B: Tensor
    """bool: the rollout's group has unequal rewards."""
    truncated_B: Tensor
    """bool: the completion ended at its length limit."""
    keep_BT: Tensor
    """bool: tokens of the mask that no mask of the trainer and no correction has removed."""
    rollout_B: Tensor
    """int64: number of the row's rollout. Segments of one rollout have the same."""
    iterate_logprobs_BT: Tensor | None = None
    """log π_k, of the policy before the batch's first gradient step."""
    reference_logprobs_BT: Tensor | None = None
    """log π_ref."""
    correction_BT: Tensor | None = None
    """Factor of the objective: the corrected π_k/α."""
    proximal_share_BT: Tensor | None = None
    """Position of π_k between α (0) and π (1), by policy versions (`centers.interpolated`)."""
    width_B: Tensor | None = None
    """Half-width of the band in log space, solved for the whole batch and equal for all its rows."""

    def rows(self, index: Tensor) -> Batch:
        """Return the rows `index`, cut to the longest of them."""
        longest = int(self.lengths_B[index].max())
        return self._each(lambda column: column[index, :longest] if column.dim() == 2 else column[index])

    def to(self, device: str) -> Batch:
        """Return the same batch on another device."""
        return self._each(lambda column: column.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(column) for name, column in columns.items() if column is not None})


def token_columns(rollouts: Sequence[Rollout]) -> Batch:
    """Return the per-token columns of records as tensors on the CPU; advantages and signals are still zero.

    Raises RunError for a record without tokens or with a mask that a causal model cannot serve.
    """
    for rollout in rollouts:
        if rollout.token_ids is None or rollout.loss_mask is None or not len(rollout.token_ids):
            raise RunError(f"rollout {rollout.id}: no token_ids or no loss_mask: it has no log-probabilities")
        if rollout.loss_mask[0]:
            raise RunError(f"rollout {rollout.id}: loss_mask marks the first token, which nothing predicts")
    ids = [rollout.token_ids for rollout in rollouts if rollout.token_ids is not None]
    lengths_B = np.array(list(map(len, ids)))
    shape = (len(rollouts), int(lengths_B.max()))
    token_ids_BT = np.zeros(shape, dtype=np.int64)
    mask_BT = np.zeros(shape, dtype=np.bool_)
    logprobs_BT = np.zeros(shape, dtype=np.float32)
    versions_BT = np.full(shape, UNKNOWN, dtype=np.int64)
    for b, (rollout, tokens) in enumerate(zip(rollouts, lengths_B.tolist(), strict=True)):
        token_ids_BT[b, :tokens] = ids[b]
        mask_BT[b, :tokens] = rollout.loss_mask
        if rollout.behaviour_logprobs is not None:
            np.copyto(logprobs_BT[b, :tokens], rollout.behaviour_logprobs, where=mask_BT[b, :tokens])
        if rollout.policy_versions:
            runs = rollout.policy_versions
            if len(runs) == 1:
                np.copyto(versions_BT[b], runs[0].version, where=mask_BT[b])
            else:
                versions_BT[b, mask_BT[b]] = np.repeat([r.version for r in runs], [r.count for r in runs])
    return Batch(
        token_ids_BT=torch.from_numpy(token_ids_BT),
        mask_BT=torch.from_numpy(mask_BT),
        behaviour_logprobs_BT=torch.from_numpy(logprobs_BT),
        versions_BT=torch.from_numpy(versions_BT),
        lengths_B=torch.from_numpy(lengths_B),
        advantages_B=torch.zeros(len(rollouts)),
        signal_B=torch.zeros(len(rollouts), dtype=torch.bool),
        truncated_B=torch.tensor([rollout.finish_reason == "length" for rollout in rollouts]),
        keep_BT=torch.from_numpy(mask_BT),
        rollout_B=torch.arange(len(rollouts)),
    )


def collate(
    groups: Sequence[Group],
    *,
    advantage: Callable[[Sequence[float], GroupStats], list[float]],
    temperature: float,
    by_part: Callable[[Sequence[RewardPart]], list[float]] | None = None,
) -> Batch:
    """Return the groups as a batch. Raise RunError, with id and reason, for a rollout that cannot be trained on.

    With `by_part`, the parts of the rewards give the advantages, and a group has a signal if the rewards of a part
    differ.
    """
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    for rollout in rollouts:
        check_trainable(rollout, temperature)
    numbers: dict[tuple[int, str], int] = {}  # of rollouts, by group and id: segments of one have both in common
    rollout_B = [numbers.setdefault((g, r.id), len(numbers)) for g, group in enumerate(groups) for r in group.rollouts]
    if by_part is None:
        advantages = [a for group in groups for a in advantage(group.rewards, group.stats)]
        signal = [group.stats.has_signal for group in groups for _ in group.rollouts]
    else:
        advantages = [a for group in groups for a in by_part(required_parts(group))]
        signal = [any(len(set(p.rewards)) > 1 for p in group.parts) for group in groups for _ in group.rollouts]
    return replace(
        token_columns(rollouts),
        advantages_B=torch.tensor(advantages, dtype=torch.float32),
        signal_B=torch.tensor(signal),
        rollout_B=torch.tensor(rollout_B),
    )


def required_parts(group: Group) -> Sequence[RewardPart]:
    """Return the parts of a group's rewards. Raise RunError if they are no weighted sums."""
    if not group.parts:
        raise RunError(
            f"group {group.rollouts[0].group_id}: its rewards are no weighted sums of parts, which "
            "trainer.normalize_parts needs"
        )
    return group.parts


def check_trainable(rollout: Rollout, temperature: float) -> None:
    """Raise RunError unless the record has everything that a policy-gradient step at this temperature needs."""
    missing = [
        name for name in ("token_ids", "loss_mask", "behaviour_logprobs", "sampling") if getattr(rollout, name) is None
    ]
    if missing:
        raise RunError(f"rollout {rollout.id}: no {', '.join(missing)}; it cannot be trained on")
    assert rollout.sampling is not None
    if not rollout.sampled_tokens:
        raise RunError(f"rollout {rollout.id}: loss_mask marks no sampled token; it cannot be trained on")
    if rollout.sampling.filters:
        raise RunError(
            f"rollout {rollout.id} was sampled with {', '.join(rollout.sampling.filters)}: its log-probabilities are "
            "those of a filtered distribution that the trainer does not compute; sample without filters or penalties"
        )
    if rollout.sampling.temperature != temperature:
        raise RunError(
            f"rollout {rollout.id} was sampled at temperature {rollout.sampling.temperature}, training is at "
            f"{temperature}: set sampling.temperature to the rollout's"
        )
    if rollout.sampling.logprob_mode != "processed" and temperature != 1.0:
        raise RunError(
            f"rollout {rollout.id} was sampled at temperature {temperature}, but its log-probabilities may be at "
            f"another one (sampling.logprob_mode is {rollout.sampling.logprob_mode or 'null'}, expected 'processed')"
        )


def mini_batches(groups: Sequence[Group], parts: int) -> list[Tensor]:
    """Return the rows of each of at most `parts` parts. Groups are dealt out in turn, so that every part gets fresh,
    replayed and saved groups, which follow each other in the batch."""
    ends = np.cumsum([len(group.rollouts) for group in groups])
    rows = np.split(np.arange(ends[-1]), ends[:-1])
    count = min(parts, len(groups))
    return [torch.from_numpy(np.concatenate(rows[part::count])) for part in range(count)]


def micro_batches(lengths_B: Tensor, max_tokens: int, *, padded: bool = True) -> Iterator[Tensor]:
    """Yield index tensors that split the rows into parts of at most `max_tokens` tokens, padding included (a longer row
    is a part by itself). Rows are sorted by length, to limit padding; the order depends only on the lengths.

    If rows are `padded` to the longest of their part, a part that is large enough to keep a device busy also ends
    before a much shorter row.
    """
    order = torch.argsort(lengths_B, descending=True, stable=True)
    sorted_lengths = lengths_B[order].tolist()
    start = 0
    while start < len(order):
        longest = sorted_lengths[start]
        size = max(1, max_tokens // longest)
        if padded:
            enough = max(1, int(_ENOUGH * max_tokens) // longest)
            rest = sorted_lengths[start : start + size]
            size = next((n for n in range(enough, len(rest)) if rest[n] < _MUCH_SHORTER * longest), size)
        yield order[start : start + size]
        start += size
