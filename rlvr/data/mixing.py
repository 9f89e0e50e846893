"""Several prompt data sets as one, with weights."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from rlvr.draws import permuted
from rlvr.errors import ConfigError
from rlvr.protocols import Prompt, PromptSource


@dataclass(frozen=True)
class MixedDataset:
    """A data set of a mixture."""

    name: str
    weight: float
    source: PromptSource


def parse_member(text: str) -> tuple[str, float]:
    """Return the name and the weight of `NAME:WEIGHT`; without a weight it is 1. Raises ConfigError if it is not above
    0."""
    name, colon, weight = text.rpartition(":")
    try:
        value = float(weight) if colon else 1.0
    except ValueError:  # a colon of the name itself
        name, value = text, 1.0
    if not 0 < value < float("inf"):
        raise ConfigError(f"dataset {text}: the weight must be a number above 0")
    return (name if colon and name else text), value


class MixedSource(PromptSource):
    """An endless source that takes prompts from several, so that any stretch of it has them in proportion.

    Prompt i belongs to the data set that is furthest behind its weight, and is that data set's next question in a
    seeded order of its own, epoch after epoch. So i alone says which prompt it is, and a resume needs a position only.
    """

    def __init__(self, members: Sequence[MixedDataset], *, seed: int, limit: int | None = None) -> None:
        """Use the first `limit` questions of each data set.

        Raises ConfigError if the data sets need different verifiers or stop strings by default.
        """
        total = sum(member.weight for member in members)
        self._members, self._seed, self._limit = members, seed, limit
        self._shares = [member.weight / total for member in members]
        self._chosen = array("H")
        """Number of the data set of each prompt so far."""
        self._place = array("Q")
        """Number of the prompt among those of its data set."""
        self._counts = [0] * len(members)
        self.without_gold = sum(member.source.without_gold for member in members)
        verifiers = {member.source.default_verifier for member in members}
        self.default_verifier = verifiers.pop() if len(verifiers) == 1 else None
        self.verifiers_differ = bool(verifiers)
        """True if each data set has a verifier of its own, so that the run must name one."""
        stops = {member.source.stop for member in members}
        if len(stops) > 1:
            raise ConfigError(
                "the data sets of the mixture end completions at different strings: name them for all with "
                "--set 'dataset.options.stop=[\"…\"]'"
            )
        self.stop = stops.pop()

    @property
    def size(self) -> None:
        """A mixture has no end: its data sets end at different positions."""
        return None

    def digests(self) -> Mapping[str, str]:
        """Return the hashes of every data set."""
        return {key: value for member in self._members for key, value in member.source.digests().items()}

    def __getitem__(self, index: int, /) -> Prompt:
        """Return prompt `index`."""
        while len(self._chosen) <= index:
            self._choose()
        number, place = self._chosen[index], self._place[index]
        source, size = self._members[number].source, self._size(number)
        if size is None:
            return source[place]
        epoch, position = divmod(place, size)
        return source[permuted(size, position, self._seed, "mixture", number, epoch)]

    def question(self, index: int) -> str:
        """Return the question of prompt `index`."""
        return self[index].asked

    def questions(self) -> Iterator[str]:
        """Yield the questions of every data set that has an end."""
        return chain.from_iterable(islice(member.source.questions(), self._limit) for member in self._members)

    def _size(self, number: int) -> int | None:
        size = self._members[number].source.size
        return size if self._limit is None else min(self._limit, size or self._limit)

    def _choose(self) -> None:
        """Choose the data set of the next prompt."""
        done = len(self._chosen) + 1
        behind = [share * done - count for share, count in zip(self._shares, self._counts, strict=True)]
        number = behind.index(max(behind))
        self._chosen.append(number)
        self._place.append(self._counts[number])
        self._counts[number] += 1
