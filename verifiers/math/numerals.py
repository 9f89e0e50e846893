"""Numbers in words: cardinals, and fractions that have a numerator (`two thirds`)."""

from __future__ import annotations

from fractions import Fraction

_BELOW_TWENTY = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS_IN_WORDS = "twenty thirty forty fifty sixty seventy eighty ninety"
_PARTS_IN_WORDS = "half third fourth fifth sixth seventh eighth ninth tenth"
_BELOW = {word: value for value, word in enumerate(_BELOW_TWENTY.split())}
_TENS = {word: 10 * value for value, word in enumerate(_TENS_IN_WORDS.split(), start=2)}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_DENOMINATORS = {word: value for value, word in enumerate(_PARTS_IN_WORDS.split(), start=2)}
_DENOMINATORS |= {"quarter": 4, "hundredth": 100, "thousandth": 1000, "halve": 2}
PARTS = frozenset(_DENOMINATORS)
NUMBER_WORDS = frozenset(_BELOW) | frozenset(_TENS)
MAX_WORDS = 12


def spelled(words: list[str]) -> Fraction | None:
    """Return 21 for `twenty one`, 2/3 for `two thirds`, 12 for `dozen`; None if the text is no number in words."""
    words = [word for word in words if word != "and"]
    if not 0 < len(words) <= MAX_WORDS:
        return None
    if words[0] in ("minus", "negative"):
        size = spelled(words[1:])
        return size and -size
    if words[-1] == "dozen":
        count = Fraction(1, 2) if words[:-1] == ["half"] else spelled(words[:-1] or ["one"])
        return count and 12 * count
    below = _DENOMINATORS.get(words[-1].removesuffix("s"))
    if below is not None and len(words) > 1:
        above = _cardinal(words[:-1])
        return None if above is None else Fraction(above, below)
    whole = _cardinal(words)
    return None if whole is None else Fraction(whole)


def _cardinal(words: list[str]) -> int | None:
    total = group = 0
    room = 10**15
    step = 1000
    for word in words:
        if word in _BELOW and step > (1 if _BELOW[word] < 10 else 10):
            group, step = group + _BELOW[word], 1
        elif word in _TENS and step > 10:
            group, step = group + _TENS[word], 10
        elif word == "hundred" and 0 < group < 10:
            group, step = group * 100, 100
        elif word in _SCALES and group and _SCALES[word] < room:
            room = _SCALES[word]
            total, group, step = total + group * room, 0, 1000
        else:
            return None
    return total + group
