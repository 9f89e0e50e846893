"""Low-rank adapters by way of peft (extra `lora`): W + (alpha / rank) · B·A, of which A and B alone are trained.

The reference policy is then the base model, which is the same model with the adapter off. What leaves the trainer is
merged: a sampler, and whoever loads a checkpoint, sees an ordinary model.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlvr.draws import draw
from rlvr.errors import ConfigError, RunError

from .lora_options import LoraOptions

NAME = "default"
PREFIX = "base_model.model."
"""What peft puts before the names of weights in its files."""


class Adapter:
    """Low-rank layers inside a model, which is frozen but for them."""

    def __init__(self, model: PreTrainedModel, options: LoraOptions, *, seed: int) -> None:
        """Changes `model` in place; as B is 0 at first, what it computes stays the same.

        Raises ConfigError when peft is missing, or when there is no such layer in this model.
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
                        f"trainer.lora.targets: {name} shares its weights with another layer in this model, and an "
                        "adapter would part them; leave it out"
                    )
        targets = options.targets if options.targets == "all-linear" else list(options.targets)
        self.config = LoraConfig(
            r=options.rank, lora_alpha=options.alpha, target_modules=targets, task_type="CAUSAL_LM"
        )
        try:
            with torch.random.fork_rng():
                torch.manual_seed(draw("lora", seed))
                inject_adapter_in_model(self.config, model, adapter_name=NAME)
        except ValueError as error:
            raise ConfigError(f"trainer.lora.targets: {str(error).splitlines()[0]}") from error
        self.model = model
        module: nn.Module = model  # whose methods are typed, where the library's overrides of them are not
        module.eval()
        # A subclass may do more than add B·A, which the merged weights would not show.
        self.layers = {name: layer for name, layer in model.named_modules() if type(layer) is Linear}
        others = [
            name
            for name, layer in model.named_modules()
            if hasattr(layer, "base_layer") and (name not in self.layers or not isinstance(layer.base_layer, nn.Linear))
        ]
        if others:
            raise ConfigError(f"trainer.lora.targets: {others[0]} is not a linear layer; name linear layers only")

    def merged(self) -> dict[str, Tensor]:
        """Weights by the names of the model without adapter: the targets' with it added, the others as they are."""
        weights: dict[str, Tensor] = {}
        with torch.no_grad():
            for name, tensor in self.model.state_dict().items():
                owner, base, rest = name.rpartition("base_layer.")
                layer: Any = self.layers.get(owner.removesuffix("."))
                if base and layer is not None:
                    weights[owner + rest] = tensor + layer.get_delta_weight(NAME) if rest == "weight" else tensor
                elif ".lora_" not in name:
                    weights[name] = tensor
        return weights

    @contextmanager
    def off(self) -> Iterator[None]:
        """Inside, the model is the base model."""
        self._switch(False)
        try:
            yield
        finally:
            self._switch(True)

    def _switch(self, on: bool) -> None:
        layer: Any
        for layer in self.layers.values():
            layer.enable_adapters(on)

    def save(self, directory: Path) -> None:
        """Writes the adapter as `PeftModel.from_pretrained` reads it."""
        self.config.save_pretrained(str(directory))
        save_file(
            {PREFIX + name: tensor.contiguous() for name, tensor in self._own().items()},
            directory / "adapter_model.safetensors",
        )

    @torch.no_grad()
    def load(self, directory: Path) -> None:
        """Reads back what `save` wrote. Raises RunError when it is of another shape."""
        own, saved = self._own(), load_file(directory / "adapter_model.safetensors")
        if {PREFIX + name: tensor.shape for name, tensor in own.items()} != {n: t.shape for n, t in saved.items()}:
            raise RunError(f"the adapter in {str(directory)!r} has other layers or another rank than trainer.lora says")
        for name, tensor in own.items():
            tensor.copy_(saved[PREFIX + name])

    def _own(self) -> Mapping[str, Tensor]:
        """A and B of every layer, by peft's names, which do not hold the adapter's."""
        state = self.model.state_dict()
        return {name.replace(f".{NAME}.", "."): tensor for name, tensor in state.items() if ".lora_" in name}

    def plain_model(self) -> PreTrainedModel:
        """An ordinary model that holds the merged weights (of what is not a target, the very tensors)."""
        with torch.device("meta"):
            plain: PreTrainedModel = type(self.model)(copy.deepcopy(self.model.config))
        plain.load_state_dict(self.merged(), assign=True)
        plain.tie_weights()
        plain.generation_config = self.model.generation_config
        return plain
