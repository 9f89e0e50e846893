"""vLLM's transfer from GPU to GPU, as far as it goes without one: its interface is the one that is written against."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch

from asked import other_weights
from rlvr.protocols import ModelSpec
from rlvr_trainers.sampling.vllm_transfer import snapshot_source, trainer_info

vllm = pytest.importorskip("vllm.distributed.weight_transfer")


def test_a_source_says_what_it_yields(model: Path) -> None:
    snapshot = other_weights(ModelSpec(str(model), device="cpu", dtype="float32"), 3, seed=1)
    source = snapshot_source(snapshot, device="cpu")
    said = [(each.name, each.dtype, each.shape) for each in source.metadata()]
    assert said == [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in source]
    values = dict(source)
    assert torch.equal(values["lm_head.weight"], values["model.embed_tokens.weight"])  # tied, and spelled out
    assert len(list(source.iter_groups())) == len(source.groups())


def test_the_sending_side_is_described_as_vllm_wants_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        nccl = trainer_info("nccl", f"http://127.0.0.1:{server.getsockname()[1]}", workers=2)
    ipc = trainer_info("ipc", "http://127.0.0.1:1", workers=1)
    assert (nccl.backend, nccl.is_sender, nccl.world_size, nccl.master_address) == ("nccl", True, 3, "127.0.0.1")
    assert (ipc.backend, ipc.is_sender, ipc.packed) == ("ipc", True, True)
    for backend in (nccl.backend, ipc.backend):
        engine = vllm.WeightTransferTrainerFactory._registry[backend]()
        assert issubclass(engine, vllm.TrainerWeightTransferEngine)
