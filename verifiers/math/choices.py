"""Reads a choice, or an answer in words, out of a sentence: `Option B is correct.`, `Yes, since 7 is prime.`"""

from __future__ import annotations

import re

from .claims import without_denied

_LETTER = r"[*_`\"'“”‘’$\s]*(?:\\(?:text\w*|mathrm|mathbf)\s*\{\s*)?[(\[（]?\s*([A-J])\s*[)\]）]?(?![A-Za-z'’])"
_NOUN = (
    r"(?:option|choice|answer|alternative|statement|opci[oó]n|alternativa|opção|réponse|antwort|risposta|resposta"
    r"|respuesta"
    r"|вариант|ответ|选项|選項|答案|正解|정답|đáp án|phương án|cevap|şık|jawaban|pilihan)"
)
_CHOOSES = (
    r"(?i:\b(?:i|we)?\s*(?:choose|chose|pick|select|go with|chọn|wählen?|elijo|escolho|choisis)\b"
    r"|(?:故|应|應|因此|所以|答案)?选择?|選)"
)
_IS = (
    r"(?i:is|are|es|est|ist|é|è|là|是|为|為|は|은|는|adalah|:|："
    r"|(?:correcta|correta|corretta|richtig|đúng|correct|right))?"
)
_BETWEEN = (
    r"(?i:(?:is|es|est|é|è|ist|son|adalah|là|la|el|le|option|choice|la opción|also|therefore|clearly|đáp án|选项"
    r"|opción)\W{1,4}){0,3}"
)
_IS_WRONG = r"(?! (?:wrong|incorrect|not|false|ruled|excluded|too|a\b|an\b))"
_PATTERNS = (
    re.compile(
        rf"(?i:\b(?:so|hence|thus|therefore|leaving|leaves|remains)\b[:,]?\s+(?:only\s+)?"
        rf"(?:(?:it|that)(?:['’]s| is| must be)\s+)?(?:(?:the )?{_NOUN}\s+(?:is\s+)?)?){_LETTER}\W*$"
    ),
    re.compile(rf"\b(?i:(?:the best|the right one|the correct one|the only one left) is\s+){_LETTER}\W*$"),
    re.compile(rf"{_CHOOSES}(?i:\s*(?:the )?{_NOUN})?\s*[:：]?{_LETTER}"),
    re.compile(rf"(?i:{_NOUN}s?)\W{{0,6}}{_IS}\W{{0,6}}{_BETWEEN}{_LETTER}"),
    re.compile(
        rf"^\W*(?i:(?:so|thus|hence|therefore|it(?:'s| is)|that(?:'s| is)|the)\W+){{0,3}}(?i:{_NOUN}\W+)?{_LETTER}\W+"
        rf"(?i:is|works|must be|holds)\b{_IS_WRONG}"
    ),
    re.compile(
        rf"\b(?i:(?:is|must be|would be|=|→|⇒|là|es|ist|est|は|是|为))\s+(?i:(?:the )?{_NOUN}\s+)?{_LETTER}\W*$"
    ),
    re.compile(rf"^\W*(?i:(?:{_NOUN})\W+)?{_LETTER}(?:\W*$|\W*[.):：]\W.*)", re.DOTALL),
)
_SEVERAL = re.compile(r"^[*_`\"'\s)]*(?:or|and|/|,|und|oder|o|y|ou|et|或|和)\s*[(\[]?[A-J]\b(?![a-z])")
_REJECTED = re.compile(
    r"(?i)^[\s)*\"'.]*(?:is|are|was) (?:wrong|incorrect|not|false|ruled|excluded|too)\b|^[^.]{0,20}(?:不对|错)"
)
_OVER = re.compile(r"(?i)\b(?:none of|don't know|do not know|not sure|all of)\b")


def chosen(sentence: str, phrase: bool = False) -> str | None:
    """Return the letter that a sentence chooses, or None when it chooses none or several.

    `phrase`: the sentence follows "the answer is", so that a lower-case letter may be meant.
    """
    kept = without_denied(sentence)
    if kept is None or _OVER.search(kept):
        return None
    if phrase:
        small = re.fullmatch(r"\W*([a-j])\W*|\W*\(([a-j])\)\s*\S.*", kept, re.DOTALL)
        if small:
            return (small[1] or small[2]).upper()
    for pattern in _PATTERNS:
        last = None
        for match in pattern.finditer(kept):
            rest = kept[match.end(1) :]
            if _SEVERAL.match(rest.lstrip(")] ")):
                return None
            if not _REJECTED.match(rest):
                last = match
        if last is not None:
            return str(last[1])
    return None


_VERDICT = re.compile(r"(?i)\W*(yes|no|true|false)\b(?=\W*$|\s*[,.;:!—–-])(?!\W+(?:wait|or|and|actually|hmm)\b)")
_CONCLUDES = re.compile(
    r"(?i)(?:\bso|\bthus|\btherefore|\bhence|\banswer is|\bstatement is)[^.]{0,40}\b(yes|no|true|false)\b\W*$"
)
_VERDICTS = re.compile(r"\b(?:yes|no|true|false)\b")
_BOLD = re.compile(r"\*\*([^*\n]{1,60})\*\*")
_WINNER = re.compile(
    r"\W*(?:(?i:so|thus|therefore|hence|then)\W+)*([A-Z]\w+) (?:(?:is|was) the (?:winner|answer|correct answer"
    r"|solution)|wins|won|has a winning strategy)\W*$"
)
_NOTHING = re.compile(
    r"(?i)\b(?:has|have|there (?:is|are|exists?)|admits?|possesses) "
    r"(no (?:(?:real|such|integer|positive|rational) ){0,3}(?:solutions?|roots?|zeros?))\b"
)
_PREDICATE = re.compile(
    r"(?i)\b(?:is|are|was|were|be|becomes?|equals?)\s+(?:then |therefore |thus |simply |called |on |an? "
    r"|the )*([^,.;:()]{1,60})$"
)


def chosen_words(sentence: str, first: bool) -> str | None:
    """Return the words that a sentence gives for an answer: its yes or no, what is bold, what stands behind "is".

    `first`: no other sentence stands before this one.
    """
    kept = without_denied(sentence) if re.search(r"\d|\*\*", sentence) else sentence
    if kept is None:
        return None
    verdict = _VERDICT.match(kept) if first else _CONCLUDES.search(kept)
    if len(set(_VERDICTS.findall(kept.lower()))) > 1:
        return None
    if verdict:
        return verdict[1]
    winner = _WINNER.match(kept)
    if winner:
        return winner[1]
    bold = _BOLD.findall(kept)
    if bold and not any(c.isdigit() for c in bold[-1]) and not bold[-1].rstrip().endswith(":"):
        return str(bold[-1].strip())
    nothing = _NOTHING.search(kept)
    if nothing:
        return nothing[1]
    predicate = _PREDICATE.search(kept.strip(" ."))
    if predicate and not any(c.isdigit() for c in predicate[1]):
        return str(predicate[1].strip())
    return None
