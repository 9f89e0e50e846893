"""Compares two parsed answers: lists, tuples, sets, matrices, relations, quantities, and the scalars in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Any, TypeAlias

from . import numeric
from .matrix import components, rows_of
from .options import Options
from .piecewise import same_function
from .region import integers, region, same_region
from .tidy import content_of, label_of, labeled, tidy
from .tree import Expr, has, num, rebuild, rename, symbols, walk
from .units import Unit, read_unit
from .values import same_values
from .words import text_key

MAX_ITEMS = 300
MAX_REPEATED = 3
"""Times that one value may be listed and still be one answer: `3/4, 0.75`, a double root."""

_INEQUALITIES = frozenset({"<", "<=", ">", ">=", "!="})
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "!=": "!=", "=": "="}
_SETS = frozenset({"tuple", "interval", "cup", "cap", "minus", "builder", "domain"})


def same(gold: Expr, answer: Expr, options: Options) -> bool:
    """Return whether the answer is the gold answer. All parts are required; what cannot be decided is not the same."""
    first, second = tidy(gold), tidy(answer)
    if first == second:
        return True
    return _same(first, second, options)


# --- dispatch -------------------------------------------------------------------------------------------------------

Pair: TypeAlias = tuple[Expr, Expr]


def _same(gold: Expr, answer: Expr, options: Options) -> bool:
    """Return whether two tidied answers are the same: each stage of `_STAGES` rewrites both, or decides."""
    if gold == answer:
        return True
    for stage in _STAGES:
        found = stage(gold, answer, options)
        if isinstance(found, bool):
            return found
        if found is not None:
            gold, answer = found
    return _same_scalars(gold, answer, options)


def _texts(gold: Expr, answer: Expr, options: Options) -> bool | None:
    kinds = {gold.op, answer.op}
    if "text" not in kinds:
        return None
    if "mul" in kinds:
        gold, answer = _spelled(gold), _spelled(answer)
    if "sym" in kinds:
        return text_key(gold.args[0]) == text_key(answer.args[0]) and len(gold.args[0]) == len(answer.args[0])
    return gold.op == answer.op and text_key(gold.args[0]) == text_key(answer.args[0])


def _cases(gold: Expr, answer: Expr, options: Options) -> bool | None:
    kinds = {gold.op, answer.op}
    if "rel" in kinds:
        return None
    if "cases" in kinds:
        return same_function(gold, answer)
    return False if "opaque" in kinds else None


def _rewritten(gold: Expr, answer: Expr, options: Options) -> Pair:
    """Return both sides with labels as equations, builders as sets, points as tuples, and R as the reals."""
    kinds = {gold.op, answer.op}
    if "ratio" in kinds or "list" in kinds:
        gold, answer = _with_labels(gold, answer), _with_labels(answer, gold)
    if "builder" in {gold.op, answer.op}:
        gold, answer = integers(gold) or gold, integers(answer) or answer
    if {gold.op, answer.op} & {"tuple", "matrix", "list"}:
        gold, answer = _as_points(gold, answer), _as_points(answer, gold)
    if {gold.op, answer.op} & _SETS and Expr("sym", ("R",)) in (gold, answer):
        reals = Expr("domain", ("R",))  # R typed plainly, where the other side is a set
        gold, answer = (reals if side == Expr("sym", ("R",)) else side for side in (gold, answer))
    return gold, answer


def _sets(gold: Expr, answer: Expr, options: Options) -> bool | Pair | None:
    """Compare sets of reals: end by end, then by their points; sets that are neither become lists."""
    if not ({gold.op, answer.op} & _SETS or _inequality(gold) or _inequality(answer)):
        return None
    if not options.intervals and _inequality(gold) != _inequality(answer):
        return None
    interval, answer_interval = _as_interval(gold), _as_interval(answer)
    ends = interval is not None and answer_interval is not None and gold.op != answer.op
    if gold.op == answer.op == "rel" and symbols(gold) == symbols(answer):
        ends = interval is not None and answer_interval is not None
    if ends and interval and answer_interval and _same_collections(interval, answer_interval, options):
        return True
    verdict = _same_regions(gold, answer)
    if verdict is not None:
        return verdict
    if ends and gold.op != answer.op:
        return False
    return _as_list(gold), _as_list(answer)


def _collections(gold: Expr, answer: Expr, options: Options) -> bool | None:
    kinds = {gold.op, answer.op}
    if not kinds & {"list", "set", "tuple", "interval"}:
        return None
    if kinds & {"mul", "add"} and rows_of(gold, True) and rows_of(answer, True):
        return None
    return _same_collections(gold, answer, options)


def _matrices(gold: Expr, answer: Expr, options: Options) -> bool | None:
    if any(has(side, "matrix") or (side.op in ("mul", "add") and has(side, "tuple")) for side in (gold, answer)):
        return _same_matrices(gold, answer, options)
    return None


def _relations(gold: Expr, answer: Expr, options: Options) -> bool | None:
    return _same_relations(gold, answer, options) if "rel" in (gold.op, answer.op) else None


def _set_expressions(gold: Expr, answer: Expr, options: Options) -> bool | None:
    """Compare unions, intersections and differences of sets that are no sets of reals, part by part."""
    if not {gold.op, answer.op} & {"cup", "cap", "minus", "builder", "domain"}:
        return None
    if gold.op != answer.op or len(gold.args) != len(answer.args):
        return False
    if gold.op in ("cup", "cap"):
        return _matched(list(gold.args), list(answer.args), options)
    pairs = zip(gold.args, answer.args, strict=True)
    return all(isinstance(x, Expr) and isinstance(y, Expr) and same(x, y, options) for x, y in pairs)


_STAGES: tuple[Callable[[Expr, Expr, Options], bool | Pair | None], ...] = (
    _texts, _cases, _rewritten, _sets, _collections, _matrices, _relations, _set_expressions,
)  # fmt: skip


def _spelled(node: Expr) -> Expr:
    """Return a product of single letters as the word that they spell: III."""
    if node.op == "mul" and all(f.op in ("sym", "const") and len(f.args[0]) == 1 for f in node.args):
        return Expr("text", ("".join(f.args[0] for f in node.args),))
    return node


def _with_labels(node: Expr, other: Expr) -> Expr:
    """Return `w: 16, d: 3` with its labels as equations, if the other side has no ratio."""
    items = node.args if node.op == "list" else (node,)
    if has(other, "ratio") or not all(
        i.op == "ratio" and len(i.args) == 2 and i.args[0].op == "sym" and not symbols(i.args[1]) for i in items
    ):
        return node
    named = tuple(Expr("rel", (("=",), i.args)) for i in items)
    return Expr("list", named) if node.op == "list" else named[0]


def _as_points(node: Expr, other: Expr) -> Expr:
    """Return `A(1, 2)` as a point and `2i - 3j` as its components, if the other side is a tuple or a vector."""
    if node.op == "list" and other.op == "list":
        return Expr("list", tuple(_as_points(item, other.args[0]) for item in node.args)) if other.args else node
    rows = rows_of(other) if other.op == "matrix" else None
    size = len(other.args) - 2 if other.op == "tuple" else max(len(rows), len(rows[0])) if rows else 0
    if node.op == "call" and len(node.args) == size + 1 > 2 and len(node.args[0]) == 1 and node.args[0].isupper():
        return Expr("tuple", ("(", "(", *node.args[1:]))
    if node.op == "mul" and len(node.args) == 2 and node.args[1].op == "tuple" and other.op == "tuple":
        label = node.args[0]
        return node.args[1] if label.op == "sym" and label.args[0][0].isupper() else node
    if size and node.op in ("add", "mul", "neg", "sym", "const", "div") and not has(node, "tuple", "matrix"):
        parts = components(node, size)
        if parts is not None:
            return Expr("tuple", ("(", "(", *parts))
    return node


def _inequality(node: Expr) -> bool:
    if node.op == "list":
        return any(_inequality(item) for item in node.args)
    return node.op == "rel" and any(op in _INEQUALITIES or op in ("in", "notin") for op in node.args[0])


def _as_list(node: Expr) -> Expr:
    """Return `x < a or x > b`, whose ends are symbols, as the list of its parts."""
    return Expr("list", node.args) if node.op == "cup" and any(part.op == "rel" for part in node.args) else node


def _as_interval(node: Expr) -> Expr | None:
    """Return `a < x <= b` as the interval (a, b], also with symbols for ends; None for anything else."""
    if node.op in ("tuple", "interval") and len(node.args) == 4:
        return Expr("interval", node.args)
    if node.op != "rel":
        return None
    operators, operands = node.args
    infinite = Expr("const", ("inf",))
    if len(operands) == 3 and all(op in ("<", "<=") for op in operators) and operands[1].op == "sym":
        marks = ("(" if operators[0] == "<" else "[", "(" if operators[1] == "<" else "[")
        return Expr("interval", (*marks, operands[0], operands[2]))
    if len(operands) == 2 and operators[0] in ("<", "<="):
        mark = "(" if operators[0] == "<" else "["
        if operands[0].op == "sym":
            return Expr("interval", ("(", mark, Expr("neg", (infinite,)), operands[1]))
        if operands[1].op == "sym":
            return Expr("interval", (mark, "(", operands[0], infinite))
    return None


def _same_regions(gold: Expr, answer: Expr) -> bool | None:
    """Return whether two sets of reals are equal; None for anything else (points, tuples, parameters)."""
    if gold.op == answer.op == "tuple" and len(gold.args) == len(answer.args):
        return None  # end by end, which also keeps the precision that a decimal was written with
    if {gold.op, answer.op} <= {"tuple", "interval"} and len(gold.args) == len(answer.args) == 4:
        return None
    kinds = {gold.op, answer.op}
    points = kinds & {"list", "set"} and not kinds & {"cup", "minus", "builder", "cap"}
    if points and not (_inequality(gold) or _inequality(answer)):
        return None
    if gold.op == answer.op == "cup" and Counter(gold.args) == Counter(answer.args):
        return True
    first = region(gold)
    second = region(answer) if first is not None else None
    if first is None or second is None:
        return None
    return same_region(first, second)


# --- collections ----------------------------------------------------------------------------------------------------


def _items(node: Expr) -> list[Expr]:
    if node.op in ("tuple", "interval"):
        return list(node.args[2:])
    return list(node.args)


def _same_collections(gold: Expr, answer: Expr, options: Options) -> bool:
    kinds = {gold.op, answer.op}
    if kinds <= {"tuple", "interval"}:
        golds, answers = _items(gold), _items(answer)
        if len(golds) != len(answers):
            return False
        ends_differ = gold.args[:2] != answer.args[:2] and "[" in (*gold.args[:2], *answer.args[:2])
        if len(golds) == 2 and ends_differ and ("interval" in kinds or not _falls(golds)):
            return False
        return all(same(g, a, options) for g, a in zip(golds, answers, strict=True))
    if "matrix" in kinds:
        return _same_matrices(gold, answer, options)
    if kinds == {"set", "tuple"}:
        return False
    if kinds & {"rel"} and len(kinds) == 2:
        relation, other = (gold, answer) if gold.op == "rel" else (answer, gold)
        if labeled(relation):
            content = content_of(relation)
            return _same(content, other, options) if relation is gold else _same(other, content, options)
        return False
    if len(kinds) == 2 and not kinds <= {"list", "set", "tuple"}:
        collection, other = (gold, answer) if gold.op in ("list", "set", "tuple") else (answer, gold)
        items = _items(collection)
        if collection.op == "set" and len(items) == 1:
            return same(items[0], other, options) if collection is gold else same(other, items[0], options)
        if collection.op == "list" and all(labeled(i) or _numeric(i) for i in items) and len(items) <= MAX_REPEATED:
            distinct = list(dict.fromkeys(content_of(i) for i in items))
            if len(distinct) == 1:
                return same(distinct[0], other, options) if collection is gold else same(other, distinct[0], options)
            if all(numeric.equal(distinct[0], again) for again in distinct[1:]):  # 3/4 or 0.75
                pairs = ((value, other) if collection is gold else (other, value) for value in distinct)
                return any(same(first, second, options) for first, second in pairs)
        return False
    golds, answers = _grouped(_items(gold)), _grouped(_items(answer))
    names, answer_names = _names(golds), _names(answers)
    if names and answer_names and sorted(names) == sorted(answer_names):
        return all(same(g, answers[answer_names.index(name)], options) for g, name in zip(golds, names, strict=True))
    gold_labels, labels = _labels(golds), _labels(answers)
    if gold_labels and labels:
        if Counter(gold_labels) == Counter(labels) or _indexed(gold_labels, labels):
            if len(set(gold_labels)) == len(gold_labels) and Counter(gold_labels) == Counter(labels):
                by_label = dict(zip(labels, answers, strict=True))
                return all(
                    same(content_of(g), content_of(by_label[name]), options)
                    for name, g in zip(gold_labels, golds, strict=True)
                )
            return _matched([content_of(g) for g in golds], [content_of(a) for a in answers], options)
        return len(golds) == len(answers) and _matched(golds, answers, options)
    one = gold_labels or labels
    golds = [content_of(g) for g in _by_axis(golds, gold_labels)]
    answers = [content_of(a) for a in _by_axis(answers, labels)]
    if len(golds) != len(answers):
        golds, answers = _distinct(golds), _distinct(answers)
        if len(golds) != len(answers):
            return False
    in_order = "tuple" in kinds or options.ordered or bool(one and len(set(one)) == len(one) and not _one_family(one))
    if in_order:
        return all(same(g, a, options) for g, a in zip(golds, answers, strict=True))
    return _matched(golds, answers, options)


def _names(items: list[Expr]) -> list[str] | None:
    """Return the words beside each item, `12 boys, 18 girls`; None if one has none, shares them, or has a unit."""
    if not all(item.op == "qty" and read_unit(item.args[1]) is None for item in items):
        return None
    names = [text_key(item.args[1].strip("= ")) for item in items]
    return names if len(set(names)) == len(names) else None


def _falls(ends: list[Expr]) -> bool:
    """Return whether a pair cannot be an interval: [3, -2] and [1, 2i] are vectors."""
    low, high = (numeric.real_constant(end) for end in ends)
    mp = numeric.context()
    return low is not None and high is not None and bool(mp.im(low) or mp.im(high) or mp.re(low) > mp.re(high))


def _numeric(node: Expr) -> bool:
    return not symbols(node) and node.op not in ("text", "tuple", "set")


def _distinct(items: list[Expr]) -> list[Expr]:
    return list(dict.fromkeys(items))


def _labels(items: list[Expr]) -> list[Expr] | None:
    """Return the labels, when every item has one; None otherwise (`n = 1, 2, 3` has one for all)."""
    return [label_of(item) for item in items] if items and all(labeled(item) for item in items) else None


_AXES = [Expr("sym", (name,)) for name in "xyz"]


def _by_axis(items: list[Expr], labels: list[Expr] | None) -> list[Expr]:
    """Return the values of `y=1, x=2` in the order of their axes, (2, 1), and other values as they stand."""
    if labels is None or len(set(labels)) < len(labels) or not all(label in _AXES for label in labels):
        return items
    return [item for _, item in sorted(zip(labels, items, strict=True), key=lambda pair: _AXES.index(pair[0]))]


def _indexed(a: list[Expr], b: list[Expr]) -> bool:
    """Return True for x_1, x_2 against x, x: roots of one unknown."""
    return _one_family(a) and _one_family(b) and _family(a[0]) == _family(b[0])


def _family(label: Expr) -> str:
    return str(label.args[0]).split("_")[0] if label.op in ("sym", "call") else repr(label)


def _one_family(labels: list[Expr]) -> bool:
    return len({_family(label) for label in labels}) == 1


def _grouped(items: list[Expr]) -> list[Expr]:
    """Return labeled values that repeat (`p=5, q=2, p=7, q=2`), or stand in groups, as one tuple a group."""
    out: list[Expr] = []
    for item in items:
        if item.op == "list" and all(labeled(inner) for inner in item.args):
            out.append(Expr("tuple", ("(", "(", *(content_of(inner) for inner in item.args))))
        else:
            out.append(item)
    labels = _labels(out)
    if labels:
        width = len(dict.fromkeys(labels))
        if 1 < width < len(labels) and len(labels) % width == 0:
            rows = [labels[i : i + width] for i in range(0, len(labels), width)]
            if all(row == rows[0] for row in rows):
                return [
                    Expr("tuple", ("(", "(", *(content_of(x) for x in out[i : i + width])))
                    for i in range(0, len(out), width)
                ]
    return out


def _matched(golds: list[Expr], answers: list[Expr], options: Options) -> bool:
    """Return whether each gold has an answer of its own, in any order."""
    if len(golds) != len(answers):
        return False
    counted_gold, counted = Counter(golds), Counter(answers)
    golds = list((counted_gold - counted).elements())
    answers = list((counted - counted_gold).elements())
    if len(golds) > MAX_ITEMS or len(golds) * len(answers) > MAX_ITEMS * 30:
        return False
    for gold in golds:
        for i, answer in enumerate(answers):
            if same(gold, answer, options):
                del answers[i]
                break
        else:
            return False
    return True


# --- matrices -------------------------------------------------------------------------------------------------------


def _same_matrices(gold: Expr, answer: Expr, options: Options) -> bool:
    if labeled(gold) or labeled(answer):
        return _same(content_of(gold), content_of(answer), options)
    first, second = rows_of(gold, gold.op != "tuple"), rows_of(answer, answer.op != "tuple")
    if {gold.op, answer.op} & {"add", "mul"} and "tuple" in (gold.op, answer.op):
        first, second = rows_of(gold, True), rows_of(answer, True)
    if first is None or second is None:
        if gold.op not in ("matrix", "list", "tuple") and answer.op not in ("matrix", "list", "tuple"):
            return _same_scalars(gold, answer, options)
        rows, other = (first, answer) if first is not None else (second, gold)
        if rows is None or other.op not in ("tuple", "list") or min(len(rows), len(rows[0])) != 1:
            return False
        cells = [cell for row in rows for cell in row]
        items = _items(other)
        pairs = zip(cells, items, strict=False) if rows is first else zip(items, cells, strict=False)
        return len(cells) == len(items) and all(same(g, a, options) for g, a in pairs)
    if len(first) != len(second) or len(first[0]) != len(second[0]):
        return False
    return all(same(g, a, options) for r, s in zip(first, second, strict=True) for g, a in zip(r, s, strict=True))


# --- relations ------------------------------------------------------------------------------------------------------


def _difference(node: Expr) -> Expr:
    left, right = node.args[1]
    return Expr("add", (left, Expr("neg", (right,))))


def _cleared(node: Expr) -> Expr | None:
    """Return an equation without denominators: xy - 1 for y = 1/x; None if that adds solutions, as for y/x = 3."""
    (above, below), (other_above, other_below) = (_over(side) for side in node.args[1])
    cleared = Expr("add", (Expr("mul", (above, other_below)), Expr("neg", (Expr("mul", (other_above, below)),))))
    below_names = symbols(below) | symbols(other_below)

    def at_zero(n: Expr, name: str) -> Expr | None:
        unknown = Expr("sym", (name,))
        return num(0) if n == unknown or (n.op == "mul" and unknown in walk(n) and not has(n, "div", "add")) else None

    if not all(numeric.rational(rebuild(cleared, lambda n, s=name: at_zero(n, s))) for name in below_names):  # type: ignore[misc]
        return None
    return cleared if all(n.op in ("sym", "mul", "num") for part in (below, other_below) for n in walk(part)) else None


def _over(node: Expr) -> tuple[Expr, Expr]:
    """Return numerator and denominator of products, quotients and negations; a sum has the denominator 1."""
    if node.op == "neg":
        above, below = _over(node.args[0])
        return Expr("neg", (above,)), below
    if node.op == "mul":
        parts = [_over(factor) for factor in node.args]
        return Expr("mul", tuple(above for above, _ in parts)), Expr("mul", tuple(below for _, below in parts))
    if node.op == "div":
        (above, below), (inner_above, inner_below) = (_over(part) for part in node.args)
        return Expr("mul", (above, inner_below)), Expr("mul", (below, inner_above))
    return node, num(1)


def _same_relations(gold: Expr, answer: Expr, options: Options) -> bool:
    if gold.op != answer.op:
        relation, other = (gold, answer) if gold.op == "rel" else (answer, gold)
        if options.assignment and other.op == "modulo" and relation.args[0] == ("==",):  # x is congruent to ...
            residue = relation.args[1][1]
            return relation.args[1][0].op == "sym" and residue.op == "modulo" and _same(residue, other, options)
        if not options.assignment or not (labeled(relation) or (relation is answer and _states_a_value(relation))):
            return False
        content = content_of(relation) if labeled(relation) else relation.args[1][1]
        return _same(content, other, options) if relation is gold else _same(other, content, options)
    operators, answer_operators = gold.args[0], answer.args[0]
    if operators == answer_operators == ("=",):
        if labeled(gold) and labeled(answer):
            first, second = label_of(gold), label_of(answer)
            if (
                first == second
                or (
                    first.op == second.op != "sym"
                    and first.op not in ("call", "tuple")
                    and numeric.equal(first, second)
                )
                or _names_a_function(gold, answer)
                or _names_a_function(answer, gold)
            ):
                content, answer_content = content_of(gold), content_of(answer)
                old, new = gold.args[1][0], answer.args[1][0]
                if old.op == new.op == "call" and old != new:
                    names = {
                        b.args[0]: a.args[0]
                        for a, b in zip(old.args[1:], new.args[1:], strict=True)
                        if a.op == b.op == "sym"
                    }
                    answer_content = rename(answer_content, names)
                return same(content, answer_content, options)
            if first.op == second.op == "tuple" or not (symbols(gold.args[1][1]) or symbols(answer.args[1][1])):
                return False
        if any(side.op in ("tuple", "set", "list", "text", "matrix") for rel in (gold, answer) for side in rel.args[1]):
            return all(_same(g, a, options) for g, a in zip(gold.args[1], answer.args[1], strict=True))
        if numeric.proportional(_difference(gold), _difference(answer)):
            return True
        whole, answer_whole = _cleared(gold), _cleared(answer)
        return whole is not None and answer_whole is not None and bool(numeric.proportional(whole, answer_whole))
    if len(operators) != len(answer_operators):
        return False
    if len(operators) == 1 and operators[0] in _INEQUALITIES:
        if operators == answer_operators and bool(
            _same(gold.args[1][0], answer.args[1][0], options) and _same(gold.args[1][1], answer.args[1][1], options)
        ):
            return True
        first, second = _difference(gold), _difference(answer)
        if operators == answer_operators == ("!=",):
            return bool(numeric.proportional(first, second))
        if operators[0] != answer_operators[0]:
            if _FLIPPED[operators[0]] != answer_operators[0]:
                return False
            second = Expr("neg", (second,))
        return bool(numeric.proportional(first, second)) and _same_sign(first, second)
    if operators != answer_operators:
        return False
    return all(same(g, a, options) for g, a in zip(gold.args[1], answer.args[1], strict=True))


def _states_a_value(node: Expr) -> bool:
    """Return True for `m + n = 109`: what a question asked for, and its value. A gold of that form is an equation."""
    if node.args[0] != ("=",):
        return False
    left, right = node.args[1]
    names = symbols(left)
    calls = {n.args[0] for n in walk(left) if n.op == "call"}
    return len(names) > 1 and not symbols(right) and right != num(0) and calls <= {"angle"}


def _names_a_function(first: Expr, second: Expr) -> bool:
    """Return True for `y = x^2` against `f(x) = x^2`."""
    label, other = first.args[1][0], second.args[1][0]
    return (
        label == Expr("sym", ("y",)) and other.op == "call" and all(a.op == "sym" for a in other.args[1:])
        and symbols(first.args[1][1]) <= symbols(other)
    )  # fmt: skip


def _same_sign(first: Expr, second: Expr) -> bool:
    ratio = Expr("div", (first, second))
    env: dict[str, Any] = {name: numeric._point(name, 0) for name in symbols(ratio)}
    mp = numeric.context()
    try:
        value = numeric.Evaluator({k: mp.mpf(v.numerator) / v.denominator for k, v in env.items()})(ratio)
    except (numeric.Undefined, numeric.Unsupported):
        return False
    return bool(mp.re(value) > 0)


# --- scalars --------------------------------------------------------------------------------------------------------


def _same_scalars(gold: Expr, answer: Expr, options: Options) -> bool:
    if "qty" in (gold.op, answer.op):
        return _same_quantities(gold, answer, options)
    if "pct" in (gold.op, answer.op):
        return _same_percent(gold, answer, options)
    if "ratio" in (gold.op, answer.op):
        return _same_ratios(gold, answer, options)
    if "base" in (gold.op, answer.op):
        if gold.op == answer.op:
            return bool(numeric.equal(gold, answer))
        return any(n.op == "base" and n.args[1] == 10 for n in (gold, answer)) and bool(numeric.equal(gold, answer))
    if "modulo" in (gold.op, answer.op):
        if gold.op != answer.op:  # the modulus may be left out
            if any(side.op == "modulo" and symbols(side.args[1]) for side in (gold, answer)):
                return False
            first, second = (side.args[0] if side.op == "modulo" else side for side in (gold, answer))
            return _same(first, second, options)
        return all(_same(g, a, options) for g, a in zip(gold.args, answer.args, strict=True))
    if has(gold, "deg") or has(answer, "deg"):
        return _same_angles(gold, answer, options)
    return same_values(gold, answer, options)


def _split(node: Expr) -> tuple[Expr, str]:
    return (node.args[0], node.args[1]) if node.op == "qty" else (node, "")


def _same_quantities(gold: Expr, answer: Expr, options: Options) -> bool:
    (gold_value, gold_words), (value, words) = _split(gold), _split(answer)
    gold_value, value = tidy(gold_value), tidy(value)
    gold_unit, unit = (read_unit(w) if w else None for w in (gold_words, words))
    if {gold_words, words} & {"degC", "degF"} or options.units == "ignore":
        return (gold_words == words or not words or not gold_words or options.units == "ignore") and _same(
            gold_value, value, options
        )
    if "rel" in (gold_value.op, value.op):
        if labeled(gold_value) and labeled(value) and label_of(gold_value) != label_of(value):
            return False
        gold_value, value = content_of(gold_value), content_of(value)
    if gold_unit is not None and unit is not None:
        if gold_unit.dimension != unit.dimension:
            return _degrees_or_radians(gold_value, gold_unit, value, unit, options)
        if gold_unit.size == unit.size:
            return _same(gold_value, value, options)
        if {gold_value.op, value.op} & {"list", "tuple", "set", "rel", "text"}:
            return False
        factor = unit.size / gold_unit.size
        return same_values(gold_value, _scaled(value, factor), options) or _nearly(gold_value, _scaled(value, factor))
    for side, named in ((gold_value, unit), (value, gold_unit)):
        if named is not None and named.dimension == (("radian", 1),) and has(side, "deg"):
            return same_values(gold_value, value, options)  # 60 rad is written out: the sign of degrees counts
    if options.units == "require" and gold_words and not words:
        return False
    if unit is not None and not gold_words and unit.dimension == (("degree", 1),):
        return _same(gold_value, Expr("deg", (value,)), options)
    if gold_unit is not None and not words and gold_unit.dimension == (("degree", 1),):
        return _same(Expr("deg", (gold_value,)), value, options)
    return _same(gold_value, value, options)


def _nearly(gold: Expr, value: Expr) -> bool:
    """Return True if equal to a part in a thousand, the precision of conversions between systems of units."""
    first, second = numeric.real_constant(gold), numeric.real_constant(value)
    return first is not None and second is not None and bool(abs(first - second) * 1000 <= abs(first))


def _degrees_or_radians(gold: Expr, gold_unit: Unit, value: Expr, unit: Unit, options: Options) -> bool:
    names = {gold_unit.dimension, unit.dimension}
    if names == {(("degree", 1),), (("radian", 1),)}:
        first = Expr("deg", (gold,)) if gold_unit.dimension == (("degree", 1),) else gold
        second = Expr("deg", (value,)) if unit.dimension == (("degree", 1),) else value
        return same_values(first, second, options)
    return False


def _scaled(value: Expr, factor: Fraction) -> Expr:
    if value.op == "num" and value.args[1] is not None and factor.denominator == 1:
        digits = len(str(factor.numerator)) - 1
        if factor.numerator == 10**digits:
            return num(value.args[0] * factor, max(value.args[1] - digits, 0) or None)
    return Expr("mul", (value, num(factor)))


def _same_percent(gold: Expr, answer: Expr, options: Options) -> bool:
    if gold.op == answer.op:
        return _same_scalars(gold.args[0], answer.args[0], options)
    percent, other = (gold, answer) if gold.op == "pct" else (answer, gold)
    inner = percent.args[0]
    if options.percent_is_number and _ordered_same(percent is gold, inner, other, options):
        return True
    if not options.percent_is_ratio:
        return False
    if inner.op == "num" and inner.args[1] is not None:
        ratio = num(inner.args[0] / 100, inner.args[1] + 2)
    elif inner.op == "num":
        ratio = num(inner.args[0] / 100)
    else:
        ratio = Expr("div", (inner, num(100)))
    return _ordered_same(percent is gold, ratio, other, options)


def _ordered_same(first_is_gold: bool, first: Expr, second: Expr, options: Options) -> bool:
    return same_values(first, second, options) if first_is_gold else same_values(second, first, options)


def _same_ratios(gold: Expr, answer: Expr, options: Options) -> bool:
    if gold.op != answer.op:
        ratio, other = (gold, answer) if gold.op == "ratio" else (answer, gold)
        if len(ratio.args) != 2:
            return False
        return _ordered_same(ratio is gold, Expr("div", ratio.args), other, options)
    if len(gold.args) != len(answer.args):
        return False
    return (
        all(
            numeric.equal(Expr("mul", (gold.args[0], a)), Expr("mul", (answer.args[0], g)))
            for g, a in zip(gold.args[1:], answer.args[1:], strict=True)
        )
        and numeric.constant(gold.args[0]) != 0
    )


def _same_angles(gold: Expr, answer: Expr, options: Options) -> bool:
    both = has(gold, "deg") and has(answer, "deg")
    if both or options.degrees:

        def bare(node: Expr) -> Expr:
            return rebuild(node, lambda n: bare(n.args[0]) if n.op == "deg" else None)

        if not has(gold, "fun") and not has(answer, "fun") and same_values(bare(gold), bare(answer), options):
            return True
    return same_values(gold, answer, options)
