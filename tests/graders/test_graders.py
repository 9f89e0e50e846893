"""`benchmarks/graders.py` on the real graders: each judges, none by mistake, and labeled pairs are read as they are."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

import rlvr
from rlvr.verify.verifying import module_from_file

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    path = BENCHMARKS / "graders.py"
    return module_from_file(path, path.read_bytes())


def test_every_grader_tells_right_from_wrong(benchmark: ModuleType) -> None:
    cases = [
        benchmark.Case(gold, benchmark.boxed(answer), right)
        for gold, answer, right in [
            ("42", "42", True),
            ("42", "43", False),
            ("x^2+1", "x^2+1", True),
            ("7", "-7", False),
        ]
    ]
    for name, (verifier, _) in benchmark.GRADERS.items():
        known = verifier in ("math", "math-verify")
        result = benchmark.measured(verifier if known else f"{benchmark.PEERS}:{verifier}", cases, workers=1)
        assert (result.hung, result.failed) == (0, 0), name
        assert (result.false_positives.hits, result.false_negatives.hits) == (0, 0), name


def test_pairs_of_a_test_file_are_read_and_computed_ones_are_not(benchmark: ModuleType) -> None:
    source = """
@pytest.mark.parametrize("gold,pred,expected", [("$1$", "$2$", 0), ("3", "4", 1)])
def test_a(): ...
@pytest.mark.parametrize("gold,pred,expected", computed())
def test_b(): ...
@pytest.mark.parametrize("a,b,c", [(1, 2, 3)])
def test_c(): ...
"""
    assert list(benchmark.parametrized(source)) == [("1", "$2$", False), ("3", "\\boxed{4}", True)]


def test_rows_of_files_keep_their_source(benchmark: ModuleType, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        '{"gold": "1", "pred": "2", "expected": false, "source": "a/b@c"}\n'
        '{"gold": "1", "pred": "It is 1.", "form": "text", "expected": true}\n'
        '{"gold": "1", "pred": "x", "expected": null}\n'
    )
    found = benchmark.read([rows])
    assert {source: [case.completion for case in cases] for source, cases in found.items()} == {
        "a/b": ["\\boxed{2}"],
        "rows.jsonl": ["It is 1."],
    }


def test_a_grader_of_a_large_package_is_a_verifier_by_file() -> None:
    (score,) = rlvr.score([{"completion": "\\boxed{1}", "answer": "1"}], f"{BENCHMARKS}/peers/graders.py:verl_math")
    assert score.reward == 1.0
