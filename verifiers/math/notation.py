"""Notations of ordinary numbers and formulas: `0.(3)`, `10th`, `1010 base 2`, `5 ft 6 in`."""

from __future__ import annotations

import re
from fractions import Fraction

from .numerals import spelled
from .tree import Expr, num
from .units import read_unit
from .words import unwrapped

_EUROPEAN = re.compile(r"([-+]?\d{1,3}(?:\.\d{3}){2,})(?:,(\d+))?")
_SWISS = re.compile(r"(?<=\d)'(?=\d{3}(?!\d))")
_PERIOD = re.compile(r"(-?)(\d{0,40})\.(\d{0,40}?)(?:\((\d{1,40})\)|((\d{1,12}?)\6+)\s*(?:\.\.\.|\\l?dots))")
_UNENDING = re.compile(r"([-$]{0,2}\d{0,40}\.\d{1,80})\s?\.\.\.")
_DOTTED = re.compile(r"(-?)(\d{0,40})\.(\d{0,40})\\dot\{?(\d)\}?(\d{0,40})\\dot\{?(\d)\}?")
_ORDINAL = re.compile(
    r"(\d+)\s?(?:\^\s?)?(?:\{?\s?\\(?:text|mathrm|textrm|textsuperscript)\s?\{\s?(?:st|nd|rd|th)\s?\}\s?\}?"
    r"|\{\s?(?:st|nd|rd|th)\s?\}|(?:st|nd|rd|th)(?![A-Za-z]))"
)
_POWER_OF_TEN = re.compile(r"(?<=\d) ?[xX] ?(?=10 ?(?:\^|\*\*))")
_SCALE_IN_TEXT = re.compile(r"\\(?:text|mathrm|textrm)\s?\{\s*(hundred|thousand|million|billion|trillion|dozen)\s*\}")
_BASE = re.compile(r"([0-9A-Za-z()]{1,80}?)\s?[,]?\s?\(?\s?(?:in )?base[\s-](\d+|[a-z]+)\s?\)?")
_BASE_WORD = re.compile(r"_\s?\{?\s?(?:\\(?:text|mathrm|textrm)\s?\{)?\s?(?:base )?([a-z]{3,7})\s?\}{0,2}$")
_CHOOSE = re.compile(
    r"(?:\{\s?\})?[_^]\s?\{?(\d+|[a-z])\}?\s?(?:\\(?:text|mathrm)\{([CP])\}|([CP]))\s?_\s?\{?(\d+|[a-z])\}?"
)
_EXCEPT = re.compile(
    r"(?i)all (?:real (?:numbers|values)|reals)(?: of)?(?: [a-z])? (?:except|other than|but|not equal to)(?: for)? "
    r"(?:[a-z] ?= ?)?(\S.*)"
)
_UNIT = r"\{\s*(\\(?:text|mathrm|textrm)\s?\{[^{}]*\}(?:\^\{?\d\}?)?)\s*\}"
_UNIT_FRACTION = re.compile(rf"\\frac\s?{_UNIT}\s?{_UNIT}")
_BUILDER = re.compile(r"\{\s*([A-Za-z](?:\s*\\in\s*\\mathbb\s?\{?[A-Z]\}?)?)\s*(?:\||:|\\mid)\s*([^{}]+)\}")
"""A set-builder whose braces lack their backslashes."""
_CURRENCY = re.compile(r"(-?)(USD|US\s?\\?\$|EUR|GBP|INR|Rs\.?)\s?(?=\d)")
_CURRENCIES = {"USD": "\\$", "EUR": "€", "GBP": "£", "INR": "₹", "Rs": "₹", "US": "\\$"}
_CELSIUS = re.compile(r"\^\s?\{?\s?\\circ\s?\}?\s*\\(?:text|mathrm|textrm)\s?\{\s*([CF])\s*\}")
_THERMOMETER = re.compile(
    r"\s?(?:\\text\s?\{\s?)?degrees? (?:Celsius|C\b)\}?|\s?(?:\\text\s?\{\s?)?degrees? (?:Fahrenheit|F\b)\}?",
    re.IGNORECASE,
)
_CHOOSE_BELOW = re.compile(r"(?<![A-Za-z])C_\s?\{?(\d+)\}?\s?\^\s?\{?(\d+)\}?")
_SIGN_WORD = re.compile(r"(?i)(?:minus|negative) (?=[\d.\\])")
_TO = re.compile(r"(\d+(?:\.\d+)?)\s*(?:\\text\s?\{\s*to\s*\}|to)\s*(\d+(?:\.\d+)?)")
_MODULUS = re.compile(r"\(\s*mod\s+(\w+)\s*\)")
_BOLD = re.compile(r"\\(?:mathbf|boldsymbol|bm|pmb)\s*(?:\{\s*([A-Za-z]{1,2}|0)\s*\}|([A-Za-z](?![A-Za-z])|0))")
_ARROW = re.compile(
    r"\\(vec|overrightarrow|hat)\s*(?:\{\s*(\\?[A-Za-z]{1,5}|0)\s*\}|(\\[ij]math|[A-Za-z](?![A-Za-z])|0))"
)
_QUANTITY = re.compile(r"\s*,?\s*(?:and\s+)?(\d+(?:\.\d+)?)\s*([A-Za-z]+)\.?")


_GIVEN = re.compile(r"P\(\s*([^()|\\]{1,20}?)\s*(?:\||\\mid|\\vert)\s*([^()|\\]{1,20}?)\s*\)")
"""A conditional probability."""
_MONEY = re.compile(r"\\\$\s?(?=\d)")
"""The sign of money in an equation, `x = \\$5`."""
_OHMS = re.compile(r"(?<=[\d}])\s*(?:\\(?:text|mathrm)\s*\{\s*)?([kMm]?)\s*\}?\s*\\Omega\s*\}?(?![A-Za-z_^'\\])")
_MICRO = re.compile(
    r"(?<=[\d}])\s*(?:\\(?:text|mathrm)\s*\{\s*)?\\mu\s*\}?\s*(?:\\(?:text|mathrm|textrm)\s*\{\s*)?(mol|Hz|Pa"
    r"|[msgFAVCLNJWTHK])"
    r"\s*\}?(?![A-Za-z_^\\])(?!\s*[A-Za-z])"
)
_MICRO_UNITS = {
    "m": "meters", "s": "seconds", "g": "grams", "F": "farads", "A": "amperes", "V": "volts", "C": "coulombs",
    "L": "liters", "N": "newtons", "J": "joules", "W": "watts", "T": "tesla", "H": "henries", "K": "kelvins",
    "mol": "moles", "Hz": "hertz", "Pa": "pascals",
}  # fmt: skip
_ANGSTROM = re.compile(r"(?<=[\d}])\s*(?:\\(?:text|mathrm)\s*\{\s*)?(?:\\AA(?![A-Za-z])|\\mathring\s*\{A\}|Å)\s*\}?")
_PROJECTION = re.compile(
    r"\\(?:text|mathrm|operatorname)\s*\{\s*(proj|comp)\s*\}\s*_\s*(\{(?:[^{}]|\{[^{}]*\})*\}|\w)\s*"
    r"(\\[a-z]+\s*\{[^{}]*\}|\\[a-z]+\s+[A-Za-z]|[A-Za-z])(?=\s*=)"
)
_EXCEPT_X = re.compile(
    r"(?i)[a-z] (?:is|can be) (?:any|every|all) real (?:number|value)s? (?:except|other than|but)(?: for)? (\S.*)"
)


def _si_units(text: str) -> str:
    """Return the text with units that are written with Greek letters as words."""
    if "\\Omega" in text:
        text = _OHMS.sub(lambda m: {"k": " kiloohm", "M": " megaohm", "m": " milliohm"}.get(m[1], " ohm"), text)
    if "\\mu" in text:
        text = _MICRO.sub(lambda m: f" micro{_MICRO_UNITS[m[1]]}", text)
    if "Å" in text or "\\AA" in text or "mathring" in text:
        text = _ANGSTROM.sub(" angstrom", text)
    return text


def _projection(match: re.Match[str]) -> str:
    onto, of = (re.sub(r"[^A-Za-z]|\\[a-z]+", "", side) for side in match.groups()[1:])
    return f"p_{{\\text{{{match[1]}{onto}{of}}}}}"


def _beginning_with_digits(text: str) -> tuple[str, bool]:
    """Return a text that begins with a number in ordinary notation, and whether the notation is the whole text."""
    match = _EUROPEAN.fullmatch(text)
    if match:
        return match[1].replace(".", "") + ("." + match[2] if match[2] else ""), True
    match = _PERIOD.fullmatch(text)
    if match:
        return _repeating(match[1], match[2], match[3], match[4] or match[6]), True
    match = _DOTTED.fullmatch(text)
    if match:
        return _repeating(match[1], match[2], match[3], match[4] + match[5] + match[6]), True
    match = _ORDINAL.match(text)
    if match:
        text = match[1] + text[match.end() :]
    if "'" in text:
        text = _SWISS.sub("", text)
    if "to" in text:
        match = _TO.fullmatch(text)
        if match:
            return f"{match[1]}:{match[2]}", True
    if "x" in text or "X" in text:
        text = _POWER_OF_TEN.sub(r" \\times ", text)
    return text, False


def ordinary(text: str) -> str:
    """Return the normalized text with such notations replaced."""
    if text[:1].isdigit() or text[:1] in "-+.":
        text, whole = _beginning_with_digits(text)
        if whole:
            return text
    elif text[:1] == "{":
        match = _BUILDER.fullmatch(text)
        if match:
            return f"\\{{{match[1]} \\mid {match[2]}\\}}"
    if "base" in text and len(text) < 120:
        match = _BASE.fullmatch(text)
        base = spelled([match[2]]) if match and match[2].isalpha() else match and Fraction(match[2])
        if match and base:
            return f"{match[1].strip('()')}_{{{base}}}"
    if "_" in text or "^" in text:
        text = _BASE_WORD.sub(lambda m: f"_{{{found}}}" if (found := spelled([m[1]])) else m[0], text)
        text = _CHOOSE.sub(_chosen, text)
        text = _CHOOSE_BELOW.sub(_chosen_below, text)
    if "\\text" in text or "\\math" in text:
        text = _UNIT_FRACTION.sub(lambda m: f"{m[1]}/{m[2]}", text)
        text = _SCALE_IN_TEXT.sub(lambda m: f" {m[1]} ", text)
    if "\\Omega" in text or "\\mu" in text or "Å" in text or "\\AA" in text or "mathring" in text:
        text = _si_units(text)
    if "proj" in text or "comp" in text:
        text = _PROJECTION.sub(_projection, text)
    if "\\$" in text and "=" in text:
        text = _MONEY.sub("", text)
    if "circ" in text:
        text = _CELSIUS.sub(r"^\\circ \1", text)
    if "egree" in text:
        text = _THERMOMETER.sub(lambda m: "^\\circ " + ("F" if "F" in m[0].upper() else "C"), text)
    if text[:1] in "UEGIR-":
        text = _CURRENCY.sub(lambda m: m[1] + _CURRENCIES[m[2].rstrip(". \\$")], text)
    if "P(" in text and ("|" in text or "mid" in text or "vert" in text):
        text = _GIVEN.sub(_given, text)
    if "mod" in text:
        text = _MODULUS.sub(r" \\pmod{\1}", text)
    if text[:1] in "mMnN":
        text = _SIGN_WORD.sub("-", text)
    if " real " in text:
        match = _EXCEPT_X.fullmatch(" ".join(unwrapped(text).split()))
        if match:
            return f"\\mathbb{{R}}\\setminus\\{{{match[1].replace(' and ', ',')}\\}}"
    if text[:1] in "aA\\" and "all " in text.lower():
        match = _EXCEPT.fullmatch(" ".join(unwrapped(text).split()))
        if match:
            return f"\\mathbb{{R}}\\setminus\\{{{match[1].replace(' and ', ',')}\\}}"
    return text


def unending(text: str) -> str:
    """Return `0.1666...` with its dots as a command, so that they are not read as full stops."""
    match = _UNENDING.match(text)
    return f"{match[1]}\\ldots{text[match.end() :]}" if match and _PERIOD.fullmatch(match[0].strip("$ ")) else text


def _chosen(match: re.Match[str]) -> str:
    n, r = match[1], match[4]
    chosen = f"\\binom{{{n}}}{{{r}}}"
    return chosen if "C" in (match[2], match[3]) else f"{chosen}({r})!"


def _chosen_below(match: re.Match[str]) -> str:
    """Read `C_{10}^{3}`, with the larger number below; `C_1^2` is probably the square of a constant."""
    n, r = int(match[1][:9]), int(match[2][:9])
    return f"\\binom{{{n}}}{{{r}}}" if n >= r and n > 2 else match[0]


def _given(match: re.Match[str]) -> str:
    event, condition = (re.sub(r"\W", "", side) for side in match.groups())
    return f"P_{{\\text{{{event}given{condition}}}}}"


def _repeating(sign: str, whole: str, fixed: str, period: str) -> str:
    """Return a repeating decimal as a fraction."""
    below = (10 ** len(period) - 1) * 10 ** len(fixed)
    above = int((whole or "0") + fixed + period) - int((whole or "0") + fixed)
    return f"{sign}\\frac{{{above}}}{{{below}}}"


def with_arrows(text: str, other: str) -> str:
    """Return `\\mathbf{a}` as `\\vec{a}` and `\\mathbf{i}` as `\\hat{i}`, for vectors that the other text writes so.

    A hat on any other letter is another vector, or an estimate.
    """
    arrows: dict[str, str] = {}
    for accent, inner, single in _ARROW.findall(other):
        name = (inner or single).removeprefix("\\").replace("math", "")
        if accent != "hat" or name in ("i", "j", "k"):
            arrows[name] = f"\\{accent}{{{name}}}"
    return _BOLD.sub(lambda m: arrows.get(m[1] or m[2], m[0]), text) if arrows else text


def compound(text: str) -> Expr | None:
    """Return `1 hour 30 minutes` or `5 ft 6 in` in the smallest unit; None for anything else."""
    here, last, total, name = 0, None, Fraction(0), ""
    pieces = 0
    while here < len(text):
        match = _QUANTITY.match(text, here)
        unit = match and read_unit(match[2])
        if match is None or unit is None or not unit.dimension or pieces > 6:
            return None
        if last is not None and (unit.dimension != last.dimension or unit.size >= last.size):
            return None
        total += Fraction(match[1]) * unit.size
        last, name, here, pieces = unit, match[2], match.end(), pieces + 1
    return Expr("qty", (num(total / last.size), name)) if last is not None and pieces > 1 else None
