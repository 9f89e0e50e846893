"""Finds the final answer in a completion. Every step is linear in the text; nothing here judges the answer.

Order: the last `\\boxed{}` (boxes that stand together are one answer), `<answer>`, `####`, "the answer is", the whole
text if it is short, else what the last sentence ends on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .memo import remembered
from .normalize import is_prose

MAX_COMPLETION = 2_000_000
"""Characters; of a longer completion only the end is read."""
MAX_JOINED = 64
"""Boxes side by side that are read as one answer."""
TAIL = 4_000
"""Characters at the end that are searched when nothing marks the answer."""

_THINKING = re.compile(r"<(/?)(?:think|thinking|thought|reasoning)>|<\|(begin|end)_of_thought\|>|◁(/?)think▷")
_NEXT_TURN = re.compile(r"<\|im_start\|>\s*(?:user|system)|<\|start_header_id\|>\s*user|<start_of_turn>\s*user")
_SPECIAL = re.compile(r"<\|[a-z_]{1,40}\|>|</s>|<s>|<(?:end|start)_of_turn>")
_BRACES = re.compile(r"[{}]|\\.", re.DOTALL)
_BOXES = (r"\boxed", r"\fbox", r"\framebox")
_BOX = re.compile(rf"(?:{'|'.join(map(re.escape, _BOXES))})(?![A-Za-z])\s*")
_ONE_TOKEN = re.compile(r"\\[A-Za-z]+|-?\d+(?:[.,]\d+)*|\S")
_ASKED = re.compile(r"[\s$)\]\\]{0,6}\?")
"""After a box: it stands in a question."""
_LEAD = re.compile(r"(?i)(?:hence|thus|so|therefore|then|finally|consequently|accordingly|it follows that)\b[,:]?\s*")
_JSON = re.compile(r'"(?:final[_ ]?)?answer"\s*:\s*(?:"((?:[^"\\]|\\.){1,400})"|([^",{}\s]{1,80}))', re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+")
_LABEL = re.compile(r"[A-Za-z](?:_\{?\w{1,4}\}?)?\s*=\s*$")
_JOINS = re.compile(r"[,;&]|\b(?:and|or)\b")
_PHRASE = re.compile(
    r"(?i)(?:\banswers?\b|\bréponse\b|\brespuesta\b|\bantwort\b|\bresposta\b|\brisposta\b|\bответ\b|\bđáp án\b"
    r"|\bodpowiedź\b|\bcevap\b|答案|答え|答えは|정답|답|الجواب|\bresult\b|\b(?:correct|right) (?:choice|option)\b)"
    r"(?:\s*[*_]*\s*(?:[:：=]|\bis\b|\bare\b|\best\b|\bist\b|\bes\b|\bé\b|\bè\b|\blà\b|是|为|為|は|은|는)|\s+(?=\\[(\[]|\$))"
    r"(?:\s|\*|__|[:：]|\b(?:is|therefore|thus|simply|exactly|equal to)\b)*"
)
_PHRASE_FAR = re.compile(r"(?i)\banswer (?:to|for|of) [^.\n:]{1,120}? is\s*:?\s*")
_SENTENCE_END = re.compile(r"(?<![A-Z])[.!?](?=\s|$)|[。！？]|\n\s*\n")
_MATH = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_BRACKETED = re.compile(r"(?<!\\)\[\s*([^\[\]]{1,80})\]")
_NUMBER = (
    r"[-−+]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:[.,]\d+)?|\.\d+)(?:\s?/\s?\d+(?:\.\d+)?)?"
    r"(?:\s?(?:\\?%|percent|°|m²|m\^2|€|£))?"
)
_NUMBERS = re.compile(rf"(?:(?:{_NUMBER})\s?)?(?:√\s?\d+|π)(?:\s?/\s?\d+)?|{_NUMBER}")
_HEDGE = re.compile(r"(?i)\b(?:maybe|perhaps|possibly|might|could be|not sure|unsure|guess(?:ing)?|either)\b")
_DENIAL = re.compile(
    r"(?i)(?:\bnot|n't|\bnever|\bneither|\bnor|\b(?:less|more|greater|fewer|smaller|larger|higher|lower) than"
    r"|\bat (?:least|most))\s+(?:\w+\s+)?$"
)
_CLAUSE = re.compile(r",?\s+(?:since|because|which|given that|i\.e\.)(?=\s)|,\s+as\s")
_FINAL = re.compile(r"(?i)\bfinal answer(?: is)?\s*:?\s*(?:the )?(?:final )?answer is:?\s*|\bfinal answer is:?\s*")
_COMMAND = re.compile(r"\\[A-Za-z]")
_ARITHMETIC = frozenset("+*/^_-√∛²³⁴")
_BETWEEN = re.compile(r"(?:\s|,|;|or|and|\$)*")
_RELATION = re.compile(r"[A-Za-z]\s*(?:<=|>=|!=|=|<|>)\s*[-+]?\d[\d./]*")
_EMPHASIS = re.compile(r"\*\*([^*\n]{1,200})\*\*")


@dataclass(frozen=True, slots=True)
class Found:
    """An answer as it stood in the text, and by what it was found."""

    text: str
    by: str


def final_answer(completion: str) -> Found | None:
    """The completion's answer, or None when there is none that can be read (unclosed thinking, an empty box)."""
    text = after_thinking(completion[-MAX_COMPLETION:])
    if text is None:
        return None
    text = _without_special_tokens(text)
    found = _marked(text) or _unmarked(text)
    return found if found and found.text else None


@remembered(4096)
def gold_answer(gold: str) -> str | None:
    """The answer of a dataset's row, which may be the bare answer or a whole solution. None when there is none."""
    gold = _without_special_tokens(gold[-MAX_COMPLETION:])
    box = _boxes(gold, unclosed=True)
    if box is not None:
        return box or None
    found = _tagged(gold) or _after_hashes(gold)
    if found is None and is_prose(gold):
        found = _after_phrase(gold) or (_unmarked(gold) if len(gold) > 200 else None)
    answer = found.text if found else gold
    return answer.strip() or None


def after_thinking(text: str) -> str | None:
    """What follows the thinking; None when the thinking never ends. A closing tag alone ends a prefilled block."""
    end = 0
    open_since: int | None = None
    for match in _THINKING.finditer(text):
        closes = match[1] == "/" or match[2] == "end" or match[3] == "/"
        open_since = None if closes else match.start()
        if closes:
            end = match.end()
    return None if open_since is not None else text[end:]


def _without_special_tokens(text: str) -> str:
    if "<" not in text:
        return text
    turn = _NEXT_TURN.search(text)
    if turn and text[: turn.start()].strip():
        text = text[: turn.start()]
    return _SPECIAL.sub("", text)


def _marked(text: str) -> Found | None:
    box = _boxes(text)
    tag = text.rfind("<answer>")
    if tag != -1:
        tagged = _tagged(text)
        if tagged is not None and (box is None or _last_box(text, len(text)) < tag):
            return tagged
    if box is not None and not _in_question(text):
        return (_after_box(text) or Found(box, "box")) if box else None
    if box is None and _last_box(text, len(text)) != -1:
        return Found("", "box")  # never closed: the answer was cut off
    return _after_hashes(text) or _in_json(text) or _after_phrase(text)


def _in_question(text: str) -> bool:
    """Whether the last box is what a question asks, `Is it \\boxed{42}?`, and more text follows."""
    box = _box_at(text, _last_box(text, len(text)))
    asked = _ASKED.match(text, box[1]) if box else None
    return asked is not None and bool(text[asked.end() :].strip())


def _in_json(text: str) -> Found | None:
    """The value of the last key `answer`."""
    if '"' not in text:
        return None
    found = _JSON.findall(text[-TAIL:])
    return Found(found[-1][0] or found[-1][1], "json") if found else None


def _after_box(text: str) -> Found | None:
    """A later "final answer is" overrules the last box, when an answer follows it."""
    last = None
    for match in _FINAL.finditer(text, _last_box(text, len(text))):
        last = match
    if last is None:
        return None
    found = answer_in_sentence(_first_sentence(text[last.end() : last.end() + TAIL]), "phrase")
    return found if found is not None and any(c.isdigit() for c in found.text) else None


def _tagged(text: str) -> Found | None:
    start = text.rfind("<answer>")
    if start == -1:
        return None
    end = text.find("</answer>", start)
    inner = text[start + 8 : end if end != -1 else len(text)].strip()
    box = _boxes(inner)
    inner = box if box else inner
    return Found(inner, "tag") if inner else None


def _last_box(text: str, before: int) -> int:
    return max(text.rfind(box, 0, before) for box in _BOXES)


def _box_at(text: str, start: int) -> tuple[str, int] | None:
    """Content and end of the box that starts there; None when its brace is never closed."""
    match = _BOX.match(text, start)
    if match is None:
        return None
    here = match.end()
    if here >= len(text):
        return None
    if text[here] != "{":  # \boxed 5: one token to TeX; who writes \boxed 42 means the number
        token = _ONE_TOKEN.match(text, here)
        return (token[0], token.end()) if token else None
    depth = 0
    last: re.Match[str] | None = None
    for brace in _BRACES.finditer(text, here):
        if brace[0] == "{":
            depth += 1
        elif brace[0] == "}":
            depth -= 1
            if depth == 0:
                return text[here + 1 : brace.start()].strip(), brace.end()
        last = brace
    if depth == 1 and last is not None and last[0] == "\\}" and not text[last.end() :].strip(" $.\n"):
        return text[here + 1 : last.start()].strip(), last.end()  # a stray backslash at the end of the answer
    return None


def _boxes(text: str, unclosed: bool = False) -> str | None:
    """The last box, joined with those just before it. None without a box, "" for an empty one."""
    start = _last_box(text, len(text))
    if start == -1:
        return None
    box = _box_at(text, start)
    if box is None:
        if not unclosed:
            return None
        match = _BOX.match(text, start)
        return text[match.end() :].strip().lstrip("{") if match else None
    parts = [box[0]]
    while len(parts) < MAX_JOINED:
        before = _last_box(text, start)
        previous = _box_at(text, before) if before != -1 else None
        if previous is None or previous[1] > start:
            break
        gap = text[previous[1] : start]
        if not _belongs_together(gap):
            break
        label = _LABEL.search(gap)
        if label and "=" not in parts[0]:
            parts[0] = label[0] + parts[0]
        parts.insert(0, previous[0])
        start = before
    if len(parts) == MAX_JOINED:
        return box[0]  # no list of answers is that long: the last box counts
    parts = list(dict.fromkeys(part for part in parts if part))
    return parts[0] if len(parts) == 1 else " ; ".join(parts) if any("," in p for p in parts) else ", ".join(parts)


def _belongs_together(gap: str) -> bool:
    """Whether two boxes with this between them are one answer: a comma, "and", or nothing, and few words."""
    if len(gap) > 80 or "\n\n" in gap or re.search(r"[.!?:](?:\s|\$)", gap):
        return False
    if not gap.strip(" $\\\n"):
        return True
    bare = re.sub(r"\\(?:quad|qquad|text|textbf|mathrm)|\\[()\[\],;!]", " ", gap)
    return len(_WORD.findall(bare)) <= 4 and (_JOINS.search(bare) is not None or not _WORD.search(bare))


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


def _after_phrase(text: str) -> Found | None:
    last = None
    for pattern in (_PHRASE, _PHRASE_FAR):
        for match in pattern.finditer(text):
            if last is None or match.end() > last.end():
                last = match
    if last is None:
        return None
    rest = text[last.end() : last.end() + TAIL].lstrip(" *_")
    sentence = _first_sentence(rest)
    if re.match(r"(?i)\s*(?:or|alternatively|but it (?:could|might|may))\b", rest[len(sentence) :].lstrip(".!? \n")):
        return Found("", "phrase")  # a hedge: the next sentence takes the answer back
    clause = _CLAUSE.search(sentence)
    if clause and sentence[: clause.start()].strip():
        sentence = sentence[: clause.start()]
    return answer_in_sentence(sentence, "phrase")


def _first_sentence(text: str) -> str:
    """Up to the sentence's end, but not inside of $...$ or \\[...\\], where a full stop is no end."""
    text = text.lstrip()
    covered = 0
    for math in _MATH.finditer(text[:TAIL]):
        stop = _SENTENCE_END.search(text, covered, math.start()) or re.compile(r"\n").search(
            text, covered, math.start()
        )
        if stop and text[: stop.start()].strip():
            return text[: stop.start()]
        covered = math.end()
    stop = _SENTENCE_END.search(text, covered)
    line = text.find("\n", covered)
    ends = [end for end in (stop.start() if stop else -1, line) if end > 0]
    return text[: min(ends)] if ends else text


def _unmarked(text: str) -> Found | None:
    """A short text is the answer itself; of a longer one, what its last sentence with an answer in it ends on."""
    whole = text.strip()
    if not whole:
        return None
    if len(whole) <= 200 and not is_prose(whole):
        lead = _LEAD.match(whole)
        return Found(whole[lead.end() :] if lead and lead.end() < len(whole) else whole, "bare")
    tail = whole[-TAIL:]
    sentences, start = [], 0
    for end in (*_SENTENCE_END.finditer(tail), None):
        sentence = tail[start : end.start() if end else len(tail)]
        if sentence.strip(" *$\n") and (end is None or not end[0].startswith(("?", "？"))):
            sentences.append(sentence)  # a question states no answer
        start = end.end() if end else start
    for sentence in reversed(sentences[-3:]):
        found = answer_in_sentence(sentence, "last sentence")
        if found is not None and not re.search(r"(?i)i hope (?:it|this)", sentence):
            return found
    return Found(whole, "bare") if len(whole) <= 200 else None


def answer_in_sentence(sentence: str, by: str) -> Found | None:
    """The answer that a sentence states: all of it, its formulas at the end, or its last number."""
    sentence = sentence.strip()
    if sentence.count("**") % 2 or (sentence.startswith("**") and sentence.endswith("**")):
        sentence = sentence.strip("*").strip()
    if not sentence:
        return None
    if not is_prose(sentence):
        return Found(sentence, by)
    formulas = list(_MATH.finditer(sentence))
    if formulas:
        chosen = [formulas[-1]]
        for earlier in reversed(formulas[:-1]):
            gap = sentence[earlier.end() : chosen[0].start()]
            if not (_JOINS.search(gap) and len(_WORD.findall(gap)) <= 2):
                break
            chosen.insert(0, earlier)
        joined = sentence[chosen[0].start() : chosen[-1].end()]
        after = sentence[chosen[-1].end() :].strip()
        if re.search(r"\b(?:is|are|by|of|equals)\s+\S*\d", after):
            return answer_in_sentence(after, by) if is_prose(after) else _last_numbers(after, by)
        if re.match(r"(?i)(?:or|and)\b", after) and _NUMBERS.search(after):
            joined += " " + after
        return Found(joined, by)
    for pattern in (_EMPHASIS, _BRACKETED):
        marked = pattern.findall(sentence)
        if marked and any(c.isdigit() for c in marked[-1]):
            inner = marked[-1].strip()
            return answer_in_sentence(inner, by) if is_prose(inner) else Found(inner, by)
    relations = _RELATION.findall(sentence)
    numbers = list(_NUMBERS.finditer(sentence))
    if relations and numbers and relations[-1].endswith(numbers[-1][0].strip()):
        return Found(relations[-1], by)
    return _last_numbers(sentence, by)


def _last_numbers(sentence: str, by: str) -> Found | None:
    """The last number of a sentence, with those that stand beside it; None when the sentence denies or hedges."""
    if _HEDGE.search(sentence) or _COMMAND.search(sentence):
        return None
    numbers = list(_NUMBERS.finditer(sentence))
    first = last = None
    for number in reversed(numbers):
        if number.start() and sentence[number.start() - 1].isascii() and sentence[number.start() - 1].isalpha():
            if first is None:
                continue
            break
        if first is not None and not _BETWEEN.fullmatch(sentence, number.end(), first.start()):
            break
        last = number if last is None else last
        first = number
    if first is None or last is None or _DENIAL.search(sentence, max(0, first.start() - 24), first.start()):
        return None
    before, after = sentence[: first.start()].rstrip()[-1:], sentence[last.end() : last.end() + 2]
    if (
        before in _ARITHMETIC
        or after[:1] == "?"
        or after[:1] in _ARITHMETIC
        or (re.match(r"[a-z](?![a-z])", after) and after[0] not in "mgsh")
        or after.lstrip().startswith("=")
    ):
        return None  # a piece of a formula is no answer, nor is what an equation asks for
    return Found(sentence[first.start() : last.end()], by)
