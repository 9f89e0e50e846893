"""The output layer apart from the rest of the model: log-probabilities without all logits at once.

With a vocabulary of 150,000 the logits of a batch are most of a training step's memory, and their softmax and their
gradient are as large again. Here they are computed for some hundred positions at a time, in the forward pass and once
more in the backward pass, and only a few numbers a position are kept.

Shapes: S = sequences, T = tokens, H = hidden size, P = positions that predict something that is asked for, M = tokens
that are asked for (several may follow one position), V = vocabulary.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

from rlvr.errors import ConfigError

LOGITS_AT_ONCE = 2**26
"""How many are held at a time, or those of one position: 256 MiB in float32, and their exponentials as much again."""

Change: TypeAlias = Callable[[Tensor, Any], Tensor]

# What architectures do to their logits, by the name of the configuration's number for it.
AFTER_HEAD: Mapping[str, Change] = {
    "logit_scale": lambda logits, scale: logits * scale,  # Cohere
    "logits_scaling": lambda logits, scale: logits / scale,  # Granite
    "lm_head_multiplier": lambda logits, scale: logits * scale,  # Falcon-H1
    "final_logit_softcapping": lambda logits, cap: torch.tanh(logits / cap) * cap,  # Gemma 2 and later
}


@dataclass(frozen=True)
class Head:
    """(…, H) hidden states → (…, V) logits."""

    layer: nn.Module
    changes: tuple[tuple[Change, Any], ...] = ()
    vocabulary: int = 0
    float32: bool = False
    """Whether the layer computes in float32 where the rest is autocast to bfloat16."""

    def __call__(self, hidden: Tensor) -> Tensor:
        """The logits, in whatever dtype the layer gives."""
        exact: AbstractContextManager[Any] = nullcontext()
        if self.float32:
            hidden, exact = hidden.float(), torch.autocast(hidden.device.type, enabled=False)
        with exact:
            logits: Tensor = self.layer(hidden)
            for change, number in self.changes:
                logits = change(logits, number)
        return logits


@dataclass(frozen=True)
class SplitModel:
    """A causal language model as `head(hidden_states(tokens))`."""

    model: PreTrainedModel
    body: nn.Module
    head: Head

    def hidden_states(self, token_ids_ST: Tensor, **options: Any) -> Tensor:
        """(S, T, H) what the head reads. `options` are those of the model's `forward`."""
        output = self.body(input_ids=token_ids_ST, use_cache=False, **options)
        hidden_STH: Tensor = output[0]
        return hidden_STH


def split(model: PreTrainedModel, *, float32_head: bool = False) -> SplitModel:
    """The model in two parts, tried on a few tokens.

    A model that does something else to its logits than `AFTER_HEAD` knows warns once and stays whole: its logits are
    then its "hidden states", all computed at once, and only what follows them is done in parts. Raises ConfigError when
    such a model is to have a float32 head.
    """
    layer, body = model.get_output_embeddings(), model.base_model  # type: ignore[no-untyped-call]
    config = model.config.get_text_config()
    numbers = {name: getattr(config, name, None) for name in AFTER_HEAD}
    changes = tuple((AFTER_HEAD[name], number) for name, number in numbers.items() if number is not None)
    draw = torch.Generator().manual_seed(0)
    probe = torch.randint(config.vocab_size, (1, 8), generator=draw).to(model.device)
    with torch.no_grad():
        expected = model(input_ids=probe, use_cache=False).logits
        if isinstance(layer, nn.Module) and body is not model:
            parts = SplitModel(model, body, Head(layer, changes, expected.shape[-1], float32_head))
            found = parts.head(parts.hidden_states(probe))
            if found.shape == expected.shape and torch.allclose(found, expected.to(found.dtype), rtol=1e-3, atol=1e-3):
                return parts
    if float32_head:
        raise ConfigError(
            f"trainer.float32_head: {config.model_type} computes its logits in a way of its own, which cannot be "
            "repeated in float32; leave it out, or set model.dtype=float32"
        )
    warnings.warn(
        f"{config.model_type} computes its logits in a way of its own: they are held all at once, which needs more "
        "memory; lower trainer.micro_batch_tokens if it does not fit",
        stacklevel=2,
    )
    return SplitModel(model, model, Head(nn.Identity(), (), expected.shape[-1]))


def head_logprobs(
    head: Head, hidden_PH: Tensor, place_M: Tensor, target_M: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """(M,) log softmax(head(hidden[place]) / temperature)[target], and (P,) entropies in nats, which are detached.

    `place_M` says which position token `target_M` follows, in ascending order. Float32 (or wider, if the head is)
    whatever the head computes in. The gradient is that of the plain formula, with respect to the hidden states and to
    those of the head's parameters that learn.
    """
    parameters = [p for p in head.layer.parameters() if p.requires_grad]
    logprobs_M, entropy_P = _HeadLogprobs.apply(  # type: ignore[no-untyped-call]
        head, temperature, place_M, target_M, hidden_PH, *parameters
    )
    return logprobs_M, entropy_P


class _HeadLogprobs(torch.autograd.Function):
    """`head_logprobs` with a backward pass that computes the logits again, part by part."""

    @staticmethod
    def forward(
        ctx: Any,
        head: Head,
        temperature: float,
        place_M: Tensor,
        target_M: Tensor,
        hidden_PH: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        dtype = torch.promote_types(hidden_PH.dtype, torch.float32)
        log_z_P, entropy_P = (torch.empty(len(hidden_PH), dtype=dtype, device=hidden_PH.device) for _ in range(2))
        logprobs_M = torch.empty(len(target_M), dtype=dtype, device=hidden_PH.device)
        for rows, members in _parts(head, len(hidden_PH), place_M):
            logits_PV = _scaled(head(hidden_PH[rows]), temperature, dtype)
            place = place_M[members] - rows.start
            highest_P1 = logits_PV.amax(-1, keepdim=True)
            logits_PV -= highest_P1
            logprobs_M[members] = logits_PV[place, target_M[members]]
            weights_PV = logits_PV.exp()
            z_P = weights_PV.sum(-1)
            entropy_P[rows] = z_P.log() - weights_PV.mul_(logits_PV).sum(-1) / z_P
            logprobs_M[members] -= z_P.log()[place]
            log_z_P[rows] = z_P.log() + highest_P1.squeeze(-1)
        ctx.save_for_backward(place_M, target_M, hidden_PH, log_z_P, *parameters)
        ctx.head, ctx.temperature, ctx.autocast = head, temperature, _autocast(hidden_PH.device.type)
        ctx.mark_non_differentiable(entropy_P)
        return logprobs_M, entropy_P

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_M: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        place_M, target_M, hidden_PH, log_z_P, *parameters = ctx.saved_tensors
        grad_PH = torch.zeros_like(hidden_PH)
        grads: list[Tensor] = []
        grad_M = grad_M / ctx.temperature
        with torch.enable_grad(), ctx.autocast:
            for rows, members in _parts(ctx.head, len(hidden_PH), place_M):
                part_PH = hidden_PH[rows].detach().requires_grad_()
                output_PV = ctx.head(part_PH)
                place = place_M[members] - rows.start
                received_P = torch.zeros_like(log_z_P[rows]).index_add_(0, place, grad_M[members])
                # The derivative of log p(v) with respect to the logits is (1 at v) - softmax.
                slope_PV = _scaled(output_PV.detach(), ctx.temperature, log_z_P.dtype) - log_z_P[rows, None]
                slope_PV.exp_().mul_(-received_P[:, None])
                slope_PV.index_put_((place, target_M[members]), grad_M[members], accumulate=True)
                grad_PH[rows], *found = torch.autograd.grad(
                    output_PV, [part_PH, *parameters], slope_PV.to(output_PV.dtype)
                )
                grads = [total.add_(part) for total, part in zip(grads, found, strict=True)] if grads else found
        return None, None, None, None, grad_PH, *(grads or map(torch.zeros_like, parameters))


def _parts(head: Head, positions: int, place_M: Tensor) -> Iterator[tuple[slice, slice]]:
    """Slices of P, each with the slice of M that follows it."""
    size = max(1, LOGITS_AT_ONCE // head.vocabulary)
    starts = list(range(0, positions, size))
    ends = torch.searchsorted(place_M, torch.tensor([*starts, positions], device=place_M.device)).tolist()
    for start, first, last in zip(starts, ends, ends[1:], strict=False):
        yield slice(start, min(start + size, positions)), slice(first, last)


def _scaled(logits_PV: Tensor, temperature: float, dtype: torch.dtype) -> Tensor:
    """In `dtype`, divided by the temperature; the tensor itself where there is nothing to do."""
    logits_PV = logits_PV.to(dtype)
    return logits_PV if temperature == 1 else logits_PV / temperature


def _autocast(kind: str) -> torch.autocast:
    """What autocast is set to now, for the backward pass, which runs outside of it."""
    return torch.autocast(kind, dtype=torch.get_autocast_dtype(kind), enabled=torch.is_autocast_enabled(kind))
