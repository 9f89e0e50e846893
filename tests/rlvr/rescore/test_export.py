"""`rlvr export`: training data for TRL and axolotl, selected by a named score."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import rlvr
from rlvr.errors import RequestError
from rlvr.record.schema import Message, Rollout, Score, Task
from rlvr.record.store import write_rollouts

Run = Callable[..., Any]


def scored(reward: float | None, verifier: str = "math", status: str = "graded") -> Score:
    return Score(status=status, reward=reward, verifier=verifier, version="1")


def rollout(name: str, group: str, completion: str | None, *scores: Score, **fields: Any) -> Rollout:
    given: dict[str, Any] = {"prompt": f"prompt of {group}"} | fields
    return Rollout(id=name, group_id=group, completion=completion, task=Task(answer="4"), scores=scores, **given)


ROLLOUTS = [
    rollout("a0", "a", "good", scored(1.0), scored(0.0, "strict")),
    rollout("b0", "b", "wrong too", scored(0.0)),
    rollout("a1", "a", "bad", scored(0.0), scored(0.0, "strict")),
    rollout("a2", "a", "good", scored(1.0), scored(1.0, "strict")),
    rollout("a3", "a", "worse", scored(-1.0)),
    rollout("a4", "a", "better", scored(2.0)),
    rollout("a5", "a", "broken", scored(None, status="error")),
    rollout("a6", "a", "unreadable", scored(None, status="unparsed")),
    rollout("a7", "a", "not scored"),
    rollout("a8", "a", None, scored(1.0)),
]


def lines(path: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@pytest.fixture
def export(cli: Run) -> Run:
    """Function that runs `rlvr export` in this process, in a folder with `in.parquet`."""
    write_rollouts("in.parquet", ROLLOUTS)

    def run(*arguments: str) -> Any:
        return cli("export", *arguments)

    return run


def test_sft_takes_right_rows_once(export: Run) -> None:
    done = export("in.parquet", "--to", "sft", "-v", "math", "--out", "out.jsonl")
    assert done.code == 0, done.err
    assert lines("out.jsonl") == [
        {"prompt": "prompt of a", "completion": "good"},
        {"prompt": "prompt of a", "completion": "better"},
    ]
    assert done.out.splitlines() == [
        "rows       10",
        "written    2 rows to out.jsonl, scores by math",
        "left out   8",
        "         4 with a reward below 0.5",
        "         1 without a prompt or a completion",
        "         1 equal to an earlier row in prompt and completion",
        "         1 without a reward: error",
        "         1 without a score by math",
    ]


def test_dpo_pairs_the_best_with_the_worst_of_a_group(export: Run) -> None:
    assert export("in.parquet", "--to", "dpo", "-v", "math", "--out", "one.jsonl").code == 0
    assert lines("one.jsonl") == [{"prompt": "prompt of a", "chosen": "better", "rejected": "worse"}]
    done = export("in.parquet", "--to", "dpo", "-v", "math", "--pairs", "5", "--out", "two.jsonl", "--json")
    assert [(row["chosen"], row["rejected"]) for row in lines("two.jsonl")] == [("good", "bad"), ("better", "worse")]
    report = json.loads(done.out)
    assert (report["total"], report["used"], report["written"]) == (10, 4, 2)
    assert report["left_out"]["in a group that is all wrong"] == 1
    assert report["left_out"]["beyond the pairs of their group"] == 1
    assert report["used"] + sum(report["left_out"].values()) == report["total"]


def test_a_pair_is_chosen_by_the_score_that_is_named(export: Run) -> None:
    assert export("in.parquet", "--to", "kto", "-v", "strict", "--out", "out.jsonl").code == 0
    assert [(row["completion"], row["label"]) for row in lines("out.jsonl")] == [("good", False), ("bad", False)]
    done = export("in.parquet", "--to", "sft", "--out", "no.jsonl")
    assert done.code == 2
    assert "--verifier: whose score? There are scores by: math (8), strict (3)" in done.err
    done = export("in.parquet", "--to", "sft", "-v", "maht", "--out", "no.jsonl")
    assert "no score by 'maht'; the scores there are by: math (8), strict (3)" in done.err
    assert not Path("no.jsonl").exists()


def test_kto_labels_every_row_with_a_reward(export: Run) -> None:
    assert export("in.parquet", "--to", "kto", "-v", "math", "--out", "out.parquet").code == 0
    table = pq.read_table("out.parquet").to_pylist()
    labels = {row["completion"]: row["label"] for row in table}
    assert labels == {
        "good": True,
        "better": True,
        "bad": False,
        "worse": False,
        "wrong too": False,
        "unreadable": False,
    }
    assert [*table[0]] == ["prompt", "completion", "label"]


def test_jsonl_is_flat(export: Run) -> None:
    arguments = ["--where", "verifier=strict", "--where", "reward=1"]
    done = export("in.parquet", "--to", "jsonl", *arguments, "--out", "out.jsonl")
    assert done.code == 0, done.err
    assert "         8 do not meet --where" in done.out or "         9 do not meet --where" in done.out
    (row,) = lines("out.jsonl")
    assert (row["id"], row["group_id"], row["answer"], row["verifier"], row["reward"]) == (
        "a2",
        "a",
        "4",
        "strict",
        1.0,
    )


CHAT = (Message(role="system", content="be brief"), Message(role="user", content="2+2?"))


def test_chats_are_lists_of_messages(cli: Run) -> None:
    write_rollouts(
        "in.jsonl",
        [
            rollout("a", "g", "4", scored(1.0), prompt=None, messages=CHAT),
            rollout("b", "g", "5", scored(0.0), prompt=None, messages=CHAT),
        ],
    )
    prompt = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "2+2?"}]
    right, wrong = ([{"role": "assistant", "content": text}] for text in ("4", "5"))
    assert cli("export", "in.jsonl", "--to", "sft", "--out", "sft.jsonl").code == 0
    assert lines("sft.jsonl") == [{"prompt": prompt, "completion": right}]
    assert cli("export", "in.jsonl", "--to", "sft", "--messages", "--out", "messages.parquet").code == 0
    assert pq.read_table("messages.parquet").to_pylist() == [{"messages": [*prompt, *right]}]
    assert cli("export", "in.jsonl", "--to", "dpo", "--out", "dpo.parquet").code == 0
    assert pq.read_table("dpo.parquet").to_pylist() == [{"prompt": prompt, "chosen": right, "rejected": wrong}]


def test_text_prompts_become_messages_on_request_and_kinds_do_not_mix(export: Run) -> None:
    write_rollouts("chat.jsonl", [rollout("c", "c", "4", scored(1.0), prompt=None, messages=CHAT)])
    arguments = ["in.parquet", "chat.jsonl", "--to", "sft", "-v", "math"]
    done = export(*arguments, "--out", "out.jsonl")
    assert done.code == 2
    assert "some prompts are texts and others are chats: --messages writes all of them as chats" in done.err
    assert export(*arguments, "--messages", "--out", "out.jsonl").code == 0
    assert lines("out.jsonl")[0] == {
        "messages": [{"role": "user", "content": "prompt of a"}, {"role": "assistant", "content": "good"}]
    }
    assert [turn["role"] for turn in lines("out.jsonl")[2]["messages"]] == ["system", "user", "assistant"]


def test_rows_without_a_group_are_paired_by_their_prompt(cli: Run) -> None:
    rows = [
        {"prompt": prompt, "completion": text, "answer": "4", "scores": [scored(reward).model_dump(mode="json")]}
        for prompt, text, reward in (("p", "right", 1.0), ("q", "right", 1.0), ("p", "wrong", 0.0))
    ]
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli("export", "in.jsonl", "--to", "dpo", "--out", "out.jsonl").code == 0
    assert lines("out.jsonl") == [{"prompt": "p", "chosen": "right", "rejected": "wrong"}]


def test_a_row_with_another_prompt_than_its_group_is_left_out(cli: Run) -> None:
    write_rollouts(
        "in.jsonl",
        [
            rollout("a", "g", "right", scored(1.0)),
            rollout("b", "g", "wrong", scored(0.0), prompt="another"),
            rollout("c", "g", "wrong too", scored(0.0)),
        ],
    )
    done = cli("export", "in.jsonl", "--to", "dpo", "--out", "out.jsonl")
    assert "1 with another prompt than the rest of their group" in done.out
    assert lines("out.jsonl") == [{"prompt": "prompt of g", "chosen": "right", "rejected": "wrong too"}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "ppo", "--out", "o.jsonl"], "--to ppo: there is no such layout"),
        (["--to", "sft", "--out", "o.csv"], "o.csv ends in neither .parquet nor .jsonl"),
        (["--to", "sft", "--out", "in.parquet", "--force"], "--out in.parquet is FILE itself"),
        (["--to", "sft", "--out", "there.jsonl"], "there.jsonl exists; --force replaces it"),
        (["--to", "sft", "--out", "none/o.jsonl"], "none/o.jsonl cannot be written"),
        (
            ["--to", "sft", "-v", "math", "--threshold", "3", "--out", "o.jsonl"],
            "no row is left to export as sft, of 10",
        ),
        (["--to", "sft", "-v", "math", "--where", "rewrad=1", "--out", "o.jsonl"], "has no field 'rewrad'"),
    ],
)
def test_a_wrong_request_is_refused(export: Run, arguments: list[str], message: str) -> None:
    Path("there.jsonl").write_text("precious\n")
    done = export("in.parquet", *arguments)
    assert done.code == 2
    assert message in done.err
    assert not Path("o.jsonl").exists()
    assert Path("there.jsonl").read_text() == "precious\n"


def test_rows_without_scores_are_sft_data_and_no_pairs(cli: Run) -> None:
    Path("in.csv").write_text("prompt,completion\np,c\np,c\nq,d\n")
    assert cli("export", "in.csv", "--to", "sft", "--out", "out.jsonl.gz").code == 0
    written = gzip.decompress(Path("out.jsonl.gz").read_bytes()).decode().splitlines()
    assert [json.loads(line)["prompt"] for line in written] == ["p", "q"]
    done = cli("export", "in.csv", "--to", "dpo", "--out", "no.jsonl")
    assert "--to dpo chooses rows by a score, and there are none: rlvr score adds them" in done.err


def test_standard_output_holds_the_rows_alone(export: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(shown))
    result = rlvr.export("in.parquet", "-", to="kto", verifier="math")
    assert [json.loads(line)["label"] for line in shown.getvalue().splitlines()].count(True) == 2
    assert str(result.file) == "-"


def test_the_function_returns_a_report(export: Run) -> None:
    result = rlvr.export("in.parquet", "out.jsonl", to="dpo", verifier="math")
    assert (result.total, result.used, result.written, result.verifier) == (10, 2, 1, "math")
    assert {row["reason"]: row["rows"] for row in result.rows} == dict(result.left_out)
    assert json.loads(json.dumps(result.to_dict()))["written"] == 1
    with pytest.raises(RequestError, match="exists; --force replaces it"):
        rlvr.export("in.parquet", "out.jsonl", to="dpo", verifier="math")


def test_what_is_written_loads_as_a_data_set(export: Run) -> None:
    from datasets import load_dataset

    assert export("in.parquet", "--to", "dpo", "-v", "math", "--messages", "--out", "out.jsonl").code == 0
    loaded = load_dataset("json", data_files="out.jsonl", split="train", cache_dir="cache")
    assert loaded[0]["chosen"] == [{"role": "assistant", "content": "better"}]


@pytest.mark.parametrize(
    ("reward", "message"),
    [("1" + "0" * 400, "graded with the reward 1000"), ("NaN", "graded with the reward nan"), ("true", "reward True")],
)
def test_a_stored_reward_that_is_no_number_is_one_line(export: Run, reward: str, message: str) -> None:
    scores = f'[{{"verifier": "math", "status": "graded", "reward": {reward}}}]'
    Path("bad.jsonl").write_text(f'{{"id": "0", "prompt": "p", "completion": "c", "scores": {scores}}}\n')
    done = export("bad.jsonl", "--to", "sft", "--out", "out.jsonl")
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1


def test_a_stored_reward_beyond_every_limit_is_left_out_as_an_error(export: Run) -> None:
    scores = '[{"verifier": "math", "status": "graded", "reward": 1e300}]'
    Path("large.jsonl").write_text(f'{{"id": "0", "prompt": "p", "completion": "c", "scores": {scores}}}\n')
    assert "without a reward: error" in export("large.jsonl", "--to", "sft", "--out", "out.jsonl").err
