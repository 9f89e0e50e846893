"""Text of single tokens, by the tokenizer that lies beside a run's weights. Nothing is tokenized again.

A tokenizer counts only if it gives back the completions of the records: ids without a text are better than wrong texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rlvr.reports.sources import ReportSource
from rlvr.run.rundir import checkpoints_of


class TokenTexts:
    """Ids of a vocabulary as text."""

    def __init__(self, file: Path) -> None:
        """Read a `tokenizer.json`. Raises ValueError for a file that is none."""
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"{file}: {error}") from error
        self._anchor, self._before = self._find_anchor()
        self._known: dict[int, str] = {}

    def _find_anchor(self) -> tuple[list[int], str]:
        """Return the ids of a letter and its text: decoders drop the space before a first token, and keep it here."""
        ids: list[int] = self._tokenizer.encode("a", add_special_tokens=False).ids
        return ids, self._decoded(ids)

    def _decoded(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    def text(self, token: int) -> str:
        """Return the text of a token; a part of a character is U+FFFD."""
        if token not in self._known:
            text = self._decoded([*self._anchor, token])
            self._known[token] = text.removeprefix(self._before)
        return self._known[token]

    def gives(self, ids: Sequence[int], completion: str) -> bool:
        """Return whether the ids are the completion, apart from special tokens and spaces at its ends."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        wanted = completion.strip()
        return text.strip().startswith(wanted) or wanted in self._decoded(ids)


def tokenizer_files(source: ReportSource) -> Iterable[Path]:
    """Yield the `tokenizer.json` of a run's checkpoints, the newest first, then that of its model if it is local."""
    folders = list(reversed(checkpoints_of(source.path / "checkpoints"))) if source.is_run else []
    models = (source.settings.get(key) for key in ("model.path", "model.name"))
    folders += [Path(model) for model in models if isinstance(model, str)]
    for folder in folders:
        if (file := folder / "tokenizer.json").is_file():
            yield file


def token_texts(source: ReportSource, samples: Sequence[tuple[Sequence[int], str]]) -> TokenTexts | None:
    """Return the tokenizer of a source that gives back these completions from their ids; None if there is none."""
    if not samples:
        return None
    for file in tokenizer_files(source):
        try:
            found = TokenTexts(file)
        except ValueError:
            continue
        if all(found.gives(ids, completion) for ids, completion in samples):
            return found
    return None
