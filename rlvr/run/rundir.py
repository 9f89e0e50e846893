"""Run directory: everything about a run, in files that are complete or absent.

    config.yaml     resolved configuration       rollouts/step-000012.parquet   one file per batch, scores included
    manifest.json   versions, seed, plugins      checkpoints/step-000050/       all that step 50 depends on
    metrics.jsonl   one object per step          recomputed/file-0000.parquet   log-probabilities that files lacked
    evaluations/step-000050.parquet              answers to held-out questions after 50 batches
    weights/        step-000100/ and best/: weights alone, as `checkpoint.weights_every` and `checkpoint.best` say
    weights.json    hashes of the weights that a resume reads again; model.json of the model's other files, prompts.json
                    of the prompts, inputs.json of saved rollouts
    .lock           held while a run writes here

A kill at any instruction costs only the current step: `resume` continues from the newest checkpoint, and batches stored
after it are read back instead of being sampled again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from rlvr.errors import RequestError, RlvrError, RunError
from rlvr.files import kind_of, replacing, replacing_folder, sha256, to_json
from rlvr.metrics import read_metrics as read_lines
from rlvr.record.parquet import batches_of
from rlvr.record.schema import Rollout, utc_now
from rlvr.record.store import read_rollouts, rollout_of, rows_of, write_rollouts
from rlvr.registry import registry
from rlvr.run.checksums import SUMS, Checksums
from rlvr.run.config import RunConfig, to_yaml
from rlvr.settings import Setting, read_settings, validate

# A longer verifier.timeout lets a run continue that stopped because of slow verdicts. It changes how long to wait, not
# what is correct.
MAY_CHANGE = (
    "steps ",
    "eval.",
    "checkpoint.",
    "alarms.",
    "trackers ",
    "tracking.",
    "verifier.workers ",
    "verifier.timeout ",
    "verifier.write_protect ",
)
"""Settings that may change when a run is resumed."""
CHECKPOINT = re.compile(r"step-\d{6,}")
"""Names of checkpoints."""
EVALUATIONS = "evaluations"
"""Folder of the answers to held-out questions."""
WEIGHTS, BEST = "weights", "best"
"""Folder of weights that no run continues from, and the name of the best ones in it."""
_VERSIONED = ("torch", "transformers", "datasets", "sympy", "mpmath", "pyarrow", "pydantic")


class RunDirectory:
    """An open run directory. A context manager, because it holds the lock."""

    def __init__(self, path: Path) -> None:
        """Open the directory; use `create` or `resume` instead."""
        self.path = path
        self.metrics_path = path / "metrics.jsonl"
        self.accepts_changes = False
        """True if the run may continue with another version of code that affects results."""
        self._made: list[Path] = []
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="rlvr-store")
        self._written: Future[int] | None = None
        """The batch that is being written."""
        self._sums = Checksums(path / "rollouts")
        try:
            self._lock = (path / ".lock").open("w")
        except OSError as error:
            raise RequestError(f"{path} cannot be written to: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise RequestError(f"{path} is in use by another run") from error
        except OSError as error:
            self._lock.close()
            raise RequestError(f"{path} cannot be locked: {error.strerror}") from error

    @classmethod
    def create(cls, path: Path, config: RunConfig) -> Self:
        """Begin a new run in an empty or new directory. Raises RequestError if the directory is not empty."""
        made = [folder for folder in (path, *path.parents) if not os.path.exists(folder)]
        try:
            path.mkdir(parents=True, exist_ok=True)
            used = not _barely_begun(path)
        except OSError as error:
            raise RequestError(f"{path} cannot be a run directory: {error.strerror}") from error
        if used:
            raise RequestError(f"{path} is not empty: continue it with --resume {path}, or name another with --out")
        directory = cls(path)
        directory._made = made
        for name in ("rollouts", "checkpoints"):
            (path / name).mkdir(exist_ok=True)
        directory._write_manifest(_manifest(config))
        with replacing(path / "config.yaml") as temporary:  # last: a run with this file can be resumed
            temporary.write_text(to_yaml(config), encoding="utf-8")
        return directory

    @classmethod
    def resume(cls, path: Path, *, accept_changes: bool = False) -> Self:
        """Open an existing run. Raises RequestError if there is none."""
        if not (path / "config.yaml").is_file():
            raise RequestError(f"{path} holds no run to resume (no config.yaml)")
        directory = cls(path)
        directory.accepts_changes = accept_changes
        try:
            directory._refuse_another_configuration()
        except RequestError:
            directory._lock.close()
            raise
        try:
            for torn in [*path.glob(".*.tmp"), *path.glob("*/.*.tmp")]:  # files that a kill left incomplete
                shutil.rmtree(torn) if torn.is_dir() else torn.unlink()
            for name in ("rollouts", "checkpoints"):
                (path / name).mkdir(exist_ok=True)
        except OSError as error:
            directory._lock.close()
            raise RequestError(f"{path} cannot be written to: {error.strerror}: {error.filename}") from error
        return directory

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Finish writing and release the lock. A request that is refused before the first batch leaves no directory
        behind."""
        try:
            self.wait_until_stored()
        finally:
            self._writer.shutdown()
            self._release(kind)

    def _release(self, kind: type[BaseException] | None) -> None:
        if kind is not None and issubclass(kind, RequestError) and self._made and self._is_unused():
            shutil.rmtree(self.path)
            with contextlib.suppress(OSError):  # another run has moved into a parent meanwhile
                for folder in self._made[1:]:
                    folder.rmdir()
        self._lock.close()

    def _is_unused(self) -> bool:
        """Return True if nothing was sampled, computed or learned here yet."""
        return not any(any((self.path / name).glob("*")) for name in ("rollouts", "recomputed", "checkpoints"))

    @property
    def config(self) -> RunConfig:
        """Configuration in `config.yaml`."""
        return validate(RunConfig, read_settings(self.path / "config.yaml"))

    def extend(self, config: RunConfig) -> None:
        """Replace the configuration by one with another number of steps, or with options that a newer version added.

        These are added to the manifest as well: the run did not change them.
        """
        if config != self.config:
            manifest, added = self.manifest, config.model_dump(mode="json")
            then = manifest["config"]
            then["trainer"] = added["trainer"] | then["trainer"]
            for section in ("sampling", "verifier"):
                then[section]["options"] = added[section]["options"] | then[section].get("options", {})
            self._write_manifest(manifest)
            with replacing(self.path / "config.yaml") as temporary:
                temporary.write_text(to_yaml(config), encoding="utf-8")

    @property
    def manifest(self) -> dict[str, Any]:
        """Seed and configuration of the run's start, current versions, and the history of their changes."""
        file = self.path / "manifest.json"
        manifest = _json_of(file)
        changes = manifest.get("changes", [])
        whole = isinstance(manifest.get("run_id"), str) and isinstance(manifest.get("versions"), dict)
        whole = whole and isinstance(changes, list)
        if not whole or not all(isinstance(each, dict) and "settings" in each for each in changes):
            raise RequestError(f"{file} is not the manifest of a run: run_id, versions or changes are missing or wrong")
        return manifest

    def go_on(
        self,
        verifier: Mapping[str, str],
        deciding: Collection[str],
        computation: Mapping[str, str],
        held_out: Mapping[str, str],
    ) -> list[str]:
        """Return notes on what changed since the run last continued. The manifest records them, so each is reported
        once.

        Args:
            verifier: Name -> version of the verifier; empty if there is none.
            deciding: Distributions whose code affects results.
            computation: Conditions for bitwise equal results, besides versions and inputs.
            held_out: Hashes of the held-out questions.

        Raises RequestError, and writes nothing, if the verifier or a deciding distribution changed and changes are not
        accepted.
        """
        manifest = self.manifest
        earlier = manifest.get("changes", [])
        judge = {f"verifier {name}": version for name, version in verifier.items()}
        then = judge | manifest["versions"]  # a new run's manifest has no verifier yet
        now = {name: version for name, version in then.items() if name.startswith("verifier ")} | _versions() | judge
        versions = _differences(then, now)
        decisive = _differences(*({n: v for n, v in side.items() if n in {*deciding, *judge}} for side in (then, now)))
        if decisive and not self.accepts_changes:
            raise RequestError(
                f"cannot resume {self.path}: {', '.join(decisive)}, which may change results; nothing was done. Put "
                f"back the old version, or continue with this one: --resume {self.path} --accept-changes"
            )
        told = {setting for change in earlier for setting in change["settings"]}
        changed = {
            "versions": versions,
            "settings": [
                each for each in self._changed_settings() if each not in told and not each.startswith("steps ")
            ],
            "computation": _differences(manifest.get("computation", computation), computation),
            "held_out": _differences(manifest.get("held_out", held_out), held_out),
        }
        if any(changed.values()):
            manifest["changes"] = [*earlier, {"at": utc_now(), **changed, "accepted": decisive}]
        manifest |= {"versions": now, "computation": dict(computation), "held_out": dict(held_out)}
        if manifest != self.manifest:
            self._write_manifest(manifest)
        return _notes(changed)

    def _write_manifest(self, manifest: Mapping[str, Any]) -> None:
        with replacing(self.path / "manifest.json") as temporary:
            temporary.write_text(json.dumps(manifest, indent=2) + "\n")

    def remember(self, name: str, facts: Mapping[str, Any]) -> list[str]:
        """Write facts to `NAME.json` the first time; later, return the differences (`key old → new`)."""
        file = self.path / f"{name}.json"
        if file.exists():
            return _differences(_json_of(file), facts)
        with replacing(file) as temporary:
            temporary.write_text(to_json(dict(facts)) + "\n", encoding="utf-8")
        return []

    def _changed_settings(self) -> list[str]:
        manifest = self.path / "manifest.json"
        given = self.manifest.get("config")
        if given is None:
            raise RequestError(
                f"{manifest} holds no configuration: the run was begun by an older rlvr. Start a new one with --config "
                f"{self.path / 'config.yaml'}"
            )
        then = validate(RunConfig, {key: Setting(value, str(manifest)) for key, value in _flat(given).items()})
        return _differences(_flat(then.model_dump(mode="json")), _flat(self.config.model_dump(mode="json")))

    def _refuse_another_configuration(self) -> None:
        fixed = [change for change in self._changed_settings() if not change.startswith(MAY_CHANGE)]
        if fixed:
            raise RequestError(
                f"{self.path}/config.yaml was changed since the run began: {', '.join(fixed)}; nothing was done. Put "
                "it back, or start a new run (--config with that file, and --model with a checkpoint to continue from)"
            )

    # --- metrics ----------------------------------------------------------------------------------------------------

    def log(self, metrics: Mapping[str, Any]) -> None:
        """Append one step's metrics."""
        line = to_json(metrics) + "\n"
        with self._writing(self.metrics_path), self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(line)

    def cut_metrics(self, step: int) -> None:
        """Remove the metrics of `step` and later, and a last line that a kill cut short."""
        kept = [line for line in self.metrics() if line["step"] < step]
        with replacing(self.metrics_path) as temporary:
            temporary.write_text("".join(to_json(line) + "\n" for line in kept), encoding="utf-8")

    def metrics(self) -> Iterator[dict[str, Any]]:
        """Yield what `log` wrote, one step at a time."""
        return read_metrics(self.path)

    # --- rollouts ---------------------------------------------------------------------------------------------------

    def _rollouts(self, step: int) -> Path:
        return self.path / "rollouts" / f"step-{step:06d}.parquet"

    def store(self, step: int, rollouts: Sequence[Rollout]) -> None:
        """Begin to write the batch of a step, whole or not at all; `wait_until_stored` waits for it."""
        self.wait_until_stored()
        path = self._rollouts(step)
        self._written = self._writer.submit(write_rollouts, path, rollouts, partial(self._sums.add, path.name))

    def wait_until_stored(self) -> None:
        """Wait until what `store` was given is on disk. Raises what kept it from being written."""
        written, self._written = self._written, None
        if written is not None:
            written.result()

    def stored(self, step: int) -> list[Rollout] | None:
        """Return the stored batch of a step; None if there is none.

        Raises DataError if the file is damaged, or if it is not the one that `store` wrote.
        """
        path = self._rollouts(step)
        if not path.exists():
            return None
        rollouts = list(read_rollouts(path))
        self._sums.require(path, "put the file back, or delete it to have the batch sampled again")
        return rollouts

    def store_answers(self, step: int, rollouts: Sequence[Rollout]) -> None:
        """Write the answers to the held-out questions after `step` batches, whole or not at all; none if there are
        none."""
        if rollouts:
            path = self.path / EVALUATIONS / f"step-{step:06d}.parquet"
            with self._writing(path):
                path.parent.mkdir(exist_ok=True)
                write_rollouts(path, rollouts)

    def is_stored(self, step: int) -> bool:
        """Return whether the batch of a step is stored."""
        return self._rollouts(step).exists()

    def stored_groups(self, step: int, places: Sequence[int]) -> list[list[Rollout]]:
        """Return the groups at these places of a stored batch (0 is the file's first), in that order.

        Other groups are not made into rollouts. Raises DataError if the file is missing, damaged, or not the one that
        `store` wrote.
        """
        path = self._rollouts(step)
        place_of: dict[str | None, int] = {}
        groups: dict[int, list[Rollout]] = {place: [] for place in places}
        for first, batch in batches_of(path):
            found = [place_of.setdefault(name, len(place_of)) for name in batch.column("group_id").to_pylist()]
            wanted = [row for row, place in enumerate(found) if place in groups]
            for i, row in zip(wanted, rows_of(batch.take(wanted), lambda _: f"{path}"), strict=True):
                groups[found[i]].append(rollout_of(row, f"{path}, row {first + i}"))
        self._sums.require(path, "put the file back")
        return [groups[place] for place in places]

    # --- checkpoints ------------------------------------------------------------------------------------------------

    @contextmanager
    def checkpoint(self, step: int, keep: int) -> Iterator[Path]:
        """Yield a folder to write the state after `step` batches into. It becomes a checkpoint when the block succeeds.

        It gets a list of what is in it (`SHA256SUMS`, as `sha256sum -c` reads it). Older checkpoints than the newest
        `keep` are removed then. Raises RunError when it cannot be written.
        """
        final = self.path / "checkpoints" / f"step-{step:06d}"
        with self._writing(final), replacing_folder(final) as temporary:
            yield temporary
            (temporary / SUMS).write_text(
                "".join(f"{sha256(file)}  {file.relative_to(temporary)}\n" for file in _files_of(temporary))
            )
        for old in self._checkpoints()[:-keep]:
            shutil.rmtree(old)

    @contextmanager
    def weights(self, name: str) -> Iterator[Path]:
        """Yield a folder to write weights alone into. Raises RunError when it cannot be written."""
        final = self.path / WEIGHTS / name
        with self._writing(final), replacing_folder(final) as temporary:
            yield temporary

    def best(self) -> dict[str, Any] | None:
        """Return the step, metric and value of the best weights so far; None if none were kept."""
        file = self.path / WEIGHTS / BEST / "best.json"
        return _json_of(file) if file.exists() else None

    @contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        """Turn whatever keeps `path` from being written into a RunError."""
        try:
            yield
        except RlvrError:
            raise
        except Exception as error:  # each library of tensors has a kind of its own for a full disk
            raise RunError(
                f"{path} could not be written: {error}; everything stored before is intact. Fix the cause, then "
                f"continue with --resume {self.path}"
            ) from error

    def newest_checkpoint(self) -> tuple[int, Path] | None:
        """Return the newest checkpoint: the number of batches it has seen, and its folder; None if there is none."""
        found = self._checkpoints()
        return (_step_of(found[-1]), found[-1]) if found else None

    def intact_checkpoint(self) -> tuple[int, Path] | None:
        """Return the newest checkpoint, after checking its files.

        Raises RunError when they are not, and names the newest that is intact; nothing is changed.
        """
        newest = self.newest_checkpoint()
        fault = None if newest is None else _damage(newest[1])
        if newest is None or fault is None:
            return newest
        older = next((each for each in reversed(self._checkpoints()[:-1]) if _damage(each) is None), None)
        instead = f"{older} is intact" if older else "no older checkpoint is intact: the run would begin anew"
        raise RunError(
            f"the checkpoint {newest[1]} is damaged: {fault}; nothing was changed. {instead}: to continue from there, "
            f"move {newest[1].name} away and resume again (the batches stored since are read back, not sampled again)"
        )

    def _checkpoints(self) -> list[Path]:
        return checkpoints_of(self.path / "checkpoints")


def checkpoints_of(folder: Path) -> list[Path]:
    """Return the folders that are named as checkpoints, oldest first. Others, such as renamed ones, do not count."""
    entries = folder.glob("step-*")
    return sorted((each for each in entries if CHECKPOINT.fullmatch(each.name) and each.is_dir()), key=_step_of)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def read_metrics(directory: Path) -> Iterator[dict[str, Any]]:
    """Yield the metrics of a run directory; see `rlvr.metrics.read_metrics`."""
    path = directory / "metrics.jsonl"
    return read_lines(path) if path.exists() else iter(())


def _barely_begun(path: Path) -> bool:
    """Return True for an empty folder, or for what a run leaves if killed before it wrote its configuration."""
    entries = {entry.name for entry in path.iterdir() if not entry.name.endswith(".tmp")} - {".lock", "manifest.json"}
    return entries <= {"rollouts", "checkpoints"} and not any(any((path / name).iterdir()) for name in entries)


def _json_of(file: Path) -> dict[str, Any]:
    try:
        value: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"{file} cannot be read, so the run cannot be resumed: {error}") from error
    if not isinstance(value, dict):
        raise RequestError(f"{file} is {kind_of(value)}, so the run cannot be resumed: expected an object")
    return value


def _files_of(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and file.name != SUMS)


def _damage(checkpoint: Path) -> str | None:
    """Return a description of the damage to a checkpoint's files; None if they are intact."""
    try:
        lines = (checkpoint / SUMS).read_text().splitlines()
        for expected, name in (line.split("  ", 1) for line in lines):
            if sha256(checkpoint / name) != expected:
                return f"{name} does not hold what was written"
    except OSError as error:
        return f"{Path(error.filename or SUMS).name}: {error.strerror}"
    except ValueError:
        return f"{SUMS} cannot be read"
    return None if lines else f"{SUMS} is empty"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return dotted key -> value for the leaves of nested mappings."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, entry in value.items():
        flat |= _flat(entry, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return `name old → new` for each difference, sorted by name."""
    names = sorted(then.keys() | now.keys())
    return [f"{n} {then.get(n, 'absent')} → {now.get(n, 'absent')}" for n in names if then.get(n) != now.get(n)]


def _notes(changed: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a note for the user on each change since the run last continued."""
    numbers = "since the run last went on: numbers from here on may differ for it"
    accuracies = "since the run last went on: accuracies before and after do not compare"
    return [
        *(f"{each} {numbers}" for each in (*changed["versions"], *changed["computation"])),
        *(f"held-out questions: {each} (SHA-256) {accuracies}" for each in changed["held_out"]),
        *(f"{each} (config.yaml) since the run began" for each in changed["settings"]),
    ]


def _versions() -> dict[str, str]:
    """Return the versions of Python, of libraries that results depend on, and of every plugin's distribution."""
    plugins: Iterable[tuple[str, str]] = {(entry.distribution, entry.version) for entry in registry().entries()}
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in _VERSIONED} | dict(plugins)


def _manifest(config: RunConfig) -> dict[str, Any]:
    return {
        "run_id": uuid4().hex[:12],
        "created_at": utc_now(),
        "command": sys.argv,
        "seed": config.seed,
        "config": config.model_dump(mode="json"),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "versions": _versions(),
    }
