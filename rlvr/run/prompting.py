"""Prompting of a run: chat template or plain text, token ids, length limit and stop conditions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

from rlvr.data.curriculum import Curriculum
from rlvr.data.prompts import PromptStream, encode
from rlvr.errors import ConfigError
from rlvr.protocols import ModelSpec, PromptSource
from rlvr.run.config import RunConfig
from rlvr.run.models import context_length, fixed_rope_length, load_configuration, vocabulary_size
from rlvr.run.stopping import end_of_turn, stop_conditions, uses_chat_template

if TYPE_CHECKING:
    from rlvr.run.models import Tokenizer


@dataclass(frozen=True)
class Prompting:
    """Prompt format of a model, and its limits."""

    config: RunConfig
    tokenizer: Tokenizer
    chat: bool
    """Whether prompts are messages that go through the chat template."""
    turn: int | None
    """The template's token at the end of a turn."""
    vocabulary: int
    longest: int
    """Limit on prompt tokens."""

    @classmethod
    def of(cls, config: RunConfig, model: ModelSpec, tokenizer: Tokenizer, notes: list[str]) -> Self:
        """Return the prompt format of the model, and add its limits to `notes`.

        Raises ConfigError for settings that contradict the model.
        """
        chat, template_kwargs = uses_chat_template(tokenizer, config.model.chat), config.model.chat_template_kwargs
        if template_kwargs and not chat:
            raise ConfigError("model.chat_template_kwargs does nothing: no chat template is used (model.chat)")
        turn = end_of_turn(tokenizer, template_kwargs) if chat else None
        vocabulary = vocabulary_size(load_configuration(model))
        return cls(config, tokenizer, chat, turn, vocabulary, _longest_prompt(config, model, notes))

    def stream(
        self,
        source: PromptSource,
        *,
        seed: int,
        limit: int | None = None,
        shuffle: bool = True,
        curriculum: Curriculum | None = None,
    ) -> PromptStream:
        """Return the prompts of a source, ready for a sampler."""
        return PromptStream(
            source,
            partial(encode, tokenizer=self.tokenizer, template_kwargs=self.config.model.chat_template_kwargs),
            seed=seed,
            max_prompt_tokens=self.longest,
            shuffle=shuffle,
            limit=limit,
            stop=stop_conditions(self.tokenizer, self.config.sampling.stop, source.stop, self.vocabulary, self.turn),
            curriculum=curriculum,
        )


def _longest_prompt(config: RunConfig, model: ModelSpec, notes: list[str]) -> int:
    """Return the limit on prompt tokens. Raises ConfigError if completions leave no room for a prompt."""
    asked, completion = config.dataset.max_prompt_tokens, config.sampling.max_tokens
    configuration = load_configuration(model)
    positions = context_length(configuration)
    if positions is None or asked + completion <= positions:
        return asked
    if fixed_rope_length(configuration) is not None:
        notes.append(
            f"the model's rotary embedding changes for all positions beyond {positions:,} tokens, where samples and "
            "training would disagree: that is the limit of prompt and completion together"
        )
    if completion >= positions:
        raise ConfigError(
            f"sampling.max_tokens {completion:,} leaves no room for a prompt: the model {config.model.name!r} has "
            f"{positions:,} positions, for the prompt and the completion together; lower it (--max-tokens)"
        )
    notes.append(
        f"prompts of more than {positions - completion:,} tokens are left out: the model has {positions:,} positions, "
        f"and sampling.max_tokens takes {completion:,}"
    )
    return positions - completion
