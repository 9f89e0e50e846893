"""Report of the test bench, as text for people."""

from __future__ import annotations

from collections.abc import Iterator

from rlvr.bench.report import Category, Check, Judged, Latency, Report, Result, shortened
from rlvr.columns import columns
from rlvr.evaluation.intervals import Share

SHOWN = 100
"""Characters of a text that are shown."""


def report_text(report: Report, errors: int) -> str:
    """Return tables of cases and checks, up to `errors` examples per fault, and the outcome in the last line."""
    form = report.answer_form.replace("{answer}", "…")
    head = (
        f"{report.verifier} {report.version}: answer form {form}, correct at a reward of "
        f"{report.limits.threshold:g} or more, {report.timeout:g} s per verdict"
    )
    parts = [head, *_cases(report), _checks(report)]
    parts += [_examples(check, errors) for check in report.checks if check.faults and _shown(check)]
    parts.append(outcome(report))
    return "\n\n".join(part for part in parts if part)


def outcome(report: Report) -> str:
    """Return one line: passed, not tested, or which checks failed."""
    if report.failed:
        return f"FAILED: {', '.join(check.name for check in report.failed)}"
    if report.tested:
        return "passed"
    return "NOT TESTED: no check tried right and wrong answers; give labeled cases of both kinds (--cases FILE)"


def _shown(check: Check) -> bool:
    """Return True if the check's faults are counted and listed; those of notes are in the JSON only."""
    return check.result in (Result.FAILED, Result.PASSED)


def _cases(report: Report) -> Iterator[str]:
    if report.total is None:
        yield "no labeled cases (--cases FILE): the error rate is unknown"
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
    why = f": {_printable(shortened(score.reason, SHOWN))}" if score.reason else ""
    what = f"{_printable(judged.trial.what)}: " if judged.trial.what else ""
    return f"  {what}gold {_quoted(item.task.answer)}, completion {_quoted(item.completion)} -> {verdict}{read}{why}"


def _quoted(text: str | None) -> str:
    return "none" if text is None else f"'{_printable(shortened(text, SHOWN))}'"


def _printable(text: str) -> str:
    """Escape characters that must not reach a terminal. Backslashes stay single, since TeX is full of them."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
