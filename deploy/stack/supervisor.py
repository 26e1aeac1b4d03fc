"""Starts processes together, restarts them with growing pauses, and stops them in reverse order."""

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime

from deploy.stack import crashes, processes, state
from deploy.stack.component import Component, Say
from deploy.stack.errors import ComponentFailed, StackError
from deploy.stack.folder import Folder
from deploy.stack.logs import DEFAULT_LIMITS, Limits, Log
from deploy.stack.state import Entry, State

PROBE_INTERVAL_S = 0.05
FIRST_PAUSE_S, MAX_PAUSE_S = 0.5, 30.0
#: After this uptime, a component restarts with the shortest pause.
HEALTHY_S = 60.0
#: Number of attempts to start for the first time; later restarts are not limited.
FIRST_TRIES = 3
_TIDY_INTERVAL_S = 30.0


@dataclass
class _Kept:
    """A component over all restarts of its process."""

    component: Component
    log: Log
    process: subprocess.Popen[bytes] | None = None
    started: str = ""
    #: Set in the event loop as soon as the process has ended and is reaped.
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    state: State = State.STARTING
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    restarts: int = 0
    keeper: asyncio.Task[None] | None = None
    #: Set when it has answered for the first time.
    came_up: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def runs(self) -> bool:
        return self.process is not None and not self.ended.is_set()

    def entry(self) -> Entry:
        pid = self.process.pid if self.process and self.runs else None
        since = self.since.isoformat(timespec="milliseconds")
        return Entry(self.component.name, pid, self.state, since, self.restarts, self.started)


class Supervisor:
    """Keeps components alive. Everything happens in one event loop, which must run in the main thread.

    The kernel signals the children when the *thread* that started them ends; therefore the main thread.
    """

    def __init__(self, folder: Folder, say: Say, limits: Limits = DEFAULT_LIMITS) -> None:
        self._folder = folder
        self._limits = limits
        self._own_log = self._log(state.SUPERVISOR)
        self._print = say
        self._stages: list[list[_Kept]] = []
        self._hurry = asyncio.Event()
        self._is_up = False
        self._self = processes.find(os.getpid())
        self._since = datetime.now(UTC).isoformat(timespec="milliseconds")
        processes.adopt_orphans()
        self._write_state()

    def start(self, *components: Component) -> Coroutine[None, None, None]:
        """Start components together, as a stage that stops before those of earlier calls.

        The returned coroutine ends as soon as all of them answer. It raises `ComponentFailed`, with the end of the log,
        for the first component that does not start.
        """
        stage = [_Kept(component, self._log(component.name)) for component in components]
        self._stages.append(stage)
        for kept in stage:
            kept.keeper = asyncio.create_task(self._keep(kept))
        return together(*(self._first_answer(kept) for kept in stage))

    async def run_once(self, component: Component) -> None:
        """Run a component until it exits.

        Raises `ComponentFailed`, with the end of its log, if its exit code is not 0.
        """
        kept = _Kept(component, self._log(component.name))
        self._stages.append([kept])
        begun = time.monotonic()
        await self._spawn(kept)
        await kept.ended.wait()
        self._stages.remove([kept])
        self._write_state()
        if _code(kept) != 0:
            raise self._failure(kept, f"failed ({_end_of(kept)})")
        self._tell(kept, f"done    {time.monotonic() - begun:.1f} s")

    async def watch(self) -> None:
        """Limit the logs and reap adopted zombies, forever. Restarts happen independently."""
        self._is_up = True
        while True:
            await asyncio.sleep(_TIDY_INTERVAL_S)
            self._own_log.bound()
            for kept in self._all():
                kept.log.bound()
                if kept.keeper and kept.keeper.done():  # it ends only by an internal error
                    kept.keeper.result()
            for child in processes.children():
                if not child.runs and child.pid not in self._pids():
                    processes.reap(child)

    async def stop(self) -> None:
        """Stop all stages, the last one first; then end the remaining descendants."""
        self._is_up = False
        for stage in reversed(self._stages):
            await asyncio.gather(*(self._halt(kept) for kept in stage))
        _end_orphans(lambda child: True)
        state.forget(self._folder)

    def hurry(self) -> None:
        """Stop waiting for components to exit by themselves."""
        self._hurry.set()

    async def _keep(self, kept: _Kept) -> None:
        pause_s, tries, patience_s = FIRST_PAUSE_S, 0, kept.component.ready_timeout_s
        while True:
            tries += 1
            begun = started_at = time.monotonic()
            try:
                await self._spawn(kept)
                answered = await self._until_ready(kept, patience_s)
            except (OSError, StackError) as exc:
                answered, reason = False, str(exc)
            else:
                reason = _end_of(kept) if not kept.runs else f"no answer in {patience_s:.0f} s"
                # On an overloaded machine every start takes longer, and killing a slow one wastes its work.
                patience_s = 2 * patience_s if kept.runs and not answered else kept.component.ready_timeout_s
            if answered:
                self._enter(kept, State.READY)
                self._tell(kept, f"ready   {kept.component.address:<16} {time.monotonic() - begun:.1f} s")
                kept.came_up.set()
                begun = time.monotonic()
                await kept.ended.wait()
                reason = _end_of(kept)
                if time.monotonic() - begun > HEALTHY_S:
                    pause_s = FIRST_PAUSE_S
            elif not kept.came_up.is_set() and (kept.runs or tries == FIRST_TRIES):
                raise self._failure(kept, f"does not come up ({reason})")
            await self._clear_away(kept)
            self._record_crash(kept, reason, started_at)
            threading.Thread(target=kept.component.after_death, daemon=True).start()
            self._enter(kept, State.BACKOFF)
            self._tell(kept, f"died ({reason}); starting it again in {pause_s:g} s, see {kept.log.path}")
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, MAX_PAUSE_S)
            kept.restarts += 1

    async def _spawn(self, kept: _Kept) -> None:
        component = kept.component
        kept.log.bound()
        kept.log.mark()
        self._enter(kept, State.STARTING)
        await _to_its_end(component.before_start)
        uid, gid = component.run_as or (None, None)
        name, _, value = self._folder.mark.partition("=")
        with kept.log.open() as log:
            process = subprocess.Popen(
                component.argv,
                env={**component.env, name: value},
                cwd=component.cwd,
                user=uid,
                group=gid,
                extra_groups=None if uid is None else [],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Its own session: Ctrl-C in the terminal reaches only this process, which stops the children in order.
                start_new_session=True,
                preexec_fn=processes.die_with_parent(component.stop_signal),
            )
        kept.process, kept.ended = process, asyncio.Event()
        # Cannot be reaped yet, even if it has ended, because only the thread below does that.
        kept.started = found.started if (found := processes.find(process.pid)) else ""
        loop, ended = asyncio.get_running_loop(), kept.ended

        def wait() -> None:
            process.wait()
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=wait, name=f"wait-{component.name}", daemon=True).start()
        self._write_state()

    async def _until_ready(self, kept: _Kept, patience_s: float) -> bool:
        deadline = time.monotonic() + patience_s
        while kept.runs and time.monotonic() < deadline:
            if await kept.component.is_ready() and kept.runs:
                return True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(kept.ended.wait(), PROBE_INTERVAL_S)
        return False

    async def _halt(self, kept: _Kept) -> None:
        if kept.keeper:
            kept.keeper.cancel()
            await asyncio.wait([kept.keeper])
        if kept.process and kept.runs:
            self._enter(kept, State.STOPPING)
            begun = time.monotonic()
            kept.process.send_signal(kept.component.stop_signal)
            if not await self._ends_within(kept, kept.component.stop_timeout_s):
                self._tell(kept, "does not stop: killing it")
            await self._clear_away(kept)
            self._tell(kept, f"stopped {time.monotonic() - begun:.1f} s")

    async def _ends_within(self, kept: _Kept, timeout_s: float) -> bool:
        waits = [asyncio.create_task(event.wait()) for event in (kept.ended, self._hurry)]
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        return not kept.runs

    async def _clear_away(self, kept: _Kept) -> None:
        """Kill the remaining process, its group and, when the stack is up, all orphans."""
        if kept.process:
            kept.process.kill()
            await kept.ended.wait()
            known, group = self._pids(), kept.process.pid
            _end_orphans(lambda child: child.pid not in known and (self._is_up or child.group == group))

    def _record_crash(self, kept: _Kept, reason: str, started_at: float) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        crash = crashes.Crash(kept.component.name, now, reason, round(time.monotonic() - started_at, 1))
        crashes.record(self._folder, crash)

    async def _first_answer(self, kept: _Kept) -> None:
        assert kept.keeper
        answer = asyncio.create_task(kept.came_up.wait())
        await asyncio.wait([answer, kept.keeper], return_when=asyncio.FIRST_COMPLETED)
        answer.cancel()
        if kept.keeper.done():
            kept.keeper.result()

    def _failure(self, kept: _Kept, what: str) -> ComponentFailed:
        component = kept.component
        lines = "".join(f"\n    {line}" for line in kept.log.tail())
        hint = f"\n{component.hint}" if component.hint else ""
        return ComponentFailed(f"{component.name} {what}. The end of {kept.log.path}:{lines}{hint}")

    def _enter(self, kept: _Kept, to: State) -> None:
        kept.state, kept.since = to, datetime.now(UTC)
        self._write_state()

    def _write_state(self) -> None:
        assert self._self
        own = Entry(state.SUPERVISOR, self._self.pid, State.READY, self._since, 0, self._self.started)
        state.write(self._folder, [own, *(kept.entry() for kept in self._all())])

    def _all(self) -> list[_Kept]:
        return [kept for stage in self._stages for kept in stage]

    def _pids(self) -> set[int]:
        return {kept.process.pid for kept in self._all() if kept.process}

    def say(self, line: str) -> None:
        """Print a line, and write it to the supervisor's log."""
        self._print(line)
        self._own_log.say(line)

    def _tell(self, kept: _Kept, what: str) -> None:
        self.say(f"{kept.component.name:<10} {what}")

    def _log(self, name: str) -> Log:
        return Log(self._folder.log / f"{name}.log", self._limits)


async def together(*tasks: Coroutine[None, None, None]) -> None:
    """Return when all tasks have ended. If one fails, the others are cancelled and its error is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for task in tasks:
                group.create_task(task)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def _to_its_end(work: Callable[[], None]) -> None:
    """Run in a thread. If cancelled, wait for the thread first, so that its work is not left incomplete."""
    task = asyncio.create_task(asyncio.to_thread(work))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _code(kept: _Kept) -> int:
    assert kept.process
    return kept.process.wait()


def _end_of(kept: _Kept) -> str:
    code = _code(kept)
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _end_orphans(belongs: Callable[[processes.Process], bool]) -> None:
    """Kill these children. Their own children are then adopted, so repeat until there are none."""
    while orphans := [child for child in processes.children() if belongs(child)]:
        processes.end(orphans, [(signal.SIGKILL, 5)])
        for orphan in orphans:
            processes.reap(orphan)
