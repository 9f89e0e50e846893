"""Stop conditions of a run: the chat template's end of turn, `sampling.stop`, and those of the data set's card.

A sampler also stops at the end-of-text ids of the model and its tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from rlvr.errors import ConfigError
from rlvr.record.schema import Stop

if TYPE_CHECKING:
    from rlvr.run.models import Tokenizer

_ANSWER = "rlvr-end-of-turn"
"""Assistant message to render. The template's text after it ends the turn."""


def uses_chat_template(tokenizer: Tokenizer, chat: Literal["auto"] | bool) -> bool:
    """Return True if prompts are messages that go through the chat template (`model.chat`).

    Raises ConfigError if it is on and the tokenizer has no template.
    """
    has_template = tokenizer.chat_template is not None
    if chat is True and not has_template:
        raise ConfigError("model.chat is on, and the model's tokenizer has no chat template; a base model takes text")
    return has_template if chat == "auto" else chat


def end_of_turn(tokenizer: Tokenizer, template_kwargs: Mapping[str, Any]) -> int | None:
    """Return the special token that the chat template writes after an assistant's message; None if there is none.

    A base model with a chat template (Qwen2.5) declares `<|endoftext|>` as its end, and answers end with `<|im_end|>`:
    without this token, every completion would run on to the length limit.
    """
    from jinja2 import TemplateError

    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _ANSWER}]
    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False, **template_kwargs))
    except TemplateError:  # a template for prompts only; `encode` reports one that rejects the prompts
        return None
    ids: list[int] = tokenizer(text.rpartition(_ANSWER)[2], add_special_tokens=False)["input_ids"]
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return ids[0] if ids and ids[0] in special else None


def stop_conditions(
    tokenizer: Tokenizer, asked: Sequence[str | int], of_dataset: Sequence[str], vocabulary: int, turn: int | None
) -> Stop:
    """Return the stops of a run's requests.

    Args:
        tokenizer: The model's. A string that is one of its special tokens becomes the token's id.
        asked: `sampling.stop`: strings and token ids.
        of_dataset: Stop strings of the data set's card, for prompts without a chat template.
        vocabulary: Number of token ids that the model has.
        turn: The chat template's `end_of_turn`; None for a base model.

    Raises ConfigError for an empty string and for an id that the model does not have.
    """
    special = {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    strings: list[str] = []
    ids = [] if turn is None else [turn]
    for stop in (*asked, *of_dataset):
        if isinstance(stop, int):
            if not 0 <= stop < vocabulary:
                raise ConfigError(f"sampling.stop: {stop} is no token id; the model has 0 to {vocabulary - 1}")
            ids.append(stop)
        elif not stop:
            raise ConfigError("sampling.stop: an empty string would end every completion before it begins")
        elif stop in special:
            ids.append(special[stop])
        else:
            strings.append(stop)
    return Stop(strings=tuple(dict.fromkeys(strings)), token_ids=tuple(sorted(set(ids))))
