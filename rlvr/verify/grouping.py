"""Groups of rows that need not stand together: numbers and sizes of groups, and rows kept in a temporary file."""

from __future__ import annotations

import pickle
import tempfile
from array import array
from collections.abc import Hashable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from rlvr.record.item import Item
from rlvr.record.schema import Score

if TYPE_CHECKING:
    from rlvr.verify.scoring import Scorer

T = TypeVar("T")

HELD_IN_MEMORY = 16 << 20
MOST_MEMBERS = 10_000
"""Rows of one group at most: a verifier gets all of them at once."""


class Spool(Generic[T]):
    """Objects by number, pickled in an unnamed temporary file that is gone when this process ends."""

    def __init__(self, held: int = HELD_IN_MEMORY) -> None:
        """`held`: bytes beyond which the objects are in a file and not in memory."""
        self._file = tempfile.SpooledTemporaryFile(held)  # noqa: SIM115 (`__exit__` closes it)
        self._places = array("q")  # offset of each object; -1 without one
        self._end = 0

    def __len__(self) -> int:
        return len(self._places)

    def add(self, thing: T) -> None:
        """Append an object."""
        self.put(len(self._places), thing)

    def put(self, number: int, thing: T) -> None:
        """Store an object under a number."""
        if number >= len(self._places):
            self._places.extend([-1] * (number + 1 - len(self._places)))
        data = pickle.dumps(thing, pickle.HIGHEST_PROTOCOL)
        self._file.seek(self._end)
        self._file.write(data)
        self._places[number], self._end = self._end, self._end + len(data)

    def __getitem__(self, number: int) -> T:
        self._file.seek(self._places[number])
        thing: T = pickle.load(self._file)
        return thing

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class Numbering:
    """Gives every row the number of its group, by the first row of each group. A row without a group is a group of its
    own.

    It takes 8 bytes per row, and about 200 per group.
    """

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self._of_rows = array("q")
        self._groups = 0
        self.together = True
        """Whether the rows of each group stand together."""

    def __len__(self) -> int:
        return len(self._of_rows)

    def add(self, key: Hashable | None) -> int:
        """Add the next row, and return the number of its group."""
        number = self._groups if key is None else self._numbers.setdefault(key, self._groups)
        self.together &= number == self._groups or (bool(self._of_rows) and self._of_rows[-1] == number)
        self._groups = max(self._groups, number + 1)
        self._of_rows.append(number)
        return number

    @property
    def of_rows(self) -> NDArray[np.int64]:
        """Group number of each row."""
        return np.array(self._of_rows, dtype=np.int64)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Number of rows of each group."""
        return np.bincount(self.of_rows, minlength=self._groups)

    def number(self, key: Hashable) -> int | None:
        """Return the number of a group; None if no row is in it."""
        return self._numbers.get(key)

    def key(self, number: int) -> Hashable | None:
        """Return the key of a group; None for a row without one."""
        return next((key for key, other in self._numbers.items() if other == number), None)

    def in_groups(self) -> Iterator[list[int]]:
        """Yield the row numbers of each group, in the order of the groups' first rows."""
        order = np.argsort(self.of_rows, kind="stable")
        for members in np.split(order, np.cumsum(self.sizes)[:-1]):
            yield members.tolist()


def group_key(item: Item) -> Hashable | None:
    """Return what tells an item's group from others: run, branch and group id; None without a group."""
    rollout = item.rollout
    return None if rollout is None or rollout.group_id is None else (rollout.run_id, rollout.branch, rollout.group_id)


def score_by_group(scorer: Scorer, items: Iterable[Item]) -> Iterator[Score]:
    """Yield a score for each item, in order, of a verifier that takes groups: by id, wherever their members stand.

    All items are read, into a temporary file if they are many, before the first is scored.
    """
    numbering = Numbering()
    with Spool[Item]() as held, Spool[Score]() as scores:
        for item in items:
            numbering.add(group_key(item))
            held.add(item)
        rows = (row for members in numbering.in_groups() for row in members)
        units = ([held[row] for row in members] for members in numbering.in_groups())
        for row, score in zip(rows, scorer.score_groups(units), strict=True):
            scores.put(row, score)
        yield from (scores[row] for row in range(len(scores)))
