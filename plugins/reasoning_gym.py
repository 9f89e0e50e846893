"""Tasks of the library reasoning-gym as prompt sources; the verifier of the same name judges the answers.

    rlvr train --dataset reasoning-gym --set dataset.options.task=leg_counting

A question is a function of (task, options, seed, index), so a record keeps these instead of the task's data.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from rlvr.draws import draw
from rlvr.errors import ConfigError, DataError, nearest
from rlvr.protocols import Prompt, PromptSource, SourceRequest
from rlvr.record.schema import Message, Task

SIZE = 1000
"""Questions of one data set of the library; the next ones are of the next seed. Some tasks draw from the size."""
EVAL_SIZE = 500
HELD_OUT_ONE_IN = 10
ATTEMPTS = 200
"""Questions that are drawn to find one of the right split."""
INSTRUCTION = "Put the final answer within <answer> </answer> tags."
REFUSED = {
    "codeio": "its questions are not the same each time",
    "composite": "mix several data sets instead: dataset.mix",
    "game_of_life_halting": "its scorer takes any text for the answer",
    "list_functions": "its questions depend on those that were drawn before",
}
"""Tasks that cannot be used, and why."""


class ReasoningGym(PromptSource):
    """The prompt source `reasoning-gym`, for one task.

    The options are `task`, and the options of the task. Whether a question is held out depends on its text alone, so
    the splits are disjoint. Split "train" is endless; "eval" has 500 questions, the same for every seed.
    """

    default_verifier = "reasoning-gym"

    def __init__(self, request: SourceRequest) -> None:
        """Raise ConfigError if the task or one of its options does not exist, or if the task is refused."""
        if request.data_files:
            raise ConfigError(f"dataset 'reasoning-gym' reads no files: leave out {request.data_files[0]}")
        options = dict(request.options)
        self._task = options.pop("task", None)
        self._options = options
        self._split, self._chat = request.split, request.chat
        drawn = draw("reasoning-gym", request.seed) if request.split == "train" else draw("reasoning-gym: eval")
        self._seed = drawn % 2**31
        self._data: Any = None
        known = tasks()
        if not isinstance(self._task, str) or self._task not in known:
            named = "" if self._task is None else f", not {self._task!r}{nearest(str(self._task), known)}"
            raise ConfigError(f"dataset 'reasoning-gym' needs dataset.options.task, one of its tasks{named}")
        if self._task in REFUSED:
            raise ConfigError(f"the task {self._task!r} of reasoning-gym cannot be used: {REFUSED[self._task]}")
        try:
            self._generated(0)
        except (TypeError, AssertionError, ValueError) as error:
            raise ConfigError(f"dataset.options of the task {self._task!r} of reasoning-gym: {error}") from error

    def digests(self) -> Mapping[str, str]:
        """Return the version of the library, which decides the questions."""
        return {"reasoning-gym": version("reasoning-gym")}

    @property
    def size(self) -> int | None:
        """None (endless) for "train", 500 for "eval"."""
        return None if self._split == "train" else EVAL_SIZE

    def __getitem__(self, index: int, /) -> Prompt:
        """Return question `index`. Raises DataError if it does not exist, or if the task has too few questions."""
        if index < 0 or (self.size is not None and index >= self.size):
            raise DataError(f"dataset 'reasoning-gym' has no question {index} in its split {self._split!r}")
        for attempt in range(ATTEMPTS):
            place = index * ATTEMPTS + attempt
            entry = self._generated(place)
            question = str(entry["question"])
            held_out = draw("reasoning-gym: held out", question) % HELD_OUT_ONE_IN == 0
            if held_out == (self._split == "eval"):
                return self._prompt(entry, question, place)
        raise DataError(
            f"the task {self._task!r} of reasoning-gym has too few different questions for a held-out split: none of "
            f"{ATTEMPTS} was of the split {self._split!r}. Make it harder by its options"
        )

    def _generated(self, place: int) -> Mapping[str, Any]:
        """Return entry `place` of the task's endless sequence."""
        import reasoning_gym

        seed = self._seed + place // SIZE
        if self._data is None or self._data.seed != seed:
            self._data = reasoning_gym.create_dataset(self._task, seed=seed, size=SIZE, **self._options)
        entry: Mapping[str, Any] = self._data[place % SIZE]
        return entry

    def _prompt(self, entry: Mapping[str, Any], question: str, place: int) -> Prompt:
        answer = entry["answer"]
        where = {
            "task": self._task,
            "options": self._options,
            "seed": self._seed + place // SIZE,
            "size": SIZE,
            "index": place % SIZE,
        }
        task = Task(
            dataset="reasoning-gym",
            row_id=f"{self._task}-{self._seed}-{place}",
            split=self._split,
            answer=None if answer is None else str(answer),
            extra={"reasoning_gym": {**where, "question": question}},
        )
        asked = f"{question}\n\n{INSTRUCTION}"
        if self._chat:
            return Prompt(task, messages=(Message(role="user", content=asked),))
        return Prompt(task, text=f"{asked}\n")


def tasks() -> Mapping[str, object]:
    """Return the library's tasks by name. Raises ConfigError if it is not installed."""
    try:
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise ConfigError(f"reasoning-gym cannot be imported ({error}): pip install 'rlvr[reasoning-gym]'") from error
    return dict(DATASETS)
