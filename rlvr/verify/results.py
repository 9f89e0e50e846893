"""Results of verifiers' functions as verdicts: what counts as a reward, and texts that every store accepts."""

from __future__ import annotations

import math
import reprlib
import traceback
from pathlib import Path
from typing import Any

from rlvr.files import utf8_text
from rlvr.record.schema import Status, Verdict

EXTRACTED_LIMIT, REASON_LIMIT = 10_000, 2_000
"""Characters of a verdict's `extracted` and `reason`; longer text is cut and ends in "…"."""


def verdict_of(result: Any) -> Verdict:
    """Convert a function's result. Scalars of NumPy and torch count as numbers; an invalid result is `error`."""
    if isinstance(result, Verdict):
        if _is_plain(result):
            return result
        parts = None if result.parts is None else {name: verdict_of(part) for name, part in result.parts.items()}
        return Verdict(  # validated again: a copy with changes was not validated
            status=result.status, reward=result.reward, extracted=result.extracted, reason=result.reason, parts=parts
        )
    if result is None:
        return Verdict(status=Status.ABSTAINED)
    value = result
    if not isinstance(value, bool | int | float) and callable(getattr(value, "item", None)):
        try:
            value = value.item()
        except (ValueError, RuntimeError):  # several elements; torch raises the latter
            return error_verdict(f"returned a {type(result).__name__} of several elements: expected one number")
    if not isinstance(value, bool | int | float):
        return error_verdict(f"returned {shown(result)}: expected a bool, a number, None or a Verdict")
    try:
        reward = float(value)
    except OverflowError:
        reward = math.inf
    if not math.isfinite(reward):
        return error_verdict(f"returned {shown(result)}: a reward is a finite number")
    return Verdict(status=Status.GRADED, reward=reward)


def _is_plain(verdict: Verdict) -> bool:
    """Return whether a verdict has no parts and is valid as it is; validating it again takes five times as long."""
    if type(verdict) is not Verdict or verdict.parts is not None or type(verdict.status) is not Status:
        return False
    if type(verdict.extracted) not in _TEXT or type(verdict.reason) not in _TEXT:
        return False
    if verdict.status is Status.GRADED:
        return type(verdict.reward) is float and math.isfinite(verdict.reward)
    return verdict.reward is None


_TEXT = (str, type(None))


def describe(error: BaseException) -> str:
    """Describe an error in one line: type, message, and the file and line that raised."""
    message = " ".join(traceback.format_exception_only(error)[-1].split())
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is None or isinstance(error, SyntaxError):
        where = f" ({Path(error.filename or '?').name}:{error.lineno})" if isinstance(error, SyntaxError) else ""
    else:
        where = f" ({Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno})"
    return shortened(message) + where


def error_verdict(reason: str) -> Verdict:
    """Return the verdict `error` with its reason."""
    return Verdict(status=Status.ERROR, reason=shortened(reason))


def storable(verdict: Verdict) -> Verdict:
    """Return the verdict with texts that every store accepts: of bounded length, with lone surrogates escaped."""
    texts = {
        "extracted": verdict.extracted and shortened(verdict.extracted, EXTRACTED_LIMIT),
        "reason": verdict.reason and shortened(verdict.reason, REASON_LIMIT),
    }
    if verdict.parts is None and texts == {"extracted": verdict.extracted, "reason": verdict.reason}:
        return verdict
    parts = verdict.parts and {shortened(name): storable(part) for name, part in verdict.parts.items()}
    return verdict.model_copy(update={**texts, "parts": parts})


def has_utf8(verdict: Verdict) -> bool:
    """Return whether UTF-8 can hold every text of a verdict."""
    parts = (verdict.parts or {}).items()
    own = is_utf8(verdict.extracted) and is_utf8(verdict.reason)
    return own and all(is_utf8(name) and has_utf8(part) for name, part in parts)


def is_utf8(text: str | None) -> bool:
    """Return whether UTF-8 can hold the text: it has no lone surrogates."""
    return text is None or text.isascii() or utf8_text(text) == text


def shown(value: Any) -> str:
    """Return type and value, shortened, for messages."""
    return f"{type(value).__name__} {reprlib.repr(value)}"


def shortened(text: str, limit: int = 500) -> str:
    """Return at most `limit` characters of text that UTF-8 can hold: lone surrogates become their escapes."""
    text = utf8_text(text[: limit + 1])
    return text if len(text) <= limit else text[: limit - 1] + "…"
