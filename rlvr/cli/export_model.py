"""`rlvr export-model`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from rlvr.cli.json_output import print_json

if TYPE_CHECKING:
    from rlvr.run.export_model import ExportedModel

RunFolder: TypeAlias = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")]
Out: TypeAlias = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="New folder for the model.")]
Checkpoint: TypeAlias = Annotated[
    str, typer.Option("--checkpoint", metavar="N", help="Number of batches, newest, or best (checkpoint.best).")
]
Dtype: TypeAlias = Annotated[str, typer.Option("--dtype", help="Dtype of the weights: bfloat16, float32, float16.")]
AdapterOnly: TypeAlias = Annotated[
    bool, typer.Option("--adapter", help="Write the LoRA adapter alone, in peft's format, instead of a merged model.")
]
Hub: TypeAlias = Annotated[
    str | None,
    typer.Option("--hub", metavar="NAME", help="Upload to this repository of the Hugging Face hub; private if new."),
]
Public: TypeAlias = Annotated[bool, typer.Option("--public", help="With --hub: make a new repository public.")]


def export_model(
    run: RunFolder,
    out: Out,
    checkpoint: Checkpoint = "newest",
    dtype: Dtype = "bfloat16",
    adapter: AdapterOnly = False,
    hub: Hub = None,
    public: Public = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write the weights of a run as a folder for AutoModelForCausalLM.from_pretrained.

    A LoRA adapter is merged into the model. --hub prints what it uploads before it does.
    """
    from rlvr.run.export_model import export_model as run_it

    result = run_it(
        run,
        out,
        checkpoint=checkpoint,
        dtype=dtype,  # type: ignore[arg-type]  # checked there
        adapter=adapter,
        hub=hub,
        public=public,
        told=lambda text: print(text, file=sys.stderr, flush=True),
    )
    if as_json:
        print_json(result.to_dict())
    else:
        print(_text(result))


def _text(result: ExportedModel) -> str:
    what = "adapter" if result.adapter else "model"
    lines = [f"{what:<10} {result.folder}, after {result.step:,} steps, {result.dtype} (from {result.source})"]
    lines += [f"{size:>14,} bytes  {name}" for name, size in result.files]
    if result.hub is not None:
        lines.append(f"uploaded   {result.hub}")
    return "\n".join(lines)
