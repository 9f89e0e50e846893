"""Full disks, damaged files, changed settings: an error that says what to do, and nothing overwritten."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import small_runs
from rlvr.errors import DataError, RequestError, RlvrError, RunError
from rlvr.record.store import read_rollouts, write_rollouts
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
    """Writing beyond so many bytes fails, as on a full disk."""
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
    """Also where prompts come from a source that no file tells about."""
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
    """A checkpoint with an adapter holds what was trained; the rest is read from where the model was."""
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
    """The notes of a run that was resumed."""
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


def test_a_wrong_request_in_the_middle_of_a_run_leaves_what_was_learnt(tiny_model: Path, tmp_path: Path) -> None:
    """A run that sampled nothing has no batch by which to tell that it had begun."""
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
