"""Tests of a row, in the layouts of published data sets. Nothing of a row is executed or unpickled here.

asserts       a list of statements (MBPP): calls where both sides are literals, test code otherwise
check         `test` defines check(candidate) for `entry_point` (HumanEval, and EvalPlus's inputs and results)
in and out    {"inputs", "outputs", "fn_name"?} (APPS, TACO), or a list of {"input", "output", "type"?, "fn_name"?}
              (LiveCodeBench, DeepCoder, open-r1), also as {"test_cases": […]}
"""

from __future__ import annotations

import ast
import builtins
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from rlvr import Task

from .errors import RowError
from .packed import unpacked

LONGEST_CODE = 2_000_000
"""Characters of test code."""
_COLUMNS = ("input_output", "tests", "test_cases", "verification_info", "official_tests", "ground_truth")
"""Columns that may hold tests, if the gold answer holds none."""


@dataclass(frozen=True)
class CallTest:
    """A call, and the values of which it must return one."""

    name: str
    arguments: Sequence[Any]
    keywords: Mapping[str, Any]
    expected: Sequence[Any]
    tolerance: float = 0.0
    sequences: bool = False
    """Whether a tuple may be returned for a list."""


@dataclass(frozen=True)
class ScriptTest:
    """Standard input of a program, and the output that it must have."""

    given: str
    expected: str


@dataclass(frozen=True)
class CodeTest:
    """A statement of test code, which must not raise."""

    source: str


Test: TypeAlias = CallTest | ScriptTest | CodeTest


@dataclass(frozen=True)
class RowTests:
    """Tests of a row, and what belongs to them."""

    tests: Sequence[Test]
    before: str = ""
    """Code of the row that stands before the program: HumanEval's prompt."""
    entry: str = ""
    """The function that the program completes or defines, if `before` begins it."""
    setup: str = ""
    """Code of the row that its test code needs."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Names in its test code that stand for names of the program."""
    prelude: bool = False
    """Whether the program may use `List` and the like without an import."""


def read_tests(task: Task) -> RowTests:
    """Return the tests of a row. Raises RowError if it has none that can be read."""
    columns, gold = task.extra, task.answer
    if columns.get("generated_checker") or columns.get("input_mode") == "file":
        raise RowError("the row needs a checker program or files, which this verifier has not")
    try:
        if isinstance(columns.get("entry_point"), str):
            return _humaneval(columns, gold)
        test = columns.get("test")
        if isinstance(test, str) and "results" in test and (found := _evalplus(test, "")) is not None:
            return RowTests(found)
        statements = columns.get("test_list")
        if statements is None:
            statements = _json(gold)
        if isinstance(statements, list) and statements and all(isinstance(each, str) for each in statements):
            return _asserts(statements, columns)
        if "public_test_cases" in columns or "private_test_cases" in columns:
            return _livecodebench(columns, gold)
        for value in (gold, *(columns.get(name) for name in _COLUMNS)):
            if (tests := list(_in_and_out(_json(value), columns))) != []:
                return RowTests(tests, prelude=True)
    except (RecursionError, MemoryError) as error:
        raise RowError("tests that are nested too deeply") from error
    raise RowError(
        "the row has no tests: give asserts in 'test_list', 'test' with 'entry_point', or inputs and outputs as the "
        "gold answer or in one of " + ", ".join(_COLUMNS)
    )


def _json(value: Any) -> Any:
    """Return the value of a JSON text that holds a list or an object; any other value as it is."""
    if isinstance(value, str):
        if value.lstrip()[:1] not in ("[", "{"):
            return None
        try:
            return json.loads(value)
        except ValueError as error:
            raise RowError(f"tests that are no JSON: {error}") from error
    return value


# --- statements -----------------------------------------------------------------------------------------------------


def _parsed(source: str) -> ast.Module:
    if len(source) > LONGEST_CODE:
        raise RowError(f"test code of {len(source):,} characters: at most {LONGEST_CODE:,} are read")
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise RowError(f"test code that is no Python: {error}") from error


def _asserts(statements: Sequence[str], columns: Mapping[str, Any]) -> RowTests:
    """Return MBPP's tests."""
    imports = columns.get("test_imports") or []
    before = "\n".join([*map(str, imports), str(columns.get("test_setup_code") or "")]).strip()
    tests: list[Test] = []
    for statement in statements:
        body = _parsed(statement).body
        plain = [_plain(node) for node in body]
        calls = [call for call in plain if call is not None]
        tests += calls if body and len(calls) == len(body) else [CodeTest(statement)]
    code = "\n".join(test.source for test in tests if isinstance(test, CodeTest))
    return RowTests(tests, setup=_with_modules(before, code), names=_free_names(before, code))


def _humaneval(columns: Mapping[str, Any], gold: str | None) -> RowTests:
    entry, prompt = columns["entry_point"], columns.get("prompt") or columns.get("question") or ""
    test = columns["test"] if isinstance(columns.get("test"), str) else gold or ""
    tree = _parsed(test)
    checks = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check"]
    if len(checks) != 1 or len(checks[0].args.args) != 1:
        raise RowError("'test' defines no check(candidate)")
    candidate = checks[0].args.args[0].arg
    if (found := _evalplus(test, entry)) is not None:
        return RowTests(found, before=prompt, entry=entry)
    body = [node for node in checks[0].body if not isinstance(node, ast.Pass)]
    calls = [_plain(node, {candidate: entry, entry: entry}) for node in body]
    plain: list[Test] = [call for call in calls if call is not None]
    if plain and len(plain) == len(body):
        return RowTests(plain, before=prompt, entry=entry)
    # The row's own helpers are those of the prompt, never those of the program.
    setup = f"{completed(prompt)}\n\n{test}\n{entry} = _the_program\n"
    steps = [CodeTest(f"check({entry})")]
    return RowTests(steps, before=prompt, entry=entry, setup=setup, names={"_the_program": entry})


def completed(prompt: str) -> str:
    """Return a prompt that ends in the head of a function, as code that can be run."""
    try:
        ast.parse(prompt)
    except (SyntaxError, ValueError):
        return f"{prompt}\n    pass\n"
    return prompt


def _plain(node: ast.stmt, known: Mapping[str, str] | None = None) -> CallTest | None:
    """Return an assert as a call, if it only compares a call of literals with a literal. `known`: names to call."""
    if not isinstance(node, ast.Assert):
        return None
    test, expected = node.test, True
    if isinstance(test, ast.Compare):
        if len(test.ops) != 1 or not isinstance(test.ops[0], ast.Eq | ast.Is):
            return None
        left, right = test.left, test.comparators[0]
        sides = (left, right) if isinstance(left, ast.Call) and isinstance(left.func, ast.Name) else (right, left)
        test, value = sides[0], _literal(sides[1])
        singleton = value == () or (value[0] is not None and not isinstance(value[0], bool))
        if not value or (isinstance(node.test, ast.Compare) and isinstance(node.test.ops[0], ast.Is) and singleton):
            return None
        expected = value[0]
    else:
        return None  # `assert f(x)`: any true value
    if not isinstance(test, ast.Call) or not isinstance(test.func, ast.Name):
        return None
    name = test.func.id if known is None else known.get(test.func.id, "")
    if not name or hasattr(builtins, name):
        return None
    arguments = [_literal(argument) for argument in test.args]
    keywords = {keyword.arg: _literal(keyword.value) for keyword in test.keywords}
    if None in keywords or () in arguments or () in keywords.values():
        return None
    values = {str(key): value[0] for key, value in keywords.items()}
    return CallTest(name, [argument[0] for argument in arguments], values, [expected])


def _literal(node: ast.expr) -> tuple[Any, ...]:
    """Return the value of a literal, in a tuple; an empty one for anything else."""
    try:
        return (ast.literal_eval(node),)
    except (ValueError, TypeError, SyntaxError):
        return ()


def _evalplus(test: str, entry: str) -> list[Test] | None:
    """Return the calls of EvalPlus's test: two lists of literals, and a loop that compares. None for another test."""
    inputs = results = call = None
    tolerance = 0.0
    for node in ast.walk(_parsed(test)):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and (value := _literal(node.value)):
            if node.targets[0].id == "inputs":
                inputs = value[0]
            elif node.targets[0].id == "results":
                results = value[0]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "assertion":
            (first, *_), bound = node.args, _literal(node.args[-1])
            call = first.func.id if isinstance(first, ast.Call) and isinstance(first.func, ast.Name) else None
            tolerance = float(bound[0]) if bound and isinstance(bound[0], int | float) else 0.0
    if not isinstance(inputs, list) or not isinstance(results, list) or call is None or len(inputs) != len(results):
        return None
    pairs = zip(inputs, results, strict=True)
    return [CallTest(entry or call, given, {}, [expected], tolerance) for given, expected in pairs if given is not None]


def _loaded(source: str) -> set[str]:
    return {
        node.id for node in ast.walk(_parsed(source)) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }


def _modules(source: str) -> set[str]:
    """Return the modules of the standard library whose attributes are used."""
    tree = _parsed(source)
    used = {
        node.value.id for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    return used & sys.stdlib_module_names


def _with_modules(setup: str, code: str) -> str:
    """Return the setup with imports of the modules that test code uses: never those of the program."""
    imports = [f"import {name}" for name in sorted(_modules(code))]
    return "\n".join([*imports, setup])


def _free_names(setup: str, code: str) -> dict[str, str]:
    """Return the names of the program that setup and test code use. A name that the setup defines is replaced there."""
    used = _loaded(setup) | _loaded(code)
    return {name: name for name in sorted(used) if not hasattr(builtins, name) and name not in _modules(code)}


# --- inputs and outputs ---------------------------------------------------------------------------------------------


def _livecodebench(columns: Mapping[str, Any], gold: str | None) -> RowTests:
    cases: list[Any] = []
    for value in (columns.get("public_test_cases"), columns.get("private_test_cases", gold)):
        if value is not None:
            found = _json(value) if not isinstance(value, str) or value.lstrip()[:1] in ("[", "{") else unpacked(value)
            cases += found if isinstance(found, list) else []
    tests = list(_in_and_out(cases, columns))
    if not tests:
        raise RowError("no test cases")
    return RowTests(tests, prelude=True)


def _in_and_out(value: Any, columns: Mapping[str, Any]) -> Iterator[Test]:
    """Yield the tests of a value that holds inputs and outputs; nothing if it holds none."""
    if isinstance(value, Mapping) and "test_cases" in value:
        if str(value.get("language") or "python").casefold() not in ("python", "python3"):
            raise RowError(f"tests of programs in {value['language']}")
        value = _json(value["test_cases"])
    if isinstance(value, Mapping) and "inputs" in value and "outputs" in value:
        inputs, outputs = value["inputs"], value["outputs"]
        if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
            raise RowError("'inputs' and 'outputs' are no lists of equal length")
        for given, expected in zip(inputs, outputs, strict=True):
            yield _case(given, expected, value.get("fn_name"), {})
    elif isinstance(value, list):
        for case in value:
            if not isinstance(case, Mapping) or "input" not in case or "output" not in case:
                raise RowError("a test case that is no object with 'input' and 'output'")
            yield _case(case["input"], case["output"], _function(case, columns), case)


def _function(case: Mapping[str, Any], columns: Mapping[str, Any]) -> str | None:
    """Return the name of the function that a test case calls; None if it is a script."""
    kind = str(case.get("testtype") or case.get("type") or "")
    if kind.startswith("stdin"):
        return None
    if isinstance(case.get("fn_name"), str) and case["fn_name"]:
        return str(case["fn_name"])
    for about in (case.get("metadata"), columns.get("metadata")):
        about = _json(about)
        if isinstance(about, Mapping) and isinstance(about.get("func_name"), str) and about["func_name"]:
            return str(about["func_name"])
    if kind in ("functional", "function_call"):
        raise RowError("a test case that calls a function without its name")
    return None


def _case(given: Any, expected: Any, function: Any, case: Mapping[str, Any]) -> Test:
    if function is None or function == "":
        return ScriptTest(_text(given), _text(expected))
    if not isinstance(function, str) or not function.isidentifier():
        raise RowError(f"{str(function)[:80]!r} is no name of a function")
    functional = case.get("testtype") == "functional" or isinstance(given, str)
    if functional:  # a JSON value a line
        lines = [line for line in _text(given).split("\n") if line.strip()]
        try:
            arguments = [json.loads(line) for line in lines]
            values = [json.loads(expected) if isinstance(expected, str) else expected]
        except ValueError as error:
            raise RowError(f"arguments or a result that are no JSON: {error}") from error
    else:
        arguments = list(given) if isinstance(given, list) else [given]
        # Results stand in a list of one, or not: the layout does not say.
        values = [expected, *(expected if isinstance(expected, list) and len(expected) == 1 else ())]
    return CallTest(function, arguments, {}, values, tolerance=1e-9, sequences=True)


def _text(value: Any) -> str:
    """Return an input or output as text: a list is one of lines."""
    if isinstance(value, list):
        return "\n".join(map(str, value))
    if not isinstance(value, str):
        raise RowError(f"an input or output that is no text: {str(value)[:80]!r}")
    return value
