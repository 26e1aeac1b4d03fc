"""One run of the stack: from an empty folder, or one that a killed run left, to an orderly stop."""

import asyncio
import shlex
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from deploy.stack import services
from deploy.stack.components import with_code
from deploy.stack.errors import StackError
from deploy.stack.folder import Folder, is_free, write_private
from deploy.stack.left_overs import end_left_overs
from deploy.stack.supervisor import Component, Say, Supervisor

Environ = Mapping[str, str]

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Stack:
    """What to run in a data folder.

    The servers come up first, together. Then `migrate` runs to its end and `bootstrap` makes what a first request needs
    and returns an API key; it is given that key as `CARINA_API_KEY` the next time. Then `components` come up, together.
    """

    folder: Folder
    #: Settings for Carina's processes, and which servers not to start.
    environ: Environ
    migrate: Callable[[Environ], Component]
    bootstrap: Callable[[Environ], str]
    components: Callable[[Environ], Sequence[Component]]
    say: Say

    async def run(self) -> None:
        """Run until SIGINT, SIGTERM or SIGHUP; a second one kills what does not stop. Needs the main thread.

        Raises `StackInUse`, `ComponentFailed` or another `StackError`; nothing is left running then.
        """
        begun = time.monotonic()
        self.folder.make()
        told = asyncio.Event()
        _on_stop_signals(told.set)
        with self.folder.hold():
            was_killed = end_left_overs(self.folder, self.say)
            # The file says that everything answers, so it must not outlive that from an earlier run.
            self.folder.env_file.unlink(missing_ok=True)
            supervisor = Supervisor(self.folder, self.say)
            life = asyncio.create_task(self._live(supervisor, was_killed, begun))
            stopped = asyncio.create_task(told.wait())
            try:
                await asyncio.wait([life, stopped], return_when=asyncio.FIRST_COMPLETED)
                if life.done():
                    life.result()
            finally:
                self.say("stopping")
                _on_stop_signals(supervisor.hurry)
                life.cancel()
                stopped.cancel()
                with suppress(asyncio.CancelledError, StackError):
                    await life
                await supervisor.stop()

    async def _live(self, supervisor: Supervisor, was_killed: bool, begun: float) -> None:
        servers = services.plan(self.folder, self.environ, self.say, was_killed)
        port = self._api_port()
        theirs = (server.wait(self.say) for server in servers.theirs)
        await asyncio.gather(supervisor.start(*servers.ours), *theirs)

        own = {"CARINA_API_HOST": "127.0.0.1", "CARINA_API_PORT": str(port), "CARINA_API_KEY": ""}
        env = with_code({**self.environ, **servers.settings, **own})
        env["CARINA_API_KEY"] = self.folder.recall("api_key") or ""
        await supervisor.run_once(self.migrate(env))
        key = await asyncio.to_thread(self.bootstrap, env)
        self.folder.remember("api_key", key)
        await supervisor.start(*self.components(env))

        url = f"http://127.0.0.1:{port}"
        settings = {"CARINA_API_URL": url, "CARINA_API_KEY": key, **servers.settings}
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in settings.items()]
        write_private(self.folder.env_file, "".join(lines))
        took_s = time.monotonic() - begun
        self.say(f"all ready in {took_s:.1f} s: {url} (settings in {self.folder.env_file}, Ctrl-C stops)")
        await supervisor.watch()

    def _api_port(self) -> int:
        if not (given := self.environ.get("CARINA_API_PORT")):
            return self.folder.port("api", self.say)
        if not given.isdecimal() or not is_free(int(given)):
            raise StackError(f"CARINA_API_PORT is {given}, which is no free port.")
        return int(given)


def _on_stop_signals(do: Callable[[], None]) -> None:
    for number in _STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, do)
