"""A process of the stack, described."""

import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

#: Takes a line for whoever watches the stack.
Say = Callable[[str], None]
#: Whether something answers.
Probe = Callable[[], Awaitable[bool]]


async def _at_once() -> bool:
    return True


@dataclass(frozen=True)
class Component:
    """A process of the stack, and how to start, ask and stop it."""

    name: str
    argv: tuple[str, ...]
    #: Its whole environment; nothing is inherited.
    env: Mapping[str, str]
    #: Whether it can do its work; asked every 50 ms until it says so, never after.
    is_ready: Probe = _at_once
    #: Where it listens, for the line that says it is ready.
    address: str = ""
    cwd: Path | None = None
    #: Run as this user and group id; None: as ourselves.
    run_as: tuple[int, int] | None = None
    #: Run in a thread before every start; may raise `StackError`.
    before_start: Callable[[], None] = lambda: None
    #: Also sent by the kernel when the supervisor dies.
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 30
    ready_timeout_s: float = 60
    #: What to look at when it does not come up.
    hint: str = ""
