"""Finds what a sentence claims: `She has $20 - $15 = $5 left` claims 5, `3 apples, not 5` claims 3.

A sentence may hold many numbers. What it claims is, in this order: what it puts in bold; what stands behind `=`; what
stands behind "is" or "equals"; a number that nothing subordinates, as "of", "per" and "modulo" do. If none of these
exists, the sentence claims nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .normalize import is_prose
from .numerals import NUMBER_WORDS, PARTS
from .vocabulary import vocabulary
from .words import number_in_words


@dataclass(frozen=True, slots=True)
class Found:
    """An answer as written in the text, and the rule that found it."""

    text: str
    by: str


MATH = re.compile(r"\$\$(.+?)\$\$|(?<!\\)\$(.+?)(?<!\\)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_WORD = re.compile(r"[^\W\d_]+")
_JOINS = re.compile(r"[,;&]|\b(?:and|or)\b")
_MONEY = r"(?:US|U\.S\.|C|A|R|S)?\\?[$€£¥₹]\s?"
_NUMBER = (
    rf"[-−+]?(?:{_MONEY})?[-−]?(?:\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?|\d+(?:[.,]\d+)?|\.\d+)"
    r"(?:[eE]-?\d+(?!\w))?(?:\s?/\s?\d+(?:\.\d+)?(?![\d/])|(?::\d+)+(?!\d))?"
    r"(?:\s?(?:\\?%|percent\b|°|m²|m\^2|€|£|\\\$|(?:thousand|million|billion)\b))?"
)
VALUE = re.compile(rf"(?:(?:{_NUMBER})\s?)?(?:√\s?\d+|sqrt\(\d+\)|π)(?:\s?/\s?\d+)?|{_NUMBER}")
_BRACKETED = re.compile(r"(?<![\\\w])\[\s*([^\[\]']{1,80})\]")
_EMPHASIS = re.compile(
    r"\*\*([^*\n]{1,200})\*\*|(?<![*\w)\]])\*(?=[^\s*])([^*\n]{1,200}?)(?<=[^\s*])\*(?![*\w])|__([^_\n]{1,200})__"
)
_CODE = re.compile(r"\bfor \w+ in\b|\w\(['\"]|==|\breturn\b.*[;()]|\bprint\(|\blambda \w*:|\bimport \w+$")
HEDGE = re.compile(r"(?i)\b(?:maybe|perhaps|possibly|might|could be|not sure|unsure|guess(?:ing)?|either)\b")
_RELATION = re.compile(r"(?<![A-Za-z\d])[A-Za-z]\s*(?:<=|>=|!=|=|<|>|≤|≥|≠)\s*[-+]?\d[\d./]*")
_APART = re.compile(r"(?:\s|,|;|or|and|\$)*")
NEAR = 90
"""Number of characters before a number that decide its role."""
_OPERATORS = frozenset("+*/^_-−×÷·√∛²³⁴")
_MARKS = re.compile(r"\*\*|__|`")


# --- denials

_BUT = r"(?:but(?: rather)?|rather|instead|sondern|sino|mas sim|ma|mais|а|но|nhưng mà|mà là|而是|だが|でなく)"
_NOT = (
    r"(?:(?:and |but |or )?(?:\bnot\b|\bcannot(?: be)?\b|n['’]t\b|\bnever\b|\brather than\b|\binstead of\b"
    r"|\bas opposed to\b"
    r"|\banything but\b|\bexcept(?: for)?\b|\bother than\b|\bunlike\b|\bneither\b|\bnor\b)"
    r"|\bund nicht\b|\bnicht\b|\bkeine?\b|\by no\b"
    r"|\bno\b(?= "
    r"(?:es|son|\\?\$?\d))|\bnon è\b|\be non\b|\bnon\b|\bnão\b|\be não\b|\bn['’]est pas\b|\bet pas\b|\bpas\b"
    r"|\b[аи] не\b"
    r"|\bне\b|\bkhông phải(?: là)?\b|\bchứ không\b|\bniet\b|\bnie\b|\bdeğil\b|\bbukan\b"
    r"|而不是|而非|并非|并不是|不是|不等于|不为)"
)
_DENIED = re.compile(
    rf"(?i)[,;，—–(]?\s{{0,3}}{_NOT}(?!\s+(?:only|just|including|counting)\b)"
    rf"(?:[^,;，；。()]|(?<=\d),(?=\d))*?"
    rf"(?=$|,(?!\d)|[;，；。()]|\b(?:which|it['’]s|it is)\b|\b{_BUT}\b|而是)(?:(?:{_BUT}|而是)\s*)?"
)
_DENIED_BEFORE = re.compile(
    r"(?:\$[^$\n]{1,40}\$|\S{1,24})\s?(?:가|이|은|는)?\s?아(?:니라|니고|니며|닙니다|니에요|니다|닌)"
    r"|\S{1,24}\s+değil(?:dir)?\b,?"
    r"|\S{1,24}?\s?(?:では|じゃ|で\s?は)(?:なく|ない|ありません)(?:て|、|,)?"
)


_PLAINLY_DENIED = re.compile(r"(?i)[\d$}]\s*,?\s*\(?(?:and |but )?not\s+\S*\d|^\W*not\s+\S*\d")
"""A value beside another that is denied, in a text that is no prose: `3, not 5`."""
_IMPOSSIBLE = re.compile(r"(?i)\b(?:impossible|not possible|untrue|not true|false) (?:for|that|to)\b")
"""Denial of all that follows: `it is impossible for x to be 5`."""
_TAKEN_BACK = re.compile(
    rf"(?:{VALUE.pattern})\s+(?:(?:is|was|are)\s+(?:not (?:the|our|correct|right)|wrong|incorrect|too)"
    rf"|does not|doesn['’]t|did not|fails to|cannot|can['’]t)\b[^.;,]*"
)


def without_denied(sentence: str) -> str | None:
    """Return the sentence without what it denies: `3` of `3, not 5`; None when it denies and claims nothing else."""
    kept = _TAKEN_BACK.sub(" ", _DENIED_BEFORE.sub(" ", sentence))
    kept = _DENIED.sub(" ", kept)
    if kept == sentence:
        return sentence
    if kept.count(")") > kept.count("("):
        kept = kept.replace("  )", " ", 1)  # the end of `(not 5)`
    if not _is_telling(sentence):
        return sentence
    return kept if _is_telling(kept) else None


def _is_telling(text: str) -> bool:
    return any(c.isdigit() for c in text) or "$" in text or "\\" in text or re.search(r"\b[A-J]\b", text) is not None


# --- sentences

_BECAUSE = re.compile(
    r",?\s+(?:since|because|when|where|attained|achieved|occurring|which(?!\s+(?:is|was|equals"
    r"|gives|means|makes)\b[^.]*(?:=|\d\W*\w*\W*$))|given that"
    r"|i\.\s?e\.|e\.\s?g\.|as they|as it|as we|due to)(?=\s)|,\s+as\s|,\s+who(?:se)?\s(?=(?:(?!\bso\b|=)[^,])*$)"
)
_IS = re.compile(
    r"(?i)(?:\b(?:is|are|was|were|be|being|equals?|totals?|becomes?|remains?|gives?|leaves?|es|son|est|sont|ist|sind"
    r"|é|são|è|là"
    r"|adalah|ni)\b|(?<!\d)[:：]|[:：](?!\d)|[≈⇒→]|=>|是|为|等于|共有|は|은|는)\s*"
    r"(?:(?:now|then|therefore|thus|hence|so|only|just|simply|about|around|approximately|roughly|exactly|equal to"
    r"|equals|to"
    r"|still|also|indeed|worth|a total of|the number|about|:|=|la|el|le|die|das)\s+)*"
)
_EQUALS = re.compile(r"(?<![<>!:=])=(?!=|>)\s*")
_SO = re.compile(
    r"(?i)(?<=[\s,;])(?:so(?! (?:far|that|much|many|on))|thus|therefore|hence|meaning(?: that)?|which means"
    r"|for a total of|in total|leaving|所以|因此)\b"
)
_SUBJECT = re.compile(
    rf"(?i)^\W*(?:(?:so|thus|hence|therefore|then|finally|,)\W+)*({VALUE.pattern})(?:\s+[^\W\d]\w*){{0,2}}\s+(?:is"
    rf"|are|was|were)"
    r"\s+(?:the|our|his|her|their|its|what|left|needed|required)\b"
)
_IS_ANSWER = re.compile(
    rf"(?i)({VALUE.pattern})(?:\s+[^\W\d]\w*){{0,2}}\s+(?:is|are)\s+(?:the|our|my) (?:final |correct "
    rf"|right )?(?:answer|solution|result)"
)
_NAMES_A_THING = re.compile(
    r"(?i)\b(?:step|case|part|question|problem|exercise|example|equation|eq\.?|figure|fig\.?|page|chapter|section"
    r"|theorem"
    r"|lemma|method|option|choice|line|table|row|column|appendix|version|note|grade|room|number|no\.|day|week|year"
    r"|level"
    r"|modulo|mod|base|divided by|multiple of|multiples of|divisible by|power of|factor of|out of|less than|more than"
    r"|greater than|fewer than|smaller than|larger than|higher than|lower than|at least|at most|up to|than"
    r"|roll(?:ing)? an?"
    r"|an?)\s*[#(]?\s*$"
)
_SUBORDINATES = re.compile(
    r"(?i)\b(?:of|per|for|in|at|from|by|with|after|before|over|on|within|during|among|between|through|every|each|the"
    r"|these"
    r"|those|his|her|their|its|all|first|last|next|another|when|where|if|until|into|between|against|the other)\s+"
    r"(?:the |these |those |all |each |every |only |about |his |her |their |its )?(?:\\?\$)?$"
)
_SUMS_UP = re.compile(
    r"(?i)\b(?:total|sum|average|mean|median|profit|loss|amount|cost|price|difference|value|area|volume|speed"
    r"|distance|length"
    r"|balance|change|earnings|savings|discount|score|product|rate|probability|revenue|perimeter|count|income|weight"
    r"|height"
    r"|age|ratio|result|answer|size|range|number|salary|bill|budget|tip|tax|fee|time|rest"
    r"|remainder)\w*(?: \w+){0,2} of\s+"
    r"(?:about |only |just )?$"
)
_TAKES_SOMEBODY = re.compile(
    r"\b(?i:tak|cost|giv|gave|leav|left|earn|sav|pay|paid|ow|mak|made|bring|net|get|sav|last)(?:e|es|ed|ing|s)?"
    r" (?:(?i:her|his|him|them|their|it|us|me|you|everyone)|[A-Z][a-z]+) (?:(?i:about|only|just|another|exactly) )?"
    r"(?:\\?\$)?$"
)
"""A verb and whom it concerns: `it takes her 7 days`."""
_PURPOSE = re.compile(
    r"(\w+) to (?!(?:get|give|obtain|make|yield|find|have|earn|be|form)\b)[a-z]+(?: to)? "
    r"(?:(?:the|his|her|their|its|all|a total of|all of the|at least) )?(?:\\?\$)?$"
)
"""The purpose of what was said before, `15 more points to reach 100`, and the word before it."""
_MEANS = re.compile(r"\b(?:after|before|by|without|for|from|of) [a-z]+ing (?:away |up |out |off )?(?:\\?\$)?$")
"""An earlier action: `17 stickers after giving 8 away`."""
_MODAL = vocabulary(
    "has have had having need needs needed want wants wanted able going managed used expected supposed ought likely "
    "get gets got required allowed enough plans planned hopes hoped decides decided is are was were be only continues "
    "chooses chose begins began starts started agrees agreed wish wishes forced afford affords how"
)
"""Words before "to" that begin no purpose: `has to pay 5`."""
_STEP_AHEAD = re.compile(
    r"(?i)\bto (?:divide|multiply|add|subtract|plug|substitute|try|compute|evaluate|square|consider|check"
    r"|solve|simplify)\b"
)
"""Announcement of a next step: `the next step is to divide by 6`."""
_DEFINES = re.compile(r"(?i)\b(?:of|the|these|those|when|where|if)\s+(?:\\?\$)?$")
_COMMAND = re.compile(r"\\[A-Za-z]+")


_ORNAMENTS_BEHIND = re.compile("(?:[\u2600-\u27bf\U0001f000-\U0001faff\ufe0f]|\\s)+$")
_SO_EQUALS = re.compile(r"[,;.]\s+(?:so|thus|hence|therefore)\s+((?:[A-Za-z]|[\d\s.+*/×÷()-]+)\s*=\s*[^=,;]+)$")
"""Conclusion from an equation: `2x + 4 = 28, so x = 12`."""
_ALSO = re.compile(r"(\d\s+([a-z]+)),?\s+or\s+(?:about |just |only )?[\d.,/]+\s+(?!\2\b)[a-z]+(?=\W*$)")
"""A quantity, and what it is in another unit: `24 eggs, or 2 dozen`."""


def claim(sentence: str, by: str) -> Found | None:
    """Return the answer that a sentence states, or None when it states none."""
    sentence = sentence.strip()
    if sentence.count("**") % 2 or (sentence.startswith("**") and sentence.endswith("**")):
        sentence = sentence.strip("*").strip()
    if not sentence.isascii():
        sentence = _ORNAMENTS_BEHIND.sub("", sentence)
    if not sentence:
        return None
    if not is_prose(sentence):
        conclusion = _SO_EQUALS.search(sentence) if "=" in sentence else None
        sentence = conclusion[1] if conclusion else sentence
        if "ot " in sentence and _PLAINLY_DENIED.search(sentence):
            denied = without_denied(sentence)
            if denied is None:
                return None
            sentence = denied.strip()
        reason = _BECAUSE.search(sentence) if len(sentence) > 12 else None
        bare = _unmarked(sentence[: reason.start()] if reason and sentence[: reason.start()].strip() else sentence)
        equal = _behind_equals(bare) if "\\$" in bare else None
        return Found(equal or bare, by) if bare else None
    kept = without_denied(sentence)
    if kept is None or _IMPOSSIBLE.search(kept) or _CODE.search(kept) or ("but " in kept and _WITHDRAWN.search(kept)):
        return None
    kept = _ALSO.sub(r"\1", kept) if " or " in kept else kept
    main, because = kept, _BECAUSE.search(kept)
    if because and kept[: because.start()].strip():
        main = kept[: because.start()]
    found = _claimed(main, by)
    return found or (_claimed(kept, by) if main is not kept else None) or spelled_value(main, by)


def spelled_value(sentence: str, by: str) -> Found | None:
    """Return the only number of a sentence, in words: `He has five apples`; None for a sentence with digits."""
    words = sentence.replace("-", " ").split()
    if len(words) > 40 or "or" in words or any(c.isdigit() for c in sentence) or HEDGE.search(sentence):
        return None
    runs: list[list[str]] = [[]]
    for word in words:
        bare = word.strip(",.").lower()
        is_part = bool(runs[-1]) and bare.removesuffix("s") in PARTS
        if bare in NUMBER_WORDS or is_part or (bare == "dozen" and "half" not in words):
            runs[-1].append(word.strip(",."))
        elif runs[-1]:
            runs.append([])
    runs = [run for run in runs if run and run != ["one"]]
    return Found(" ".join(runs[0]), by) if len(runs) == 1 else None


def _claimed(sentence: str, by: str) -> Found | None:
    chance = _OUT_OF.search(sentence) if _CHANCE.search(sentence) else None
    if chance:
        return Found(f"{chance[1]}/{chance[2]}", by)
    subject = _IS_ANSWER.search(sentence)
    if subject:
        return Found(subject[1].strip(), by)
    for bold in (
        *reversed(_EMPHASIS.findall(sentence)),
        *reversed([(m, "", "") for m in _BRACKETED.findall(sentence)]),
    ):
        inner = next(filter(None, bold)).strip()
        if any(c.isdigit() for c in inner) and not HEDGE.search(sentence):
            return claim(inner, by)
    formulas = list(MATH.finditer(sentence))
    if formulas:
        found = _claimed_formula(sentence, formulas, by)
        if found is not None:
            return found
    if HEDGE.search(sentence):
        return None
    return _claimed_value(_unmarked(sentence), by)


_CHANCE = re.compile(r"(?i)\b(?:probability|chances?|likelihood|odds|fraction|proportion)\b")
_OUT_OF = re.compile(r"(?i)\bis\s+(?:about |exactly )?(\d{1,9}) (?:out of|in)(?: every)? (\d{1,9})\W*$")
"""A ratio in words: the probability is `3 out of 4`."""
_SYMBOL = re.compile(r"(?:\$|\\\()\s*[A-Za-z]\s*(?:\$|\\\))")
"""A formula that only names something: `$f$ has 4 real zeros`."""


def _claimed_formula(sentence: str, formulas: list[re.Match[str]], by: str) -> Found | None:
    """Return the last formulas, with what is joined to them, unless a number behind them is what is claimed."""
    chosen = [formulas[-1]]
    for earlier in reversed(formulas[:-1]):
        gap = sentence[earlier.end() : chosen[0].start()]
        if not (_JOINS.search(gap) and len(_WORD.findall(gap)) <= 2):
            break
        chosen.insert(0, earlier)
    joined = sentence[chosen[0].start() : chosen[-1].end()]
    before, after = sentence[: chosen[0].start()], sentence[chosen[-1].end() :].strip()
    if len(chosen) == 1 and _SYMBOL.fullmatch(joined) and VALUE.search(after) and not _IS.search(before):
        return _claimed_value(_unmarked(after), by)
    if re.search(r"(?:\b(?:is|are|by|of|equals)|=)\s+\S*\d", after):
        return claim(after, by) if is_prose(after) else _claimed_value(_unmarked(after), by)
    if re.match(r"(?i)(?:or|and)\b", after) and VALUE.search(after):
        joined += " " + after
    if (
        len(chosen) == 1
        and not _relates(joined)
        and _NAMES_A_THING.search(before)
        and not re.search(r"(?i)\ban?\s+$", before)
    ):
        earlier_value = _SUBJECT.match(before) or (formulas[:-1] and MATH.match(before.strip()))
        return Found(earlier_value[0 if earlier_value.re is MATH else 1], by) if earlier_value else None
    return Found(joined, by)


def _unmarked(text: str) -> str:
    """Return the text without the marks of emphasis."""
    if "*" in text:
        for _ in range(2):  # bold in italics
            text = _EMPHASIS.sub(lambda m: m[1] or m[2] or m[3], text)
    return _MARKS.sub("", text).strip()


def _relates(formula: str) -> bool:
    return any(sign in formula for sign in ("=", "<", ">", "\\le", "\\ge", "\\in", "≤", "≥"))


def _claimed_value(sentence: str, by: str) -> Found | None:
    """Return the number that a sentence without formulas claims."""
    if not sentence:
        return None
    if _COMMAND.search(sentence.replace("\\$", "").replace("\\%", "")):
        return None
    conclusion = None
    for conclusion in _SO.finditer(sentence):  # noqa: B007 (the last one)
        pass
    if conclusion is not None and VALUE.search(sentence, conclusion.end()):
        found = _claimed_value(sentence[conclusion.end() :], by)
        if found is not None:
            return found
    relation = _RELATION.findall(sentence)
    if relation and sentence.rstrip(" .").endswith(relation[-1]):
        return Found(relation[-1], by)
    equal = _behind_equals(sentence)
    if equal is not None:
        return Found(equal, by)
    subject = _SUBJECT.match(sentence)
    if subject:
        return Found(subject[1].strip(), by)
    for copula in reversed(list(_IS.finditer(sentence))):
        if _IF.search(sentence, 0, copula.start()):
            continue
        rest = sentence[copula.end() :].strip(" .")
        value = VALUE.match(rest)
        if value and _ORDINAL.match(rest, value.end()):
            return Found(value[0], by)
        if value and not _is_piece(rest, value):
            run = _joined(rest, value)
            alone = len(rest) < 60 and "," not in rest and not any(c.isdigit() for c in rest[value.end() :])
            return Found(rest if alone and not is_prose(rest) else run, by)
        if rest and number_in_words(" ".join(rest.split()[:6]).strip(",")) is not None:
            return Found(rest, by)
        if not any(c.isdigit() for c in rest) and rest.startswith(("not ", "no ")):
            break
    return _plain_value(sentence, by)


_IF = re.compile(r"(?i)(?:^|[,;]\s*(?:and |but |so |then )?)(?:if|unless|suppose|assuming)\b[^,;]*\Z")
"""A condition up to here: `if x is 5, then` claims no 5."""
_ORDINAL = re.compile(r"(?:st|nd|rd|th)\b")
_WITHDRAWN = re.compile(
    r"(?i)\b(?:but|however),? (?:\w+ )?(?:that|this|it|which)(?: number| value| result)?"
    r"(?:['’]s| is| was| would be| seems| can ?not| can['’]t| does not| doesn['’]t)\s+"
    r"(?:too|not|wrong|impossible|invalid|incorrect|negative|larger|smaller|more|less|work|be|hold|make sense)\b"
)
"""Words that take a value back in the sentence that states it."""


_MEASURED = re.compile(r"\d\s(?:km|cm|mm|m|kg|mg|g|hr|h|min|s|L|mL|ml|ft|in|lb|oz|mi|yd)$")
"""A quantity, whose unit looks like a symbol: `2 km`."""


def _behind_equals(sentence: str) -> str | None:
    """Return the value behind the last `=` of a computation, `9 * 2 = $18 a day`."""
    for sign in reversed(list(_EQUALS.finditer(sentence))):
        value = VALUE.match(sentence, sign.end())
        before = sentence[max(sign.start() - NEAR, 0) : sign.start()].rstrip()
        if value is None or (
            re.search(r"(?:[\^_]\S*|(?<![A-Za-z\d])[A-Za-z]\S?)$", before) and not _MEASURED.search(before)
        ):
            if (
                value is not None
                and re.search(r"(?<![A-Za-z\d^_])[A-Za-z]$", before)
                and not _is_piece(sentence, value)
            ):
                return before[-1] + " = " + value[0]
            continue
        if _is_piece(sentence, value, behind=True):
            continue
        return value[0].strip()
    return None


_IS_CALL = re.compile(r"[A-Za-z]\($")
_BEHIND_DIVISION = re.compile(r"\s?[/-]\s?[A-Za-z]|\s[-–]\s")
_BEHIND_FACTOR = re.compile(r"[a-z](?![a-z])")
_BEHIND_TIMES = re.compile(r"\s?[x×]\s?\d")


def _is_piece(sentence: str, value: re.Match[str], behind: bool = False) -> bool:
    """Return True if the number is part of a larger formula: `3` of `3x + 2`. `behind`: `=` stands before it."""
    before, after = (
        sentence[max(value.start() - 9, 0) : value.start()].rstrip()[-1:],
        sentence[value.end() : value.end() + 4],
    )
    if value.start() and sentence[value.start() - 1].isascii() and sentence[value.start() - 1].isalpha():
        return True
    if before in _OPERATORS and not behind and before:
        return True
    if before == "(" and _IS_CALL.search(sentence[max(value.start() - 9, 0) : value.start()]):
        return True
    bare = after.lstrip()
    if bare[:1] in _OPERATORS and bare and not _BEHIND_DIVISION.match(after):
        return True
    if _BEHIND_FACTOR.match(after) and after[0] not in "mgshk":
        return True
    return after[:1] == "?" or bare.startswith("=") or _BEHIND_TIMES.match(after) is not None


def _joined(sentence: str, first: re.Match[str]) -> str:
    """Return a number with those that stand beside it: `2, 3 and 5`."""
    end = first.end()
    for value in VALUE.finditer(sentence, end):
        if not _APART.fullmatch(sentence, end, value.start()) or _is_piece(sentence, value):
            break
        end = value.end()
    return sentence[first.start() : end]


def _plain_value(sentence: str, by: str) -> Found | None:
    """Return the last number that nothing subordinates, with those beside it; a single number may be subordinate."""
    if _STEP_AHEAD.search(sentence):
        return None
    free: list[re.Match[str]] = []
    bound: list[re.Match[str]] = []
    named = 0
    values = list(VALUE.finditer(sentence))
    after_bound = -1
    for value in values:
        before = sentence[max(value.start() - NEAR, 0) : value.start()]
        if _is_piece(sentence, value):
            continue
        if _NAMES_A_THING.search(before):
            named += 1
        elif _SUMS_UP.search(before) or _TAKES_SOMEBODY.search(before[-36:]):
            free.append(value)
        elif ("ing " in before[-14:] and _MEANS.search(before[-40:])) or (
            " to " in before
            and (purpose := _PURPOSE.search(before[-48:])) is not None
            and purpose[1].lower() not in _MODAL
            and any(c.isdigit() for c in before)
        ):
            bound.append(value)
        elif _SUBORDINATES.search(before) or (
            after_bound >= 0 and re.fullmatch(r"\s+\S+\s+(?:and|or)\s+", sentence[after_bound : value.start()])
        ):
            bound.append(value)
            after_bound = value.end()
        else:
            free.append(value)
    if free:
        first = last = free[-1]
        for earlier in reversed(free[:-1]):
            if not _APART.fullmatch(sentence, earlier.end(), first.start()):
                break
            first = earlier
        return Found(sentence[first.start() : last.end()], by)
    if len(bound) != 1 or named or _DEFINES.search(sentence[max(bound[0].start() - NEAR, 0) : bound[0].start()]):
        return None
    return Found(bound[0][0], by)
