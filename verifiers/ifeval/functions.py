"""The functions of RLVR-IFeval: IFEval's instructions with other thresholds (exactly N, around N) and separators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..json_text import JsonTextError, read_json
from . import instructions as own
from .instructions import Instruction, holds, occurrences
from .texts import capital_words, sentences


def keyword_frequency(text: str, word: str, N: int) -> bool:
    return occurrences(text, word) == N


def letter_frequency(text: str, letter: str, N: int) -> bool:
    return own.letter_frequency(text, letter, N, "around")


def paragraph_count(text: str, N: int) -> bool:
    return own.number_paragraphs(text.replace("***", "\0").replace("* * *", "***"), N)


def word_constraint(text: str, N: int, quantifier: str) -> bool:
    return holds(len(text.split()), quantifier, N, slack=tenth(N))


def tenth(number: int) -> int:
    """Return how far "around" a number reaches: a tenth, but at least 1."""
    return max(round(number * 0.1), 1)


def sentence_constraint(text: str, N: int, quantifier: str) -> bool:
    return holds(sentences(text), quantifier, N, slack=1)


def nth_paragraph(text: str, N: int, first_word: str, i: int) -> bool:
    return own.nth_paragraph_first_word(text, N, i, first_word)


def placeholders(text: str, N: int) -> bool:
    return own.number_placeholders(text, N)


def bullet_points(text: str, N: int) -> bool:
    return own.number_bullet_lists(text, N)


def choice(text: str, options: Sequence[str]) -> bool:
    """Return whether exactly one of the options is named."""
    return sum(bool(occurrences(text, option)) for option in options) == 1


def highlighted_sections(text: str, N: int) -> bool:
    return own.number_highlighted_sections(text, N)


def sections(text: str, N: int, section_splitter: str) -> bool:
    return own.multiple_sections(text, section_splitter, N)


def json_format(text: str) -> bool:
    """Return whether the text is JSON, without a fence."""
    try:
        return isinstance(read_json(text.strip()), dict | list)
    except JsonTextError:
        return False


def repeat_prompt(text: str, original_prompt: str) -> bool:
    return own.repeat_prompt(text, original_prompt)


def capital_frequency(text: str, N: int, quantifier: str) -> bool:
    return holds(len(capital_words(text)), quantifier, N, slack=tenth(N))


def has_keywords(text: str, keyword_list: Sequence[str]) -> bool:
    return own.has_keywords(text, keyword_list)


FUNCTIONS: Mapping[str, Instruction] = {
    "verify_keywords": Instruction(has_keywords, {"keyword_list": list}),
    "verify_keyword_frequency": Instruction(keyword_frequency, {"word": str, "N": int}),
    "validate_forbidden_words": Instruction(own.lacks_words, {"forbidden_words": list}),
    "verify_letter_frequency": Instruction(letter_frequency, {"letter": str, "N": int}),
    "validate_response_language": Instruction(own.response_language, {"language": str}),
    "verify_sentence_constraint": Instruction(sentence_constraint, {"N": int, "quantifier": str}),
    "verify_paragraph_count": Instruction(paragraph_count, {"N": int}),
    "validate_word_constraint": Instruction(word_constraint, {"N": int, "quantifier": str}),
    "validate_paragraphs": Instruction(nth_paragraph, {"N": int, "first_word": str, "i": int}),
    "validate_placeholders": Instruction(placeholders, {"N": int}),
    "verify_postscript": Instruction(own.postscript, {"postscript_marker": str}),
    "verify_bullet_points": Instruction(bullet_points, {"N": int}),
    "validate_choice": Instruction(choice, {"options": list}),
    "validate_highlighted_sections": Instruction(highlighted_sections, {"N": int}),
    "validate_sections": Instruction(sections, {"N": int, "section_splitter": str}),
    "validate_json_format": Instruction(json_format, {}),
    "validate_title": Instruction(own.title, {}),
    "validate_two_responses": Instruction(own.two_responses, {}),
    "validate_repeat_prompt": Instruction(repeat_prompt, {"original_prompt": str}),
    "validate_end": Instruction(own.end_checker, {"end_phrase": str}),
    "validate_quotation": Instruction(own.quotation, {}),
    "validate_frequency_capital_words": Instruction(capital_frequency, {"N": int, "quantifier": str}),
    "validate_uppercase": Instruction(own.english_capital, {}),
    "validate_lowercase": Instruction(own.english_lowercase, {}),
    "validate_no_commas": Instruction(own.no_comma, {}),
}
"""`func_name` → its check and arguments."""
