"""The parts that all commands share: `--json`, `--quiet`, suggestions, and loading each command on first use."""

import inspect
import re
from collections import UserDict
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from importlib import import_module
from typing import Annotated, Any, ClassVar, TypeVar

import typer
from typer.core import TyperGroup

from deploy.cli import console
from deploy.cli.extras import explain_missing
from shared.suggestions import did_you_mean

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = {
    "as_json": Annotated[bool, typer.Option("--json", help="Print JSON on standard output, and nothing else.")],
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="Print errors on standard error, and nothing else.")],
}
_TAKES_ANYTHING = {"context_settings": {"allow_extra_args": True, "ignore_unknown_options": True}}
#: As Typer words it.
_NOT_ONE_OF = re.compile(r"'(?P<word>.*)' is not one of (?P<words>'.*')\.?")


@dataclass(frozen=True)
class Part:
    """A command or a group of commands that is loaded when it is used.

    So a command needs no package and no time but its own. `place` is the `module:attribute` of a function or of an
    `Application`, `panel` the heading in the help.
    """

    place: str
    panel: str | None = None

    def load(self, name: str) -> Any:
        """Return the command; if a package is missing, a command that reports it."""
        module, _, attribute = self.place.partition(":")
        try:
            found = getattr(import_module(module), attribute)
        except ModuleNotFoundError as exc:
            found, options = _unavailable(exc), _TAKES_ANYTHING | {"help": " ".join(explain_missing(exc.name or ""))}
        else:
            options = getattr(found, "options", {})
        if isinstance(found, Application):
            command: Any = typer.main.get_group(found)
            command.name, command.rich_help_panel = name, self.panel
            return command
        alone = Application(add_completion=False)
        alone.command(name, rich_help_panel=self.panel, **options)(found)
        return typer.main.get_command(alone)


class Application(typer.Typer):
    """A set of commands, each of which has the options of all."""

    def __init__(self, **options: Any) -> None:
        #: Commands by name, beside those that are registered.
        self.parts: dict[str, Part] = {}
        super().__init__(cls=type("Group", (Group,), {"parts": self.parts}), **options)

    def command(self, *args: Any, **options: Any) -> Callable[[Command], Command]:
        """Register a command."""
        register = super().command(*args, **options)

        def add(command: Command) -> Command:
            register(_with_options(command))
            return command

        return add


class Commands(UserDict[str, Any]):
    """The commands of a group by name; a part is loaded when it is used."""

    def __getitem__(self, name: str) -> Any:
        """Return a command."""
        found = super().__getitem__(name)
        if isinstance(found, Part):
            found = self.data[name] = found.load(name)
        return found


class Group(TyperGroup):
    """A group of commands, as the command line runs it."""

    parts: ClassVar[dict[str, Part]]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = Commands({**self.parts, **self.commands})

    def list_commands(self, _: Any) -> list[str]:
        """Return the names of the commands, without loading these."""
        return list(self.commands)

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
    """Add the options of all commands. A parameter whose type is a dataclass stands for its fields, each an option."""
    given = inspect.signature(command).parameters.values()
    bundles: dict[str, Any] = {each.name: each.annotation for each in given if is_dataclass(each.annotation)}

    @wraps(command)
    def run(*args: Any, as_json: bool, quiet: bool, **kwargs: Any) -> Any:
        console.ask(as_json=as_json, quiet=quiet)
        for name, kind in bundles.items():
            kwargs[name] = kind(**{field.name: kwargs.pop(field.name) for field in fields(kind)})
        return command(*args, **kwargs)

    parameters = [each for each in given if each.name not in bundles]
    parameters += [_option(each.name, each.type, each.default) for kind in bundles.values() for each in fields(kind)]
    parameters += [_option(name, kind, False) for name, kind in _OPTIONS.items()]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def _option(name: str, kind: Any, default: object) -> inspect.Parameter:
    default = inspect.Parameter.empty if default is MISSING else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _unavailable(missing: ModuleNotFoundError) -> Callable[[], None]:
    def run() -> None:
        raise missing

    return run
