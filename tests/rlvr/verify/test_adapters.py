"""rlvr's verifiers as TRL's, verl's and verifiers' reward functions: in the real libraries where they install."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import pickle
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import rlvr
from rlvr.errors import ConfigError, DataError, PluginError, RunError
from rlvr.record.rows import last_said
from rlvr.verify.adapters import TrlReward, VerifiersReward, VerlScore
from rlvr.verify.scoring import score_rows, training_reward

HERE = Path(__file__).parents[1]
MISBEHAVING = str(HERE / "misbehaving.py")
TIMEOUT = 1.0
MATH = ("so \\boxed{4}", "\\boxed{5}", "\\boxed{2+2}", "I can't say", "", "\\boxed{9^{9^{9^{9}}}}")


@pytest.fixture(autouse=True)
def _same_import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def trl() -> Iterator[TrlReward]:
    adapter = rlvr.to_trl(f"{MISBEHAVING}:check", workers=2, timeout=TIMEOUT)
    yield adapter
    adapter.close()


@pytest.fixture
def reward() -> Iterator[VerifiersReward]:
    adapter = rlvr.to_verifiers(f"{MISBEHAVING}:check", workers=2, timeout=TIMEOUT)
    yield adapter
    adapter.close()


@pytest.fixture
def compute_score() -> Iterator[VerlScore]:
    adapter = rlvr.to_verl(f"{MISBEHAVING}:check", workers=2, timeout=TIMEOUT)
    yield adapter
    adapter.close()


def chat(text: str | None) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": text}]


# --- TRL ------------------------------------------------------------------------------------------------------------


def test_statuses_become_what_training_makes_of_them(trl: TrlReward) -> None:
    deeds = ["1", "0", "", "!hang", "!raise", "!None", "!segfault"]
    assert trl(["p"] * 7, deeds, answer=["1"] * 7) == [1.0, 0.0, 0.0, None, None, None, None]
    assert trl(["p"] * 2, ["1", "1"], answer=["1", None]) == [1.0, None]


def test_completions_may_be_messages(trl: TrlReward) -> None:
    turns = [*chat("2"), {"role": "tool", "content": "0"}, *chat("1")]
    parts = [{"role": "assistant", "content": [{"type": "text", "text": "1"}]}]
    completions = [chat("1"), turns, parts, chat(None), [{"role": "user", "content": "1"}], []]
    assert trl([chat("p")] * 6, completions, answer=["1"] * 6) == [1.0, 1.0, 1.0, 0.0, None, None]


def test_the_gold_s_column(trl: TrlReward) -> None:
    prompts, completions = ["p"] * 2, ["1", "2"]
    for column in ("answer", "solution", "ground_truth"):
        assert trl(prompts, completions, **{column: ["1", 1]}) == [1.0, 0.0]
    assert trl(prompts, completions, answer=["1", "1"], solution=["2", "2"]) == [1.0, 0.0]
    named = rlvr.to_trl(f"{MISBEHAVING}:check", gold="final", workers=0)
    assert named(prompts, completions, answer=["2", "2"], final=["1", "1"]) == [1.0, 0.0]
    with pytest.raises(ConfigError, match=r"no column .final.; the columns are: level \(gold=COLUMN"):
        named(prompts, completions, level=[1, 2])
    with pytest.raises(ConfigError, match="no column 'answer' or 'solution' or 'ground_truth'; the columns are: none"):
        trl(prompts, completions, trainer_state=object(), completion_ids=[[1], [2]])
    with pytest.raises(DataError, match="the gold answer 'answer' is a list"):
        trl(prompts, completions, answer=[["1"], ["1"]])


def test_a_verifier_sees_the_row_and_its_group(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import rlvr\n"
        "@rlvr.verifier(needs_answer=False)\n"
        "def level(completion, task): return task.extra['level'] + len(task.extra)\n"
        "@rlvr.verifier(takes='group', needs_answer=False, min_group=1)\n"
        "def rank(rollouts): return [len(rollouts) + 10 * (r.prompt == 'q') for r in rollouts]\n"
    )
    level = rlvr.to_trl(f"{tmp_path}/mine.py:level", workers=0)
    assert level(["p"], ["c"], level=[3], trainer_state=None, when=[float("nan")]) == [5.0]
    rank = rlvr.to_trl(f"{tmp_path}/mine.py:rank", workers=0)
    assert rank(["p", "p", "q"], ["a", "b", "c"]) == [2.0, 2.0, 11.0]
    for one_at_a_time in (rlvr.to_verl, rlvr.to_verifiers):
        with pytest.raises(ConfigError, match="takes whole groups"):
            one_at_a_time(f"{tmp_path}/mine.py:rank")


def test_a_wrong_name_or_option_is_an_error_at_once() -> None:
    for make in (rlvr.to_trl, rlvr.to_verl, rlvr.to_verifiers):
        with pytest.raises(PluginError, match="did you mean 'math'"):
            make("mth")
        with pytest.raises(ConfigError, match="no option 'float_rtoll'"):
            make("math", float_rtoll=1)


def test_it_is_named_pickled_and_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("def check(completion, task, *, most: int): return len(completion) <= most\n")
    monkeypatch.chdir(tmp_path)
    original = rlvr.to_trl("mine.py:check", most=1, workers=1)
    assert original(["p"], ["1"], answer=["1"]) == [1.0]  # with processes, which stay behind
    monkeypatch.chdir(HERE)
    for twin in (pickle.loads(pickle.dumps(original)), copy.deepcopy(original)):
        assert twin.__name__ == "mine:check"
        assert twin(["p"] * 2, ["1", "22"], answer=["1"] * 2) == [1.0, 0.0]
        twin.close()
    original.close()
    assert rlvr.to_verl("math").__name__ == "math"


def test_threads_share_the_processes_which_close_ends(trl: TrlReward) -> None:
    def zygote(_: int) -> float | None:
        return trl(["p"], ["!zygote"], answer=["1"])[0]

    with ThreadPoolExecutor(8) as threads:
        (pid,) = set(threads.map(zygote, range(32)))
    assert pid is not None
    assert Path(f"/proc/{pid:.0f}").exists()
    trl.close()
    trl.close()
    assert not Path(f"/proc/{pid:.0f}").exists()
    assert zygote(0) != pid


def test_a_forked_child_has_processes_of_its_own(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import os, threading
            import rlvr

            reward = rlvr.to_trl({MISBEHAVING + ":check"!r}, workers=1)
            def ask(deed): return reward(["p"], [deed], answer=["1"])[0]

            ours = ask("!zygote")
            busy = threading.Thread(target=ask, args=["!nap"])
            busy.start()
            child = os.fork()
            if child == 0:
                os.write(1, f"{{ask('1')}} {{ask('!zygote') != ours}}\\n".encode())
                reward.close()
                os._exit(0)
            os.waitpid(child, 0)
            busy.join()
            print(ask("0"), ask("!zygote") == ours)
            """
        )
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.stdout == "1.0 True\n0.0 True\n", done.stderr


@pytest.mark.parametrize("adapter", ["reward", "compute_score"])
def test_loaded_back_it_says_the_same(tmp_path: Path, adapter: str) -> None:
    """Loads adapters by `--verifier file.py:reward`: rlvr recognizes them as functions of TRL and verl."""
    (tmp_path / "file.py").write_text(
        "import rlvr\nreward = rlvr.to_trl('math', workers=1)\ncompute_score = rlvr.to_verl('math', workers=1)\n"
    )
    rows = [{"completion": completion, "answer": "4"} for completion in MATH]
    theirs = list(score_rows(rows, f"{tmp_path}/file.py:{adapter}", workers=1))
    ours = list(score_rows(rows, "math", workers=1))
    assert [training_reward(s) for s in theirs] == [training_reward(s) for s in ours]
    assert [s.reward for s in ours][:3] == [1.0, 0.0, 1.0]
    if adapter == "compute_score":
        assert [s.extracted for s in theirs][:2] == [s.extracted for s in ours][:2]


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")
def test_trl_trains_with_it(tiny_model: Path, tmp_path: Path) -> None:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
    from trl import GRPOConfig, GRPOTrainer

    funcs = [rlvr.to_trl(f"{HERE / 'rewards.py'}:{name}", workers=1) for name in ("digits", "broken")]
    config = GRPOConfig(
        output_dir=str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=8,
        logging_steps=1,
        bf16=False,
        activation_checkpointing=False,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = GRPOTrainer(
        AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32),
        funcs,
        args=config,
        train_dataset=Dataset.from_list([{"prompt": "1+1=", "answer": "2"}, {"prompt": "2+2=", "answer": "4"}]),
        processing_class=PreTrainedTokenizerFast.from_pretrained(tiny_model, padding_side="left"),
    )
    trainer.train()
    (logged,) = [line for line in trainer.state.log_history if "reward" in line]
    completions = list(trainer._logs["completion"])
    rewards = trainer._logs["rewards"]
    from_digits = [sum(map(str.isdigit, text)) / max(1, len(text)) for text in completions]
    assert list(rewards["digits"]) == pytest.approx(from_digits)
    assert logged["rewards/digits/mean"] == pytest.approx(sum(from_digits) / 8)
    assert logged["digits/graded"] == 1.0
    errors = sum(sum(map(ord, text)) % 2 for text in completions)
    assert logged.get("broken/error", 0.0) == pytest.approx(errors / 8)
    for func in funcs:
        func.close()


# --- verl -----------------------------------------------------------------------------------------------------------


def reward_manager(compute_score: Any, rows: list[dict[str, Any]]) -> tuple[list[float], dict[str, list[Any]]]:
    """Call a custom reward function as verl's NaiveRewardManager does, and return what it reads from the result."""
    rewards, extra_info = [], {}
    for row in rows:
        result = compute_score(
            data_source=row["data_source"],
            solution_str=row["response"],
            ground_truth=row["reward_model"]["ground_truth"],
            extra_info=row.get("extra_info"),
        )
        assert isinstance(result, dict)
        rewards.append(result["score"])
        for key, value in result.items():
            extra_info.setdefault(key, []).append(value)
    return rewards, extra_info


def test_verl_gets_a_score_and_numbers_to_log(compute_score: VerlScore) -> None:
    deeds = ["1", "0", "", "!hang", "!raise", "!None"]
    rows = [
        {"data_source": "d", "response": deed, "reward_model": {"ground_truth": 1}, "extra_info": {"index": i}}
        for i, deed in enumerate(deeds)
    ]
    # verl binds what is configured beside the function.
    rewards, logged = reward_manager(partial(compute_score, unknown_setting=1), rows)
    assert rewards == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert all(type(value) is float for key, values in logged.items() if key != "pred" for value in values)
    statuses = ["graded", "graded", "unparsed", "timeout", "error", "abstained"]
    assert [
        next(key for key in logged if key not in ("score", "pred") and logged[key][i]) for i in range(6)
    ] == statuses
    assert logged["pred"] == [""] * 6
    assert pickle.loads(pickle.dumps(compute_score)).__name__ == "misbehaving"


def test_verl_s_gold_may_be_elsewhere() -> None:
    named = rlvr.to_verl("math", gold="final", workers=0)
    found = named("d", "\\boxed{4}", "5", {"final": "4"})
    assert (found["score"], found["pred"]) == (1.0, "4")
    with pytest.raises(ConfigError, match="no column 'final'"):
        named("d", "\\boxed{4}", "5", {"other": "4"})


# --- verifiers ------------------------------------------------------------------------------------------------------


def test_the_event_loop_goes_on_while_an_answer_hangs(reward: VerifiersReward) -> None:
    async def main() -> tuple[list[float | BaseException], int]:
        ticks = 0
        asked = (reward(completion=deed, answer="1") for deed in ["!hang", "1", "0", "1"])
        waiting = asyncio.gather(*asked, return_exceptions=True)
        while not waiting.done():
            ticks += 1
            await asyncio.sleep(0.01)
        return await waiting, ticks

    (late, *rewards), ticks = asyncio.run(main())
    assert isinstance(late, RunError)
    assert "verifier 'misbehaving': timeout: not done after" in str(late)
    assert rewards == [1.0, 0.0, 1.0]
    assert ticks > 5


def test_what_training_would_drop_is_raised(reward: VerifiersReward) -> None:
    for deed, message in [("!raise", "error: ZeroDivisionError"), ("!None", "abstained: no reason given")]:
        with pytest.raises(RunError, match=f"verifier 'misbehaving': {message}"):
            asyncio.run(reward(completion=deed, answer="1"))
    with pytest.raises(ConfigError, match="no column 'answer'"):
        asyncio.run(reward(completion="1", answer="", state={}))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_rubric_of_verifiers_scores_with_it(reward: VerifiersReward) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import verifiers

    async def main() -> list[tuple[float, dict[str, float]]]:
        rubric = verifiers.Rubric(funcs=[reward, rlvr.to_verifiers("math", workers=1)], weights=[1.0, 0.5])
        states = [
            verifiers.State(
                input={"prompt": chat("?"), "answer": "1", "info": {}, "example_id": i},
                prompt=[{"role": "user", "content": "?"}],
                completion=chat(text),
                answer="1",
                info={},
                trajectory=[],
            )
            for i, text in enumerate(["1", "\\boxed{1}", "!raise"])
        ]
        for state in states:
            await rubric.score_rollout(state)
        return [(state["reward"], state["metrics"]) for state in states]

    found = asyncio.run(main())
    assert found[0] == (1.5, {"misbehaving": 1.0, "math": 1.0})
    assert found[1] == (0.5, {"misbehaving": 0.0, "math": 1.0})
    assert found[2] == (0.0, {"misbehaving": 0.0, "math": 0.0})  # raised; the rubric logs it


def test_a_task_of_verifiers_is_rewarded_by_it() -> None:
    import verifiers.v1 as vf

    class Data(vf.TaskData):
        answer: str | None = None

    class Question(vf.Task[Data]):
        right = vf.reward(rlvr.to_verifiers("math", workers=1), weight=2.0)

    async def main(completion: str, answer: str | None) -> vf.Trace:
        task = Question(Data(prompt="2 + 2?", answer=answer))
        message = vf.AssistantMessage(content=completion)
        trace = vf.Trace.model_construct(
            nodes=[vf.MessageNode(message=message, sampled=True)], rewards={}, metrics={}, root_reply=completion
        )
        await task.score(trace)
        return trace

    rewarded = asyncio.run(main("so \\boxed{4}", "4")).rewards["math"]
    assert (rewarded.score, rewarded.weight) == (1.0, 2.0)
    with pytest.raises(vf.TaskError, match="invalid: the row has no gold answer"):
        asyncio.run(main("so \\boxed{4}", None))


# --- rlvr.score -----------------------------------------------------------------------------------------------------


def test_scores_come_inside_a_running_event_loop() -> None:
    async def main() -> list[float | None]:
        rows = [{"completion": text, "answer": "1"} for text in ("1", "0")]
        return [found.reward for found in rlvr.score(rows, f"{MISBEHAVING}:check", workers=1)]

    assert asyncio.run(main()) == [1.0, 0.0]


def test_a_generator_that_nobody_finishes_leaves_no_process() -> None:
    scores = rlvr.score([{"completion": "!zygote", "answer": "1"}] * 10, f"{MISBEHAVING}:check", workers=1)
    zygote = Path(f"/proc/{next(scores).reward:.0f}")
    assert zygote.exists()
    del scores
    assert not zygote.exists()


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([{"role": "user", "content": "q"}], None),
        ([{"role": "assistant", "content": ""}], ""),
        ([{"role": "assistant", "content": "a"}, {"role": "assistant", "content": [], "tool_calls": [1]}], "a"),
        ([SimpleNamespace(role="assistant", content=[{"type": "text", "text": "a"}, SimpleNamespace(text="b")])], "ab"),
        *(
            ([{"role": "assistant", "content": [{**part, "text": "x"}, {"type": "text", "text": "a"}]}], "a")
            for part in (
                *({"type": name} for name in ("reasoning", "reasoning_text", "thinking", "redacted_thinking")),
                {"thought": True},
            )
        ),
        ([{"role": "assistant", "content": [{"type": "thinking", "thinking": "x"}]}], ""),
        ([{"role": "assistant", "channel": "analysis", "content": "x"}], ""),
        ([{"type": "reasoning", "text": "x"}, {"role": "assistant", "content": "a"}], "a"),
        ([{"type": "thinking", "thinking": "x"}, {"type": "text", "text": "a"}], "a"),
        ([{"type": "reasoning", "summary": []}], ""),
    ],
)
def test_what_was_said_last_is_one_rule(messages: list[Any], said: str | None) -> None:
    assert last_said(messages, "completion") == said


def test_a_completion_that_is_no_chat_is_an_error_that_says_so() -> None:
    with contextlib.closing(rlvr.to_trl("math", workers=0)) as reward:
        assert reward(["q"], [[{"role": "assistant", "content": ""}]], answer=["1"]) == [0.0]
        with pytest.raises(DataError, match="'completion' is a list: expected text, a number or messages"):
            reward(["q"], [[1, 2]], answer=["1"])


def test_thinking_in_a_message_of_trl_is_no_answer() -> None:
    chat = [
        {"role": "assistant", "content": [{"type": "reasoning", "text": "\\boxed{41}"}, {"type": "text", "text": "42"}]}
    ]
    with contextlib.closing(rlvr.to_trl("math", workers=0)) as reward:
        assert reward(["q", "q"], [chat, chat], answer=["42", "41"]) == [1.0, 0.0]
