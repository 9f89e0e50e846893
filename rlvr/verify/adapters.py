"""Any rlvr verifier as a reward function of TRL, verl or PrimeIntellect's verifiers, in one line.

    GRPOTrainer(model, reward_funcs=rlvr.to_trl("math"), ...)
    compute_score = rlvr.to_verl("math")                        # custom_reward_function.path and .name
    rubric = verifiers.Rubric(funcs=[rlvr.to_verifiers("math")])

Each is an object with its own worker processes (`rlvr.verify.scoring`). They start with the first completion, are
replaced if an answer hangs, are shared by all threads, and start again in a forked child and after unpickling. A wrong
name or option is an error when the object is made, not in the middle of a run.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import weakref
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rlvr.errors import ConfigError, DataError, RunError
from rlvr.record.item import Item
from rlvr.record.rows import last_said, message_field, message_text
from rlvr.record.schema import Rollout, Score, Status, Task, digest
from rlvr.record.values import json_safe, number_text
from rlvr.verify.composition import absolute_reference
from rlvr.verify.scoring import Scorer, training_reward
from rlvr.verify.verifying import load_verifier

GOLD = ("answer", "solution", "ground_truth")
"""Names of columns that hold the gold answer, by preference: those that the three frameworks' rewards use."""

_NO_COLUMNS = frozenset({"completion_ids", "trainer_state", "log_extra", "log_metric", "environments"})


class _Adapter:
    """Base of the three adapters: the verifier, and the processes that it runs in."""

    _lock: threading.Lock
    _scorer: Scorer | None

    def __init__(
        self, verifier: str, options: Mapping[str, Any], *, gold: str | None, workers: int | None, timeout: float
    ) -> None:
        self._verifier = absolute_reference(verifier)  # it may be unpickled in another working directory
        self._options = dict(options)
        self._gold = gold
        self._limits: dict[str, Any] = {"workers": workers, "timeout": timeout}
        loaded = load_verifier(self._verifier, **self._options)
        self.__name__ = loaded.name
        self._needs_answer = loaded.needs_answer
        self._wants_rollout = loaded.wants_rollout
        self._takes_groups = loaded.takes_groups
        self._forget()

    def close(self) -> None:
        """End all processes. The next completion starts new ones."""
        with self._lock:
            scorer, self._scorer = self._scorer, None
        if scorer is not None:
            scorer.close()

    def _forget(self) -> None:
        """Return to the state of a new object, without processes."""
        self._lock = threading.Lock()
        self._scorer = None
        _adapters.add(self)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key not in ("_lock", "_scorer")}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def _score(self, items: Iterable[Item]) -> list[Score]:
        with self._lock:
            if self._scorer is None:
                self._scorer = Scorer(self._verifier, self._options, **self._limits)
            scorer = self._scorer
        return list(scorer.score(items))

    def _refuse_groups(self, framework: str) -> None:
        if self._takes_groups:
            raise ConfigError(
                f"verifier {self.__name__!r} takes whole groups, but {framework} passes one rollout at a time"
            )

    def _gold_of(self, columns: Mapping[str, Any]) -> str | None:
        """Return the gold answer among these columns. Raises ConfigError if the verifier needs one and there is
        none."""
        for name in GOLD if self._gold is None else (self._gold,):
            if columns.get(name) is not None:
                return _gold_text(columns[name], name)
        wanted = " or ".join(map(repr, GOLD)) if self._gold is None else repr(self._gold)
        if self._needs_answer and not any(name in columns for name in (self._gold or "", *GOLD)):
            raise ConfigError(
                f"verifier {self.__name__!r} needs the gold answer, and there is no column {wanted}; the columns are: "
                f"{', '.join(columns) or 'none'} (gold=COLUMN names another)"
            )
        return None

    def _item(self, completion: Any, gold: str | None, prompt: Any = None, *, place: int = 0, **task: Any) -> Item:
        text = _completion_text(completion)
        about = Task(answer=gold, **task)
        if not self._wants_rollout:
            return Item(text, about)
        asked: dict[str, Any] = {"prompt": prompt if isinstance(prompt, str) else ""}
        if isinstance(prompt, list | tuple):
            asked = {
                "messages": [
                    {"role": str(message_field(turn, "role")), "content": message_text(message_field(turn, "content"))}
                    for turn in prompt
                ]
            }
        # Consecutive completions of one prompt are a group, which is how TRL orders them.
        group = digest(json.dumps(asked, sort_keys=True))
        return Item(text, about, Rollout(id=f"{group}-{place}", group_id=group, completion=text, task=about, **asked))


class TrlReward(_Adapter):
    """Callable `f(prompts, completions, **columns) -> list[float | None]`. See `to_trl`."""

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """Return a reward per completion, or None, which TRL leaves out, if training would drop the rollout."""
        rows = {
            name: values
            for name, values in columns.items()
            if name not in _NO_COLUMNS and isinstance(values, list | tuple) and len(values) == len(completions)
        }
        items = []
        for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            row = {name: values[i] for name, values in rows.items()}
            items.append(self._item(completion, self._gold_of(row), prompt, place=i, extra=json_safe(row)))
        scores = self._score(items)
        if callable(log := columns.get("log_metric")):
            for status, count in Counter(score.status for score in scores).items():
                log(f"{self.__name__}/{status.value}", count / len(scores))
        return [training_reward(score) for score in scores]


class VerlScore(_Adapter):
    """Callable `compute_score(data_source, solution_str, ground_truth, extra_info=None) -> dict`. See `to_verl`."""

    def __call__(
        self,
        data_source: str | None,
        solution_str: str,
        ground_truth: Any,
        extra_info: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Return `score`, one number per status (1 for the verdict's), and `pred`, the answer as it was read."""
        extra = dict(extra_info or {})
        gold = _gold_text(ground_truth, "ground_truth") if self._gold is None else self._gold_of(extra)
        item = self._item(solution_str, gold, dataset=data_source, extra=json_safe(extra))
        (score,) = self._score([item])
        statuses = {status.value: float(score.status is status) for status in Status}
        return {"score": training_reward(score) or 0.0, **statuses, "pred": score.extracted or ""}


class VerifiersReward(_Adapter):
    """Function of a rubric, or reward of a task. See `to_verifiers`."""

    async def __call__(
        self,
        completion: Any = None,
        answer: Any = None,
        prompt: Any = None,
        info: Any = None,
        task: Any = None,
        trace: Any = None,
        **columns: Any,
    ) -> float:
        """Return the reward. Raises RunError if training would drop the rollout."""
        if trace is not None:
            completion, prompt = trace.last_reply, getattr(task, "prompt", None)
            columns = {name: getattr(task, name, None) for name in (self._gold, *GOLD) if name and hasattr(task, name)}
        else:
            inner = info if isinstance(info, Mapping) else {}
            columns = {**inner, **columns} | ({} if answer in (None, "") else {"answer": answer})
        item = self._item(completion, self._gold_of(columns), prompt, extra=_columns_of(info))
        (score,) = await asyncio.to_thread(self._score, [item])
        reward = training_reward(score)
        if reward is None:
            raise RunError(f"verifier {self.__name__!r}: {score.status.value}: {score.reason or 'no reason given'}")
        return reward


def to_trl(
    verifier: str, /, *, gold: str | None = None, workers: int | None = None, timeout: float = 5.0, **options: Any
) -> TrlReward:
    """Return a reward function for TRL's trainers.

    Unparsed verdicts are 0.0. Abstained, invalid, timed-out and failed ones are None, which TRL leaves out of the
    reward. Their shares are logged as the metrics `NAME/STATUS`. Completions may be text or messages.

    Args:
        verifier: "math", "rewards/mine.py:check" or "package.module:check", as for `rlvr.load_verifier`.
        gold: The data set's column with the gold answer. Default: the first of `answer`, `solution`, `ground_truth`.
        workers: Number of processes; None means one per usable CPU, 0 verifies in this process.
        timeout: Time limit per verdict in seconds, as for `Scorer`.
        options: The verifier's options.

    Raises PluginError if there is no such verifier, ConfigError for a wrong option. When called, raises ConfigError if
    the verifier needs a gold answer and there is no such column.
    """
    return TrlReward(verifier, options, gold=gold, workers=workers, timeout=timeout)


def to_verl(
    verifier: str, /, *, gold: str | None = None, workers: int | None = None, timeout: float = 5.0, **options: Any
) -> VerlScore:
    """Return a `compute_score` for verl: `custom_reward_function.path=FILE custom_reward_function.name=NAME`.

    verl cannot leave out a rollout. If rlvr would drop it, the score is 0.0, and the number under its status (`error`,
    `timeout`, `invalid`, `abstained`), which verl logs beside the score, is 1.0.

    Arguments and errors are those of `to_trl`; `gold` names a key of `extra_info` that replaces `ground_truth`.
    """
    adapter = VerlScore(verifier, options, gold=gold, workers=workers, timeout=timeout)
    adapter._refuse_groups("verl")
    return adapter


def to_verifiers(
    verifier: str, /, *, gold: str | None = None, workers: int | None = None, timeout: float = 5.0, **options: Any
) -> VerifiersReward:
    """Return an asynchronous reward function for PrimeIntellect's verifiers. It never blocks the event loop.

    Use it in `Rubric(funcs=[...])` (up to verifiers 0.3), or in the body of a Task: `reward =
    vf.reward(to_verifiers("math"))`. It raises if rlvr would drop the rollout: a rubric logs that and uses 0, a task's
    trace keeps the error.

    Arguments and errors are those of `to_trl`; `gold` names a key of `info` or of the data set's row, or a field of the
    task's data.
    """
    adapter = VerifiersReward(verifier, options, gold=gold, workers=workers, timeout=timeout)
    adapter._refuse_groups("verifiers")
    return adapter


# --- values that the frameworks pass --------------------------------------------------------------------------------


def _gold_text(value: Any, name: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"the gold answer {name!r} is a {type(value).__name__}: expected text or a number")
    return number_text(value)


def _columns_of(info: Any) -> Any:
    return json_safe(info) if isinstance(info, Mapping) else {}


def _completion_text(completion: Any) -> str | None:
    if completion is None or isinstance(completion, str):
        return completion
    return last_said(completion if isinstance(completion, Sequence) else [completion], "completion")


# --- forked children ------------------------------------------------------------------------------------------------

_adapters: weakref.WeakSet[_Adapter] = weakref.WeakSet()


def _forget_all() -> None:
    for adapter in list(_adapters):
        adapter._forget()


os.register_at_fork(
    after_in_child=_forget_all
)  # the processes belong to the parent, and a thread may have held the lock
