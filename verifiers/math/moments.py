"""Times of day and dates."""

from __future__ import annotations

import re
from typing import NamedTuple

_MONTHS = "january february march april may june july august september october november december"
_MONTH = {name[:3]: number for number, name in enumerate(_MONTHS.split(), start=1)}
_NAME = rf"(?P<month>(?:{'|'.join(name[:3] + f'(?:{name[3:]})?' for name in _MONTHS.split())})|sept)\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_DATES = (
    re.compile(rf"{_NAME}\s+{_DAY}(?:,?\s+(?P<year>\d{{4}}))?", re.IGNORECASE),
    re.compile(rf"(?:the\s+)?{_DAY}\s+(?:of\s+)?{_NAME}(?:,?\s+(?P<year>\d{{4}}))?", re.IGNORECASE),
    re.compile(r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)"),
)
_CLOCK = re.compile(r"(\d{1,2})\s*:\s*([0-5]\d)(?:\s*:\s*([0-5]\d))?\s*(?:([ap])\.?\s?m\.?)?", re.IGNORECASE)
_HOUR = re.compile(r"(\d{1,2})\s*([ap])\.?\s?m\.?", re.IGNORECASE)
_NAMED = {
    "noon": (12, 0, 0, "p"),
    "12 noon": (12, 0, 0, "p"),
    "midnight": (12, 0, 0, "a"),
    "12 midnight": (12, 0, 0, "a"),
}


class Time(NamedTuple):
    """A time of day; `half` is a, p, or empty when it was not said."""

    hour: int
    minute: int
    second: int
    half: str


def same_time(gold: str, answer: str) -> bool | None:
    """Return whether two times of day are the same; None when a side is none, or both may be ratios."""
    first, second = _time(gold), _time(answer)
    if first is None or second is None:
        return None
    hours = _hours(first) & _hours(second) if first.half or second.half else first.hour == second.hour
    if hours and first[1:3] == second[1:3]:
        return True
    ratios = not (first.half or second.half) and not any(re.search(r":\s*0\d?", side) for side in (gold, answer))
    return None if ratios else False


def _time(text: str) -> Time | None:
    text = text.strip()
    if text.lower() in _NAMED:
        return Time(*_NAMED[text.lower()])
    match = _CLOCK.fullmatch(text)
    if match:
        return Time(int(match[1]), int(match[2]), int(match[3] or 0), (match[4] or "").lower())
    match = _HOUR.fullmatch(text)
    return Time(int(match[1]), 0, 0, match[2].lower()) if match else None


def _hours(time: Time) -> frozenset[int]:
    """Return the hours, of a day of 24, that may be meant."""
    if not time.half:
        return frozenset({time.hour} | ({time.hour % 12, time.hour % 12 + 12} if time.hour <= 12 else set()))
    return frozenset({time.hour % 12 + (12 if time.half == "p" else 0)})


def same_date(gold: str, answer: str) -> bool | None:
    """Return whether two dates are the same; None if a side is no date. Only the gold may leave out the year."""
    first, second = _date(gold), _date(answer)
    if first is None or second is None:
        return None
    return first[1:] == second[1:] and (first[0] is None or first[0] == second[0])


def _date(text: str) -> tuple[int | None, int, int] | None:
    for form in _DATES:
        match = form.fullmatch(text.strip())
        if match:
            month = match["month"]
            number = int(month) if month.isdigit() else _MONTH[month[:3].lower()]
            return int(match["year"]) if match["year"] else None, number, int(match["day"])
    return None
