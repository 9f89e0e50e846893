"""Inputs of a resumed run are those that it began with: prompts, tokenizer, model files, threads."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from datasets import Dataset, concatenate_datasets

import small_runs
from rlvr.data.tables import Table
from rlvr.errors import RequestError
from rlvr.run.plan import make_plan
from rlvr.run.rundir import RunDirectory


def write_questions(file: Path, first: int) -> None:
    rows = [{"question": f"{a}+1=", "answer": str(a + 1)} for a in range(first, first + 12)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A folder with a model, files of questions, and a run of one step on them, in `run`."""
    shutil.copytree(tiny_model, tmp_path / "model")
    write_questions(tmp_path / "train-1.jsonl", 0)
    write_questions(tmp_path / "held-out.jsonl", 50)
    (tmp_path / "card.yaml").write_text("question: question\n")
    config = small_runs.small_config(
        tmp_path / "model",
        dataset=str(tmp_path / "card.yaml"),
        dataset__data_files=[str(tmp_path / "train-*.jsonl")],
        eval__data_files=[str(tmp_path / "held-out.jsonl")],
        steps=1,
    )
    small_runs.start(config, tmp_path / "run")
    return tmp_path


def notes_of_a_resume(run: Path) -> list[str]:
    with RunDirectory.resume(run) as directory, make_plan(directory.config) as plan:
        notes: list[str] = small_runs.Run(plan, directory, small_runs.Silent()).notes
    return notes


def another_question(folder: Path) -> None:
    write_questions(folder / "train-1.jsonl", 1)


def another_file(folder: Path) -> None:
    write_questions(folder / "train-2.jsonl", 20)


def another_card(folder: Path) -> None:
    (folder / "card.yaml").write_text("question: question\nplain: '{question}='\n")


def another_end(folder: Path) -> None:
    (folder / "model" / "generation_config.json").write_text('{"eos_token_id": 3}')


def another_tokenizer(folder: Path) -> None:
    file = folder / "model" / "tokenizer.json"
    file.write_text(file.read_text().replace('"normalizer": null', '"normalizer": {"type": "Lowercase"}'))


REFUSED: list[tuple[Callable[[Path], None], str]] = [
    (another_question, r"the prompts changed since the run began: \S+/train-1.jsonl \w{64} → \w{64} \(SHA-256\)"),
    (another_file, r"the prompts changed since the run began: \S+/train-2.jsonl absent → \w{64} "),
    (another_card, r"the prompts changed since the run began: card of card \w+ → \w+ "),
    (another_end, r"the files of the model changed since the run began: model generation_config.json \w+ → \w{64} "),
    (
        another_tokenizer,
        r"the files of the model changed .*: model tokenizer.json \w{64} → \w{64}, tokenizer \w+ → ",
    ),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=lambda value: getattr(value, "__name__", ""))
def test_a_changed_input_is_refused(folder: Path, change: Callable[[Path], None], message: str) -> None:
    change(folder)
    before = (folder / "run" / "manifest.json").read_bytes()
    with pytest.raises(RequestError, match=message + ".*nothing was done. Restore the old files, or start a new run"):
        notes_of_a_resume(folder / "run")
    assert (folder / "run" / "manifest.json").read_bytes() == before


def test_what_does_not_change_what_is_learned_is_noted_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, threads = folder / "run", torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    write_questions(folder / "held-out.jsonl", 60)
    then = json.loads((run / "manifest.json").read_text())
    assert then["computation"]["threads of torch"] == str(threads)
    assert list(then["held_out"]) == ["card of card", str(folder / "held-out.jsonl")]
    torch.set_num_threads(threads + 1)
    try:
        omp, torch_threads, held_out = notes_of_a_resume(run)
        assert notes_of_a_resume(run) == []
    finally:
        torch.set_num_threads(threads)
    told = "since the run last went on: numbers from here on may differ for it"
    assert omp == f"OMP_NUM_THREADS {then['computation']['OMP_NUM_THREADS']} → 7 {told}"
    assert torch_threads == f"threads of torch {threads} → {threads + 1} {told}"
    assert held_out.startswith(f"held-out questions: {folder / 'held-out.jsonl'} ")
    assert held_out.endswith("accuracies before and after do not compare")
    (change,) = json.loads((run / "manifest.json").read_text())["changes"]
    assert (len(change["computation"]), len(change["held_out"]), change["versions"]) == (2, 1, [])


def test_rows_of_the_hub_are_compared_by_content() -> None:
    rows = {"question": [f"{a}+1=" for a in range(2500)], "answer": [None, *map(str, range(1, 2500))]}

    def digest(dataset: Dataset) -> str:
        return Table("hub", ("question", "answer"), dataset).digest()

    whole = Dataset.from_dict(rows)
    parts = concatenate_datasets([whole.select(range(700)), whole.select(range(700, 2500))])
    assert digest(whole) == digest(parts)
    assert digest(whole) != digest(whole.select(range(2499)))
    assert digest(whole) != digest(Dataset.from_dict(rows | {"answer": [*rows["answer"][:-1], "0"]}))


def test_a_model_of_the_hub_is_identified_by_its_commit(tiny_model: Path, tmp_path: Path) -> None:
    cache, commit = tmp_path / "hub" / "models--somebody--tiny", "0123456789abcdef0123456789abcdef01234567"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(commit)
    shutil.copytree(tiny_model, cache / "snapshots" / commit)
    code = (
        "from rlvr.protocols import ModelSpec; from rlvr.run.inputs import model_digests; "
        "print(model_digests({'model': ModelSpec('somebody/tiny')}))"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str({"model commit of somebody/tiny": commit}), done.stderr
