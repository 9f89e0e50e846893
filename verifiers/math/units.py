"""Units of measurement: their dimension and size, and reading them from text. Words that are no unit are labels."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple


class Unit(NamedTuple):
    """A product of powers of base dimensions, and how many base units it is."""

    dimension: tuple[tuple[str, int], ...]
    size: Fraction


def _unit(dimension: str, size: str | int | Fraction = 1) -> Unit:
    powers: dict[str, int] = {}
    for part in dimension.split():
        name, _, power = part.partition("^")
        powers[name] = powers.get(name, 0) + int(power or 1)
    return Unit(tuple(sorted(powers.items())), Fraction(size))


_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_TABLE: dict[str, Unit] = {}


def _define(names: str, dimension: str, size: str | int | Fraction = 1) -> None:
    unit = _unit(dimension, size)
    for name in names.split():
        _TABLE[name] = unit


for _prefix, _word, _scale in (
    ("", "", Fraction(1)), ("k", "kilo", Fraction(1000)), ("c", "centi", Fraction(1, 100)),
    ("d", "deci", Fraction(1, 10)), ("m", "milli", Fraction(1, 1000)), ("n", "nano", Fraction(1, 10**9)),
    ("M", "mega", Fraction(10**6)), ("G", "giga", Fraction(10**9)), ("µ", "micro", Fraction(1, 10**6)),
    ("p", "pico", Fraction(1, 10**12)),
):  # fmt: skip
    for _symbol, _names, _dimension, _size in (
        ("m", "meter metre meters metres", "m", Fraction(1)),
        ("g", "gram grams gramme grammes", "kg", Fraction(1, 1000)),
        ("s", "second seconds", "s", Fraction(1)),
        ("L", "liter litre liters litres", "m^3", Fraction(1, 1000)),
        ("N", "newton newtons", "kg m s^-2", Fraction(1)),
        ("J", "joule joules", "kg m^2 s^-2", Fraction(1)),
        ("W", "watt watts", "kg m^2 s^-3", Fraction(1)),
        ("ohm", "ohm ohms", "kg m^2 s^-3 A^-2", Fraction(1)),
        ("V", "volt volts", "kg m^2 s^-3 A^-1", Fraction(1)),
        ("A", "amp amps ampere amperes", "A", Fraction(1)),
        ("Hz", "hertz", "s^-1", Fraction(1)),
        ("Pa", "pascal pascals", "kg m^-1 s^-2", Fraction(1)),
        ("C", "coulomb coulombs", "A s", Fraction(1)),
        ("F", "farad farads", "kg^-1 m^-2 s^4 A^2", Fraction(1)),
        ("T", "tesla", "kg s^-2 A^-1", Fraction(1)),
        ("K", "kelvin kelvins", "K", Fraction(1)),
        ("mol", "mole moles", "mol", Fraction(1)),
        ("eV", "electronvolt electronvolts", "kg m^2 s^-2", Fraction("1.602176634e-19")),
        ("B", "byte bytes", "byte", Fraction(1)),
        ("cal", "calorie calories", "kg m^2 s^-2", Fraction("4.184")),
    ):  # fmt: skip
        _define(_prefix + _symbol, _dimension, _size * _scale)
        if _prefix or _symbol != "s":
            _define(" ".join(_word + name for name in _names.split()), _dimension, _size * _scale)
_define("sec secs second seconds", "s")
_define("ml mL cc", "m^3", Fraction(1, 10**6))
_define("l", "m^3", Fraction(1, 1000))
_define("min mins minute minutes", "s", _MINUTE)
_define("h hr hrs hour hours", "s", _HOUR)
_define("day days", "s", _DAY)
_define("week weeks", "s", 7 * _DAY)
_define("month months", "month")
_define("year years yr yrs", "month", 12)
_define("decade decades", "month", 120)
_define("century centuries", "month", 1200)
_define("inch inches in", "m", "0.0254")
_define("ft foot feet", "m", "0.3048")
_define("yd yard yards", "m", "0.9144")
_define("mi mile miles", "m", "1609.344")
_define("lightyear lightyears ly", "m", "9460730472580800")
_define("oz ounce ounces", "kg", "0.028349523125")
_define("lb lbs pound pounds", "kg", "0.45359237")
_define("ton tons tonne tonnes", "kg", 1000)
_define("gal gallon gallons", "m^3", "0.003785411784")
_define("quart quarts qt", "m^3", "0.000946352946")
_define("pint pints pt", "m^3", "0.000473176473")
_define("cup cups", "m^3", "0.0002365882365")
_define("acre acres", "m^2", "4046.8564224")
_define("hectare hectares ha", "m^2", 10000)
_define("mph", "m s^-1", "0.44704")
_define("kmh kph kmph", "m s^-1", Fraction(1000, 3600))
_define("mps", "m s^-1")
_define("rpm", "s^-1", Fraction(1, 60))
_define("kWh", "kg m^2 s^-2", 3600000)
_define("atm", "kg m^-1 s^-2", 101325)
_define("bar bars", "kg m^-1 s^-2", 100000)
_define("psi", "kg m^-1 s^-2", "6894.757293168")
_define("degree degrees deg", "degree")
_define("rad rads radian radians", "radian")
_define("dollar dollars USD usd $ bucks", "dollar")
_define("cent cents", "dollar", Fraction(1, 100))
_define("euro euros EUR €", "euro")
_define("GBP £ pence", "sterling")
_define("yuan RMB rmb CNY", "yuan")
_define("yen JPY ¥", "yen")
_define("rupee rupees INR Rs ₹", "rupee")
_define("am a.m. AM", "am")
_define("pm p.m. PM", "pm")
_define("Omega", "kg m^2 s^-3 A^-2")
_define("kilohm kilohms", "kg m^2 s^-3 A^-2", 1000)
_define("M", "mol m^-3", 1000)
_define("angstrom angstroms", "m", Fraction(1, 10**10))
_define("H henry henries", "kg m^2 s^-2 A^-2")
_define("bit bits", "byte", Fraction(1, 8))

for _chinese, _english in (
    ("毫米", "mm"), ("厘米", "cm"), ("分米", "dm"), ("米", "m"), ("千米 公里", "km"),
    ("毫升 立方厘米", "mL"), ("升", "L"),
    ("克", "g"), ("千克 公斤", "kg"), ("吨", "ton"), ("秒", "s"), ("分钟", "min"), ("小时", "h"), ("天", "day"),
):  # fmt: skip
    for _name in _chinese.split():
        _TABLE[_name] = _TABLE[_english]
_define("平方厘米", "m^2", Fraction(1, 10**4))
_define("平方米", "m^2")
_define("平方千米 平方公里", "m^2", 10**6)
_define("立方米", "m^3")

_ASCII_NAMES = frozenset(name for name in _TABLE if name.isascii() and name.isalpha())
UNIT_WORDS = frozenset({name for name in _ASCII_NAMES if len(name) > 1} - {"in", "pt", "kT"})
UNIT_LETTERS = frozenset({name for name in _ASCII_NAMES if len(name) == 1})

_PIECE = re.compile(
    r"(?P<per>/|\bper\b|\\div)|(?P<times>\*|·|\\cdot|\\times|-|\.)|(?P<word>[A-Za-zµ$€£¥₹³²\u4e00-\u9fff]+)"
    r"|\^?\s*\{?\s*(?P<power>-?\s*\d+)\s*\}?|(?P<space>(?:[\s{}(),~]|\\(?!cdot|times|div))+)"
)


def read_unit(words: str) -> Unit | None:
    """Return the unit that the words name (`m/s`, `square feet`, `kg m s^{-2}`); None when they name none."""
    words = words.replace("squared", "^2").replace("cubed", "^3").replace("²", "^2").replace("³", "^3")
    words = words.replace("a.m.", "am").replace("p.m.", "pm").strip().rstrip(".")
    if len(words) > 80:
        return None
    powers: dict[str, int] = {}
    size, here, sign, pending = Fraction(1), 0, 1, 0
    last: Unit | None = None
    count = 0
    while here < len(words):
        match = _PIECE.match(words, here)
        if match is None or match.end() == here:
            return None
        here = match.end()
        if match["per"]:
            sign = -1
        elif match["word"]:
            word = match["word"]
            if word in ("square", "sq", "Square"):
                pending = 2
                continue
            if word in ("cubic", "Cubic"):
                pending = 3
                continue
            last = _TABLE.get(word) or _TABLE.get(word.lower() if len(word) > 2 else word)
            if last is None:
                return None
            _times(powers, last, sign * (pending or 1))
            size *= last.size ** (sign * (pending or 1))
            pending, count = 0, count + 1
        elif match["power"]:
            if last is None:
                return None
            extra = sign * int(match["power"].replace(" ", "")) - sign
            if abs(extra) > 12:
                return None
            _times(powers, last, extra)
            size *= last.size**extra
    if not count:
        return None
    return Unit(tuple(sorted((name, power) for name, power in powers.items() if power)), size)


def _times(powers: dict[str, int], unit: Unit, exponent: int) -> None:
    for name, power in unit.dimension:
        powers[name] = powers.get(name, 0) + power * exponent
