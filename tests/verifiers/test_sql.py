"""The verifier `sql`: queries only read, work is bounded by SQLite's steps, and results are compared as asked."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr import Status, Task
from rlvr_verifiers import sql

SCRIPT = "CREATE TABLE t (a INTEGER, b TEXT); INSERT INTO t VALUES (1, 'x'), (2, 'y'), (2, 'y');"
GOLD = "SELECT a, b FROM t"


def score(query: str, gold: str = GOLD, **options: Any) -> float | str:
    verdict = sql.check(query, Task(answer=gold, extra={"schema": SCRIPT}), **options)
    return verdict.status.value if verdict.reward is None else verdict.reward


@pytest.mark.parametrize(
    "query",
    [
        "DROP TABLE t",
        "DELETE FROM t",
        "UPDATE t SET a = 3 RETURNING a, b",
        "INSERT INTO t VALUES (3, 'z') RETURNING *",
        "CREATE TABLE u AS SELECT * FROM t",
        "CREATE TEMP VIEW v AS SELECT 1",
        "WITH x AS (SELECT 1) DELETE FROM t RETURNING a, b",
        "REPLACE INTO t VALUES (1, 'x')",
        "ATTACH DATABASE '/tmp/rlvr-attached' AS x",
        "VACUUM INTO '/tmp/rlvr-vacuum'",
        "PRAGMA writable_schema = 1",
        "PRAGMA table_info(t)",
        "SELECT * FROM pragma_table_info('t')",
        "BEGIN",
        "ANALYZE",
        "REINDEX",
        "SELECT load_extension('/tmp/x.so')",
        "SELECT readfile('/etc/passwd') FROM t",
        "SELECT writefile('/tmp/rlvr-written', 'x') FROM t",
        "SELECT fts3_tokenizer('x') FROM t",
        "SELECT a, b FROM t; DROP TABLE t",
        "SELECT printf('%.*c', 900000000, 'x') FROM t",
        "SELECT format('%.*c', 900000000, 'x') FROM t",
        "SELECT a, random() FROM t",
        "SELECT zeroblob(1000000000) FROM t",
        "SELECT hex(randomblob(1000000000)) FROM t",
        "SELECT replace(replace(hex(a), '3', b), 'x', (SELECT group_concat(b) FROM t)) || char(0) FROM t",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*), 1 FROM n",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i, i FROM n",
        "WITH RECURSIVE n(i, s) AS (SELECT 1, 'xx' UNION ALL SELECT i + 1, s || s FROM n) SELECT i, s FROM n",
        "SELECT count(*), 1 FROM t" + ", t AS t{}" * 9,
        "SELECT " + "(" * 500 + "1" + ")" * 500,
        "SELECT 1" + " + 1" * 5_000,
        "SELECT 1" + " UNION ALL SELECT 1" * 500,
        "SELECT a, b FROM t WHERE b LIKE '" + "%x" * 5_000 + "'",
        "SELECT a, b FROM t -- " + "x" * 50_000,
        "SELECT a, b FROM t WHERE b = '\ud800' AND 0",
        "SELECT a, b\0 FROM t",
        "EXPLAIN SELECT a, b FROM t",
        "VALUES (1, 'x'), (2, 'y'), (2, 'y')",
        "SELECT 1, 'x' UNION ALL SELECT 2, 'y' UNION ALL SELECT 2, 'y'",
        "'; --",
    ],
    ids=lambda query: query[:30],
)
def test_a_hostile_query_gets_no_reward(query: str) -> None:
    for number in range(9):
        query = query.replace("t{}", f"t{number}", 1)
    if "count(*)" in query:  # enough rows for the joins to matter
        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50)"
        many = f"{numbers} INSERT INTO t SELECT i, i FROM n;"
        task = Task(answer=GOLD, extra={"schema": SCRIPT + many})
        assert sql.check(query, task, max_steps=200_000).reward == 0
    assert score(query, max_steps=200_000) in (0, "unparsed")


def test_no_attack_wrote_a_file() -> None:
    assert not [
        path for path in Path("/tmp").glob("rlvr-*") if path.name in ("rlvr-attached", "rlvr-vacuum", "rlvr-written")
    ]


def test_limits_hold_for_the_gold_query_and_the_script_too() -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    assert score(GOLD, gold=f"{endless} SELECT count(*) FROM n", max_steps=100_000) == "invalid"
    assert score(GOLD, gold="SELECT a FROM nowhere") == "invalid"
    assert score(GOLD, gold="DROP TABLE t") == "invalid"
    for script in (f"CREATE TABLE t AS {endless} SELECT i AS a, i AS b FROM n", "CREATE TABLE", ""):
        task = Task(answer=GOLD, extra={"schema": script})
        assert sql.check(GOLD, task, max_steps=100_000).status is Status.INVALID


def test_an_empty_gold_result_is_invalid() -> None:
    assert score("SELECT a FROM t WHERE 0", gold="SELECT a FROM t WHERE a > 9") == "invalid"


def test_a_result_has_a_largest_size() -> None:
    assert score(GOLD, max_rows=3) == 1
    assert score(GOLD + " UNION ALL SELECT 1, 'x' FROM t", max_rows=3) == 0
    assert score(GOLD, max_rows=2) == "invalid"


def test_repeated_rows_count_unless_results_are_sets() -> None:
    assert score("SELECT DISTINCT a, b FROM t") == 0
    assert score("SELECT DISTINCT a, b FROM t", sets=True) == 1


def test_order_counts_if_the_gold_query_orders_or_if_it_is_asked_for() -> None:
    backwards = "SELECT a, b FROM t ORDER BY a DESC"
    assert score(backwards) == 1
    assert score(backwards, order="yes") == 0
    assert score(backwards, gold=f"{GOLD} ORDER BY a") == 0
    assert score(backwards, gold=f"{GOLD} ORDER BY a", order="no") == 1


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT a FROM t ORDER BY a", True),
        ("select a from t\norder\n by a limit 1", True),
        ("SELECT a FROM t", False),
        ("SELECT a FROM (SELECT a FROM t ORDER BY a)", False),
        ("SELECT a, 'order by' FROM t -- order by", False),
        ('SELECT a AS "order by" /* order by */ FROM t', False),
        ("SELECT rank() OVER (ORDER BY a) FROM t ORDER BY 1", True),
        ("SELECT reorder by FROM t", False),
    ],
)
def test_an_order_is_found_outside_of_parentheses_and_texts(query: str, expected: bool) -> None:
    assert sql.orders(query) is expected


CELLS = st.none() | st.integers(0, 2) | st.sampled_from([1.0, 0.5, 0.1 + 0.2, 0.3, "a", "1", b"a"])
ROWS = st.lists(st.tuples(CELLS, CELLS), max_size=4)


@settings(max_examples=30)
@given(ROWS, ROWS)
def test_results_are_compared_as_lists_multisets_or_sets(first: list, second: list) -> None:
    def rounded(rows: list) -> list:
        return [tuple(0.3 if cell == 0.1 + 0.2 else cell for cell in row) for row in rows]

    one, other = rounded(first), rounded(second)
    options: dict[str, Any] = {"digits": 9}
    assert sql.equal(first, second, ordered=True, sets=False, **options) is (one == other)
    assert sql.equal(first, second, ordered=False, sets=False, **options) is (Counter(one) == Counter(other))
    assert sql.equal(first, second, ordered=True, sets=True, **options) is (set(one) == set(other))


@pytest.fixture
def databases(tmp_path: Path) -> Path:
    """Folder with the database `shop` in BIRD's layout."""
    (tmp_path / "shop").mkdir()
    with sqlite3.connect(tmp_path / "shop" / "shop.sqlite") as database:
        database.executescript(SCRIPT)
    database.close()
    return tmp_path


def test_a_database_file_is_only_read(databases: Path) -> None:
    file = databases / "shop" / "shop.sqlite"
    before = file.read_bytes()
    task = Task(answer=GOLD, extra={"db_id": "shop"})
    assert sql.check("SELECT a, b FROM t ORDER BY b", task, databases=databases).reward == 1
    assert sql.check("DROP TABLE t", task, databases=databases).reward == 0
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["shop.sqlite"]


@pytest.mark.parametrize(
    "extra", [{}, {"db_id": "nowhere"}, {"db_id": "../shop"}, {"db_id": 7}, {"schema": []}, {"schema": [7]}]
)
def test_a_row_without_a_database_is_invalid(databases: Path, extra: dict[str, Any]) -> None:
    assert sql.check(GOLD, Task(answer=GOLD, extra=extra), databases=databases).status is Status.INVALID
    assert sql.check(GOLD, Task(answer=GOLD, extra={"db_id": "shop"})).status is Status.INVALID
