"""Plugins' trainers and samplers are checked before loading; a backend with its own loop runs the whole training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import rlvr
import small_runs
from rlvr.errors import ConfigError, PluginError, RequestError
from rlvr.registry import registry
from rlvr.run.factories import sampler_factory, trainer_factory
from rlvr.run.plan import make_plan
from rlvr.run.rundir import RunDirectory

HOOKS = """
    import rlvr

    @rlvr.hookimpl
    def rlvr_trainers():
        return {name: f"odd_parts:{name}" for name in ("bare", "mute", "foreign")}

    @rlvr.hookimpl
    def rlvr_samplers():
        return {"bare-sampler": "odd_parts:bare"}
"""
PARTS = """
    import json
    from rlvr.protocols import TrainerOptions

    class ForeignOptions(TrainerOptions):
        speed: int = 1

        @property
        def batches_per_sync(self):
            raise AssertionError("a backend syncs by itself")

    class foreign:
        Options = ForeignOptions
        owns_loop = True

        def __init__(self, options, context):
            self.speed = options.speed

        def fit(self, run):
            prompts = run.plan.prompts.take(self.speed)
            run.directory.log({"step": 0, "asked": [encoded.prompt.text for encoded in prompts]})

    class mute:
        Options = TrainerOptions

    class bare:
        pass
"""


@pytest.fixture
def plugins(install: Callable[..., Path]) -> Iterator[None]:
    """Registry of this process, with a distribution of odd trainers and samplers."""
    install("rlvr-odd", "odd = odd_hooks", odd_hooks=HOOKS, odd_parts=PARTS)
    registry.cache_clear()
    yield
    registry.cache_clear()


@pytest.mark.usefixtures("plugins")
def test_a_factory_that_lacks_something_is_named_with_its_distribution() -> None:
    with pytest.raises(PluginError, match=r"trainer 'bare' \(odd_parts:bare of rlvr-odd 1.0\) lacks `Options`: a subc"):
        trainer_factory("bare")
    with pytest.raises(PluginError, match=r"trainer 'mute' .*lacks `owns_loop`: set it to False, or to True if"):
        trainer_factory("mute")
    with pytest.raises(PluginError, match=r"sampler 'bare-sampler' .*subclass of rlvr.protocols.SamplerOptions"):
        sampler_factory("bare-sampler")
    with pytest.raises(PluginError, match="there is no trainer 'groq'; did you mean 'grpo'"):
        trainer_factory("groq")


def test_built_in_trainers_do_not_own_the_loop() -> None:
    assert not trainer_factory("grpo").owns_loop
    assert not trainer_factory("grpo-off").owns_loop
    assert sampler_factory("hf").Options().model_dump()


@pytest.mark.usefixtures("plugins")
def test_a_backend_gets_the_whole_job_and_nothing_is_loaded_for_it(tiny_model: Path, tmp_path: Path) -> None:
    config = small_runs.small_config(tiny_model, trainer="foreign", trainer__lr=None, trainer__speed=2)
    with make_plan(config) as plan, RunDirectory.create(tmp_path / "run", plan.config) as directory:
        assert not plan.needs_sampler
        run = small_runs.Run(plan, directory, small_runs.Silent())
        assert run.train().finished
    (line,) = small_runs.metrics_of(tmp_path / "run")
    assert len(line["asked"]) == 2


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    ("changes", "key"),
    [({"sampling__refill": True}, "sampling.refill"), ({"replay__share": 0.4}, "replay.share")],
)
def test_groups_from_elsewhere_are_refused_for_a_backend(
    tiny_model: Path, changes: dict[str, object], key: str
) -> None:
    config = small_runs.small_config(tiny_model, trainer="foreign", trainer__lr=None, **changes)
    with pytest.raises(ConfigError, match=f"{key} does nothing with trainer 'foreign', which samples its own batches"):
        make_plan(config)


@pytest.mark.usefixtures("plugins")
def test_a_backend_computes_no_log_probabilities_for_a_diagnosis(tiny_model: Path, tmp_path: Path) -> None:
    small_runs.start(small_runs.small_config(tiny_model, steps=1, eval__questions=0), tmp_path / "run")
    with pytest.raises(RequestError, match="trainer 'foreign' has a loop of its own and computes no log-prob"):
        rlvr.diagnose(tmp_path / "run", tiny_model, trainer="foreign", device="cpu")
