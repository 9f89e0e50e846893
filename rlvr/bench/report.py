"""What the test bench found, for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rlvr.bench.bench import Category, Check, Judged, Latency, Report, Result
from rlvr.bench.intervals import Share
from rlvr.columns import columns

SHOWN = 100
"""Characters of a text that people see."""
KEPT = 2000
"""Characters of a text that JSON has."""


def report_text(report: Report, errors: int) -> str:
    """Tables, worst first, each fault with up to `errors` examples; the last line says how it ended."""
    said_as = report.answer_form.replace("{answer}", "…")
    head = (
        f"{report.verifier} {report.version}: answers said as {said_as}, right from a reward of "
        f"{report.limits.threshold:g}, {report.timeout:g} s a verdict"
    )
    parts = [head, *_cases(report), _checks(report)]
    parts += [_examples(check, errors) for check in report.checks if check.faults and _shown(check)]
    parts.append(outcome(report))
    return "\n\n".join(part for part in parts if part)


def outcome(report: Report) -> str:
    """One line."""
    if report.passed:
        return "passed"
    return f"FAILED: {', '.join(check.name for check in report.failed)}"


def _shown(check: Check) -> bool:
    """What is no fault is left to `--json`, but for the false negatives that are allowed."""
    return check.result in (Result.FAILED, Result.PASSED)


def _cases(report: Report) -> Iterator[str]:
    if report.total is None:
        yield "no labelled cases (--cases FILE): how often it is wrong is not known"
        return
    head = ["CATEGORY", "FALSE POSITIVES", "95 %", "FALSE NEGATIVES", "95 %", "P50 MS", "P99", "MAX"]
    rows = [_row(category) for category in (*report.categories, report.total)]
    yield columns([head, *rows])


def _row(category: Category) -> list[str]:
    shares = (*_share(category.false_positives), *_share(category.false_negatives))
    return [_printable(category.name), *shares, *_milliseconds(category.latency)]


def _share(share: Share) -> tuple[str, str]:
    if not share.trials:
        return "-", "-"
    low, high = share.interval
    return f"{share.hits:,} of {share.trials:,}", f"{low * 100:.1f}–{high * 100:.1f} %"


def _milliseconds(latency: Latency | None) -> list[str]:
    if latency is None:
        return ["-"] * 3
    return [f"{seconds * 1e3:,.2f}" for seconds in (latency.p50, latency.p99, latency.max)]


def _checks(report: Report) -> str:
    head = ["CHECK", "RESULT", "TRIED", "FAULTS", "P50 MS", "P99", "MAX", ""]
    rows = [
        [
            check.name,
            check.result.value,
            f"{check.tried:,}",
            f"{len(check.faults):,}" if _shown(check) else "-",
            *_milliseconds(check.latency),
            check.detail,
        ]
        for check in report.checks
    ]
    return columns([head, *rows])


def _examples(check: Check, errors: int) -> str:
    shown = check.faults[:errors]
    if not shown:
        return ""
    more = "" if len(shown) == len(check.faults) else f" ({len(shown)} of {len(check.faults):,}; --errors N shows more)"
    return "\n".join([f"{check.name}{more}", *map(_example, shown)])


def _example(judged: Judged) -> str:
    item, score = judged.trial.item, judged.score
    verdict = score.status.value if score.reward is None else f"{score.status.value} {score.reward:g}"
    read = "" if score.extracted is None else f", extracted {_quoted(score.extracted)}"
    why = f": {_printable(_cut(score.reason, SHOWN))}" if score.reason else ""
    what = f"{_printable(judged.trial.what)}: " if judged.trial.what else ""
    return f"  {what}gold {_quoted(item.task.answer)}, completion {_quoted(item.completion)} -> {verdict}{read}{why}"


def _quoted(text: str | None) -> str:
    return "none" if text is None else f"'{_printable(_cut(text, SHOWN))}'"


def _printable(text: str) -> str:
    """With escapes for what must not reach a terminal as it is; backslashes stay single, TeX is full of them."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _cut(text: str, limit: int) -> str:
    """The text without its middle when it is too long."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}[... {len(text) - 2 * half:,} characters ...]{text[-half:]}"


# --- JSON -----------------------------------------------------------------------------------------------------------


def report_json(report: Report) -> dict[str, Any]:
    """All of it, as plain values. Seconds are seconds; texts of more than 2,000 characters are without their middle."""
    return {
        "verifier": report.verifier,
        "version": report.version,
        "config": dict(report.config),
        "answer_form": report.answer_form,
        "timeout": report.timeout,
        "limits": asdict(report.limits),
        "passed": report.passed,
        "failed": [check.name for check in report.failed],
        "latency": _latency(report.latency),
        "cases": None if report.total is None else _category(report.total),
        "categories": [_category(category) for category in report.categories],
        "checks": [
            {
                "name": check.name,
                "result": check.result.value,
                "tried": check.tried,
                "detail": check.detail,
                "latency": _latency(check.latency),
                "faults": [_fault(judged) for judged in check.faults],
            }
            for check in report.checks
        ],
    }


def _category(category: Category) -> dict[str, Any]:
    def counted(share: Share) -> dict[str, Any]:
        return {"count": share.hits, "of": share.trials, "share": share.value, "interval": list(share.interval)}

    return {
        "category": category.name,
        "false_positives": counted(category.false_positives),
        "false_negatives": counted(category.false_negatives),
        "latency": _latency(category.latency),
    }


def _latency(latency: Latency | None) -> dict[str, float] | None:
    return asdict(latency) if latency else None


def _fault(judged: Judged) -> dict[str, Any]:
    item, score = judged.trial.item, judged.score
    return {
        "what": judged.trial.what,
        "gold": item.task.answer,
        "completion": None if item.completion is None else _cut(item.completion, KEPT),
        "status": score.status.value,
        "reward": score.reward,
        "extracted": None if score.extracted is None else _cut(score.extracted, KEPT),
        "reason": score.reason,
    }
