"""The verifier `math`: statuses, options, hostile input, what it imports, threads."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr import Status, Task, Verdict
from rlvr_verifiers.math import answers, check
from rlvr_verifiers.math.exact import read_number
from rlvr_verifiers.math.extract import final_answer
from rlvr_verifiers.math.memo import remembered
from rlvr_verifiers.math.normalize import normalize
from rlvr_verifiers.math.vocabulary import vocabulary

CORPUS: list[dict[str, Any]] = [
    json.loads(line) for line in (Path(__file__).parent / "math_corpus.jsonl").read_text("utf-8").splitlines()
]


def judge(gold: str | None, answer: str, **options: Any) -> Verdict:
    return check(f"\\boxed{{{answer}}}", Task(answer=gold), **options)


def right(gold: str, answer: str, **options: Any) -> bool:
    return judge(gold, answer, **options).reward == 1.0


# --- statuses


def test_right_and_wrong_are_graded() -> None:
    assert judge("42", "42").status is Status.GRADED
    assert judge("42", "42").reward == 1.0
    assert judge("42", "43").reward == 0.0


@pytest.mark.parametrize("gold", [None, "", "  ", "\\frac{", "\\zzz{1}", "((((("])
def test_a_gold_that_is_missing_or_unreadable_is_invalid(gold: str | None) -> None:
    verdict = judge(gold, "42")
    assert verdict.status is Status.INVALID
    assert verdict.reason


@pytest.mark.parametrize(
    "completion",
    ["", "<think>The answer is \\boxed{42}", "<think></think>", "\\boxed{}", "\\boxed{42", "\\boxed{\\boxed{}}"],
)
def test_no_readable_answer_is_unparsed(completion: str) -> None:
    assert check(completion, Task(answer="42")).status is Status.UNPARSED


def test_an_unreadable_formula_is_unparsed_and_no_number_is_picked_out_of_it() -> None:
    for answer in ("\\zzz 42", "\\phantom{42}43", "42 \\frac{", "[42", "x @ 42"):
        assert judge("42", answer).reward != 1.0


def test_the_verdict_says_what_was_read_and_how() -> None:
    verdict = judge("1/2", "\\frac{2}{4}")
    assert verdict.extracted == "\\frac{2}{4}"
    assert verdict.reason == "box: exact arithmetic"


# --- extraction


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("\\boxed{\\frac{1}{\\{2\\}}}", "\\frac{1}{\\{2\\}}"),
        ("\\boxed{1} then \\boxed{2}\n\nand so \\boxed{3}", "3"),
        ("\\boxed{a} and \\boxed{b}", "a, b"),
        ("\\boxed{7}\n\nBy the way \\fbox{8}", "8"),
        ("x</think>y\n#### 1,234", "1,234"),
        ("<answer> 5 </answer>", "5"),
        ("so the answer is $x^2$. Done.", "$x^2$"),
        ("**Final answer:** 12", "12"),
    ],
)
def test_where_the_answer_is_found(completion: str, answer: str) -> None:
    found = final_answer(completion)
    assert found is not None
    assert found.text == answer


def test_a_phrase_that_hedges_is_not_read() -> None:
    assert final_answer("The answer is 42. Or it could be 43.") is None


# --- options


@pytest.mark.parametrize(
    ("gold", "answer", "option", "value", "default", "changed"),
    [
        ("1/3", "0.3333", "float_rtol", 0.0, True, False),
        ("3.14", "\\pi", "gold_precision", False, True, False),
        ("1/2", "50\\%", "percent_is_ratio", False, True, False),
        ("50", "50\\%", "percent_is_number", False, True, False),
        ("1, 2", "2, 1", "ordered", True, True, False),
        ("5", "5\\text{ km}", "units", "require", True, True),
        ("5\\text{ km}", "5", "units", "require", True, False),
        ("5\\text{ km}", "5\\text{ m}", "units", "ignore", False, True),
        ("1/2", "2/4", "unreduced", False, True, False),
        ("(1,2)", "1<x<2", "intervals", False, True, False),
        ("x=5", "5", "assignment", False, True, False),
        ("45^\\circ", "45", "degrees", False, True, False),
        ("\\sqrt{x^2}", "x", "assume", "positive", False, True),
        ("(a^b)^c", "a^{bc}", "assume", "positive", False, True),
        ("\\sqrt{V/c}", "\\sqrt{cV}/c", "assume", "complex", True, False),
        ("-2", "(-8)^{1/3}", "assume", "complex", True, False),
        ("\\ln x^2", "2\\ln x", "assume", "complex", True, False),
        ("23", "\\gcd(6432,132)+11", "unevaluated", True, False, True),
        ("55", "\\sum_{k=1}^{10} k", "unevaluated", True, False, True),
        ("1/8", "\\sin^3 18^\\circ+\\sin^2 18^\\circ", "unevaluated", True, False, True),
    ],
)
def test_each_option_decides_what_it_names(
    gold: str, answer: str, option: str, value: Any, default: bool, changed: bool
) -> None:
    assert right(gold, answer) is default
    assert right(gold, answer, **{option: value}) is changed


def test_the_names_of_thinking_tags_can_be_added() -> None:
    text = "<plan>\\boxed{8}</plan> no answer"
    assert check(text, Task(answer="8")).reward == 1.0
    assert check(text, Task(answer="8"), thinking="draft, plan").reward != 1.0


# --- algebra: sympy decides where evaluation cannot


@pytest.mark.parametrize(
    ("gold", "answer", "equal"),
    [
        ("\\sum_{n=1}^{\\infty} \\frac{1}{n^2}", "\\frac{\\pi^2}{6}", True),
        ("\\sum_{n=1}^{\\infty} \\frac{1}{n^2}", "\\frac{\\pi^2}{7}", False),
        ("\\sum_{n=0}^{\\infty} \\frac{x^n}{n!}", "e^x", True),
        ("\\sum_{n=0}^{\\infty} \\frac{x^n}{n!}", "e^{2x}", False),
    ],
)
def test_sums_to_infinity_are_evaluated(gold: str, answer: str, equal: bool) -> None:
    assert right(gold, answer) is equal


def test_algebra_refuses_what_could_grow_before_sympy_is_imported() -> None:
    code = (
        "import sys; from rlvr_verifiers.math.algebra import equal; from rlvr_verifiers.math.parse import parse\n"
        "from rlvr_verifiers.math.normalize import normalize\n"
        "texts = ['9^{9^9}', 'x^{1000}', '1000!', '10^{10^{10}}', '((10^{30})^{30})^{30}', '((x+1)^{30})^{30}',\n"
        "         '\\\\binom{10^9}{5\\\\cdot10^8}', '+'.join(['x'] * 100), '\\\\int x']\n"
        "for text in texts:\n"
        "    assert equal(parse(normalize(text)), parse('x'), 'real') is None, text\n"
        "assert 'sympy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- hostile input: a verdict, soon, in bounded memory


HOSTILE = {
    "power tower": "9^{9^{9^{9^{9}}}}",
    "plain power tower": "9**9**9**9",
    "huge factorial": "(10^{100})!",
    "factorial of factorials": "(((9!)!)!)!",
    "huge binomial": "\\binom{10^9}{5\\cdot10^8}",
    "huge exponent": "1e999999999",
    "reciprocal tower": "\\frac{1}{10^{10^{10}}!}",
    "cosine of a tower": "\\cos(10^{10^{10}})",
    "tiny base": "(1/3)^{10^{8}}",
    "huge sum": "\\sum_{k=1}^{10^{12}} k",
    "nested sums": "\\sum_{a=1}^{1999}\\sum_{b=1}^{1999}\\sum_{d=1}^{1999} abd",
    "digits": "1" * 100_000,
    "deep parentheses": "(" * 5_000 + "1" + ")" * 5_000,
    "deep roots": "\\sqrt{" * 3_000 + "1" + "}" * 3_000,
    "deep fractions": "\\frac{1}{" * 2_000 + "2" + "}" * 2_000,
    "open brackets": "[" * 20_000,
    "dollars": "$ " * 20_000,
    "separators": "1" + ",\\ " * 20_000,
    "units": "1 cm " * 5_000,
    "long sum": "x" + "+x" * 20_000,
    "long product": "x" * 50_000,
    "minus signs": "-" * 50_000 + "1",
    "many numbers": ", ".join(map(str, range(9_000))),
    "signs": "\\pm 1 " * 1_000,
    "bars": "|" * 10_000,
    "primes": "f" + "'" * 10_000 + "(x)",
    "factorials": "3" + "!" * 200,
    "exponents": "2" + "^2" * 3_000,
    "control characters": "4\x002",
    "surrogate": "\ud800",
    "big matrix": "\\det\\begin{pmatrix}" + "\\\\".join("&".join(["x"] * 60) for _ in range(60)) + "\\end{pmatrix}",
    "wide intervals": "\\cup".join(f"({2 * n},{2 * n + 1})" for n in range(800)),
    "degree": "\\{x\\mid x^{100}-x^{99}+\\sin(x)=0\\}",
    "chain": "=".join(["x"] * 3_000),
}


SOON = 250  # units of CPU, ten seconds or so: generous


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_answers_get_a_verdict_soon(name: str, cpu_unit: float) -> None:
    golds = ["42", "x^2+1", "(0,1)"]
    start = time.process_time()
    for gold in golds:
        assert judge(gold, HOSTILE[name]).reward != 1.0
    assert time.process_time() - start < SOON * cpu_unit


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_golds_get_a_verdict(name: str) -> None:
    assert judge(HOSTILE[name], "42").reward != 1.0


@pytest.mark.parametrize(
    "text",
    ["a" * 1_000_000, "7 " * 500_000, "answer is " * 50_000, "\\boxed{" * 50_000, "<think>" * 50_000, "\\( " * 50_000],
)
def test_megabytes_are_read_in_linear_time(text: str, cpu_unit: float) -> None:
    start = time.process_time()
    assert check(text, Task(answer="42")).reward != 1.0
    assert time.process_time() - start < SOON * cpu_unit


PIECES = vocabulary(
    r"\frac{ \sqrt{ \left( \right) \{ \} { } ( ) [ ] | , ; = < > \le \cup \in \mathbb{R} \pi e i x n k \infty 1 2 0.5 "
    r"1,000 ^ _ + - * / ! \pm \sin \ln \log_2 \binom \sum_{k=1}^{n} \text{ \text{or} \text{cm} and km % ° \$ \boxed{ & "
    r"\\ : \mid ' \begin{pmatrix} \end{pmatrix} \begin{cases} \end{cases} \overline{ \int \dot{ ... √ ½ x² answer is "
    r"<think> </think> <answer> #### (A) C( base A:"
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(sorted(PIECES)), max_size=40),
    st.sampled_from(["", " "]),
    st.integers(1, 20),
    st.booleans(),
)
def test_soup_gets_a_verdict(pieces: list[str], between: str, times: int, boxed: bool) -> None:
    text = between.join(pieces) * times
    for gold in ("x^2+1", "(0,1)", "B", "k\\pi, k\\in\\mathbb{Z}", "x^2+C"):
        verdict = check(f"\\boxed{{{text}}}" if boxed else text, Task(answer=gold))
        assert verdict.status in (Status.GRADED, Status.UNPARSED)
        assert check(f"\\boxed{{{gold}}}", Task(answer=text)).status in (Status.GRADED, Status.UNPARSED, Status.INVALID)


@pytest.mark.parametrize(
    "unit", ["x=1,", "1,", "(A)", "A:", "(1,2),", "|x|", "\\pm1,", "[0,1]\\cup", "\\boxed{", "x+", "f(x)"]
)
def test_twice_the_text_is_not_four_times_the_time(unit: str, cpu_unit: float) -> None:
    def spent(count: int) -> float:
        text = f"\\boxed{{{unit * count}}}"
        times = []
        for _ in range(3):
            start = time.process_time()
            check(text, Task(answer="x^2+1"))
            times.append(time.process_time() - start)
        return min(times)

    spent(100)  # what is imported at first use
    count = 12_000 // len(unit)
    # A unit for noise: a quadratic step in earnest takes seconds.
    assert spent(2 * count) < 6 * spent(count) + cpu_unit


def test_a_tower_equals_itself_and_no_other() -> None:
    assert right("10^{10^{10^{10}}}", "10^{10^{10^{10}}}")
    assert not right("10^{10^{10^{10}}}", "10^{10^{10^{11}}}")


def test_nothing_is_executed(tmp_path: Any) -> None:
    target = tmp_path / "pwned"
    for code in (f"__import__('os').system('touch {target}')", f"open('{target}','w')", "\\immediate\\write18{id}"):
        check(code, Task(answer="0"))
        judge("0", code)
    assert not target.exists()


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789xyn+-*/^_(){}[]\\|,;=<>!%$ .fracsqtpilog&", max_size=40))
def test_any_text_gets_a_verdict_and_equals_itself_when_it_is_readable(text: str) -> None:
    verdict = judge(text, text)
    assert verdict.status in (Status.GRADED, Status.UNPARSED, Status.INVALID)
    if verdict.status is Status.GRADED and "\\" not in text and text.count("{") == text.count("}") == 0:
        assert verdict.reward == 1.0


@given(st.integers(-(10**12), 10**12), st.integers(1, 10**6), st.integers(1, 50))
def test_rationals_compare_exactly(numerator: int, denominator: int, factor: int) -> None:
    gold = f"\\frac{{{numerator}}}{{{denominator}}}"
    assert right(gold, f"{numerator * factor}/{denominator * factor}")
    assert not right(gold, f"\\frac{{{numerator * factor + 1}}}{{{denominator * factor}}}")


@given(st.integers(-(10**9), 10**9))
def test_integers_in_every_spelling(value: int) -> None:
    spellings = [
        str(value),
        f"{value:,}",
        f"${value}$",
        f"x = {value}",
        f"{value}.0",
        f"\\text{{{value}}}",
        f"{value}.",
    ]
    for spelling in spellings:
        assert right(str(value), spelling)
        assert not right(str(value + 1), spelling)


# --- the cheap path, threads


def test_plain_numbers_are_graded_without_importing_mathematics() -> None:
    code = (
        "import sys; from rlvr import Task; from rlvr_verifiers.math import check\n"
        "for gold, answer in [('42', '42'), ('1/2', '0.5'), ('1000', '1,000'), ('C', '(C)'), ('yes', 'Yes')]:\n"
        "    check(f'\\\\boxed{{{answer}}}', Task(answer=gold))\n"
        "assert not {'sympy', 'mpmath', 'math_verify', 'torch'} & set(sys.modules), 'imported'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


SAMPLE = [row for row in CORPUS if row["form"] == "bare"][::10][:240]


def verdicts(rows: list[dict[str, Any]]) -> list[bool]:
    return [check(f"\\boxed{{{row['pred']}}}", Task(answer=row["gold"])).reward == 1.0 for row in rows]


def test_eight_threads_agree_with_one() -> None:
    expected = verdicts(SAMPLE)
    answers.judge.cache_clear()  # type: ignore[attr-defined]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(verdicts, [SAMPLE[i:] + SAMPLE[:i] for i in range(0, 240, 30)]))
    for i, rotated in zip(range(0, 240, 30), found, strict=True):
        assert rotated == expected[i:] + expected[:i]


def test_it_works_in_async_code() -> None:
    async def graded(row: dict[str, Any]) -> bool:
        return verdicts([row])[0] and (await asyncio.to_thread(verdicts, [row]))[0]

    async def run() -> list[bool]:
        return await asyncio.gather(*(graded(row) for row in SAMPLE))

    assert asyncio.run(run()) == verdicts(SAMPLE)


def test_what_is_remembered_is_bounded() -> None:
    calls = 0

    @remembered(10)
    def length(text: str) -> int:
        nonlocal calls
        calls += 1
        return len(text)

    for _ in range(3):
        assert length("short") == 5
        assert length("x" * 10_000) == 10_000
    assert calls == 4  # the long text is not kept
    for n in range(1_000):
        length(str(n))
    assert length.cache_info().currsize == 10  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "value"),
    [("1,234", 1234), ("-3/4", -0.75), ("2 1/2", 2.5), ("1e3", 1000), (".5", 0.5), ("\\frac{1}{4}", 0.25)],
)
def test_numbers_that_need_no_parser(text: str, value: float) -> None:
    number = read_number(normalize(text))
    assert number is not None
    assert float(number.value) == value
