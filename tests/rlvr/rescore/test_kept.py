"""Golden files: `rlvr score` keeps every character of a row that is not a score.

`tests/data/kept/` holds odd inputs (white space, order of keys, spellings of numbers, escapes, keys twice, a byte order
mark; Parquet columns of rare types) and what `rlvr score` makes of them, with each new score reduced to a mark.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

KEPT = Path(__file__).parents[2] / "data" / "kept"
VERIFIER = """
import rlvr

@rlvr.verifier(name="size")
def check(completion, task):
    return len(completion)
"""
NEW_SCORE = re.compile(r'\{"status": "(\w+)", "reward": ([^,]*), .*?"verifier": "size", .*?"created_at": "[^"]*"\}')

Score = Callable[..., Any]


@pytest.fixture
def score(cli: Score) -> Callable[..., Path]:
    """Function that scores a golden input with `size` into a file of this name."""
    Path("size.py").write_text(VERIFIER)

    def run(source: str, out: str, *arguments: str) -> Path:
        given = ["score", str(KEPT / source), "-v", "size.py:check", "-o", out, "--workers", "0", *arguments]
        done = cli(*given)
        assert done.code == 0, done.err
        return Path(out)

    return run


def marked(path: Path) -> str:
    """Return the file's text with `<size: STATUS REWARD>` in place of each new score."""
    return NEW_SCORE.sub(r"<size: \1 \2>", path.read_bytes().decode())


@pytest.mark.parametrize(
    ("source", "arguments", "golden"),
    [
        ("foreign.jsonl", [], "foreign.scored.txt"),
        ("foreign.jsonl", ["--scores-only"], "foreign.sidecar.txt"),
        ("records.jsonl", [], "records.scored.txt"),
        ("records.jsonl", ["--scores-only"], "records.sidecar.txt"),
        ("foreign.parquet", ["--scores-only"], "foreign-parquet.sidecar.txt"),
        ("records.parquet", ["--scores-only"], "records.sidecar.txt"),
    ],
)
def test_lines_are_the_golden_ones(score: Callable[..., Path], source: str, arguments: list[str], golden: str) -> None:
    assert marked(score(source, "out.jsonl", *arguments)) == (KEPT / golden).read_bytes().decode()


def test_scored_twice_only_the_list_of_scores_grows(score: Callable[..., Path]) -> None:
    once = score("foreign.jsonl", "once.jsonl")
    again = marked(score(str(once.resolve()), "twice.jsonl"))
    pairs = zip(marked(once).splitlines(), again.splitlines(), strict=True)
    for before, after in pairs:
        mark = re.findall(r"<size: [^>]*>", before)[0]
        assert after == before.replace(mark, f"{mark}, {mark}")


@pytest.mark.parametrize("source", ["foreign.parquet", "records.parquet"])
def test_parquet_keeps_every_column_type_and_metadata(score: Callable[..., Path], source: str) -> None:
    before, after = pq.read_table(KEPT / source), pq.read_table(score(source, "out.parquet"))
    assert after.schema.names == before.schema.names
    assert (after.schema.metadata or {}).items() >= (before.schema.metadata or {}).items()
    for field in before.schema:
        found = after.schema.field(field.name)
        assert (found.metadata or {}).items() >= (field.metadata or {}).items()
        if field.name != "scores":
            assert found.type == field.type
            assert after[field.name].combine_chunks().equals(before[field.name].combine_chunks())
    old, new = before["scores"].to_pylist(), after["scores"].to_pylist()
    for was, now in zip(old, new, strict=True):
        assert len(now) == len(was or []) + 1
        for one, other in zip(was or [], now, strict=False):
            assert {name: other[name] for name in one} == one
        assert now[-1]["verifier"] == "size"


def test_a_parquet_sidecar_is_the_golden_one(score: Callable[..., Path]) -> None:
    for source in ("foreign", "records"):
        table = pq.read_table(score(f"{source}.parquet", f"{source}-side.parquet", "--scores-only"))
        assert table.schema.names == ["id", "segment", "scores"]
        assert table.schema.types[:2] == [pa.string(), pa.int64()]
        golden = (KEPT / ("records.sidecar.txt" if source == "records" else "foreign-parquet.sidecar.txt")).read_text()
        rows = re.findall(r'\{"id": "([^"]*)", "segment": (\d+), "scores": \[<size: (\w+) ([^>]*)>\]\}', golden)
        scored = [(row["id"], row["segment"], row["scores"][0]) for row in table.to_pylist()]
        found = [(identity, segment, score["status"], score["reward"]) for identity, segment, score in scored]
        assert found == [(i, int(s), status, None if r == "null" else float(r)) for i, s, status, r in rows]
