"""Export the weights of a run as a model's folder, and upload it to the Hugging Face hub if asked to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlvr.data.hub import unreachable
from rlvr.errors import ConfigError, RequestError, RunError
from rlvr.files import replacing_folder
from rlvr.run.config import RunConfig
from rlvr.run.model_folder import DType, convert_model, copy_beside_weights
from rlvr.run.rundir import BEST, CHECKPOINT, WEIGHTS, checkpoints_of
from rlvr.settings import read_settings, validate

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class ExportedModel:
    """A model's folder, and what is in it."""

    folder: Path
    source: Path
    """Checkpoint that it was made of."""
    step: int
    """Batches that the policy had learned from."""
    dtype: str
    adapter: bool
    """True for an adapter in peft's format, False for a whole model."""
    files: tuple[tuple[str, int], ...]
    """Files by name, with their bytes."""
    hub: str | None
    """URL of the upload; None if there was none."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-safe values."""
        return asdict(self) | {
            "folder": str(self.folder),
            "source": str(self.source),
            "files": [{"name": name, "bytes": size} for name, size in self.files],
        }


def export_model(
    run: Path | str,
    out: Path | str,
    *,
    checkpoint: int | str = "newest",
    dtype: DType = "bfloat16",
    adapter: bool = False,
    hub: str | None = None,
    public: bool = False,
    told: Callable[[str], None] = lambda text: None,
) -> ExportedModel:
    """Write the weights of a run as a folder for `AutoModelForCausalLM.from_pretrained`.

    A LoRA adapter is merged into the model; `adapter=True` writes it by itself, for `PeftModel.from_pretrained`.

    Args:
        run: Run directory.
        out: New folder.
        checkpoint: Number of batches, "newest", or "best" (`checkpoint.best`).
        dtype: Dtype of the weights; an adapter keeps float32.
        adapter: Write the LoRA adapter alone.
        hub: Repository of the Hugging Face hub to upload the folder to, `NAME` or `ORGANIZATION/NAME`.
        public: Make a repository that is new public; by default it is private.
        told: Receives, before the upload, what will be uploaded and where to.

    Raises RequestError for a run without such a checkpoint, RunError if the upload fails.
    """
    run, out = Path(run), Path(out)
    if dtype not in DTYPES:
        raise ConfigError(f"dtype: there is no {dtype!r}; choose {', '.join(DTYPES)}")
    if public and hub is None:
        raise ConfigError("public is about the upload: name a repository with hub")
    if hub is not None and (away := unreachable()):
        raise RequestError(f"cannot upload to {hub}: {away}. Leave --hub out; the folder can be uploaded later")
    source = checkpoint_of(run, checkpoint)
    if out.exists():
        raise RequestError(f"{out} exists already: name a new folder")
    if adapter and not (source / "adapter").is_dir():
        raise RequestError(f"{source} holds no adapter: the run trained all weights, or it holds merged weights only")
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing_folder(out) as temporary:
        if adapter:
            _copy_adapter(run, source, temporary)
        else:
            convert_model(source, temporary, dtype)
    files = tuple((file.name, file.stat().st_size) for file in sorted(out.iterdir()))
    url = None if hub is None else _upload(out, files, hub, public, told)
    return ExportedModel(out, source, _step(source), "float32" if adapter else dtype, adapter, files, url)


def checkpoint_of(run: Path, wanted: int | str) -> Path:
    """Return the folder of a run's checkpoint. Raises RequestError if there is none, naming those that there are."""
    if not (run / "config.yaml").is_file():
        raise RequestError(f"{run} is no run directory (no config.yaml)")
    whole, bare = checkpoints_of(run / "checkpoints"), checkpoints_of(run / WEIGHTS)
    best = run / WEIGHTS / BEST
    if wanted == "best":
        if best.is_dir():
            return best
        raise RequestError(f"{run} holds no best checkpoint: train with --set checkpoint.best=eval/reward")
    if wanted == "newest":
        newest = max([*whole, *bare], key=_step, default=None)  # of two with one number, the whole one
        if newest is None:
            raise RequestError(f"{run} holds no checkpoint yet")
        return newest
    if not str(wanted).isdecimal():
        raise ConfigError(f"checkpoint: {wanted!r} is no number of batches; or say newest or best")
    name = f"step-{int(wanted):06d}"
    found = next((folder for folder in (*whole, *bare) if folder.name == name), None)
    if found is None:
        known = sorted({str(int(folder.name.removeprefix("step-"))) for folder in (*whole, *bare)}, key=int)
        known += ["best"] if best.is_dir() else []
        raise RequestError(f"{run} holds no checkpoint {wanted}; it holds {', '.join(known) or 'none'}")
    return found


def _step(source: Path) -> int:
    if CHECKPOINT.fullmatch(source.name):
        return int(source.name.removeprefix("step-"))
    step: int = json.loads((source / "best.json").read_text(encoding="utf-8"))["step"]
    return step


def _copy_adapter(run: Path, source: Path, folder: Path) -> None:
    """Copy an adapter with its tokenizer. Its configuration names the base model, which it needs."""
    copy_beside_weights(source, folder)
    (folder / "config.json").unlink()  # that of a whole model
    for file in (source / "adapter").iterdir():
        shutil.copyfile(file, folder / file.name)
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    model = validate(RunConfig, read_settings(run / "config.yaml")).model
    config |= {"base_model_name_or_path": model.location, "revision": model.revision}
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _upload(
    folder: Path, files: tuple[tuple[str, int], ...], hub: str, public: bool, told: Callable[[str], None]
) -> str:
    """Upload a folder, after saying what goes where; return its URL. Raises RunError if the hub refuses."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi()
    visible = "public" if public else "private"
    told(f"uploading to {api.endpoint}/{hub} (a new repository will be {visible}):")
    for name, size in files:
        told(f"  {name}  {size:,} bytes")
    try:
        repository = api.create_repo(hub, private=not public, exist_ok=True)
        api.upload_folder(repo_id=repository.repo_id, folder_path=folder, commit_message="Weights exported by rlvr")
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise RunError(
            f"{folder} is written, but its upload to {hub} failed: {reason}. Log in with `hf auth login`, or upload it "
            f"later: hf upload {hub} {folder}"
        ) from error
    return str(repository)
