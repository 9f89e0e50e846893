"""Record files: complete round trips, complete or absent files, and errors with their place."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from rlvr.errors import DataError, RequestError
from rlvr.files import replacing
from rlvr.record import parquet, store
from rlvr.record.schema import SCHEMA_VERSION, Rollout, Score, Task, Verdict
from rlvr.record.store import ROLLOUT_SCHEMA, RolloutWriter, read_rollouts, write_rollouts

DATA = Path(__file__).parents[2] / "data"
FORMATS = [".parquet", ".jsonl"]


def rollout(**changes: Any) -> Rollout:
    """Return a rollout in which every field is known."""
    fields: dict[str, Any] = {
        "run_id": "run-1",
        "id": "r-1",
        "group_id": "g-1",
        "index": 0,
        "group_size": 2,
        "prompt": "1 + 1 = ",
        "completion": "\\boxed{2}",
        "task": {
            "dataset": "sums",
            "row_id": "7",
            "split": "train",
            "answer": "2",
            "extra": {"level": 1, "tags": ["a"]},
        },
        "token_ids": [5, 6, 7, 2],
        "loss_mask": [False, False, True, True],
        "behaviour_logprobs": [None, None, -0.5, -0.25],
        "policy_versions": [{"version": 3, "count": 1}, {"version": 4, "count": 1}],
        "extra_tokens": {"router.expert": [None, 1.0, 2.0, 3.0]},
        "sampling": {
            "temperature": 0.8,
            "max_tokens": 1024,
            "seed": 1,
            "engine": "transformers",
            "logprob_mode": "processed",
        },
        "model": {"name": "tiny", "weights_hash": "abc"},
        "finish_reason": "stop",
        "stop_reason": "</s>",
        "group_stats": {"mean": 0.5, "std": 0.5, "count": 2},
        "scores": [
            {"verifier": "math", "version": "1", "status": "graded", "reward": 1.0, "extracted": "2", "seconds": 0.01},
            {"verifier": "length", "version": "2", "config": {"limit": 9}, "status": "abstained", "reason": "short"},
        ],
        "created_at": "2026-01-02T03:04:05Z",
        "timings": {"sample": 0.5, "verify": None},
    }
    return Rollout.model_validate({**fields, **changes})


# --- any valid record -----------------------------------------------------------------------------------------------

INT64 = st.integers(0, 2**63 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
FLOATS32 = st.floats(-100, 0, width=32)


def rollouts(text: st.SearchStrategy[str]) -> st.SearchStrategy[Rollout]:
    maybe_text = st.none() | text
    anything = st.recursive(
        st.none() | st.booleans() | st.integers(-(2**70), 2**70) | FLOATS | text,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
        max_leaves=5,
    )
    mapping = st.dictionaries(text, anything, max_size=3)
    scores = st.fixed_dictionaries(
        {"verifier": text, "version": text, "config": mapping},
        optional={
            "extracted": maybe_text,
            "reason": maybe_text,
            "seconds": st.none() | st.floats(0, 1e6),
            "parts": st.none()
            | st.dictionaries(
                text,
                st.builds(Verdict, status=st.just("graded"), reward=FLOATS, reason=maybe_text)
                | st.builds(Verdict, status=st.just("unparsed"), extracted=maybe_text),
                max_size=2,
            ),
        },
    ).flatmap(
        lambda base: st.one_of(
            FLOATS.map(lambda reward: {**base, "status": "graded", "reward": reward}),
            st.sampled_from(["unparsed", "timeout", "error", "invalid", "abstained"]).map(
                lambda status: {**base, "status": status}
            ),
        )
    )
    message = st.fixed_dictionaries({"role": text, "content": text})
    question = text.map(lambda prompt: {"prompt": prompt}) | st.lists(message, max_size=3).map(
        lambda messages: {"messages": messages}
    )

    @st.composite
    def tokens(draw: st.DrawFn) -> dict[str, Any]:
        length = draw(st.integers(0, 6))

        def column(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
            return st.lists(values, min_size=length, max_size=length)

        columns: dict[str, Any] = {"token_ids": draw(column(st.integers(0, 2**31 - 1)))}
        columns["extra_tokens"] = draw(
            st.dictionaries(
                text,
                column(st.none() | FLOATS)
                | column(st.integers(-(2**63), 2**63 - 1))
                | column(st.tuples(FLOATS, st.none() | FLOATS))
                | column(st.tuples(INT64, INT64, INT64)),
                max_size=2,
            )
        )
        if draw(st.booleans()):
            mask = columns["loss_mask"] = draw(column(st.booleans()))
            if draw(st.booleans()):
                columns["behaviour_logprobs"] = [draw(FLOATS32) if sampled else None for sampled in mask]
            if draw(st.booleans()):
                runs = [{"version": draw(INT64), "count": 1} for sampled in mask if sampled]
                columns["policy_versions"] = runs
        return columns

    rest = st.fixed_dictionaries(
        {"id": text},
        optional={
            "run_id": maybe_text,
            "branch": INT64,
            "group_id": maybe_text,
            "index": st.none() | INT64,
            "segment": INT64,
            "completion": maybe_text,
            "task": st.fixed_dictionaries({"answer": maybe_text, "dataset": maybe_text, "extra": mapping}),
            "sampling": st.none()
            | st.fixed_dictionaries(
                {
                    "temperature": st.floats(0, 10),
                    "seed": st.none() | INT64,
                    "dtype": maybe_text,
                    "stop": st.none()
                    | st.fixed_dictionaries(
                        {"strings": st.lists(text, max_size=2), "token_ids": st.lists(INT64, max_size=2)}
                    ),
                }
            ),
            "model": st.none() | st.fixed_dictionaries({"name": maybe_text, "tokenizer_hash": maybe_text}),
            "finish_reason": st.sampled_from([None, "stop", "length", "abort", "error"]),
            "stop_reason": maybe_text,
            "group_stats": st.none() | st.just({"mean": -0.1, "std": 0.0, "count": 3}),
            "scores": st.lists(scores, max_size=3),
            "created_at": maybe_text,
            "timings": st.none() | st.fixed_dictionaries({"sample": st.none() | st.floats(0, 1e9)}),
        },
    )
    return st.tuples(question, st.just({}) | tokens(), rest).map(
        lambda parts: Rollout.model_validate({**parts[0], **parts[1], **parts[2]})
    )


# Lone surrogates too; a high one before a low one is a character, in JSON as in UTF-16.
ANY_TEXT = st.text(st.characters(), max_size=8).filter(
    lambda text: not re.search("[\ud800-\udbff][\udc00-\udfff]", text)
)
UTF8_TEXT = st.text(max_size=8)

thorough = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


@thorough
@given(records=st.lists(rollouts(UTF8_TEXT), max_size=4))
def test_parquet_gives_back_every_valid_rollout(
    tmp_path_factory: pytest.TempPathFactory, records: list[Rollout]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.parquet"
    assert write_rollouts(path, records) == len(records)
    assert list(read_rollouts(path)) == records


@thorough
@given(records=st.lists(rollouts(ANY_TEXT), max_size=4))
def test_jsonl_gives_back_every_valid_rollout(tmp_path_factory: pytest.TempPathFactory, records: list[Rollout]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    assert write_rollouts(path, records) == len(records)
    assert list(read_rollouts(path)) == records
    assert len(path.read_text(encoding="utf-8").splitlines()) == len(records)  # no reader splits a line in two


@pytest.mark.parametrize("ending", FORMATS)
def test_a_full_rollout_and_megabytes_come_back(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rollouts{ending}"
    records = [
        rollout(),
        rollout(completion="\u2028é\x00" * 1_000_000),
        rollout(completion=""),
        rollout(token_ids=[2**31 - 1] * 4),
    ]
    write_rollouts(path, records)
    assert list(read_rollouts(path)) == records


def test_unknown_stays_apart_from_empty(tmp_path: Path) -> None:
    empty: dict[str, Any] = {"token_ids": [], "loss_mask": [], "behaviour_logprobs": [], "policy_versions": []}
    records = [Rollout(id="a", prompt=""), Rollout(id="b", prompt="", **empty), Rollout(id="c", messages=())]
    for ending in FORMATS:
        path = tmp_path / f"rollouts{ending}"
        write_rollouts(path, records)
        unknown, known, chat = read_rollouts(path)
        assert unknown.token_ids is None
        assert known.token_ids is not None
        assert known.token_ids.tolist() == []
        assert known.behaviour_logprobs is not None
        assert known.behaviour_logprobs.tolist() == []
        assert chat.messages == ()


def test_the_columns_are_the_schemas_fields() -> None:
    def columns(kind: pa.DataType) -> Any:
        if pa.types.is_list(kind):
            return columns(kind.value_type)
        return {field.name: columns(field.type) for field in kind} if pa.types.is_struct(kind) else None

    def fields(annotation: Any, name: str = "") -> Any:
        if name in ("messages", "extra", "config"):
            return None  # JSON text
        if name == "extra_tokens":
            return dict.fromkeys(["name", "width", "float32", "float64", "int32", "int64"])
        if name == "parts":
            return dict.fromkeys(["name", "status", "reward", "extracted", "reason"])
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return {name: fields(field.annotation, name) for name, field in annotation.model_fields.items()}
        if get_origin(annotation) in (Union, UnionType):
            (annotation,) = [choice for choice in get_args(annotation) if choice is not NoneType]
            return fields(annotation)
        return fields(get_args(annotation)[0]) if get_origin(annotation) is tuple else None

    assert columns(pa.struct(list(ROLLOUT_SCHEMA))) == fields(Rollout)
    assert ROLLOUT_SCHEMA.names == list(Rollout.model_fields)


def test_the_documented_table_is_the_schema() -> None:
    table = (Path(__file__).parents[3] / "docs" / "record.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `([\w.]+)` \|", table, flags=re.MULTILINE)
    expected = []
    for field in ROLLOUT_SCHEMA:
        kind = field.type.value_type if pa.types.is_list(field.type) else field.type
        inner = [f"{field.name}.{part.name}" for part in kind] if pa.types.is_struct(kind) else []
        expected += [field.name, *inner]
    assert documented == expected


# --- other readers --------------------------------------------------------------------------------------------------

BOTH = [rollout(), Rollout(id="bare", messages=({"role": "user", "content": "1 + 1?"},))]


def check_row(row: dict[str, Any]) -> None:
    assert row["id"] == "r-1"
    assert row["task"]["answer"] == "2"
    assert json.loads(row["task"]["extra"]) == {"level": 1, "tags": ["a"]}
    assert list(row["token_ids"]) == [5, 6, 7, 2]
    assert list(row["loss_mask"]) == [False, False, True, True]
    assert [dict(run) for run in row["policy_versions"]] == [{"version": 3, "count": 1}, {"version": 4, "count": 1}]
    assert [score["status"] for score in row["scores"]] == ["graded", "abstained"]
    assert row["scores"][0]["reward"] == 1.0
    assert row["extra_tokens"][0]["name"] == "router.expert"
    assert row["sampling"]["temperature"] == 0.8


def test_pandas_reads_the_file(tmp_path: Path) -> None:
    import pandas

    write_rollouts(tmp_path / "rollouts.parquet", BOTH)
    rows = pandas.read_parquet(tmp_path / "rollouts.parquet").to_dict("records")
    check_row(rows[0])
    assert np.array_equal(rows[0]["behaviour_logprobs"], [np.nan, np.nan, -0.5, -0.25], equal_nan=True)
    assert rows[1]["token_ids"] is None
    assert rows[1]["sampling"] is None


def test_polars_reads_the_file(tmp_path: Path) -> None:
    import polars

    write_rollouts(tmp_path / "rollouts.parquet", BOTH)
    rows = polars.read_parquet(tmp_path / "rollouts.parquet").to_dicts()
    check_row(rows[0])
    assert rows[0]["behaviour_logprobs"] == [None, None, -0.5, -0.25]
    assert rows[1]["token_ids"] is None
    assert rows[1]["sampling"] is None


@pytest.mark.parametrize("ending", FORMATS)
def test_datasets_reads_the_file_and_what_it_writes_is_read_back(tmp_path: Path, ending: str) -> None:
    import datasets

    path = tmp_path / f"rollouts{ending}"
    write_rollouts(path, BOTH)
    kind = "parquet" if ending == ".parquet" else "json"
    dataset = datasets.load_dataset(kind, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    if ending == ".parquet":
        check_row(dataset[0])
    assert dataset[0]["behaviour_logprobs"] == [None, None, -0.5, -0.25]
    assert dataset[1]["token_ids"] is None
    dataset.to_parquet(tmp_path / "again.parquet")
    if ending == ".parquet":
        assert list(read_rollouts(tmp_path / "again.parquet")) == BOTH


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_what_another_library_wrote_is_read_back(tmp_path: Path, library: str) -> None:
    module = importlib.import_module(library)
    write_rollouts(tmp_path / "rollouts.parquet", BOTH)
    frame = module.read_parquet(tmp_path / "rollouts.parquet")
    again = tmp_path / "again.parquet"
    frame.to_parquet(again) if library == "pandas" else frame.write_parquet(again)
    assert list(read_rollouts(again)) == BOTH


# --- whole or absent ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", FORMATS)
def test_nothing_has_the_name_until_the_writer_closes(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rollouts{ending}"
    with RolloutWriter(path) as writer:
        writer.write(rollout())
        assert not path.exists()
        assert list(tmp_path.glob("*.parquet")) == list(tmp_path.glob("*.jsonl")) == []
    assert list(read_rollouts(path)) == [rollout()]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", FORMATS)
def test_a_failure_leaves_what_was_there(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rollouts{ending}"
    write_rollouts(path, [rollout(id="old")])

    def failing() -> Iterator[Rollout]:
        yield rollout(id="new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rollouts(path, failing())
    assert [record.id for record in read_rollouts(path)] == ["old"]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", FORMATS)
def test_a_killed_writer_leaves_no_half_file(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rollouts{ending}"
    program = (
        "import os, signal, sys\n"
        "from rlvr.record.schema import Rollout\n"
        "from rlvr.record.store import RolloutWriter\n"
        "writer = RolloutWriter(sys.argv[1]).__enter__()\n"
        "for i in range(2000): writer.write(Rollout(id=str(i), prompt='p' * 1000))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not path.exists()
    write_rollouts(path, [rollout()])  # and its leftovers do no harm
    assert list(read_rollouts(tmp_path)) == [rollout()]


@pytest.mark.parametrize("ending", FORMATS)
def test_a_full_disk_is_one_line_and_no_file(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rollouts{ending}"
    program = (
        "import resource, sys\n"
        "from rlvr.errors import RunError\n"
        "from rlvr.record.schema import Rollout\n"
        "from rlvr.record.store import write_rollouts\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "try: write_rollouts(sys.argv[1], (Rollout(id=str(i), prompt=str(i * 7919)) for i in range(5000)))\n"
        "except RunError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=True, capture_output=True, text=True)
    assert done.stdout == f"{path} could not be written: File too large\n"
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_another_file_keeps_its_type(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "out.jsonl"):
        (tmp_path / "elsewhere").read_text()


def test_the_file_has_the_users_permissions(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_rollouts(tmp_path / "rollouts.jsonl", [rollout()])
    finally:
        os.umask(before)
    assert (tmp_path / "rollouts.jsonl").stat().st_mode & 0o777 == 0o640


def test_a_link_keeps_pointing_where_it_did(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "real" / "rollouts.jsonl")
    write_rollouts(tmp_path / "link.jsonl", [rollout()])
    assert (tmp_path / "link.jsonl").is_symlink()
    assert list(read_rollouts(tmp_path / "real" / "rollouts.jsonl")) == [rollout()]


@pytest.mark.parametrize("ending", FORMATS)
def test_memory_is_bounded_in_both_directions(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rollouts{ending}"
    text = "".join(chr(32 + (i * 7919) % 90) for i in range(20_000))
    total = 6_000 * len(text)

    tracemalloc.start()  # counts Python's memory; Arrow's is counted beside it
    arrow_before = pa.total_allocated_bytes()
    arrow_most = 0

    def endless() -> Iterator[Rollout]:
        nonlocal arrow_most
        for i in range(6_000):
            arrow_most = max(arrow_most, pa.total_allocated_bytes() - arrow_before)
            yield Rollout(id=str(i), prompt=f"{i}{text}")

    write_rollouts(path, endless())
    count = 0
    for record in read_rollouts(path):
        count += len(record.id) > 0
        arrow_most = max(arrow_most, pa.total_allocated_bytes() - arrow_before)
    python_most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 6_000
    assert python_most < total / 2
    assert arrow_most < total / 2


# --- several files --------------------------------------------------------------------------------------------------


def test_several_files_and_folders_are_read_in_order(tmp_path: Path) -> None:
    part = tmp_path / "rollouts"
    part.mkdir()
    write_rollouts(part / "000002.parquet", [rollout(id="c")])
    write_rollouts(part / "000001.jsonl", [rollout(id="a"), rollout(id="b")])
    (part / ".000003.parquet.tmp").write_bytes(b"half")
    (part / "notes.txt").write_text("not records")
    write_rollouts(tmp_path / "more.jsonl", [rollout(id="d")])
    assert [record.id for record in read_rollouts([part, str(tmp_path / "more.jsonl")])] == ["a", "b", "c", "d"]


def test_reading_is_lazy(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    write_rollouts(path, [rollout()])
    with path.open("a") as file:
        file.write("broken\n")
    records = read_rollouts(path)
    assert next(records) == rollout()
    with pytest.raises(DataError):
        next(records)


def test_no_rows_is_a_file_too(tmp_path: Path) -> None:
    for ending in FORMATS:
        assert write_rollouts(tmp_path / f"none{ending}", []) == 0
        assert list(read_rollouts(tmp_path / f"none{ending}")) == []


# --- errors say where -----------------------------------------------------------------------------------------------


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


GOOD: dict[str, Any] = {"schema_version": 1, "id": "a", "prompt": "p"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"schema_version": 1, "id": ', "line 3 is not JSON: Expecting value (column 28)"),
        ("[1, 2]", "line 3 is a list: a record is an object"),
        ("[" * 100_000, "line 3 is nested too deeply to read"),
        ('{"n": ' + "1" * 5000 + "}", "line 3 cannot be read: Exceeds the limit"),
        ({"id": "a", "prompt": "p"}, "line 3 is not a record: it has no schema_version"),
        ({**GOOD, "schema_version": "v2"}, "line 3: schema_version is 'v2', not a whole number"),
        ({**GOOD, "schema_version": 0}, "line 3: schema_version is 0, not a whole number"),
        ({**GOOD, "completions": "x"}, "line 3: the record has no field 'completions'; did you mean 'completion'?"),
        ({**GOOD, "completion": 5}, "line 3: completion: Input should be a valid string"),
        ({**GOOD, "task": {"answer": 5}}, "line 3: task.answer: Input should be a valid string"),
        ({**GOOD, "task": {"extra": "{"}}, "line 3: task.extra: "),
        ({**GOOD, "task": {"extra": "[" * 100_000}}, "line 3: the JSON text in a field is nested too deeply"),
        ({**GOOD, "prompt": None}, "line 3: exactly one of 'prompt' and 'messages' must be given"),
        ({**GOOD, "token_ids": [1], "loss_mask": []}, "line 3: loss_mask has 0 entries, token_ids has 1"),
        ({**GOOD, "scores": [{"verifier": "m", "version": "1"}]}, "line 3: scores.0.status: Field required"),
        ({**GOOD, "id": None, "branch": -1}, "line 3: branch: "),
    ],
)
def test_a_bad_line_names_file_line_and_field(tmp_path: Path, row: Any, message: str) -> None:
    path = jsonl(tmp_path / "rollouts.jsonl", GOOD, "", row)
    with pytest.raises(DataError) as caught:
        list(read_rollouts(path))
    assert str(caught.value).startswith(f"{path}, {message}")
    assert "\n" not in str(caught.value)


def test_a_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rollouts.jsonl", GOOD)
    path.write_bytes(path.read_bytes() + b'{"id": "\xff"}\n')
    with pytest.raises(DataError, match=re.escape(f"{path}, line 2 is not UTF-8 (byte 9)")):
        list(read_rollouts(path))


def test_a_windows_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n\r\n" + json.dumps(GOOD).encode())
    assert [record.id for record in read_rollouts(path)] == ["a", "a"]


def test_a_bad_row_of_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.parquet"
    rows = [{**GOOD, "branch": 0 if i != 700 else -1} for i in range(900)]
    pq.write_table(pa.Table.from_pylist(rows), path)
    with pytest.raises(DataError, match=re.escape(f"{path}, row 701: branch: ")):
        list(read_rollouts(path))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"text, not Parquet, and long enough to hold a footer"])
def test_a_file_that_is_not_parquet_says_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rollouts.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is not a Parquet file"):
        list(read_rollouts(path))


def test_a_damaged_parquet_file_says_after_which_row(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.parquet"
    table = pa.Table.from_pylist([{**GOOD, "completion": os.urandom(500).hex()} for _ in range(50)])
    pq.write_table(table, path, row_group_size=25, compression="zstd")
    place = pq.ParquetFile(path).metadata.row_group(1).column(2).data_page_offset
    damaged = bytearray(path.read_bytes())
    damaged[place : place + 40] = b"\xff" * 40
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=re.escape(f"{path} is damaged after row 25: ")):
        list(read_rollouts(path))


def test_missing_files_and_other_endings_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"does not exist"):
        read_rollouts(tmp_path / "none.parquet")
    (tmp_path / "rollouts.csv").write_text("id\n")
    with pytest.raises(RequestError, match=r"ends in neither \.parquet nor \.jsonl"):
        read_rollouts(tmp_path / "rollouts.csv")
    with pytest.raises(RequestError, match=r"ends in neither"):
        RolloutWriter(tmp_path / "rollouts.json")
    with pytest.raises(RequestError, match=r"holds no file that ends in \.parquet, \.jsonl"):
        read_rollouts(tmp_path)
    with pytest.raises(RequestError, match=r"cannot be written: No such file or directory"):
        write_rollouts(tmp_path / "none" / "rollouts.jsonl", [])


def broken(**changes: Any) -> Rollout:
    """Return a rollout that was changed without validation, as `model_copy` allows."""
    return rollout().model_copy(update=changes)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            rollout(completion="x\ud800"),
            r"row 2: completion does not fit Parquet: the text holds a lone surrogate ('\ud800')",
        ),
        (rollout(branch=2**63), "row 2: branch does not fit Parquet: an integer of more than 64 bits"),
        (rollout(token_ids=[2**31] * 4), "row 2: token_ids does not fit Parquet: "),
        (
            rollout(behaviour_logprobs=[None, None, -1e300, -1]),
            "row 2: behaviour_logprobs holds a number that is no float32",
        ),
        (
            broken(behaviour_logprobs=(None, None, float("nan"), -1.0)),
            "row 2: behaviour_logprobs holds a number that is no",
        ),
        (broken(schema_version=9), "row 2: schema_version is 9, this rlvr writes 2"),
        (broken(task=Task().model_copy(update={"extra": {"x": float("nan")}})), "row 2: "),
    ],
)
def test_what_parquet_cannot_hold_is_refused_and_named(tmp_path: Path, record: Rollout, message: str) -> None:
    path = tmp_path / "rollouts.parquet"
    with pytest.raises(DataError) as caught:
        write_rollouts(path, [rollout(), record, rollout()])
    assert str(caught.value).startswith(f"{path}, {message}")
    assert not path.exists()


def test_what_json_cannot_hold_is_refused_and_named(tmp_path: Path) -> None:
    score = Score(verifier="v", version="1", status="graded", reward=1.0).model_copy(update={"reward": float("nan")})
    task = Task().model_copy(update={"extra": {"x": float("inf")}})
    for record in (broken(scores=(score,)), broken(task=task)):
        with pytest.raises(DataError, match=r"line 1: "):
            write_rollouts(tmp_path / "rollouts.jsonl", [record])


# --- versions of the schema -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", FORMATS)
def test_the_golden_file_of_version_1_stays_readable(ending: str) -> None:
    full, bare = read_rollouts(DATA / f"rollouts-v1{ending}")
    assert [full, bare] == BOTH


# Written by the last code of version 1 from these fields.
LAST_OF_VERSION_1: list[dict[str, Any]] = [
    {
        "id": "chat",
        "messages": [{"role": "system", "content": "Ünïcode \u2028"}, {"role": "user", "content": "1 + 1?"}],
        "completion": "",
        "segment": 1,
        "branch": 2,
        "token_ids": [5, 6, 7, 2, 9],
        "loss_mask": [False, True, False, True, True],
        "behaviour_logprobs": [None, -0.5, None, -1.25, 0.0],
        "policy_versions": [{"version": 3, "count": 2}, {"version": 7, "count": 1}],
        "extra_tokens": {"a.b": [None, 0.1, 2.0, -3.5, 1e300], "c.d": [1.0, 2.0, 3.0, 4.0, 5.0]},
        "recomputed_by": {"name": "other", "revision": "main", "weights_hash": "w", "tokenizer_hash": "t"},
        "sampling": {"temperature": 1.0, "max_tokens": None, "top_k": 20, "logprob_mode": "raw"},
        "scores": [{"verifier": "math@b", "version": "2", "status": "unparsed", "reason": "no box"}],
    },
    {"id": "empty", "prompt": "", "token_ids": [], "loss_mask": [], "behaviour_logprobs": [], "policy_versions": []},
    {"id": "masked", "prompt": "p", "token_ids": [1, 2147483647], "loss_mask": [False, True]},
    {"id": "tokens alone", "prompt": "p", "token_ids": [1, 2], "extra_tokens": {"a.b": [None, None]}},
]


@pytest.mark.parametrize("ending", FORMATS)
def test_the_last_files_of_version_1_stay_readable(ending: str) -> None:
    assert list(read_rollouts(DATA / f"rollouts-v1-last{ending}")) == [
        Rollout.model_validate(fields) for fields in LAST_OF_VERSION_1
    ]


def written_by_version_2() -> list[Rollout]:
    full = rollout(
        extra_tokens={
            "engine.top_ids": np.array([[-1, -1], [-1, -1], [7, 9], [2, 3]], np.int32),
            "engine.top_logprobs": np.array([[np.nan, np.nan], [np.nan, np.nan], [-0.5, -1], [-0.25, -2]], np.float32),
            "moe.route": [1, 2, 3, 2**40],
            "a.fraction": [None, 0.1, 0.2, 0.3],
        },
        sampling={"temperature": 1.0, "stop": {"strings": ["</answer>"], "token_ids": [2, 3]}},
        scores=[
            {
                "verifier": "math",
                "version": "1",
                "status": "graded",
                "reward": 0.5,
                "parts": {
                    "format": Verdict(status="graded", reward=1),
                    "answer": Verdict(status="unparsed", reason="?"),
                },
            }
        ],
    )
    return [full, Rollout(id="bare", prompt="p"), rollout(id="plain")]


@pytest.mark.parametrize("ending", FORMATS)
def test_vectors_parts_and_stops_come_back(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rollouts{ending}"
    write_rollouts(path, written_by_version_2())
    back = list(read_rollouts(path))
    assert back == written_by_version_2()
    assert back[0].scores[0].parts == written_by_version_2()[0].scores[0].parts
    kinds = {name: (column.dtype.kind, column.shape) for name, column in back[0].extra_tokens.items()}
    assert kinds == {
        "engine.top_ids": ("i", (4, 2)),
        "engine.top_logprobs": ("f", (4, 2)),
        "moe.route": ("i", (4,)),
        "a.fraction": ("f", (4,)),
    }
    if ending == ".parquet":
        assert back[0].extra_tokens["engine.top_logprobs"].dtype == np.float32
        assert back[0].extra_tokens["engine.top_ids"].dtype == np.int32
        (batch,) = (batch for _, batch in parquet.batches_of(path))
        plain = store.rows_of(batch, str)
        assert [Rollout.model_validate(row) for row in plain] == back


@pytest.mark.parametrize("ending", FORMATS)
def test_the_golden_file_of_version_2_stays_readable(ending: str) -> None:
    assert list(read_rollouts(DATA / f"rollouts-v2{ending}")) == written_by_version_2()


def test_there_is_a_migration_from_every_older_version() -> None:
    assert set(store.MIGRATIONS) == set(range(1, SCHEMA_VERSION))


def test_older_records_are_migrated_and_newer_ones_refused() -> None:
    rows = [{"schema_version": 1, "id": "a", "question": "p"}, {"schema_version": 2, "id": "b", "text": "q"}]

    def rename(old: str, new: str) -> Any:
        return lambda row: {new if key == old else key: value for key, value in row.items()}

    with pytest.raises(DataError, match=r"was written with version 2 .* reads up to 1: upgrade rlvr"):
        store.upgrade(rows[1], "here", newest=1, migrations={})
    migrations = {1: rename("question", "text"), 2: rename("text", "prompt")}
    upgraded = [store.upgrade(row, "here", newest=3, migrations=migrations) for row in rows]
    assert upgraded[0] == {"schema_version": 3, "id": "a", "prompt": "p"}
    assert upgraded[1] == {"schema_version": 3, "id": "b", "prompt": "q"}


@pytest.mark.parametrize("ending", FORMATS)
def test_a_file_may_hold_records_of_several_versions(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"mixed{ending}"
    rows = [{"schema_version": 1, "id": "a", "prompt": "p"}, {"schema_version": 2, "id": "b", "prompt": "q"}]
    if ending == ".jsonl":
        jsonl(path, *rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows, schema=None), path)
    assert [(record.id, record.prompt, record.schema_version) for record in read_rollouts(path)] == [
        ("a", "p", SCHEMA_VERSION),
        ("b", "q", SCHEMA_VERSION),
    ]


def test_a_record_of_a_newer_version_names_its_line(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "new.jsonl", {**GOOD, "schema_version": 3, "novelty": 1})
    with pytest.raises(DataError, match=r"line 1 was written with version 3 .*: upgrade rlvr"):
        list(read_rollouts(path))
