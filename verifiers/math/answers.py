"""Judges two answer texts: cheap stages first, the tree only when they cannot decide."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, TypeAlias

from .claims import claim
from .compare import same
from .exact import Number, read_number
from .families import same_family
from .memo import remembered
from .moments import same_date, same_time
from .normalize import is_prose, normalize
from .notation import compound, with_arrows
from .options import Options
from .parse import parse
from .parts import parts, parts_as, without_labels
from .products import reordered, with_crosses_ordered
from .qualifiers import conditions, contradict, main_and_condition, without_when
from .tidy import multiplied
from .tree import Expr, Unreadable, num
from .units import UNIT_LETTERS, read_unit
from .words import (
    choice,
    choice_and_text,
    choices,
    number_in_words,
    plain_verdict,
    same_letters,
    same_text,
    text_key,
    unquoted,
    unwrapped,
)

MAX_LENGTH = 60_000
"""Longest answer that is judged, in characters."""

Outcome: TypeAlias = Literal["equal", "different", "unparsed", "invalid"]


class Judgment(NamedTuple):
    """An answer that was found, and the stage that found it."""

    status: Outcome
    reason: str


_EQUAL = {
    stage: Judgment("equal", stage)
    for stage in (
        *("the same text", "exact arithmetic", "part by part", "the same words", "the same choice"),
        "equal expressions",
    )
}
_DIFFERENT = {
    stage: Judgment("different", stage)
    for stage in (
        *("exact arithmetic", "different parts", "different words", "different choices", "different times"),
        "not equal",
    )
}


_SIGNS = frozenset(["<", ">", "=", "+", "-", "*", "/", "×", "÷", "<=", ">=", "!=", "≤", "≥", "≠"])
"""Gold answers that are a single sign: which sign belongs between two numbers?"""


@remembered(8192)
def judge(gold: str, answer: str, options: Options) -> Judgment:
    """Return whether the answer text equals the gold text."""
    if len(answer) > MAX_LENGTH and answer.strip() != gold.strip():
        return Judgment("unparsed", "the answer is too long")
    if gold.strip(" $") in _SIGNS:
        return _EQUAL["the same text"] if answer.strip(" $") == gold.strip(" $") else _DIFFERENT["not equal"]
    gold, answer = normalize(unquoted(gold)), normalize(unquoted(answer))
    if not answer or not any(c.isalnum() for c in answer):
        if gold == answer:
            return Judgment("invalid", "the gold answer says nothing")
        return Judgment("unparsed", "the answer is empty") if not answer else _by_tree(gold, answer, options)
    if gold == answer:
        return _EQUAL["the same text"] if not gold.isspace() else Judgment("invalid", "the gold answer is empty")
    if max(len(gold), len(answer)) < 2_000 and _squeezed(gold) == _squeezed(answer):
        return _EQUAL["the same text"]
    gold, answer = without_when(gold), without_when(answer)
    gold_number, number = read_number(gold), read_number(answer)
    if number is None and gold_number is not None and answer[-1] in "kK":
        number = read_number(_KILO.sub(r"\1e3", answer))
    if gold_number is not None and number is not None:
        decided = _numbers(gold_number, number)
        if decided is not None and (options.unreduced or not decided or "." in answer):
            return _EQUAL["exact arithmetic"] if decided else _DIFFERENT["exact arithmetic"]
    return _by_parts(gold, answer, options) or _by_words(gold, answer) or _by_tree(gold, answer, options)


_KILO = re.compile(r"^(?:(?:\\?\$)\s?(?=[^k]*[kK]$)|(?=[^K]*$))(\d[\d,]*(?:\.\d+)?)[kK]$")
"""Thousands: `$18k`."""
_AROUND_SIGNS = re.compile(r"\s+(?=[^\w\s])|(?<=[^\w\s])\s+")


def _squeezed(text: str) -> str:
    """Return the text without the spaces around signs, which mean nothing."""
    if text.split(maxsplit=1) != [text]:
        text = _AROUND_SIGNS.sub("", text)
    return text.replace("\\ldots", "...").replace("\\dots", "...") if "dots" in text else text


def _numbers(gold: Number, number: Number) -> bool | None:
    """Return whether two numbers are equal; None when rounding or percent must decide, which takes the options."""
    if gold.percent == number.percent and gold.value == number.value:
        return True
    if gold.percent or number.percent:
        return None
    if gold.decimals is None and number.decimals is None:
        return False
    return None if abs(gold.value - number.value) * 50 <= abs(gold.value) else False


def _by_parts(gold: str, answer: str, options: Options) -> Judgment | None:
    """Judge `(a) 3, (b) 5` part by part. The order counts if one side leaves the labels out."""
    golds, answers = parts(gold), parts(answer)
    if golds is None and answers is None:
        return None
    explained = (golds is None and _explains(answer, gold)) or (answers is None and _explains(gold, answer))
    if explained or not readable(gold):
        return None
    golds, answers = golds or parts_as(answers, gold), answers or parts_as(golds, answer)
    if golds is not None and answers is not None and golds.keys() != answers.keys():
        return _DIFFERENT["different parts"]
    first = list(golds.values()) if golds else without_labels(gold)
    second = list(answers.values()) if answers else without_labels(answer)
    if len(first) != len(second):
        return _DIFFERENT["different parts"]
    found = [judge(one, other, options) for one, other in zip(first, second, strict=True)]
    worst = max(found, key=lambda judgment: _GRAVITY.index(judgment.status))
    if worst.status == "invalid":
        return None  # no parts, then: it may be read as a whole
    return {"equal": _EQUAL["part by part"], "different": _DIFFERENT["different parts"]}.get(worst.status, worst)


def _explains(text: str, other: str) -> bool:
    """Return True for `(A), because (B) is too large` beside a choice."""
    return is_prose(text) and (choice(other) or choice_and_text(other)) is not None


_GRAVITY: tuple[Outcome, ...] = ("equal", "unparsed", "different", "invalid")

_OPPOSITE = {"yes": "no", "no": "yes", "true": "false", "false": "true"}
_LETTERS = re.compile(r"[a-z]+")


def _by_words(gold: str, answer: str) -> Judgment | None:
    moment = _by_moment(gold, answer) if len(gold) < 40 and len(answer) < 40 else None
    if moment is not None:
        return moment
    if gold[:1].isdigit() and answer[:1].isdigit():
        return None
    if same_text(gold, answer) or same_letters(gold, answer):
        return _EQUAL["the same words"]
    opposite = _OPPOSITE.get(gold.lower())
    if opposite is not None and opposite in (said := _LETTERS.findall(answer.lower())) and gold.lower() in said:
        return _DIFFERENT["different words"]  # "yes, no" says both
    chosen = _by_choice(gold, answer)
    if chosen is not None:
        return chosen
    winner = _WINS.fullmatch(unwrapped(answer)) if answer[-3:].rstrip("}. ") in _WINS_END else None
    if winner and not _WINS.fullmatch(unwrapped(gold)) and same_text(gold, winner[1]):
        return _EQUAL["the same words"]
    verdict = plain_verdict(gold)
    if verdict is not None and verdict in (text_key(gold), text_key(answer)) and plain_verdict(answer) == verdict:
        return _EQUAL["the same words"]
    if gold.isascii() and answer.isascii():
        spelled = [
            number_in_words(side) if side[:1].isalpha() or side[:2] == "\\t" else None for side in (gold, answer)
        ]
        if spelled != [None, None]:
            numbers = [read_number(side) for side in (gold, answer)]
            values = [
                word if word is not None else (found.value if found else None)
                for word, found in zip(spelled, numbers, strict=True)
            ]
            if all(v is not None for v in values):
                return _EQUAL["the same words"] if values[0] == values[1] else _DIFFERENT["different words"]
    return None


_WINS = re.compile(r"(\S.*?) (?:wins|won|will win|is the winner|has a winning strategy)\W*")
_WINS_END = ("ns", "won", "win", "ner", "egy", "ins")
_MOMENT = re.compile(r"(?i):|-\d\d-|\d ?[ap]\.? ?m\b|noon|midnight|[a-z]{3,} \d|\d(?:st|nd|rd|th)? (?:of )?[a-z]{3}")


def _by_moment(gold: str, answer: str) -> Judgment | None:
    """Judge times of day and dates; None for anything else."""
    if not (_MOMENT.search(gold) or _MOMENT.search(answer)):
        return None
    gold, answer = unwrapped(gold), unwrapped(answer)
    time = same_time(gold, answer)
    if time is not None:
        return _EQUAL["the same words"] if time else _DIFFERENT["different times"]
    date = same_date(gold, answer)
    if date is not None:
        return _EQUAL["the same words"] if date else _DIFFERENT["different times"]
    return None


def _by_choice(gold: str, answer: str) -> Judgment | None:
    """Judge the letters of a multiple choice; None for anything else."""
    letter = choice(gold)
    if letter is not None and letter.isupper():
        other = choice(answer)
        if other is not None:
            same = other.upper() == letter
            if same and (other == letter or len(answer) > 1):
                return _EQUAL["the same choice"]
            if not same:
                return _DIFFERENT["different choices"]
        described = choice_and_text(answer)
        if described is not None:
            same = described[0] == letter
            return _EQUAL["the same choice"] if same else _DIFFERENT["different choices"]
    described = choice_and_text(gold)
    if described is not None and choice(answer) is not None:
        same = (choice(answer) or "").upper() == described[0]
        return _EQUAL["the same choice"] if same else _DIFFERENT["different choices"]
    if described is not None and not described[1][:1].islower():
        return _either(described, answer)
    several = choices(gold)
    return _EQUAL["the same choice"] if several is not None and several == choices(answer) else None


def _either(gold: tuple[str, str], answer: str) -> Judgment | None:
    """Judge an answer to the gold `(B) 12`: `12` is right too, and `(C) 12` is not."""
    other = choice_and_text(answer)
    if other is not None and other[0] != gold[0]:
        return _DIFFERENT["different choices"]
    if choice_and_text(gold[1]) is not None:
        return None
    inner = judge(gold[1], other[1] if other else answer, Options())
    return inner if inner.status == "equal" else None


_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{2,3})*,\d{3}(?![\d,])")
_SPACED_THOUSANDS = re.compile(r"(?<![\d.,])([1-9]\d{0,2}(?: \d{3})+)(?![\d])")
_DECIMAL_COMMA = re.compile(r"[-+]?(?:\d+,\d{2,}|0,\d+|\d{2,},\d+|\d{1,3}(?:\.\d{3})+,\d+)(?:\s?\\?%)?")
_SETS_IN_WORDS = {"reals": Expr("domain", ("R",)), "no solution": Expr("set", ())}
_QUANTITY = re.compile(r"([-+]?[\d.,]*\d|.*[\d})]) ?([A-Za-z°µ][A-Za-z0-9/^{}*\\ -]{0,30})")
_CHOOSE = re.compile(r"\bC\(\s?(\d+|[a-z])\s?,\s?(\d+|[a-z])\s?\)")
_CALL = re.compile(r"(?<![A-Za-z\\])[a-zA-Z]?[fghFGHPQp](?:\\left)?\(")
_REMARK = re.compile(
    r"(.*?\S)\s*(?:\\text\w*\s?\{\s*)?\(\s*(?:\\text\w*\s?\{\s*)?"
    r"(?:since|because|as|reject|discard|extraneous|with multiplicity|multiplicity|double root|repeated)\w*\b.*\)\s?\}?"
)
"""An answer and, in brackets, a remark on how it was found."""
_FIRST_SPACE = re.compile(r".*[\d})] [A-Za-z]")


def readable(gold: str) -> bool:
    """Return whether anything could equal this gold: it parses, or it is words or a number."""
    if gold.strip(" $") in _SIGNS:
        return True
    text = normalize(gold)
    divided = parts(text)
    if divided is not None and all(map(readable, divided.values())):
        return True
    return bool(read_number(text) or _readings(text) or _is_words(text))


def _is_words(text: str) -> bool:
    letters = [c for c in text if c.isalpha()]
    return bool(letters) and not any(c in text for c in "\\{}^_") and len(letters) >= 1


@remembered(4096)
def _readings(text: str, measured: bool = False) -> tuple[Expr, ...]:
    """Return the trees that a text can be read as, the most likely first; empty when it cannot be read.

    `measured`: the other side has a unit, so that the m of `5m` may be one.
    """
    found: list[Expr] = []

    def attempt(source: str) -> None:
        try:
            tree = parse(source)
        except (Unreadable, RecursionError):
            return
        if tree not in found:
            found.append(tree)

    if len(text) > MAX_LENGTH:
        return ()
    if len(text) < 60 and text_key(text) in _SETS_IN_WORDS:
        found.append(_SETS_IN_WORDS[text_key(text)])
    spaced = _SPACED_THOUSANDS.sub(lambda m: m[0].replace(" ", ""), text)
    joined = _THOUSANDS.sub(lambda m: m[0].replace(",", ""), spaced) if "," in spaced else spaced
    if joined != spaced and not re.search(r"[(\[{]", spaced):
        attempt(joined)
        attempt(spaced)
    else:
        attempt(spaced)
        if joined != spaced:
            attempt(joined)
    if "," in text and _DECIMAL_COMMA.fullmatch(text):
        whole, _, after = text.rpartition(",")
        attempt(whole.replace(".", "") + "." + after)
    several = compound(unwrapped(joined)) if len(joined) <= 80 else None
    if several is not None:
        found.append(several)
    if "C(" in text and not found[1:]:
        attempt(_CHOOSE.sub(r"\\binom{\1}{\2}", text))
    match = _QUANTITY.fullmatch(joined) if len(joined) <= 80 else None
    if match is not None:
        unit = match[2].strip()
        clear = measured or bool(_FIRST_SPACE.match(joined)) or "/" in unit or bool(re.match(r"[a-z]*m\^", unit))
        if clear and read_unit(unit) is not None and (len(unit) > 1 or unit in UNIT_LETTERS):
            try:
                value = parse(match[1])
            except (Unreadable, RecursionError):
                value = num(0)
            if value != num(0):
                found.append(Expr("qty", (value, unit)))
    remark = _REMARK.fullmatch(text) if not found and "(" in text and len(text) < 200 else None
    if remark is not None:
        attempt(remark[1])
    if is_prose(text) and not found:
        inner = claim(text, "words")
        if inner is not None and inner.text != text:
            attempt(normalize(inner.text))
    return tuple(found)


def _by_condition(gold: str, answer: str, options: Options) -> Judgment | None:
    """Judge `1/x, x \\ne 0` and `1/x for x \\ne 0`: the values, then the conditions. None for anything else.

    A condition that leaves single values out may go unmentioned.
    """
    (main, condition), (other, other_condition) = main_and_condition(gold), main_and_condition(answer)
    if condition and other_condition:
        if judge(main, other, options).status != "equal":
            return None
        same = judge(condition, other_condition, options).status == "equal"
        return _EQUAL["equal expressions"] if same else _DIFFERENT["not equal"]
    if any("\\ne" in each or "!=" in each for each in (condition, other_condition)):
        return _EQUAL["equal expressions"] if judge(main, other, options).status == "equal" else None
    return None


def _by_tree(gold: str, answer: str, options: Options) -> Judgment:
    if reordered(gold, answer):
        return _DIFFERENT["not equal"]
    conditional = _by_condition(gold, answer, options)
    if conditional is not None:
        return conditional
    gold, answer = with_arrows(gold, answer), with_arrows(answer, gold)
    gold, answer = with_crosses_ordered(gold), with_crosses_ordered(answer)
    golds, answers = _readings(gold), _readings(answer)
    if any(tree.op == "qty" for tree in (*golds, *answers)):
        golds, answers = _readings(gold, True), _readings(answer, True)
    if not golds:
        if _is_words(gold):
            return _DIFFERENT["different words"]
        return Judgment("invalid", f"the gold answer {gold[:80]!r} cannot be read")
    if not answers:
        if _is_words(answer):
            return _DIFFERENT["different words"]
        return Judgment("unparsed", f"the answer {answer[:80]!r} cannot be read")
    try:
        equal = _any_equal(golds, answers, bool(_CALL.search(gold) or _CALL.search(answer)), options)
    except RecursionError:
        return Judgment("unparsed", "nested too deeply")
    if not equal:
        return _DIFFERENT["not equal"]
    return _DIFFERENT["different words"] if _qualified(gold, answer, options) else _EQUAL["equal expressions"]


def _any_equal(golds: tuple[Expr, ...], answers: tuple[Expr, ...], calls: bool, options: Options) -> bool:
    """Return True if any reading of the answer equals any reading of the gold."""
    for gold in golds:
        for answer in answers:
            first, second = multiplied(gold, answer) if calls else (gold, answer)
            if same(first, second, options) or same_family(first, second):
                return True
    return False


def _qualified(gold: str, answer: str, options: Options) -> bool:
    """Return True if the words beside equal values, or the conditions that both state, make them different answers."""
    if contradict(gold, answer):
        return True
    stated = conditions(gold, answer)
    return stated is not None and judge(*stated, options).status == "different"
