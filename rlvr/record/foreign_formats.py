"""Files of other frameworks, recognized by their columns: which column is the completion, which the gold answer.

Only the mapping of columns is known here. Other columns, such as the framework's own rewards, stay as they are.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from rlvr.errors import nearest
from rlvr.record.paths import heads
from rlvr.record.rows import BY_NAME, Columns


@dataclass(frozen=True, eq=False)
class Layout:
    """A file format of another program: the columns that identify it, and what they mean."""

    name: str
    columns: frozenset[str]
    """A file with all of these columns is in this format; no other program writes them together."""
    sources: Mapping[str, tuple[str, ...]]
    """Target → columns, or paths into columns, of another name than the target's. The first that a row has counts."""
    group_suffix: re.Pattern[str] | None = None
    """End of a group's text that differs between its rollouts."""
    single: tuple[str, ...] = ()
    """Paths to lists of completions, of which only one can be read."""


LAYOUTS = (
    # verl, trainer.rollout_data_dir and trainer.validation_data_dir: JSON lines, one file per step. The trainers of
    # verl.trainer.ppo.v1 add a `uid`, PROMPT_ROLLOUT_OUTPUT.
    Layout(
        "verl's dump",
        frozenset({"input", "output", "gts", "score", "step"}),
        {"prompt": ("input",), "completion": ("output",), "answer": ("gts",), "group_id": ("uid",)},
        re.compile(r"_\d+_\d+$"),
    ),
    # PrimeIntellect's verifiers up to 0.3, results.jsonl of an evaluation. The rollouts of one example share its id.
    Layout(
        "verifiers' results",
        frozenset({"example_id", "prompt", "completion", "reward"}),
        {"group_id": ("example_id",)},
    ),
    # PrimeIntellect's verifiers.v1, traces.jsonl: a graph of messages. What the root agent replied comes first.
    Layout(
        "verifiers' traces",
        frozenset({"id", "task", "nodes", "rewards"}),
        {
            "completion": ("root_reply", "nodes.*.message"),
            "prompt": ("task.data.prompt", "task.prompt"),
            "answer": ("task.data.answer", "task.answer"),
            "group_id": ("task.key", "task.hash", "task.data.idx", "task.idx"),
        },
    ),
    # TRL, log_completions=True: Parquet, one file per step. The gold column is one that a reward function logs: TRL's
    # accuracy_reward logs `solution`.
    Layout(
        "TRL's completions",
        frozenset({"step", "prompt", "completion", "advantage"}),
        {"answer": ("answer", "solution")},
    ),
    # NeMo-RL, train_data_step*.jsonl: the texts of a conversation's messages, in order, or all in one. It logs no gold.
    Layout(
        "NeMo-RL's training data",
        frozenset({"content", "rewards", "input_lengths"}),
        {"completion": ("content.-1", "content"), "prompt": ("content.0",)},
    ),
    # slime's samples (slime.utils.types.Sample.to_dict) as JSON lines or Parquet.
    Layout(
        "slime's samples",
        frozenset({"prompt", "response", "label"}),
        {"completion": ("response",), "answer": ("label",), "group_id": ("group_index",)},
    ),
    # lm-evaluation-harness, --log_samples: samples_TASK_*.jsonl. A row with several repeats is refused.
    Layout(
        "lm-eval's samples",
        frozenset({"doc_id", "doc", "target", "resps"}),
        {
            "completion": ("resps.0.0", "resps.0"),
            "answer": ("target",),
            "prompt": ("arguments.gen_args_0.arg_0", "arguments.0.0"),
            "group_id": ("doc_id",),
        },
        single=("resps", "resps.0"),
    ),
    # Output of OpenAI's batch API: chat completions, then responses. The gold answers are elsewhere: --gold.
    Layout(
        "OpenAI's batch output",
        frozenset({"custom_id", "response", "error"}),
        {
            "completion": (
                "response.body.choices.0.message.content",
                "response.body.output",
                "response.body.choices.0.text",
            ),
            "id": ("custom_id",),
        },
    ),
)

_OTHER_NAMES = {
    "prompt": ("prompts", "question", "questions", "problem", "instruction", "input", "query", "messages"),
    "completion": (
        *("completions", "response", "responses", "output", "outputs", "generation", "generations", "generated_text"),
        *("prediction", "predictions", "pred", "resps", "model_output", "llm_response", "solution_str", "text"),
    ),
    "answer": (
        *("ground_truth", "solution", "gold", "golds", "gts", "target", "label", "reference", "reference_answer"),
        *(
            "expected_answer",
            "final_answer",
            "correct_answer",
            "gold_answer",
            "gold_standard_solution",
            "gt",
            "truth",
            "answers",
        ),
    ),
}
"""Target → names that other software gives its column."""


def layout_of(columns: Collection[str]) -> Layout | None:
    """Return the format of a file with these columns; None for a record and for an unknown format."""
    if "schema_version" in columns:
        return None
    return next((layout for layout in LAYOUTS if layout.columns <= set(columns)), None)


def columns_of(layout: Layout | None, found: Collection[str], mapping: Mapping[str, str] | None = None) -> Columns:
    """Return target → column: of the mapping, else of the format as far as the file has its columns, else by name.

    Args:
        layout: The format of the file.
        found: The columns of the file.
        mapping: Target → column, as the user gave it.
    """
    columns = Columns(BY_NAME)
    if layout is not None:
        for target, paths in layout.sources.items():
            there = [path for path in paths if not heads([path]).isdisjoint(found)]
            columns[target] = "|".join(there) or target
        columns.group_suffix = layout.group_suffix
        columns.single = () if "completion" in (mapping or {}) else layout.single
    columns.update(mapping or {})
    return columns


def likely_column(target: str, columns: Iterable[str]) -> str | None:
    """Return the column, or the path into one, that most likely holds what the target means; None if none does."""
    names = list(columns)
    ends = {name.rpartition(".")[2].lower(): name for name in reversed(names)}
    for other in (target, *_OTHER_NAMES.get(target, ())):
        if other in ends:
            return ends[other]
    close = difflib.get_close_matches(target, names, n=1)
    return close[0] if close else None


def suggestion(target: str, columns: Iterable[str]) -> str:
    """Return advice on a target's column that no row has: `; name it: --map completion=response`."""
    names = list(columns)
    likely = likely_column(target, names)
    if likely is None:
        return f"; name another: --map {target}=COLUMN" if names else nearest(target, names)
    return f"; did you mean {likely!r}? --map {target}={likely}"
