"""Every card reads a file in the layout in which its data set is published, and its verifier accepts the gold answers.

The rows are made up; their columns and types are those of the published files.
"""

from __future__ import annotations

import base64
import json
import pickle
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rlvr.bench.dataset_check import check_dataset
from rlvr.data.prompts import CardSource, load_source
from rlvr.errors import ConfigError, DataError, RequestError
from rlvr.protocols import SourceRequest
from rlvr.record.item import Item
from rlvr.verify.scoring import Scorer

MATH = {"problem": "Find 100+4.", "answer": "104"}
NUMINA = {
    **MATH,
    "solution": "…",
    "problem_type": "Algebra",
    "question_type": "math-word-problem",
    "source": "olympiads",
}
VALID = {"problem_is_valid": "Yes", "solution_is_valid": "Yes", "synthetic": False}
DAPO = {
    "data_source": "math_dapo",
    "prompt": [
        {"role": "user", "content": "Solve it.\n\nFind 100+4.\n\nPut your answer on its own line after Answer:"}
    ],
    "ability": "MATH",
    "reward_model": {"ground_truth": "104", "style": "rule-lighteval/MATH_v2"},
    "extra_info": {"index": "u1"},
}
GPQA = {
    "Record ID": "rec1",
    "Question": "Which is heavier?",
    "Correct Answer": "lead",
    "Incorrect Answer 1": "cork",
    "Incorrect Answer 2": "wool",
    "Incorrect Answer 3": "air",
    "High-level domain": "Physics",
    "Subdomain": "-",
}
MMLU = {"question_id": 7, "question": "2+2?", "options": ["3", "4", "5"], "answer": "B", "answer_index": 1, "src": "-"}
IFEVAL = {
    "key": 9001,
    "prompt": "Write two lines without commas.",
    "instruction_id_list": ["punctuation:no_comma"],
    "kwargs": [{"num_words": None, "relation": None}],
}
RLVR_IFEVAL = {
    "messages": [{"role": "user", "content": "Write two lines without commas."}],
    "ground_truth": '{"func_name": "validate_no_commas", "N": null, "quantifier": null}',
    "dataset": "ifeval",
    "constraint_type": "No Commas",
    "constraint": "Do not use any comma.",
}
XLAM = {
    "id": 1,
    "query": "Area of a 2 by 3 rectangle?",
    "answers": '[{"name": "area", "arguments": {"w": 2, "h": 3}}]',
    "tools": '[{"name": "area", "description": "…", "parameters": {"w": {"type": "int", "description": "…"}}}]',
}
SUM = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}
MBPP = {
    "task_id": 901,
    "text": "Write a function to double a number.",
    "code": "def twice(x):\n  return 2*x",
    "test_list": ["assert twice(2) == 4", "assert twice(0) == 0", "assert len(str(twice(5))) == 2"],
    "test_setup_code": "",
    "challenge_test_list": [],
}
HUMANEVAL = {
    "task_id": "HumanEval/901",
    "prompt": 'from typing import List\n\n\ndef total(xs: List[int]) -> int:\n    """ Sum of xs.\n    """\n',
    "canonical_solution": "    return sum(xs)\n",
    "test": "M = {}\n\n\ndef check(candidate):\n    assert candidate([1, 2]) == 3\n    assert candidate([]) == 0\n",
    "entry_point": "total",
}
APPS = {
    "problem_id": 901,
    "question": "Read two numbers, print their sum.",
    "solutions": '["print(sum(map(int,input().split())))"]',
    "input_output": json.dumps(SUM),
    "difficulty": "introductory",
    "url": "https://example.org/901",
    "starter_code": "",
}
TACO = {
    **{key: value for key, value in APPS.items() if key != "problem_id"},
    **dict.fromkeys(("name", "date", "time_limit", "memory_limit", "picture_num", "Expected Time Complexity")),
    "question": "Double a number.",
    "starter_code": "def twice(x):\n\t",
    "input_output": '{"fn_name": "twice", "inputs": [[2], [0]], "outputs": [[4], [0]]}',
    "source": "codewars",
    "raw_tags": "['Math']",
    "tags": "['Mathematics']",
    "skill_types": "[]",
}
CASE = [{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]
LIVECODEBENCH = {
    "question_title": "A. Sum",
    "question_content": "Read two numbers, print their sum.",
    "platform": "atcoder",
    "question_id": "abc901_a",
    "contest_id": "abc901",
    "contest_date": "2030-01-01T00:00:00",
    "starter_code": "",
    "difficulty": "easy",
    "public_test_cases": json.dumps(CASE),
    "private_test_cases": base64.b64encode(
        zlib.compress(pickle.dumps(json.dumps([{**CASE[0], "input": "3 4\n", "output": "7\n"}])))
    ).decode(),
    "metadata": "{}",
}
LEETCODE = {
    **LIVECODEBENCH,
    "question_title": "twice",
    "question_content": "Double a number.",
    "platform": "leetcode",
    "question_id": "902",
    "starter_code": "class Solution:\n    def twice(self, xs: List[int]) -> List[int]:\n        ",
    "public_test_cases": '[{"input": "[2]", "output": "[4]", "testtype": "functional"}]',
    "private_test_cases": '[{"input": "[0]", "output": "[0]", "testtype": "functional"}]',
    "metadata": '{"func_name": "twice"}',
}
DEEPCODER = [
    {
        "problem": "Double a number: twice(x).",
        "solutions": ["```python\ndef twice(x): return 2*x\n```"],
        "tests": '[{"type": "function_call", "fn_name": "twice", "input": [2], "output": [4]}]',
    },
    {"problem": "Read two numbers, print their sum.", "solutions": ["…"], "tests": json.dumps(SUM)},
]
OPEN_R1 = {
    "prompt": "Read two numbers, print their sum. Answer with a block of Python.",
    "verification_info": {
        "language": "python",
        "test_cases": [{"fn_name": None, "input": "1 2\n", "output": "3\n", "type": "stdin_stdout"}],
    },
}
BIRD = {
    "question_id": 1,
    "db_id": "shop",
    "question": "How many orders did Ada make?",
    "evidence": "Ada is a customer",
    "SQL": "SELECT COUNT(*) FROM orders WHERE customer = 'Ada'",
    "difficulty": "simple",
}
"""BIRD's dev.json; its training data has neither question_id nor difficulty."""
SHOP = "CREATE TABLE orders (id INTEGER, customer TEXT);INSERT INTO orders VALUES (1,'Ada'),(2,'Bob'),(3,'Ada');"
AREA = {"type": "dict", "properties": {"w": {"type": "integer"}, "h": {"type": "integer"}}, "required": ["w", "h"]}
BFCL = {
    "id": "simple_python_900",
    "question": [[{"role": "user", "content": "Area of a 2 by 3 rectangle?"}]],
    "function": [{"name": "area", "description": "Area of a rectangle.", "parameters": AREA}],
}
BFCL_ANSWER = {"id": "simple_python_900", "ground_truth": [{"area": {"w": [2], "h": [3], "unit": ["", "cm^2"]}}]}
ROWS: dict[str, list[dict[str, Any]]] = {
    "aime24": [{"ID": "2024-I-99", "Problem": "Find 100+4.", "Solution": "It is 104.", "Answer": 104}],
    "aime25": [{**MATH, "id": "0"}],
    "hmmt": [{"problem_idx": 1, **MATH, "answer": "\\frac{1}{2}", "problem_type": ["Algebra"]}],
    "olympiadbench": [
        {
            "id": 1, "question": "Solve x^2=4.", "solution": ["…"], "final_answer": ["2, -2"], "context": None,
            "is_multiple_answer": True, "unit": None, "answer_type": "Numerical", "error": None, "image_1": None,
        }
    ],
    "omni-math": [{"domain": ["Mathematics -> Algebra"], "difficulty": 5.0, **MATH, "solution": "…", "source": "-"}],
    "big-math": [{**MATH, "source": "olympiads", "domain": ["Mathematics -> Algebra"], "llama8b_solve_rate": 0.4}],
    "numina-1.5": [
        {**NUMINA, **VALID},
        {**NUMINA, **VALID, "answer": "proof"},
        {**NUMINA, **VALID, "answer": "notfound"},
        {**NUMINA, **VALID, "question_type": "proof"},
        {**NUMINA, **VALID, "problem_is_valid": "Incomplete"},
    ],
    "open-r1-math": [
        {**NUMINA, "uuid": "u1", "generations": ["…"], "correctness_math_verify": [True], "messages": []},
        {**NUMINA, "uuid": "u2", "answer": "proof", "generations": [], "correctness_math_verify": [], "messages": []},
    ],
    "dapo": [DAPO, {**DAPO, "extra_info": {"index": "u2"}}],
    "skywork-or1": [{**DAPO, "reward_model": {"ground_truth": '["104"]', "style": "rule"}}],
    "polaris": [{**MATH, "difficulty": "3/8"}],
    "gpqa": [GPQA, {**GPQA, "Record ID": "rec2", "Question": "Which sinks?"}],
    "mmlu-pro": [MMLU],
    "ifeval": [IFEVAL],
    "rlvr-ifeval": [RLVR_IFEVAL],
    "xlam": [XLAM],
    "mbpp": [MBPP],
    "humaneval": [HUMANEVAL],
    "apps": [APPS, {**APPS, "problem_id": 902, "input_output": ""}],
    "taco": [TACO],
    "livecodebench": [LIVECODEBENCH, LEETCODE],
    "deepcoder": DEEPCODER,
    "open-r1-code": [OPEN_R1],
}  # fmt: skip
EVALUATION = {"aime24", "aime25", "hmmt", "olympiadbench", "omni-math", "gpqa", "mmlu-pro", "ifeval"}
EVALUATION |= {"humaneval", "livecodebench"}
KEPT = {"gpqa": 2, "livecodebench": 2, "deepcoder": 2}
"""Rows that become prompts, where they are not one."""


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def source_of(name: str, file: Path, chat: bool = False, **options: Any) -> CardSource:
    split = "eval" if name in EVALUATION else "train"
    source = load_source(name, SourceRequest(split, 0, chat, options, (file,)))
    assert isinstance(source, CardSource)
    return source


@pytest.mark.parametrize("name", ROWS)
def test_a_card_reads_its_published_layout_and_accepts_its_gold_answers(name: str, tmp_path: Path) -> None:
    file = written(tmp_path / "rows.jsonl", ROWS[name])
    report = check_dataset(name, data_files=[file], workers=0)
    assert report.passed, report
    assert report.split == ("eval" if name in EVALUATION else "train")
    assert report.rows == KEPT.get(name, 1)
    assert report.left_out == len(ROWS[name]) - report.rows
    for chat in (False, True):
        assert len(source_of(name, file, chat)[0].asked) > 5


def test_the_right_option_is_shuffled_by_the_question_and_its_letter_is_the_gold_answer(tmp_path: Path) -> None:
    rows = [{**GPQA, "Record ID": f"r{i}", "Question": f"Which is heavier, in case {i}?"} for i in range(60)]
    source = source_of("gpqa", written(tmp_path / "rows.jsonl", rows))
    golds = [source[i].task.answer or "" for i in range(60)]
    assert {golds.count(letter) > 5 for letter in "ABCD"} == {True}
    again = source_of("gpqa", written(tmp_path / "backwards.jsonl", rows[::-1]))
    assert [again[59 - i].task.answer for i in range(60)] == golds
    for i in range(60):
        prompt = source[i]
        assert prompt.task.extra["choices"]["ABCD".index(golds[i])] == "lead"
        assert f"\n{golds[i]}. lead\n" in (prompt.text or "")
        assert "Correct Answer" not in prompt.task.extra


def test_options_in_one_column_keep_their_order(tmp_path: Path) -> None:
    prompt = source_of("mmlu-pro", written(tmp_path / "rows.jsonl", [MMLU]), chat=True)[0]
    assert prompt.task.answer == "B"
    assert prompt.messages is not None
    assert prompt.messages[-1].content == "2+2?\n\nA. 3\nB. 4\nC. 5"


def test_a_row_without_options_is_an_error_that_names_it(tmp_path: Path) -> None:
    file = written(tmp_path / "rows.jsonl", [MMLU, {**MMLU, "options": []}])
    with pytest.raises(DataError, match=r"rows.jsonl, row 2: no options in options"):
        source_of("mmlu-pro", file)
    with pytest.raises(DataError, match=r"there is no column 'choice' for the choices"):
        source_of("mmlu-pro", file, choices=["choice"])
    with pytest.raises(ConfigError, match=r"plain and user need \{choices\}"):
        source_of("mmlu-pro", file, user="{question}")


def test_instructions_reach_the_verifier(tmp_path: Path) -> None:
    task = source_of("ifeval", written(tmp_path / "rows.jsonl", [IFEVAL]))[0].task
    assert task.answer == '["punctuation:no_comma"]'
    assert task.extra["instruction_id_list"] == ["punctuation:no_comma"]
    assert task.row_id == "9001"


def test_a_gold_answer_that_fails_is_reported(tmp_path: Path) -> None:
    rows = [XLAM, {**XLAM, "id": 2, "answers": "no JSON"}]
    report = check_dataset("xlam", data_files=[written(tmp_path / "rows.jsonl", rows)], workers=0)
    assert not report.passed
    assert [fault.row_id for fault in report.invalid] == ["2"]


ADDS, ADDS_NOT = "print(sum(map(int, input().split())))", "print(3 if input() == '1 2' else 8)"
TWICE, TWICE_NOT = "def twice(x): return 2 * x", "def twice(x): return x ** x * x"
PROGRAMS = {
    "mbpp": [(TWICE, "def twice(x): return x + 2 if x == 2 else x")],
    "humaneval": [("    return sum(xs)\n", "    return sum(xs) or None\n")],
    "apps": [(ADDS, ADDS_NOT)],
    "taco": [(TWICE, TWICE_NOT)],
    "livecodebench": [
        (ADDS, ADDS_NOT),
        (
            "class Solution:\n    def twice(self, xs: List[int]) -> List[int]:\n        return [2 * x for x in xs]",
            "class Solution:\n    def twice(self, xs):\n        return [4]",
        ),
    ],
    "deepcoder": [(TWICE, "def twice(x): return [8]"), (ADDS, ADDS_NOT)],
    "open-r1-code": [(ADDS, "print(4)")],
}
"""For each prompt of a set, a right program and a wrong one."""


def test_programs_are_judged_by_the_tests_of_every_code_data_set(tmp_path: Path) -> None:
    items = []
    for name, programs in PROGRAMS.items():
        source = source_of(name, written(tmp_path / f"{name}.jsonl", ROWS[name]))
        assert source.default_verifier == "code-python"
        for index, both in enumerate(programs):
            items += [Item(program, source[index].task) for program in both]
    with Scorer("code-python", workers=0) as scorer:
        rewards = [score.reward for score in scorer.score(items)]
    assert rewards == [1.0, 0.0] * (len(items) // 2)


def test_the_asserts_of_mbpp_and_the_head_of_a_function_are_in_the_prompt(tmp_path: Path) -> None:
    prompt = source_of("mbpp", written(tmp_path / "mbpp.jsonl", [MBPP]))[0]
    assert "\nassert twice(2) == 4\nassert twice(0) == 0\n" in (prompt.text or "")
    assert prompt.task.extra["test_list"] == MBPP["test_list"]
    prompt = source_of("humaneval", written(tmp_path / "humaneval.jsonl", [HUMANEVAL]))[0]
    assert prompt.text == prompt.task.extra["prompt"] == HUMANEVAL["prompt"]
    assert "text" not in source_of("mbpp", tmp_path / "mbpp.jsonl")[0].task.extra


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working directory with the databases of BIRD's training data as its archive has them."""
    (tmp_path / "train_databases" / "shop").mkdir(parents=True)
    with closing(sqlite3.connect(tmp_path / "train_databases" / "shop" / "shop.sqlite")) as database:
        database.executescript(SHOP)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_bird_shows_the_tables_and_runs_the_gold_queries(shop: Path) -> None:
    training = {key: value for key, value in BIRD.items() if key not in ("question_id", "difficulty")}
    names = {**BIRD, "question": "Who ordered?", "SQL": "SELECT customer FROM orders", "evidence": ""}
    for rows in ([BIRD, names], [training, {**training, "question": "Who ordered?", "SQL": names["SQL"]}]):
        file = written(shop / "rows.jsonl", rows)
        report = check_dataset("bird", data_files=[file], workers=0, verifier_options={"databases": "train_databases"})
        assert report.passed, report
        assert (report.rows, report.left_out, report.self_checked) == (2, 0, True)
    source = source_of("bird", written(shop / "rows.jsonl", [BIRD, names]))
    table = "CREATE TABLE orders (id INTEGER, customer TEXT);"
    assert (source[0].text or "").startswith(table)
    system, user = source_of("bird", shop / "rows.jsonl", chat=True)[0].messages or ()
    assert table in system.content
    assert "Ada is a customer" in user.content
    assert BIRD["SQL"] not in (source[0].text or "") + system.content + user.content
    items = [Item("```sql\nSELECT DISTINCT customer FROM orders\n```", source[1].task)]
    for sets, reward in ((False, 0.0), (True, 1.0)):
        with Scorer("sql", {"databases": "train_databases", "sets": sets}, workers=0) as scorer:
            assert [score.reward for score in scorer.score(items)] == [reward]


def test_the_prompts_of_bird_depend_on_its_databases_and_not_on_their_folder(shop: Path) -> None:
    file = written(shop / "rows.jsonl", [BIRD])
    before = source_of("bird", file).digests()
    (shop / "train_databases").rename(shop / "moved")
    with pytest.raises(
        DataError, match=r"row 1: there is no database train_databases/shop/shop.sqlite: .*databases=FOLDER"
    ):
        source_of("bird", file)
    assert source_of("bird", file, databases=str(shop / "moved")).digests() == before
    with closing(sqlite3.connect(shop / "moved" / "shop" / "shop.sqlite")) as database:
        database.execute("ALTER TABLE orders ADD COLUMN price REAL")
        database.commit()
    after = source_of("bird", file, databases=str(shop / "moved")).digests()
    assert {key for key in before if before[key] != after[key]} == {"databases of bird"}


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"db_id": "nowhere"}, "there is no database train_databases/nowhere/nowhere.sqlite"),
        ({"db_id": "../train_databases/shop"}, "there is no database"),
        ({"db_id": 7}, "column 'db_id' names no database"),
        ({"db_id": "text"}, "text.sqlite cannot be read"),
        ({"db_id": "empty"}, "empty.sqlite has no tables"),
    ],
)
def test_a_row_of_bird_without_a_database_is_an_error_that_names_it(
    shop: Path, row: dict[str, Any], fault: str
) -> None:
    for name, content in (("text", "no database, but text" * 99), ("empty", "")):
        (shop / "train_databases" / name).mkdir()
        (shop / "train_databases" / name / f"{name}.sqlite").write_text(content)
    file = written(shop / "rows.jsonl", [BIRD, {**BIRD, **row}])
    with pytest.raises(DataError, match=f"rows.jsonl, row 2: .*{fault}"):
        source_of("bird", file)


def bfcl(folder: Path, questions: list[dict[str, Any]], answers: list[dict[str, Any]]) -> tuple[Path, Path]:
    """Write the two files of BFCL: JSON lines that are called .json, the answers in a folder of their own."""
    (folder / "possible_answer").mkdir(exist_ok=True)
    name = "BFCL_v4_simple_python.json"
    return written(folder / name, questions), written(folder / "possible_answer" / name, answers)


def test_bfcl_joins_its_questions_and_answers(tmp_path: Path) -> None:
    second = {**BFCL, "id": "simple_python_901", "question": [[{"role": "user", "content": "Of a 4 by 5 one?"}]]}
    gold = {"id": "simple_python_901", "ground_truth": [{"area": {"w": [4], "h": [5]}}]}
    files = bfcl(tmp_path, [BFCL, second], [gold, BFCL_ANSWER])
    report = check_dataset("bfcl", data_files=files, workers=0, verifier_options={"strings": "bfcl"})
    assert report.passed, report
    assert (report.split, report.rows, report.left_out) == ("eval", 2, 0)
    source = load_source("bfcl", SourceRequest("eval", 0, True, {}, files))
    assert len(source.digests()) == 2
    system, user = source[0].messages or ()
    assert user.content == "Area of a 2 by 3 rectangle?"
    assert json.dumps(BFCL["function"]) in system.content
    assert source[0].task.row_id == "simple_python_900"
    assert list(source.questions()) == ["Area of a 2 by 3 rectangle?", "Of a 4 by 5 one?"]
    calls = {"[area(w=2, h=3)]": [1.0, 0.0], "[area(w=4, h=5)]": [0.0, 1.0], "[area(w=2, h=3, unit='CM2')]": [1.0, 0.0]}
    with Scorer("tools", {"strings": "bfcl"}, workers=0) as scorer:
        for call, rewards in calls.items():
            found = scorer.score([Item(call, source[i].task) for i in range(2)])
            assert [score.reward for score in found] == rewards


def test_files_that_do_not_fit_together_are_an_error(tmp_path: Path) -> None:
    other = {**BFCL_ANSWER, "id": "simple_python_901"}
    faults: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
        "python.json: there is no row whose 'id' is 'simple_python_901', as there is in": (
            [BFCL],
            [BFCL_ANSWER, other],
        ),
        "answer/.*python.json: there is no row whose 'id' is 'simple_python_900'": ([BFCL], [other]),
        "answer/.*python.json, row 2: 'id' is 'simple_python_900', which is": ([BFCL], [BFCL_ANSWER, BFCL_ANSWER]),
        "row 1: 'id' is None": ([{**BFCL, "id": None}], [BFCL_ANSWER]),
        "there is no column 'id' to join": ([BFCL], [{"ground_truth": []}]),
    }
    for fault, rows in faults.items():
        with pytest.raises(DataError, match=fault):
            load_source("bfcl", SourceRequest("eval", 0, True, {}, bfcl(tmp_path, *rows)))
    with pytest.raises(RequestError, match=r"several files that belong together.*--data-files"):
        load_source("bfcl", SourceRequest("eval", 0))
    with pytest.raises(RequestError, match="for evaluation only"):
        load_source("bfcl", SourceRequest("train", 0))
