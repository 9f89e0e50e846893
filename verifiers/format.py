"""The verifier `format`: the form of a completion, whatever it says; a gate or a part of a composed reward."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Annotated

from pydantic import AfterValidator, Field

from rlvr import Status, Task, Verdict, verifier

from .language import is_in
from .math.thinking import after_thinking
from .stated import stated_answer

_TAG = re.compile(r"<(/?)([A-Za-z][\w-]{0,39})>")


def _detectable(language: str) -> str:
    """Return the language code. Raises ValueError if none can be detected here."""
    if language and find_spec("langdetect") is None:
        raise ValueError("langdetect is not installed: pip install 'rlvr[ifeval]'")
    return language


@verifier(name="format", version="1", needs_answer=False, answer_form=None, partial_credit=True, cases="format.jsonl")
def check(
    completion: str,
    task: Task,
    *,
    tags: tuple[Annotated[str, Field(pattern=r"^[A-Za-z][\w-]{0,39}$")], ...] = ("think", "answer"),
    prefilled: bool = False,
    boxed: bool = False,
    language: Annotated[str, AfterValidator(_detectable)] = "",
    partial: bool = False,
) -> Verdict:
    """Return 1.0 when every rule holds; else 0.0, or with `partial` the share of the rules that hold.

    Each rule is a part of the verdict: `tags`, `box`, `language`.

    Args:
        completion: Text whose form is checked.
        task: Is not read.
        tags: Tags that must stand one after another, each once, with text in each and only blanks between them; an
            empty list allows any.
        prefilled: The prompt ends with the first opening tag, so that the completion must not repeat it.
        boxed: After the thinking, exactly one answer stands in a box.
        language: ISO 639-1 code of the language in which the text after the thinking must be.
        partial: Pay the share of the rules that hold.
    """
    rules: dict[str, str | None] = {}
    if tags:
        rules["tags"] = next(_faults(completion, tags, prefilled), None)
    if boxed:
        answer = stated_answer(completion, "boxed")
        rules["box"] = answer.reason if isinstance(answer, Verdict) else None
    if language:
        said = after_thinking(completion) or ""
        rules["language"] = None if is_in(_TAG.sub(" ", said), language) else f"the text is not in {language!r}"
    parts = {
        name: Verdict(status=Status.GRADED, reward=float(fault is None), reason=fault) for name, fault in rules.items()
    }
    held = sum(fault is None for fault in rules.values())
    reward = held / len(rules) if partial and rules else float(held == len(rules))
    broken = "; ".join(fault for fault in rules.values() if fault is not None)
    return Verdict(status=Status.GRADED, reward=reward, reason=broken or "every rule holds", parts=parts or None)


def _faults(text: str, tags: tuple[str, ...], prefilled: bool) -> Iterator[str]:
    """Yield what is wrong with the tags of a completion, the first fault first."""
    wanted = [(slash, tag) for tag in tags for slash in ("", "/")][prefilled:]
    found = [tag for tag in _TAG.finditer(text) if tag[2] in tags]
    for (slash, name), tag in zip(wanted, found, strict=False):
        if (tag[1], tag[2]) != (slash, name):
            yield f"<{tag[1]}{tag[2]}> stands where <{slash}{name}> belongs"
    if len(found) < len(wanted):
        slash, name = wanted[len(found)]
        yield f"there is no <{slash}{name}>"
    elif len(found) > len(wanted):
        yield f"<{found[len(wanted)][1]}{found[len(wanted)][2]}> stands there once too often"
    end, opened = 0, prefilled
    for tag in found:
        between = text[end : tag.start()].strip()
        if opened and not between:
            yield f"nothing stands in <{tag[2]}>"
        if not opened and between:
            yield f"text stands outside of the tags: {between[:40]!r}"
        end, opened = tag.end(), not tag[1]
    if found and text[end:].strip():
        yield f"text stands outside of the tags: {text[end:].strip()[:40]!r}"
