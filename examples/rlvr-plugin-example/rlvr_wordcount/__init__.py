"""Hooks of this package: names and their targets, which are imported when first used."""

from __future__ import annotations

from collections.abc import Mapping

import rlvr


@rlvr.hookimpl
def rlvr_verifiers() -> Mapping[str, str]:
    return {"word-count": "rlvr_wordcount.verifier:check"}


@rlvr.hookimpl
def rlvr_prompt_sources() -> Mapping[str, str]:
    return {"word-count": "rlvr_wordcount.prompts:WordCount"}
