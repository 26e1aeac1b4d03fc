"""What all commands have: `--json`, `--quiet`, and a suggestion for a word that is not one of an option's."""

import inspect
import re
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup

from deploy.cli import console
from shared.suggestions import did_you_mean

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = {
    "as_json": Annotated[bool, typer.Option("--json", help="Print JSON on standard output, and nothing else.")],
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="Print errors on standard error, and nothing else.")],
}
#: As Typer words it.
_NOT_ONE_OF = re.compile(r"'(?P<word>.*)' is not one of (?P<words>'.*')\.?")


class Application(typer.Typer):
    """A set of commands, each of which has the options of all."""

    def command(self, *args: Any, **options: Any) -> Callable[[Command], Command]:
        """Register a command."""
        register = super().command(*args, **options)

        def add(command: Command) -> Command:
            register(_with_options(command))
            return command

        return add


class Group(TyperGroup):
    """The root of all commands."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; a word that is not one of an option's gets a suggestion."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as exc:
            exc.message = exc.message.removeprefix("Value error, ")
            if found := _NOT_ONE_OF.fullmatch(exc.message):
                exc.message += did_you_mean(found["word"], re.findall("'([^']*)'", found["words"]))
            raise


def _with_options(command: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(command)
    def run(*args: Any, as_json: bool, quiet: bool, **kwargs: Any) -> Any:
        console.ask(as_json=as_json, quiet=quiet)
        return command(*args, **kwargs)

    signature = inspect.signature(command)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in _OPTIONS.items()
    ]
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added])  # type: ignore[attr-defined]
    run.__annotations__ = {**command.__annotations__, **_OPTIONS}
    return run
