"""Base class of loaded verifiers, and the properties that they declare."""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from rlvr.record.item import Item
from rlvr.record.schema import Rollout, Task, Verdict
from rlvr.verify.results import describe, error_verdict, is_utf8

Sees: TypeAlias = Literal["task", "answer"]
Range: TypeAlias = tuple[float, float]
"""Smallest and largest reward."""

DESCRIPTION_FIELDS = (
    *("name", "version", "config", "takes_groups", "min_group", "wants_rollout", "sees", "repeatable"),
    *("at_once", "closes"),
)
"""Attributes of a verifier that the process which has loaded it reports to the others."""


@dataclass(frozen=True)
class Claims:
    """Checkable properties that a verifier declares. Plain values, so that they can be sent between processes."""

    compares_answers: bool
    """Whether it reads a final answer and compares it with the gold answer."""
    needs_answer: bool
    """Whether a row without a gold answer is `invalid` and an empty completion `unparsed`, without a call."""
    needs_prompt: bool
    """Whether it takes rollouts, so that a row without a prompt is `invalid`."""
    answer_form: str
    """The form in which a completion states its final answer, with `{answer}` in its place."""
    partial_credit: bool
    """Whether wrong answers earn different rewards on purpose."""
    deterministic: bool
    """Whether equal completions and tasks get equal verdicts."""
    cases: str | None
    """The file of labeled cases that it declares, whether it exists or not."""
    columns: Sequence[str] = ()
    """Columns of a row, besides the gold answer, that it cannot do without."""
    reward_range: Range | None = None
    """Smallest and largest reward; None if it declares none."""


class LoadedVerifier(ABC):
    """A verifier that is ready to judge, in this process: a function with its options, or a composition."""

    name: str
    version: str
    config: Mapping[str, Any]
    """Resolved options, as they may be written."""
    memory: int | None
    """Bytes of address space that a worker may use in addition to what imports took; None is the pool's default."""
    env: tuple[str, ...]
    """Names of the environment variables that it declares."""
    takes_groups: bool
    min_group: int
    wants_rollout: bool
    """Whether completion and task are not enough."""
    sees: Sees
    repeatable: bool
    """Whether verdicts depend only on completion, task and options, and may be remembered."""
    needs_answer: bool
    at_once: int = 1
    """Items that a worker is given together, in one call of `judge`, although they are no group."""
    closes: bool = False
    """Whether workers end with `close`."""
    limit: float | None = None
    """Seconds that each of several verdicts at the same time may take; None is no limit."""
    escaped: int
    """Verdicts so far with text that had to be escaped, because no file can hold lone surrogates."""

    @property
    @abstractmethod
    def claims(self) -> Claims:
        """Properties that `rlvr check verifier` checks."""

    @abstractmethod
    def preload(self) -> None:
        """Call the function that the verifier declares as `preload`."""

    def setup(self) -> None:  # noqa: B027
        """Get ready to judge, once in every worker."""

    def close(self) -> None:  # noqa: B027
        """Release what `setup` took, when a worker's work is over."""

    @abstractmethod
    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        """Return the verdicts like `verify_items`, but let the function's exceptions through."""

    def verify(self, completion: str | None, task: Task, rollout: Rollout | None = None) -> Verdict:
        """Return the verdict on one completion, in this process: a hang hangs, and a crash crashes.

        Every exception except KeyboardInterrupt becomes the verdict `error`. For a verifier that takes groups it is a
        group of one, which is `invalid` unless the verifier declares `min_group=1`.
        """
        return self.verify_items([Item(completion, task, rollout)])[0]

    def verify_group(self, rollouts: Sequence[Rollout]) -> list[Verdict]:
        """Return the verdicts on the rollouts of one group, in their order; otherwise like `verify`."""
        return self.verify_items([Item(rollout.completion, rollout.task, rollout) for rollout in rollouts])

    def verify_items(self, items: Sequence[Item]) -> list[Verdict]:
        """Return the verdicts on one item, or on the items of one group; otherwise like `verify`."""
        try:
            return self.judge(items)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # sys.exit() and timeouts of other libraries are not Exceptions
            return [self.failed(error)] * len(items)

    def failed(self, error: BaseException) -> Verdict:
        """Return the verdict for a function that raised."""
        self.escaped += not is_utf8("".join(traceback.format_exception_only(error)))
        return error_verdict(describe(error))
