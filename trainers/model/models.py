"""Model loading, shared by sampler and trainers so that both load the same model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, TypeAlias, cast

import torch
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers import PreTrainedTokenizerBase as Tokenizer

from rlvr.errors import ConfigError, RequestError, nearest
from rlvr.protocols import ModelSpec
from rlvr.run.models import cannot_load, check_directory, eos_ids, hub_arguments, reaching

DType: TypeAlias = Literal["float32", "bfloat16", "float16"]
DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve(spec: ModelSpec) -> ModelSpec:
    """Return `spec` with "auto" resolved to this machine's device and dtype."""
    device = resolve_device(spec.device)
    return replace(spec, device=device, dtype=resolve_dtype(spec.dtype, device))


def resolve_device(name: str) -> str:
    """Return the torch device for `name`; "auto" is the first of cuda, mps and cpu that this machine has.

    Raises ConfigError for a device that this machine does not have.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        kind = name.partition(":")[0]
        raise ConfigError(f"device: {name!r} is not a device{nearest(kind, ('auto', 'cpu', 'cuda', 'mps'))}") from None
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if device.type not in count or (device.index or 0) >= count[device.type]:
        here = ", ".join(f"{kind} ({n})" if n > 1 else kind for kind, n in count.items() if n)
        raise ConfigError(f"device: {name!r} is not available; this machine has {here}, and 'auto' chooses the best")
    return name


def resolve_dtype(name: str, device: str) -> DType:
    """Return the dtype to compute in; "auto" is bfloat16 on a CUDA device with hardware support, else float32.

    `device` must be resolved already. Raises ConfigError for an unknown name.
    """
    if name == "auto":
        native = device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if native else "float32"
    if name not in DTYPES:
        raise ConfigError(f"dtype: there is no {name!r}{nearest(name, ('auto', *DTYPES))}")
    return cast(DType, name)


def load_model(spec: ModelSpec, *, master: bool) -> PreTrainedModel:
    """Load the causal language model of `spec` on its device, in eval mode, with every dropout set to 0.

    With `master`, parameters are float32 whatever the checkpoint holds, because an optimizer's step of 1e-6 is lost in
    bfloat16. Otherwise they have `spec.dtype`. Raises RequestError if there is no such model, or if its checkpoint
    lacks a weight, which transformers would silently initialize at random.
    """
    check_directory(spec)
    spec = resolve(spec)
    dtype = torch.float32 if master else DTYPES[spec.dtype]
    try:
        with reaching(spec):
            config = AutoConfig.from_pretrained(spec.path, **hub_arguments(spec))
            _zero_dropout(config)
            _refuse_stateful(config)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                spec.path,
                **hub_arguments(spec),
                config=config,
                dtype=dtype,
                attn_implementation=spec.attn_implementation,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise cannot_load("model", spec, error) from error
    model: PreTrainedModel = loaded[0]
    absent = sorted(loaded[1]["missing_keys"])
    if absent:
        shown = ", ".join(absent[:3]) + (", …" if len(absent) > 3 else "")
        raise RequestError(
            f"model {spec.path!r}: its checkpoint lacks {len(absent)} weights of {type(model).__name__} ({shown}); "
            "it is incomplete, or its config.json names another architecture"
        )
    for layer in model.modules():  # dropout layers that do not read the configuration
        if isinstance(layer, torch.nn.modules.dropout._DropoutNd):
            layer.p = 0.0
    module: torch.nn.Module = model  # typed methods, unlike the library's overrides
    if master:
        module.float()  # some architectures keep single parameters in a dtype of their own
    module.to(torch.device(spec.device)).eval()
    return model


def stop_ids(model: PreTrainedModel, tokenizer: Tokenizer) -> frozenset[int]:
    """Return the token ids that end a completion: those of the generation configuration, and the tokenizer's."""
    configured = model.generation_config.eos_token_id if model.generation_config is not None else None
    return eos_ids(configured, tokenizer)


def _refuse_stateful(config: PreTrainedConfig) -> None:
    """Raise RequestError for a model whose layers carry a state from token to token.

    The sampler drops and repeats rows of a key-value cache and pads prompts on the left; a recurrent state of a
    state-space or linear-attention layer follows neither, so samples would silently have other log-probabilities.
    """
    model = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    layers = set(getattr(config.get_text_config(), "layer_types", None) or ())
    recurrent = sorted(kind for kind in layers if not kind.endswith("attention") or "linear" in kind)
    if recurrent or getattr(model, "_is_stateful", False):
        kinds = f" of type {', '.join(recurrent)}" if recurrent else ""
        raise RequestError(
            f"model: {config.model_type} has state-space or other recurrent layers{kinds}, and rlvr samples from "
            "attention models only; name a model without such layers"
        )


def _zero_dropout(config: PreTrainedConfig) -> None:
    """Set every dropout to 0: sampling and training must agree, also in train mode (for gradient checkpointing)."""
    for name, value in vars(config).items():
        if isinstance(value, PreTrainedConfig):
            _zero_dropout(value)
        elif isinstance(value, float) and any(part in name for part in ("drop", "jitter_noise")):
            setattr(config, name, 0.0)
