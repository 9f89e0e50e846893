"""`rlvr export`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from rlvr.cli.columns import column_mapping
from rlvr.cli.json_output import print_json
from rlvr.cli.options import Mappings, Sidecars

if TYPE_CHECKING:
    from rlvr.rescore.export import ExportResult


Files: TypeAlias = Annotated[
    list[str], typer.Argument(metavar="FILE", help="Rollouts or any other rows, as for rlvr score.")
]
To: TypeAlias = Annotated[str, typer.Option("--to", metavar="LAYOUT", help="Layout: sft, dpo, kto or jsonl.")]
Out: TypeAlias = Annotated[
    str, typer.Option("--out", "-o", metavar="OUT", help="File to write: .jsonl or .parquet; - is standard output.")
]
VerifierName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--verifier",
        "-v",
        metavar="NAME",
        help="Verifier whose score selects rows: a name, or FILE.py:FUNCTION. [default: the only one in FILE]",
    ),
]
WhereTexts: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--where", "-w", metavar="EXPR", help="Condition on rows, as in rlvr show; repeatable."),
]
Threshold: TypeAlias = Annotated[
    float, typer.Option("--threshold", metavar="REWARD", help="Rewards at or above this count as correct.")
]
Pairs: TypeAlias = Annotated[int, typer.Option("--pairs", min=1, help="Largest number of pairs per group, for dpo.")]
AsMessages: TypeAlias = Annotated[
    bool, typer.Option("--messages", help="Write chats: messages for sft, lists of messages for the others.")
]


def export(
    files: Files,
    to: To,
    out: Out,
    verifier: VerifierName = None,
    where: WhereTexts = None,
    threshold: Threshold = 0.5,
    pairs: Pairs = 1,
    messages: AsMessages = False,
    mappings: Mappings = None,
    scores: Sidecars = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write rollouts as training data for TRL or axolotl: sft, dpo, kto, or flat JSON lines.

    One verifier's score selects rows: sft takes correct rows, dpo pairs a correct with a wrong completion of a prompt,
    kto labels each row. Duplicate rows are written once.
    """
    from rlvr.rescore.export import export as run

    result = run(
        files,
        out,
        to=to,  # type: ignore[arg-type]  # checked there
        verifier=verifier,
        where=where or (),
        threshold=threshold,
        pairs=pairs,
        messages=messages,
        mapping=column_mapping(mappings or ()),
        sidecars=scores or (),
        force=force,
    )
    stream = sys.stderr if out == "-" else sys.stdout
    if as_json:
        print_json(result.to_dict(), file=stream)
    else:
        print(_text(result), file=stream)


def _text(result: ExportResult) -> str:
    what = "pairs" if result.to == "dpo" else "rows"
    by = "" if result.verifier is None else f", scores by {result.verifier}"
    lines = [f"{'rows':<10} {result.total:,}", f"{'written':<10} {result.written:,} {what} to {result.file}{by}"]
    if result.left_out:
        lines.append(f"{'left out':<10} {result.total - result.used:,}")
        lines += [f"{count:>10,} {reason}" for reason, count in result.left_out.items()]
    return "\n".join(lines)
