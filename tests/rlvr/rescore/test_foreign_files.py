"""Files of other programs: layouts, paths into columns, columns that are missing or have other names."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rlvr.record
from rlvr.record.schema import Rollout
from rlvr.record.store import read_rollouts, write_rollouts

# The reward is 1 where completion and gold are equal; `extracted` is the gold, `reason` the group's size.
MINE = """
from rlvr.record.schema import Verdict

def same(completion, task):
    return Verdict(status="graded", reward=float(completion == task.answer), extracted=task.answer)

def together(rollouts):
    return [float(len(rollouts))] * len(rollouts)
"""

Run = Callable[..., Any]
DATA = Path(__file__).parents[2] / "data"


@pytest.fixture
def score(cli: Run) -> Run:
    """Function that runs `rlvr score` in this process with `mine.py:same`, in a folder of its own."""
    Path("mine.py").write_text(MINE)

    def run(*arguments: str, verifier: str = "mine.py:same") -> Any:
        return cli("score", *arguments, "-v", verifier, "--workers", "0")

    return run


def put(path: str, *rows: Any) -> str:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def put_parquet(path: str, *rows: dict[str, Any]) -> str:
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def last_scores(path: str) -> list[dict[str, Any]]:
    if path.endswith(".parquet"):
        return [scores[-1] for scores in pq.read_table(path)["scores"].to_pylist()]
    return [json.loads(line)["scores"][-1] for line in Path(path).read_text().splitlines()]


def rewards(path: str) -> list[float | None]:
    return [score["reward"] for score in last_scores(path)]


# --- layouts --------------------------------------------------------------------------------------------------------

CHAT = [{"role": "user", "content": "6*7?"}, {"role": "assistant", "content": "42"}]
BODY = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "42"}}]}

TRACE = {
    "version": 1,
    "id": "t0",
    "task": {"type": "Math", "data": {"idx": 3, "prompt": "6*7?", "answer": "42"}, "key": "k3"},
    "agent": {"name": "agent"},
    "nodes": [{"message": turn, "sampled": turn["role"] == "assistant"} for turn in CHAT],
    "rewards": {"exact": {"score": 1.0, "weight": 1.0}},
}

FOREIGN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "verl's dump": (
        {"input": "6*7?", "output": "42", "gts": "42", "score": 1.0, "step": 1, "uid": "p7_0_0"},
        {"prompt": "6*7?", "group": "p7"},
    ),
    "verifiers' traces": (TRACE, {"id": "t0", "prompt": "6*7?", "group": "k3"}),
    "TRL's completions": (
        {"step": 1, "prompt": CHAT[:1], "completion": CHAT[1:], "advantage": 0.5, "solution": "42"},
        {"prompt": CHAT[:1]},
    ),
    "slime's samples": (
        {"group_index": 4, "index": 9, "prompt": "6*7?", "response": "42", "label": "42", "reward": 1},
        {"prompt": "6*7?", "group": "4"},
    ),
    "lm-eval's samples": (
        {
            "doc_id": 5,
            "doc": {"question": "6*7?"},
            "target": "42",
            "arguments": {"gen_args_0": {"arg_0": "Q: 6*7?", "arg_1": {"until": []}}},
            "resps": [["42"]],
            "filtered_resps": ["42"],
        },
        {"prompt": "Q: 6*7?", "group": "5"},
    ),
}


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_other_programs_are_read_as_they_are(score: Run, name: str, ending: str) -> None:
    row, expected = FOREIGN[name]
    put_file = put if ending == "jsonl" else put_parquet
    source = put_file(f"in.{ending}", row)
    done = score(source, "--out", f"out.{ending}")
    assert done.code == 0, done.err
    assert f"recognized as {name}: " in done.err
    assert rewards(f"out.{ending}") == [1.0]
    (read,) = rlvr.record.open(source)
    for field, value in expected.items():
        assert getattr(read, field) == value


def test_output_of_openais_batch_api_is_read_and_its_answers_are_asked_for(score: Run) -> None:
    row = {"id": "b1", "custom_id": "q1", "response": {"status_code": 200, "body": BODY}, "error": None}
    failed = {"id": "b2", "custom_id": "q2", "response": None, "error": {"code": "expired"}}
    put("in.jsonl", row, failed)
    (read, broken) = rlvr.record.open("in.jsonl")
    assert (read.id, read.completion, broken.completion) == ("q1", "42", None)
    done = score("in.jsonl", "--out", "out.jsonl")
    assert done.code == 2
    assert "in.jsonl: no row has the column 'answer'" in done.err
    assert not Path("out.jsonl").exists()


REASONING = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "41?"}], "content": []}
PARTS = [{"type": "thinking", "thinking": [{"type": "text", "text": "41?"}]}, {"type": "text", "text": "42"}]
RESPONSES = [
    {
        "output": [
            REASONING,
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "42"}]},
        ]
    },
    {"choices": [{"message": {"role": "assistant", "content": PARTS}}]},
    {"choices": [{"message": {"role": "assistant", "reasoning_content": "41?", "content": "42"}}]},
]


@pytest.mark.parametrize("body", RESPONSES)
def test_thinking_in_openais_output_is_no_answer(score: Run, body: dict[str, Any]) -> None:
    put("in.jsonl", {"custom_id": "q1", "response": {"body": body}, "error": None, "answer": "42"})
    assert score("in.jsonl", "--out", "out.jsonl").code == 0
    assert rewards("out.jsonl") == [1.0]


def test_output_that_ends_while_it_thinks_says_nothing(score: Run) -> None:
    put("in.jsonl", {"custom_id": "q", "response": {"body": {"output": [REASONING]}}, "error": None, "answer": "41?"})
    assert score("in.jsonl", "--out", "out.jsonl").code == 0
    assert last_scores("out.jsonl")[0]["status"] == "unparsed"


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("resps", [[["41", "42"]], [["41"], ["42"]]])
def test_several_responses_of_lm_eval_are_refused_with_the_way_out(
    score: Run, resps: list[list[str]], ending: str
) -> None:
    row = {"doc_id": 5, "doc": {"question": "6*7?"}, "target": "42", "resps": resps}
    source = (put if ending == "jsonl" else put_parquet)(f"in.{ending}", row)
    done = score(source, "--out", "out.jsonl")
    assert done.code == 2
    assert "holds 2 completions, and a row is scored as one. Write a row for each: jq -c" in done.err
    assert not Path("out.jsonl").exists()
    assert score(source, "--out", "out.jsonl", "--map", "completion=resps.-1.-1").code == 0
    assert rewards("out.jsonl") == [1.0]


def test_a_verifier_of_rollouts_needs_prompts_and_says_so(score: Run) -> None:
    rows = [{"group_id": "g", "completion": "42", "answer": "42", "question": "6*7?"}] * 2
    put("in.jsonl", *rows)
    done = score("in.jsonl", "--out", "out.jsonl", verifier="mine.py:together")
    assert done.code == 2
    assert "in.jsonl: no row has the column 'prompt'; did you mean 'question'? --map prompt=question" in done.err
    assert score("in.jsonl", "-o", "out.jsonl", "--map", "prompt=question", verifier="mine.py:together").code == 0
    assert rewards("out.jsonl") == [2.0, 2.0]


@pytest.mark.parametrize("content", [["6*7?", "42"], "42"])
def test_nemo_rls_training_data_has_no_gold(score: Run, content: Any) -> None:
    put("train_data_step1.jsonl", {"content": content, "rewards": 1.0, "input_lengths": 9, "gold": "42"})
    done = score("train_data_step1.jsonl", "--out", "out.jsonl")
    assert done.code == 2
    assert "no row has the column 'answer'; did you mean 'gold'? --map answer=gold" in done.err
    assert score("train_data_step1.jsonl", "--out", "out.jsonl", "--map", "answer=gold").code == 0
    assert rewards("out.jsonl") == [1.0]


def test_the_whole_file_says_which_format_it_is(score: Run) -> None:
    row = {"input": "6*7?", "output": "42", "gts": "42", "step": 1}
    put("in.jsonl", row, {**row, "score": 1.0})
    done = score("in.jsonl", "--out", "out.jsonl")
    assert done.code == 0, done.err
    assert "recognized as verl's dump: completion=output, answer=gts, prompt=input\n" in done.err
    assert rewards("out.jsonl") == [1.0, 1.0]


def test_rollouts_of_one_verl_prompt_are_a_group(score: Run) -> None:
    row = {"input": "6*7?", "output": "42", "gts": "42", "score": 1.0, "step": 1}
    put("in.jsonl", *({**row, "uid": f"{prompt}_{i}_0"} for prompt in ("p", "q") for i in range(2)))
    assert score("in.jsonl", "--out", "out.jsonl", verifier="mine.py:together").code == 0
    assert rewards("out.jsonl") == [2.0] * 4


# --- paths into columns ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        {"completion": "0.10", "reward_model": {"ground_truth": "0.10", "style": "rule"}},
        {"completion": "0.10", "reward_model": json.dumps({"ground_truth": "0.10"})},
        {"completion": "0.10", "reward_model": '{"ground_truth": 0.10}'},
    ],
)
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_path_goes_through_structs_and_json_text(score: Run, row: dict[str, Any], ending: str) -> None:
    source = (put if ending == "jsonl" else put_parquet)(f"in.{ending}", row)
    done = score(source, "--out", f"out.{ending}", "--map", "answer=reward_model.ground_truth")
    assert done.code == 0, done.err
    assert last_scores(f"out.{ending}")[0]["extracted"] == "0.10"


def test_a_path_goes_through_lists(score: Run) -> None:
    put("in.jsonl", {"response": {"body": BODY}, "gold": [{"value": 1}, {"value": 42.0}]})
    arguments = ["--map", "completion=response.body.choices.0.message.content", "--map", "answer=gold.-1.value"]
    done = score("in.jsonl", "--out", "out.jsonl", *arguments)
    assert done.code == 0, done.err
    assert last_scores("out.jsonl")[0]["extracted"] == "42.0"


def test_a_nested_number_of_parquet_has_its_own_precision(score: Run) -> None:
    kind = pa.struct({"gold": pa.float32()})
    table = pa.table({"completion": ["0.1"], "task": pa.array([{"gold": 0.1}], kind)})
    pq.write_table(table, "in.parquet")
    assert score("in.parquet", "--out", "out.parquet", "--map", "answer=task.gold").code == 0
    assert rewards("out.parquet") == [1.0]


def test_a_column_whose_own_name_has_dots_comes_first(score: Run) -> None:
    put("in.jsonl", {"completion": "1", "a.b": "1", "a": {"b": "2"}})
    assert score("in.jsonl", "--out", "out.jsonl", "--map", "answer=a.b").code == 0
    assert rewards("out.jsonl") == [1.0]


def test_a_path_that_no_row_has_names_the_nearest(score: Run) -> None:
    put("in.jsonl", {"completion": "1", "reward_model": {"ground_truth": "1"}})
    done = score("in.jsonl", "--out", "out.jsonl", "--map", "answer=reward_model.ground_thruth")
    assert done.code == 2
    assert "did you mean 'reward_model.ground_truth'?" in done.err


# --- columns that are missing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"response": "1", "answer": "1"},
            "the column 'completion'; did you mean 'response'? --map completion=response",
        ),
        ({"Completion": "1", "answer": "1"}, "did you mean 'Completion'? --map completion=Completion"),
        ({"completion": "1", "ground_truth": "1"}, "the column 'answer'; did you mean 'ground_truth'?"),
        ({"completion": "1", "solution": "1"}, "did you mean 'solution'? --map answer=solution"),
        ({"completion": "1", "reward_model": {"ground_truth": "1"}}, "--map answer=reward_model.ground_truth"),
        ({"response": "1", "gt": "1"}, "--map completion=response; no row has the column 'answer'; did you mean 'gt'?"),
        ({"completion": "1", "level": 3}, "name another: --map answer=COLUMN; its columns are: completion, level"),
        ({"completion": None, "answer": "1"}, "every row is null in the column 'completion'"),
    ],
)
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_missing_column_is_refused_before_any_work(
    score: Run, row: dict[str, Any], message: str, ending: str
) -> None:
    source = (put if ending == "jsonl" else put_parquet)(f"in.{ending}", row)
    done = score(source, "--out", f"out.{ending}")
    assert done.code == 2
    assert done.err.startswith(f"rlvr: in.{ending}: ")
    assert message in done.err
    assert not Path(f"out.{ending}").exists()


def test_a_column_that_one_file_of_several_lacks_is_refused(score: Run) -> None:
    put("a.jsonl", {"completion": "1", "answer": "1"})
    put("b.jsonl", {"response": "1", "answer": "1"})
    done = score("a.jsonl", "b.jsonl", "--out", "out.jsonl")
    assert done.code == 2
    assert "b.jsonl: no row has the column 'completion'" in done.err


def test_a_parquet_file_without_any_needed_column_is_refused(score: Run) -> None:
    """Earlier it failed with "changed while it was read: 5 rows, then 0"."""
    put_parquet("good.parquet", {"completion": "1", "answer": "1"})
    put_parquet("foreign.parquet", *({"foo": i, "bar": "x"} for i in range(5)))
    done = score("good.parquet", "foreign.parquet", "--out", "out.jsonl")
    assert done.code == 2
    assert "foreign.parquet: no row has the column 'completion'" in done.err
    assert "its columns are: foo, bar" in done.err


def test_a_selection_of_rows_that_lack_a_value_is_scored(score: Run) -> None:
    put("in.jsonl", {"completion": None, "answer": "1"}, {"completion": "1", "answer": "1"})
    done = score("in.jsonl", "--out", "out.jsonl", "--where", "completion=null")
    assert done.code == 0, done.err
    assert last_scores("out.jsonl")[0]["reason"] == "the row has no completion"


def test_two_columns_of_one_name_are_refused(score: Run, cli: Run) -> None:
    table = pa.Table.from_arrays([pa.array(["1"])] * 3, names=["completion", "answer", "answer"])
    pq.write_table(table, "in.parquet")
    for done in (score("in.parquet", "--out", "out.jsonl"), cli("show", "in.parquet")):
        assert done.code == 2
        assert done.err == "rlvr: in.parquet has two columns called 'answer': rename one of them\n"


@pytest.mark.parametrize("second", ["rollouts-v2.parquet", "rollouts-v2.jsonl"])
def test_records_of_both_versions_go_into_one_parquet_file(score: Run, second: str) -> None:
    files = [str(DATA / "rollouts-v1.parquet"), str(DATA / second)]
    done = score(*files, "--out", "out.parquet", "--where", "completion!=null")
    assert done.code == 0, done.err
    before = [each for each in read_rollouts(files) if each.completion is not None]
    after = list(read_rollouts("out.parquet"))
    assert [each.model_copy(update={"scores": each.scores[:-1]}) for each in after] == before
    assert {each.scores[-1].verifier for each in after} == {"mine:same"}


# --- formats --------------------------------------------------------------------------------------------------------

ROWS = [{"completion": "1", "answer": "0.10"}, {"completion": "a\nb", "answer": "a\nb"}]


CSV = 'completion,answer\n1,0.10\n"a\nb","a\nb"\n'


def save_to_disk(path: str) -> None:
    from datasets import Dataset

    Dataset.from_list([*ROWS, {"completion": "left out", "answer": ""}]).select([0, 1]).save_to_disk(path)


FORMATS: dict[str, Callable[[str], object]] = {
    "in.csv": lambda path: Path(path).write_text(CSV),
    "in.json": lambda path: Path(path).write_text(json.dumps(ROWS, indent=2)),
    "lines.json": lambda path: put(path, *ROWS),
    "pretty.json": lambda path: Path(path).write_text("\n".join(json.dumps(row, indent=2) for row in ROWS)),
    "in.csv.gz": lambda path: Path(path).write_bytes(gzip.compress(CSV.encode())),
    "saved": save_to_disk,
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_other_formats_are_read(score: Run, cli: Run, name: str, ending: str) -> None:
    FORMATS[name](name)
    done = score(name, "--out", f"out.{ending}")
    assert done.code == 0, done.err
    assert rewards(f"out.{ending}") == [0.0, 1.0]
    assert last_scores(f"out.{ending}")[0]["extracted"] == "0.10"
    assert score(name, "--out", "folder/").code == 0
    assert "0.10" in cli("show", name).out
    assert len(list(Path("folder").iterdir())) == 1


def test_the_splits_of_a_saved_data_set_are_read(score: Run) -> None:
    from datasets import Dataset, DatasetDict

    DatasetDict(train=Dataset.from_list(ROWS[:1]), test=Dataset.from_list(ROWS[1:])).save_to_disk("saved")
    assert score("saved", "--out", "folder/").code == 0
    assert (rewards("folder/train.parquet"), rewards("folder/test.parquet")) == ([0.0], [1.0])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.jsonl", gzip.compress(b"{}", mtime=0), "in.jsonl is compressed with gzip: rename it to in.jsonl.gz"),
        ("in.jsonl.gz", b'{"completion": "1"}', "in.jsonl.gz is not compressed with gzip: rename it to in.jsonl"),
        (
            "in.jsonl.zst",
            gzip.compress(b"{}", mtime=0),
            "in.jsonl.zst is compressed with gzip: rename it to in.jsonl.gz",
        ),
        ("in.jsonl", '{"completion": "1"}'.encode("utf-16"), "in.jsonl is UTF-16: convert it to UTF-8"),
        ("in.jsonl", '{"completion": "1"}'.encode("utf-16-le"), "in.jsonl is UTF-16: convert it to UTF-8"),
        ("in.jsonl", b'[{"completion": "1"},\n {"completion": "2"}]', "one JSON array? Rename it to in.json"),
        ("in.jsonl", b'[{"completion": "1"}]', "one JSON array? Rename it to in.json"),
        ("in.jsonl", b'{\n "completion": "1"\n}', "several lines? Rename it to in.json, or write one a line"),
        ("in.jsonl", b"PAR1", "in.jsonl is a Parquet file: rename it to in.parquet"),
        ("in.json", b'[{"completion": "1"}', "in.json is not JSON: "),
        ("in.json", b'{"completion": "1"} [2]', "in.json, row 2 is a list: expected an object"),
    ],
)
@pytest.mark.parametrize("arguments", [[], ["--skip-bad-lines"]])
def test_a_file_of_another_format_than_its_name_says_gets_a_hint(
    score: Run, name: str, content: bytes, message: str, arguments: list[str]
) -> None:
    Path(name).write_bytes(content)
    done = score(name, "--out", "out.jsonl", *arguments)
    assert done.code == 2
    assert message in done.err
    assert not Path("out.jsonl").exists()


def test_skipping_every_line_is_an_error(score: Run) -> None:
    Path("in.jsonl").write_text("nothing\nhere\n")
    done = score("in.jsonl", "--out", "out.jsonl", "--skip-bad-lines")
    assert done.code == 2
    assert "no line is a row, 2 are left out: in.jsonl, line 1 is not JSON" in done.err


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_comparison_without_scores_says_so(score: Run, cli: Run, ending: str) -> None:
    source = (put if ending == "jsonl" else put_parquet)(f"in.{ending}", {"completion": "1", "answer": "1"})
    done = cli("compare", source)
    assert done.code == 2
    assert done.err.startswith(f"rlvr: in.{ending} holds no scores: rlvr score gives it some")


# --- ids ------------------------------------------------------------------------------------------------------------


def test_a_sidecar_of_equal_ids_is_refused_at_once(score: Run) -> None:
    put("in.jsonl", {"id": "a", "completion": "1", "answer": "1"}, {"id": "a", "completion": "2", "answer": "1"})
    done = score("in.jsonl", "--out", "side.jsonl", "--scores-only")
    assert done.code == 2
    assert "in.jsonl, line 2: an earlier row has the id 'a' too" in done.err
    assert not Path("side.jsonl").exists()


def test_rows_without_ids_get_them_from_their_content(score: Run, cli: Run) -> None:
    rows = [
        {"prompt": [{"role": "user", "content": "p"}], "completion": text, "answer": "1"} for text in ("1", "2", "1")
    ]
    put("in.jsonl", *rows)
    put_parquet("in.parquet", *rows)
    assert score("in.jsonl", "--out", "side.jsonl", "--scores-only").code == 0
    ids = [json.loads(line)["id"] for line in Path("side.jsonl").read_text().splitlines()]
    assert ids[2] == f"{ids[0]}-2" != ids[1]
    for name in ("in.jsonl", "in.parquet"):  # the same rows in another format have the same ids
        read = list(rlvr.record.open(name, sidecars="side.jsonl"))
        assert [row.id for row in read] == ids
        assert [[each["reward"] for each in row.scores] for row in read] == [[1.0], [0.0], [1.0]]
    assert score("in.jsonl", "--out", "shard.jsonl", "--scores-only", "--shard", "1/2").code == 0
    shard = [json.loads(line)["id"] for line in Path("shard.jsonl").read_text().splitlines()]
    assert shard == [ids[0], ids[2]]


def test_two_files_without_ids_are_compared_by_their_content(score: Run, cli: Run) -> None:
    rows = [{"completion": text, "answer": "1"} for text in ("1", "2", "1")]
    put("in.jsonl", *rows)
    put("reversed.jsonl", *rows[::-1])
    assert score("in.jsonl", "--out", "a.jsonl").code == 0
    assert score("reversed.jsonl", "--out", "b.parquet", "--as", "again").code == 0
    done = cli("compare", "a.jsonl", "b.parquet", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["unmatched"] == {"a": 0, "b": 0}
    assert json.loads(done.out)["matrix"]["right"]["right"] == 2


# --- standard input and output --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet", "jsonl.gz"])
def test_standard_input_and_output(score: Run, ending: str) -> None:
    name = f"in.{ending}"
    if ending == "parquet":
        put_parquet(name, *ROWS)
    elif ending == "jsonl.gz":
        put("plain.jsonl", *ROWS)
        Path(name).write_bytes(gzip.compress(Path("plain.jsonl").read_bytes()))
    elif ending == "jsonl":
        put(name, *ROWS)
    else:
        FORMATS[name](name)
    command = [sys.executable, "-m", "rlvr", "score", "-", "--out", "-", "-v", "mine.py:same", "--workers", "0"]
    done = subprocess.run(command, input=Path(name).read_bytes(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    scored = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert [row["scores"][0]["reward"] for row in scored] == [0.0, 1.0]
    assert b"rows         2" in done.stderr


def test_messages_about_standard_input_name_it(score: Run) -> None:
    command = [sys.executable, "-m", "rlvr", "show", "-"]
    done = subprocess.run(command, input=b'{"a": 1}\n[3]\n', capture_output=True, check=False, timeout=100)
    assert done.returncode == 2
    assert done.stderr.decode() == "rlvr: stdin, line 2 is a list: a row is an object\n"
    done = subprocess.run(command, input=b"", capture_output=True, check=False, timeout=100)
    assert done.stderr.decode() == "rlvr: standard input is empty\n"


def test_several_files_are_shown(cli: Run) -> None:
    assert cli("show", "none.jsonl").code == 2
    put("a.jsonl", {"completion": "first"})
    put("b.jsonl", {"completion": "second"})
    shown = cli("show", "a.jsonl", "b.jsonl").out
    assert shown.index("first") < shown.index("second")


# --- gold answers of another file -----------------------------------------------------------------------------------

ANSWERS = [
    {"key": "a", "answer": "1"},
    {"key": "b", "answer": 0.10},
    {"key": "b", "answer": 0.10},
    {"key": "c", "answer": "1"},
    {"key": "c", "answer": "2"},
    {"key": "unused", "answer": "1"},
]
KEYED = [{"key": key, "completion": "1"} for key in ("a", "b", "c", "d", None)]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_gold_answers_are_joined_by_a_key(score: Run, ending: str) -> None:
    source = (put if ending == "jsonl" else put_parquet)(f"in.{ending}", *KEYED)
    put("gold.jsonl", *ANSWERS)
    Path("gold.jsonl").write_text(Path("gold.jsonl").read_text().replace("0.1}", "0.10}"))
    done = score(source, "--out", f"out.{ending}", "--gold", "gold.jsonl", "--on", "key")
    assert done.code == 0, done.err
    assert (
        "gold answers joined on key: 2 of 5 rows; 2 rows have a key without an answer there; 1 rows have no key; "
        "2 keys occur twice, 1 of them with different answers, which are not used; 1 answers belong to no row\n"
    ) in done.err
    assert [each["extracted"] for each in last_scores(f"out.{ending}")] == ["1", "0.10", None, None, None]
    assert [each["status"] for each in last_scores(f"out.{ending}")] == ["graded"] * 2 + ["invalid"] * 3
    written = list(rlvr.record.open(f"out.{ending}"))
    assert [row.gold for row in written] == ["1", "0.10", None, None, None]


def test_the_key_and_the_answer_may_have_other_names(score: Run) -> None:
    row = {"id": "b1", "custom_id": "q1", "response": {"status_code": 200, "body": BODY}, "error": None}
    put("in.jsonl", row)
    put_parquet("gold.parquet", {"question_id": 7, "solution": "41"}, {"question_id": 1, "solution": "42"})
    put("keyed.jsonl", {**row, "n": 1})
    arguments = ["--gold", "gold.parquet", "--map", "answer=solution"]
    done = score("keyed.jsonl", "--out", "out.jsonl", *arguments, "--on", "n=question_id")
    assert done.code == 0, done.err
    assert rewards("out.jsonl") == [1.0]
    done = score("in.jsonl", "--out", "no.jsonl", *arguments, "--on", "custom_id=question_id")
    assert done.code == 2
    assert "--gold gold.parquet: none of the rows' 'custom_id' is there; --on names the key" in done.err


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_records_get_gold_answers(score: Run, ending: str) -> None:
    write_rollouts(f"in.{ending}", [Rollout(id=str(i), prompt="p", completion="1", token_ids=(1,)) for i in range(2)])
    put("gold.jsonl", {"id": 0, "answer": "1"}, {"id": 1, "answer": "2"})
    done = score(f"in.{ending}", "--out", f"out.{ending}", "--gold", "gold.jsonl", "--on", "id")
    assert done.code == 0, done.err
    assert [(each.task.answer, each.scores[0].reward) for each in read_rollouts(f"out.{ending}")] == [
        ("1", 1.0),
        ("2", 0.0),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gold", "gold.jsonl"], "--gold FILE and --on KEY belong together"),
        (["--on", "key"], "--gold FILE and --on KEY belong together"),
        (["--gold", "none.jsonl", "--on", "key"], "none.jsonl does not exist"),
        (["--gold", "gold.jsonl", "--on", "kee"], "--on: no row of gold.jsonl has 'kee'; it has: key, answer"),
        (["--gold", "gold.jsonl", "--on", "kee=key"], "no row has 'kee'; --on names the key"),
        (["--gold", "gold.jsonl", "--on", "key="], "--on key=: write KEY, or KEY=KEY_OF_THE_GOLD_FILE"),
        (["--gold", "gold.jsonl", "--on", "key", "--map", "answer=x"], "--gold gold.jsonl: no row has the column 'x'"),
    ],
)
def test_a_wrong_join_is_refused(score: Run, arguments: list[str], message: str) -> None:
    put("in.jsonl", *KEYED)
    put("gold.jsonl", *ANSWERS)
    done = score("in.jsonl", "--out", "out.jsonl", *arguments)
    assert done.code == 2
    assert message in done.err
    assert not Path("out.jsonl").exists()
