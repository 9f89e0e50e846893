"""Finds the final answer in a completion. Every step is linear in the text; nothing here judges the answer.

Order: the last `\\boxed{}` (boxes that stand together are one answer), `<answer>`, `####`, "the answer is", the whole
text if it is short, else what the last concluding sentence claims. Thinking is skipped first.
"""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

from .boxes import box_at, boxed, in_question, last_box
from .choices import chosen, chosen_words
from .claims import HEDGE, MATH, VALUE, Found, claim, spelled_value, without_denied
from .memo import remembered
from .normalize import is_prose
from .prices import with_prices_marked, without_calculator_marks
from .sentences import TAIL, sentences
from .thinking import after_thinking
from .words import number_in_words, unquoted, unwrapped

MAX_COMPLETION = 2_000_000
"""Characters. Only the end of a longer completion is read."""

Kind: TypeAlias = Literal["value", "choice", "words"]
"""Kind of the gold answer, which decides how prose is read: a value, the letter of a choice, or words."""

_MARKUP = re.compile(r"<[|/<A-Za-z]")
"""Beginnings of the texts that `_without_special_tokens` removes."""
_NEXT_TURN = re.compile(r"<\|im_start\|>\s*(?:user|system)|<\|start_header_id\|>\s*user|<start_of_turn>\s*user")
_SPECIAL = re.compile(r"<\|[A-Za-z_]{1,40}\|>|</s>|<s>|<(?:end|start)_of_turn>")
_LOOKS = re.compile(r"</?(?:b|i|u|em|strong|p|br|span|center|div|h[1-6]|mark|code)\s?/?>", re.IGNORECASE)
_STRUCK = re.compile(r"~~[^~\n]{1,80}~~")
_TAG = re.compile(r"<(/?)(answer|final[_ ]?answer|solution|final)>", re.IGNORECASE)
_JSON = re.compile(r'"(?:final[_ ]?)?answer"\s*:\s*(?:"((?:[^"\\]|\\.){1,400})"|([^",{}\s]{1,80}))', re.IGNORECASE)
_LEAD = re.compile(
    r"(?i)(?:(?:hence|thus|so|therefore|then|finally|consequently|accordingly|it follows that)\b|∴|⇒|=>)[,:]?\s*"
)
_WORDS_FOR_ANSWER = (
    r"\banswers?\b|\bans\b\.?(?=\s*[:=]|(?<=\.)\s*[\d$\\])|\bréponse\b|\brespuesta\b|\bantwort\b|\bresposta\b|\brisposta\b|\bответ\b"
    r"|\bвідповідь\b"
    r"|\bđáp (?:án|số)\b|\bodpowiedź\b|\bcevap\b|\bantwoord\b|\bsvar(?:et)?\b|\bvastaus\b|\bválasz\b|\brăspuns(?:ul)?\b"
    r"|\bodgovor\b|\bodpověď\b|\bjawaban(?:nya)?\b|\bjibu\b|\bαπάντηση\b|答案|答え|答えは|정답|답|답은|الجواب|الإجابة|پاسخ|תשובה"
    r"|उत्तर|উত্তর|సమాధానం|விடை|คำตอบ|\bresult\b|\b(?:correct|right) (?:choice|option)\b"
)
_STEMS = (
    *("ans", "réponse", "respuesta", "antwo", "resposta", "risposta", "ответ", "відповідь", "đáp ", "odpow", "cevap"),
    *("svar", "vastaus", "válasz", "răspuns", "odgovor", "jawaban", "jibu", "απάντηση", "答案", "答え", "정답", "답"),
    *("الجواب", "الإجابة", "پاسخ", "תשובה", "उत्तर", "উত্তর", "సమాధానం", "விடை", "คำตอบ", "result", "correct ", "right "),
)
"""Beginnings of phrases for an answer, in lower case."""
_COPULAS = (
    r"\bis\b|\bare\b|\best\b|\bist\b|\bes\b|\bé\b|\bè\b|\blà\b|\badalah\b|\bni\b|\bär\b|\ber\b|\beste\b|\bon\b|\bje\b"
    r"|是|为|為|は|은|는|হল|হলো|है|คือ|هو|هي"
)
_PHRASE = re.compile(
    rf"(?i)(?:{_WORDS_FOR_ANSWER})(?:\s*[*_]*\s*(?:[:：=→⇒]|-+>|{_COPULAS})|\s+(?=\\[(\[]|(?<!\\)\$|\d))"
    r"(?:\s|\*|__|[:：]|\b(?:is|therefore|thus|simply|exactly|equal to)\b)*"
)
_PHRASE_FAR = re.compile(r"(?i)\banswer (?:to|for|of) [^.\n:]{1,120}? is\s*:?\s*")
_LETTERED = re.compile(r"(?m)^\s*\**A(?:ns)?\**\s*[:：]\**\s*(?=\S)")
"""`A: 18` on a line of its own; `B:` after it makes it a list of choices."""
_ANOTHER_LETTER = re.compile(r"(?m)^\s*\**[B-E]\**\s*[:：.)]")
_NO_CLAIM = re.compile(
    r"(?i)\s*(?:correct|right|wrong|incorrect|verified|confirmed|consistent|valid|reasonable|obvious|clear"
    r"|as follows|given"
    r"|found|obtained|expressed|shown|written|the same|unknown|in|by|as|from|for|on|at|not (?:correct"
    r"|right))\b(?!\s*[:=])"
)
"""Continuations of a sentence that mentions an answer without stating it."""
_SUPPOSES = re.compile(r"(?i)\W*(?:let|suppose|assume|say|consider|try|recall)\b")
"""A short text that states no answer: `Let x = 12.`"""
_HEDGED = re.compile(r"(?i)\s*(?:or|alternatively|but it (?:could|might|may))\b")
_CLAUSE = re.compile(r",?\s+(?:since|because|which|given that|i\.\s?e\.|e\.\s?g\.)(?=\s)|,\s+as\s")
_TAKEN_BACK = re.compile(r"(?i)[^.!?\n]{0,60}\b(?:is|was|are) (?:wrong|incorrect|not (?:right|correct))\b")
_RETRACTED = re.compile(
    r"(?i)[\W_]{0,8}(?:hmm+|wait|no\b|oops|hold on|actually|but wait|sorry|scratch that)[^\n]{0,60}?"
    r"\b(?:wrong|incorrect|mistaken?|not right|not correct|can['’]?t be|cannot be|redo|recalculate|recompute"
    r"|start over)\b"
)
"""The sentence behind an answer takes it back."""
_WRONG_BOX = re.compile(r"(?i)[\s$)\]*\\]{0,8}(?:is|was) (?:wrong|incorrect|not (?:right|correct|the answer))\b")
_FINAL = re.compile(r"(?i)\bfinal answer(?: is)?\s*:?\s*(?:the )?(?:final )?answer is:?\s*|\bfinal answer is:?\s*")
_FINAL_LINE = re.compile(
    r"(?im)(?:^|[.!?] +(?=\*\*))\W*(?:the )?(?:final |correct |right )?answer\s*(?:is|[:：])\W*?(?=[\w(\[{$\\-])"
)
_SENTENCE_END = re.compile(
    r"(?:[.?]|!(?!\s*[=+*/×÷<>^]))(?=\s|$)(?<![A-Z].)(?<!\bMr.)(?<!\bMrs.)(?<!\bMs.)(?<!\bDr.)(?<!\bi\.e.)(?<!\be\.g.)(?<!\bi.)(?<!\be.)"
    r"|[。！？]|\n\s*\n"
)
_ORNAMENT = re.compile("^(?:[>\u2190-\u21ff\u2600-\u27bf\U0001f000-\U0001faff\ufe0f]|\\s)+(?![=<>])")
"""Arrows, check marks and the like before an answer."""
_ASKS = re.compile(
    r"(?i)(?:^|[.!?\n]\s*|[,;]\s)\W*(?:is|are|was|could|so is) (?:the|your|our|this|that)\s[^.\n]{0,40}$"
)
"""The start of a question, `Is the answer 5?`."""
_DOUBTED = re.compile(r"(?i)[?？]\W*(?:no|nope|wait|hmm+|but|actually|not|that can['’]?t)\b")
"""The end of an answer that is a question, and what doubts it."""
_ONE_WORD = re.compile(r"[^\W\d_]+")
_VERDICTS = re.compile(r"\b(?:yes|no|true|false)\b")
_LINE = re.compile(r"\n")
_TEMPTS = re.compile(
    r"(?i)\b(?:(?:one|you|we|people|someone) (?:might|may|could|would) (?:\w+ )?(?:think|guess|say|believe|expect"
    r"|assume)|tempt(?:ing|ed)|at first (?:glance|sight)|a common mistake|a naive)\b[^.!?\n]{0,60}\Z"
)
"""Before an answer that only seems to be one."""
_TEMPTING = ("ight ", "ay ", "ould ", "empt", "t first", "mistake", "naive")
"""Parts of those words, which are faster to look for."""
_CODE_BLOCK = re.compile(
    r"```[ \t]*(?:python3?|py|java|javascript|js|c|cpp|c\+\+|sympy|sage|r|matlab|haskell|rust|go|ruby|bash|sh)[ \t]*\n"
    r"[^`]*(?:```|\Z)"
)
_ALIGNED = re.compile(r"=\s*([^=&]+?)\s*\\end\{align(?:ed)?\*?\}\W*\Z")
"""The end of the last line of a computation in several lines."""
_QED = re.compile(r"\s*(?:\$?\\(?:blacksquare|square|Box|qed)\b\$?|[∎■□]|\bQ\.?E\.?D\b)\.?\s*\Z")
_HEADINGS_ONLY = re.compile(
    r"(?i)(?:\s*#{1,6}\s*(?:(?:step|part|case|section|phase|stage|method|problem|question|example)\b"
    r"|\d{1,2}[.):] )[^\n]*)+"
)
"""A text of headings alone: `## Step 3`."""
_LOOKALIKE = re.compile(r"(?<!\w)[АВСЕ](?!\w)")
_LATIN = str.maketrans("АВСЕ", "ABCE")
"""Cyrillic letters that look like those of choices."""


def final_answer(completion: str, kind: Kind = "value", thinking: tuple[str, ...] = ()) -> Found | None:
    """Return the completion's answer, or None when there is none that can be read.

    `thinking` names further tags whose content is skipped. Raises nothing.
    """
    text = after_thinking(completion[-MAX_COMPLETION:], thinking)
    if text is None:
        return None
    text = _without_special_tokens(text)
    if kind == "choice" and not text.isascii():
        text = _LOOKALIKE.sub(lambda m: m[0].translate(_LATIN), text)
    found = _marked(text, kind) or _unmarked(text, kind)
    return found if found and found.text else None


@remembered(4096)
def gold_answer(gold: str) -> str | None:
    """Return the answer of a data set's row, which may be the bare answer or a whole solution; None without one."""
    gold = _without_special_tokens(gold[-MAX_COMPLETION:])
    box = boxed(gold, unclosed=True)
    if box is not None:
        return box or None
    found = _tagged(gold) or _after_hashes(gold)
    if found is None:
        gold = unquoted(gold)
        if is_prose(gold):
            found = _after_phrase(gold, "words") or (_unmarked(gold, "value") if len(gold) > 200 else _stated(gold))
    answer = found.text if found else gold
    return answer.strip() or None


@remembered(4096)
def kind_of(gold: str) -> Kind:
    """Return what kind of answer the gold is."""
    text = unwrapped(gold).strip(" .$*")
    if re.fullmatch(r"\(?[A-J]\)?", text):
        return "choice"
    plain = re.fullmatch(r"[^\W\d_][^\W\d_ '’-]*(?:[ '’-][^\W\d_]+){0,5}", text)
    if plain and len(text) > 1 and number_in_words(text) is None and any(len(word) > 1 for word in text.split()):
        return "words"
    return "value"


def _stated(gold: str) -> Found | None:
    """Return the value of a gold that is a sentence of its own: `The sum is 2+3=5.`"""
    bare = gold.strip()
    if not re.search(r"(?<!\d)\.$|\d\.$", bare) or len(bare.split()) < 4:
        return None
    found = claim(bare[:-1], "sentence")
    return found if found is not None and any(c.isdigit() for c in found.text) else None


def _without_special_tokens(text: str) -> str:
    if not _MARKUP.search(text):
        return text
    turn = _NEXT_TURN.search(text)
    if turn and text[: turn.start()].strip():
        text = text[: turn.start()]
    return _LOOKS.sub(" ", without_calculator_marks(_SPECIAL.sub("", text)))


def _marked(text: str, kind: Kind) -> Found | None:
    """Return the answer that a box, a tag, `####`, JSON or a phrase marks."""
    box = boxed(text)
    tag = max((mark.start() for mark in _TAG.finditer(text) if not mark[1]), default=-1) if "<" in text else -1
    if tag != -1:
        tagged = _tagged(text)
        if tagged is not None and (box is None or last_box(text, len(text)) < tag):
            return tagged
    if box is not None and not in_question(text):
        return (_after_box(text, kind) or _kept_box(text, box)) if box else None
    if box is None and last_box(text, len(text)) != -1:
        return Found("", "box")  # never closed: the answer was cut off
    return _after_hashes(text) or _in_json(text) or _after_phrase(text, kind)


def _in_json(text: str) -> Found | None:
    """Return the value of the last key `answer`."""
    if '"' not in text:
        return None
    found = _JSON.findall(text[-TAIL:])
    return Found(found[-1][0] or found[-1][1], "json") if found else None


def _kept_box(text: str, box: str) -> Found:
    r"""Return the last box; no answer if it is called wrong: `\boxed{12} is wrong`."""
    last = box_at(text, last_box(text, len(text)))
    taken_back = last is not None and _WRONG_BOX.match(text, last[1])
    return Found("" if taken_back else box, "box")


def _after_box(text: str, kind: Kind) -> Found | None:
    """Return what a "final answer is" behind the last box says: it overrules the box, when an answer follows it."""
    start = last_box(text, len(text))
    if text.find("nswer", start) == -1 and text.find("NSWER", start) == -1:
        return None
    box = box_at(text, start)
    last = None
    for match in _FINAL.finditer(text, box[1] if box is not None else start):
        last = match
    if last is None and box is not None:
        for match in _FINAL_LINE.finditer(text, box[1]):
            last = match
    if last is None:
        return None
    sentence = _first_sentence(text[last.end() : last.end() + TAIL])
    if kind == "choice":
        letter = chosen(sentence)
        return Found(letter, "phrase") if letter else None
    found = claim(sentence, "phrase")
    telling = found is not None and (any(c.isdigit() for c in found.text) or kind == "words")
    return found if telling else None


def _tagged(text: str) -> Found | None:
    """Return what the last answer tag holds."""
    if "<" not in text:
        return None
    opened = None
    for mark in _TAG.finditer(text):
        opened = opened if mark[1] else mark
    if opened is None:
        return None
    closed = text.lower().find(f"</{opened[2].lower()}>", opened.end())
    inner = text[opened.end() : closed if closed != -1 else len(text)].strip()
    box = boxed(inner)
    if box:
        return Found(box, "tag")
    if is_prose(inner) and (len(inner) > 200 or opened[2].lower() == "solution"):
        return None  # a whole solution: what it says last counts
    return Found(inner, "tag") if inner else None


def _after_hashes(text: str) -> Found | None:
    at = text.rfind("####")
    if at == -1:
        return None
    lines = [line.strip() for line in text[at + 4 :][:TAIL].split("\n") if line.strip()]
    if not lines:
        return None
    line = lines[0].strip("#* ")
    if is_prose(line) or re.fullmatch(r"(?i)(?:final )?answer:?", line):
        return None
    return Found(line, "####")


def _after_phrase(text: str, kind: Kind) -> Found | None:
    """Return what the last "the answer is" says; None when no such phrase states an answer."""
    ends = _phrase_ends(text)
    if "A" in text:
        ends += [m.end() for m in _LETTERED.finditer(text) if not _ANOTHER_LETTER.search(text, m.end(), m.end() + TAIL)]
    for end in sorted(ends, reverse=True)[:8]:
        found = _phrase_at(text, end, kind)
        if found is not None:
            return found
        if text[end : end + TAIL].strip():
            said = text[end : end + 80]
            if not _NO_CLAIM.match(said):
                return None
    return None


def _phrase_ends(text: str) -> list[int]:
    """Return where phrases such as "the answer is" end, the stems looked up first: that is ten times as fast."""
    lower = text.lower()
    if len(lower) != len(text):  # letters whose lower case is longer
        return [match.end() for pattern in (_PHRASE, _PHRASE_FAR) for match in pattern.finditer(text)]
    ends: list[int] = []
    for stem in _STEMS:
        at = lower.find(stem)
        while at != -1:
            matches = (pattern.match(text, at) for pattern in (_PHRASE, _PHRASE_FAR))
            ends += [match.end() for match in matches if match]
            at = lower.find(stem, at + 1)
    return ends


def _phrase_at(text: str, end: int, kind: Kind) -> Found | None:
    raw = text[end : end + TAIL]
    if _NO_CLAIM.match(raw):
        return None
    before = text[max(end - 80, 0) : end]
    if any(word in before for word in _TEMPTING) and _TEMPTS.search(before):
        return None
    rest = with_prices_marked(_STRUCK.sub(" ", raw).lstrip(" *_}"))
    sentence = _first_sentence(rest)
    if rest[len(sentence) :].startswith(("?", "？")):
        if _DOUBTED.match(rest, len(sentence)):
            return Found("", "phrase")
        if _ASKS.search(text[max(end - 60, 0) : end]):
            return None
    if sentence.rstrip().endswith("}") and sentence.count("{") < sentence.count("}"):
        sentence = sentence.rstrip()[:-1]  # the end of a command around the whole
    following = rest[len(sentence) :].lstrip(".!? \n")
    if _HEDGED.match(following) or _TAKEN_BACK.match(sentence) or _RETRACTED.match(following):
        return Found("", "phrase")  # a hedge: the next sentence takes the answer back
    if kind == "choice":
        letter = chosen(sentence, phrase=True)
        if letter is not None:
            return Found(letter, "phrase")
    clause = _CLAUSE.search(sentence)
    if clause and sentence[: clause.start()].strip():
        sentence = sentence[: clause.start()]
    said = text[max(end - 12, 0) : end] + sentence
    kept = without_denied(said)
    if kept is None:
        return Found("", "phrase")
    if kept != said:
        sentence = kept[min(12, end) :] if kept[: min(12, end)] == said[: min(12, end)] else kept
    return claim(sentence, "phrase")


def _first_sentence(text: str) -> str:
    """Return the text up to its sentence's end; a full stop inside $...$ or \\[...\\] is no end."""
    text = text.lstrip()
    covered = 0
    for math in MATH.finditer(text[:TAIL]):
        stop = _SENTENCE_END.search(text, covered, math.start()) or _LINE.search(text, covered, math.start())
        if stop and text[: stop.start()].strip():
            return text[: stop.start()]
        covered = math.end()
    stop = _SENTENCE_END.search(text, covered)
    line = text.find("\n", covered)
    ends = [end for end in (stop.start() if stop else -1, line) if end > 0]
    return text[: min(ends)] if ends else text


def _unmarked(text: str, kind: Kind) -> Found | None:
    """Return a short text as the answer itself; of a longer one, what its last concluding sentence claims."""
    whole = (_CODE_BLOCK.sub("\n\n", text) if "```" in text else text).strip()
    end = _QED.search(whole, max(len(whole) - 24, 0))
    whole = whole[: end.start()] if end else whole
    if not whole:
        return None
    if whole[0] == "#" and _HEADINGS_ONLY.fullmatch(whole):
        return None
    aligned = _ALIGNED.search(whole) if "\\end{align" in whole[-20:] else None
    if aligned:
        return Found(aligned[1], "last line")
    if len(whole) <= 200 and not is_prose(whole):
        return _bare(whole, kind)
    tail = with_prices_marked(_STRUCK.sub(" ", whole[-TAIL:]))
    if kind != "value":
        found = _letter_or_words(tail, kind)
        if found is not None:
            return found
    statements = 0
    said = sentences(tail)
    if len(said) > 1 and any(all(map(form.fullmatch, (s.text for s in said[-2:]))) for form in (VALUE, _ONE_WORD)):
        return None  # numbers, or words, in lines of their own: a list of attempts
    for sentence in reversed(said):
        if sentence.kind == "skip":
            continue
        if sentence.kind in ("plan", "cut") or statements == 3:
            return None
        statements += 1
        found = claim(sentence.text, "last sentence")
        if found is not None:
            return None if _unclosed(sentence.text) else found
    return Found(whole, "bare") if len(whole) <= 200 and not any(c.isdigit() for c in whole) else None


def _bare(whole: str, kind: Kind) -> Found | None:
    """Return the text as an answer that stands alone; None when it breaks off inside a formula."""
    if kind == "choice":
        letter = chosen(whole)
        if letter is not None:
            return Found(letter, "bare")
    if kind == "value" and (HEDGE.match(whole) or _SUPPOSES.match(whole) or _lists_attempts(whole)):
        return None
    whole = with_prices_marked(_STRUCK.sub(" ", whole).strip())
    whole = _ORNAMENT.sub("", whole)
    if _unclosed(whole) or not whole:
        return None
    spelled = spelled_value(whole, "bare") if kind == "value" else None
    if spelled is not None:
        return spelled
    lead = _LEAD.match(whole)
    found = claim(whole[lead.end() :] if lead and lead.end() < len(whole) else whole, "bare")
    return found or Found(whole, "bare")


def _lists_attempts(text: str) -> bool:
    """Return True for a letter and numbers in lines of their own: read as one formula, they would be a product."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    letters = sum(len(line) == 1 and line.isalpha() for line in lines)
    return 0 < letters < len(lines) and all(len(line) == 1 or VALUE.fullmatch(line) for line in lines)


def _unclosed(text: str) -> bool:
    """Return True if a formula begins and does not end."""
    return "$" in text and len(re.findall(r"(?<!\\)\$", text)) % 2 == 1


def _letter_or_words(tail: str, kind: Kind) -> Found | None:
    """Return the choice, or the words, that the last sentences state."""
    said = [sentence.text for sentence in sentences(tail) if sentence.kind != "skip"]
    verdicts = set(_VERDICTS.findall(tail.lower()))
    one = not (verdicts >= {"yes", "no"} or verdicts >= {"true", "false"})
    for sentence in reversed(said[-3:]):
        if HEDGE.search(sentence):
            return None
        found = chosen(sentence) if kind == "choice" else chosen_words(sentence, first=one and sentence is said[0])
        if found is not None:
            return Found(found, "last sentence")
    return None
