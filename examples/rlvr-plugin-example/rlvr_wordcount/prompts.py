"""Prompts that ask for a number of words on a topic."""

from __future__ import annotations

from rlvr.errors import ConfigError
from rlvr.protocols import Prompt, PromptSource, SourceRequest
from rlvr.schema import Message, Task

# Training never sees the topics that it is evaluated on.
TOPICS = {
    "train": ("rain", "bread", "trains", "the sea", "chess", "winter", "maps", "bees", "clocks", "rivers"),
    "eval": ("gardens", "the moon", "bridges"),
}


class WordCount(PromptSource):
    """Prompts for every topic of the split and every number of words up to the option `max_words` (8 by default)."""

    def __init__(self, request: SourceRequest) -> None:
        """Raise ConfigError if an option is unknown or wrong."""
        unknown = sorted(set(request.options) - {"max_words"})
        if unknown:
            raise ConfigError(f"dataset 'word-count' has no option {unknown[0]!r}; it takes 'max_words'")
        most = request.options.get("max_words", 8)
        if not isinstance(most, int) or most < 1:
            raise ConfigError(f"dataset 'word-count': max_words is {most!r}, expected a whole number above 0")
        self._most = most
        self._split = request.split
        self._chat = request.chat

    @property
    def size(self) -> int:
        """Number of prompts: topics times numbers of words."""
        return len(TOPICS[self._split]) * self._most

    def __getitem__(self, index: int, /) -> Prompt:
        """Return prompt `index`. The run shuffles; here the order is plain."""
        if not 0 <= index < self.size:
            raise IndexError(f"dataset 'word-count' has {self.size} prompts, asked for number {index}")
        topic = TOPICS[self._split][index // self._most]
        words = index % self._most + 1
        text = f"Write exactly {words} {'word' if words == 1 else 'words'} about {topic}."
        task = Task(dataset="word-count", row_id=f"{topic}/{words}", split=self._split, answer=str(words))
        if self._chat:
            return Prompt(task, messages=(Message(role="user", content=text),))
        return Prompt(task, text=f"{text}\n")
