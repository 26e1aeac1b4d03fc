"""Prints an error that ends a command as one line with a hint, and returns its exit code."""

import contextlib
import errno
import os
import re
import sys
import traceback
from dataclasses import dataclass

from pydantic import ValidationError

from deploy.cli.console import complain, explain
from deploy.cli.environment import NoStack
from deploy.cli.exits import Exit
from deploy.cli.extras import explain_missing
from shared.errors import CarinaError, InvalidSettings, Place, TransientError, plain_code
from shared.processes.scratch import ScratchUnwritable, new_text_file

_DOCTOR = "`carina doctor` checks every server."
_UNSET = "Start a stack here with `carina up`, name the folder of one with --data DIR, or set what is missing."
#: Codes of what is wrong on the command line: a name that does not exist or is ambiguous, a malformed value.
_WRONG_NAME = re.compile(r"unknown_(?!error)|ambiguous_name|invalid_rate_limit")
_WRONG = "Correct this, or unset it to have the default."
_INVALID = plain_code("invalid_value", "A value of the command line is not valid.", Place.COMMAND_LINE)
_EXTRA_MISSING = plain_code("extra_missing", "A part of the package is not installed.", Place.COMMAND_LINE)
_FILE_ERROR = plain_code("file_error", "The operating system refused to read or write a file.", Place.COMMAND_LINE)


@dataclass(frozen=True)
class Failure:
    """The message, exit code and hint of an error."""

    message: str
    exit: Exit = Exit.FAILED
    hint: str | None = None


def report(error: BaseException) -> Exit:
    """Print an error as one line, with a hint, and return the code to exit with."""
    if isinstance(error, KeyboardInterrupt):
        return Exit.INTERRUPTED
    if isinstance(error, BrokenPipeError):  # the reader, as `head`, has all that it wants
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - Python flushes it once more at its end
        return Exit.FAILED
    failure = _explain(error)
    # Standard error may be closed, or on the disk that is full.
    with contextlib.suppress(OSError):
        complain(failure.message, hint=failure.hint)
    return failure.exit


def _explain(error: BaseException) -> Failure:
    match error:
        case NoStack():
            return Failure(f"{error.code}: {error.detail}", Exit.USAGE, error.hint)
        case InvalidSettings():
            is_unset = " not set" in error.detail
            return Failure(f"{error.code}: {error.detail}", Exit.USAGE, _UNSET if is_unset else _WRONG)
        case TransientError():
            return Failure(f"{error.code}: {error.detail}", Exit.UNREACHABLE, _DOCTOR)
        case ScratchUnwritable():
            return Failure(f"{error.code}: {error.detail}", Exit.NO_SCRATCH)
        case CarinaError():
            return Failure(
                f"{error.code}: {error.detail}", Exit.USAGE if _WRONG_NAME.match(error.code) else Exit.FAILED
            )
        case ValidationError():
            return Failure(f"{_INVALID}: {explain(error)}.", Exit.USAGE)
        case UnicodeEncodeError():
            return Failure(f"{_INVALID}: A value is not text in Unicode.", Exit.USAGE)
        case ModuleNotFoundError():
            message, install = explain_missing(error.name or "")
            return Failure(f"{_EXTRA_MISSING}: {message}", hint=install)
        case OSError():
            return Failure(f"{_FILE_ERROR}: {_of_the_system(error)}", hint=_HINTS.get(error.errno or 0))
        case _:
            where = _write_report(error)
            hint = f"Please report this as a defect. {where} says where it happened." if where else None
            return Failure(f"{CarinaError.code}: An unexpected error occurred ({_words(error)}).", hint=hint)


_HINTS = {
    errno.ENOSPC: "Free some space on that disk.",
    errno.EDQUOT: "Free some of your quota on that disk.",
    errno.EROFS: "Choose a folder on a disk that can be written to.",
    errno.EACCES: "Choose another place, or give this user access.",
    errno.EMFILE: "Raise the limit of open files: `ulimit -n`.",
}


def _of_the_system(error: OSError) -> str:
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    of = f"{' and '.join(names)}: " if names else ""
    return f"{of}{error.strerror or _words(error)}."


def _words(error: BaseException) -> str:
    first = str(error).strip().partition("\n")[0]
    return first or type(error).__name__


def _write_report(error: BaseException) -> str | None:
    """Write the traceback of an unexpected error to a file that only the user can read, and return its path."""
    try:
        return str(new_text_file("carina-error-", "".join(traceback.format_exception(error))))
    except OSError:
        return None
