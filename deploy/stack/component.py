"""The description of a process of the stack."""

import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

#: Prints a line for the operator of the stack.
Say = Callable[[str], None]
#: Returns whether a server or process answers.
Probe = Callable[[], Awaitable[bool]]


async def _at_once() -> bool:
    return True


@dataclass(frozen=True)
class Component:
    """A process of the stack, and how to start, check and stop it."""

    name: str
    argv: tuple[str, ...]
    #: Its complete environment; nothing is inherited.
    env: Mapping[str, str]
    #: Returns whether the process is ready; called every 50 ms until it is, not afterwards.
    is_ready: Probe = _at_once
    #: Its address, for the message that it is ready.
    address: str = ""
    cwd: Path | None = None
    #: User and group id of the process; None for those of this process.
    run_as: tuple[int, int] | None = None
    #: Called in a thread before every start; can raise `StackError`.
    before_start: Callable[[], None] = lambda: None
    #: Called in a thread after the process has ended by itself; must not raise.
    after_death: Callable[[], None] = lambda: None
    #: The kernel also sends it when the supervisor dies.
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 30
    ready_timeout_s: float = 60
    #: Advice if the process does not start.
    hint: str = ""
