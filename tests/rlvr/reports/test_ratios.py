"""Importance weights of single tokens against an independent computation."""

from __future__ import annotations

from pathlib import Path

import pytest

import rlvr
from report_runs import make_run, metrics, rollout, score
from rlvr.record.schema import Sampling


def test_weights_are_those_of_the_model_at_the_sampling_temperature(tiny_model: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    hot = {"sampling": Sampling(temperature=2.0)}
    members = [rollout("g", index, "text", score("math", float(index)), **hot) for index in (0, 1)]
    unknown = rollout("h", 0, "text", score("math", 1.0))  # temperature unknown: no weights
    run = make_run(tmp_path / "run", [metrics(0)], [[*members, unknown]])
    found = rlvr.report(run, model=str(tiny_model)).shown
    assert found.with_ratios == 2
    rows = {number: row for chunk in found.chunks for number, row in chunk["rows"].items()}
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    ids = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8]])
    with torch.no_grad():
        logprobs = torch.log_softmax(model(ids).logits[0, :-1].double() / 2.0, dim=-1)
    own = [float(logprobs[t - 1, ids[0, t]]) for t in range(3, 8)]
    expected = [1000 * (pi - alpha) for pi, alpha in zip(own, (-0.1, -0.2, -0.5, -1.0, -4.0), strict=True)]
    assert rows[0][2] == pytest.approx(expected, abs=1)
    assert rows[found.rows["id"].index("h-0")][2] is None
