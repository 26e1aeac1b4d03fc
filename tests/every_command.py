"""Every command of `carina`, with something for each argument that it must have."""

import inspect
import typing
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import typer

from deploy.cli import app


def every_command(folder: Path) -> Iterator[list[str]]:
    """Yield each command with its required arguments; files are made in `folder`."""
    (folder / "file").write_bytes(b"x")
    for path, function in _walk(typer.main.get_command(app)):
        yield [*path, *_arguments(function, folder)]


def _walk(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Callable[..., object]]]:
    for name, part in getattr(command, "commands", {}).items():
        yield from _walk(part, (*path, name))
    if not hasattr(command, "commands"):
        yield path, command.callback


def _arguments(function: Callable[..., object], folder: Path) -> Iterator[str]:
    hints = typing.get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is parameter.empty:
            kind, meta = hints[name], None
            if typing.get_origin(kind) is typing.Annotated:
                kind, meta = typing.get_args(kind)[:2]
            if typing.get_origin(kind) is list:
                kind = typing.get_args(kind)[0]
            if isinstance(meta, typer.models.OptionInfo):
                yield (meta.param_decls or (f"--{name.replace('_', '-')}",))[0]
            yield _value(kind, meta, folder)


def _value(kind: type, meta: typer.models.ParameterInfo | None, folder: Path) -> str:
    if kind is UUID:
        return str(UUID(int=1))
    if kind is Path:
        return str(folder if meta is not None and not meta.file_okay else folder / "file")
    if issubclass(kind, Enum):
        return str(next(iter(kind)).value)
    return "1" if kind in (int, float) else "name"
