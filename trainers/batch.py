"""Groups of rollouts as tensors, and how a batch is cut into micro-batches.

Shapes: B = rollouts of all groups, T = tokens of the longest. Sequences are padded on the right: with causal attention
no real token sees the padding, so no attention mask is needed. Per-token tensors are index-aligned with token_ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rlvr.errors import RunError
from rlvr.offpolicy.support import lacking_support
from rlvr.protocols import Group, RewardPart
from rlvr.record.schema import TOPK_IDS, TOPK_LOGPROBS, GroupStats, Rollout

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


class Support(NamedTuple):
    """The sampler's likeliest tokens (`sampling.keep_topk`) at each sampled token. K = tokens kept."""

    ids_BTK: Tensor
    """int32; -1 where there are fewer, and where the mask is False."""
    filtered_B: Tensor
    """bool: the row was sampled with filters, so these tokens are all that could have been drawn, and the policy is
    renormalized to them."""


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
    kept_ids_BTK: Tensor | None = None
    """`Support.ids_BTK`; None if nothing needs them."""
    kept_behaviour_BTK: Tensor | None = None
    """float32: log α of the kept tokens, -inf where there is none."""
    filtered_B: Tensor | None = None
    """`Support.filtered_B`."""
    kept_logprobs_BTK: Tensor | None = None
    """log π of the kept tokens at a gradient step, with gradients; -inf where there is none."""
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
        return self._each(lambda column: column[index, :longest] if column.dim() > 1 else column[index])

    @property
    def support(self) -> Support | None:
        """The kept tokens; None if nothing needs them."""
        if self.kept_ids_BTK is None:
            return None
        assert self.filtered_B is not None
        return Support(self.kept_ids_BTK, self.filtered_B)

    def to(self, device: str) -> Batch:
        """Return the same batch on another device."""
        return self._each(lambda column: column.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(column) for name, column in columns.items() if column is not None})


def token_columns(rollouts: Sequence[Rollout], needs_topk: Sequence[str] = ()) -> Batch:
    """Return the per-token columns of records as tensors on the CPU; advantages and signals are still zero.

    The sampler's likeliest tokens are among them if a record was sampled with filters, or settings need them
    (`needs_topk`). Raises RunError for a record without tokens, with a mask that a causal model cannot serve, or
    without likeliest tokens that are needed.
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
    filtered = [bool(rollout.sampling is not None and rollout.sampling.filters) for rollout in rollouts]
    batch = Batch(
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
    return _with_support(batch, rollouts, filtered, needs_topk) if needs_topk or any(filtered) else batch


def _with_support(
    batch: Batch, rollouts: Sequence[Rollout], filtered: Sequence[bool], needs_topk: Sequence[str]
) -> Batch:
    """Return the batch with the sampler's likeliest tokens."""
    columns = []
    for rollout, is_filtered in zip(rollouts, filtered, strict=True):
        if is_filtered and (reason := lacking_support(rollout)):
            raise RunError(f"rollout {rollout.id} was {reason}: sample it again with sampling.top_k, which keeps them")
        own = rollout.extra_tokens.get(TOPK_IDS), rollout.extra_tokens.get(TOPK_LOGPROBS)
        if needs_topk and (own[0] is None or own[1] is None):
            raise RunError(f"rollout {rollout.id}: no extra_tokens.{TOPK_IDS}, which {needs_topk[0]} needs")
        columns.append(own)
    widest = max(ids.shape[1] for ids, _ in columns if ids is not None)
    shape = (*batch.mask_BT.shape, widest)
    ids_BTK, logprobs_BTK = np.full(shape, -1, np.int32), np.full(shape, -np.inf, np.float32)
    for b, (ids, logprobs) in enumerate(columns):
        if ids is not None and logprobs is not None and (filtered[b] or needs_topk):
            there = ids >= 0
            ids_BTK[b, : len(ids), : ids.shape[1]] = ids
            ids_BTK[b][~batch.mask_BT[b].numpy()] = -1
            logprobs_BTK[b, : len(ids), : ids.shape[1]][there] = logprobs[there]
    return replace(
        batch,
        kept_ids_BTK=torch.from_numpy(ids_BTK),
        kept_behaviour_BTK=torch.from_numpy(logprobs_BTK),
        filtered_B=torch.tensor(filtered),
    )


def collate(
    groups: Sequence[Group],
    *,
    advantage: Callable[[Sequence[float], GroupStats], list[float]],
    temperature: float,
    by_part: Callable[[Sequence[RewardPart]], list[float]] | None = None,
    needs_topk: Sequence[str] = (),
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
        token_columns(rollouts, needs_topk),
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
    if reason := lacking_support(rollout):
        raise RunError(
            f"rollout {rollout.id} was {reason}; its log-probabilities are those of a filtered distribution, which the "
            "trainer computes only on a recorded support: sample with sampling.top_k, which records it, or without "
            "filters and penalties"
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
