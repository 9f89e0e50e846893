"""Subject of a verifier: a function, or a class that every worker makes once and whose method `check` it calls.

@rlvr.verifier(name="lookup", version="1")
class Lookup:
    def __init__(self, *, path: str): ...        # the options
    def setup(self): ...                         # once per worker, before its first row
    def check(self, completion, task): ...       # any form; it may be async
    def close(self): ...                         # when the work is over; not if the worker is killed
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from rlvr.errors import PluginError
from rlvr.verify.options import Parameters

T = TypeVar("T")


class Subject:
    """A function or a class, with the instance and the event loop that a worker keeps."""

    def __init__(self, name: str, target: Callable[..., Any]) -> None:
        """Raises PluginError for a class without a method `check`, and for what cannot be called."""
        self.function = target
        self.is_class = inspect.isclass(target)
        checks = getattr(target, "check", None) if inspect.isclass(target) else target
        if not callable(checks):
            raise PluginError(
                f"verifier {name!r} is a class without a method `check`: add check(self, completion, task)"
            )
        parameters = _signature(name, checks)
        self.parameters: Parameters = dict(list(parameters.items())[1:]) if self.is_class else parameters
        """Parameters of the call, without `self`."""
        self.offered: Parameters | None = _signature(name, target) if self.is_class else None
        """Parameters of the class, which are its options; None for a function."""
        self.options_of: Callable[..., Any] = getattr(target, "__init__") if self.is_class else target  # noqa: B009
        """The function whose annotations are those of the options."""
        self.is_async = inspect.iscoroutinefunction(checks)
        self.closes = callable(getattr(target, "close", None)) if self.is_class else False
        self._instance: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def setup(self, options: Mapping[str, Any], *, keeps_loop: bool) -> None:
        """Make the instance and call its `setup`, once. With `keeps_loop`, all coroutines run in one event loop."""
        if keeps_loop and self._loop is None:
            self._loop = asyncio.new_event_loop()
        if not self.is_class or self._instance is not None:
            return
        instance = self.function(**options)
        if callable(begin := getattr(instance, "setup", None)):
            self._finish(begin())
        self._instance = instance

    def callee(self, options: Mapping[str, Any]) -> Callable[..., Any]:
        """Return what to call: the function, or `check` of the instance, which is made if there is none yet."""
        if not self.is_class:
            return self.function
        self.setup(options, keeps_loop=False)
        check: Callable[..., Any] = self._instance.check
        return check

    def run(self, work: Coroutine[Any, Any, T], options: Mapping[str, Any]) -> T:
        """Return the result of a coroutine."""
        self.setup(options, keeps_loop=False)
        return asyncio.run(work) if self._loop is None else self._loop.run_until_complete(work)

    def close(self) -> None:
        """Call the instance's `close` and drop it; close the event loop."""
        instance, self._instance = self._instance, None
        if instance is not None and self.closes:
            self._finish(instance.close())
        if self._loop is not None:
            self._loop.close()
            self._loop = None

    def _finish(self, result: Any) -> None:
        """Run what an asynchronous `setup` or `close` returned."""
        if inspect.iscoroutine(result):
            asyncio.run(result) if self._loop is None else self._loop.run_until_complete(result)


def _signature(name: str, function: Callable[..., Any]) -> Parameters:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError) as error:
        raise PluginError(f"verifier {name!r} cannot be called: {error}") from error
