"""benchmarks/gpu.py refuses without a GPU, and its pieces run on a CPU."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module("gpu")
    for name in ("gpu", "engines", "against_trl", "random_models"):
        if name not in before:
            sys.modules.pop(name, None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_without_a_gpu_it_is_refused_in_one_line(gpu: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        gpu.main([])
    assert refused.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "gpu.py: torch finds no GPU here; --device cpu --quick tries what needs none\n"


def test_the_pieces_that_need_no_gpu_run_without_one(gpu: ModuleType) -> None:
    setups = gpu.setups("cpu", quick=True)
    assert all(setup.device == "cpu" for setup in setups.values())
    engines = importlib.import_module("engines")
    measured = engines.turn(setups["`hf`, float32"], "embedded", gpu.EMBEDDED)
    assert measured["max"] < 5e-5
    assert gpu.row("hf", measured).count("|") == gpu.HEADER.splitlines()[0].count("|")


def test_on_a_gpu_everything_is_measured(gpu: ModuleType) -> None:
    measured = [(setup.engine, setup.dtype, setup.options) for setup in gpu.setups("cuda", quick=False).values()]
    assert ("vllm-server", "bfloat16", {"transfer": "nccl"}) in measured
    assert ("vllm-server", "bfloat16", {"transfer": "ipc"}) in measured
    assert ("vllm", "bfloat16", {"lora_rank": 16}) in measured
