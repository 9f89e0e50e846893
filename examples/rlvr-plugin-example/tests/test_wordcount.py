"""The checks that rlvr offers for a verifier and a prompt source. Run: pytest"""

from __future__ import annotations

from rlvr_wordcount.prompts import WordCount

from rlvr.testing import check_prompt_source, check_verifier


def test_the_verifier() -> None:
    check_verifier("word-count", threshold=1.0)


def test_the_prompts() -> None:
    check_prompt_source(WordCount)
    check_prompt_source(WordCount, options={"max_words": 2})
