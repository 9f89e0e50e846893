"""Language of a text by langdetect, seeded: the same text has the same language in every process."""

from __future__ import annotations

from functools import cache
from typing import Any

ENOUGH_LETTERS = 20
"""Letters that a text needs; the language of less is a guess. One CJK character counts as five."""
READ = 10_000
"""Characters that are read."""


@cache
def _factory() -> Any:
    from langdetect import detector_factory

    detector_factory.init_factory()
    factory = detector_factory._factory
    factory.set_seed(0)
    return factory


def preload() -> None:
    """Load the profiles of all languages before worker processes are forked."""
    _factory()


def language_of(text: str, least: int = ENOUGH_LETTERS) -> str | None:
    """Return the ISO 639-1 code of a text's language (`zh-cn`, `zh-tw` for Chinese); None if it has too few letters."""
    from langdetect.lang_detect_exception import LangDetectException

    text = text[:READ].encode("utf-8", "replace").decode()
    if sum(5 if character >= "\u2e80" else 1 for character in text if character.isalpha()) < least:
        return None
    detector = _factory().create()
    detector.append(text)
    try:
        found: str = detector.detect()
    except LangDetectException:
        return None
    return found


def is_in(text: str, language: str) -> bool:
    """Return whether a text is in this language; `zh` is any Chinese. False if the text is too short to tell."""
    found = language_of(text)
    return found is not None and (found == language or found.partition("-")[0] == language)
