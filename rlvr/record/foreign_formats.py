"""Files of other frameworks, recognised by their columns: which column is the completion, which the gold answer.

Only the mapping of columns is known here. What a file says in other columns (its own rewards among it) stays as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Layout:
    """A file that some program writes: the columns that give it away, and where things stand in it."""

    name: str
    columns: frozenset[str]
    """All of them are there; together they are in no other program's files."""
    sources: Mapping[str, str]
    """Target -> column, where the column has not the target's name."""


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
    """The layout that a row with these columns has; None for a record, and for a row that nobody's program writes."""
    if "schema_version" in columns:
        return None
    return next((layout for layout in LAYOUTS if layout.columns <= set(columns)), None)
