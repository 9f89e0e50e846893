"""Load the plugins that a run names, and check that each fits the run before anything else is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias, cast

from rlvr.errors import ConfigError, PluginError
from rlvr.protocols import SamplerFactory, SamplerOptions, TrackerFactory, TrainContext, TrainerFactory, TrainerOptions
from rlvr.registry import Entry, registry
from rlvr.run.copies import CopiesFactory
from rlvr.run.sampler_process import ProcessSamplerFactory
from rlvr.settings import sampler_options
from rlvr.verify.verifying import BREAKAGE, module_from_file

if TYPE_CHECKING:
    from rlvr.run.config import RunConfig
    from rlvr.run.loop import Run


class Backend(Protocol):
    """A trainer with a loop of its own, such as another framework's. It runs the whole training."""

    def fit(self, run: Run) -> None:
        """Train to the end of the run, or until `run.stopping`.

        `run.plan` has the prompts, the held-out questions and the scorer. The backend writes metrics, rollouts and
        checkpoints into `run.directory`.
        """


class BackendFactory(Protocol):
    """Makes a backend. For a backend no sampler is loaded and no group is drawn: it does both by itself."""

    Options: ClassVar[type[TrainerOptions]]
    owns_loop: ClassVar[Literal[True]]

    def __call__(self, options: Any, context: TrainContext, /) -> Backend:
        """Load what it needs and return the backend. `options` is an instance of this factory's `Options`."""


AnyTrainerFactory: TypeAlias = TrainerFactory | BackendFactory


def trainer_factory(name: str) -> AnyTrainerFactory:
    """Return the factory of a trainer. Raises PluginError if there is none, or if it lacks `Options` or `owns_loop`."""
    entry = registry().entry("trainer", name)
    factory = entry.load()
    _check_options(entry, factory, TrainerOptions)
    if not isinstance(getattr(factory, "owns_loop", None), bool):
        raise PluginError(f"{_named(entry)} lacks `owns_loop`: set it to False, or to True if it has a loop of its own")
    return cast(AnyTrainerFactory, factory)


def sampler_factory(name: str) -> SamplerFactory:
    """Return the factory of a sampler. Raises PluginError if there is none, or if it lacks `Options`."""
    entry = registry().entry("sampler", name)
    factory = entry.load()
    _check_options(entry, factory, SamplerOptions)
    return cast(SamplerFactory, factory)


def configured_sampler(config: RunConfig) -> tuple[SamplerFactory, SamplerOptions]:
    """Return the factory of a run's sampler and its options: for mode=async one that works while the run trains.

    Raises PluginError as `sampler_factory` does, and ConfigError for an option.
    """
    factory = sampler_factory(config.sampling.engine)
    options = sampler_options(config.sampling.options, factory.Options)
    if config.sampling.copies > 1 and options.runs_elsewhere:
        raise ConfigError(
            f"sampling.copies: the sampler {config.sampling.engine!r} computes elsewhere, where it can have more "
            "processes by itself; leave it out (vllm-server: name several servers with --server)"
        )
    apart = config.sampling.process or (config.mode == "async" and not options.runs_elsewhere)
    threads, at_once = config.sampling.threads, config.mode == "async"
    if config.sampling.copies > 1:
        return CopiesFactory(factory, config.sampling.copies, threads, at_once=at_once), options
    if apart:
        return ProcessSamplerFactory(factory, threads, at_once=at_once), options
    if threads is not None:
        raise ConfigError(
            f"sampling.threads {threads} does nothing: the sampler {config.sampling.engine!r} has no process of its "
            "own. Leave it out, or set sampling.process=true"
        )
    return factory, options


def tracker_factory(name: str) -> TrackerFactory:
    """Return the factory of a tracker: a registered one, or the class of `FILE.py:CLASS`.

    Raises PluginError if there is none.
    """
    place, colon, attribute = name.rpartition(":")
    if colon and place.endswith(".py"):
        return cast(TrackerFactory, _from_file(Path(place), attribute))
    return cast(TrackerFactory, registry().load("tracker", name))


def _from_file(file: Path, attribute: str) -> object:
    """Return a name of a Python file. Raises PluginError if the file cannot be run or lacks the name."""
    if not file.is_file():
        raise PluginError(f"tracker {file}:{attribute}: there is no file {file}")
    try:
        module = module_from_file(file, file.read_bytes())
    except BREAKAGE as error:
        raise PluginError(f"tracker {file}:{attribute}: {file} failed: {type(error).__name__}: {error}") from error
    if attribute not in vars(module):
        raise PluginError(f"tracker {file}:{attribute}: {file} defines no {attribute!r}")
    found: object = vars(module)[attribute]
    return found


def _check_options(entry: Entry, factory: object, base: type[TrainerOptions] | type[SamplerOptions]) -> None:
    options = getattr(factory, "Options", None)
    if not (isinstance(options, type) and issubclass(options, base)):
        raise PluginError(f"{_named(entry)} lacks `Options`: a subclass of rlvr.protocols.{base.__name__}")


def _named(entry: Entry) -> str:
    return f"{entry.kind} {entry.name!r} ({entry.target} of {entry.distribution} {entry.version})"
