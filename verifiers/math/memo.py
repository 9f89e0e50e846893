"""Cache of results of pure functions of texts, in bounded memory: a limited number of results, and none for long
texts."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

LONGEST = 400
"""Characters. Results for longer texts are not cached, so that hostile texts do not fill the memory."""

P = ParamSpec("P")
R = TypeVar("R")


def remembered(results: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that keeps the latest `results` results; arguments must be hashable. Safe in threads."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        kept = lru_cache(maxsize=results)(function)

        @wraps(function)
        def look_up(*args: P.args, **kwargs: P.kwargs) -> R:
            for arg in args:  # no generator: this is called several times per answer
                if isinstance(arg, str) and len(arg) > LONGEST:
                    return function(*args, **kwargs)
            return kept(*args, **kwargs)  # type: ignore[arg-type]

        look_up.cache_info = kept.cache_info  # type: ignore[attr-defined]
        look_up.cache_clear = kept.cache_clear  # type: ignore[attr-defined]
        return look_up

    return decorate
