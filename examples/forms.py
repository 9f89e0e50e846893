"""The forms of a verifier, an example each. `docs/verifiers.md` explains them."""

import asyncio
import sqlite3
from collections.abc import Sequence

from pydantic import BaseModel, Field

import rlvr


@rlvr.verifier(name="batched", version="1", at_once=32)
def batched(completions: list[str], tasks: list[rlvr.Task]) -> list[bool]:
    """A batch: up to 32 completions of any prompts in one call, for instance one forward pass of a model."""
    return [f"\\boxed{{{task.answer}}}" in completion for completion, task in zip(completions, tasks, strict=True)]


@rlvr.verifier(name="shortest", version="1")
def shortest(rollouts: Sequence[rlvr.Rollout]) -> list[float]:
    """A group: all completions of one prompt. The right answer earns more the shorter it is among the right ones."""
    right = [f"\\boxed{{{rollout.task.answer}}}" in (rollout.completion or "") for rollout in rollouts]
    lengths = [len(rollout.completion or "") for rollout in rollouts]
    least = min((length for length, is_right in zip(lengths, right, strict=True) if is_right), default=0)
    return [least / length if is_right else 0.0 for length, is_right in zip(lengths, right, strict=True)]


@rlvr.verifier(name="remote", version="1", deterministic=False, at_once=100)
async def remote(completion: str, task: rlvr.Task, *, delay: float = 0.05) -> bool:
    """Asynchronous: up to 100 requests are under way at the same time in one worker."""
    await asyncio.sleep(delay)  # here an HTTP client waits for its answer
    return f"\\boxed{{{task.answer}}}" in completion


class LookupOptions(BaseModel):
    """Options as a pydantic model: its fields are the options."""

    table: str = Field(default="capitals", description="name of the table")
    strict: bool = Field(default=True, description="refuse other spellings")


@rlvr.verifier(name="lookup", version="1", columns=["country"], needs_answer=False)
class Lookup:
    """A class: a worker makes one, and calls `setup` before its first completion and `close` after its last."""

    def __init__(self, *, options: LookupOptions) -> None:
        self._options = options

    def setup(self) -> None:
        self._database = sqlite3.connect(":memory:")
        self._database.execute(f"create table {self._options.table} (country text, capital text)")
        self._database.execute(f"insert into {self._options.table} values ('France', 'Paris'), ('Peru', 'Lima')")

    def check(self, completion: str, task: rlvr.Task) -> rlvr.Verdict | bool:
        query = f"select capital from {self._options.table} where country = ?"
        row = self._database.execute(query, [task.extra["country"]]).fetchone()
        if row is None:
            return rlvr.Verdict(status="invalid", reason=f"no capital of {task.extra['country']!r} is known")
        said = completion.strip()
        return said == row[0] if self._options.strict else said.lower() == row[0].lower()

    def close(self) -> None:
        self._database.close()
