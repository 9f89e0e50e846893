"""Normalization of spelling: Unicode, TeX that only changes the appearance, delimiters. The meaning stays the same."""

from __future__ import annotations

import re
import unicodedata
from html import unescape

from .notation import ordinary, unending
from .vocabulary import vocabulary

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "0123456789+-()ni")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₙₓₖₐ", "0123456789+-()nxka")
_RUN_UP = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ]+")
_RUN_DOWN = re.compile("[₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₙₓₖₐ]+")
_VULGAR = re.compile("[¼½¾⅐-⅞↉]")
_INVISIBLE = re.compile("[\u200b\u200c\u200d\u2060-\u2064\ufeff\u00ad\u200e\u200f\u202a-\u202e\u2066-\u2069\u061c]")
_SPACES = re.compile("[\u00a0\u2000-\u200a\u202f\u205f\u3000]")

_SYMBOLS = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "‒": "-", "﹣": "-", "－": "-",
    "×": r" \times ", "·": r" \cdot ", "⋅": r" \cdot ", "∙": r" \cdot ", "•": r" \cdot ", "∗": "*", "÷": "/", "∕": "/",
    "⁄": "/", "≤": r" \le ", "≥": r" \ge ", "⩽": r" \le ", "⩾": r" \ge ", "≦": r" \le ", "≧": r" \ge ", "≠": r" \ne ",
    "≈": r" \approx ", "≅": r" \cong ", "≡": r" \equiv ", "±": r" \pm ", "∓": r" \mp ", "∞": r" \infty ",
    "∪": r" \cup ", "∩": r" \cap ", "∈": r" \in ", "∉": r" \notin ", "∅": r" \emptyset ", "⌀": r" \emptyset ",
    "Ø": r" \emptyset ", "ø": r" \emptyset ", "⊂": r" \subset ", "⊆": r" \subseteq ", "∖": r" \setminus ",
    "√": r"\sqrt ", "∛": r"\sqrt[3] ", "∜": r"\sqrt[4] ", "°": r"^\circ ", "º": r"^\circ ", "˚": r"^\circ ",
    "′": "'", "″": "''", "’": "'", "‘": "'", "“": '"', "”": '"', "∠": r"\angle ", "△": r"\triangle ",
    "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}",
    "∑": r"\sum ", "∏": r"\prod ", "∫": r"\int ", "∣": "|", "‖": r"\|", "→": r" \to ", "⇒": r" \Rightarrow ",
    "⟨": r"\langle ", "⟩": r"\rangle ", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ",
    "∧": r" \land ", "∨": r" \lor ", "¬": r"\neg ", "，": ",", "、": ",", "；": ";", "：": ":", "．": ".", "。": ".",
    "（": "(", "）": ")", "【": "[", "】": "]", "｛": "{", "｝": "}", "％": "%", "＝": "=", "＋": "+", "＜": "<",
    "＞": ">", "／": "/", "＾": "^", "＄": "$", "∘": r"\circ ", "…": r"\ldots ", "⋯": r"\ldots ", "ℯ": "e", "ⅇ": "e",
    "ⅈ": "i", "µ": "\\mu ", "Ω": r"\Omega ", "¢": " cents", "℃": r"^\circ C", "℉": r"^\circ F",
}  # fmt: skip
_GREEK_NAMES = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi psi "
    "omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega epsilon phi theta"
)
_GREEK = dict(zip("αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩϵϕϑ", _GREEK_NAMES.split(), strict=True))
_TABLE = str.maketrans({**_SYMBOLS, **{letter: f"\\{name} " for letter, name in _GREEK.items()}})

_LOOKS = re.compile(
    r"\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits|bigl|bigr|Bigl|Bigr|biggl|biggr|Biggl|Biggr|bigg|Bigg|big"
    r"|Big|left|right|middle|rm|bf|it|hline|nonumber|notag|allowbreak|strut|centering|mathstrut|boldmath|ensuremath|large|Large|LARGE|huge|Huge|small|normalsize)(?![A-Za-z])\.?"
)
_SPACING = re.compile(r"(?<!\\)\\(?:[,;: >]|quad(?![a-z])|qquad|enspace|thinspace|space(?![a-z])|hfill)|(?<!\\)~")
_GROUPED_DIGITS = re.compile(r"(?<=\d)\s*(?:\{\s*,\s*\}|,\\!|\\,)\s*(?=\d{3}(?!\d))")
_UNION = re.compile(r"(?<=[)\]}])\s*U\s*(?=[(\[{])")
_IN = re.compile(r"(?<=[A-Za-z]) in (?=[(\[{\\RZNQ])")
_REPEATING = re.compile(
    r"(\d{0,40})\.(\d{0,40})(?:\\(?:overline|bar|overset\{\\cdot\})\s*\{(\d{1,40})\}|\\dot\s*\{?(\d)\}?(?!\}?\d*\\dot))"
)
_FRENCH = re.compile(r"^([\](\[])([^\[\]()]*[,;][^\[\]()]*)([\])\[])$")
_FRENCH_BRACKETS = {"]": "(", "[": "[", "(": "("}
_OHM = re.compile(r"(?<=\d)\s*[\u03a9\u2126](?![A-Za-z])")
_SYSTEM = re.compile(
    r"\\left\s*\\\{\s*\\begin\{(array|aligned|matrix)\}(\{[^{}]{0,20}\})?([^\0]{0,2000}?)\\end\{\1\}\s*\\right\s*\."
)
_GLUED = re.compile(r"(?<=[\d)])(or|and)(?=[A-Za-z(\d-])")
_MATH_DOLLAR = re.compile(r"(?<!\\)\$")
_LEAD = re.compile(r"(?i)(?:the )?(?:final |correct )?answer\s*(?:is|:|=)+\s*")
_LINE_END = re.compile(r"\\cr(?![A-Za-z])")
_NEGATIVE_SPACE = re.compile(r"(?<!\\)\\!|\\negthinspace|\{\}")
_HSPACE = re.compile(r"\\[hv]space\*?\{[^{}]{0,20}\}|\\(?:tag|label)\*?\{[^{}]{0,40}\}")
_DOUBLED = re.compile(r"\\\\(?=[A-Za-z]{2}|[{}()\[\],;!%$])")
_FRACS = re.compile(r"\\[dtc]frac(?![a-z])")
_FRAC_DIGITS = re.compile(r"\\frac\s*(\d)\s*(\d)")
_BINOM_DIGITS = re.compile(r"\\([dt]?binom)\s*(\d)\s*(\d)(?!\d)")
_FRAC_DIGIT = re.compile(r"\\frac\s*(\d)(?=\s*[{\\A-Za-z])")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{(?:align|aligned|equation|gather|gathered|split|multline|center)\*?\}")
_WORDS = re.compile(r"(?<![\\A-Za-z])[A-Za-zÀ-ɏḀ-ỿ]{2,}")
_LETTERS_BEYOND = re.compile(r"[\u0370-\u03ff\u0400-\u1cff\u2c00-\ud7ff\uf900-\ufaff]{2,}")
_COMMAND_TEXT = re.compile(r"\\(?:text|mbox|textbf|textit|textrm|mathrm|mathbf|operatorname|textnormal)\s*\{[^{}]*\}")
_MATH_WORDS = vocabulary(
    "and or sin cos tan cot sec csc log ln exp sqrt abs pi inf infinity arcsin arccos arctan sinh cosh tanh min "
    "max gcd lcm mod det alpha beta gamma delta theta lambda sigma omega phi mu cm km mm kg mg ml ft in lb oz "
    "mph hours hour minutes minute seconds second days day weeks years year degrees degree percent pct dollars "
    "cents units unit meters meter metres inches feet miles square cubic per sq pm am asin acos atan cbrt floor "
    "ceil"
)


def normalize(text: str) -> str:
    """Return the text as ASCII mathematics, without TeX for appearance and without delimiters around the whole."""
    text = text.strip()
    if text == "{}":
        return "\\emptyset"
    if not text.isascii():
        text = _ascii(_OHM.sub(" ohm", text))
    if text[:1] in "tTaAfF":
        lead = _LEAD.match(text)
        text = text[lead.end() :] if lead else text
    if "," in text and ("{" in text or "\\" in text):
        text = _GROUPED_DIGITS.sub(lambda m: "," if "," in m[0] and len(m[0].strip()) > 1 else " ", text)
    if "&" in text:
        text = unescape(text)
    if "{.}" in text or "{:}" in text:
        text = text.replace("{.}", ".").replace("{:}", ":")
    if "\\" in text:
        text = _REPEATING.sub(_repeating, text)
        text = _plain_tex(text)
    if "..." in text:
        text = unending(text)
    text = _undelimited(text)
    if "$" in text and text.replace("\\$", "").count("$") % 2 == 0:
        text = _MATH_DOLLAR.sub(" ", text).strip()
    if "U" in text:
        text = _UNION.sub(r" \\cup ", text)
    if " in " in text:
        text = _IN.sub(r" \\in ", text)
    if text.startswith("<") and text.endswith(">") and "," in text:
        text = f"\\langle {text[1:-1]}\\rangle"
    if text[:1] == "]" or text[-1:] == "[":
        text = _FRENCH.sub(lambda m: _FRENCH_BRACKETS[m[1]] + m[2] + ("]" if m[3] == "]" else ")"), text)
    if "or" in text or "and" in text:
        text = _GLUED.sub(r" \1 ", text)
    if text[:1] == "=":
        text = text.lstrip("= ")
    return ordinary(text)


def _ascii(text: str) -> str:
    text = _INVISIBLE.sub("", text)
    text = _SPACES.sub(" ", text)
    text = _RUN_UP.sub(lambda m: ("^{" + m[0].translate(_SUPERSCRIPTS) + "}") if m.start() else m[0], text)
    text = _RUN_DOWN.sub(lambda m: "_{" + m[0].translate(_SUBSCRIPTS) + "}", text)
    text = _VULGAR.sub(_vulgar, text)
    text = text.translate(_TABLE)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_TABLE)
    return text


def _vulgar(match: re.Match[str]) -> str:
    numerator, denominator = unicodedata.normalize("NFKC", match[0]).split("\u2044")
    return f"\\frac{{{numerator}}}{{{denominator}}}"


def _repeating(match: re.Match[str]) -> str:
    """Return `0.1\\overline{6}` as a fraction."""
    whole, fixed, period = match[1] or "0", match[2], match[3] or match[4]
    below = (10 ** len(period) - 1) * 10 ** len(fixed)
    above = int(whole + fixed + period) - int(whole + fixed)
    return f"\\frac{{{above}}}{{{below}}}"


def _plain_tex(text: str) -> str:
    if "\\\\" in text and "\\begin{" not in text:
        text = _DOUBLED.sub(r"\\", text)
    if "array" in text or "aligned" in text:
        text = _SYSTEM.sub(r"\\begin{cases}\3\\end{cases}", text)
    text = text.replace("m\\angle", "\\angle").replace("\\surd", "\\sqrt")
    if "\\cr" in text:
        text = _LINE_END.sub(r"\\\\", text)
    text = _HSPACE.sub(" ", _ENVIRONMENT.sub(" ", text))
    text = _LOOKS.sub("", text.replace("\\left\\{", "\\{").replace("\\right\\}", "\\}"))
    text = _NEGATIVE_SPACE.sub("", text.replace("{,}", ","))
    text = _SPACING.sub(" ", text)
    if "binom" in text:
        text = _BINOM_DIGITS.sub(lambda m: f"\\{m[1]}{{{m[2]}}}{{{m[3]}}}", text)
    if "frac" not in text:
        return text
    text = _FRACS.sub(lambda m: "\\frac", text)  # functions: a template costs ten times as much to begin with
    text = _FRAC_DIGITS.sub(lambda m: f"\\frac{{{m[1]}}}{{{m[2]}}}", text)
    return _FRAC_DIGIT.sub(lambda m: f"\\frac{{{m[1]}}}", text)


def _undelimited(text: str) -> str:
    """Return the text without dollars, \\( \\) or full stop around the whole; dollars inside become spaces."""
    text = text.strip()
    if text[:1].isalnum() and text[-1:].isalnum():
        return text
    for _ in range(6):
        before = text
        text = text.rstrip(" \n\t").rstrip("\\") if text.endswith("\\") and not text.endswith("\\\\") else text.strip()
        if text.endswith((".", ";", ",")) and len(text) > 1 and not text.endswith("\\,"):
            text = text[:-1].rstrip()
        for start, end in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("`", "`")):
            if len(text) > len(start) + len(end) - 1 and text.startswith(start) and text.endswith(end):
                inside = text[len(start) : len(text) - len(end)]
                if start not in inside or start == "**":
                    text = inside.strip()
        for start, end in (("\\(", "\\)"), ("\\[", "\\]")):
            if text.endswith(end) and start not in text:
                text = text[:-2]
            elif text.startswith(start) and end not in text:
                text = text[2:]
        if text == before:
            break
    if text.endswith("*") and text.find("*") == len(text) - 1:
        text = text[:-1].rstrip()  # the end of an emphasis that began before the answer
    return text


def is_prose(text: str) -> bool:
    """Return whether the text is prose: it has two or more words that do not occur in formulas."""
    text = text[:20_000]
    bare = _COMMAND_TEXT.sub(" ", text) if "\\" in text else text
    words = [word for word in _WORDS.findall(bare) if word.lower() not in _MATH_WORDS and len(word) > 1]
    if len([word for word in words if len(word) > 2]) >= 2 or len(words) >= 3:
        return True
    return bool(_LETTERS_BEYOND.search(bare)) and any(c.isdigit() for c in bare)
