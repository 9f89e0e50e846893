"""The output layer, separated from the rest of the model: log-probabilities without holding all logits at once.

With a vocabulary of 150,000, the logits of a batch take most of a training step's memory, and their softmax and
gradient as much again. Here they are computed for a few hundred positions at a time, in the forward pass and again in
the backward pass. Only a few numbers per position are kept.

Shapes: S = sequences, T = tokens, H = hidden size, P = positions that predict a requested token, M = requested tokens
(several may follow one position), V = vocabulary.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

from rlvr.errors import ConfigError


@dataclass(frozen=True)
class Head:
    """(…, H) hidden states → (…, V) logits: `scale * layer(hidden)`, or `cap * tanh(scale * layer(hidden) / cap)`."""

    layer: Any
    """Linear, or linear with an adapter. None for a model that cannot be split: its hidden states are its logits."""
    vocabulary: int
    scale: float = 1.0
    cap: float | None = None
    float32: bool = False
    """Whether to compute in float32 even under bfloat16 autocast."""
    logits_at_once: int = 2**25
    """Logits held at a time (at least one position's): 128 MiB in float32, and as much again for their exponentials."""

    def weights(self) -> tuple[Tensor | None, Tensor | None]:
        """Return the (V, H) weight and, if there is one, the (V,) bias."""
        if self.layer is None:
            return None, None
        base = _base(self.layer)
        if base is self.layer or self.layer.disable_adapters:
            return base.weight, base.bias
        (adapter,) = self.layer.active_adapters
        return base.weight + self.layer.get_delta_weight(adapter), base.bias

    def dtype(self, hidden: Tensor) -> torch.dtype:
        """Return the dtype that the layer computes in."""
        kind = hidden.device.type
        if self.float32 or self.layer is None or not torch.is_autocast_enabled(kind):
            return hidden.dtype if self.layer is None else _base(self.layer).weight.dtype
        return torch.get_autocast_dtype(kind)


def _base(layer: nn.Module) -> Any:
    """Return the layer under its adapter, or the layer itself."""
    return getattr(layer, "base_layer", layer)


@dataclass(frozen=True)
class SplitModel:
    """A causal language model as `head(hidden_states(tokens))`."""

    model: PreTrainedModel
    body: nn.Module
    head: Head

    def hidden_states(self, token_ids_ST: Tensor, **options: Any) -> Tensor:
        """Return the (S, T, H) input of the head. `options` are arguments of the model's `forward`."""
        output = self.body(input_ids=token_ids_ST, use_cache=False, **options)
        hidden_STH: Tensor = output[0]
        return hidden_STH


def split(model: PreTrainedModel, *, float32_head: bool = False) -> SplitModel:
    """Split the model into body and head, and check the split on a few tokens.

    If the model transforms its logits in a way that `_scale_and_cap` does not cover, warn and keep it whole: all logits
    are computed at once, and only what follows is done in parts. Raises ConfigError if such a model is to have a
    float32 head.
    """
    layer, body = model.get_output_embeddings(), model.base_model  # type: ignore[no-untyped-call]
    config = model.config.get_text_config()
    draw = torch.Generator().manual_seed(0)
    probe_1T = torch.randint(config.vocab_size, (1, 8), generator=draw).to(model.device)
    with torch.no_grad():
        expected_TV = torch.log_softmax(model(input_ids=probe_1T, use_cache=False).logits[0].float(), -1)
        vocabulary = expected_TV.shape[-1]
        if layer is not None and isinstance(_base(layer), nn.Linear) and body is not model:
            parts = SplitModel(model, body, Head(layer, vocabulary, *_scale_and_cap(config), float32_head))
            place_N = torch.arange(8, device=model.device).repeat_interleave(vocabulary)
            target_N = torch.arange(vocabulary, device=model.device).repeat(8)
            found_N, _ = head_logprobs(parts.head, parts.hidden_states(probe_1T)[0], place_N, target_N, 1.0)
            if torch.allclose(found_N, expected_TV.flatten(), rtol=1e-3, atol=1e-3):
                return parts
    if float32_head:
        raise ConfigError(
            f"trainer.float32_head: {config.model_type} transforms its logits in an unknown way, which cannot be "
            "repeated in float32; leave the option out, or set model.dtype=float32"
        )
    warnings.warn(
        f"{config.model_type} transforms its logits in an unknown way, so they are held all at once, which needs more "
        "memory; lower trainer.micro_batch_tokens if it does not fit",
        stacklevel=2,
    )
    return SplitModel(model, model, Head(None, vocabulary))


def _scale_and_cap(config: Any) -> tuple[float, float | None]:
    """Return scale and cap of the logits: Cohere and Falcon-H1 multiply, Granite divides, Gemma caps."""
    scale = getattr(config, "logit_scale", None) or getattr(config, "lm_head_multiplier", None) or 1.0
    return scale / (getattr(config, "logits_scaling", None) or 1.0), getattr(config, "final_logit_softcapping", None)


def head_logprobs(
    head: Head, hidden_PH: Tensor, place_M: Tensor, target_M: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return (M,) log softmax(logits[place] / temperature)[target] and (P,) entropies in nats, which are detached.

    `place_M` is the position that token `target_M` follows, in ascending order. Results are float32 (or wider, if the
    head is), whatever the head computes in. The gradient with respect to the hidden states and the head's weights is
    that of the plain formula.
    """
    logprobs_M, entropy_P = _HeadLogprobs.apply(  # type: ignore[no-untyped-call]
        head, head.dtype(hidden_PH), temperature, place_M, target_M, hidden_PH, *head.weights()
    )
    return logprobs_M, entropy_P


class _HeadLogprobs(torch.autograd.Function):
    """`head_logprobs` with a backward pass that computes the logits again, part by part.

    Both passes reuse buffers of one part's size: on a CPU, allocating memory for each part takes longer than computing
    the exponentials.
    """

    @staticmethod
    def forward(
        ctx: Any,
        head: Head,
        dtype: torch.dtype,
        temperature: float,
        place_M: Tensor,
        target_M: Tensor,
        hidden_PH: Tensor,
        weight_VH: Tensor | None,
        bias_V: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        logits = _Logits(head, dtype, temperature, hidden_PH, weight_VH, bias_V)
        log_z_P, entropy_P = hidden_PH.new_empty((2, len(hidden_PH)), dtype=logits.wide)
        logprobs_M = hidden_PH.new_empty(len(target_M), dtype=logits.wide)
        weights_PV = logits.buffer()
        for rows, members in _parts(head, len(hidden_PH), place_M):
            logits_PV = logits.of(rows)
            place = place_M[members] - rows.start
            highest_P1 = logits_PV.amax(-1, keepdim=True)
            logits_PV -= highest_P1
            weights = torch.exp(logits_PV, out=weights_PV[: len(logits_PV)])
            z_P = weights.sum(-1)
            logprobs_M[members] = logits_PV[place, target_M[members]] - z_P.log()[place]
            entropy_P[rows] = z_P.log() - weights.mul_(logits_PV).sum(-1) / z_P
            log_z_P[rows] = z_P.log() + highest_P1.squeeze(-1)
        ctx.save_for_backward(place_M, target_M, hidden_PH, weight_VH, bias_V, log_z_P)
        ctx.settings = head, dtype, temperature
        ctx.mark_non_differentiable(entropy_P)
        return logprobs_M, entropy_P

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_M: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        place_M, target_M, hidden_PH, weight_VH, bias_V, log_z_P = ctx.saved_tensors
        head, dtype, temperature = ctx.settings
        grad_PH = torch.empty_like(hidden_PH)
        grad_VH, grad_V = (
            torch.zeros_like(x) if x is not None and x.requires_grad else None for x in (weight_VH, bias_V)
        )
        logits = _Logits(head, dtype, temperature, hidden_PH, weight_VH, bias_V)
        for rows, members in _parts(head, len(hidden_PH), place_M):
            slope_PV = logits.of(rows)
            inner_PV = None if head.cap is None else 1 - (slope_PV * (temperature / head.cap)).square_()
            place = place_M[members] - rows.start
            received_M = grad_M[members] * (head.scale / temperature)
            received_P = torch.zeros_like(log_z_P[rows]).index_add_(0, place, received_M)
            # The derivative of log p(v) with respect to the logits is (1 at v) - softmax.
            slope_PV.sub_(log_z_P[rows, None]).exp_().mul_(-received_P[:, None])
            slope_PV.index_put_((place, target_M[members]), received_M, accumulate=True)
            if inner_PV is not None:
                slope_PV *= inner_PV
            if weight_VH is None:
                grad_PH[rows] = slope_PV
                continue
            if grad_V is not None:
                grad_V += slope_PV.sum(0)
            slope_PV = slope_PV.to(dtype)
            grad_PH[rows] = slope_PV @ logits.weight_VH
            if grad_VH is not None and dtype == grad_VH.dtype:
                grad_VH.addmm_(slope_PV.T, logits.hidden_PH[rows])
            elif grad_VH is not None:
                grad_VH += slope_PV.T @ logits.hidden_PH[rows]
        return None, None, None, None, None, grad_PH, grad_VH, grad_V


class _Logits:
    """Logits divided by the temperature, for some positions at a time, in a reused buffer."""

    def __init__(
        self,
        head: Head,
        dtype: torch.dtype,
        temperature: float,
        hidden_PH: Tensor,
        weight_VH: Tensor | None,
        bias_V: Tensor | None,
    ) -> None:
        self.head, self.temperature = head, temperature
        self.wide = torch.promote_types(dtype, torch.float32)
        self.hidden_PH = hidden_PH.to(dtype)
        self.weight_VH: Any = None if weight_VH is None else weight_VH.to(dtype)
        self.bias_V = bias_V
        self._buffer_PV = self.buffer()

    def buffer(self) -> Tensor:
        """Return an uninitialized buffer for the logits of one part."""
        rows = min(_rows_at_once(self.head), len(self.hidden_PH))
        return self.hidden_PH.new_empty((rows, self.head.vocabulary), dtype=self.wide)

    def of(self, rows: slice) -> Tensor:
        """Return the (rows, V) logits, valid until the next call."""
        hidden_PH = self.hidden_PH[rows]
        logits_PV = self._buffer_PV[: len(hidden_PH)]
        if self.weight_VH is None:
            logits_PV.copy_(hidden_PH)
        elif self.wide == hidden_PH.dtype:
            torch.mm(hidden_PH, self.weight_VH.T, out=logits_PV)
        else:
            logits_PV.copy_(hidden_PH @ self.weight_VH.T)
        if self.bias_V is not None:
            logits_PV += self.bias_V
        factor, cap = self.head.scale / self.temperature, self.head.cap
        if cap is not None:
            return logits_PV.mul_(self.head.scale / cap).tanh_().mul_(cap / self.temperature)
        return logits_PV if factor == 1 else logits_PV.mul_(factor)


def _rows_at_once(head: Head) -> int:
    return max(1, head.logits_at_once // head.vocabulary)


def _parts(head: Head, positions: int, place_M: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield slices of P, each with the slice of M that its positions predict."""
    starts = list(range(0, positions, _rows_at_once(head)))
    ends = torch.searchsorted(place_M, torch.tensor([*starts, positions], device=place_M.device)).tolist()
    for start, end, first, last in zip(starts, [*starts[1:], positions], ends, ends[1:], strict=False):
        yield slice(start, end), slice(first, last)
