"""`rlvr compare` of several policies on the same questions, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlvr.cli.evaluate import model_text
from rlvr.cli.texts import inline
from rlvr.columns import columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlvr.comparison.policies import (
        ChangedQuestion,
        ComparedPolicy,
        FigureChange,
        PolicyComparison,
        PolicyDifference,
    )


def policies_text(result: PolicyComparison) -> str:
    """Return the comparison for people."""
    blocks = [columns([[side.name, _models(side), inline(str(side.file))] for side in result.sides])]
    if result.notes:
        blocks.append("\n".join(f"note: {inline(note)}" for note in result.notes))
    several = len(result.differences) > 1
    if several:
        blocks.append(_table(result.differences))
    blocks.append("\n".join(map(inline, result.claims)))
    for each in result.differences:
        blocks.append(_figures(each, several))
        blocks += [_question(question, f"better in {each.b}", each) for question in each.gained]
        blocks += [_question(question, f"worse in {each.b}", each) for question in each.lost]
    blocks.append(
        f"(95 % intervals by a bootstrap of whole questions with the answers of both, {result.resamples:,} resamples)"
    )
    return "\n\n".join(blocks)


def _models(side: ComparedPolicy) -> str:
    more = len(side.models) - 1
    if not side.models:
        return "unknown model"
    return model_text(side.models[0]) + (f" and {more} more" if more else "")


def _table(differences: Sequence[PolicyDifference]) -> str:
    """Return one line per comparison, with intervals and p-values that are corrected for their number."""
    corrected = f"interval of all {len(differences)}"
    lines = [["", "data set", "accuracy of a", "its own", "difference", corrected, "better", "worse", "p (Holm)"]]
    for each in differences:
        a, b, change = _cells(each.main)
        low, high = each.simultaneous or (None, None)
        counts = [f"{each.better:,}", f"{each.worse:,}", f"{each.corrected_p:.2g}"]
        lines.append([each.b, inline(each.dataset or "not named"), a, b, change, _ends(low, high, share=True), *counts])
    return columns(lines)


def _figures(each: PolicyDifference, several: bool) -> str:
    names = {"avg": "accuracy (avg)", "tokens": "mean tokens", "reward": "mean reward"}
    lines = [["", each.a, each.b, f"{each.b} - {each.a}", "95 % interval", "questions"]]
    for figure in each.figures:
        repeated = figure.figure == "pass@1" or (
            figure.figure == "reward" and figure.difference == each.main.difference
        )
        if not repeated:
            share = figure.figure not in ("tokens", "reward")
            ends = _ends(figure.low, figure.high, share=share)
            lines.append([names.get(figure.figure, figure.figure), *_cells(figure), ends, f"{figure.questions:,}"])
    title = f"{inline(each.dataset or 'not named')}: {each.b} against {each.a}, verdicts by {inline(each.verifier)}"
    said = f"questions: {each.better:,} better, {each.worse:,} worse, {each.unchanged:,} unchanged"
    said += f"; sign test p = {each.p:.2g}"
    if each.detectable is not None:
        said += (
            f"\ndetectable: with {each.main.questions:,} questions, a difference of {100 * each.detectable:.1f} points "
            "is found 80 times of 100"
        )
    return "\n".join([title, columns(lines, numbers=True), said])


def _cells(figure: FigureChange) -> tuple[str, str, str]:
    """Return both values and their difference."""
    if figure.a is None or figure.b is None or figure.difference is None:
        return "-", "-", "-"
    if figure.figure in ("tokens", "reward"):
        return f"{figure.a:.2f}", f"{figure.b:.2f}", f"{figure.difference:+.2f}"
    return f"{100 * figure.a:.1f} %", f"{100 * figure.b:.1f} %", f"{100 * figure.difference:+.1f}"


def _ends(low: float | None, high: float | None, *, share: bool) -> str:
    if low is None or high is None:
        return "-"
    return f"[{100 * low:+.1f}, {100 * high:+.1f}]" if share else f"[{low:+.2f}, {high:+.2f}]"


def _question(question: ChangedQuestion, change: str, each: PolicyDifference) -> str:
    lines = [f"--- {change} | question {inline(question.key)}", f"prompt  {inline(question.prompt)}"]
    if question.gold is not None:
        lines.append(f"gold    {inline(question.gold)}")
    for name, (right, counted) in ((each.a, question.a), (each.b, question.b)):
        lines.append(f"{name}       {right:g} of {counted} right")
    return "\n".join(lines)
