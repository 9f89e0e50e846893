"""Rows by number: numbers as they were written, files of all kinds, faults with their place."""

from __future__ import annotations

import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from rlvr.data.tables import Table, file_table, hub_table, local_files
from rlvr.errors import DataError, RequestError

LITERALS = ["0.10", "1e-7", "1E+400", "123456789012345678901234567890", "-0.0", "3.0", "18"]


def answers(path: Path) -> list[str | None]:
    table = file_table(path)
    return [table.text("answer", i, table.rows[i].get("answer")) for i in range(len(table.rows))]


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv"])
def test_numbers_keep_their_literal_text(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"own.{ending}"
    if ending == "csv":
        file.write_text("question,answer\n" + "".join(f"q,{literal}\n" for literal in LITERALS))
    else:
        rows = [f'{{"question": "q", "answer": {literal}}}' for literal in LITERALS]
        file.write_text("\n".join(rows) if ending == "jsonl" else f"[ {' , '.join(rows)}\n]\n")
    assert answers(file) == LITERALS
    table = file_table(file)
    assert [table.text("answer", i, value) for i, (value,) in enumerate(table.cells("answer"))] == LITERALS


def test_parquet_numbers_are_as_short_as_they_can_be(tmp_path: Path) -> None:
    columns: list[tuple[Any, list[str | None]]] = [
        (pa.array([7, 10**18]), ["7", str(10**18)]),
        (pa.array([0.1, None], pa.float64()), ["0.1", None]),
        (pa.array([0.1, 16777216.0], pa.float32()), ["0.1", "16777216"]),
        (pa.array([Decimal("0.10"), Decimal(f"{10**30}.00")], pa.decimal128(38, 2)), ["0.10", f"{10**30}.00"]),
        (pa.array([float("nan"), 2.5]), [None, "2.5"]),
    ]
    for i, (column, expected) in enumerate(columns):
        pq.write_table(pa.table({"answer": column}), tmp_path / f"{i}.parquet")
        assert answers(tmp_path / f"{i}.parquet") == expected


@pytest.mark.parametrize(("value", "kind"), [("[1, 2]", "a list"), ("true", "a bool"), ('{"a": 1}', "an object")])
def test_what_is_neither_text_nor_a_number_is_refused(tmp_path: Path, value: str, kind: str) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"answer": "1"}}\n{{"answer": {value}}}\n')
    with pytest.raises(DataError, match=rf"a.jsonl, row 2: column 'answer' holds {kind}: expected text"):
        answers(tmp_path / "a.jsonl")


def test_floats_that_a_reader_made_of_text_are_refused() -> None:
    table = Table("somebody/somewhere, split 'train'", ("answer",), ({"answer": 0.1},), inexact=frozenset({"answer"}))
    with pytest.raises(DataError, match=r"somebody/somewhere.*'answer' was read as binary floats.*--data-files"):
        table.text("answer", 0, 0.1)
    assert table.text("answer", 0, "0.10") == "0.10"
    assert table.text("level", 0, 5) == "5"


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"answer": 1}\n')
    assert answers(file) == ["1"]
    file.write_text('{"answer": 2}\n')
    os.utime(file, ns=(1, 1))
    assert answers(file) == ["2"]
    pq.write_table(pa.table({"answer": ["1"]}), tmp_path / "a.parquet")
    assert answers(tmp_path / "a.parquet") == ["1"]
    pq.write_table(pa.table({"answer": ["2"]}), tmp_path / "a.parquet")
    os.utime(tmp_path / "a.parquet", ns=(1, 1))
    assert answers(tmp_path / "a.parquet") == ["2"]


def test_rows_may_differ_and_text_may_be_anything(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes('\ufeff{"answer": "é\u2028€"}\r\n\n{"other": [1, {"a": null}]}\n'.encode())
    assert answers(file) == ["é\u2028€", None]
    assert file_table(file).rows[1] == {"other": [1, {"a": None}]}
    file = tmp_path / "a.csv"
    file.write_text('\ufeffquestion,answer\n"a ""b"",\n\nc",NA\n\nd,\n', encoding="utf-8")
    assert answers(file) == ["NA", ""]
    assert file_table(file).rows[0]["question"] == 'a "b",\n\nc'


def test_json_is_a_list_or_an_object_a_line(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('\n [ {"answer": "], {"},\n{"answer": [[]], "x": {}} ]')
    assert [dict(file_table(file).rows[i]) for i in range(2)] == [{"answer": "], {"}, {"answer": [[]], "x": {}}]
    file.write_text('{"answer": 1}\n{"answer": 2}\n')
    assert answers(file) == ["1", "2"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n\n{oops\n', r"a.jsonl, line 3 is not JSON"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', r"a.jsonl, line 2 is a list: expected an object"),
        ("a.jsonl", b'{"a": "\xff"}\n', r"a.jsonl, line 1 is not UTF-8"),
        ("a.json", b'[{"a": 1}, {"a" 2}]', r"a.json is not JSON"),
        ("a.json", b'[{"a": 1}, 2]', r"a.json, row 2 is a number: expected an object"),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", r"a.csv, row 2 \(it ends in line 3\): 3 cells under 2 columns \(a, b\)"),
        ("a.csv", b"a,b\n1\n", r"a.csv, row 1 .*1 cells under 2 columns"),
        ("a.csv", b"a,a\n1,2\n", r"a.csv: two columns are called 'a'"),
        ("a.csv", b'a,b\n"1,2\n', r"a.csv, line 2 is not CSV"),
        ("a.csv", b"a,b\n\xff,2\n", r"a.csv, line \d is not CSV"),
        ("a.parquet", b"no", r"a.parquet is not a Parquet file"),
    ],
)
def test_what_cannot_be_read_is_placed(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        file_table(tmp_path / name)


def test_a_damaged_parquet_file_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"answer": [str(i) * 50 for i in range(1000)]}), file, compression="none")
    content = bytearray(file.read_bytes())
    content[4:200] = b"\xff" * 196
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"a.parquet cannot be read"):
        file_table(file)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
def test_a_file_without_rows_is_a_table_without_rows(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    if name == "a.parquet":
        pq.write_table(pa.table({"answer": pa.array([], pa.string())}), file)
    else:
        file.write_text({"a.jsonl": "\n", "a.json": "[]", "a.csv": "question,answer\n"}[name])
    assert len(file_table(file).rows) == 0


def test_files_are_named_by_paths_and_globs(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "[c].parquet", "d.txt"):
        (tmp_path / name).touch()
    csvs = [tmp_path / "a.csv", tmp_path / "b.csv"]
    assert local_files("d", (tmp_path / "*.csv", tmp_path / "[c].parquet")) == [*csvs, tmp_path / "[c].parquet"]
    for pattern, message in (
        ("e*.csv", r"dataset d: there is no file .*e\*.csv"),
        ("d.txt", r"d.txt: a data file ends in \.parquet, \.jsonl, \.json, \.csv"),
        (".", r"is not a file \(a glob names many: .*\*.parquet\)"),
    ):
        with pytest.raises(RequestError, match=message):
            local_files("d", (tmp_path / pattern,))
    with pytest.raises(RequestError, match=r"a.csv is named twice"):
        local_files("d", (tmp_path / "*.csv", tmp_path / ".." / tmp_path.name / "a.csv"))


def test_a_name_with_brackets_is_no_glob(tmp_path: Path) -> None:
    pq.write_table(pa.table({"answer": ["1"]}), tmp_path / "a[1]*.parquet")
    assert answers(tmp_path / "a[1]*.parquet") == ["1"]


@pytest.mark.parametrize("switch", [disable_progress_bars, enable_progress_bars])
def test_local_files_show_no_progress_bars(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], switch: Callable[[], None]
) -> None:
    (tmp_path / "a.jsonl").write_text('{"answer": 1}\n')
    pq.write_table(pa.table({"answer": ["1"]}), tmp_path / "a.parquet")
    before = are_progress_bars_disabled()
    switch()
    try:
        file_table(tmp_path / "a.jsonl")
        file_table(tmp_path / "a.parquet")
        assert are_progress_bars_disabled() == (switch is disable_progress_bars)
    finally:
        (disable_progress_bars if before else enable_progress_bars)()
    assert capfd.readouterr().err == ""


def test_the_hub_without_a_network_is_one_line_with_what_to_do() -> None:
    with pytest.raises(RequestError) as error:
        hub_table("gsm8k", "openai/gsm8k", "main", "train", "main")
    assert "openai/gsm8k (main), split 'train' could not be loaded" in str(error.value)
    assert "--data-files FILE" in str(error.value)
    assert "\n" not in str(error.value)


def test_lists_and_objects_are_shown_in_prompts_as_json(tmp_path: Path) -> None:
    row = '{"texts": ["a", "b"], "tools": [{"name": "f", "most": 0.10}], "one": {"é": null}, "number": 7}\n'
    (tmp_path / "rows.jsonl").write_text(row, encoding="utf-8")
    table = file_table(tmp_path / "rows.jsonl")
    shown = {name: table.shown(name, 0, table.rows[0][name]) for name in table.columns}
    assert shown == {"texts": "a\nb", "tools": '[{"name": "f", "most": 0.1}]', "one": '{"é": null}', "number": "7"}
