"""Token-by-token sampling from a causal language model, as pure computation.

`generate` is not used. It applies the filters of the checkpoint's generation configuration unless each is switched off
by name. It draws from a global generator, so that a row's tokens depend on the rest of the batch. And it reads the
prompt of a group once per sample.

Shapes: G = distinct prompts, B = rows (samples being drawn), N = nodes (distinct rows, which the model computes),
P = tokens of the longest prompt, C = tokens of the longest completion, V = the model's vocabulary.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from rlvr.protocols import TopTokens
from rlvr.record.schema import SamplingParams

_GOLDEN = 0x9E3779B97F4A7C15
_WEIGHT_ONE = 2.0**62
_BLOCK = 512
"""Tokens per block: `choose` first finds the block, then the token within it."""


class Completion(NamedTuple):
    """Tokens drawn for one row, the stop token included, and their log-probabilities."""

    token_ids: list[int]
    logprobs: list[float]
    stopped: bool
    top: TopTokens | None = None
    """The likeliest tokens at each of them, if they were asked for."""


@torch.inference_mode()
def decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    rows: Sequence[int],
    seeds: Sequence[int],
    params: SamplingParams,
    stop_ids: Collection[int],
    ends: Callable[[Tensor], Tensor] | None = None,
    *,
    keep_topk: int = 0,
    compact_at: float = 0.9,
    room: int = 64,
) -> list[Completion]:
    """Draw one completion per row: row b answers `prompts[rows[b]]` with the random numbers of `seeds[b]` (63 bits).

    Rows with the same prompt and the same tokens so far are one row to the model. So a group's prompt is processed
    once, and its samples branch at their first difference.

    A stop token ends a row, and so does `ends`, which maps (B, t) drawn tokens to (B,) bools.

    A row's random numbers depend on its seed alone, never on other rows. (The model's output for it does depend on
    them in the last bits: matrix products of another shape add in another order.)

    With `keep_topk`, each completion comes with so many of the likeliest tokens at each of its tokens.

    Two settings trade memory for copies of the key-value cache. Ended rows are removed from it when the share of
    running rows is at most `compact_at`. It reserves `room` tokens ahead, or half its length if that is more.
    """
    forward = _Forward(model, compact_at, room)
    device = model.device
    exact = torch.device("cpu") if device.type == "mps" else device  # where float64 exists
    logits_NV = forward.prefill(prompts, params.max_tokens)
    vocabulary = logits_NV.shape[-1]
    node_B = torch.tensor(rows, device=device)  # rows that have drawn the same tokens so far share a node
    seeds_B = torch.tensor(seeds, device=exact)
    place_B = torch.arange(len(rows), device=device)  # where the running rows stand in the result
    stops_V = torch.zeros(vocabulary, dtype=torch.bool, device=device)
    stops_V[[i for i in sorted(stop_ids) if i < vocabulary]] = True
    drawn = _Drawn(len(rows), params.max_tokens, keep_topk, device)
    for t in range(params.max_tokens):
        distribution_NV = log_distribution(logits_NV, params)
        token_B = _drawn(distribution_NV, node_B, seeds_B, t, greedy=params.temperature == 0)
        drawn.note(place_B, t, token_B, distribution_NV, node_B)
        ended_B = stops_V[token_B]
        if ends is not None:
            ended_B = ended_B | ends(drawn.token_ids_BC[place_B, : t + 1])
        drawn.ended_BC[place_B, t] = ended_B
        kept = (~ended_B).nonzero().squeeze(-1)
        if len(kept) == 0 or t + 1 == params.max_tokens:
            break
        if len(kept) < len(token_B):
            token_B, place_B, node_B, seeds_B = token_B[kept], place_B[kept], node_B[kept], seeds_B[kept.to(exact)]
        child_N, node_B = torch.unique(node_B * vocabulary + token_B, return_inverse=True)
        parent_N, token_N = child_N // vocabulary, child_N % vocabulary
        if forward.worth_selecting(parent_N):
            forward.select(parent_N)
        else:  # no row has branched, and few nodes have ended: these stay, and get a token that is ignored
            node_B, token_N = parent_N[node_B], token_N.new_zeros(forward.size).scatter_(0, parent_N, token_N)
        logits_NV = forward.step(token_N)
    return drawn.completions(t + 1)


def _drawn(distribution_NV: Tensor, node_B: Tensor, seeds_B: Tensor, t: int, *, greedy: bool) -> Tensor:
    """Return the t-th token of each row: the likeliest, or one drawn in float64 with the row's random number."""
    if greedy:
        return distribution_NV.argmax(-1)[node_B]
    exact = seeds_B.device  # where float64 exists
    return choose(distribution_NV.to(exact), node_B.to(exact), uniform(seeds_B, t)).to(distribution_NV.device)


class _Drawn:
    """Tokens drawn so far, a row for each completion; zeros follow."""

    def __init__(self, rows: int, longest: int, keep: int, device: torch.device) -> None:
        """`keep`: K of the likeliest tokens; 0 for none."""
        self.token_ids_BC = torch.zeros((rows, longest), dtype=torch.long, device=device)
        self.ended_BC = torch.zeros((rows, longest), dtype=torch.bool, device=device)
        """The tokens that end a row."""
        self._logprobs_BC = torch.zeros((rows, longest), device=device)
        self._ids_BCK = torch.full((rows, longest, keep), -1, dtype=torch.int32, device=device)
        self._top_BCK = torch.full((rows, longest, keep), torch.nan, device=device)

    def note(self, place_B: Tensor, t: int, token_B: Tensor, distribution_NV: Tensor, node_B: Tensor) -> None:
        """Note the t-th token of the running rows, and the likeliest tokens of their nodes."""
        self.token_ids_BC[place_B, t] = token_B
        self._logprobs_BC[place_B, t] = distribution_NV[node_B, token_B]
        if keep := min(self._ids_BCK.shape[-1], distribution_NV.shape[-1]):
            logprobs_NK, ids_NK = distribution_NV.topk(keep)
            removed_NK = logprobs_NK == -torch.inf  # by the filters
            self._ids_BCK[place_B, t, :keep] = ids_NK.masked_fill(removed_NK, -1).int()[node_B]
            self._top_BCK[place_B, t, :keep] = logprobs_NK.masked_fill(removed_NK, torch.nan)[node_B]

    def completions(self, drawn: int) -> list[Completion]:
        """Return each row up to the token that ends it, or its first `drawn` tokens."""
        stopped_B = self.ended_BC.any(-1)
        lengths = torch.where(stopped_B, self.ended_BC.int().argmax(-1) + 1, drawn).tolist()
        columns = (self.token_ids_BC.tolist(), self._logprobs_BC.tolist(), stopped_B.tolist(), self._tops(lengths))
        return [
            Completion(ids[:length], logprobs[:length], stopped, top)
            for length, ids, logprobs, stopped, top in zip(lengths, *columns, strict=True)
        ]

    def _tops(self, lengths: Sequence[int]) -> Sequence[TopTokens | None]:
        if not self._ids_BCK.shape[-1]:
            return [None] * len(lengths)
        ids_BCK, top_BCK = self._ids_BCK.cpu().numpy(), self._top_BCK.cpu().numpy()
        return [TopTokens(ids_BCK[b, :n].copy(), top_BCK[b, :n].copy()) for b, n in enumerate(lengths)]


class _Forward:
    """The model with its key-value cache: prompts first, each once, then one token per row and call.

    Prompts are padded on the left, so that all rows write to the same place of the cache. Positions and mask are
    explicit. Without padding no mask is built.
    """

    def __init__(self, model: PreTrainedModel, compact_at: float, room: int) -> None:
        self.model, self.compact_at, self.room = model, compact_at, room
        self.cache: Any = None  # the model makes the kind it needs
        arguments = inspect.signature(model.forward).parameters
        self.takes_positions = "position_ids" in arguments  # else the model derives them from the mask (ALiBi)
        self.prefill_options = {"logits_to_keep": 1} if "logits_to_keep" in arguments else {}

    def prefill(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> Tensor:
        """Return (G, V) logits of the first token; the mask has room for `max_tokens` more."""
        longest = self.length = max(len(prompt) for prompt in prompts)
        padded = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
        token_ids_GP = torch.tensor(padded, device=self.model.device)
        lengths = [len(prompt) for prompt in prompts]
        self.position_B = torch.tensor(lengths, device=self.model.device)  # of the token that comes next
        self.mask_BT: Tensor | None = None
        positions_GP = None
        if bool((self.position_B < longest).any()):
            column = torch.arange(longest + max_tokens, device=self.model.device)
            padding_B1 = (longest - self.position_B)[:, None]
            self.mask_BT = (column >= padding_B1).long()
            positions_GP = (column[:longest] - padding_B1).clamp_min(0)
        logits_GV = self._call(token_ids_GP, positions_GP, **self.prefill_options)
        if type(self.cache) is DynamicCache and max_tokens > self.room:
            limit = longest + max_tokens
            layers = self.cache.layers
            self.cache.layers = [_RoomyLayer(x, limit, self.room) if type(x) is DynamicLayer else x for x in layers]
        return logits_GV

    def step(self, token_B: Tensor) -> Tensor:
        """Return (B, V) logits of the token after `token_B`."""
        self.length += 1
        logits_BV = self._call(token_B[:, None], self.position_B[:, None])
        self.position_B = self.position_B + 1
        return logits_BV

    @property
    def size(self) -> int:
        """Number of rows in the cache."""
        return len(self.position_B)

    def worth_selecting(self, index_B: Tensor) -> bool:
        """Return True if rows have multiplied, or if enough have ended to make copying the cache cheaper."""
        return len(index_B) <= self.compact_at * self.size or len(index_B) > len(torch.unique(index_B))

    def select(self, index_B: Tensor) -> None:
        """Keep the rows at `index_B`: repeated for the samples of a group, left out if finished."""
        self.cache.reorder_cache(index_B)
        self.position_B = self.position_B[index_B]
        self.mask_BT = None if self.mask_BT is None else self.mask_BT[index_B]

    def _call(self, token_ids_BT: Tensor, positions_BT: Tensor | None, **options: Any) -> Tensor:
        if self.takes_positions and positions_BT is not None:
            options["position_ids"] = positions_BT
        output = self.model(
            input_ids=token_ids_BT,
            attention_mask=None if self.mask_BT is None else self.mask_BT[:, : self.length],
            past_key_values=self.cache,
            use_cache=True,
            **options,
        )
        self.cache = output.past_key_values
        logits_BV: Tensor = output.logits[:, -1]
        return logits_BV


class _RoomyLayer(DynamicLayer):
    """Keys and values with room for more tokens. The library's layer copies everything at every token."""

    keys: Tensor
    values: Tensor

    def __init__(self, layer: DynamicLayer, limit: int, room: int) -> None:
        """Reserve `room` tokens ahead, or half the length if that is more, but never more than `limit` in all."""
        super().__init__()  # type: ignore[no-untyped-call]
        assert layer.keys is not None
        assert layer.values is not None
        self.dtype, self.device, self.is_initialized = layer.dtype, layer.device, True
        self.keys, self.values, self._limit = layer.keys, layer.values, limit
        self._least_room = room
        self._move(torch.arange(len(layer.keys), device=layer.device))

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append (B, heads, new tokens, D) and return all keys and values."""
        length, more = self.keys.shape[2], key_states.shape[2]
        if length + more > self._rooms[0].shape[2]:
            self._move(torch.arange(len(self.keys), device=self.device))
        for room, states in zip(self._rooms, (key_states, value_states), strict=True):
            room.narrow(2, length, more).copy_(states)
        self.keys, self.values = (room.narrow(2, 0, length + more) for room in self._rooms)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep the rows at `beam_idx`."""
        self._move(beam_idx)

    def _move(self, index_B: Tensor) -> None:
        """Copy the rows at `index_B` to a buffer with room."""
        length = self.keys.shape[2]
        room = min(self._limit, length + max(self._least_room, length // 2))
        held = (self.keys, self.values)
        self._rooms = tuple(x.new_empty((len(index_B), x.shape[1], room, x.shape[3])) for x in held)
        self.keys, self.values = (x.narrow(2, 0, length) for x in self._rooms)
        for old, new in zip(held, (self.keys, self.values), strict=True):
            torch.index_select(old, 0, index_B, out=new)


def log_distribution(logits_BV: Tensor, params: SamplingParams) -> Tensor:
    """Return (B, V) float32 log-probabilities to draw tokens with; -inf for tokens that the filters remove.

    Applied in this order, each to the remaining tokens: temperature, the `top_k` most probable (ties: lower ids first),
    the fewest that hold `top_p` of the probability, those with at least `min_p` times the highest. At temperature 0
    (greedy) the filters change nothing, and the distribution is the model's own at temperature 1.
    """
    logits_BV = logits_BV.float()
    if params.temperature == 0:
        return torch.log_softmax(logits_BV, -1)
    if params.temperature != 1:
        logits_BV = logits_BV / params.temperature
    if params.top_k or params.top_p < 1:
        sorted_BV, ids_BV = logits_BV.sort(dim=-1, descending=True, stable=True)
        if params.top_k:
            sorted_BV[:, params.top_k :] = -torch.inf
        if params.top_p < 1:
            probs_BV = torch.softmax(sorted_BV, -1)
            sorted_BV[probs_BV.cumsum(-1) - probs_BV >= params.top_p] = -torch.inf
        logits_BV = torch.empty_like(logits_BV).scatter_(-1, ids_BV, sorted_BV)
    logprobs_BV = torch.log_softmax(logits_BV, -1)
    if params.min_p:
        floor_B1 = logprobs_BV.amax(-1, keepdim=True) + math.log(params.min_p)
        logprobs_BV = torch.log_softmax(logprobs_BV.masked_fill(logprobs_BV < floor_B1, -torch.inf), -1)
    return logprobs_BV


def choose(logprobs_NV: Tensor, node_B: Tensor, uniform_B: Tensor) -> Tensor:
    """Return (B,) the token whose interval in row `node_B`'s cumulative distribution holds `uniform_B` (float64).

    Probabilities are first converted to integers of 62 bits. Their sums are exact in whatever order a device adds, so
    the cumulative distribution never decreases, and a token of probability 0 (below 2**-62) is never chosen. For the
    same reason the sums of blocks, and the running sum within one block, choose the same token as the whole running
    sum. A row with a NaN chooses some token, whose log-probability is NaN.
    """
    vocabulary = logprobs_NV.shape[-1]
    width = min(_BLOCK, vocabulary)
    blocks = -(-vocabulary // width)
    weights_NV = torch.empty((len(logprobs_NV), blocks * width), dtype=torch.long, device=logprobs_NV.device)
    weights_NV[:, :vocabulary] = logprobs_NV.exp().mul_(_WEIGHT_ONE)  # a power of two: nothing is rounded but down
    if blocks == 1:
        ends_BV = weights_NV.cumsum(-1)[node_B]
        return _place(ends_BV, _target(ends_BV, uniform_B))
    weights_NV[:, vocabulary:] = 0
    weights_NKV = weights_NV.view(-1, blocks, width)  # K: blocks
    ends_BK = weights_NKV.sum(-1).cumsum(-1)[node_B]
    target_B = _target(ends_BK, uniform_B)
    block_B = _place(ends_BK, target_B)
    ends_BV = weights_NKV[node_B, block_B].cumsum(-1)
    target_B = target_B - (ends_BK.gather(1, block_B[:, None]).squeeze(-1) - ends_BV[:, -1])
    return (block_B * width + _place(ends_BV, target_B)).clamp_max(vocabulary - 1)


def _target(ends_BX: Tensor, uniform_B: Tensor) -> Tensor:
    """Return (B,) the position of `uniform_B` among the weights whose running sums are `ends_BX`."""
    total_B = ends_BX[:, -1]
    return torch.minimum((uniform_B * total_B).long(), total_B - 1)


def _place(ends_BX: Tensor, target_B: Tensor) -> Tensor:
    """Return (B,) the interval of the running sums that `target_B` lies in."""
    return torch.searchsorted(ends_BX, target_B[:, None], right=True).squeeze(-1).clamp_max(ends_BX.shape[1] - 1)


def uniform(seeds_B: Tensor, t: int) -> Tensor:
    """Return (B,) float64 in [0, 1), in steps of 2**-53: draw `t` of each seed.

    The t-th output of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014) seeded with `seeds_B`, whose state after t steps is
    known without taking them.
    """
    z = seeds_B + _signed((t + 1) * _GOLDEN)
    z = (z ^ _shift_right(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shift_right(z, 27)) * _signed(0x94D049BB133111EB)
    return _shift_right(z ^ _shift_right(z, 31), 11).double() * 2.0**-53


def _signed(value: int) -> int:
    """Return the 64-bit pattern of `value` as a signed integer for torch's int64."""
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """Shift logically; int64's own shift repeats the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
