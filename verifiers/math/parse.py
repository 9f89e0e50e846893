"""Parses a normalized answer into a tree (`tree.py`): answers apart by commas and words, in each of them one formula.

Words before, behind and instead of formulas are dealt with here; the grammar of the formulas is `Formula`. Nothing is
evaluated, and depth and size are bounded before parsing starts. What cannot be read as a whole is Unreadable: no part
of a formula that failed to parse is ever taken for the answer.
"""

from __future__ import annotations

import re

from .cursor import MAX_DEPTH, RELATIONS, WORDS
from .formula import Formula
from .lex import Token, tokens
from .tree import Expr, Unreadable, text
from .units import read_unit
from .vocabulary import vocabulary

_LIST_MARKS = frozenset({",", ";", "and", "or", "land", "lor"})
_FILLER = vocabulary(
    "the answer is are answers final about approximately approx exactly equal to of a an x either both maybe "
    "respectively therefore thus so hence total only option choice where value all real each"
)
_CONDITIONS = frozenset({"where", "for", "when", "if", "with", "for all", "for any", "such that", "whenever"})
_QUALIFIERS = vocabulary(
    "at least most less more than not over under below above between no minus negative up nor fewer greater "
    "never what which find how compute evaluate calculate solve simplify determine if unless"
)
"""Words before a number that make it another answer, or none."""
_DENIALS = frozenset({"wrong", "incorrect", "false", "not", "isn", "impossible", "invalid", "never"})
"""Words after a number that take it back."""
_VERBS = vocabulary(
    "divides divide is are equals exceeds beats precedes follows implies belongs lies does has contains"
)
"""Words behind a value that make a statement of it, if symbols follow."""
_BRACKETS = re.compile(r"[()\[\]{}]")


def parse(source: str) -> Expr:
    """Return the tree of a normalized answer. Raises Unreadable."""
    _check_depth(source)
    found = tokens(source)
    if not found:
        raise Unreadable("empty")
    return _answer(found)


def _check_depth(source: str) -> None:
    depth = 0
    for bracket in _BRACKETS.finditer(source):
        depth += 1 if bracket[0] in "([{" else -1
        if depth > MAX_DEPTH:
            raise Unreadable("nested too deeply")


# --- lists of answers


def _answer(found: list[Token]) -> Expr:
    """Return the whole token list: groups apart by semicolons, in them items apart by commas, "and", "or"."""
    groups: list[list[Expr]] = [[]]
    kinds: set[str] = set()
    start = 0
    names: list[str] = []
    for i, mark in [*_marks(found), (len(found), "")]:
        item = _item(found, start, i) if i > start else None
        if item is not None:
            groups[-1].append(item[0])
            names.append(item[1])
        kinds.add(mark)
        if mark == ";" and groups[-1]:
            groups.append([])
        start = i + 1
    groups = [group for group in groups if group]
    if not groups:
        raise Unreadable("nothing but separators")
    if len(groups) > 1 and any(len(group) > 1 for group in groups):
        items = tuple(group[0] if len(group) == 1 else Expr("list", tuple(group)) for group in groups)
    else:
        items = tuple(item for group in groups for item in group)
    if 1 < len(items) == len(names) and all(names):
        items = tuple(_named(item, name) for item, name in zip(items, names, strict=True))
    logic = kinds & {"land", "lor"}
    if len(items) > 1 and len(logic) == 1 and not any(item.op == "rel" for item in items):
        return Expr("cap" if "land" in logic else "cup", items)
    if len(items) > 1 and kinds & {"or", "lor"} and kinds <= {"or", "lor", ",", ""} and all(map(_is_ray, items)):
        return Expr("cup", items)
    return items[0] if len(items) == 1 else Expr("list", items)


def _marks(found: list[Token]) -> list[tuple[int, str]]:
    """Return the list marks outside of all brackets and environments, which divide the answer."""
    depth = 0
    marks: list[tuple[int, str]] = []
    for i, token in enumerate(found):
        if token.kind == "open" or (token.kind == "env" and token.value.startswith("begin")):
            depth += 1
        elif token.kind == "close" or (token.kind == "env" and token.value.startswith("end")):
            depth -= 1
        elif depth == 0 and token.kind == "op" and token.value in _LIST_MARKS:
            marks.append((i, token.value))
    if depth != 0 and any(t.kind == "env" for t in found):
        raise Unreadable("unbalanced environment")
    return marks


def _is_ray(node: Expr) -> bool:
    """Return True for `x < 3`, of which several joined by "or" are a union."""
    return node.op == "rel" and len(node.args[0]) == 1 and node.args[0][0] in ("<", "<=", ">", ">=")


def _named(item: Expr, name: str) -> Expr:
    """Return one of several parts with the words before it, `length 8`, as if they stood behind it."""
    scalar = item.op in ("num", "neg", "add", "mul", "div", "pow", "fun", "sym", "const")
    return Expr("qty", (item, name)) if scalar and read_unit(name) is None else item


# --- one answer


def _item(found: list[Token], start: int, end: int) -> tuple[Expr, str] | None:
    """Return one answer, with its unit or the words after it, and the words before it; None for a mere condition."""
    while start < end and _is_filler(found[start]) and end - start > 1:
        start += 1
        if found[start].kind == "op" and found[start].value == ":" and end - start > 1:
            start += 1
    while end - start > 1 and found[end - 1].kind == "word" and found[end - 1].value.lower() in _FILLER:
        end -= 1
    if start >= end:
        return None
    end = _without_remark(found, start, end)
    lead = start
    while lead < end and found[lead].kind in ("word", "text"):
        lead += 1
    if any(w in _QUALIFIERS for t in found[start:lead] for w in t.value.lower().split()) and lead < end:
        raise Unreadable("qualified by words")
    first = found[start]
    if first.kind in ("text", "word") and first.value.lower().strip(" ,:") in _CONDITIONS:
        return None
    if all(t.kind in WORDS or (t.kind == "op" and t.value in ("'", "-")) for t in found[start:end]):
        return text(" ".join(t.value for t in found[start:end])), ""
    label = ""
    if start < lead < end and first.value.lower() not in _CONDITIONS:
        label = " ".join(t.value for t in found[start:lead])
        start = lead
        if found[start] == Token("op", ":", found[start].spaced) and end - start > 1:
            start += 1
        first = found[start]
    if start == 0 and end == len(found) > 2 and first.value in ("max", "min") and _equals(found[1]):
        label, start = first.value, 2  # the maximum = 12
        first = found[start]
    if start == lead and lead > 0 and end - start > 1 and first == Token("op", "=", first.spaced):
        start += 1  # a label in words: Area = 12
        first = found[start]
    if first.kind == "unit" and end - start > 1:
        return _measured(found, start + 1, end, first.value), label
    if (
        end - start > 2
        and first.kind == "op"
        and first.value == "-"
        and found[start + 1].kind == "unit"
        and found[start + 1].value == "$"
    ):
        return _measured([*found[: start + 1], *found[start + 2 : end]], start, end - 1, "$"), label
    return _measured(found, start, end, None), label


def _equals(token: Token) -> bool:
    return token.kind == "op" and token.value == "="


def _without_remark(found: list[Token], start: int, end: int) -> int:
    """Return where the item ends without a remark in brackets: `10 (ten)`, `2k (k \\in Z)`."""
    if found[end - 1].kind != "close":
        return end
    for i in range(end - 2, start, -1):
        kind = found[i].kind
        if kind == "close" and found[i].value != "{":
            return end
        if kind == "open" and found[i].value == "(":
            inside = found[i + 1 : end - 1]
            words = all(t.kind in ("word", "text") for t in inside) and found[i].spaced
            condition = len(inside) > 2 and inside[1].kind == "op" and inside[1].value == "in" and i > start
            return i if inside and (words or condition) else end
    return end


def _is_filler(token: Token) -> bool:
    if token.kind == "op":
        return token.value in ("~", "and", "or")
    return token.kind in ("text", "word") and all(word in _FILLER for word in token.value.lower().strip(" :,").split())


def _measured(found: list[Token], start: int, end: int, money: str | None) -> Expr:
    """Return the expression in tokens [start, end) and the unit or the words that follow it."""
    split = end
    depth = 0
    for i in range(start, end):
        token = found[i]
        if token.kind == "open" or (token.kind == "env" and token.value.startswith("begin")):
            depth += 1
        elif token.kind == "close" or token.kind == "env":
            depth -= 1
        elif depth == 0 and i > start and token.kind in WORDS:
            split = i
            break
    words = _words_behind(found[split:end]) if split < end else ""
    while split > start and found[split - 1] == Token("op", "/", found[split - 1].spaced):
        split -= 1  # 5 / second
        words = "/ " + words
    formula = Formula(found, start, split)
    expr = formula.relation()
    if formula.here != split:
        raise Unreadable("something is left over")
    if expr.op == "sym" and len(words.split()) > 2:
        raise Unreadable("a sentence that begins with a letter")
    if money is not None:
        words = money + " " + words if words.strip() not in ("dollars", "dollar", "USD") else words
    return Expr("qty", (expr, words.strip())) if words.strip() else expr


def _words_behind(found: list[Token]) -> str:
    """Return the words after an expression that belong to it; none when they only say a condition."""
    words = " ".join(t.value for t in found)
    if not _DENIALS.isdisjoint(words.lower().split()):
        raise Unreadable("denied by words")
    if found[0].kind == "text" and words.lower().split(" ")[0] in _CONDITIONS:
        return ""
    if any(t.kind in ("cmd", "fun", "env", "bar") or (t.kind == "op" and t.value in RELATIONS) for t in found):
        raise Unreadable("words amid a formula")
    if _VERBS.intersection(words.lower().split()) and any(t.kind == "sym" for t in found):
        raise Unreadable("a statement about symbols")
    powers = sum(t.kind == "op" and t.value == "^" for t in found)
    if sum(t.kind == "num" for t in found) > powers:
        raise Unreadable("words amid numbers")
    return words
