"""Low-rank adapters through peft (extra `lora`): W + (alpha / rank) · B·A, where only A and B are trained.

The reference policy is the base model, that is, the same model with the adapter off. Weights leave the trainer merged,
so samplers and checkpoints see an ordinary model; a sampler that can load an adapter finds it beside them.
"""

from __future__ import annotations

import copy
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rlvr.draws import draw
from rlvr.errors import ConfigError, RunError
from rlvr.protocols import Snapshot

from .lora_options import LoraOptions
from .snapshots import snapshot_from

NAME = "default"
PREFIX = "base_model.model."
"""Prefix of the weight names in peft's files."""
LINEAR = (nn.Linear, Conv1D)
"""Linear layers; GPT-2's keeps its weight transposed."""

_log = logging.getLogger("rlvr")


def _linear_layers(model: PreTrainedModel) -> list[str]:
    """Return the names of all linear layers except the output layer."""
    output = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return [name for name, layer in model.named_modules() if isinstance(layer, LINEAR) and layer is not output]


def adapted_layer(name: str) -> str:
    """Return the layer that a tensor of an adapter's file belongs to."""
    return name.removeprefix(PREFIX).partition(".lora_")[0]


class Adapter:
    """Low-rank layers inside a model whose other weights are frozen."""

    def __init__(self, model: PreTrainedModel, options: LoraOptions, *, seed: int) -> None:
        """Add the layers to `model` in place. B starts at 0, so the model's output stays the same.

        Raises ConfigError if peft is missing, or if the model has no such layer.
        """
        try:
            from peft import LoraConfig, inject_adapter_in_model
            from peft.tuners.lora import Linear
        except ImportError as error:
            raise ConfigError(f"trainer.lora needs peft: pip install 'rlvr[lora]' ({error})") from error
        if options.targets != "all-linear" and model.config.get_text_config().tie_word_embeddings:
            tied = (model.get_input_embeddings(), model.get_output_embeddings())  # type: ignore[no-untyped-call]
            for name, layer in model.named_modules():
                if layer in tied and any(name == t or name.endswith(f".{t}") for t in options.targets):
                    raise ConfigError(
                        f"trainer.lora.targets: {name} shares its weights with another layer of this model, and an "
                        "adapter would separate them; leave it out"
                    )
        # peft's own "all-linear" also takes fused experts and routers, which are parameters and no linear layers.
        targets = _linear_layers(model) if options.targets == "all-linear" else list(options.targets)
        self.config = LoraConfig(
            r=options.rank, lora_alpha=options.alpha, target_modules=targets, task_type="CAUSAL_LM"
        )
        try:
            with torch.random.fork_rng(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "fan_in_fan_out is set to False", UserWarning)  # GPT-2's Conv1D
                torch.manual_seed(draw("lora", seed))
                inject_adapter_in_model(self.config, model, adapter_name=NAME)
        except ValueError as error:
            raise ConfigError(f"trainer.lora.targets: {str(error).splitlines()[0]}") from error
        self.model = model
        module: nn.Module = model  # its methods are typed; the library's overrides are not
        module.eval()
        # A subclass may do more than add B·A, which merged weights could not express.
        self.layers = {name: layer for name, layer in model.named_modules() if type(layer) is Linear}
        others = [
            name
            for name, layer in model.named_modules()
            if hasattr(layer, "base_layer") and (name not in self.layers or not isinstance(layer.base_layer, LINEAR))
        ]
        if others:
            raise ConfigError(f"trainer.lora.targets: {others[0]} is not a linear layer; name linear layers only")
        if options.targets == "all-linear" and (frozen := self._frozen_matrices()):
            _log.warning("trainer.lora adapts linear layers only: %s stay frozen", ", ".join(frozen))

    def _frozen_matrices(self) -> list[str]:
        """Return the weights, other than embeddings and output layer, that no adapter changes; layer numbers are `*`.

        In a mixture of experts these are the fused experts and the router.
        """
        outer = [layer for layer in self.model.modules() if isinstance(layer, nn.Embedding)]
        outer.append(self.model.get_output_embeddings())  # type: ignore[no-untyped-call]
        left_out = {id(layer.weight) for layer in outer if layer is not None}
        frozen = (
            name
            for name, weight in self.model.named_parameters()
            if weight.dim() > 1
            and not (weight.requires_grad or id(weight) in left_out)
            and not (".base_layer." in name or name.endswith("bias"))
        )
        return list(dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in frozen))

    def base_state(self) -> dict[str, Tensor]:
        """Return the frozen weights, by the parameter names of the model without adapter."""
        state = self.model.state_dict()
        return {name.replace(".base_layer.", "."): tensor for name, tensor in state.items() if ".lora_" not in name}

    @torch.no_grad()
    def merge(self, name: str, tensor: Tensor) -> Tensor:
        """Return weight `name` of `base_state` with the adapter added; the tensor itself if it is not a target."""
        owner, _, kind = name.rpartition(".")
        layer: Any = self.layers.get(owner)
        return tensor if layer is None or kind != "weight" else tensor + layer.get_delta_weight(NAME)

    def merged(self) -> dict[str, Tensor]:
        """Return all weights with the adapter added, by the parameter names of the model without adapter."""
        return {name: self.merge(name, tensor) for name, tensor in self.base_state().items()}

    @contextmanager
    def off(self) -> Iterator[None]:
        """Turn the adapter off inside the context: the model is then the base model."""
        self._switch(False)
        try:
            yield
        finally:
            self._switch(True)

    def _switch(self, on: bool) -> None:
        layer: Any
        for layer in self.layers.values():
            layer.enable_adapters(on)

    def snapshot(self, version: int) -> Snapshot:
        """Return A and B of every layer under the names of peft's files, with the configuration that they need."""
        tensors = {PREFIX + name: tensor for name, tensor in self._own().items()}
        config = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "r": self.config.r,
            "lora_alpha": self.config.lora_alpha,
            "target_modules": sorted(self.layers),
            "bias": "none",
        }
        return replace(snapshot_from(tensors, version), lora=config)

    def save(self, directory: Path) -> None:
        """Write the adapter in the format of `PeftModel.from_pretrained`."""
        self.config.save_pretrained(str(directory))
        save_file(
            {PREFIX + name: tensor.contiguous() for name, tensor in self._own().items()},
            directory / "adapter_model.safetensors",
        )

    @torch.no_grad()
    def load(self, directory: Path) -> None:
        """Read back what `save` wrote. Raises RunError if its shapes differ."""
        own, saved = self._own(), load_file(directory / "adapter_model.safetensors")
        if {PREFIX + name: tensor.shape for name, tensor in own.items()} != {n: t.shape for n, t in saved.items()}:
            raise RunError(f"the adapter in {str(directory)!r} has other layers or another rank than trainer.lora says")
        for name, tensor in own.items():
            tensor.copy_(saved[PREFIX + name])

    def _own(self) -> Mapping[str, Tensor]:
        """Return A and B of every layer under peft's names, which omit the adapter's name."""
        state = self.model.state_dict()
        return {name.replace(f".{NAME}.", "."): tensor for name, tensor in state.items() if ".lora_" in name}

    def plain_model(self) -> PreTrainedModel:
        """Return an ordinary model with the merged weights. Weights without adapter share memory with this model."""
        with torch.device("meta"):
            plain: PreTrainedModel = type(self.model)(copy.deepcopy(self.model.config))
        plain.load_state_dict(self.merged(), assign=True)
        plain.tie_weights()
        plain.generation_config = self.model.generation_config
        return plain
