"""vLLM's own transfer of weights to a server, from GPU to GPU: NCCL, or CUDA IPC on one machine.

Written against the interface that vLLM 0.32 documents for trainers (`vllm.distributed.weight_transfer`). It needs a GPU
on both sides, and no machine of this project has one: it has not been run. `benchmarks/gpu.py` runs it where there is.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import urlsplit

import torch
from torch import Tensor

from rlvr.errors import ConfigError
from rlvr.protocols import Snapshot

from ..model.snapshots import spelled_out

if TYPE_CHECKING:
    from vllm.distributed.weight_transfer import WeightSource

Kind: TypeAlias = Literal["nccl", "ipc"]


def require_gpu(kind: Kind, device: str) -> None:
    """Raise ConfigError for a trainer without a GPU."""
    if not device.startswith("cuda"):
        raise ConfigError(
            f"sampling.options.transfer={kind} sends weights from GPU to GPU, and the model is on {device!r}: leave it "
            "out, and weights go through files in shared memory"
        )


class Transfer:
    """Sends snapshots to one server, which was started with `rlvr serve --transfer`."""

    def __init__(self, kind: Kind, url: str, workers: int, first: Snapshot) -> None:
        """Connect to the server's workers.

        Args:
            kind: `nccl` or `ipc`.
            url: Of the server.
            workers: Its number of GPUs.
            first: A snapshot with the layout of all later ones.
        """
        from vllm.distributed.weight_transfer import HTTPVLLMWeightSyncClient, WeightTransferTrainerFactory

        self._source = snapshot_source(first)
        self._engine: Any = WeightTransferTrainerFactory.trainer_init(
            trainer_info(kind, url, workers), client=HTTPVLLMWeightSyncClient(url), source=self._source
        )

    def send(self, snapshot: Snapshot) -> None:
        """Have the server load the weights. It must be paused."""
        self._source.snapshot = snapshot
        self._engine.send_weights()

    def close(self) -> None:
        """Leave the group of the server's workers."""
        self._engine.shutdown()


def trainer_info(kind: Kind, url: str, workers: int) -> Any:
    """Return vLLM's description of the sending side: one process, of rank 0, before the server's workers."""
    if kind == "ipc":
        from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo

        return IPCTrainerInitInfo(rank=0, packed=True)
    from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

    address, port = _endpoint(url)
    return NCCLTrainerInitInfo(rank=0, master_address=address, master_port=port, world_size=1 + workers)


def snapshot_source(first: Snapshot, device: str = "cuda") -> WeightSource:
    """Return a source whose attribute `snapshot` is sent, tied parameters under their own names too."""
    from vllm.distributed.weight_transfer import ParamMeta, WeightSource

    class SnapshotSource(WeightSource):  # type: ignore[misc]
        def __init__(self) -> None:
            self.snapshot = first

        def metadata(self) -> list[ParamMeta]:
            layout, tied = self.snapshot.layout, self.snapshot.tied
            empty = replace(self.snapshot, read=lambda: ((name, torch.empty(0)) for name in layout))
            given = [(name, layout[tied.get(name, name)]) for name, _ in spelled_out(empty)]
            return [ParamMeta(name, getattr(torch, each.dtype), each.shape) for name, each in given]

        def __iter__(self) -> Iterator[tuple[str, Tensor]]:
            return ((name, tensor.to(device)) for name, tensor in spelled_out(self.snapshot))

    return SnapshotSource()


def _endpoint(url: str) -> tuple[str, int]:
    """Return an address of this machine that the server reaches, and a free port."""
    server = urlsplit(url)
    with socket.create_connection((server.hostname or "localhost", server.port or 80), timeout=5) as reached:
        address = str(reached.getsockname()[0])
    with socket.socket() as free:
        free.bind((address, 0))
        return address, int(free.getsockname()[1])
