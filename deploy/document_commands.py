"""Writes `docs/cli.md`, the reference of the command line, from the commands: `python -m deploy.document_commands`."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from deploy.cli import app
from deploy.cli.exits import Exit

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
#: Options of every command.
_EVERYWHERE = {"help", "as_json", "quiet", "data"}
_HEAD = """\
# The command line

`carina` speaks HTTP. It needs `CARINA_API_URL` and `CARINA_API_KEY`, and no other settings of the installation.
[Usage](usage.md) shows how to send and find studies, [training](training.md) how to train.

On the machine of a stack that `carina up` started, commands find both themselves, in the folder `.carina` or that of
`--data DIR`. A command may do what its key may do: reading needs the scope `read`; training, evaluating, schedules and
datasets need `train` and `read`; keys and the audit need `admin`; changes of models need `system`. The project is that
of the key.

Every command takes `--json` (only JSON or JSON lines on standard output), `--quiet` (only errors on standard error)
and `--help`. The unique beginning of an id stands for the id; models, datasets and schedules also have their names.

## Exit codes

| Code | Meaning |
|---|---|
{exits}

## Without an API key

These commands reach the servers behind the API themselves, with their own settings ([settings](settings.md)):

| Command | Why |
|---|---|
| `up`, `down`, `ps`, `demo` | They run a stack on this machine. |
| `api`, `dicom-listener`, `worker`, `trainer`, `beat`, `migrate`, `probe` | They are the installation. |
| `backup`, `restore` | They copy the database and the object store. |
| `fsck` | It compares the object store with the database. |
| `doctor` | It checks the servers; with the URL and the key alone it checks what a client needs. |
| `key` with `--project`, or without an API key | It makes the first key, and keys of other projects. |
| `model demo` without an API key | It gives a new installation its first model. |
| `dataset import` | It reads and renders files on this machine, and needs the extra `trainer`. |

## Commands

This section is generated: `python -m deploy.document_commands`.
"""


def page() -> str:
    """Return the text of `docs/cli.md`."""
    exits = "\n".join(f"| {code.value} | {code.meaning} |" for code in Exit)
    commands = _commands(typer.main.get_command(app), "carina")
    return _HEAD.format(exits=exits) + "".join(_describe(name, each) for name, each in commands)


def _commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield each command with its full name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _describe(name: str, command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and each.name not in _EVERYWHERE]
    usage = f"`{' '.join([name, *(_argument(each) for each in arguments)])}`\n\n" if arguments else ""
    said = f"\n### {name}\n\n{usage}{inspect.cleandoc(command.help or '')}\n"
    listed = [f"* `{_name(each)}`: {each.help}" for each in arguments if each.help]
    listed += [f"* {_option(each)}: {each.help}" for each in options]
    return said + ("\n" + "\n".join(listed) + "\n" if listed else "")


def _argument(parameter: Any) -> str:
    name = _name(parameter)
    name = f"{name}..." if parameter.nargs == -1 else name
    return name if parameter.required else f"[{name}]"


def _name(argument: Any) -> str:
    return str(argument.metavar or argument.name).upper().removesuffix("...")


def _option(parameter: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    return f"{names} (required)" if parameter.required else names


if __name__ == "__main__":
    PAGE.write_text(page())
