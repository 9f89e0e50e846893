"""Tests of a row in every published layout, and packed tests that nobody unpickles."""

from __future__ import annotations

import ast
import base64
import contextlib
import json
import pickle
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr import Task
from rlvr_verifiers.code.errors import RowError
from rlvr_verifiers.code.packed import unpacked
from rlvr_verifiers.code.rows import CallTest, CodeTest, RowTests, ScriptTest, read_tests

LITERALS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.integers() | st.text(max_size=3), inner, max_size=3)
        | st.sets(st.integers(), max_size=3)
    ),
    max_leaves=6,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def read(answer: str | None = None, **columns: Any) -> RowTests:
    return read_tests(Task(answer=answer, extra=columns))


@settings(max_examples=40)
@given(st.lists(LITERALS, max_size=3), LITERALS)
def test_an_assert_of_literals_is_a_call(arguments: list[Any], expected: Any) -> None:
    statement = f"assert f({', '.join(map(repr, arguments))}) == {expected!r}"
    (test,) = read(test_list=[statement]).tests
    assert test == CallTest("f", arguments, {}, [expected])


@pytest.mark.parametrize(
    ("statement", "call"),
    [
        ("assert f(1) is None", CallTest("f", [1], {}, [None])),
        ("assert f(1, k=2) == True, 'message'", CallTest("f", [1], {"k": 2}, [True])),
        ("assert 3 == f(-1)", CallTest("f", [-1], {}, [3])),
        ("assert (f([])) == set()", CallTest("f", [[]], {}, [set()])),
    ],
)
def test_other_plain_asserts(statement: str, call: CallTest) -> None:
    assert read(test_list=[statement]).tests == [call]


@pytest.mark.parametrize(
    "statement",
    [
        "assert f(1)",
        "assert not f(1)",
        "assert f(1) != 2",
        "assert f(1) is 2",
        "assert f(1) == 2 == 2",
        "assert f(1) == g(2)",
        "assert f(g(1)) == 2",
        "assert f(x) == 2",
        "assert f(*[1]) == 2",
        "assert f(**{}) == 2",
        "assert sorted(f(1)) == [2]",
        "assert set([1]) == {1}",
        "assert len('a') == 1",
        "assert f.g(1) == 2",
        "assert abs(f(1) - 2) < 1e-6",
        "x = f(1)\nassert x == 2",
        "for i in range(3): assert f(i) == i",
    ],
)
def test_anything_else_is_test_code(statement: str) -> None:
    row = read(test_list=[statement])
    assert row.tests == [CodeTest(statement)]
    assert set(row.names) <= {"f", "g", "i", "x"}


def test_test_code_uses_its_own_modules_and_never_those_of_the_program() -> None:
    row = read(test_list=["assert math.isclose(f(1), root.value)"], test_setup_code="root = Node(1)")
    assert row.setup == "import math\nroot = Node(1)"
    assert set(row.names) == {"f", "Node", "root"}


PROMPT = 'def f(x):\n    """ Double. """\n'


def test_humaneval() -> None:
    test = "M = {}\ndef check(candidate):\n    assert candidate(1) == 2\n    assert f(2) == 4, 'two'\n"
    row = read(entry_point="f", prompt=PROMPT, test=test)
    assert row.tests == [CallTest("f", [1], {}, [2]), CallTest("f", [2], {}, [4])]
    assert (row.before, row.entry) == (PROMPT, "f")
    row = read(test + "    assert candidate(3) > 5\n", entry_point="f", prompt=PROMPT)
    assert row.tests == [CodeTest("check(f)")]
    assert row.names == {"_the_program": "f"}
    assert ast.parse(row.setup)


def test_evalplus() -> None:
    loop = "for i, (inp, exp) in enumerate(zip(inputs, results)):\n    assertion(f(*inp), exp, 1e-06)\n"
    row = read(test_list=["assert f(1) == 2"], test=f"import numpy\ninputs = [[1], [2]]\nresults = [2, 4]\n{loop}")
    assert row.tests == [CallTest("f", [1], {}, [2], 1e-6), CallTest("f", [2], {}, [4], 1e-6)]
    inner = loop.replace("f(*", "candidate(*").replace("\n", "\n    ")
    check = f"def check(candidate):\n    inputs = [[1]]\n    results = [2]\n    {inner}\n"
    assert read(entry_point="f", prompt=PROMPT, test=check).tests == [CallTest("f", [1], {}, [2], 1e-6)]


STDIN = {"input": "1 2\n", "output": "3\n"}
SCRIPT = ScriptTest("1 2\n", "3\n")


def call(*expected: Any) -> CallTest:
    return CallTest("f", [2], {}, list(expected), 1e-9, True)


@pytest.mark.parametrize(
    ("value", "test"),
    [
        ({"inputs": ["1 2\n"], "outputs": ["3\n"]}, SCRIPT),
        ({"inputs": [["1", "2"]], "outputs": [["3"]]}, ScriptTest("1\n2", "3")),
        ({"inputs": [[2]], "outputs": [4], "fn_name": "f"}, call(4)),
        ({"inputs": [[2]], "outputs": [[4]], "fn_name": "f"}, call([4], 4)),
        ([{**STDIN, "testtype": "stdin"}], SCRIPT),
        ([{**STDIN, "testtype": "stdin_stdout"}], SCRIPT),
        ([STDIN], SCRIPT),
        ([{"type": "function_call", "fn_name": "f", "input": [2], "output": [4]}], call([4], 4)),
        ([{"testtype": "functional", "input": "2", "output": "4", "metadata": {"func_name": "f"}}], call(4)),
        ({"language": "python", "test_cases": [{**STDIN, "fn_name": None, "type": "stdin_stdout"}]}, SCRIPT),
        ({"language": "Python", "test_cases": [{"fn_name": "f", "input": "2", "output": "4", "type": "x"}]}, call(4)),
    ],
)
@pytest.mark.parametrize("column", ["", "input_output", "tests", "verification_info"])
def test_inputs_and_outputs(value: Any, test: Any, column: str) -> None:
    row = read(**{column: value}) if column else read(json.dumps(value))
    assert row.tests == [test]
    assert row.prelude
    assert read(**{column or "tests": json.dumps(value)}).tests == [test]


def test_livecodebench() -> None:
    private = base64.b64encode(zlib.compress(pickle.dumps(json.dumps([STDIN])))).decode()
    row = read(public_test_cases=json.dumps([STDIN]), private_test_cases=private, metadata="{}")
    assert row.tests == [SCRIPT, SCRIPT]
    row = read(private, public_test_cases="[]", metadata="{}")
    assert row.tests == [SCRIPT]
    functional = {"input": "[1, 2]\n{}", "output": "true", "testtype": "functional"}
    row = read(public_test_cases=json.dumps([functional]), metadata='{"func_name": "f"}')
    assert row.tests == [CallTest("f", [[1, 2], {}], {}, [True], 1e-9, True)]


@pytest.mark.parametrize(
    ("answer", "columns", "message"),
    [
        (None, {}, "has no tests"),
        ("42", {}, "has no tests"),
        ("[]", {}, "has no tests"),
        ("[1", {}, "no JSON"),
        ('{"inputs": [], "outputs": []}', {}, "has no tests"),
        ('{"inputs": ["1"], "outputs": []}', {}, "equal length"),
        ('{"inputs": [1], "outputs": [2]}', {}, "no text"),
        ('[{"input": "1"}]', {}, "'input' and 'output'"),
        ('[{"input": "1", "output": "2", "testtype": "functional"}]', {}, "without its name"),
        ('[{"input": "x", "output": "2", "fn_name": "f"}]', {}, "no JSON"),
        ('[{"input": [1], "output": 2, "fn_name": "os.system"}]', {}, "no name of a function"),
        ('{"language": "cpp", "test_cases": []}', {}, "in cpp"),
        ("[" * 100_000, {}, "deeply|no JSON"),
        (None, {"test_list": ["assert f("]}, "no Python"),
        (None, {"test_list": ["("  * 5_000]}, "deeply|no Python"),
        (None, {"entry_point": "f", "test": "x = 1"}, "no check"),
        (None, {"public_test_cases": "[]", "private_test_cases": "[]"}, "no test cases"),
        (None, {"public_test_cases": "[]", "private_test_cases": "!!"}, "neither JSON nor packed"),
        ('[{"input": "1", "output": "2"}]', {"generated_checker": "x"}, "checker"),
        ('[{"input": "1", "output": "2"}]', {"input_mode": "file"}, "checker"),
    ],
)  # fmt: skip
def test_a_row_at_fault_says_why(answer: str | None, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(RowError, match=message):
        read(answer, **columns)


@settings(max_examples=40)
@given(JSON, st.sampled_from(["tests", "test_list", "public_test_cases", "input_output", "test", "metadata"]))
def test_any_row_is_read_or_refused(value: Any, column: str) -> None:
    for columns in ({column: value}, {column: json.dumps(value)}, {column: [value]}, {column: {"inputs": value}}):
        with contextlib.suppress(RowError):
            assert read(json.dumps(value), **columns).tests


class Bomb:
    """An object whose pickle calls a function."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("unpickled",)


@given(JSON, st.integers(0, 5))
def test_packed_tests_are_read_without_unpickling(value: Any, protocol: int) -> None:
    packed = base64.b64encode(zlib.compress(pickle.dumps(json.dumps(value), protocol))).decode()
    assert unpacked(packed) == value


@pytest.mark.parametrize("value", [Bomb(), [Bomb()], {"a": 1}, b"[]", 7, ("[]",), ["[]", "[]"], print])
def test_a_pickle_of_anything_but_text_is_refused(value: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for protocol in range(6):
        with pytest.raises(RowError):
            unpacked(base64.b64encode(zlib.compress(pickle.dumps(value, protocol))).decode())
    assert capsys.readouterr().out == ""


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_or_read(data: bytes) -> None:
    for packed in (data, zlib.compress(data)):
        with contextlib.suppress(RowError):
            unpacked(base64.b64encode(packed).decode())


def test_a_bomb_of_zlib_is_refused() -> None:
    with pytest.raises(RowError, match="more than 1 MB"):
        unpacked(base64.b64encode(zlib.compress(bytes(3 * 2**20), 9)).decode(), 2**20)
