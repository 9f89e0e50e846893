"""Compare step time and peak memory of `rlvr train` and TRL's GRPOTrainer, at three sizes.

    python benchmarks/against_trl.py                          # all three; some 20 minutes on two quiet cores
    python benchmarks/against_trl.py --size 152k              # one of them
    python benchmarks/against_trl.py --steps 3 --rounds 1     # does it work?
    python benchmarks/against_trl.py --loaded                 # while another process keeps each core busy

embedded: the model and task of `rlvr train` without arguments, 16 questions × 16 completions. 30M and 152k: random
weights (`random_models.py`) that never end a completion, 60 + 128 and 60 + 192 tokens.

Both sides: the same weights, questions, length limit, temperature, learning rate, AdamW, GRPO loss and verifier in
worker processes; float32, no gradient checkpointing, no evaluation. Each measurement is a process of its own, the two
sides take turns, and the figures are medians over all steps but the first of each process. Ours is the `rlvr train`
command: its times are read from the run's metrics, its memory from the kernel.

Writes `results/against_trl_SIZE.md` beside itself; with `--loaded`, `results/against_trl_SIZE_loaded.md`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from random_models import PROMPT_TOKENS, SHAPES, write_model, write_questions

from rlvr.run.threads import spin_briefly

if TYPE_CHECKING:
    from rlvr.run.plan import Plan

RESULTS = Path(__file__).parent / "results"
BUSY = "import os\nrun = os.getppid()\nwhile os.getppid() == run: pass"
"""Keeps a core busy until the process that started it ends."""
LOADED = (
    "On every core another process computes without pause. TRL, too, was given `GOMP_SPINCOUNT=1000`, which `rlvr` "
    "sets by itself. Load average {load:.1f}. "
)
WARM_UP = 1
"""Steps of each process that are not counted."""
PARTS = ("sample", "score", "train", "step")


@dataclass(frozen=True)
class Size:
    """Model and workload of one comparison, and the number of steps measured."""

    steps: int
    """Measured steps of each process."""
    rounds: int
    """Processes of each side."""
    settings: Mapping[str, Any]
    note: str


COMMON = {"trainer.name": "grpo", "eval.questions": 0, "checkpoint.every": 1_000_000}
RANDOM = COMMON | {
    "verifier.name": f"{Path(__file__).with_name('random_models.py')}:coin",
    "trainer.mask_zero_variance": False,
    "sampling.temperature": 1.0,
    "dataset.max_prompt_tokens": PROMPT_TOKENS,
    "model.dtype": "float32",
}
SIZES = {
    "embedded": Size(
        steps=60,
        rounds=2,
        settings=COMMON | {"verifier.name": "math", "sampling.prompts_per_step": 16, "sampling.group_size": 16},
        note="rlvr's training leaves out groups whose rewards are all equal, whose gradient is zero, and computes what "
        "the completions of a group share once; TRL computes all",
    ),
    "30M": Size(
        steps=4,
        rounds=2,
        settings=RANDOM
        | {"sampling.prompts_per_step": 4, "sampling.group_size": 8, "sampling.max_tokens": 128, "trainer.lr": 1e-6},
        note="random weights, 32,000 tokens; both sides train on all rows",
    ),
    "152k": Size(
        steps=4,
        rounds=2,
        settings=RANDOM
        | {"sampling.prompts_per_step": 2, "sampling.group_size": 8, "sampling.max_tokens": 192, "trainer.lr": 1e-6},
        note="random weights, hidden 256, 4 layers, 151,936 tokens; both sides train on all rows",
    ),
}


def write_settings(size: str, folder: Path) -> Path:
    """Write a file for `--config`, with its model and its questions beside it."""
    settings = dict(SIZES[size].settings)
    if size in SHAPES:
        settings["model.name"] = str(write_model(size, folder / "model"))
        settings["dataset.name"] = str(write_questions(folder / "questions.jsonl", 1000))
    file = folder / "settings.json"
    file.write_text(json.dumps(settings))
    return file


def measure(command: Sequence[str]) -> float:
    """Run the command; return its peak resident memory in MiB, without worker processes."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def measure_rlvr(settings: Path, steps: int, folder: Path) -> tuple[list[dict[str, float]], float]:
    """Return seconds by part and mean completion length for each step, and the peak memory in MiB."""
    out = folder / "run"
    pairs = json.loads(settings.read_text()).items()
    options = [argument for key, value in pairs for argument in ("--set", f"{key}={json.dumps(value)}")]
    memory = measure([sys.executable, "-m", "rlvr", "train", "--steps", str(steps), "--out", str(out), *options])
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{"length": line["length/mean"]} | {part: line[f"time/{part}"] for part in PARTS} for line in lines], memory


def measure_trl(settings: Path, steps: int, folder: Path) -> tuple[list[dict[str, float]], float]:
    """Return the same for TRL; see `measure_rlvr`."""
    out = folder / "trl.json"
    memory = measure([sys.executable, __file__, "--steps", str(steps), "--trl", str(settings), str(out)])
    return json.loads(out.read_text()), memory


@contextlib.contextmanager
def load() -> Iterator[None]:
    """Keep every core busy inside the block, each by a process of its own that computes in Python."""
    busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


# --- TRL's side, in its own process ---------------------------------------------------------------------------------


class StopWatch:
    """Times of the parts of each optimizer step, in seconds, and the mean completion length."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.tokens = 0.0
        self._spent = dict.fromkeys(PARTS, 0.0)
        self._last = 0.0

    @contextlib.contextmanager
    def timing(self, part: str) -> Iterator[None]:
        """Add the time that the block takes to a part of the step."""
        began = time.perf_counter()
        yield
        self._spent[part] += time.perf_counter() - began

    def start(self) -> None:
        """Note that training begins."""
        self._last = time.perf_counter()

    def end_step(self) -> None:
        """Note that an optimizer step is done."""
        now = time.perf_counter()
        spent, self._last = {**self._spent, "step": now - self._last}, now
        spent["train"] = spent["step"] - spent["sample"] - spent["score"]  # what is neither, as a whole
        self.steps.append({**spent, "length": self.tokens})
        self._spent = dict.fromkeys(PARTS, 0.0)


def train_with_trl(settings: Path, steps: int, out: Path) -> None:
    """Train as the settings say, with TRL; write what `measure_trl` returns."""
    warnings.filterwarnings("ignore", ".*gradient_checkpointing.* is deprecated", FutureWarning)  # TRL reads it
    from rlvr.record.item import Item
    from rlvr.run.config import resolve
    from rlvr.run.models import load_tokenizer
    from rlvr.run.plan import make_plan
    from rlvr.settings import Setting
    from rlvr.verify.scoring import training_reward

    pairs = json.loads(settings.read_text()).items()
    config = resolve({key: Setting(value, "benchmark") for key, value in pairs})
    watch = StopWatch()
    with make_plan(config) as plan, tempfile.TemporaryDirectory() as folder:
        tokenizer = load_tokenizer(plan.model)
        asked = plan.prompts.take(steps * config.sampling.prompts_per_step)
        prompts = [question.prompt.text for question in asked]
        tasks = {text: question.prompt.task for text, question in zip(prompts, asked, strict=True)}
        assert [tuple(ids) for ids in tokenizer(prompts)["input_ids"]] == [question.token_ids for question in asked]

        def reward(prompts: list[str], completions: list[str], **_: Any) -> list[float | None]:
            items = (Item(completion, tasks[prompt]) for prompt, completion in zip(prompts, completions, strict=True))
            return [training_reward(score, config.verifier.rewards) for score in plan.scorer.score(items)]

        trl_trainer(plan, steps, folder, watch, reward, prompts, tokenizer).train()
    out.write_text(json.dumps(watch.steps))


def trl_trainer(
    plan: Plan,
    steps: int,
    folder: str,
    watch: StopWatch,
    reward: Callable[..., list[float | None]],
    prompts: Sequence[str],
    tokenizer: Any,
) -> Any:
    """Return a GRPOTrainer for the plan's model that trains on the prompts in their order, timed by the watch."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, TrainerCallback
    from trl import GRPOTrainer

    class Timed(GRPOTrainer):
        """A GRPOTrainer that times sampling and scoring."""

        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            with watch.timing("sample"):
                result = super()._generate(*args, **kwargs)
            completions = result[1]
            watch.tokens = sum(map(len, completions)) / len(completions)
            return result

        def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
            with watch.timing("score"):
                return super()._calculate_rewards(*args, **kwargs)

    class Steps(TrainerCallback):
        """Reads the stop-watch when an optimizer step is done."""

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            watch.start()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            watch.end_step()

    return Timed(
        AutoModelForCausalLM.from_pretrained(plan.model.path, dtype=torch.float32),
        reward,
        args=trl_config(plan, steps, folder),
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
        processing_class=tokenizer,
        callbacks=[Steps()],
    )


def trl_config(plan: Plan, steps: int, folder: str) -> Any:
    """Return the plan's settings as TRL's."""
    from torch import cuda
    from trl import GRPOConfig

    sampling, options = plan.config.sampling, plan.options
    return GRPOConfig(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=plan.rollouts_per_step,
        num_generations=sampling.group_size,
        max_completion_length=sampling.max_tokens,
        temperature=sampling.temperature,
        learning_rate=options.lr,
        lr_scheduler_type="constant",
        adam_beta1=options.betas[0],
        adam_beta2=options.betas[1],
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        epsilon=options.epsilon,
        beta=options.beta,
        loss_type="grpo",
        bf16=False,
        activation_checkpointing=False,
        use_cpu=not cuda.is_available(),
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        seed=plan.config.seed,
    )


# --- the table ------------------------------------------------------------------------------------------------------


def table(ours: list[dict[str, float]], theirs: list[dict[str, float]], memory: tuple[float, float]) -> str:
    """Return a Markdown table with the medians of both sides and their ratio."""
    names = {"step": "a step", "sample": "– sampling", "score": "– scoring", "train": "– training"}
    rows = [f"| median | rlvr | TRL {metadata.version('trl')} | TRL / rlvr |", "|---|---|---|---|"]
    for part, name in names.items():
        a, b = (statistics.median(step[part] for step in side) for side in (ours, theirs))
        rows.append(f"| {name} | {a:.3f} s | {b:.3f} s | {b / a:.1f} |")
    a, b = (statistics.median(step["length"] for step in side) for side in (ours, theirs))
    rows.append(f"| tokens a completion | {a:.1f} | {b:.1f} | {b / a:.2f} |")
    rows.append(f"| peak memory | {memory[0]:,.0f} MiB | {memory[1]:,.0f} MiB | {memory[1] / memory[0]:.2f} |")
    return "\n".join(rows)


def run(name: str, steps: int, rounds: int, *, loaded: bool) -> str:
    """Measure both sides at one size; return the table with a caption."""
    sides: tuple[list[dict[str, float]], list[dict[str, float]]] = ([], [])
    memories: tuple[list[float], list[float]] = ([], [])
    with tempfile.TemporaryDirectory() as shared:
        settings = write_settings(name, Path(shared))
        for n in range(rounds):
            for side, memory, measured in zip(sides, memories, (measure_rlvr, measure_trl), strict=True):
                print(f"{name}, round {n + 1} of {rounds}: {measured.__name__}, {steps} steps", flush=True)
                with tempfile.TemporaryDirectory() as folder, load() if loaded else contextlib.nullcontext():
                    each, peak = measured(settings, steps, Path(folder))
                side += each[WARM_UP:]
                memory.append(peak)
    asked = SIZES[name].settings
    return (
        f"{table(*sides, (statistics.median(memories[0]), statistics.median(memories[1])))}\n\n"
        f"`python benchmarks/against_trl.py --size {name} --steps {steps} --rounds {rounds}"
        f"{' --loaded' if loaded else ''}`: "
        f"{asked['sampling.prompts_per_step']} questions × "
        f"{asked['sampling.group_size']} completions a step, {len(sides[0])} steps of each side in "
        f"{'one process' if rounds == 1 else f'{rounds} processes that take turns'}; {processor()}, {torch_threads()} "
        f"threads, Python {platform.python_version()}, torch {metadata.version('torch')}, transformers "
        f"{metadata.version('transformers')}; {SIZES[name].note}. "
        f"{LOADED.format(load=os.getloadavg()[2]) if loaded else ''}Peak memory is the main process's resident set.\n"
    )


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, action="append", help="repeatable; all by default")
    parser.add_argument("--steps", type=int, help=f"of each process; the first {WARM_UP} of them not counted")
    parser.add_argument("--rounds", type=int, help="processes of each side")
    parser.add_argument("--loaded", action="store_true", help="measure while another process keeps each core busy")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the table")
    parser.add_argument("--trl", type=Path, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.steps is not None and arguments.steps <= WARM_UP:
        parser.error(f"--steps must be more than {WARM_UP}")
    if arguments.trl:
        train_with_trl(arguments.trl[0], arguments.steps, arguments.trl[1])
        return
    arguments.results.mkdir(exist_ok=True)
    if arguments.loaded:
        spin_briefly()  # for both sides
    for name in arguments.size or SIZES:
        steps, rounds = arguments.steps or SIZES[name].steps, arguments.rounds or SIZES[name].rounds
        text = run(name, steps, rounds, loaded=arguments.loaded)
        file = arguments.results / f"against_trl_{name}{'_loaded' if arguments.loaded else ''}.md"
        file.write_text(text, encoding="utf-8")
        print(text, flush=True)


def processor() -> str:
    """Return the CPU's name, if the system provides it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def torch_threads() -> int:
    """Return the number of torch's threads."""
    import torch

    return torch.get_num_threads()


if __name__ == "__main__":
    main()
