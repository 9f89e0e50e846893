"""`rlvr score` at scale: several files and verifiers, parts of files, sidecars, kills, files of other frameworks."""

from __future__ import annotations

import gzip
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.errors import RequestError
from rlvr.record.foreign_formats import layout_of
from rlvr.record.schema import Rollout, Task
from rlvr.record.store import read_rollouts, write_rollouts
from rlvr.rescore.journal import Journal

MINE = """
import time
from rlvr.record.schema import Verdict

def length(completion, task, *, weight: float = 1.0):
    return weight * len(completion)

def same(completion, task):
    return completion == task.answer

def slow(completion, task):
    time.sleep(0.004)
    return Verdict(status="graded", reward=1.0, extracted=completion)

def together(rollouts):
    time.sleep(0.05)
    return [float(len(rollouts))] * len(rollouts)
"""


Run = Callable[..., Any]


@pytest.fixture
def rlvr(cli: Run) -> Run:
    """Function that runs `rlvr score` in this process and without workers, in a folder with `mine.py`."""
    Path("mine.py").write_text(MINE)

    def run(*arguments: str, command: str = "score") -> Any:
        given = [command, *arguments]
        if command == "score":
            given += ["--workers", "0"]
            given += [] if {"-v", "--verifier"} & set(arguments) else ["-v", "mine.py:length"]
        return cli(*given)

    return run


def put(path: str, *rows: dict[str, Any]) -> None:
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


def lines(path: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def rewards(path: str | Path) -> list[list[float | None]]:
    return [[score["reward"] for score in row["scores"]] for row in lines(path)]


def numbered(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"id": f"r{i}", "completion": "x" * (i % 7 + 1), "answer": "xx", "n": i} for i in range(start, count)]


# --- several files --------------------------------------------------------------------------------------------------


def test_files_folders_and_patterns_go_into_one_file(rlvr: Run) -> None:
    put("folder/b.jsonl", *numbered(3, 2))
    put("folder/a.jsonl", *numbered(2))
    put("folder/.hidden.jsonl", *numbered(1))
    Path("folder/notes.txt").write_text("no rows")
    put("more-1.jsonl", *numbered(4, 3))
    put("more-2.jsonl", *numbered(5, 4))
    put("last.jsonl", *numbered(6, 5))
    done = rlvr("folder", "more-*.jsonl", "last.jsonl", "--out", "out.jsonl")
    assert done.code == 0, done.err
    assert [row["n"] for row in lines("out.jsonl")] == list(range(6))
    assert "rows         6" in done.out


def test_a_folder_as_out_gets_a_file_for_each_file(rlvr: Run) -> None:
    put("a.jsonl", *numbered(2))
    pq.write_table(pa.Table.from_pylist(numbered(5, 2)), "b.parquet")
    put("empty.jsonl")
    done = rlvr("a.jsonl", "b.parquet", "empty.jsonl", "--out", "new/folder/")
    assert done.code == 0, done.err
    assert sorted(path.name for path in Path("new/folder").iterdir()) == ["a.jsonl", "b.parquet", "empty.jsonl"]
    assert rewards("new/folder/a.jsonl") == [[1.0], [2.0]]
    assert pq.read_table("new/folder/b.parquet")["n"].to_pylist() == [2, 3, 4]
    put("other/a.jsonl", *numbered(1))
    done = rlvr("a.jsonl", "other/a.jsonl", "--out", "second/")
    assert done.code == 2
    assert "a.jsonl and other/a.jsonl would both be second/a.jsonl" in done.err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["none*.jsonl"], "no file matches none*.jsonl"),
        (["empty"], "empty holds no file that ends in .parquet"),
        (["a.jsonl", "*.jsonl"], "a.jsonl is given twice"),
        (["a.jsonl", "mine.py"], "mine.py ends in neither .parquet nor .jsonl"),
    ],
)
def test_what_stands_for_no_file_is_refused(rlvr: Run, given: list[str], message: str) -> None:
    put("a.jsonl", *numbered(1))
    Path("empty").mkdir()
    done = rlvr(*given, "--out", "out.jsonl")
    assert done.code == 2
    assert done.err.startswith(f"rlvr: {message}")


@pytest.mark.parametrize("ending", ["jsonl.gz", "jsonl.zst"])
def test_compressed_lines_are_read_and_written(rlvr: Run, ending: str) -> None:
    put("in.jsonl", *numbered(1500))
    assert rlvr("in.jsonl", "--out", f"one.{ending}").code == 0
    assert Path(f"one.{ending}").stat().st_size < Path("in.jsonl").stat().st_size / 2
    assert rlvr(f"one.{ending}", "--out", "two.jsonl").code == 0
    assert rewards("two.jsonl") == [[i % 7 + 1.0] * 2 for i in range(1500)]
    records = [Rollout(id=str(i), prompt="p", completion="c") for i in range(3)]
    write_rollouts(f"records.{ending}", records)
    assert list(read_rollouts(f"records.{ending}")) == records


def test_gzip_of_others_is_read_and_a_damaged_one_is_named(rlvr: Run) -> None:
    text = "".join(json.dumps(row) + "\n" for row in numbered(1000)).encode()
    Path("in.jsonl.gz").write_bytes(gzip.compress(text[:5000]) + gzip.compress(text[5000:]))  # as `cat` makes them
    assert rlvr("in.jsonl.gz", "--out", "out.jsonl").code == 0
    assert len(lines("out.jsonl")) == 1000
    Path("cut.jsonl.gz").write_bytes(gzip.compress(text)[:-2000])
    done = rlvr("cut.jsonl.gz", "--out", "no.jsonl")
    assert done.code == 2
    assert done.err.startswith("rlvr: cut.jsonl.gz is damaged after line ")


def test_parquet_files_of_alike_columns_become_one(rlvr: Run) -> None:
    pq.write_table(pa.table({"completion": ["a"], "answer": ["1"], "x": [1], "z": pa.nulls(1)}), "a.parquet")
    pq.write_table(pa.table({"completion": ["bb"], "answer": ["1"], "y": ["b"], "z": [2.5]}), "b.parquet")
    done = rlvr("a.parquet", "b.parquet", "--out", "out.parquet")
    assert done.code == 0, done.err
    table = pq.read_table("out.parquet")
    assert {name: table[name].to_pylist() for name in "xyz"} == {"x": [1, None], "y": [None, "b"], "z": [None, 2.5]}
    assert [row[0]["reward"] for row in table["scores"].to_pylist()] == [1.0, 2.0]
    pq.write_table(pa.table({"completion": ["bb"], "answer": ["1"], "x": ["text"]}), "c.parquet")
    done = rlvr("a.parquet", "c.parquet", "--out", "no.parquet")
    assert done.code == 2
    assert "c.parquet does not fit into one Parquet file with the files before it" in done.err
    assert "write .jsonl, or give a folder (--out FOLDER/) for a file each" in done.err
    assert rlvr("a.parquet", "c.parquet", "--out", "fine.jsonl").code == 0


# --- several verifiers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["out.jsonl", "out.parquet"])
def test_each_verifier_appends_a_score_in_the_order_given(rlvr: Run, out: str) -> None:
    put("in.jsonl", *numbered(700), {"id": "none", "answer": "1"})
    done = rlvr(
        *("in.jsonl", "--out", out, "-v", "mine.py:length", "-v", "mine.py:same"),
        *("--option", "mine.py:length:weight=2"),
    )
    assert done.code == 0, done.err
    rows = lines(out) if out.endswith("l") else pq.read_table(out).to_pylist()
    assert [[score["verifier"] for score in row["scores"]] for row in rows] == [["mine:length", "mine:same"]] * 701
    assert [row["scores"][0]["reward"] for row in rows[:3]] == [2, 4, 6]
    assert [row["scores"][1]["reward"] for row in rows[:3]] == [0, 1, 0]
    assert [score["status"] for score in rows[-1]["scores"]] == ["invalid", "invalid"]
    assert "verifier     mine:length\nmean reward  8.0" in done.out
    assert "verifier     mine:same\nmean reward  0.14" in done.out


def test_a_label_names_a_variant(rlvr: Run) -> None:
    put("in.jsonl", *numbered(2))
    assert rlvr("in.jsonl", "--out", "one.jsonl").code == 0
    assert rlvr("one.jsonl", "--out", "two.jsonl", "--as", "double", "--option", "weight=2").code == 0
    scores = lines("two.jsonl")[1]["scores"]
    assert [(score["verifier"], score["reward"]) for score in scores] == [("mine:length", 2), ("mine:length@double", 4)]
    write_rollouts("r.jsonl", [Rollout(id="a", prompt="p", completion="c", task=Task(answer="1"))])
    rlvr("r.jsonl", "--out", "s.jsonl", "--as", "double")
    (record,) = read_rollouts("s.jsonl")
    assert record.last_score("mine:length@double") is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-v", "mine.py:same", "-v", "mine.py:same"], "--verifier mine.py:same is given twice"),
        (["-v", "mine.py:same", "-v", "mine.py:length", "--option", "weight=2"], "of which verifier?"),
        (["-v", "mine.py:same", "--as", "a b"], "--as a b: a label is"),
        (["-v", "mine.py:same", "--shard", "5/4"], "--shard 5/4: write I/N"),
        (["-v", "mine.py:same", "--shard", "0/0"], "--shard 0/0: write I/N"),
        (["-v", "mine.py:same", "--shard", "0/2"], "with I from 1 to N: shards count from 1"),
        (["-v", "mine.py:together", "--shard", "1/2"], "shards would split groups"),
        (["-v", "mine.py:same", "--where", "lenght>3"], "has no field 'lenght'"),
        (["-v", "mine.py:same", "--where", "n"], "--where n: expected FIELD OP VALUE"),
    ],
)
def test_a_wrong_request_is_one_line(rlvr: Run, arguments: list[str], message: str) -> None:
    put("in.jsonl", *numbered(3))
    done = rlvr("in.jsonl", "--out", "out.jsonl", *arguments)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1
    assert sorted(path.name for path in Path().iterdir() if path.name != "__pycache__") == ["in.jsonl", "mine.py"]


# --- parts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["in.jsonl", "in.parquet"])
def test_only_rows_where_it_holds_are_verified_and_written(rlvr: Run, source: str) -> None:
    rows = numbered(1200)
    put("in.jsonl", *rows)
    pq.write_table(pa.Table.from_pylist(rows), "in.parquet")
    done = rlvr(source, "--out", "out.jsonl", "--where", "n>=600", "--where", "completion=xx", "--limit", "50")
    assert done.code == 0, done.err
    expected = [row["n"] for row in rows if row["n"] >= 600 and row["completion"] == "xx"][:50]
    assert [row["n"] for row in lines("out.jsonl")] == expected
    assert rlvr("out.jsonl", "--out", "again.jsonl", "--where", "reward=2", "--limit", "1").code == 0
    assert len(lines("again.jsonl")) == 1


def test_conditions_on_a_score_pick_one_score_of_the_row(rlvr: Run) -> None:
    scores = [{"verifier": name, "status": "graded", "reward": reward} for name, reward in (("a", 1.0), ("b", 0.0))]
    put("in.jsonl", *({**row, "scores": scores[: 1 + row["n"] % 2]} for row in numbered(10)))
    assert rlvr("in.jsonl", "--out", "a.jsonl", "--where", "reward=1", "--where", "verifier=a").code == 0
    assert len(lines("a.jsonl")) == 10
    assert rlvr("in.jsonl", "--out", "b.jsonl", "--where", "reward=0", "--where", "verifier=b").code == 0
    assert len(lines("b.jsonl")) == 5
    done = rlvr("in.jsonl", "--out", "c.jsonl", "--where", "reward=0", "--where", "verifier=a")
    assert (done.code, "no row that meets --where reward=0 --where verifier=a" in done.err) == (2, True)


@pytest.mark.parametrize("n", [1, 3, 7])
def test_shards_are_disjoint_and_complete(rlvr: Run, n: int) -> None:
    put("a.jsonl", *numbered(600))
    pq.write_table(pa.Table.from_pylist(numbered(1201, 600)), "b.parquet")
    found: list[int] = []
    for i in range(1, n + 1):
        assert rlvr("a.jsonl", "b.parquet", "--out", f"{i}.jsonl", "--shard", f"{i}/{n}").code == 0
        found += [row["n"] for row in lines(f"{i}.jsonl")]
    assert sorted(found) == list(range(1201))


# --- scores only ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["in.jsonl", "in.parquet"])
@pytest.mark.parametrize("out", ["out.jsonl", "out.parquet"])
def test_scores_only_is_joined_by_id(rlvr: Run, source: str, out: str) -> None:
    records = [
        Rollout(id=f"r{i // 2}", segment=i % 2, prompt="p", completion="c" * (i + 1), task=Task(answer="1"))
        for i in range(10)
    ]
    write_rollouts(source, records)
    assert rlvr(source, "--out", "whole.jsonl").code == 0
    done = rlvr("whole.jsonl", "--out", out, "--scores-only", "--where", "segment=1", "--as", "b")
    assert done.code == 0, done.err
    rows = lines(out) if out.endswith("l") else pq.read_table(out).to_pylist()
    assert [(row["id"], row["segment"], len(row["scores"])) for row in rows] == [(f"r{i}", 1, 1) for i in range(5)]
    joined = list(read_rollouts("whole.jsonl", sidecars=out))
    assert [len(record.scores) for record in joined] == [1, 2] * 5
    assert [record.scores[-1].reward for record in joined] == [float(i + 1) for i in range(10)]
    assert joined[1].scores[-1].verifier == "mine:length@b"
    assert [record.model_copy(update={"scores": ()}) for record in joined] == records


def test_a_sidecar_needs_ids_and_must_fit(rlvr: Run) -> None:
    put("in.jsonl", {"answer": "1", "uid": 7}, {"completion": "xx", "answer": "1", "uid": 8})
    done = rlvr("in.jsonl", "--out", "side.jsonl", "--scores-only")
    assert done.code == 2
    assert "in.jsonl, line 1 has no 'id'" in done.err
    put("in.jsonl", {"completion": "x", "answer": "1", "uid": 7}, {"completion": "xx", "answer": "1", "uid": 8})
    assert rlvr("in.jsonl", "--out", "side.jsonl", "--scores-only", "--map", "id=uid").code == 0
    assert [row["id"] for row in lines("side.jsonl")] == ["7", "8"]
    shown = rlvr("in.jsonl", "--map", "id=uid", "--scores", "side.jsonl", "--where", "reward=2", command="show")
    assert "verdict graded 2.0, by mine:length" in shown.out
    write_rollouts("other.jsonl", [Rollout(id="a", prompt="p", completion="c")])
    with pytest.raises(RequestError, match=r"side\.jsonl has none of the ids of the rows"):
        list(read_rollouts("other.jsonl", sidecars="side.jsonl"))
    Path("twice.jsonl").write_text(Path("side.jsonl").read_text() * 2)
    with pytest.raises(RequestError, match=r"twice\.jsonl, line 3: id '7' .*occurs twice"):
        list(read_rollouts("other.jsonl", sidecars="twice.jsonl"))


# --- killed and continued ----------------------------------------------------------------------------------------


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "rlvr", "score", *arguments, "--workers", "2"]


def without_times(path: Path) -> Any:
    rows = lines(path) if path.suffix == ".jsonl" else pq.read_table(path).to_pylist()
    for row in rows:
        for score in row["scores"]:
            del score["seconds"], score["created_at"]
    return rows


@pytest.mark.parametrize(
    ("verifier", "out"), [("slow", "out.jsonl"), ("together", "out.parquet"), ("together", "a.jsonl")]
)
def test_killed_at_any_moment_it_goes_on_where_it_was(tmp_path: Path, verifier: str, out: str) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    rows = [
        {
            "id": i,
            "prompt": "p",
            "group_id": i % 120 if out == "a.jsonl" else i // 5,
            "completion": f"{i}",
            "answer": "1",
        }
        for i in range(1200 if verifier == "slow" else 600)
    ]
    put(str(tmp_path / "in.jsonl"), *rows[:700])
    put(str(tmp_path / "in2.jsonl"), *rows[700:])
    asked = command("in.jsonl", "in2.jsonl", "--out", out, "-v", f"mine.py:{verifier}")
    draw = random.Random(f"{verifier} {out}")
    kills, journals = 0, []
    journal = tmp_path / f".{out}.journal"
    while True:
        process = subprocess.Popen(asked, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while kills < 3 and process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") > 1):
            time.sleep(0.01)
        if kills < 3 and process.poll() is None:
            time.sleep(draw.uniform(0, 0.4))
            process.send_signal(signal.SIGKILL)
        said, error = process.communicate()
        if (tmp_path / out).exists():  # perhaps killed after all was done
            break
        assert process.returncode == -signal.SIGKILL, error
        kills += 1
        journals.append(journal.stat().st_size)
        if kills == 2:  # a power cut, too: the last line is torn
            with journal.open("ab") as file:
                file.write(b'[[["graded", 1.0, "torn')
    assert kills >= 2
    assert journals == sorted(journals)
    if process.returncode == 0:
        assert "rows are verified already; continuing" in error
        assert f"rows         {len(rows):,}" in said
    journal.unlink(missing_ok=True)
    left = {path.name for path in tmp_path.iterdir()} - {"__pycache__"}
    assert left == {"in.jsonl", "in2.jsonl", "mine.py", out}
    whole = tmp_path / f"whole{Path(out).suffix}"
    done = subprocess.run([part.replace(out, whole.name) for part in asked], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0
    assert without_times(tmp_path / out) == without_times(whole)
    assert [row["id"] for row in without_times(whole)] == list(range(len(rows)))
    if verifier == "together":
        assert {row["scores"][0]["reward"] for row in without_times(whole)} == {5.0}


def test_another_request_does_not_take_over_a_journal(rlvr: Run) -> None:
    put("in.jsonl", *numbered(5))
    journal = Path(".out.jsonl.journal")
    journal.write_text('{"files": []}\n[[["graded", 1.0, null, null, 0, null]]]\n')
    done = rlvr("in.jsonl", "--out", "out.jsonl")
    assert done.code == 2
    assert ".out.jsonl.journal is the journal of another request (files: [] there, [[" in done.err
    assert "pass --force to start anew" in done.err
    assert journal.exists()
    assert rlvr("in.jsonl", "--out", "out.jsonl", "--force").code == 0
    assert not journal.exists()
    assert rewards("out.jsonl") == [[1.0], [2.0], [3.0], [4.0], [5.0]]


def test_two_processes_never_do_the_same_work(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    first = Journal(path, {"a": 1})
    with pytest.raises(RequestError, match="another process is already writing this output"):
        Journal(path, {"a": 1})
    first.close()
    assert not path.exists()


ENTRIES = st.lists(st.tuples(st.text(st.characters()), st.booleans()), max_size=30)


@given(entries=ENTRIES, cut=st.integers(0, 200))
def test_a_journal_gives_back_whole_entries_whatever_was_cut_off(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, bool]], cut: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "j"
    journal = Journal(path, {"request": 1})
    for text, whole in entries:
        journal.add(text, whole=whole)
        journal.flush()
    journal.close()
    kept = max((i + 1 for i, (_, whole) in enumerate(entries) if whole), default=0)
    assert path.exists() == (kept > 0)
    if not kept:
        return
    data = path.read_bytes()
    header = data.index(b"\n") + 1
    path.write_bytes(data[: max(header, len(data) - cut)])
    again = Journal(path, {"request": 1})
    found = list(again.replayed())
    assert found == [text for text, _ in entries[: len(found)]]
    assert len(found) == kept or cut > 0
    assert not found or entries[len(found) - 1][1]
    again.add("more")
    again.close()
    last = Journal(path, {"request": 1})
    assert list(last.replayed()) == [*found, "more"]
    last.remove()


# --- files of others ----------------------------------------------------------------------------------------------


def test_verls_dump_is_recognized(rlvr: Run) -> None:
    row = {"input": "2+2=", "output": "xx", "gts": "xx", "score": 0.0, "step": 1, "acc": False}
    put("1.jsonl", row, {**row, "output": "x"})
    done = rlvr("1.jsonl", "--out", "out.jsonl", "-v", "mine.py:same")
    assert done.code == 0, done.err
    assert done.err == "rlvr: recognized as verl's dump: completion=output, answer=gts, prompt=input\n"
    assert rewards("out.jsonl") == [[1.0], [0.0]]
    assert {key: value for key, value in lines("out.jsonl")[0].items() if key != "scores"} == row
    assert rlvr("1.jsonl", "--out", "mapped.jsonl", "--map", "completion=input").code == 0
    assert rewards("mapped.jsonl") == [[4.0], [4.0]]


def test_results_of_verifiers_are_recognized(rlvr: Run) -> None:
    chat = [
        {"role": "assistant", "content": "let me think", "tool_calls": ["{}"]},
        {"role": "tool", "content": "4"},
        {"role": "assistant", "content": "xx"},
        {"role": "user", "content": "thanks"},
    ]
    row = {"example_id": 3, "prompt": chat[3:], "task": "t", "reward": 0.0, "answer": "xx", "info": {}}
    parts = [{"role": "assistant", "content": [{"type": "text", "text": "x"}, {"type": "text", "text": "x"}]}]
    put("results.jsonl", {**row, "completion": chat}, {**row, "completion": parts}, {**row, "completion": chat[1:2]})
    done = rlvr("results.jsonl", "--out", "out.jsonl", "-v", "mine.py:same")
    assert done.code == 0, done.err
    assert "recognized as verifiers' results: completion=completion, answer=answer, group_id=example_id\n" in done.err
    assert rewards("out.jsonl") == [[1.0], [1.0], [None]]
    assert lines("out.jsonl")[2]["scores"][0]["status"] == "invalid"
    assert rlvr("results.jsonl", "--out", "groups.jsonl", "-v", "mine.py:together").code == 0
    assert rewards("groups.jsonl") == [[2.0], [2.0], [None]]


def test_trls_completions_are_recognized(rlvr: Run) -> None:
    table = {
        "step": [1, 1],
        "prompt": ["p", "p"],
        "completion": ["xx", "x"],
        "accuracy_reward": [1.0, 0.0],
        "advantage": [0.7, -0.7],
    }
    pq.write_table(pa.table(table), "completions_00001.parquet")
    done = rlvr("completions_00001.parquet", "--out", "out.parquet")
    assert done.code == 2
    assert done.err.startswith("rlvr: recognized as TRL's completions: completion=completion, answer=answer\n")
    assert "no row has the column 'answer'" in done.err
    assert not Path("out.parquet").exists()
    pq.write_table(pa.table({**table, "solution": ["xx", "xx"]}), "completions_00002.parquet")
    done = rlvr(
        *("completions_00002.parquet", "--out", "two.parquet", "-v", "mine.py:same"),
    )
    assert done.code == 0, done.err
    assert "completion=completion, answer=solution\n" in done.err
    scored = pq.read_table("two.parquet")
    assert [row[0]["reward"] for row in scored["scores"].to_pylist()] == [1.0, 0.0]
    assert scored.drop(["scores"]).to_pydict() == {**table, "solution": ["xx", "xx"]}


def test_a_record_is_nobody_elses() -> None:
    assert layout_of(["schema_version", "input", "output", "gts", "score", "step"]) is None
    assert layout_of(["completion", "answer"]) is None


def test_the_cache_serves_the_next_run(rlvr: Run) -> None:
    put("in.jsonl", *numbered(50))
    assert rlvr("in.jsonl", "--out", "one.jsonl", "--cache", "verdicts.sqlite").code == 0
    assert rlvr("in.jsonl", "--out", "two.jsonl", "--cache", "verdicts.sqlite", "--as", "again").code == 0
    assert {score["seconds"] for row in lines("two.jsonl") for score in row["scores"]} == {0.0}
    assert rewards("two.jsonl") == rewards("one.jsonl")


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    rows = [json.dumps({"id": str(i), "completion": "a", "answer": "a"}) for i in range(2000)]
    (tmp_path / "in.jsonl").write_text("\n".join(rows))
    asked = [sys.executable, "-m", "rlvr", "score", "in.jsonl", "-v", "mine.py:slow", "-o", "out.jsonl"]
    # Processes in the background of a shell, such as a test suite, ignore Ctrl-C, and so do their children.
    listening = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(asked, cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=listening)
    journal = tmp_path / ".out.jsonl.journal"
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 1):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert (process.returncode, error) == (130, "rlvr: interrupted; run the same command again to continue\n")
    done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "rows are verified already; continuing" in done.stderr
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == len(rows)
