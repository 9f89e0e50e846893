"""Answers in words: plain text, multiple choice, numbers in words."""

from __future__ import annotations

import re
from fractions import Fraction

from .memo import remembered
from .numerals import spelled

_WRAPPERS = re.compile(r"\\(?:text|mbox|textbf|textit|textrm|mathrm|mathbf|operatorname|textnormal|hbox|emph)\s*(?=\{)")
_PUNCTUATION = re.compile(r"[\s{}$\"'`.,:;!?*_\\()\[\]-]+")
_ARTICLES = frozenset({"the", "a", "an", "is", "it", "answer", "option", "choice", "because"})
_SAME = {
    "no solutions": "no solution", "none": "no solution", "emptyset": "no solution", "empty set": "no solution",
    "no real solution": "no solution", "no real solutions": "no solution", "varnothing": "no solution",
    "there no solution": "no solution", "divergent": "diverges", "diverge": "diverges", "convergent": "converges",
    "converge": "converges", "not defined": "undefined", "does not converge": "diverges",
    "not convergent": "diverges", "absolutely convergent": "converges absolutely",
    "conditionally convergent": "converges conditionally",
    "there are no solutions": "no solution", "not exist": "dne",
    "does not exist": "dne", "doesnt exist": "dne", "all real numbers": "reals",
    "all reals": "reals", "infinitely many": "infinite", "infinitely many solutions": "infinite",
    "correct": "true", "incorrect": "false", "infinite solutions": "infinite", "real numbers": "reals",
}  # fmt: skip
_SUBJECT = re.compile(
    r"(?:(?:this|given|infinite|improper) )*(series|integral|sequence|sum|limit) "
    r"(diverges|(?:absolutely |conditionally )?convergent|divergent|does not (?:converge|exist)|not convergent"
    r"|converges(?: absolutely| conditionally)?)"
)
"""A whole key of a subject and what it does."""
_NONE_EXISTS = re.compile(
    r"(?i)(?:there (?:is|are|exists?) )?no (?:(?:real|such|integer|positive|natural|valid|possible|rational) ){0,3}"
    r"(?:solutions?|roots?|(?:integer|number|value|pair|triple|function|polynomial|triangle|real|set|one|prime)s?)"
    r"(?: exists?)?"
)
"""A whole text that says that nothing exists."""
_EVERY = ("every", "each", "any")
_THERE_ARE = re.compile(r"there (?:are |exists? )?")
_LONG_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{4,}")
_MARKS = re.compile(r"(?<=[A-Za-z])'(?![A-Za-z])|[0-9^_=<>+*/|\\]|(?<![A-Za-z]{2})[-!]|-(?![A-Za-z]{2})")
_CHOICE_LETTER = re.compile(r"\b[Aa]\b(?! [A-Za-z]{2})")
"""The choice A or the letter a, which are no articles."""
_CHOICE = re.compile(r"(?:option |choice |answer )?\(?\s*([A-Ja-j])\s*\)?", re.IGNORECASE)
_CHOICE_AND_TEXT = re.compile(r"\(?([A-J])\s*[).:]\s*(\S.*)", re.DOTALL)
_ANOTHER_CHOICE = re.compile(r"(?:^|[\s,;/])\(?[A-J]\)|(?:\bor|/)\s*[A-J](?=[\s.:]|$)")
_EXPLAINS = re.compile(r"(?i)\b(?:because|since|as|for|not|unlike|while|whereas)\b")


@remembered(4096)
def text_key(source: str) -> str:
    """Return a text without case, punctuation, articles and TeX: equal for texts that say the same."""
    bare = _WRAPPERS.sub("", source)
    spaced = _PUNCTUATION.sub(" ", bare)
    spaced = "no solution" if _NONE_EXISTS.fullmatch(spaced.strip()) else spaced
    words = [
        word
        for word in _CHOICE_LETTER.sub(lambda m: "a_" if m[0] == "A" else "a__", spaced).casefold().split()
        if word not in _ARTICLES
    ]
    if words and words[0] in _EVERY and len(words) > 1:
        words = ["all", *words[1:-1], words[-1] if words[-1].endswith("s") or len(words[-1]) < 3 else words[-1] + "s"]
    key = " ".join(words)
    if key.startswith("there "):
        key = _THERE_ARE.sub("", key)
    return _SAME.get(key, key)


def same_text(gold: str, answer: str) -> bool:
    """Return whether two answers are the same words, one of them perhaps with its subject: the series diverges."""
    gold_key, key = text_key(gold), text_key(answer)
    if not gold_key or not key or not any(c.isalnum() for c in gold_key):
        return False
    bare_gold, bare = _WRAPPERS.sub("", gold), _WRAPPERS.sub("", answer)
    if gold_key != key:
        (gold_subject, said), (subject, also_said) = _parted(gold_key), _parted(key)
        if said != also_said or (gold_subject and subject and gold_subject != subject):
            return False
    if len(key) == 1 and (key in bare_gold) != (key in bare):
        return False  # a single letter is a symbol, and its case counts
    if _no_lost_marks(gold, answer):
        return True
    return bool(_LONG_WORD.search(gold)) and " ".join(gold.casefold().split()) == " ".join(answer.casefold().split())


def _parted(key: str) -> tuple[str, str]:
    """Return the subject that converges, diverges or does not exist, and which; no subject for any other key."""
    match = _SUBJECT.fullmatch(key)
    return (match[1], _SAME.get(match[2], match[2])) if match else ("", key)


def _no_lost_marks(gold: str, answer: str) -> bool:
    """Return True if no signs are lost with the punctuation: `-5` is not `5`, `(1)(2)` is not `12`."""
    return not _MARKS.search(_WRAPPERS.sub("", gold)) and not _MARKS.search(_WRAPPERS.sub("", answer))


def choice(source: str) -> str | None:
    """Return the letter of a multiple-choice answer: `C`, `(C)`, `\\text{(C)}`, `Option C`."""
    bare = _WRAPPERS.sub("", source).replace("{", "").replace("}", "").replace("\\", "").strip(" .")
    match = _CHOICE.fullmatch(bare)
    return match[1] if match else None


def choice_and_text(source: str) -> tuple[str, str] | None:
    """Return the letter and the text of `C) 12` or `(C) twelve`; None for `(B) 42 or (C) 43`, which does not choose."""
    bare = _WRAPPERS.sub("", source).replace("{", "").replace("}", "").strip()
    match = _CHOICE_AND_TEXT.fullmatch(bare)
    if match is None:
        return None
    another = _ANOTHER_CHOICE.search(match[2])
    if another and not _EXPLAINS.search(match[2], 0, another.end()):
        return None
    return match[1], match[2].strip()


_LETTERS = re.compile(r"[A-J](?:(?:,|;|&|and|\s)*[A-J])+")


def choices(source: str) -> tuple[str, ...] | None:
    """Return the letters of an answer that names several: `A, C`, `A and C`, `AC`; None for anything else."""
    if len(source) > 60:
        return None
    bare = re.sub(r"[(){}\[\]\\.]", "", _WRAPPERS.sub("", source)).strip()
    if not _LETTERS.fullmatch(bare):
        return None
    letters = tuple(c for c in bare if c.isupper())
    return letters if list(letters) == sorted(set(letters)) else None


_VERDICT = re.compile(
    r"(?i)(yes|no|true|false)(?:\s*[,.;:]\s+(?!.*\b(?:yes|no|true|false|maybe|or|perhaps|only|unless|except|but)\b)\w.*)?",
    re.DOTALL,
)


def plain_verdict(source: str) -> str | None:
    """Return the yes, no, true or false that an answer begins with, apart from what explains it."""
    match = _VERDICT.fullmatch(unwrapped(source).strip())
    return match[1].lower() if match else None


_WRAPPED = re.compile(r"\\(?:text|mbox|textrm|mathrm|textnormal|hbox)\s*\{([^{}\\]*)\}")


def unwrapped(source: str) -> str:
    """Return the text without \\text around words."""
    return _WRAPPED.sub(lambda m: m[1], source) if "\\" in source else source


_QUOTED_ITEM = re.compile(r"""[\[(]\s*(['"])([^'"\n]*)\1\s*,?\s*[\])]""")
_QUOTED = re.compile(r"""(['"])([^'"\n]+)\1""")


def unquoted(source: str) -> str:
    """Return what is quoted, or the only item of a list: `"70"`, `["70"]`, `('70',)`."""
    if "'" not in source and '"' not in source:
        return source
    match = _QUOTED_ITEM.fullmatch(source.strip()) or _QUOTED.fullmatch(source.strip())
    return match[2] if match else source


def same_letters(gold: str, answer: str) -> bool:
    """Return True if texts differ only in what stands in \\text: `x\\text{-axis}` is `x-axis`."""
    return "{" in gold + answer and unwrapped(gold).split() == unwrapped(answer).split()


def number_in_words(source: str) -> Fraction | None:
    """Return 21 for `twenty-one`; None for no number in words."""
    return spelled(text_key(source).split())
