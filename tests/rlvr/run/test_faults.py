"""Full disks, damaged files, changed settings: an error with a remedy, and no overwritten file."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM

import rlvr
import small_runs
from rlvr.errors import DataError, RequestError, RlvrError, RunError
from rlvr.record.store import read_rollouts, write_rollouts
from rlvr.run.config import RunConfig
from rlvr.run.paths import with_absolute_paths
from rlvr.run.plan import make_plan
from rlvr.run.rundir import RunDirectory


@pytest.fixture(scope="module")
def whole(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of six steps, with checkpoints after two, four and six."""
    path: Path = tmp_path_factory.mktemp("runs") / "whole"
    small_runs.start(config_of(tiny_model), path)
    return path


def config_of(model: Path, **changes: object) -> small_runs.RunConfig:
    return small_runs.small_config(model, eval__questions=0, checkpoint__keep=3, **changes)


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def contents(path: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Make writes beyond this size fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# Too small for the first batch; for a checkpoint's model; for its optimizer.
@pytest.mark.parametrize(
    ("size", "what"), [(9_000, "step-000000.parquet"), (60_000, "step-000002"), (150_000, "step-000002")]
)
def test_a_full_disk_ends_the_run_and_room_continues_it(
    whole: Path, tiny_model: Path, tmp_path: Path, size: int, what: str
) -> None:
    path = tmp_path / "run"
    with files_of_at_most(size), pytest.raises(RunError, match=f"{what} could not be written: "):
        small_runs.start(config_of(tiny_model), path)
    assert not [file for file in path.rglob("*") if ".tmp" in file.name], "nothing half-written is left"
    small_runs.resume(path)
    assert small_runs.final_state(path) == small_runs.final_state(whole)
    assert small_runs.timeless(path) == small_runs.timeless(whole)


def test_a_full_disk_at_the_metrics_loses_a_line_that_the_resume_writes_again(
    whole: Path, tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    small_runs.start(config_of(tiny_model, steps=2), path)
    with RunDirectory.resume(path) as directory:
        directory.extend(directory.config.model_copy(update={"steps": 6}))
        size = directory.metrics_path.stat().st_size
        with files_of_at_most(size + 10), pytest.raises(RunError, match=r"metrics.jsonl could not be written"):
            directory.log({"step": 2, "text": "x" * 100})
    small_runs.resume(path)
    assert small_runs.timeless(path) == small_runs.timeless(whole)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "sampler/weights.safetensors", "SHA256SUMS"])
def test_a_damaged_checkpoint_is_refused_and_an_older_intact_one_named(
    run: Path, whole: Path, damage: Callable[[Path], None], name: str
) -> None:
    newest = run / "checkpoints" / "step-000006"
    damage(newest / name)
    before = contents(run)
    with pytest.raises(RunError, match=r"step-000006 is damaged: .*; nothing was changed. .*step-000004 is intact"):
        small_runs.resume(run)
    assert contents(run) == before
    if name == "optimizer.pt":
        newest.rename(run / "away")
        small_runs.resume(run)
        assert small_runs.final_state(run) == small_runs.final_state(whole)
        assert small_runs.timeless(run) == small_runs.timeless(whole)


def test_where_every_checkpoint_is_damaged_none_is_named(run: Path) -> None:
    for checkpoint in (run / "checkpoints").iterdir():
        flip(checkpoint / "model.safetensors")
    with pytest.raises(RunError, match="no older checkpoint is intact: the run would begin anew"):
        small_runs.resume(run)


def test_a_damaged_batch_is_named_and_not_sampled_over(run: Path) -> None:
    shutil.rmtree(run / "checkpoints" / "step-000006")
    batch = run / "rollouts" / "step-000004.parquet"
    cut(batch)
    before = batch.read_bytes()
    with pytest.raises(DataError, match=r"step-000004.parquet is not a Parquet file"):
        small_runs.resume(run)
    assert batch.read_bytes() == before


def swapped(batch: Path) -> None:
    shutil.copy(batch.with_name("step-000005.parquet"), batch)


def emptied(batch: Path) -> None:
    write_rollouts(batch, [])


def a_group_short(batch: Path) -> None:
    rollouts = list(read_rollouts(batch))
    write_rollouts(batch, [rollout for rollout in rollouts if rollout.group_id != rollouts[0].group_id])


def without_checksum(batch: Path) -> None:
    (batch.parent / "SHA256SUMS").unlink()


@pytest.mark.parametrize("damage", [swapped, emptied, a_group_short, without_checksum])
def test_a_batch_that_the_run_did_not_store_is_refused(run: Path, damage: Callable[[Path], None]) -> None:
    shutil.rmtree(run / "checkpoints" / "step-000006")
    batch = run / "rollouts" / "step-000004.parquet"
    damage(batch)
    with pytest.raises(DataError, match=r"step-000004.parquet is not what this run stored: .*SHA256SUMS.*; put the"):
        small_runs.resume(run)


def test_a_refused_batch_that_is_deleted_is_sampled_again(run: Path, whole: Path) -> None:
    shutil.rmtree(run / "checkpoints" / "step-000006")
    emptied(run / "rollouts" / "step-000004.parquet")
    with pytest.raises(DataError, match="delete it to have the batch sampled again"):
        small_runs.resume(run)
    (run / "rollouts" / "step-000004.parquet").unlink()
    small_runs.resume(run)
    assert small_runs.final_state(run) == small_runs.final_state(whole)
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=run / "rollouts", capture_output=True, check=False)
    assert done.returncode == 0, "the batch's old checksum was replaced"


def test_a_checksum_that_a_kill_cut_short_is_that_of_a_batch_without_a_name(run: Path, whole: Path) -> None:
    """The checksum is written before the batch gets its name."""
    shutil.rmtree(run / "checkpoints" / "step-000006")
    sums = run / "rollouts" / "SHA256SUMS"
    lines = sums.read_text().splitlines(keepends=True)
    sums.write_text("".join(lines[:-1]) + lines[-1][:30])
    (run / "rollouts" / "step-000005.parquet").unlink()
    small_runs.resume(run)
    assert small_runs.final_state(run) == small_runs.final_state(whole)
    assert [line.split()[1] for line in sums.read_text().splitlines()] == [line.split()[1] for line in lines]


def test_a_stored_batch_answers_the_prompts_of_its_step(tiny_model: Path, tmp_path: Path) -> None:
    """Also if the prompts come from a source without files."""
    path, questions = tmp_path / "run", tmp_path / "questions.jsonl"
    rows = [{"question": f"{a}+1=", "answer": str(a + 1)} for a in range(12)]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = config_of(tiny_model, dataset=str(questions), steps=2)
    small_runs.start(config, path)
    shutil.rmtree(path / "checkpoints" / "step-000002")
    (path / "prompts.json").unlink()
    questions.write_text("".join(json.dumps(row | {"answer": "7"}) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"the prompt at position 0 is not the one that the stored batch of step 0"):
        small_runs.resume(path)


@pytest.mark.parametrize("setting", ["seed: 0", "temperature: 1.0", "lr: 0.001"])
def test_a_changed_configuration_is_refused_with_both_values(run: Path, setting: str) -> None:
    key, _, value = setting.partition(": ")
    file = run / "config.yaml"
    assert setting in file.read_text()
    file.write_text(file.read_text().replace(setting, f"{key}: 7"))
    before = contents(run)
    pattern = rf"config.yaml was changed since the run began: \S*{key} {value} → 7(\.0)?; nothing was done"
    with pytest.raises(RequestError, match=pattern):
        small_runs.resume(run)
    assert contents(run) == before
    file.write_text(file.read_text().replace(f"{key}: 7", setting))
    assert small_runs.resume(run).finished, "the lock was let go of"


def test_another_model_under_the_run_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    """A checkpoint with an adapter holds only trained weights; the others are read from the model's directory."""
    base, path = tmp_path / "base", tmp_path / "run"
    shutil.copytree(tiny_model, base)
    small_runs.start(config_of(base, steps=2, trainer__lora={"rank": 2, "alpha": 4}), path)
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(0.01)
    model.save_pretrained(base)
    before = contents(path)
    pattern = (
        r"the weights changed since the run began: model [0-9a-f]{16} → [0-9a-f]{16} \(SHA-256\); nothing was done"
    )
    with pytest.raises(RequestError, match=pattern):
        small_runs.resume(path)
    assert contents(path) == before


def went_on(path: Path, *, accept_changes: bool = False) -> list[str]:
    """Return the notes of a resumed run."""
    with RunDirectory.resume(path, accept_changes=accept_changes) as directory, make_plan(directory.config) as plan:
        notes: list[str] = small_runs.Run(plan, directory, small_runs.Silent()).notes
    return notes


def test_a_setting_that_decides_nothing_of_the_training_may_change_and_is_noted_once(run: Path) -> None:
    file = run / "config.yaml"
    file.write_text(file.read_text().replace("keep: 3", "keep: 5").replace("\nsteps: 6", "\nsteps: 7"))
    assert went_on(run) == ["checkpoint.keep 3 → 5 (config.yaml) since the run began"]
    assert went_on(run) == []


def test_another_version_of_what_only_computes_is_noted_once(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["versions"]["torch"] = "1.0"
    (run / "manifest.json").write_text(json.dumps(manifest))
    (note,) = went_on(run)
    assert note.startswith("torch 1.0 → ")
    assert note.endswith(" since the run last went on: numbers from here on may differ for it")
    assert went_on(run) == []


def test_another_version_of_what_decides_is_refused_until_it_is_accepted(tiny_model: Path, tmp_path: Path) -> None:
    judge = tmp_path / "judge.py"
    source = "def judge(completion, task):\n    return len(completion) % 2\n"
    judge.write_text(source)
    config = small_runs.small_config(tiny_model, verifier=f"{judge}:judge", steps=1, eval__questions=0)
    path = tmp_path / "run"
    small_runs.start(config, path)
    judge.write_text(source.replace("% 2", "% 3"))
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["versions"]["rlvr"] = "0.0.1"
    (path / "manifest.json").write_text(json.dumps(manifest))
    before = contents(path)
    with pytest.raises(RequestError, match=r"rlvr 0\.0\.1 → \S+, verifier judge:judge \w+ → \w+, .* --accept-changes"):
        went_on(path)
    assert contents(path) == before
    assert [note.split()[0] for note in went_on(path, accept_changes=True)] == ["rlvr", "verifier"]
    (change,) = json.loads((path / "manifest.json").read_text())["changes"]
    assert [each.split()[0] for each in change["accepted"]] == ["rlvr", "verifier"]
    assert went_on(path) == [], "what was accepted is the run's own from then on"


def test_a_manifest_of_another_rlvr_is_an_error(run: Path) -> None:
    file = run / "manifest.json"
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps(manifest | {"config": manifest["config"] | {"lr": 1}}))
    with pytest.raises(RequestError, match=r"there is no key lr .*manifest.json"):
        small_runs.resume(run)
    file.write_text(json.dumps({key: value for key, value in manifest.items() if key != "config"}))
    with pytest.raises(RequestError, match="holds no configuration: the run was begun by an older rlvr"):
        small_runs.resume(run)


def test_an_unreadable_manifest_is_an_error(run: Path) -> None:
    cut(run / "manifest.json")
    with pytest.raises(RequestError, match=r"manifest.json cannot be read, so the run cannot be resumed"):
        small_runs.resume(run)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "manifest.json is a list, so the run cannot be resumed: expected an object"),
        ("{}", "manifest.json is not the manifest of a run: run_id, versions or changes are missing or wrong"),
        ('{"run_id": "x", "versions": {}, "changes": [5]}', "run_id, versions or changes are missing or wrong"),
        ('{"run_id": "x", "versions": {}, "changes": 5}', "run_id, versions or changes are missing or wrong"),
        ("[" * 100_000, "manifest.json cannot be read, so the run cannot be resumed"),
        ('{"run_id": "x", "versions": {}, "config": "grpo"}', "manifest.json"),
    ],
)
def test_a_manifest_of_another_kind_is_an_error(run: Path, text: str, message: str) -> None:
    (run / "manifest.json").write_text(text)
    with pytest.raises(RequestError, match=message):
        small_runs.resume(run)


def test_a_bad_line_inside_the_metrics_is_named_and_can_be_deleted(run: Path, whole: Path) -> None:
    metrics = run / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join([*lines[:2], "{broken\n", *lines[3:]]))
    before = contents(run)
    with pytest.raises(DataError, match=r"metrics.jsonl, line 3 is not JSON: .*; delete the line: nothing is trained"):
        small_runs.resume(run)
    assert contents(run) == before
    metrics.write_text("".join([*lines[:2], *lines[3:]]))
    assert small_runs.resume(run).finished
    assert small_runs.final_state(run) == small_runs.final_state(whole)


def test_metrics_without_a_last_newline_are_written_again(run: Path, whole: Path) -> None:
    shutil.rmtree(run / "checkpoints" / "step-000006")
    metrics = run / "metrics.jsonl"
    metrics.write_text(metrics.read_text().rstrip("\n"))
    small_runs.resume(run)
    assert small_runs.timeless(run) == small_runs.timeless(whole)


def test_checkpoints_are_ordered_by_number_and_renamed_ones_do_not_count(tiny_model: Path, tmp_path: Path) -> None:
    """Sorted as text, step 1,000,000 comes before step 999,999 and would be deleted at once."""
    with RunDirectory.create(tmp_path / "run", config_of(tiny_model)) as directory:
        others = ["step-000004.bak", "step-9999999x", "step-", "step-12"]
        for name in others:
            (directory.path / "checkpoints" / name).mkdir()
        (directory.path / "checkpoints" / "step-9999999").write_text("a file")
        for step in (999_998, 999_999, 1_000_000, 1_000_001):
            with directory.checkpoint(step, keep=2) as folder:
                (folder / "run.json").write_text("{}")
        newest = directory.path / "checkpoints" / "step-1000001"
        assert directory.newest_checkpoint() == (1_000_001, newest)
        assert directory.intact_checkpoint() == (1_000_001, newest)
        names = {entry.name for entry in newest.parent.iterdir()}
        assert names == {*others, "step-9999999", "step-1000000", "step-1000001"}


READ_ONLY = """
import ctypes, os, sys
from pathlib import Path
from rlvr.errors import RequestError
from rlvr.run.rundir import RunDirectory
for capability in (1, 2):  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, by which root ignores permissions
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
if len(sys.argv) == 2:
    os.execv(sys.executable, [sys.executable, __file__, sys.argv[1], "again"])
try:
    RunDirectory.resume(Path(sys.argv[1]))
except RequestError as error:
    print(error)
"""


@pytest.mark.parametrize("locked", [True, False])
def test_a_read_only_run_directory_is_an_error(run: Path, tmp_path: Path, locked: bool) -> None:
    (run / ".lock").chmod(0o400 if locked else 0o600)
    (run / ".x.tmp").touch()
    run.chmod(0o500)
    script = tmp_path / "read_only.py"
    script.write_text(READ_ONLY)
    try:
        done = subprocess.run([sys.executable, script, run], capture_output=True, text=True, check=False)
    finally:
        run.chmod(0o700)
    assert done.stdout.startswith(f"{run} cannot be written to: Permission denied"), done.stderr


def test_a_run_is_resumed_from_another_working_directory(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths are stored as absolute ones."""
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "judge.py").write_text("def judge(completion, task):\n    return len(completion) % 2\n")
    rows = [{"question": f"{a}+1=", "answer": str(a + 1)} for a in range(12)]
    for name in ("train-1.jsonl", "held-out.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "card.yaml").write_text("question: question\n")
    settings = {**small_runs.SMALL, "model": "model", "dataset": "card.yaml", "verifier": "judge.py:judge", "steps": 1}
    settings |= {"dataset.data_files": ["train-*.jsonl"], "eval.data_files": ["held-out.jsonl"]}
    monkeypatch.chdir(tmp_path)
    first = rlvr.train(settings, out="run")
    assert (first.steps, first.metrics["eval/policy_version"]) == (1, 1)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert rlvr.train(resume=tmp_path / "run", overrides={"steps": 2}).finished
    saved = {"rollouts.files": ["../run"], "model": "../model", "verifier": "../judge.py:judge", "steps": 1}
    given = {key: value for key, value in small_runs.SMALL.items() if not key.startswith(("dataset", "sampling.g"))}
    rlvr.train({**given, **saved, "eval.questions": 0}, out="saved")
    monkeypatch.chdir(tmp_path)
    assert rlvr.train(resume="elsewhere/saved", overrides={"steps": 2}).finished


def test_paths_are_absolute_and_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Dataset.from_dict({"question": ["1+1="], "answer": ["2"]}).save_to_disk("saved")
    (tmp_path / "arithmetic").touch()  # a registered name is not a file of that name
    for given, stored in [("saved", "saved"), ("q.jsonl", "q.jsonl"), ("c.yaml", "c.yaml"), ("arithmetic", None)]:
        config = RunConfig(dataset={"name": given}, eval={"dataset": given})  # type: ignore[arg-type]
        found = with_absolute_paths(config)
        expected = given if stored is None else str(tmp_path / stored)
        assert (found.dataset.name, found.eval.dataset) == (expected, expected)
        assert with_absolute_paths(found) == found


def test_a_run_that_was_killed_before_its_configuration_was_written_can_be_started_again(
    tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    config = config_of(tiny_model, steps=1)
    RunDirectory.create(path, config).__exit__(None)
    (path / "config.yaml").rename(path / ".config.yaml.1234.tmp")
    assert small_runs.start(config, path).finished


def test_a_refused_run_leaves_its_parents_to_another_that_uses_them(tiny_model: Path, tmp_path: Path) -> None:
    def refused() -> None:
        with RunDirectory.create(tmp_path / "runs" / "a" / "refused", config_of(tiny_model, steps=1)):
            (tmp_path / "runs" / "another").mkdir()
            raise RequestError("as of a wrong option")

    with pytest.raises(RequestError, match="as of a wrong option"):
        refused()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["another"]


def test_a_wrong_request_in_the_middle_of_a_run_leaves_what_was_learned(tiny_model: Path, tmp_path: Path) -> None:
    """A run that sampled nothing has no stored batch to show that it had begun."""
    sampled, path = tmp_path / "sampled", tmp_path / "run"
    small_runs.start(config_of(tiny_model, steps=2), sampled)
    config = config_of(tiny_model, rollouts__files=[str(sampled)], steps=2)

    def train_and_fail() -> None:
        with make_plan(config) as plan, RunDirectory.create(path, plan.config) as directory:
            small_runs.Run(plan, directory, small_runs.Silent()).train()
            raise RequestError("as of a file that went away")

    with pytest.raises(RlvrError):
        train_and_fail()
    assert (path / "checkpoints" / "step-000002").is_dir()


def test_every_checkpoint_loads_with_plain_from_pretrained(whole: Path) -> None:
    for checkpoint in (whole / "checkpoints").iterdir():
        model = AutoModelForCausalLM.from_pretrained(checkpoint)
        assert sum(parameter.numel() for parameter in model.parameters()) > 0


# --- counters -------------------------------------------------------------------------------------------------------


def test_counts_of_escaped_texts_go_on_in_a_resumed_run(tiny_model: Path, tmp_path: Path) -> None:
    """Also over a batch that was stored after the last checkpoint and is read back."""
    (tmp_path / "saying.py").write_text(
        "import rlvr\n\n\n@rlvr.verifier(needs_answer=False)\ndef check(completion, task):\n"
        "    reward = float(sum(map(ord, completion)) % 2)\n"
        "    return rlvr.Verdict(status='graded', reward=reward, extracted='\\ud800')\n"
    )
    questions = [{"question": f"{i}+\ud800=", "answer": str(i)} for i in range(6)]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(each) + "\n" for each in questions))
    changes = {"dataset": f"{tmp_path}/questions.jsonl", "verifier": f"{tmp_path}/saying.py:check"}
    config = small_runs.small_config(tiny_model, eval__questions=0, checkpoint__keep=5, steps=4, **changes)
    small_runs.start(config, tmp_path / "whole")
    small_runs.start(config.model_copy(update={"steps": 2}), tmp_path / "halves")
    small_runs.resume(tmp_path / "halves", steps=4)
    whole = small_runs.timeless(tmp_path / "whole")
    assert small_runs.timeless(tmp_path / "halves") == whole
    counts = [(line["escaped/prompts"], line["escaped/verdicts"]) for line in whole]
    assert counts == [(3.0, 12.0), (6.0, 24.0), (9.0, 36.0), (12.0, 48.0)]
    shutil.rmtree(tmp_path / "whole" / "checkpoints" / "step-000004")
    small_runs.resume(tmp_path / "whole")
    assert small_runs.timeless(tmp_path / "whole") == whole
