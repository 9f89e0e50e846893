"""The 25 instructions of IFEval, checked as they are meant: words are whole words, and nothing is left to chance."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..json_text import JsonTextError, read_json
from ..language import is_in, language_of
from .texts import capital_words, first_word, sentences, words

OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")

_BULLET = re.compile(r"[ \t]*(?:[*+•-])[ \t]+\S")
_HIGHLIGHT = re.compile(r"\*\*(?=\S)[^\n*]+\*\*|(?<![\w*])\*(?=[^\s*])[^\n*]+(?<!\s)\*(?!\*)")
_PLACEHOLDER = re.compile(r"\[[^\[\]\n]*\w[^\[\]\n]*\]")
_TITLE = re.compile(r"<<([^\n<>]+)>>")
_FENCE = re.compile(r"```(?:json)?\s", re.IGNORECASE)


class ConstraintError(ValueError):
    """A row's constraint is unknown, or its arguments are wrong; the message says how."""


@dataclass(frozen=True)
class Instruction:
    """A check of a text, and the types of its arguments."""

    follows: Callable[..., bool]
    arguments: Mapping[str, type]


def holds(count: int, relation: str, number: int, slack: int = 0) -> bool:
    """Return whether a count is in this relation to a number. Raises ConstraintError for an unknown relation."""
    match relation:
        case "at least":
            return count >= number
        case "less than":
            return count < number
        case "at most":
            return count <= number
        case "around":
            return abs(count - number) <= slack
    raise ConstraintError(f"the relation {relation!r} is unknown")


def occurrences(text: str, phrase: str) -> int:
    """Return how often a word or phrase stands in a text, in any case, as whole words."""
    inner = r"\s+".join(map(re.escape, phrase.split()))
    if not inner:
        raise ConstraintError("a keyword is empty")
    return sum(1 for _ in re.finditer(rf"(?<!\w){inner}(?!\w)", text, re.IGNORECASE))


def has_keywords(text: str, keywords: Sequence[str]) -> bool:
    return all(occurrences(text, keyword) for keyword in keywords)


def keyword_frequency(text: str, keyword: str, frequency: int, relation: str) -> bool:
    return holds(occurrences(text, keyword), relation, frequency)


def lacks_words(text: str, forbidden_words: Sequence[str]) -> bool:
    return not any(occurrences(text, word) for word in forbidden_words)


def letter_frequency(text: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    if len(letter) != 1:
        raise ConstraintError(f"{letter!r} is not one letter")
    return holds(text.casefold().count(letter.casefold()), let_relation, let_frequency)


def response_language(text: str, language: str) -> bool:
    return is_in(text, language)


def number_sentences(text: str, num_sentences: int, relation: str) -> bool:
    return holds(sentences(text), relation, num_sentences)


def number_words(text: str, num_words: int, relation: str) -> bool:
    return holds(len(words(text)), relation, num_words)


def number_paragraphs(text: str, num_paragraphs: int) -> bool:
    """Return whether `***` separates so many paragraphs; one before the first or after the last is allowed."""
    parts = [part.strip() for part in text.strip().split("***")]
    inner = parts[not parts[0] : len(parts) - (not parts[-1])]
    return all(inner) and len(inner) == num_paragraphs


def nth_paragraph_first_word(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    paragraphs = paragraphs_of(text)
    if len(paragraphs) != num_paragraphs or not 1 <= nth_paragraph <= num_paragraphs:
        return False
    return begins_with(paragraphs[nth_paragraph - 1], first_word)


def paragraphs_of(text: str) -> list[str]:
    """Return the paragraphs between blank lines."""
    lines = [line.strip() for line in text.strip().splitlines()]
    return [part for part in "\n".join(lines).split("\n\n") if part.strip()]


def begins_with(text: str, word: str) -> bool:
    return first_word(text) == word.strip().casefold()


def number_placeholders(text: str, num_placeholders: int) -> bool:
    return sum(1 for _ in _PLACEHOLDER.finditer(text)) >= num_placeholders


def postscript(text: str, postscript_marker: str) -> bool:
    """Return whether a line begins with the marker, and more follows."""
    marker = "".join(postscript_marker.split()).casefold()
    if not marker:
        raise ConstraintError("the marker of the postscript is empty")
    lines = text.splitlines()
    for number, line in enumerate(lines):
        head = "".join(line[:80].split()).lstrip("*_#>").casefold()
        if head.startswith(marker):
            rest = head.removeprefix(marker).strip("*_.:-")
            return bool(rest) or any(each.strip() for each in lines[number + 1 :])
    return False


def number_bullet_lists(text: str, num_bullets: int) -> bool:
    return sum(1 for line in text.splitlines() if _BULLET.match(line)) == num_bullets


def constrained_response(text: str) -> bool:
    """Return whether exactly one of the three answers is given."""
    return sum(option.casefold() in text.casefold() for option in OPTIONS) == 1


def number_highlighted_sections(text: str, num_highlights: int) -> bool:
    return sum(1 for _ in _HIGHLIGHT.finditer(text)) >= num_highlights


def multiple_sections(text: str, section_spliter: str, num_sections: int) -> bool:
    """Return whether lines begin with `Section 1`, `Section 2`, … up to the number."""
    name = section_spliter.strip().casefold()
    if not name:
        raise ConstraintError("the name of the sections is empty")
    found = set()
    for line in text.splitlines():
        head = line.strip(" \t*_#>").casefold()
        if head.startswith(name) and (number := re.match(r"\s{0,3}(\d{1,4})(?!\d)", head[len(name) :])):
            found.add(int(number[1]))
    return all(number in found for number in range(1, num_sections + 1))


def json_format(text: str) -> bool:
    """Return whether all of the text is a JSON object or list, in a fence or not."""
    text = text.strip()
    if text.startswith("```") and text.endswith("```") and len(text) > 6:
        text = _FENCE.sub("", text[:-3] + "\n", count=1)
    try:
        return isinstance(read_json(text), dict | list)
    except JsonTextError:
        return False


def title(text: str) -> bool:
    return any(found[1].strip() for found in _TITLE.finditer(text))


def two_responses(text: str) -> bool:
    parts = [part.strip() for part in text.strip().split("******")]
    inner = parts[not parts[0] : len(parts) - (not parts[-1])]
    return len(inner) == 2 and all(inner) and inner[0] != inner[1]


def repeat_prompt(text: str, prompt_to_repeat: str) -> bool:
    """Return whether the text begins with the request, and an answer follows."""
    said, wanted = text.strip().casefold(), prompt_to_repeat.strip().casefold()
    return said.startswith(wanted) and bool(said[len(wanted) :].strip(" \n*\"'."))


def end_checker(text: str, end_phrase: str) -> bool:
    return text.strip().strip('"').rstrip().casefold().endswith(end_phrase.strip().casefold())


def quotation(text: str) -> bool:
    text = text.strip()
    return len(text) > 2 and text[0] == text[-1] == '"' and bool(text[1:-1].strip())


def capital_word_frequency(text: str, capital_frequency: int, capital_relation: str) -> bool:
    return holds(len(capital_words(text)), capital_relation, capital_frequency)


def english_capital(text: str) -> bool:
    return text.isupper() and _is_english(text.lower())


def english_lowercase(text: str) -> bool:
    return text.islower() and _is_english(text)


def _is_english(text: str) -> bool:
    """Return whether a text is English; one too short to tell is, if it has no other letters than English."""
    found = language_of(text)
    return found == "en" or (found is None and all(each.isascii() for each in text if each.isalpha()))


def no_comma(text: str) -> bool:
    return not any(comma in text for comma in ",，、")


INSTRUCTIONS: Mapping[str, Instruction] = {
    "keywords:existence": Instruction(has_keywords, {"keywords": list}),
    "keywords:frequency": Instruction(keyword_frequency, {"keyword": str, "frequency": int, "relation": str}),
    "keywords:forbidden_words": Instruction(lacks_words, {"forbidden_words": list}),
    "keywords:letter_frequency": Instruction(
        letter_frequency, {"letter": str, "let_frequency": int, "let_relation": str}
    ),
    "language:response_language": Instruction(response_language, {"language": str}),
    "length_constraints:number_sentences": Instruction(number_sentences, {"num_sentences": int, "relation": str}),
    "length_constraints:number_paragraphs": Instruction(number_paragraphs, {"num_paragraphs": int}),
    "length_constraints:number_words": Instruction(number_words, {"num_words": int, "relation": str}),
    "length_constraints:nth_paragraph_first_word": Instruction(
        nth_paragraph_first_word, {"num_paragraphs": int, "nth_paragraph": int, "first_word": str}
    ),
    "detectable_content:number_placeholders": Instruction(number_placeholders, {"num_placeholders": int}),
    "detectable_content:postscript": Instruction(postscript, {"postscript_marker": str}),
    "detectable_format:number_bullet_lists": Instruction(number_bullet_lists, {"num_bullets": int}),
    "detectable_format:constrained_response": Instruction(constrained_response, {}),
    "detectable_format:number_highlighted_sections": Instruction(number_highlighted_sections, {"num_highlights": int}),
    "detectable_format:multiple_sections": Instruction(
        multiple_sections, {"section_spliter": str, "num_sections": int}
    ),
    "detectable_format:json_format": Instruction(json_format, {}),
    "detectable_format:title": Instruction(title, {}),
    "combination:two_responses": Instruction(two_responses, {}),
    "combination:repeat_prompt": Instruction(repeat_prompt, {"prompt_to_repeat": str}),
    "startend:end_checker": Instruction(end_checker, {"end_phrase": str}),
    "startend:quotation": Instruction(quotation, {}),
    "change_case:capital_word_frequency": Instruction(
        capital_word_frequency, {"capital_frequency": int, "capital_relation": str}
    ),
    "change_case:english_capital": Instruction(english_capital, {}),
    "change_case:english_lowercase": Instruction(english_lowercase, {}),
    "punctuation:no_comma": Instruction(no_comma, {}),
}
"""Instruction id → its check and arguments."""


def call(instruction: Instruction, name: str, arguments: Mapping[str, Any]) -> Callable[[str], bool]:
    """Return the check of a text with a row's arguments. Raises ConstraintError if one is missing or of another type.

    Arguments of other instructions, which are null in the row, are left out.
    """
    used: dict[str, Any] = {}
    for key, kind in instruction.arguments.items():
        value = arguments.get(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # a column of integers with nulls, as pandas reads it
        texts = kind is not list or (isinstance(value, list) and all(isinstance(each, str) for each in value))
        if not isinstance(value, kind) or isinstance(value, bool) or not texts:
            raise ConstraintError(f"{name}: {key!r} is {value!r}")
        used[key] = value
    return lambda text: instruction.follows(text, **used)
