"""Base class of every command."""

from __future__ import annotations

from collections import Counter
from difflib import get_close_matches
from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from rlvr.cli.interrupts import answered
from rlvr.errors import RequestError
from rlvr.terminal import neutral_streams


class CommandGroup(TyperGroup):
    """A command with subcommands that suggests one of them if it gets a name instead of a subcommand."""

    meant = ""
    """Subcommand to suggest: the one that takes a name."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the subcommand. Raises RequestError if the first argument is not the name of one."""
        if args and not args[0].startswith("-") and not get_close_matches(args[0], self.commands):
            group = f"rlvr {self.name}"
            raise RequestError(f"there is no command {group} {args[0]}; did you mean {group} {self.meant} {args[0]}?")
        return super().resolve_command(ctx, args)


class Command(TyperCommand):
    """A command that answers Ctrl-C and prints nothing that could steer a terminal.

    It refuses an option given twice unless it takes a list: the first value would be lost.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take typer's arguments, and make help texts fit what rich does with them.

        Lines of a paragraph are joined, since rich keeps the source's line breaks. Brackets are escaped, since rich
        takes `[default: hf]` for markup and drops it.
        """
        paragraphs = (kwargs.get("help") or "").split("\n\n")
        kwargs["help"] = "\n\n".join(paragraph.replace("\n", " ") for paragraph in paragraphs)
        super().__init__(*args, **kwargs)
        for parameter in self.params:
            if isinstance(parameter, TyperOption | TyperArgument) and parameter.help:
                parameter.help = parameter.help.replace("[", r"\[")

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with answered("interrupted"), neutral_streams():
            return super().invoke(ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments. Raises RequestError for an option given twice."""
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        options = [each for each in given if isinstance(each, TyperOption)]
        single = Counter(max(each.opts, key=len) for each in options if not (each.multiple or each.is_flag))
        for option, count in single.items():
            if count > 1:
                raise RequestError(f"{option} is given {count} times: give it once")
        return super().parse_args(ctx, args)
