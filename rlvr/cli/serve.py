"""`rlvr serve`: a vLLM server to sample from."""

from __future__ import annotations

import os
import shlex
import sys
from importlib.util import find_spec
from typing import Annotated, Literal, TypeAlias

import typer

from rlvr.cli.json_output import print_json
from rlvr.errors import RequestError

Model: TypeAlias = Annotated[str, typer.Argument(help="A local directory, a hub name, or embedded.")]
Arguments: TypeAlias = Annotated[
    list[str] | None, typer.Argument(metavar="[-- VLLM ARGUMENTS]", help="Further arguments of vLLM, after `--`.")
]
Host: TypeAlias = Annotated[
    str, typer.Option(help="Address to listen on. Whoever reaches it can replace the weights: there is no password.")
]
Port: TypeAlias = Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")]
Dtype: TypeAlias = Annotated[str, typer.Option(help="Dtype: auto, float32, bfloat16.")]
MaxModelLen: TypeAlias = Annotated[
    int | None, typer.Option("--max-model-len", min=1, help="Longest prompt and completion, in tokens.")
]
TensorParallelSize: TypeAlias = Annotated[
    int, typer.Option("--tensor-parallel-size", min=1, help="GPUs that hold the model together.")
]
MemoryShare: TypeAlias = Annotated[
    float | None, typer.Option("--memory-share", min=0.01, max=1, help="Share of each GPU's memory.")
]
TransferOption: TypeAlias = Annotated[
    Literal["files", "nccl", "ipc"],
    typer.Option("--transfer", help="How weights arrive: files; nccl or ipc between GPUs (never run; needs a GPU)."),
]
Print: TypeAlias = Annotated[bool, typer.Option("--print", help="Print the command, and start nothing.")]
AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print the command as one JSON object, and start nothing.")
]


def serve(
    model: Model,
    arguments: Arguments = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    dtype: Dtype = "auto",
    max_model_len: MaxModelLen = None,
    tensor_parallel_size: TensorParallelSize = 1,
    memory_share: MemoryShare = None,
    transfer: TransferOption = "files",
    print_: Print = False,
    as_json: AsJson = False,
) -> None:
    """Serve a model with vLLM, for rlvr train and rlvr generate with --sampler vllm-server.

    The server hands out token ids with their log-probabilities, and takes new weights while it runs. It is vLLM's own,
    with the arguments and the environment that this needs; --print shows them.
    """
    from rlvr.run.config import model_config
    from rlvr.run.serve import server_command

    found = server_command(
        model_config(model, dtype=dtype),
        host=host,
        port=port,
        max_model_len=max_model_len,
        tensor_parallel_size=tensor_parallel_size,
        memory_share=memory_share,
        transfer=transfer,
        arguments=arguments or (),
    )
    if as_json:
        print_json(found.to_dict())
    elif print_:
        print(" ".join(f"{name}={shlex.quote(value)}" for name, value in found.environment.items()), end=" ")
        print(shlex.join(found.command))
    elif find_spec("vllm") is None:
        raise RequestError("rlvr serve needs vLLM; install it with: pip install 'rlvr[vllm]'")
    else:
        print(f"rlvr: when it is ready, train with: --sampler vllm-server --server {found.url}", file=sys.stderr)
        sys.stderr.flush()
        os.execve(found.command[0], found.command, {**found.environment, **os.environ})
