"""Log-probabilities of rows with shared prefixes, each prefix computed once (`trainer.share_prefixes`).

The rows of one prompt form a token tree. The model reads the tree as one sequence, in preorder. A node's position is
its depth, and it attends only to its ancestors and itself, so it has the same hidden state as in every row that passes
through it. The loss reads a token from its parent's logits, where the gradients of all rows add up.

Limits: every layer must follow a 4-D attention mask and `position_ids`; `require_tree_attention` rejects other models.
Attention costs the square of a tree's nodes, so this pays off if completions are short or much alike. Values differ
from the plain pass by rounding.

Shapes: B = rows, U = distinct rows, T = tokens, G = trees (prompts), S = sequences that the model reads, each of one or
more trees, N = nodes of a sequence, M = masked tokens, P = nodes that predict a masked token, H = hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rlvr.errors import ConfigError

from ..batch import Support, micro_batches
from .head import SplitModel
from .logprobs import Kept, TokenLogprobs, drawn_and_kept, token_logprobs

TOLERANCE = 1e-3
"""Largest difference to the plain pass of a float32 log-probability, in nats."""


@dataclass(frozen=True)
class PrefixTrees:
    """The tokens that masked tokens depend on, one node for each distinct prefix. A slot is an index into S × N."""

    token_ids_SN: Tensor
    position_ids_SN: Tensor
    """Depth in the tree, 0 for the first token."""
    end_SN: Tensor
    """The slot after the node's last descendant: in preorder a subtree is an interval."""
    slot_BT: Tensor
    """The slot of each token, -1 from the last masked one on."""
    tree_B: Tensor
    size_G: Tensor
    """Nodes of each tree."""

    def attention(self) -> Tensor:
        """Return (S, N, N) bool: [s, i, j] is True if i is j or its descendant. An empty slot attends to itself."""
        slot_SN = torch.arange(self.end_SN.numel()).view_as(self.end_SN)
        i, j, end = slot_SN[:, :, None], slot_SN[:, None, :], self.end_SN[:, None, :]
        return (j <= i) & (i < end)


def prefix_trees(token_ids_BT: Tensor, mask_BT: Tensor) -> PrefixTrees:
    """Build one tree for all rows with the same tokens before their first masked one.

    Tensors are on the CPU; the mask must be False at t = 0.
    """
    time_T = torch.arange(token_ids_BT.shape[1])
    first_B1, last_B1 = mask_BT.int().argmax(1, keepdim=True), (mask_BT * time_T).amax(1, keepdim=True)
    tree_B = torch.unique(torch.where(time_T < first_B1, token_ids_BT, -1), dim=0, return_inverse=True)[1]
    rows = torch.cat([tree_B[:, None], torch.where(time_T < last_B1, token_ids_BT, -1)], 1)
    rows, row_of_B = torch.unique(
        rows, dim=0, return_inverse=True
    )  # sorted: a row shares the longest prefix with the one before it
    tree_U, input_UT = rows[:, 0], rows[:, 1:]
    node_UT = input_UT >= 0
    new = torch.ones_like(rows, dtype=torch.bool)
    new[1:] = (rows[1:] != rows[:-1]).cumsum(1) > 0
    new_UT = new[:, 1:] & node_UT

    size_G = torch.zeros(int(tree_B.max()) + 1, dtype=torch.int64).index_add(0, tree_U, new_UT.sum(1))
    start_G, shape = _pack(size_G)
    preorder_UT = torch.where(new_UT, new_UT.flatten().cumsum(0).view_as(new_UT) - 1, -1).cummax(0).values
    slot_UT = torch.where(node_UT, preorder_UT + (start_G - (size_G.cumsum(0) - size_G))[tree_U][:, None], -1)

    token_ids, position_ids = torch.zeros(2, shape[0] * shape[1], dtype=torch.int64)
    token_ids[slot_UT[new_UT]] = input_UT[new_UT]
    position_ids[slot_UT[new_UT]] = time_T.expand_as(new_UT)[new_UT]
    end = torch.arange(1, len(token_ids) + 1)
    leaf_UT = slot_UT.amax(1, keepdim=True).expand_as(slot_UT)
    end.scatter_reduce_(0, slot_UT[node_UT], leaf_UT[node_UT] + 1, "amax")
    return PrefixTrees(
        token_ids.view(shape), position_ids.view(shape), end.view(shape), slot_UT[row_of_B], tree_B, size_G
    )


def _pack(size_G: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Return the first slot of each tree, and (S, N). Sequences are as long as the largest tree, filled first-fit."""
    longest = max(1, int(size_G.max()))
    start_G = torch.zeros_like(size_G)
    used = [0]
    for g in torch.argsort(size_G, descending=True, stable=True).tolist():
        size = int(size_G[g])
        s = next((s for s, nodes in enumerate(used) if nodes + size <= longest), len(used))
        if s == len(used):
            used.append(0)
        start_G[g] = s * longest + used[s]
        used[s] += size
    return start_G, (len(used), longest)


def shared_token_logprobs(
    model: SplitModel, token_ids_BT: Tensor, mask_BT: Tensor, temperature: float, support: Support | None = None
) -> TokenLogprobs:
    """Return what `token_logprobs` does, computed on the rows' trees."""
    device = token_ids_BT.device
    trees = prefix_trees(token_ids_BT.cpu(), mask_BT.cpu())
    rows_M, times_M = mask_BT.cpu().nonzero(as_tuple=True)
    slot_M, order_M = trees.slot_BT[rows_M, times_M - 1].sort()
    rows_M, times_M = rows_M[order_M].to(device), times_M[order_M].to(device)
    slot_P, place_M = (x.to(device) for x in torch.unique_consecutive(slot_M, return_inverse=True))
    hidden_SNH = model.hidden_states(
        trees.token_ids_SN.to(device),
        position_ids=trees.position_ids_SN.to(device),
        attention_mask=trees.attention()[:, None].to(device),
    )
    kept = None if support is None else Kept(support.ids_BTK[rows_M, times_M], support.filtered_B[rows_M])
    logprobs_M, entropy_P, kept_MK = drawn_and_kept(
        model.head, hidden_SNH.flatten(0, 1)[slot_P], place_M, token_ids_BT[rows_M, times_M], kept, temperature
    )
    zeros_BT = torch.zeros(mask_BT.shape, device=device)
    own_BT, entropy_BT = (zeros_BT.index_put((rows_M, times_M), x_M) for x_M in (logprobs_M, entropy_P[place_M]))
    if kept_MK is None:
        return TokenLogprobs(own_BT, entropy_BT)
    nowhere_BTK = kept_MK.new_full((*mask_BT.shape, kept_MK.shape[1]), -torch.inf)
    return TokenLogprobs(own_BT, entropy_BT, nowhere_BTK.index_put((rows_M, times_M), kept_MK))


def tree_micro_batches(token_ids_BT: Tensor, mask_BT: Tensor, max_tokens: int) -> Iterator[Tensor]:
    """Yield micro-batches as `micro_batches` does, counting nodes instead of tokens.

    The rows of a prompt stay together, unless their tree alone has more than `max_tokens` nodes. Then its rows are
    halved, keeping neighbors in the tree together.
    """
    if token_ids_BT.numel() <= max_tokens:  # trees never have more nodes than tokens
        yield torch.arange(len(token_ids_BT))
        return
    trees = prefix_trees(token_ids_BT, mask_BT)
    for tree_ids in micro_batches(trees.size_G.clamp(min=1), max_tokens, padded=False):
        index = torch.isin(trees.tree_B, tree_ids).nonzero().squeeze(1)
        if int(trees.size_G[tree_ids[0]]) <= max_tokens or len(index) == 1:
            yield index
            continue
        for half in index[trees.slot_BT[index].amax(1).argsort()].chunk(2):
            for part in tree_micro_batches(token_ids_BT[half], mask_BT[half], max_tokens):
                yield half[part]


@torch.no_grad()
def require_tree_attention(split_model: SplitModel) -> None:
    """Raise ConfigError unless a small tree has the log-probabilities of its rows, and every layer sees all tokens.

    The second check is separate: a 4-D mask replaces a sliding window, which a small tree would not reveal.
    """
    config = split_model.model.config.get_text_config()
    advice = f"model.path: {config.model_type} cannot read rows as a tree ({{}}); set trainer.share_prefixes=false"
    windows = {kind for kind in getattr(config, "layer_types", None) or () if kind != "full_attention"}
    if getattr(config, "sliding_window", None):
        windows.add(f"sliding_window={config.sliding_window}")
    if windows:
        raise ConfigError(advice.format(", ".join(sorted(windows))))
    draw = torch.Generator().manual_seed(0)
    token_ids_BT = torch.randint(config.vocab_size, (4, 16), generator=draw)
    for b in range(1, 4):
        token_ids_BT[b, : 4 * b] = token_ids_BT[0, : 4 * b]
    token_ids_BT = token_ids_BT.to(split_model.model.device)
    mask_BT = (torch.arange(16, device=token_ids_BT.device) >= 4).expand(4, 16)
    expected = token_logprobs(split_model, token_ids_BT, mask_BT, 1.0)
    try:
        found = shared_token_logprobs(split_model, token_ids_BT, mask_BT, 1.0)
    except (TypeError, ValueError, RuntimeError) as error:  # an architecture that lacks one of the arguments
        raise ConfigError(advice.format(f"{type(error).__name__}: {str(error).splitlines()[0]}")) from error
    difference = float((found.logprobs_BT - expected.logprobs_BT).abs().max())
    if not difference <= TOLERANCE:
        raise ConfigError(advice.format(f"log-probabilities differ by {difference:.2g} from the plain pass"))
