"""`check_prompt_source`: the rules of the `PromptSource` protocol, tried on a source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from rlvr.errors import RlvrError
from rlvr.protocols import Prompt, PromptSource, SourceRequest
from rlvr.record.schema import canonical_json

Make: TypeAlias = Callable[[SourceRequest], PromptSource]


def check_prompt_source(
    make: Make,
    *,
    options: Mapping[str, Any] | None = None,
    data_files: Mapping[Literal["train", "eval"], tuple[Path, ...]] | None = None,
    splits: tuple[Literal["train", "eval"], ...] = ("train", "eval"),
    limit: int = 200,
) -> None:
    """Assert that a prompt source keeps the protocol.

    A prompt depends on the request and the index alone; an index out of range is an error; chat models get messages
    and base models text; training and evaluation share no prompt.

    Args:
        make: The source's factory.
        options: The factory's options.
        data_files: Local files for each split.
        splits: Splits that the source has.
        limit: Prompts of each split that are looked at, from the first.

    Raises AssertionError with the rule that is broken.
    """
    seen: dict[str, set[str]] = {}
    for split in splits:
        files = (data_files or {}).get(split, ())
        for chat in (False, True):
            request = SourceRequest(split=split, seed=1, chat=chat, options=options or {}, data_files=files)
            prompts = _prompts(make, request, limit)
            for index, prompt in enumerate(prompts):
                _check_prompt(prompt, request, f"prompt {index} of {split!r}")
            seen.setdefault(split, set()).update(map(_asked, prompts))
    shared = set.intersection(*seen.values()) if len(seen) > 1 else set()
    _hold(not shared, f"training and evaluation share no prompt, but both have {min(shared, default='')[:200]}")


def _prompts(make: Make, request: SourceRequest, limit: int) -> list[Prompt]:
    source, again = make(request), make(request)
    _hold(isinstance(source, PromptSource), "a source inherits from rlvr.protocols.PromptSource")
    size = source.size
    _hold(size is None or size >= 1, f"size is None or at least 1, not {size}")
    _hold(again.size == size, "size depends on the request alone")
    count = limit if size is None else min(size, limit)
    prompts = [source[index] for index in range(count)]
    _hold(
        all(source[index] == prompt for index, prompt in reversed(list(enumerate(prompts)))),
        "a prompt is the same each time, in whatever order it is read",
    )
    _hold(all(again[index] == prompt for index, prompt in enumerate(prompts)), "a prompt depends on the request alone")
    if size is not None:
        try:
            source[size]
        except (RlvrError, IndexError):
            return prompts
        raise AssertionError(f"check_prompt_source: index {size} is out of range, which is an error")
    return prompts


def _check_prompt(prompt: Prompt, request: SourceRequest, where: str) -> None:
    _hold(isinstance(prompt, Prompt), f"{where} is a rlvr.protocols.Prompt")
    if request.chat:
        _hold(bool(prompt.messages), f"{where} has messages for a chat model")
    else:
        _hold(bool(prompt.text), f"{where} has text for a base model")
    task = prompt.task
    _hold(task.split == request.split, f"{where} says its split in task.split, not {task.split!r}")
    _hold(bool(task.dataset), f"{where} names its data set in task.dataset")
    _hold(bool(task.row_id), f"{where} identifies its row in task.row_id")


def _asked(prompt: Prompt) -> str:
    return prompt.text or canonical_json([message.model_dump() for message in prompt.messages or ()])


def _hold(true: bool, rule: str) -> None:
    if not true:
        raise AssertionError(f"check_prompt_source: {rule}")
