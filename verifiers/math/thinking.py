"""Removal of a completion's thinking, in the formats that models write.

`NAMES` is the one list of tag names. Each is read in any case, as `<name>…</name>`, `<|name|>…<|/name|>`,
`<|begin_of_name|>…<|end_of_name|>`, `<|START_NAME|>…<|END_NAME|>`, `[name]…[/name]` and `◁name▷…◁/name▷`. Three formats
have no name: harmony's channels (also without their special tokens: `analysis…assistantfinal…`), reserved tokens
(`<unused94>…<unused95>`) and Apertus's `<|inner_prefix|>…<|inner_suffix|>`. The verifier's option `thinking` adds
names.
"""

from __future__ import annotations

import re
from functools import lru_cache

NAMES = (
    "think", "thinking", "thought", "thoughts", "thought_process", "seed:think", "reason", "reasoning", "reflect",
    "reflection", "scratchpad", "scratch_pad", "analysis", "inner_monologue", "internal_monologue", "inner_thoughts",
    "chain_of_thought", "cot",
)  # fmt: skip

_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>")
_CHANNEL_END = re.compile(r"<\|(?:end|return|call|start)\|>")
_PLAIN_CHANNEL = re.compile(r"\s*analysis(?=[A-Z\"'(\\$\d*])")
"""The start of a harmony completion whose special tokens were dropped: `analysisWe need to …`."""
_PLAIN_FINAL = "assistantfinal"
_AROUND_NAME = re.compile(r"^(?:begin|start|end)_(?:of_)?|_(?:start|end)$")
_NAME = r"(/?)\s?([A-Za-z_:]{2,40})"
_REST_OF_TAG = rf"\|?{_NAME}(?:\s[^<>]{{0,80}})?\|?"
_PLAIN_TAGS = re.compile(rf"<{_REST_OF_TAG}[>▷]")  # a literal first character is searched for 20 times as fast
_ANGULAR_TAGS = re.compile(rf"[<◁]{_REST_OF_TAG}[>▷]")
_TAGS = re.compile(rf"[<◁[]{_REST_OF_TAG}[>▷\]]")
_RESERVED = re.compile(r"<unused(\d+)>")


def _direction(slash: str, name: str, names: frozenset[str]) -> int:
    """Return 1 for a tag that opens thinking, -1 for one that closes it, 0 for any other."""
    name = name.lower()
    closes = bool(slash) or name.startswith("end_") or name.endswith("_end")
    core = _AROUND_NAME.sub("", name)
    if core in names or name in names:
        return -1 if closes else 1
    return {"inner_prefix": 1, "inner_suffix": -1}.get(name, 0)


@lru_cache(maxsize=64)
def _names(more: tuple[str, ...]) -> frozenset[str]:
    return frozenset(NAMES) | {name.lower() for name in more}


def after_thinking(text: str, more: tuple[str, ...] = ()) -> str | None:
    """Return what follows the thinking, or None when the thinking never ends.

    A closing tag without an opening one ends a block that the prompt had begun.
    """
    if "<|channel|>" in text:
        return _final_channel(text)
    if _PLAIN_FINAL in text:
        return text[text.rindex(_PLAIN_FINAL) + len(_PLAIN_FINAL) :]
    if _PLAIN_CHANNEL.match(text):
        return None
    brackets = "[" in text and ("[/" in text or text.lstrip()[:6].upper() in ("[THINK", "[REASO"))
    triangles = "◁" in text
    if not brackets and not triangles and "<" not in text:
        return text
    pattern = _TAGS if brackets else _ANGULAR_TAGS if triangles else _PLAIN_TAGS
    names = _names(more)
    end, open_since = 0, False
    for tag in pattern.finditer(text):
        direction = _direction(tag[1], tag[2], names)
        if direction:
            open_since = direction > 0
            end = end if open_since else tag.end()
    for token in _RESERVED.finditer(text) if "<unused" in text else ():
        open_since = int(token[1]) % 2 == 0
        end = end if open_since else max(end, token.end())
    return None if open_since else text[end:]


def _final_channel(text: str) -> str | None:
    """Return the message of harmony's last `final` channel, or None when there is none."""
    final = None
    for channel in _CHANNEL.finditer(text):
        if channel[1] == "final":
            final = channel
    if final is None:
        return None
    end = _CHANNEL_END.search(text, final.end())
    return text[final.end() : end.start() if end else len(text)]
