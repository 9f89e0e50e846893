"""`vllm`: the sampler on vLLM's engine, in this process."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from rlvr.errors import ConfigError, RequestError, RunError
from rlvr.protocols import (
    GroupRequest,
    ModelSize,
    ModelSpec,
    RunSize,
    SampledGroup,
    SamplerOptions,
    Snapshot,
    TopTokens,
)
from rlvr.run.weights_files import memory_folder, write_weights

from ..model.models import resolve
from ..model.snapshots import spelled_out
from .saved_weights import load_weights, save_weights
from .vllm_requests import EngineModel, engine_params, group_of

if TYPE_CHECKING:
    from vllm.logprobs import Logprob
    from vllm.lora.request import LoRARequest
    from vllm.outputs import RequestOutput
    from vllm.v1.engine.llm_engine import LLMEngine

ADAPTER = "rlvr"
"""Name of the adapter in the engine."""
CPU_CACHE_GIB = 1.0
CPU_BATCH_TOKENS = 8192


class VLLMOptions(SamplerOptions):
    """Keys of `sampling.options` for the sampler `vllm`."""

    memory_share: float = Field(
        default=0.4,
        gt=0,
        lt=1,
        description="share of the GPU's memory for vLLM's weights and cache; training has the rest",
    )
    cache_gib: float | None = Field(
        default=None, gt=0, description=f"size of the cache in GiB instead; on a CPU {CPU_CACHE_GIB:g} by default"
    )
    tensor_parallel_size: int = Field(default=1, ge=1, description="GPUs that hold the model together")
    max_model_len: int | None = Field(
        default=None, ge=1, description="longest prompt and completion, in tokens; null is the model's"
    )
    max_sequences: int = Field(default=256, ge=1, description="sequences that are sampled at the same time")
    dtype: Literal["float32", "bfloat16", "float16"] | None = Field(
        default=None, description="dtype of the engine; null is the run's"
    )
    enforce_eager: bool | None = Field(
        default=None, description="no CUDA graphs: less memory, slower; null is true on a CPU"
    )
    sleep: bool = Field(default=False, description="free the GPU's memory while nothing is sampled")
    lora_rank: Literal[8, 16, 32, 64, 128, 256, 320, 512] | None = Field(
        default=None, description="sync adapters up to this rank by themselves; null merges them into the weights"
    )

    @property
    def keeps_topk(self) -> bool:
        """True: the engine reports as many as a request asks for."""
        return True

    @property
    def adapter_rank(self) -> int | None:
        """`lora_rank`."""
        return self.lora_rank

    def memory(self, model: ModelSize, run: RunSize) -> Mapping[str, int]:
        """Return the bytes that vLLM reserves for weights and cache: on a GPU its share of the memory."""
        if run.device_bytes is not None and run.device.startswith("cuda") and self.cache_gib is None:
            return {"sampler": int(self.memory_share * run.device_bytes)}
        weights = model.compute_bytes * model.parameters // self.tensor_parallel_size
        return {"sampler": weights, "cache": int((self.cache_gib or CPU_CACHE_GIB) * 2**30)}


@dataclass
class _InEngine:
    request: GroupRequest
    start: float


class VLLMSampler:
    """A `Sampler` that drives vLLM's engine step by step.

    A group is one request of n samples, which share the prompt's cache. Weights are handed over in memory. Sequences
    under way at a sync go on with the new weights: their cache is computed again, and the engine says which version
    sampled which token.
    """

    Options: ClassVar[type[SamplerOptions]] = VLLMOptions

    def __init__(self, model: ModelSpec, options: VLLMOptions) -> None:
        """Load the model. Its weights are version 0 until the first sync.

        Raises ConfigError if vLLM is not installed or an option needs a GPU, and RequestError if it cannot load the
        model.
        """
        self.options = options
        self.spec = resolve(model)
        if options.sleep and not self.spec.device.startswith("cuda"):
            raise ConfigError("sampling.options.sleep frees a GPU's memory, and the model is on the CPU: leave it out")
        self._model = EngineModel(self.spec)
        self._model.limit(options.max_model_len)
        self.version = 0
        self._engine = _engine(self.spec, options, self._model.longest)
        self._outstanding: dict[str, _InEngine] = {}
        self._answered: list[SampledGroup] = []
        self._held: dict[str, Tensor] = {}
        """The weights of the last sync in host memory, for `save`: the engine's own are fused and repacked."""
        self._tied: dict[str, str] = {}
        self._lora: Mapping[str, Any] | None = None
        """Configuration of the adapter that was synced last; None if all weights were."""
        self._stack = ExitStack()
        """Holds the folder of that adapter."""
        self._adapter: LoRARequest | None = None
        self._asleep = False

    # --- weights ----------------------------------------------------------------------------------------------------

    def sync(self, snapshot: Snapshot) -> None:
        """Load the weights into the engine; sequences under way go on with them.

        Raises RunError, with nothing changed, if names or shapes are not those of this model.
        """
        self._model.check_weights(snapshot)
        self.wake()
        # An engine keeps no reference, and one copy has to stay: the trainer changes its own in place.
        self._held = {name: tensor.detach().to("cpu", copy=True) for name, tensor in snapshot.tensors()}
        self._tied, self._lora = dict(snapshot.tied), snapshot.lora
        held = replace(snapshot, read=lambda: iter(self._held.items()))
        if snapshot.lora is None:
            self._adapter = None
            self._reload(held)
        else:
            self._load_adapter(held)
        if not self._engine.reset_prefix_cache(reset_running_requests=True):
            raise RunError("vLLM did not empty its prefix cache after a weight sync: it would sample from old weights")
        self._engine.set_weight_version(str(snapshot.version))
        self.version = snapshot.version

    def _reload(self, held: Snapshot) -> None:
        if self.options.tensor_parallel_size == 1:
            self._engine.collective_rpc("reload_weights", kwargs={"weights_iterator": list(spelled_out(held))})
            return
        with memory_folder() as folder:  # the engine's processes read the weights, each its own part
            write_weights(held, folder / "model.safetensors")
            self._engine.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})

    def _load_adapter(self, held: Snapshot) -> None:
        """Load an adapter, or replace the one that is loaded: sequences under way go on with it, since its id stays."""
        from vllm.lora.request import LoRARequest

        stack = ExitStack()
        folder = stack.enter_context(memory_folder())
        write_weights(held, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps(held.lora))
        self._engine.add_lora(LoRARequest(ADAPTER, 1, str(folder), load_inplace=True))
        # Not in place: vLLM would read the file again in every step.
        self._adapter = LoRARequest(ADAPTER, 1, str(folder))
        self._stack.close()
        self._stack = stack

    def save(self, directory: Path) -> None:
        """Write the weights held and their version. Outstanding requests are the caller's to submit again."""
        save_weights(directory, self.version, self._held, self._tied, self._lora)

    def load(self, directory: Path) -> None:
        """Read what `save` wrote. Raises RunError if it is missing or belongs to another model."""
        snapshot = load_weights(directory)
        if snapshot is not None:
            self.sync(snapshot)
        elif self._held:
            raise RunError("the saved sampler held the model's own weights, and this one has been given others")

    def close(self) -> None:
        """Release the engine and forget outstanding requests."""
        self._outstanding.clear()
        self._answered.clear()
        self._held.clear()
        engine = vars(self).pop("_engine", None)
        if engine is not None:
            engine.engine_core.shutdown()
        self._stack.close()

    # --- sampling ---------------------------------------------------------------------------------------------------

    def submit(self, requests: Sequence[GroupRequest]) -> None:
        """Queue the requests; `collect` does the work. Raises RequestError for a prompt that does not fit the model.

        Nothing is queued then.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self._model.check(requests)
        self.wake()
        for request in requests:
            params = SamplingParams(
                **engine_params(request, self._model.completions), output_kind=RequestOutputKind.FINAL_ONLY
            )
            self._outstanding[request.group_id] = _InEngine(request, time.perf_counter())
            self._engine.add_request(
                request.group_id, {"prompt_token_ids": list(request.prompt_ids)}, params, lora_request=self._adapter
            )

    def cancel(self, ids: Collection[str]) -> None:
        """Abort the requests with these ids."""
        ours = [name for name in ids if self._outstanding.pop(name, None) is not None]
        if ours:
            self._engine.abort_request(ours)
        self._answered = [group for group in self._answered if group.request.group_id not in ids]

    def collect(self, timeout: float | None = None) -> list[SampledGroup]:
        """Step the engine until a group is complete, and return those that are; with `timeout`, for so many seconds."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while self._outstanding and not self._answered:
            self._answered += [self._answer(output) for output in self._engine.step() if output.finished]
            if time.monotonic() >= deadline:
                break
        finished, self._answered = self._answered, []
        if self.options.sleep and not self._outstanding:
            self.sleep()
        return finished

    def sleep(self) -> None:
        """Free the GPU's memory until the next sync or request; it needs the option `sleep`."""
        if not self._asleep:
            self._engine.sleep(level=1)
            self._asleep = True

    def wake(self) -> None:
        """Take the memory again."""
        if self._asleep:
            self._engine.wake_up()
            self._asleep = False

    def _answer(self, output: RequestOutput) -> SampledGroup:
        import vllm

        outstanding = self._outstanding.pop(output.request_id)
        request = outstanding.request
        samples = []
        for choice in sorted(output.outputs, key=lambda choice: choice.index):
            chosen = zip(choice.logprobs, choice.token_ids, strict=True)
            logprobs = [position[token].logprob for position, token in chosen]
            top = top_tokens(choice.logprobs, request.keep_topk) if request.keep_topk else None
            samples.append(
                self._model.sample(
                    request, choice.token_ids, logprobs, choice.finish_reason, choice.weight_versions, top
                )
            )
        sampling = self._model.sampling(request, vllm.__version__, self.options.dtype)
        return group_of(request, samples, sampling, time.perf_counter() - outstanding.start)


def top_tokens(logprobs: Sequence[Mapping[int, Logprob]], keep: int) -> TopTokens:
    """Return the `keep` likeliest tokens of each position, from vLLM's answer, which has the drawn token as well.

    A token that the filters removed has a log-probability of -inf there.
    """
    ids = np.full((len(logprobs), keep), -1, np.int32)
    values = np.full(ids.shape, np.nan, np.float32)
    for t, position in enumerate(logprobs):
        likeliest = sorted(((-entry.logprob, token) for token, entry in position.items()))[:keep]
        kept = [(token, -value) for value, token in likeliest if value < math.inf]
        for k, (token, value) in enumerate(kept):
            ids[t, k], values[t, k] = token, value
    return TopTokens(ids, values)


def _engine(spec: ModelSpec, options: VLLMOptions, longest: int | None) -> LLMEngine:
    """Load vLLM's engine into this process."""
    on_gpu = spec.device.startswith("cuda")
    # Read when vLLM is imported or its engine starts. What the user has set stays.
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    if options.tensor_parallel_size == 1:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # weights go over in memory
    if not on_gpu:
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # the trainer computes on the same cores
    try:
        from vllm import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine
    except ImportError as error:
        raise ConfigError(
            f"sampling.engine: the sampler 'vllm' needs vLLM ({error}); install it with: pip install 'rlvr[vllm]'"
        ) from error
    settings: dict[str, Any] = {
        "model": spec.path,
        "revision": spec.revision,
        "trust_remote_code": spec.trust_remote_code,
        "dtype": options.dtype or spec.dtype,
        "tensor_parallel_size": options.tensor_parallel_size,
        "max_num_seqs": options.max_sequences,
        "enforce_eager": not on_gpu if options.enforce_eager is None else options.enforce_eager,
        "enable_sleep_mode": options.sleep,
        "logprobs_mode": "processed_logprobs",
        "max_logprobs": -1,  # sampling.keep_topk may be any number
        "generation_config": "vllm",  # the checkpoint's sampling defaults are not the run's
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "seed": 0,
    }
    if options.lora_rank is not None:
        settings |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": options.lora_rank}
    if longest is not None:
        settings["max_model_len"] = longest
    if on_gpu:
        settings["gpu_memory_utilization"] = options.memory_share
    else:
        # A seeded request whose prompt is computed in chunks ends the engine on a CPU (vLLM 0.32).
        settings |= {
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(CPU_BATCH_TOKENS, longest or 0),
        }
    cache_gib = options.cache_gib or (None if on_gpu else CPU_CACHE_GIB)
    if cache_gib is not None:
        settings["kv_cache_memory_bytes"] = int(cache_gib * 2**30)
    try:
        return LLMEngine.from_engine_args(EngineArgs(**settings))
    except (ValueError, RuntimeError, OSError) as error:
        raise RequestError(f"vLLM cannot load the model {spec.path!r}: {error}") from error
