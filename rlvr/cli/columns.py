"""`--map TARGET=SOURCE`, as several commands have it."""

from __future__ import annotations

from collections.abc import Iterable

from rlvr.errors import RequestError, nearest


def column_mapping(texts: Iterable[str]) -> dict[str, str]:
    """Return target → column, from `TARGET=SOURCE` texts. Raises RequestError for a wrong one."""
    from rlvr.record.rows import TARGETS

    sources: dict[str, str] = {}
    for text in texts:
        target, equals, source = text.partition("=")
        if not (target and equals and source):
            raise RequestError(f"--map {text}: write TARGET=SOURCE, for example completion=response")
        if target not in TARGETS:
            raise RequestError(f"--map {text}: there is no target {target!r}{nearest(target, TARGETS)}")
        if target in sources:
            raise RequestError(f"--map {text}: {target} is mapped twice")
        sources[target] = source
    return sources
