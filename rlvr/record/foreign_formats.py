"""Files of other frameworks, recognized by their columns: which column is the completion, which the gold answer.

Only the mapping of columns is known here. Other columns, such as the framework's own rewards, stay as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Layout:
    """A file format of another program: the columns that identify it, and what they mean."""

    name: str
    columns: frozenset[str]
    """A file with all of these columns is in this format; no other program writes them together."""
    sources: Mapping[str, str]
    """Target → column, for columns of another name than the target's."""


LAYOUTS = (
    # verl, trainer.rollout_data_dir and trainer.validation_data_dir: JSON lines, one file a step.
    Layout(
        "verl's dump",
        frozenset({"input", "output", "gts", "score", "step"}),
        {"prompt": "input", "completion": "output", "answer": "gts"},
    ),
    # PrimeIntellect's verifiers up to 0.3, results.jsonl of an evaluation. The rollouts of one example share its id.
    Layout(
        "verifiers' results",
        frozenset({"example_id", "prompt", "completion", "reward"}),
        {"group_id": "example_id"},
    ),
    # TRL, log_completions=True: Parquet, one file a step. There is no gold column unless a reward function logs one.
    Layout("TRL's completions", frozenset({"step", "prompt", "completion", "advantage"}), {}),
)


def layout_of(columns: Collection[str]) -> Layout | None:
    """Return the format of a row with these columns; None for a record and for an unknown format."""
    if "schema_version" in columns:
        return None
    return next((layout for layout in LAYOUTS if layout.columns <= set(columns)), None)
