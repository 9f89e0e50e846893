"""`rlvr train` on the command line: errors, dry run, Ctrl-C, and other models than the embedded one."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rlvr_plugins.embedded
from rlvr.errors import ConfigError
from rlvr.protocols import TrainerOptions
from rlvr.record.store import read_rollouts
from rlvr.run.config import resolve
from rlvr.run.loop import Run
from rlvr.run.plan import make_plan
from rlvr.run.rundir import RunDirectory
from rlvr.settings import command_line_settings

GSM8K = [
    {"question": f"What is {i} + {i}?", "answer": f"It is <<{i}+{i}={2 * i}>>{2 * i}.\n#### {2 * i}"} for i in range(9)
]
Cli = Callable[..., Any]
SMALL = ["--steps", "2", "--prompts-per-step", "2", "--group-size", "2", "--max-tokens", "6", "--device", "cpu"]


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "gsm8k.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in GSM8K))
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "gsm8k"], "dataset 'gsm8k' needs a model that can read it"),
        (["--trainer", "grop"], "there is no trainer 'grop'; did you mean 'grpo'?"),
        (["--verifier", "maths"], "there is no verifier 'maths'; did you mean 'math'?"),
        (["--set", "trainer.lrr=1"], "there is no key trainer.lrr (--set trainer.lrr=1); did you mean 'trainer.lr'?"),
        (
            ["--set", "sampling.group_size=1"],
            "sampling.group_size (--set sampling.group_size=1) must be at least 2, not 1",
        ),
        (["--seed", "1", "--set", "seed=2"], "seed is given twice: by --seed and by --set seed=2"),
        (["--verifier", "math", "--verifier", "math"], "2 verifiers, and math has no weight: write math:1.0"),
        (["--set", "trainer.normalize_parts=true"], "needs a reward that is a weighted sum without clip"),
        (
            ["--set", "trainer.normalize_parts=true", "--set", "trainer.advantage=raw"],
            "trainer.normalize_parts whitens, and trainer.advantage is raw",
        ),
        (["--model", "a", "--steps", "1", "--model", "b"], "--model is given 2 times: give it once"),
        (["--dataset", "a", "--dataset", "b"], "needs a model that can read it: the default, 'embedded', knows"),
        (["--lr", "-1"], "trainer.lr (--lr) must be above 0, not -1.0"),
        (["--push-every", "4"], "trainer.push_every (--push-every): the trainer is 'grpo', and this is an option of"),
        (["--skip-unusable"], "rollouts.skip_unusable (--skip-unusable) does nothing without saved rollouts"),
        (["--model", "./nowhere", "--dataset", "gsm8k"], "model: there is no directory './nowhere'"),
        (["--device", "cuda:7"], "device: 'cuda:7' is not available"),
        (["--resume", "nowhere"], "nowhere holds no run to resume (no config.yaml)"),
        (["--resume", "nowhere", "--seed", "1"], "only --steps and --accept-changes can be added, not --seed"),
        (["--accept-changes"], "--accept-changes needs --resume: a new run has nothing that could have changed"),
        (
            ["--set", "sampling.options={max_sequnces: 8}"],
            "there is no key sampling.options.max_sequnces; did you mean",
        ),
        (["--max-tokens", "256"], "sampling.max_tokens 256 leaves no room for a prompt: the model 'embedded' has 256"),
        (["--max-tokens", "256"], "for the prompt and the completion together; lower it (--max-tokens)"),
        (["--option", "units=require"], "no option --option; did you mean --set verifier.options.KEY=VALUE?"),
        (["--learning-rate=1e-4"], "there is no option --learning-rate; did you mean --lr?"),
        (["--temperature", "0.7"], "no option --temperature; did you mean --set sampling.temperature=VALUE?"),
        (["--every", "5"], "or --set eval.every=VALUE or --set tracking.every=VALUE?"),
        (["--warmup-updates", "5"], "did you mean --set trainer.warmup_updates=VALUE?"),
        (
            ["--set", 'dataset.options.user="{question}" now'],
            """if it is text, quote it: --set 'dataset.options.user=""",
        ),
        (
            ["--set", "verifier.name={question}"],
            "must be text, not {'question': None}; put quotes around text that begins with a bracket or holds a colon",
        ),
        (["--tracker", "tensorbord"], "there is no tracker 'tensorbord'; did you mean 'tensorboard'?"),
        (["--out", "."], ". is not empty"),
        (["saved.parquet"], "saved.parquet is no option: did you mean --rollouts saved.parquet?"),
        (["--rollouts", "saved.parquet"], "saved.parquet does not exist"),
        (["--rollouts", "something"], "something ends in neither .parquet nor .jsonl"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_code_2(
    tmp_path: Path, cli: Cli, arguments: list[str], message: str
) -> None:
    (tmp_path / "something").touch()
    done = cli("train", *arguments)
    assert done.code == 2, done.err
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["something"], "a refused request leaves nothing behind"


def test_a_dry_run_does_the_arithmetic_scores_gold_answers_and_writes_nothing(
    tmp_path: Path, cli: Cli, questions: Path, awkward_model: Path
) -> None:
    weights = awkward_model / "model.safetensors"
    kept = weights.read_bytes()
    weights.unlink()  # no weight is loaded: there is none
    try:
        done = cli(
            "train", "--model", str(awkward_model), "--dataset", "gsm8k", "--data-files", str(questions),
            "--trainer", "grpo-off", "--prompts-per-step", "2", "--group-size", "8", "--steps", "10",
            "--max-tokens", "64", "--dry-run",
        )  # fmt: skip
    finally:
        weights.write_bytes(kept)
    assert done.code == 0, done.err
    for line in (
        "2 prompts × 8 = 16 rollouts",
        "an epoch     5 steps",
        "10 steps = 160 rollouts, 10 optimizer steps",
        "every 10 steps; lag 0 to 9",
        "no held-out questions",
        "the first prompt, as the model sees it:\n  | <",
    ):
        assert line in done.out
    assert done.out.count("→ 1.0") == 4
    assert {path.name for path in tmp_path.iterdir()} == {"gsm8k.jsonl"}


def test_a_dry_run_says_gold_answers_as_the_verifier_declares_and_what_positions_leave_of_prompts(
    tmp_path: Path, cli: Cli
) -> None:
    (tmp_path / "hashes.py").write_text(
        "import rlvr\n@rlvr.verifier(answer_form='#### {answer}')\n"
        "def check(completion, task): return completion.startswith('####') and task.answer in completion\n"
    )
    done = cli(
        "train", "--verifier", "hashes.py:check", "--max-tokens", "246", "--trainer", "grpo-off", "--steps", "10",
        "--set", "trainer.mini_batches=4", "--dry-run"
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "10 steps = 2,560 rollouts, 40 optimizer steps" in done.out
    assert "every 10 steps; lag 0 to 39 optimizer steps" in done.out
    assert "gold answers, scored in the form #### …:" in done.out
    assert done.out.count("→ 1.0") == 4
    assert "prompts of more than 10 tokens are left out: the model has 256 positions" in done.out


def test_questions_that_are_trained_on_and_held_out_are_counted(tmp_path: Path, cli: Cli) -> None:
    def put(name: str, numbers: range) -> None:
        rows = [{"question": f"{i}+{i}", "answer": 2 * i} for i in numbers]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    put("train.jsonl", range(10, 40))
    put("eval.jsonl", range(30, 50))
    model = str(Path(rlvr_plugins.embedded.__file__).parent / "model")
    arguments = ("train", "--model", model, "--max-tokens", "8", "--dry-run", "--dataset", "train.jsonl")
    plain = ("--set", "dataset.options.plain='{question}='", "--set", "eval.dataset=eval.jsonl")
    done = cli(*arguments, *plain)
    assert done.code == 0, done.err
    assert "\nwarning: 10 of the 20 held-out questions are also trained on" in done.out
    assert "the first prompt, as the model sees it:\n  | " in done.out
    fewer = cli(*arguments, *plain, "--set", "dataset.limit=5")
    assert fewer.code == 0, fewer.err
    assert "trained on" not in fewer.out
    wrong = cli(*arguments, "--set", "dataset.options.plain='{question}={anwser}'")
    assert wrong.code == 2
    assert "{anwser} names no column of train.jsonl" in wrong.err


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_chat_model_with_all_that_a_real_one_has_is_trained(
    tmp_path: Path, cli: Cli, questions: Path, awkward_model: Path, dtype: str
) -> None:
    done = cli(
        "train", "--model", str(awkward_model), "--dataset", "gsm8k", "--data-files", str(questions),
        "--trainer", "grpo-off", "--dtype", dtype, "--out", "run", *SMALL,
    )  # fmt: skip
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    rollouts = list(read_rollouts(tmp_path / "run" / "rollouts" / "step-000000.parquet"))
    assert all(rollout.messages is not None and rollout.prompt is None for rollout in rollouts)
    assert {rollout.sampling.dtype for rollout in rollouts if rollout.sampling} == {dtype}


def test_the_embedded_default_trains_and_reports(tmp_path: Path, cli: Cli) -> None:
    done = cli("train", "--steps", "2", "--tracker", "tensorboard", "--out", "run", "--set", "eval.questions=32")
    assert done.code == 0, done.err
    first, *_, last = [line for line in done.out.splitlines() if line.startswith("step")]
    assert "held-out" in first
    assert "2/2" in last
    assert list((tmp_path / "run").rglob("events.out.tfevents*"))
    assert "checkpoint: run/checkpoints/step-000002" in done.out


def test_saved_rollouts_are_scored_again_and_learned_from(tmp_path: Path, cli: Cli) -> None:
    """The third use: rescore a run's rollouts, then train on the new scores without sampling."""
    small = ["--set", "sampling.prompts_per_step=4", "--set", "eval.questions=0"]
    assert cli("train", "--steps", "2", "--out", "first", *small, "--group-size", "4").code == 0
    (tmp_path / "mine.py").write_text("def short(completion, task):\n    return -len(completion) / 10\n")
    for step in range(2):
        file = f"first/rollouts/step-{step:06d}.parquet"
        assert cli("score", file, "--verifier", "mine.py:short", "--out", f"scored-{step}.parquet").code == 0
    files = [f"scored-{step}.parquet" for step in range(2)]

    before = cli("train", "--rollouts", "first", "--verifier", "mine.py:short", *small)
    assert before.code == 2
    assert "no score by 'mine:short'; the scores there are by: math (32)" in before.err

    arguments = ["--rollouts", *files, "--verifier", "mine.py:short", "--trainer", "grpo-off", *small]
    dry = cli("train", *arguments, "--dry-run")
    assert dry.code == 0, dry.err
    for line in ("grpo-off on 8 saved groups", "32 rollouts in 8 groups", "a pass in 2 steps", "2 steps, 2 optimizer"):
        assert line in dry.out
    assert "gold answers" not in dry.out

    done = cli("train", *arguments, "--out", "second")
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in (tmp_path / "second" / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2, "one pass, not the embedded model's 160 steps"
    assert all(line["reward/mean"] < 0 and line["lag_unknown/share"] > 0 for line in lines)
    assert all(re.search(r"lag \d*\?  ess ", line) for line in done.out.splitlines() if line.startswith("step"))


def test_ctrl_c_ends_the_step_saves_and_can_be_resumed(tmp_path: Path, cli: Cli) -> None:
    sets = ("--set", "eval.questions=0", "--set", "sampling.prompts_per_step=2")
    command = [sys.executable, "-m", "rlvr", "train", "--steps", "500", "--out", "run", *sets]
    running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "run" / "metrics.jsonl").exists() or not (tmp_path / "run" / "metrics.jsonl").read_text():
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    output, _ = running.communicate()
    assert running.returncode == 130
    assert "continue with: rlvr train --resume run" in output
    done = int(next((tmp_path / "run" / "checkpoints").iterdir()).name.removeprefix("step-"))
    resumed = cli("train", "--resume", "run", "--steps", str(done + 1))
    assert resumed.code == 0, resumed.err
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(done + 1))


class TakesOver:
    """A backend with a loop of its own."""

    Options = TrainerOptions
    owns_loop = True

    def __init__(self, *_: Any) -> None:
        self.seen: list[str] = []

    def fit(self, run: Run) -> None:
        """Reads the run's prompts by itself."""
        self.seen = [encoded.prompt.task.answer or "" for encoded in run.plan.prompts.take(3)]


def test_a_trainer_that_owns_its_loop_is_driven_as_a_whole(tmp_path: Path, tiny_model: Path) -> None:
    config = resolve(
        command_line_settings(
            [f"model={tiny_model}", "dataset=arithmetic", "sampling.max_tokens=8", "verifier.workers=0"], {}
        )
    )

    class Quiet:
        def step(self, metrics: Any, total: int) -> None:
            raise AssertionError("the core's loop ran")

    class Closing:
        closed = False

        def close(self) -> None:
            self.closed = True

    tracker = Closing()
    with make_plan(config) as plan, RunDirectory.create(tmp_path / "run", plan.config) as directory:
        plan.trainer, plan.trackers = TakesOver, {"mine": lambda *_: tracker}
        run = Run(plan, directory, Quiet())
        assert run.train().finished
        assert isinstance(run.backend, TakesOver)
        assert len(run.backend.seen) == 3
    assert tracker.closed


def test_training_and_held_out_files_may_not_be_the_same(questions: Path, awkward_model: Path) -> None:
    sets = [f"model={awkward_model}", "dataset=gsm8k", f"dataset.data_files=[{questions}]"]
    with pytest.raises(ConfigError, match=r"gsm8k.jsonl is in dataset.data_files and in eval.data_files"):
        make_plan(resolve(command_line_settings([*sets, f"eval.data_files=[{questions}]"], {})))
