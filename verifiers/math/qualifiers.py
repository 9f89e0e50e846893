"""Words beside a value that make it another answer: `5 wins` is not `5 losses`, `5 at most` is not `5`.

Only units, articles and neutral nouns may be dropped. Three kinds of words may not: words of one group below contradict
each other; restricting words beside a variable (`even n`) must stand on both sides; qualifying words (`at most`,
`except`, `incorrect`) must stand on both sides, whatever they stand beside.
"""

from __future__ import annotations

import re

from .vocabulary import vocabulary

_GROUPS = tuple(
    {word: number for number, words in enumerate(group.split("|")) for word in words.split()}
    for group in (
        "even | odd",
        "prime primes | composite composites",
        "rational rationals | irrational irrationals",
        "increase increases increased increasing rise rises rising grows growing gain gains gained profit profits"
        " ascending | decrease decreases decreased decreasing fall falls falling shrinks shrinking loss losses lost"
        " descending drop drops",
        "win wins won winning winner victory victories | lose loses losing loser loss losses lost defeat defeats"
        " | draw draws tie ties tied",
        "up upward upwards upper | down downward downwards lower",
        "left leftward | right rightward",
        "east eastward eastern | west westward western | north northward northern | south southward southern"
        " | northeast | northwest | southeast | southwest",
        "max maximum maxima maximal largest greatest biggest highest"
        " | min minimum minima minimal smallest least lowest",
        "row rows | column columns",
        "convex | concave",
        "inside interior inner internally | outside exterior outer externally",
        "before earlier early ahead ago | after later late behind",
        "first | second | third | fourth | fifth | last",
        "positive | negative",
        "true correct | false incorrect",
        "possible | impossible",
        "above over | below under beneath",
        "horizontal | vertical",
        "clockwise | counterclockwise anticlockwise",
        "converges convergent converge | diverges divergent diverge",
        "parallel | perpendicular",
        "heads | tails",
        "boy boys man men male | girl girls woman women female",
        "more greater larger bigger | less fewer smaller",
        "faster | slower",
        "older | younger",
        "longer taller | shorter",
        "finite | infinite",
        "open | closed",
        "continuous | discontinuous",
        "acute | obtuse",
        "red | blue | green | yellow | black | white | orange | purple",
        "numerator | denominator",
        "penny pennies | nickel nickels | dime dimes | quarter quarters",
        "sufficient | necessary",
        "linear | quadratic | cubic | exponential",
        "today | yesterday | tomorrow",
        "with | without",
        "all every always | no none never",
        "some | no none",
    )
)
_GROUPS_BEYOND = (
    ("奇", "偶"), ("增加", "减少"), ("上升", "下降"), ("盈利", "亏损"), ("赢", "输"), ("胜", "负", "平"),
    ("东", "西", "南", "北"),
    ("最大", "最小"), ("正", "负"), ("чётн", "нечётн"), ("больше", "меньше"), ("위", "아래"),
)  # fmt: skip
_RESTRICTING = vocabulary(
    "even odd prime primes composite composites rational irrational divisible multiple multiples perfect coprime "
    "increasing decreasing squarefree nonzero distinct"
)
_QUALIFYING = re.compile(
    r"\b(?:all but|too (?:small|large|big|high|low|many|few|much)|at most|at least|more than|less than|fewer than"
    r"|greater than|up to|or (?:more|less|fewer|so)"
    r"|or (?:greater|larger|smaller)"
    r"|only (?:if|for|when|in|on|as|by)|but only|(?:theorem|lemma|corollary|equation|question|exercise|section"
    r"|chapter) (?=\d)"
    r"|exceeds?|exceeding|fails?|failed|(?:multiples?|divisors?|powers?) of|divisible by"
    r"|except|excluding|other than|unless|otherwise|depending|if(?! and only)|incorrect|wrong|false|not|isn't"
    r"|impossible|never)\b"
    r"|\( ?(?:extraneous|rejected|reject|invalid|discard|discarded|inadmissible|not valid)(?: solution| root)? ?\)"
)
MAX_PAIRS = 10_000
"""Pairs of words that are compared."""
_NEGATIONS = ("in", "im", "ir", "il", "un", "non", "dis", "anti", "not")
_WRAPPED = re.compile(r"\\(?:text\w*|mbox|mathrm|operatorname|hbox)\s*(?=\{)")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_WORD = re.compile(r"[^\W\d_]{2,}")
_VARIABLE = re.compile(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z'’])")
_INEQUALITY = re.compile(r"(?<![-=])[<>]|\\(?:le|ge|leq|geq|lt|gt)(?![A-Za-z])")
_CONDITION = re.compile(
    r"(?:\\(?:text\w*|mbox|mathrm)\s*\{)?[\s,(]*\b(?:for|when|whenever|where|provided|with)(?: that)?\b(?! (?:all"
    r"|any|every|each|some))[\s}]*"
    r"(.*)$"
)
_RELATION = re.compile(r"[<>=]|\\(?:le|ge|leq|geq|ne|neq|in)(?![A-Za-z])")


_SIDE = re.compile(
    r"(?P<main>\S.*?)\s*(?:[,;]\s*(?:\\(?:quad|qquad|;|,)\s*)*|(?<=[\s})\d\w])\((?=\s*[A-Za-z]\s*(?:\\n|!))|[,(]?\s*"
    r"(?:\\text\s*\{\s*[,(]?\s*)?\b(?:for|when|whenever|where|provided|with|if|as long as)\b(?: that)?\s*\}?)\s*"
    r"(?P<condition>(?P<variable>[A-Za-z])\s*(?:\\(?:neq?|leq?|geq?|in|lt|gt)(?![A-Za-z])|!=|[<>]=?)[^,;()]*?)\s*[).]?"
)
"""A value, and the condition under which it holds: `1/x, x \\ne 0`."""
_COMPARES = ("\\ne", "!=", "<", ">", "\\le", "\\ge", "\\in ", "\\lt", "\\gt")
_WHEN = re.compile(
    r"(?:\\text\w*\s*\{\s*)?(?:only )?(?:when|whenever|at|if|where)\s*(?:\}\s*|(?<=[a-z]) )(?=[A-Za-z]\s*(?:=|\\|[<>]))"
)


def without_when(text: str) -> str:
    """Return a relation without the word before it: `n=4` of `when n=4`."""
    if text[:1] in "wWaAiIoO\\":
        match = _WHEN.match(text) if text[:1] != "\\" or text[1:4] in ("tex", "mbo") else None
        return text[match.end() :] if match else text
    return text


def main_and_condition(text: str) -> tuple[str, str]:
    """Return a formula and the condition on one of its variables that follows it; else the whole text and ""."""
    if len(text) > 300 or not any(sign in text for sign in _COMPARES):
        return text, ""
    match = _SIDE.fullmatch(text)
    if match is None or any(sign in match["main"] for sign in _COMPARES) or _has_words(match["main"]):
        return text, ""
    used = re.search(rf"(?<![A-Za-z\\]){match['variable']}(?![A-Za-z])", match["main"])
    return (match["main"], match["condition"]) if used else (text, "")


_CONDITION_WORDS = ("for", "when", "where", "provided", "with")


def contradict(gold: str, answer: str) -> bool:
    """Return True if the words of two answers, whose values are equal, make them different answers."""
    if "cases}" in gold or "cases}" in answer:
        return False  # the conditions of cases are compared as such
    if gold.isascii() and answer.isascii() and not (_has_words(gold) or _has_words(answer)):
        return False
    first, second = _said(gold), _said(answer)
    if first == second:
        return False
    words, other = set(_WORD.findall(first)), set(_WORD.findall(second))
    if any(_differ(group, words, other) for group in _GROUPS) or _differ_beyond(gold, answer):
        return True
    only, only_other = words - other, other - words
    if len(only) * len(only_other) < MAX_PAIRS and any(_negates(a, b) for a in only for b in only_other):
        return True
    if set(_QUALIFYING.findall(first)) != set(_QUALIFYING.findall(second)):
        return True
    beside_variable = bool(_VARIABLE.search(_outside(gold)) and _VARIABLE.search(_outside(answer)))
    if beside_variable and (words & _RESTRICTING) != (other & _RESTRICTING):
        return True
    joins = words & {"and", "or"}, other & {"and", "or"}
    return joins in (({"and"}, {"or"}), ({"or"}, {"and"})) and bool(
        _INEQUALITY.search(gold) and _INEQUALITY.search(answer)
    )


def _has_words(text: str) -> bool:
    return _WORD.search(_COMMAND.sub(" ", text) if "\\" in text else text) is not None


def conditions(gold: str, answer: str) -> tuple[str, str] | None:
    """Return the conditions that two answers state, `x>0` of `f(x)=x \\text{ for } x>0`; None unless both do."""
    if not all(any(word in side for word in _CONDITION_WORDS) for side in (gold, answer)):
        return None
    found = [_CONDITION.search(side) for side in (gold, answer)]
    texts = [match[1].strip(" })].") for match in found if match and _RELATION.search(match[1])]
    return (texts[0], texts[1]) if len(texts) == 2 else None


def _said(text: str) -> str:
    """Return the words of a text in lower case, without commands and braces."""
    bare = _COMMAND.sub(" ", _WRAPPED.sub(" ", text))
    return " ".join(re.sub(r"[{}\\$~]", " ", bare).lower().split())


def _outside(text: str) -> str:
    """Return the text without what stands in \\text."""
    return re.sub(r"\\(?:text\w*|mbox|mathrm|operatorname)\s*\{[^{}]*\}", " ", text)


def _differ(group: dict[str, int], words: set[str], other: set[str]) -> bool:
    first, second = ({group[word] for word in side if word in group} for side in (words, other))
    return bool(first and second) and first != second


def _differ_beyond(gold: str, answer: str) -> bool:
    if gold.isascii() or answer.isascii():
        return False
    for group in _GROUPS_BEYOND:
        first, second = ({word for word in group if word in side} for side in (gold, answer))
        if first and second and first != second:
            return True
    return False


def _negates(a: str, b: str) -> bool:
    """Return True if one word is the other with a prefix that negates: `rational`, `irrational`."""
    short, long = sorted((a, b), key=len)
    return len(short) > 3 and long.endswith(short) and long[: -len(short)] in _NEGATIONS
