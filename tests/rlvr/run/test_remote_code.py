"""A model with Python code of its own is refused, unless the code is trusted."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path

import pytest

import rlvr
import small_runs
from rlvr.errors import RequestError

ROOT = Path(__file__).parents[3]
CONFIGURATION = """
from transformers import Qwen2Config

class OwnConfig(Qwen2Config):
    model_type = "own_of_a_test"
"""
MODEL = """
from pathlib import Path
from transformers import Qwen2ForCausalLM
from .configuration_own import OwnConfig

class OwnModel(Qwen2ForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def own_model(tiny_model: Path, tmp_path: Path) -> Path:
    """A model whose architecture is in Python files beside its weights."""
    folder = tmp_path / "own"
    shutil.copytree(tiny_model, folder)
    (folder / "configuration_own.py").write_text(CONFIGURATION)
    (folder / "modeling_own.py").write_text(MODEL)
    config = json.loads((folder / "config.json").read_text())
    classes = {"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnModel"}
    config |= {"model_type": "own_of_a_test", "architectures": ["OwnModel"], "auto_map": classes}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_code_of_a_model_is_run_only_if_it_is_trusted(own_model: Path, tmp_path: Path) -> None:
    settings = {**small_runs.SMALL, "model": str(own_model), "steps": 1, "eval.questions": 0}
    with pytest.raises(RequestError, match=r"brings Python code of its own. .* --trust-remote-code .* runs it"):
        rlvr.train(settings, out=tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    result = rlvr.train(settings, overrides={"model.trust_remote_code": True}, out=tmp_path / "run")
    assert result.finished
    assert any("model.trust_remote_code: Python code of" in note for note in result.notes)
    known = json.loads((tmp_path / "run" / "model.json").read_text())
    assert {"model configuration_own.py", "model modeling_own.py"} <= known.keys(), "a resume compares the code"


def test_every_call_says_whether_code_is_trusted() -> None:
    """By default, the libraries ask on the terminal."""
    silent = []
    for folder in ("rlvr", "trainers", "plugins"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call):
                    continue
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if name not in ("from_pretrained", "load_dataset") or "None" in map(ast.unparse, node.args[:1]):
                    continue  # with None, nothing is loaded
                said = {keyword.arg or ast.unparse(keyword.value) for keyword in node.keywords}
                if not said & {"trust_remote_code", "hub_arguments(spec)"}:
                    silent.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not silent
