"""The exit codes of `carina`: the one list that the help text and the documentation are made from."""

from enum import IntEnum

from shared.processes.scratch import EXIT_NO_SCRATCH


class Exit(IntEnum):
    """What an exit code means, in words for the help text."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> "Exit":
        """Make a code that knows its meaning."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    DONE = 0, "done"
    FAILED = 1, "failed; one line says why"
    USAGE = 2, "wrong command line or setting; also an unknown name or code"
    NO_RESULT = 3, "no result: rejected, failed, cancelled or not finished in time"
    UNREACHABLE = 4, "a server cannot be reached"
    NO_SCRATCH = EXIT_NO_SCRATCH, "no writable folder for temporary files; set TMPDIR"
    INTERRUPTED = 130, "interrupted"


def explain_exits() -> str:
    """Return all codes with their meanings, as one sentence."""
    return "Exit codes: " + "; ".join(f"{code.value} {code.meaning.partition(';')[0]}" for code in Exit) + "."
