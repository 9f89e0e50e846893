"""Log-probabilities of given tokens under a model, at the sampling temperature.

Shapes: B = rows, U = distinct rows, T = tokens, N = tokens that the mask marks, H = hidden size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .head import SplitModel, head_logprobs


class TokenLogprobs(NamedTuple):
    """Aligned with the token ids (not shifted); 0 where the mask is False."""

    logprobs_BT: Tensor
    entropy_BT: Tensor
    """Nats, of the whole next-token distribution; detached."""


def token_logprobs(model: SplitModel, token_ids_BT: Tensor, mask_BT: Tensor, temperature: float) -> TokenLogprobs:
    """Return log softmax(logits / temperature)[token] of the masked tokens, in float32 whatever the model computes in.

    `token_ids_BT` is padded on the right. The mask must be False at t = 0, where there is nothing to predict from.
    Equal rows are computed once, because a group's completions become more alike as the policy learns. Only positions
    that predict a masked token go through the output layer.
    """
    length, device = token_ids_BT.shape[1], token_ids_BT.device
    rows = torch.cat([token_ids_BT, mask_BT], 1).cpu()  # torch.unique(dim=0) is not available on every device
    distinct, row_of_B = torch.unique(rows, dim=0, return_inverse=True)
    token_ids_UT, mask_UT = distinct[:, :length].to(device), distinct[:, length:].bool().to(device)
    hidden_NH = model.hidden_states(token_ids_UT)[:, :-1][mask_UT[:, 1:]]
    place_N = torch.arange(len(hidden_NH), device=device)
    logprobs_N, entropy_N = head_logprobs(model.head, hidden_NH, place_N, token_ids_UT[mask_UT], temperature)
    zeros_UT, row_of_B = torch.zeros(mask_UT.shape, device=device), row_of_B.to(device)
    logprobs_UT, entropy_UT = (zeros_UT.masked_scatter(mask_UT, values_N) for values_N in (logprobs_N, entropy_N))
    return TokenLogprobs(logprobs_UT[row_of_B], entropy_UT[row_of_B])
