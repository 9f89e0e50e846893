"""`rlvr diagnose`: distance of saved rollouts from a model, before training on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlvr.cli.json_output import print_json
from rlvr.cli.progress import Heartbeat
from rlvr.columns import columns

if TYPE_CHECKING:
    from rlvr.offpolicy.diagnosis import PartDistances
    from rlvr.run.diagnose import Diagnosis


def diagnose(
    rollouts: Annotated[
        list[Path], typer.Argument(metavar="ROLLOUTS...", help="Files or folders of records, or run directories.")
    ],
    model: Annotated[str, typer.Option("--model", "-m", help="Model to train: a local directory or a hub name.")],
    verifier: Annotated[
        str | None,
        typer.Option(
            "--verifier",
            "-v",
            help="Verifier whose score is the reward: a name, or FILE.py:FUNCTION. "
            "[default: that of the first record's last score]",
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(min=1e-6, help="Temperature of all log-probabilities. [default: the first record's]"),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Rollouts whose log-probabilities are computed, in whole groups.")
    ] = 1024,
    trainer: Annotated[str, typer.Option(help="Trainer whose code computes log-probabilities.")] = "grpo",
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda, cuda:1, mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="Compute dtype: auto, float32, bfloat16.")] = "auto",
    trust_remote_code: Annotated[
        bool,
        typer.Option("--trust-remote-code", help="Run Python code from the model's repository, with your permissions."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure how far saved rollouts are from a model, by lag, and recommend a recipe.

    Every record is checked, and unusable ones are counted by reason. The model computes the log-probabilities of
    a sample. Nothing is trained or written.
    """
    from rlvr.run.diagnose import diagnose as run

    found = run(
        rollouts,
        model,
        verifier=verifier,
        temperature=temperature,
        limit=limit,
        trainer=trainer,
        device=device,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        progress=Heartbeat(),
    )
    if as_json:
        print_json(found.to_dict())
    else:
        print("\n".join(_text(found)))


def _text(found: Diagnosis) -> Iterator[str]:
    at = "" if found.temperature is None else f" at temperature {found.temperature}"
    by = "" if found.verifier is None else f", scores by {found.verifier}"
    yield f"{' '.join(found.files)} against {found.model}{at}{by}\n"
    yield from _usable(found)
    if found.usable:
        yield f"measured     {found.measured:,} of them: whole groups, drawn from all files (--limit)"
    if found.parts:
        yield f"\n{columns(_table(found.parts))}"
    advice = found.advice
    yield f"\nrecommended  {advice.recipe or 'nothing yet'}: {advice.name} ({advice.condition})"
    yield f"             {advice.why}"
    if found.command:
        yield f"             {found.command}"


def _usable(found: Diagnosis) -> Iterator[str]:
    from rlvr.offpolicy.eligibility import remedy
    from rlvr.verify.score_names import counted

    yield f"records      {found.records:,}"
    if len(found.scores) > 1:
        yield f"scores       by {counted(found.scores)}: choose the reward with --verifier"
    yield f"usable       {found.usable:,} ({found.usable / found.records:.1%})"
    for reason, count in found.reasons.items():
        yield f"not usable   {count:,} ({count / found.records:.1%}): {reason}"
        yield f"             {remedy(reason)}"
    if found.only_logprobs_missing:
        recompute = "rlvr train --behaviour-model MODEL recomputes these"
        yield f"             {found.only_logprobs_missing:,} of them lack nothing else: {recompute}"


_SHOWN = {
    "part": ("PART", "{}"),
    "rollouts": ("ROLLOUTS", "{:,}"),
    "tokens": ("TOKENS", "{:,}"),
    "ess_token": ("ESS TOKEN", "{:.3f}"),
    "ess_sequence": ("ESS SEQ", "{:.3f}"),
    "log_w_mean": ("LOG W", "{:+z.4f}"),
    "gap": ("|LOG W|", "{:.4f}"),
    "kl_k1": ("KL K1", "{:+z.4f}"),
    "kl_k3": ("KL K3", "{:.4f}"),
    "chi2": ("CHI2", "{:z.4f}"),
    "ratio_max": ("MAX W", "{:.2f}"),
    "signal": ("SIGNAL", "{:.0%}"),
    "truncated": ("TRUNCATED", "{:.0%}"),
}
"""Field of a part → its column and the format of its values."""


def _table(parts: Sequence[PartDistances]) -> list[list[str]]:
    rows = [[title for title, _ in _SHOWN.values()]]
    for part in parts:
        values = [(getattr(part, name), shown) for name, (_, shown) in _SHOWN.items()]
        rows.append(["–" if value is None else _shown(value, shown) for value, shown in values])
    return rows


def _shown(value: Any, shown: str) -> str:
    return f"{value:.3g}" if isinstance(value, float) and abs(value) >= 1000 else shown.format(value)
