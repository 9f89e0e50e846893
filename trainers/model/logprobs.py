"""Log-probabilities of given tokens under a model, at the sampling temperature.

Shapes: B = rows, U = distinct rows, T = tokens, N = tokens that the mask marks, K = kept tokens (the sampler's
likeliest, or all that its filters left), P = positions, M = requested tokens, H = hidden size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..batch import Support
from .head import Head, SplitModel, head_logprobs


class TokenLogprobs(NamedTuple):
    """Aligned with the token ids (not shifted); 0 where the mask is False."""

    logprobs_BT: Tensor
    entropy_BT: Tensor
    """Nats, of the whole next-token distribution; detached."""
    kept_BTK: Tensor | None = None
    """Log-probabilities of the kept tokens; -inf where there is none. None if no support was given."""


def token_logprobs(
    model: SplitModel, token_ids_BT: Tensor, mask_BT: Tensor, temperature: float, support: Support | None = None
) -> TokenLogprobs:
    """Return log softmax(logits / temperature)[token] of the masked tokens, in float32 whatever the model computes in.

    With `support`, also those of the kept tokens. In filtered rows, both are renormalized to the kept tokens.
    `token_ids_BT` is padded on the right. The mask must be False at t = 0, where there is nothing to predict from.
    Equal rows are computed once, because a group's completions become more alike as the policy learns. Only positions
    that predict a masked token go through the output layer.
    """
    length, device = token_ids_BT.shape[1], token_ids_BT.device
    columns = [token_ids_BT, mask_BT]
    if support is not None:
        columns += [support.filtered_B[:, None], support.ids_BTK.flatten(1)]
    rows = torch.cat(columns, 1).cpu()  # torch.unique(dim=0) is not available on every device
    distinct, row_of_B = torch.unique(rows, dim=0, return_inverse=True)
    token_ids_UT, mask_UT = distinct[:, :length].to(device), distinct[:, length : 2 * length].bool().to(device)
    hidden_NH = model.hidden_states(token_ids_UT)[:, :-1][mask_UT[:, 1:]]
    place_N = torch.arange(len(hidden_NH), device=device)
    kept = None
    if support is not None:
        ids_UTK = distinct[:, 2 * length + 1 :].view(*mask_UT.shape, -1).to(device)
        filtered_U = distinct[:, 2 * length].bool().to(device)
        kept = Kept(ids_UTK[mask_UT], filtered_U[:, None].expand_as(mask_UT)[mask_UT])
    logprobs_N, entropy_N, kept_NK = drawn_and_kept(
        model.head, hidden_NH, place_N, token_ids_UT[mask_UT], kept, temperature
    )
    zeros_UT, row_of_B = torch.zeros(mask_UT.shape, device=device), row_of_B.to(device)
    logprobs_UT, entropy_UT = (zeros_UT.masked_scatter(mask_UT, values_N) for values_N in (logprobs_N, entropy_N))
    if kept_NK is None:
        return TokenLogprobs(logprobs_UT[row_of_B], entropy_UT[row_of_B])
    nowhere_UTK = kept_NK.new_full((*mask_UT.shape, kept_NK.shape[1]), -torch.inf)
    kept_UTK = nowhere_UTK.index_put((mask_UT.nonzero(as_tuple=True)), kept_NK)
    return TokenLogprobs(logprobs_UT[row_of_B], entropy_UT[row_of_B], kept_UTK[row_of_B])


class Kept(NamedTuple):
    """The kept tokens of N masked tokens, flat."""

    ids_NK: Tensor
    """-1 where there is none."""
    filtered_N: Tensor


def drawn_and_kept(
    head: Head, hidden_PH: Tensor, place_N: Tensor, target_N: Tensor, kept: Kept | None, temperature: float
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return (N,) log-probabilities of the drawn tokens, (P,) entropies, and (N, K) log-probabilities of kept tokens.

    Where `filtered_N`, the distribution is softmax(logits / temperature) renormalized to the kept tokens, which is what
    the sampler drew from. `place_N` must ascend.
    """
    if kept is None:
        return *head_logprobs(head, hidden_PH, place_N, target_N, temperature), None
    there_NK = kept.ids_NK >= 0
    targets = torch.cat([target_N[:, None], kept.ids_NK.clamp(min=0).to(target_N.dtype)], 1)
    place_M = place_N.repeat_interleave(targets.shape[1])
    logprobs_M, entropy_P = head_logprobs(head, hidden_PH, place_M, targets.flatten(), temperature)
    logprobs_N1, kept_NK = logprobs_M.view_as(targets).tensor_split([1], 1)
    # Where nothing is kept, log Z stays 0: the logarithm of an empty sum has no gradient.
    counted_N = kept.filtered_N & there_NK.any(1)
    inside_NK = torch.where(there_NK & counted_N[:, None], kept_NK, -torch.inf)
    log_z_N = torch.where(counted_N[:, None], inside_NK, 0.0).logsumexp(1)
    log_z_N = torch.where(counted_N, log_z_N, 0.0)
    return (
        logprobs_N1.squeeze(1) - log_z_N,
        entropy_P,
        torch.where(there_NK, kept_NK - log_z_N[:, None], -torch.inf),
    )
