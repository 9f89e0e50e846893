"""The policy being trained: its weights, its optimizer, and their files.

Master weights are float32 whatever the compute dtype: in bfloat16, a learning rate of 1e-6 would round nearly every
update away.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from rlvr.errors import ConfigError, RunError
from rlvr.protocols import ModelSpec, Snapshot
from rlvr.run.models import fixed_rope_length, load_tokenizer

from ..batch import Support
from .head import SplitModel, split
from .logprobs import TokenLogprobs, token_logprobs
from .lora import Adapter
from .lora_options import LoraOptions
from .models import load_model, resolve
from .prefix_tree import require_tree_attention, shared_token_logprobs
from .snapshots import snapshot_of


class Policy:
    """Weights with a version (optimizer steps completed), AdamW, and an optional frozen reference π_ref.

    With `lora`, only an adapter is trained, and π_ref is the model without it, so no copy is held.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        temperature: float,
        betas: tuple[float, float],
        adam_epsilon: float,
        weight_decay: float,
        gradient_checkpointing: bool,
        with_reference: bool,
        share_prefixes: bool = False,
        float32_head: bool = False,
        lora: LoraOptions | None = None,
        seed: int = 0,
    ) -> None:
        spec = resolve(spec)
        if spec.dtype == "float16":
            raise ConfigError("model.dtype: float16 gradients underflow without loss scaling; use bfloat16 or float32")
        if temperature <= 0:
            raise ConfigError("sampling.temperature: training needs a temperature above 0")
        self.spec = spec
        self.temperature = temperature
        self.model: PreTrainedModel = load_model(spec, master=True)
        self._longest = fixed_rope_length(self.model.config)
        self.adapter = None if lora is None else Adapter(self.model, lora, seed=seed)
        if gradient_checkpointing:
            # Renamed within transformers 5; the old name warns if both exist.
            names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
            enable = next(getattr(self.model, name) for name in names if hasattr(self.model, name))
            enable({"use_reentrant": False})
            self.model.train()  # checkpointing is active in train mode only; dropout has probability 0
        self._token_logprobs = shared_token_logprobs if share_prefixes else token_logprobs
        self._split = partial(split, float32_head=float32_head)
        self._scored = self._split(self.model)
        if share_prefixes:
            require_tree_attention(self._scored)
        self.tokenizer = load_tokenizer(spec)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        groups = _decayed(self.model, weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=adam_epsilon, fused=True)
        self.reference: PreTrainedModel | None = None
        self._scored_reference: SplitModel | None = None
        self.version = 0
        if with_reference and self.adapter is None:
            self.reset_reference()

    def logprobs(self, token_ids_BT: Tensor, mask_BT: Tensor, support: Support | None = None) -> TokenLogprobs:
        """Return log-probabilities under the current weights, with gradients if they are enabled.

        Raises RunError for rows that are longer than the model's rotary embedding stays the same.
        """
        if self._longest is not None and token_ids_BT.shape[1] > self._longest:
            raise RunError(
                f"a rollout has {token_ids_BT.shape[1]:,} tokens, and the model's rotary embedding changes for all "
                f"positions beyond {self._longest:,}: the log-probabilities of its batch would be wrong; leave it out"
            )
        with self._compute_dtype():
            return self._token_logprobs(self._scored, token_ids_BT, mask_BT, self.temperature, support)

    @torch.no_grad()
    def reference_logprobs(self, token_ids_BT: Tensor, mask_BT: Tensor, support: Support | None = None) -> Tensor:
        """Return (B, T) log-probabilities under π_ref."""
        if self.adapter is not None:
            with self.adapter.off():
                return self.logprobs(token_ids_BT, mask_BT, support).logprobs_BT
        assert self._scored_reference is not None
        with self._compute_dtype():
            return self._token_logprobs(
                self._scored_reference, token_ids_BT, mask_BT, self.temperature, support
            ).logprobs_BT

    def reset_reference(self) -> None:
        """Set π_ref ← π_θ (arXiv 2505.22257, Algorithm 1, outer loop). With an adapter, π_ref stays the base model."""
        self.reference = copy.deepcopy(self.model).requires_grad_(False)
        self._scored_reference = self._split(self.reference)

    def clip_gradients(self, max_norm: float) -> float:
        """Scale the accumulated gradients down to a norm of at most `max_norm`. Return the norm before."""
        return float(torch.nn.utils.clip_grad_norm_(self.parameters, max_norm))

    def discard_gradients(self) -> None:
        """Discard the accumulated gradients without a step."""
        self.optimizer.zero_grad(set_to_none=True)

    def step(self, lr: float) -> None:
        """Take one optimizer step from the accumulated gradients, which must be finite."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.version += 1

    def weights(self) -> Mapping[str, Tensor]:
        """Return parameter name → float32 tensor. Tensors share memory with the model unless an adapter is merged."""
        if self.adapter is not None:
            return self.adapter.merged()
        return {name: tensor.detach() for name, tensor in self.model.state_dict().items()}

    def snapshot(self) -> Snapshot:
        """Return the current weights by checkpoint name, an adapter merged tensor by tensor and also by itself."""
        if self.adapter is not None:
            merged = snapshot_of(self.model, self.version, self.adapter.base_state(), self.adapter.merge)
            return replace(merged, adapter=self.adapter.snapshot(self.version))
        return snapshot_of(self.model, self.version)

    def save(self, directory: Path, extra: Mapping[str, Any]) -> None:
        """Write model and tokenizer for `from_pretrained`, the optimizer, π_ref, and `extra` (JSON).

        An adapter is merged into the model and also written by itself, in peft's format.
        """
        if self.adapter is None:
            self.model.save_pretrained(directory)
        else:
            self.adapter.plain_model().save_pretrained(directory)
            self.adapter.save(directory / "adapter")
        self.tokenizer.save_pretrained(directory)
        torch.save(self.optimizer.state_dict(), directory / "optimizer.pt")
        if self.reference is not None:
            tensors = {name: tensor.clone().contiguous() for name, tensor in self.reference.state_dict().items()}
            save_file(tensors, directory / "reference.safetensors")
        (directory / "trainer.json").write_text(json.dumps({"version": self.version, **extra}))

    def load(self, directory: Path) -> dict[str, Any]:
        """Read back what `save` wrote, also from another device. Return `extra`."""
        # Load through host memory: the device may differ from the one that saved, and cannot hold everything twice.
        if self.adapter is None:
            spec = replace(self.spec, path=str(directory), revision=None, device="cpu")
            self.model.load_state_dict(load_model(spec, master=True).state_dict())
        else:
            self.adapter.load(directory / "adapter")
        state = torch.load(directory / "optimizer.pt", map_location="cpu", weights_only=True)
        if len(state["param_groups"]) != len(self.optimizer.param_groups):
            raise RunError(
                f"{directory} was written by an older rlvr, whose trainer.weight_decay also shrank norms and biases, "
                "so this run cannot be resumed. Resume it with that version, or start a new run from its weights: "
                f"--model {directory}"
            )
        self.optimizer.load_state_dict(state)
        if self.reference is not None:
            self.reference.load_state_dict(load_file(directory / "reference.safetensors"))
        extra: dict[str, Any] = json.loads((directory / "trainer.json").read_text())
        self.version = extra.pop("version")
        return extra

    def _compute_dtype(self) -> AbstractContextManager[Any]:
        dtype = getattr(torch, self.spec.dtype)
        return torch.autocast(torch.device(self.spec.device).type, dtype=dtype, enabled=dtype != torch.float32)


def _decayed(model: PreTrainedModel, weight_decay: float) -> list[dict[str, Any]]:
    """Return AdamW's parameter groups: norms and biases do not decay."""
    trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    if weight_decay == 0:  # one group, in the model's order, as in checkpoints of older versions
        return [{"params": [weight for _, weight in trained], "weight_decay": 0.0}]
    # Fused experts stack their biases into matrices.
    plain = {name for name, weight in trained if weight.dim() < 2 or name.endswith("bias")}
    groups = [
        {"params": [weight for name, weight in trained if name not in plain], "weight_decay": weight_decay},
        {"params": [weight for name, weight in trained if name in plain], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
