"""A run's directory: everything that a run is, in files that are whole or absent.

    config.yaml     resolved configuration       rollouts/step-000012.parquet   one file a batch, scores included
    manifest.json   versions, seed, plugins      checkpoints/step-000050/       all that step 50 depends on
    metrics.jsonl   one object a step            .lock                          held while a run writes here

A kill at any instruction costs the step that was under way: `resume` continues from the newest checkpoint, and batches
that were stored after it are read back instead of being sampled again.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from rlvr.config import RunConfig, read_settings, to_yaml, validate
from rlvr.errors import RequestError, RunError
from rlvr.files import replacing, sync, to_json
from rlvr.registry import registry
from rlvr.schema import Rollout, utc_now
from rlvr.store import read_rollouts, write_rollouts

_VERSIONED = ("torch", "transformers", "datasets", "sympy", "math-verify", "pyarrow", "pydantic")


class RunDirectory:
    """An open run directory; a context manager, since it holds the lock."""

    def __init__(self, path: Path) -> None:
        """Use `create` or `resume`."""
        self.path = path
        self.metrics_path = path / "metrics.jsonl"
        self._made: list[Path] = []
        self._lock = (path / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise RequestError(f"{path} is in use by another run") from error

    @classmethod
    def create(cls, path: Path, config: RunConfig) -> Self:
        """A new run in an empty or new directory. Raises RequestError when something is in it already."""
        made = [folder for folder in (path, *path.parents) if not folder.exists()]
        try:
            path.mkdir(parents=True, exist_ok=True)
            used = any(entry.name != ".lock" for entry in path.iterdir())
        except OSError as error:
            raise RequestError(f"{path} cannot be a run directory: {error.strerror}") from error
        if used:
            raise RequestError(f"{path} is not empty: continue it with --resume {path}, or name another with --out")
        directory = cls(path)
        directory._made = made
        for name in ("rollouts", "checkpoints"):
            (path / name).mkdir()
        with replacing(path / "manifest.json") as temporary:
            temporary.write_text(json.dumps(_manifest(config), indent=2) + "\n")
        with replacing(path / "config.yaml") as temporary:  # last: its presence says that the run can be resumed
            temporary.write_text(to_yaml(config), encoding="utf-8")
        return directory

    @classmethod
    def resume(cls, path: Path) -> Self:
        """A run that was there before. Raises RequestError when it was not."""
        if not (path / "config.yaml").is_file():
            raise RequestError(f"{path} holds no run to resume (no config.yaml)")
        directory = cls(path)
        for torn in [*path.glob(".*.tmp"), *path.glob("*/.*.tmp")]:  # what a kill left half-written
            shutil.rmtree(torn) if torn.is_dir() else torn.unlink()
        return directory

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Lets go of the lock. A request that proved wrong before the first batch leaves no directory behind."""
        if kind is not None and issubclass(kind, RequestError) and self._made and self.stored(0) is None:
            shutil.rmtree(self.path)
            for folder in self._made[1:]:
                folder.rmdir()
        self._lock.close()

    @property
    def config(self) -> RunConfig:
        """As the run was started."""
        return validate(RunConfig, read_settings(self.path / "config.yaml"))

    def extend(self, config: RunConfig) -> None:
        """Replace the configuration, by one with another number of steps."""
        with replacing(self.path / "config.yaml") as temporary:
            temporary.write_text(to_yaml(config), encoding="utf-8")

    @property
    def manifest(self) -> dict[str, Any]:
        """Versions, seed and plugins of the run's start."""
        manifest: dict[str, Any] = json.loads((self.path / "manifest.json").read_text())
        return manifest

    def changes(self) -> list[str]:
        """What is installed now in another version than at the run's start: its end may differ in the last bits."""
        then, now = self.manifest["versions"], _versions()
        names = sorted(then.keys() | now.keys())
        return [f"{n} {then.get(n, 'absent')} → {now.get(n, 'absent')}" for n in names if then.get(n) != now.get(n)]

    # --- metrics ----------------------------------------------------------------------------------------------------

    def log(self, metrics: Mapping[str, Any]) -> None:
        """Append one step's metrics."""
        with self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(to_json(metrics) + "\n")

    def cut_metrics(self, step: int) -> None:
        """Forget the metrics of `step` and later, and a last line that a kill cut short."""
        kept = [line for line in self.metrics() if line["step"] < step]
        with replacing(self.metrics_path) as temporary:
            temporary.write_text("".join(to_json(line) + "\n" for line in kept), encoding="utf-8")

    def metrics(self) -> Iterator[dict[str, Any]]:
        """What `log` wrote, a step at a time."""
        if self.metrics_path.exists():
            for line in self.metrics_path.read_text(encoding="utf-8").splitlines(keepends=True):
                if line.endswith("\n"):
                    yield json.loads(line)

    # --- rollouts ---------------------------------------------------------------------------------------------------

    def _rollouts(self, step: int) -> Path:
        return self.path / "rollouts" / f"step-{step:06d}.parquet"

    def store(self, step: int, rollouts: Sequence[Rollout]) -> None:
        """Write the batch of a step, whole or not at all."""
        write_rollouts(self._rollouts(step), rollouts)

    def stored(self, step: int) -> list[Rollout] | None:
        """The batch of a step that was stored before; None when there is none."""
        path = self._rollouts(step)
        return list(read_rollouts(path)) if path.exists() else None

    # --- checkpoints ------------------------------------------------------------------------------------------------

    @contextmanager
    def checkpoint(self, step: int, keep: int) -> Iterator[Path]:
        """A folder to write the state after `step` batches into; it counts from the moment this block ends well.

        Older checkpoints than the newest `keep` are removed then. Raises RunError when the disk fails.
        """
        final = self.path / "checkpoints" / f"step-{step:06d}"
        temporary = final.with_name(f".{final.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir()
            yield temporary
            for file in sorted(temporary.rglob("*")):
                sync(file)
            shutil.rmtree(final, ignore_errors=True)
            os.replace(temporary, final)
            sync(final.parent)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise RunError(f"the checkpoint {final} could not be written: {error}; the run can be resumed") from error
        for old in self._checkpoints()[:-keep]:
            shutil.rmtree(old)

    def newest_checkpoint(self) -> tuple[int, Path] | None:
        """Batches that it has seen, and its folder."""
        found = self._checkpoints()
        return (int(found[-1].name.removeprefix("step-")), found[-1]) if found else None

    def _checkpoints(self) -> list[Path]:
        return sorted((self.path / "checkpoints").glob("step-*"))


def _versions() -> dict[str, str]:
    """Of Python, of the libraries that the result depends on, and of every plugin's distribution."""
    plugins: Iterable[tuple[str, str]] = {(entry.distribution, entry.version) for entry in registry().entries()}
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in _VERSIONED} | dict(plugins)


def _manifest(config: RunConfig) -> dict[str, Any]:
    return {
        "run_id": uuid4().hex[:12],
        "created_at": utc_now(),
        "command": sys.argv,
        "seed": config.seed,
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "versions": _versions(),
    }
