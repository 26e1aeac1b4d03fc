"""One run of the stack: from an empty folder, or the folder of a killed run, to an orderly stop."""

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass

from deploy.stack import env_file, services
from deploy.stack.component import Component, Say
from deploy.stack.components import with_code
from deploy.stack.errors import StackError
from deploy.stack.folder import Folder, is_free
from deploy.stack.gated import GATE
from deploy.stack.left_overs import end_left_overs
from deploy.stack.logs import Limits
from deploy.stack.supervisor import Supervisor, together
from shared.errors import InvalidSettings
from shared.network.addresses import bare_host, check_public_url, join_host_port, reachable_host
from shared.settings import LogFileSettings, Settings

Environ = Mapping[str, str]

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Application:
    """The processes that use the servers; each function receives the environment with their addresses."""

    #: Runs until it exits; waits for the file in `CARINA_STACK_GATE`, which is created as soon as the servers answer.
    migrate: Callable[[Environ], Component]
    #: Prepares the system for its first request and returns an API key, which later starts pass as `CARINA_API_KEY`.
    bootstrap: Callable[[Environ], str]
    #: Start together at the beginning, and wait for a second file, which is created after `migrate` and `bootstrap`.
    components: Callable[[Environ], Sequence[Component]]


@dataclass(frozen=True)
class Stack:
    """The processes to run in a data folder."""

    folder: Folder
    #: Settings of the application, and of external servers.
    environ: Environ
    #: None to run only the servers.
    application: Application | None
    #: Must not raise; an exception ends the stack.
    say: Say

    async def run(self) -> None:
        """Run until SIGINT, SIGTERM or SIGHUP; a second signal kills processes that do not stop. Needs the main thread.

        Raises `StackInUse`, `ComponentFailed` or another `StackError`; no process is left running then.
        """
        begun = time.monotonic()
        told = asyncio.Event()
        _on_stop_signals(told.set)
        self.folder.make()
        with self.folder.hold():
            was_killed = end_left_overs(self.folder, self.say)
            self.folder.clear_temporary()
            # The file means that everything answers, so the file of an earlier run is deleted.
            self.folder.env_file.unlink(missing_ok=True)
            supervisor = Supervisor(self.folder, self.say, self._log_limits())
            life = asyncio.create_task(self._live(supervisor, was_killed, begun))
            stopped = asyncio.create_task(told.wait())
            try:
                await asyncio.wait([life, stopped], return_when=asyncio.FIRST_COMPLETED)
                if life.done():
                    life.result()
            finally:
                _on_stop_signals(supervisor.hurry)
                supervisor.say("stopping")
                life.cancel()
                stopped.cancel()
                await asyncio.wait([life, stopped])
                await supervisor.stop()

    async def _live(self, supervisor: Supervisor, was_killed: bool, begun: float) -> None:
        servers = services.plan(self.folder, self.environ, self.say, was_killed)
        settings = dict(servers.settings)
        if self.application:
            settings |= await self._serve(supervisor, servers, self.application)
        else:
            await self._answers(supervisor, servers)
        env_file.write(self.folder.env_file, settings)
        told = settings.get("CARINA_PUBLIC_URL") or settings.get("CARINA_API_URL")
        where = f", console at {told}/console/" if told else ""
        took_s = time.monotonic() - begun
        supervisor.say(f"ready in {took_s:.1f} s{where}; settings are in {self.folder.env_file}; Ctrl-C stops")
        await supervisor.watch()

    def _answers(self, supervisor: Supervisor, servers: services.Services) -> Coroutine[None, None, None]:
        """Start the stack's servers. The returned coroutine ends as soon as these and the external ones answer."""
        return together(supervisor.start(*servers.ours), *(server.wait(self.say) for server in servers.theirs))

    async def _serve(
        self, supervisor: Supervisor, servers: services.Services, application: Application
    ) -> dict[str, str]:
        """Start the application at the same time as the servers, and return how to reach it."""
        host, public_url = bare_host(self.environ.get("CARINA_API_HOST") or "127.0.0.1"), self._public_url()
        if host.startswith("unix:"):
            raise StackError(
                "CARINA_API_HOST is a Unix socket: `carina api` takes it, but `carina up` needs an address."
            )
        port = str(self._api_port(host))
        servers_gate, gate = self.folder.run / "servers-gate", self.folder.run / "gate"
        for each in (servers_gate, gate):
            each.unlink(missing_ok=True)
        key = self.folder.recall("api_key") or ""
        own = {"CARINA_API_HOST": host, "CARINA_API_PORT": port, "CARINA_API_KEY": key, GATE: str(gate)}
        temporary = {"TMPDIR": self.environ.get("TMPDIR") or str(self.folder.temporary)}
        env = with_code({**self.environ, **servers.settings, **own, **temporary})
        Settings.from_env(env)  # report an invalid setting here once, instead of in each process's log
        answers = self._answers(supervisor, servers)

        async def open_servers_gate() -> None:
            await answers
            servers_gate.touch()

        async def open_gate() -> None:
            nonlocal key
            migrate = application.migrate({**env, GATE: str(servers_gate)})
            await together(open_servers_gate(), supervisor.run_once(migrate))
            key = await asyncio.to_thread(application.bootstrap, env)
            self.folder.remember("api_key", key)
            gate.touch()

        await together(open_gate(), supervisor.start(*application.components(env)))
        api_url = f"http://{join_host_port(reachable_host(host), port)}"
        reached = {"CARINA_API_URL": api_url, "CARINA_API_KEY": key}
        return reached | ({"CARINA_PUBLIC_URL": public_url} if public_url else {})

    def _log_limits(self) -> Limits:
        settings = LogFileSettings.from_env(self.environ)
        return Limits(settings.log_file_bytes, settings.log_files)

    def _public_url(self) -> str:
        try:
            return check_public_url(self.environ.get("CARINA_PUBLIC_URL", ""))
        except ValueError as exc:
            raise StackError(f"CARINA_PUBLIC_URL: {exc}") from exc

    def _api_port(self, host: str) -> int:
        if not (given := self.environ.get("CARINA_API_PORT")):
            return self.folder.port("api", self.say)
        if not given.isdecimal():
            raise InvalidSettings(f"CARINA_API_PORT is {given}, which is not a port.")
        if int(given) <= 65535 and not is_free(int(given), host):  # `Settings` checks other ports
            raise StackError(f"CARINA_API_PORT is {given}, which is no free port of {host}.")
        return int(given)


def _on_stop_signals(do: Callable[[], None]) -> None:
    for number in _STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, do)
