"""Models for tests, made once per session by `tests/fixtures/`, and the markers that `make quick` excludes.

torch is imported only if a test asks for a model.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, settings

# No deadline: an example may take long on a busy machine.
settings.register_profile("rlvr", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("rlvr")

# Set before any test imports a library that reads it: tests must not need the network.
os.environ["HF_HUB_OFFLINE"] = "1"


QUICK = "not models and not slow"
"""Tests that `make quick` runs."""
TESTS = Path(__file__).parent
MODELS = (
    "trainers/model",
    "trainers/recipes",
    "trainers/sampling",
    "trainers/test_against_trl.py",
    "trainers/test_batch.py",
    "trainers/test_conformance.py",
    "trainers/test_grpo.py",
    "trainers/test_grpo_off.py",
    "trainers/test_metrics.py",
    "trainers/test_schedule.py",
    "trainers/test_support.py",
    "plugins",
    "rlvr/cli/test_diagnose_cli.py",
    "rlvr/cli/test_train_cli.py",
    "rlvr/data/test_prompts.py",
    "rlvr/reports/test_ratios.py",
    "rlvr/run",
    "rlvr/testing/test_scaffold.py",
    "rlvr/test_alarms.py",
    "rlvr/verify/test_score_names.py",
)
"""Folders and files under `tests/` whose tests load or train a model."""
SLOW = (
    "rlvr/bench",
    "rlvr/cli/test_check_cli.py",
    "rlvr/cli/test_cli.py",
    "rlvr/cli/test_interrupts.py",
    "rlvr/cli/test_streams.py",
    "rlvr/cli/test_score_cli.py",
    "rlvr/data/test_tables.py",
    "rlvr/rescore/test_score_many.py",
    "rlvr/testing/test_scaffold.py",
    "rlvr/verify/test_adapters.py",
    "rlvr/verify/test_isolation.py",
    "rlvr/verify/test_landlock.py",
    "rlvr/verify/test_pool.py",
    "rlvr/verify/test_secrets.py",
    "test_dependencies.py",
    "test_example_plugin.py",
    "test_gpu_benchmark.py",
    "test_plugin_docs.py",
    "test_study.py",
    "test_wheel.py",
    "trainers/loss/test_compositions.py",
    "verifiers/code/test_box.py",
    "verifiers/code/test_verifier.py",
    "verifiers/test_library.py",
    "verifiers/test_math_corpus.py",
    "verifiers/test_math_verify.py",
)
"""Folders and files under `tests/` whose tests start many processes, wait, or compute for long."""
SLOW_TESTS = (
    "test_a_group_that_hangs_costs_that_group",
    "test_a_run_logs_nothing_that_the_catalog_lacks",
    "test_errors_and_time_outs_are_never_kept",
    "test_every_result_has_a_meaning",
    "test_hostile_answers_get_a_verdict_soon",
    "test_jsonl_gives_back_every_valid_rollout",
    "test_memory_is_bounded_in_both_directions",
    "test_one_picture_of_several_runs",
    "test_parquet_gives_back_every_valid_rollout",
    "test_the_order_of_imports_does_not_depend_on_folders_in_the_root",
    "test_twice_the_text_is_not_four_times_the_time",
    "test_what_goes_in_as_json_comes_out_equal",
)
"""Slow tests in other files, by name."""


LONG = (
    "rlvr/run/test_loop.py",
    "rlvr/verify/test_pool.py",
    "rlvr/bench/test_bench.py",
    "rlvr/run/test_async.py",
    "rlvr/rescore/test_score_many.py",
    "rlvr/cli/test_cli.py",
    "rlvr/run/test_sampler_process.py",
    "trainers/recipes/test_recipes.py",
    "rlvr/cli/test_score_cli.py",
    "rlvr/cli/test_streams.py",
    "rlvr/cli/test_interrupts.py",
    "rlvr/cli/test_check_cli.py",
    "verifiers/test_math.py",
    "rlvr/verify/test_isolation.py",
    "rlvr/rescore/test_export_in_trl.py",
    "rlvr/cli/test_train_cli.py",
    "rlvr/verify/test_adapters.py",
    "rlvr/run/test_faults.py",
    "test_wheel.py",
    "test_study.py",
    "test_dependencies.py",
    "rlvr/run/test_evaluate.py",
    "rlvr/run/test_saved.py",
    "rlvr/record/test_store.py",
    "trainers/sampling/test_hf_sampler.py",
    "verifiers/test_math_corpus.py",
    "rlvr/run/test_several.py",
    "rlvr/testing/test_scaffold.py",
    "rlvr/test_alarms.py",
)
"""Slowest files, the slowest first."""


@cache
def markers_of(path: Path) -> tuple[str, ...]:
    """Return the markers of all tests in a file."""
    name = path.relative_to(TESTS).as_posix() if path.is_relative_to(TESTS) else ""
    marked = {"models": MODELS, "slow": SLOW}
    return tuple(m for m, places in marked.items() if any(f"{name}/".startswith(f"{place}/") for place in places))


def place_of(path: Path) -> int:
    """Return the position of a file in `LONG`; other files come last."""
    name = path.relative_to(TESTS).as_posix() if path.is_relative_to(TESTS) else ""
    return LONG.index(name) if name in LONG else len(LONG)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Have processes that share the files begin with the longest.

    Within a file, and among the other files, the order stays the random one. A long file that comes last would keep one
    process busy while the other has nothing left to do.
    """
    if hasattr(config, "workerinput"):  # in a process of pytest-xdist
        items.sort(key=lambda item: place_of(item.path))


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark a test by its file or name, before `-m` selects by the marks."""
    for marker in markers_of(item.path):
        item.add_marker(marker)
    if isinstance(item, pytest.Function) and item.originalname in SLOW_TESTS:
        item.add_marker("slow")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `make quick`, files whose tests are all left out are not imported: torch alone takes seconds."""
    return True if config.option.markexpr == QUICK and markers_of(collection_path) else None


def fixture_module(name: str) -> ModuleType:
    """Return the module `tests/fixtures/NAME.py`."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / "fixtures" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def awkward_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a model with the peculiarities of real checkpoints: see `fixtures/awkward_model.py`."""
    path: Path = fixture_module("awkward_model").build(tmp_path_factory.mktemp("awkward"))
    return path


@pytest.fixture
def copy_of_awkward(awkward_model: Path, tmp_path: Path) -> Path:
    """A copy of `awkward_model` to change."""
    return Path(shutil.copytree(awkward_model, tmp_path / "copy"))


@pytest.fixture(scope="session")
def build_tiny_model() -> Callable[..., Path]:
    """`build(directory, *, seed=0, **config) -> directory` of `fixtures/tiny_model.py`."""
    build: Callable[..., Path] = fixture_module("tiny_model").build
    return build


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, build_tiny_model: Callable[..., Path]) -> Path:
    """Directory of a tiny random Qwen2 in float32 with a character tokenizer."""
    return build_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def pip_install(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Function that installs a package from its source tree into a new folder, by pip and without an index.

    The folder, on PYTHONPATH, is an environment with that package added to this one. A build writes into its tree: give
    a copy.
    """

    def install(tree: Path) -> Path:
        site = tmp_path_factory.mktemp("site")
        pip = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--no-build-isolation"]
        done = subprocess.run([*pip, "--target", site, tree], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return site

    return install


@pytest.fixture
def on_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """Function that adds folders to this process's `sys.path`, as if their content were installed, until the test
    ends."""
    from rlvr.registry import registry

    folders: list[Path] = []

    def put(folder: Path) -> None:
        folders.append(folder)
        monkeypatch.syspath_prepend(str(folder))
        registry.cache_clear()

    yield put
    for name, module in list(sys.modules.items()):
        if any(Path(getattr(module, "__file__", None) or "/").is_relative_to(folder) for folder in folders):
            del sys.modules[name]
    registry.cache_clear()


class Done(NamedTuple):
    """Outcome of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Function that runs the command line in this process, in the test's own folder; a traceback fails the test.

    A process of its own would import torch and transformers again, which takes longer than most commands.
    """
    from rlvr.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["rlvr", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Done(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def cpu_unit() -> float:
    """CPU seconds of a fixed Python computation on this machine, as a unit for time limits."""

    def spent() -> float:
        begun = time.process_time()
        assert sum(i * i for i in range(500_000)) > 0
        return time.process_time() - begun

    return min(spent() for _ in range(5))
