"""IFEval's instructions with the verdicts of the reference implementation, its mistakes included.

Written from its behavior (lm-eval 0.4.13), for comparisons with published numbers. Two things differ: the language is
detected with a fixed seed, and sentences are counted by this package, since NLTK's tokenizer needs a download.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ..language import language_of
from ..regex import count_matches
from .instructions import INSTRUCTIONS, OPTIONS, ConstraintError, Instruction, holds

_DIVIDER = re.compile(r"\s?\*\*\*\s?")
_STARS = re.compile(r"\*[^\n*]*\*")
_DOUBLE_STARS = re.compile(r"\*\*[^\n*]*\*\*")


def _matches(pattern: str, text: str, case: bool = False) -> int:
    """Return how often a keyword matches: the reference takes keywords as regular expressions."""
    try:
        return count_matches(pattern, text, case=case)
    except ValueError as error:
        raise ConstraintError(f"{pattern!r} is no regular expression: {error}") from error


def has_keywords(text: str, keywords: Sequence[str]) -> bool:
    return all(_matches(keyword, text) for keyword in keywords)


def keyword_frequency(text: str, keyword: str, frequency: int, relation: str) -> bool:
    return holds(_matches(keyword.strip(), text), relation, frequency)


def lacks_words(text: str, forbidden_words: Sequence[str]) -> bool:
    return not any(_matches(rf"\b{word}\b", text) for word in forbidden_words)


def response_language(text: str, language: str) -> bool:
    return (language_of(text, least=1) or language) == language


def number_words(text: str, num_words: int, relation: str) -> bool:
    return holds(len(re.findall(r"\w+", text)), relation, num_words)


def number_paragraphs(text: str, num_paragraphs: int) -> bool:
    parts = _DIVIDER.split(text)
    empty = [place for place, part in enumerate(parts) if not part.strip()]
    if any(0 < place < len(parts) - 1 for place in empty):
        return False
    return len(parts) - len(empty) == num_paragraphs


def nth_paragraph_first_word(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Count paragraphs without empty ones, but look the nth up among all."""
    parts = text.split("\n\n")
    count = sum(1 for part in parts if part.strip())
    if nth_paragraph > count or not nth_paragraph >= 1 or not parts[nth_paragraph - 1].strip():
        return False
    word = parts[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    return count == num_paragraphs and re.split(r"[.,?!'\"]", word)[0].lower() == first_word.lower()


def number_placeholders(text: str, num_placeholders: int) -> bool:
    count = 0
    for line in text.split("\n"):
        here = line.find("[")
        while here != -1 and (end := line.find("]", here)) != -1:
            count += 1
            here = line.find("[", end)
    return count >= num_placeholders


def postscript(text: str, postscript_marker: str) -> bool:
    marker = postscript_marker.strip()
    pattern = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}.get(marker, marker.lower())
    return bool(_matches(pattern, text.lower()))


def number_bullet_lists(text: str, num_bullets: int) -> bool:
    lines = [line.lstrip() for line in text.split("\n")]
    stars = sum(1 for line in lines if line.startswith("*") and not line.startswith("**"))
    return stars + sum(1 for line in lines if line.startswith("-")) == num_bullets


def constrained_response(text: str) -> bool:
    return any(option in text for option in OPTIONS)


def number_highlighted_sections(text: str, num_highlights: int) -> bool:
    single = sum(1 for found in _STARS.finditer(text) if found[0].strip("*").strip())
    double = sum(1 for found in _DOUBLE_STARS.finditer(text) if found[0][2:-2].strip())
    return single + double >= num_highlights


def multiple_sections(text: str, section_spliter: str, num_sections: int) -> bool:
    return _matches(rf"{section_spliter.strip()}\s?\d+", text, case=True) >= num_sections


def json_format(text: str) -> bool:
    text = text.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def title(text: str) -> bool:
    for line in text.split("\n"):
        begin, end = line.find("<<"), line.rfind(">>")
        if -1 < begin < end - 2 and line[begin : end + 2].lstrip("<").rstrip(">").strip():
            return True
    return False


def repeat_prompt(text: str, prompt_to_repeat: str) -> bool:
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def quotation(text: str) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def english_capital(text: str) -> bool:
    return text.isupper() and response_language(text, "en")


def english_lowercase(text: str) -> bool:
    return text.islower() and response_language(text, "en")


def no_comma(text: str) -> bool:
    return "," not in text


_OTHERS: Mapping[str, Callable[..., bool]] = {
    "keywords:existence": has_keywords,
    "keywords:frequency": keyword_frequency,
    "keywords:forbidden_words": lacks_words,
    "language:response_language": response_language,
    "length_constraints:number_words": number_words,
    "length_constraints:number_paragraphs": number_paragraphs,
    "length_constraints:nth_paragraph_first_word": nth_paragraph_first_word,
    "detectable_content:number_placeholders": number_placeholders,
    "detectable_content:postscript": postscript,
    "detectable_format:number_bullet_lists": number_bullet_lists,
    "detectable_format:constrained_response": constrained_response,
    "detectable_format:number_highlighted_sections": number_highlighted_sections,
    "detectable_format:multiple_sections": multiple_sections,
    "detectable_format:json_format": json_format,
    "detectable_format:title": title,
    "combination:repeat_prompt": repeat_prompt,
    "startend:quotation": quotation,
    "change_case:english_capital": english_capital,
    "change_case:english_lowercase": english_lowercase,
    "punctuation:no_comma": no_comma,
}

REFERENCE: Mapping[str, Instruction] = {
    name: replace(instruction, follows=_OTHERS.get(name, instruction.follows))
    for name, instruction in INSTRUCTIONS.items()
}
"""Instruction id → the reference's check."""
