"""Cuts a normalized answer into tokens: LaTeX, bare LaTeX and plain infix alike. One pass, linear."""

from __future__ import annotations

import re
from typing import NamedTuple

from .numerals import NUMBER_WORDS
from .tree import Unreadable
from .units import UNIT_WORDS, read_unit
from .vocabulary import vocabulary

MAX_LENGTH = 60_000
"""Characters of an answer that are still parsed."""
MAX_TOKENS = 60_000
MAX_DIGITS = 4_000
"""Digits in a row (Python itself refuses to convert more than 4,300)."""


class Token(NamedTuple):
    """`kind` is one of num sym const fun call cmd op open close bar text word unit env; `spaced`: after a space."""

    kind: str
    value: str
    spaced: bool


GREEK = frozenset(
    {"alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "vartheta", "iota", "kappa"}
    | {"lambda", "mu", "nu", "xi", "rho", "varrho", "sigma", "tau", "upsilon", "phi", "varphi", "chi", "psi", "omega"}
    | {"Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Phi", "Psi", "Omega", "ell", "hbar", "partial"}
    | {"nabla", "aleph", "Upsilon"}
)
_VARIANTS = {"varepsilon": "epsilon", "vartheta": "theta", "varphi": "phi", "varrho": "rho", "ell": "l", "jmath": "j"}
FUNCTIONS = {
    name: name
    for name in vocabulary(
        "sin cos tan cot sec csc sinh cosh tanh coth sech csch ln log lg exp abs sgn floor ceil round re im arg conj "
        "det min max gcd lcm cbrt root asin acos atan acot asec acsc asinh acosh atanh acoth asech acsch atan2 tr mod "
        "erf sqrt binom gamma_function lambertw log2 log10 pow fact nCr nPr"
    )
}
FUNCTIONS |= {
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arccot": "acot", "arcsec": "asec", "arccsc": "acsc",
    "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh", "arcoth": "acoth", "arccoth": "acoth",
    "arsinh": "asinh", "arcosh": "acosh", "artanh": "atanh", "arsech": "asech", "arcsch": "acsch", "arccsch": "acsch",
    "arcsech": "asech", "arctg": "atan", "tg": "tan", "ctg": "cot", "cosec": "csc", "cotan": "cot", "sh": "sinh",
    "ch": "cosh", "th": "tanh", "sign": "sgn", "signum": "sgn", "ceiling": "ceil", "Re": "re", "Im": "im",
    "real": "re", "imag": "im", "factorial": "fact", "binomial": "binom", "conjugate": "conj", "arctan2": "atan2",
    "trace": "tr", "Log": "log", "Ln": "ln", "cis": "cis", "Arg": "arg", "Sin": "sin", "Cos": "cos", "Tan": "tan",
    "Exp": "exp", "Sqrt": "sqrt", "Abs": "abs", "Max": "max", "Min": "min", "GCD": "gcd", "LCM": "lcm",
    "arcsen": "asin", "sen": "sin", "erfc": "erfc", "Li": "Li",
}  # fmt: skip
_SHORT_ONLY_AS_COMMAND = {"sh", "ch", "th", "re", "im", "tr", "lg", "Li"}
CONSTANTS = {
    "pi": "pi", "infty": "inf", "infinity": "inf", "inf": "inf", "oo": "inf", "Infinity": "inf", "Inf": "inf",
    "imaginary": "i", "imath": "i", "exponentialE": "e", "PI": "pi", "Pi": "pi",
}  # fmt: skip
OPERATORS = {
    "times": "*", "cdot": "*", "ast": "*", "star": "*", "bullet": "*", "div": "/", "pm": "pm", "mp": "mp", "le": "<=",
    "leq": "<=", "leqslant": "<=", "leqq": "<=", "ge": ">=", "geq": ">=", "geqslant": ">=", "geqq": ">=", "lt": "<",
    "gt": ">", "ne": "!=", "neq": "!=", "not=": "!=", "approx": "~", "simeq": "~", "doteq": "~", "cong": "~",
    "sim": "~", "equiv": "==", "in": "in", "notin": "notin", "subset": "subset", "subseteq": "subset", "cup": "cup",
    "cap": "cap", "setminus": "setminus", "backslash": "setminus", "smallsetminus": "setminus", "mid": "mid",
    "to": "to", "rightarrow": "to", "longrightarrow": "to", "Rightarrow": "implies", "implies": "implies",
    "Leftrightarrow": "iff", "iff": "iff", "land": "land", "wedge": "land", "lor": "lor", "vee": "lor", "bmod": "mod",
    "pmod": "pmod", "colon": ":", "circ": "circ", "degree": "deg", "prime": "'", "cdots": "ldots", "ldots": "ldots",
    "dots": "ldots", "dotsc": "ldots", "dotsb": "ldots", "vdots": "ldots", "ddots": "ldots", "neg": "not",
    "lnot": "not", "union": "cup", "intersect": "cap", "bigcup": "cup", "bigcap": "cap",
}  # fmt: skip
COMMANDS = frozenset(
    {"frac", "sqrt", "binom", "choose", "over", "sum", "prod", "int", "iint", "oint", "lim", "overline", "bar", "vec"}
    | {"hat", "tilde", "widehat", "overrightarrow", "underline", "dot", "ddot", "angle", "triangle", "emptyset"}
    | {"varnothing", "mathbb", "Bbb", "boxed", "cancel", "sqrtsign", "measuredangle", "widetilde", "stackrel"}
    | {"underbrace", "overbrace", "mathcal", "mathscr", "mathfrak", "parallel", "perp", "limits", "substack", "dbinom"}
    | {"tbinom", "xrightarrow", "overset", "underset", "root"}
)
_TEXT = vocabulary(
    "text mbox textbf textit textrm textnormal hbox textsf texttt emph textup mathrm mathbf mathit mathsf mathtt "
    "operatorname bm boldsymbol pmb mathnormal textsc DeclareMathOperator"
)
_MATH_FONTS = frozenset({"mathbf", "bm", "boldsymbol", "pmb", "mathit", "mathnormal"})
_OPEN = {"(": "(", "[": "[", "{": "{", "\\{": "set", "lbrace": "set", "langle": "<", "lfloor": "floor"}
_OPEN |= {"lceil": "ceil", "lbrack": "[", "lparen": "("}
_CLOSE = {")": "(", "]": "[", "}": "{", "\\}": "set", "rbrace": "set", "rangle": "<", "rfloor": "floor"}
_CLOSE |= {"rceil": "ceil", "rbrack": "[", "rparen": "("}

_SCAN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<num>\d+(?:\.\d+)?(?:[eE][-+]?\d+(?![A-Za-z]))?|\.\d+(?:[eE][-+]?\d+(?![A-Za-z]))?)(?P<dot>\.(?!\d))?"
    r"|\\(?P<cmd>[A-Za-z]+)\*?"
    r"|(?P<esc>\\[{}|%$#&_\\ ])"
    r"|(?P<letters>[A-Za-z]+)"
    r"|(?P<beyond>[^\x00-\x7f]+)"
    r"|(?P<rel>=/=|<=>|<=|>=|=<|=>|!=|<>|==|:=|->|\*\*|\+/-|\|\|)"
    r"|%(?P<maxima>pi|e|i)(?![A-Za-z0-9])"
    r"|(?P<op>[-+*/^_=<>,;:!'&~%|()\[\]{}$\"?@#])"
)
_SCAN_BEYOND = re.compile(
    _SCAN.pattern.replace(
        "|(?P<letters>", r"|(?P<foreign>(?=[A-Za-z]*[à-öø-ɏḀ-ỿ])[A-Za-zÀ-ÖØ-ɏḀ-ỿ]{2,})|(?P<letters>", 1
    )
)
"""For texts that are not ASCII, whose words may mix letters: `jabłek`."""
_RELATIONS = {
    "=/=": "!=", "<>": "!=", "=<": "<=", "=>": "implies", "<=>": "iff", "==": "=", ":=": "=", "->": "to", "**": "^",
    "+/-": "pm",
}  # fmt: skip
_JOINERS = {"and": "and", "or": "or", "&": "and", "und": "and", "et": "and", "y": "and", "ou": "or"}
_STOP_WORDS = frozenset(
    {"is", "are", "of", "to", "the", "an", "if", "so", "by", "at", "it", "be", "was", "for", "with"}
    | {"there", "this", "that", "has", "have", "we", "its", "per", "all", "any", "get", "got", "not", "no"}
)
_CONSTRUCTORS = frozenset({"eq", "set", "matrix", "vector", "tuple"})
_SCALES = {
    "hundred": "100",
    "dozen": "12",
    "thousand": "1000",
    "million": "1000000",
    "billion": "1000000000",
    "trillion": "1000000000000",
}
_MYRIADS = {"百": "100", "千": "1000", "万": "10000", "萬": "10000", "亿": "100000000", "億": "100000000"}
_CURRENCIES = {"euro": "€", "pounds": "£", "yen": "¥", "dollar": "$", "textdollar": "$", "texteuro": "€"}
_PARTS = re.compile(r",? and |, ")
_GROUP = re.compile(r"\s*\{")
_BRACE = re.compile(r"[{}]|\\.", re.DOTALL)
_SPLITTABLE = sorted(
    {n for n in FUNCTIONS if len(n) > 1 and n not in _SHORT_ONLY_AS_COMMAND and n.islower()} - {"arg", "fact", "mod"},
    key=len,
    reverse=True,
)
_SPLIT_NAMES = {"pi": ("const", "pi"), "theta": ("sym", "theta"), "alpha": ("sym", "alpha"), "beta": ("sym", "beta")}
_DIGIT_RUN = re.compile(rf"\d{{{MAX_DIGITS + 1}}}")


def tokens(source: str) -> list[Token]:
    """Return the tokens of a text. Raises Unreadable for a character that no answer has, and above the limits."""
    if len(source) > MAX_LENGTH or _DIGIT_RUN.search(source):
        raise Unreadable("too long to be an answer")
    out: list[Token] = []
    scan = _SCAN if source.isascii() else _SCAN_BEYOND
    here, end, spaced = 0, len(source), False
    while here < end:
        match = scan.match(source, here)
        if match is None:
            raise Unreadable(f"a character that no answer has: {source[here]!r}")
        here = match.end()
        kind = match.lastgroup
        if kind == "space":
            spaced = True
            continue
        if kind in ("num", "dot"):
            if match["dot"] is not None and here < end and source[here] == ".":
                raise Unreadable("dots")
            out.append(Token("num", match["num"], spaced))
        elif kind == "cmd":
            here = _command(match["cmd"], source, here, spaced, out)
        elif kind == "letters":
            after_digit = bool(out) and out[-1].kind == "num"
            _letters(match["letters"], spaced, out, after_digit, source[here : here + 1])
        elif kind == "maxima":
            out.append(Token("const", match["maxima"], spaced))
        elif kind == "foreign":
            out.append(Token("text", match["foreign"], spaced))
        elif kind == "beyond":
            _beyond(match["beyond"], spaced, out)
        elif kind == "rel":
            value = match["rel"]
            if value == "||":
                out += [Token("bar", "|", spaced), Token("bar", "|", False)]
            else:
                out.append(Token("op", _RELATIONS.get(value, value), spaced))
        else:
            _operator(match["esc"] or match["op"], spaced, out)
        spaced = False
        if len(out) > MAX_TOKENS:
            raise Unreadable("too long to be an answer")
    return out


def _beyond(run: str, spaced: bool, out: list[Token]) -> None:
    """Read letters outside of ASCII, which are words or scales; of other characters only currencies are known."""
    if run in _MYRIADS and out and out[-1].kind == "num":
        out += [Token("op", "*", False), Token("num", _MYRIADS[run], False)]
        return
    if run in "€£¥₹":
        out.append(Token("unit", run, spaced))
    elif all(c.isalpha() for c in run):
        out.append(Token("text", run, spaced))
    else:
        raise Unreadable(f"a character that no answer has: {run[:1]!r}")


def _operator(value: str, spaced: bool, out: list[Token]) -> None:
    if value in _OPEN:
        out.append(Token("open", _OPEN[value], spaced))
    elif value in _CLOSE:
        out.append(Token("close", _CLOSE[value], spaced))
    elif value == "|" or value == "\\|":
        out.append(Token("bar", "|", spaced))
    elif value in ("%", "\\%"):
        out.append(Token("op", "pct", spaced))
    elif value in ("\\$", "$"):
        out.append(Token("unit", "$", spaced))
    elif value in ("&", "\\&"):
        out.append(Token("op", "and", spaced))
    elif value in ("\\ ", "\\#", "#"):
        pass
    elif value == "\\_":
        out.append(Token("text", "_", spaced))
    elif value == "\\\\":
        out.append(Token("op", ";", spaced))
    elif value in '"?@':
        raise Unreadable(f"a character that no answer has: {value!r}")
    elif value == "~":
        out.append(Token("op", "~", spaced))
    else:
        out.append(Token("op", value, spaced))


def group(source: str, here: int) -> tuple[str, int] | None:
    """Return content and end of the braces that start at `here` (spaces skipped); None when there are none."""
    start = _GROUP.match(source, here)
    if start is None:
        return None
    depth = 0
    for brace in _BRACE.finditer(source, start.end() - 1):
        if brace[0] == "{":
            depth += 1
        elif brace[0] == "}":
            depth -= 1
            if depth == 0:
                return source[start.end() : brace.start()], brace.end()
    return None


def _command(name: str, source: str, here: int, spaced: bool, out: list[Token]) -> int:
    if name in _TEXT:
        inner = group(source, here)
        if inner is None:
            return here
        _text(name, inner[0], spaced, out)
        return inner[1]
    if name in ("begin", "end"):
        inner = group(source, here)
        if inner is None:
            raise Unreadable(f"\\{name} without a name")
        out.append(Token("env", name + " " + inner[0].strip(), spaced))
        return inner[1]
    if name in ("color", "textcolor"):
        inner = group(source, here)
        return inner[1] if inner else here
    if name in CONSTANTS and name != "Pi":
        out.append(Token("const", CONSTANTS[name], spaced))
    elif name in GREEK or name == "jmath":
        out.append(Token("sym", _VARIANTS.get(name, name), spaced))
    elif name in OPERATORS:
        out.append(Token("op", OPERATORS[name], spaced))
    elif name in COMMANDS:
        out.append(Token("cmd", name.removeprefix("d") if name == "dbinom" else name, spaced))
    elif name in FUNCTIONS:
        out.append(Token("fun", FUNCTIONS[name], spaced))
    elif name in _OPEN:
        out.append(Token("open", _OPEN[name], spaced))
    elif name in _CLOSE:
        out.append(Token("close", _CLOSE[name], spaced))
    elif name in ("vert", "lvert", "rvert", "Vert", "lVert", "rVert"):
        out.append(Token("bar", "|", spaced))
    elif name in ("quad", "qquad", "displaylines", "not", "nolimits"):
        if name == "not":
            out.append(Token("op", "not", spaced))
    elif name in _CURRENCIES:
        out.append(Token("unit", _CURRENCIES[name], spaced))
    elif name in ("percent",):
        out.append(Token("op", "pct", spaced))
    elif name.startswith("quad"):
        _letters(name[4:], True, out, False, "")
    else:
        raise Unreadable(f"unknown command \\{name}")
    return here


def _text(name: str, content: str, spaced: bool, out: list[Token]) -> None:
    words = content.replace("~", " ").replace("\\ ", " ").replace("$", "").strip()
    lower = words.lower().strip(" ,.")
    if content.strip() in ("$", "\\$"):
        out.append(Token("unit", "$", spaced))
        return
    if not words:
        return
    if lower in _JOINERS and (len(lower) > 1):
        out.append(Token("op", _JOINERS[lower], True))
    elif words == "min" and out and out[-1].kind == "num":
        out.append(Token("unit", words, spaced))
    elif words in FUNCTIONS:
        out.append(Token("fun", FUNCTIONS[words], spaced))
    elif words in CONSTANTS:
        out.append(Token("const", CONSTANTS[words], spaced))
    elif words in ("e", "i") and name != "text":
        out.append(Token("const", words, spaced))
    elif words == "d" and name != "text":
        out.append(Token("sym", "d", spaced))
    elif name == "mathbf" and words in "RZNQC" and (not out or out[-1].value in ("in", "notin", "setminus")):
        out += [Token("cmd", "mathbb", spaced), Token("open", "{", False), Token("sym", words, False)]
        out.append(Token("close", "{", False))
    elif len(words) > 1 and out and name not in _MATH_FONTS and read_unit(words) is not None:
        out.append(Token("unit", words, spaced))
    elif words[0] == "\\" or name in _MATH_FONTS or any(c.isdigit() for c in words):
        inner = tokens(words)
        out += [inner[0]._replace(spaced=spaced), *inner[1:]] if inner else []
    elif len(words) == 1 and words.isalpha() and name != "text":
        out.append(Token("unit" if spaced and name == "mathrm" and words in "mgsLJNWVAKCFh" else "sym", words, spaced))
    elif lower in UNIT_WORDS or words in UNIT_WORDS:
        out.append(Token("unit", words, spaced))
    elif (" and " in words or ", " in words) and all(len(part) < 12 for part in _PARTS.split(words)):
        for i, part in enumerate(_PARTS.split(words)):
            if i:
                out.append(Token("op", "and", True))
            _text(name, part, True, out)
    elif lower.endswith((" and", " or")) and len(words) < 24:
        before, _, joiner = words.rpartition(" ")
        _text(name, before, spaced, out)
        out.append(Token("op", joiner.lower(), True))
    elif lower.split(" ", 1)[0] in ("and", "or", "but") and len(lower.split()) > 1:
        out += [Token("op", "and", True), *tokens(words.split(None, 1)[1])]
    else:
        out.append(Token("text", words, spaced))


def _letters(run: str, spaced: bool, out: list[Token], after_number: bool, following: str) -> None:
    """Add the tokens of a run of plain letters; `following` is the character after it."""
    called = following == "("
    apart = (spaced or not out) and (not following or following.isspace())
    if run.lower() in _SCALES and out and (out[-1].kind == "num" or out[-1].value in ")}"):
        out += [Token("op", "*", False), Token("num", _SCALES[run.lower()], False)]
    elif apart and run in ("is", "equals") and out and (out[-1].kind == "sym" or out[-1].value == "("):
        out.append(Token("op", "=", spaced))
    elif (apart and run.lower() in _STOP_WORDS and not (out and _is_sign(out[-1]))) or run.lower() in NUMBER_WORDS:
        out.append(Token("word", run, spaced))
    elif (run in _JOINERS and len(run) > 1) or run == "OR" or run == "AND":
        out.append(Token("op", _JOINERS[run.lower()], spaced))
    elif len(run) == 1:
        out.append(Token("const" if run in "ei" else "sym", run, spaced))
    elif run == "mod" and out and not called and (out[-1].kind == "num" or out[-1].kind == "close"):
        out.append(Token("op", "mod", spaced))
    elif run in FUNCTIONS and (called or run not in _SHORT_ONLY_AS_COMMAND):
        out.append(Token("fun", FUNCTIONS[run], spaced))
    elif run in CONSTANTS and run != "Pi":
        out.append(Token("const", CONSTANTS[run], spaced))
    elif run in GREEK:
        out.append(Token("sym", _VARIANTS.get(run, run), spaced))
    elif run in ("union", "intersect"):
        out.append(Token("op", OPERATORS[run], spaced))
    elif len(run) == 2 and run[0] == "d" and run[1] in "xytruvwz":
        out.append(Token("sym", run, spaced))  # a differential, not a product
    elif run in ("pm",) and not after_number:
        out.append(Token("op", "pm", spaced))
    elif called and run.lower() in _CONSTRUCTORS:
        out.append(Token("call", run, spaced))
    elif (run in UNIT_WORDS or run.lower() in UNIT_WORDS) and (len(run) > 3 or _may_be_measured(out)):
        out.append(Token("unit", run, spaced))
    elif run in ("percent", "pct", "percentage"):
        out.append(Token("op", "pct", spaced))
    else:
        split = _split(run)
        if split is None:
            out.append(Token("call" if called else "word", run, spaced))
        else:
            first, *rest = split
            out += [Token(*first, spaced), *(Token(*piece, False) for piece in rest)]


def _may_be_measured(out: list[Token]) -> bool:
    """Return True if a unit may follow: behind a value, and not at the start of a formula or of a root."""
    if not out or _is_sign(out[-1]):
        return False
    return not (out[-1].kind == "open" and len(out) > 1 and out[-2].value == "sqrt")


def _is_sign(token: Token) -> bool:
    """Return True for a sign after which a quantity's number is still to come: `F = am` names no unit."""
    return token.kind == "op" and token.value in ("=", "+", "-", "<", ">", ",", ":")


def _split(run: str) -> list[tuple[str, str]] | None:
    """Return the pieces of `sinx` (sin, x) and of `ab` (a, b); None for a word."""
    pieces: list[tuple[str, str]] = []
    here, single, known = 0, 0, 0
    while here < len(run):
        for name in _SPLITTABLE:
            if run.startswith(name, here):
                pieces.append(("fun", FUNCTIONS[name]))
                here += len(name)
                known += 1
                break
        else:
            for name, token in _SPLIT_NAMES.items():
                if run.startswith(name, here):
                    pieces.append(token)
                    here += len(name)
                    known += 1
                    break
            else:
                letter = run[here]
                pieces.append(("const" if letter in "ei" else "sym", letter))
                here += 1
                single += 1
    if single > (3 if not known or run.isupper() else 2 * known) and not (known == 0 and len(set(run)) == 1):
        return None
    return pieces
