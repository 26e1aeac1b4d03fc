"""`carina doctor`: checks every dependency, and prints each problem and its remedy."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from deploy.cli.console import is_json, out, tell
from deploy.cli.doctor_api import CheckFailed, check_api, check_key
from deploy.cli.doctor_group import check_group
from deploy.cli.environment import Data, client_settings_of, read_environment, settings_of
from deploy.cli.extras import MODULES, explain_missing, find_missing
from shared.errors import CarinaError, NoActiveModel
from shared.settings import ClientSettings, Settings
from shared.settings.secret_files import is_given
from shared.vocabulary.states import TaskState, WorkerKind

if TYPE_CHECKING:
    from shared.database import Database
    from shared.queue.hints import Hints

#: A trainer takes tasks in these states.
WAITING = (TaskState.QUEUED, TaskState.INTERRUPTED)
_COLOURS = {"ok": "green", "degraded": "yellow", "wrong": "red"}


@dataclass(frozen=True)
class Check:
    """One condition that must be met."""

    name: str
    #: Returns the finding; raises if the condition is not met.
    run: Callable[[], str]
    remedy: str
    #: The check whose failure would make this one fail too.
    needs: str = ""
    #: Carina works without it.
    is_optional: bool = False


def doctor(data: Data = None) -> None:
    """Check each dependency, and print each problem and its remedy.

    With CARINA_API_URL and CARINA_API_KEY alone it checks what a client needs.
    """
    read_environment(data)
    has_key = is_given("CARINA_API_KEY", os.environ)
    checks: list[Check] = []
    if not has_key or is_given("CARINA_DATABASE_URL", os.environ):
        checks += _checks(settings_of(None), data is None)
    if has_key:
        checks += _client_checks(client_settings_of(None))
    failed: list[Check] = []
    skipped: set[str] = set()
    for check in checks:
        if check.needs in {each.name for each in failed} | skipped:
            skipped.add(check.name)
            continue
        try:
            _report(check, "ok", check.run())
        except Exception as exc:  # noqa: BLE001 - whatever a check meets is its finding
            _report(check, "degraded" if check.is_optional else "wrong", _detail(exc))
            failed.append(check)
    if wrong := [check for check in failed if not check.is_optional]:
        if len(wrong) > 1 and not is_json():
            out.print(f"Begin with {wrong[0].name}: {escape(wrong[0].remedy)}", soft_wrap=True)
        raise typer.Exit(1)


def _report(check: Check, state: str, found: str) -> None:
    if is_json():
        tell({"check": check.name, "state": state, "found": found, "remedy": None if state == "ok" else check.remedy})
        return
    colour, remedy = _COLOURS[state], "" if state == "ok" else f"\n      {escape(check.remedy)}"
    out.print(f"[{colour}]{state:<5}[/] {check.name}: {escape(found)}{remedy}", soft_wrap=True)


def _detail(error: Exception) -> str:
    if isinstance(error, CarinaError):
        return error.detail
    if isinstance(error, ModuleNotFoundError):
        return explain_missing(error.name or "")[0]
    return "the check itself failed. Please report this as a defect."


def _client_checks(settings: ClientSettings) -> list[Check]:
    return [
        Check("API", lambda: check_api(settings), "Start `carina api`, or set CARINA_API_URL to where it answers."),
        Check(
            "API key",
            lambda: check_key(settings),
            "Set CARINA_API_KEY to a key that `carina key create` printed.",
            needs="API",
        ),
    ]


def _checks(settings: Settings, from_environment: bool) -> list[Check]:
    # Imported here and below because it is slow to load, and the list of all commands does not need it.
    from shared.database import Database
    from shared.object_store import ObjectStore
    from shared.queue.hints import Hints

    database = Database.from_settings(settings)
    where = "the environment" if from_environment else "the stack's env file"
    return [
        Check("packages", _packages, "Install what this machine runs: pip install 'carina[all]'.", is_optional=True),
        Check("device", lambda: _device(settings), "Set CARINA_DEVICE=cpu, or repair the GPU's driver."),
        Check(
            "decoders",
            lambda: _decoders(settings),
            "Let the container or the kernel offer it, or take it from CARINA_DECODER_REQUIRES: see Hardening in "
            "docs/operations.md.",
        ),
        Check("PostgreSQL", lambda: _ping(database.ping), f"Is the server up? CARINA_DATABASE_URL comes from {where}."),
        Check("schema", lambda: _schema(database), "Run `carina migrate`.", needs="PostgreSQL"),
        Check(
            "Redis",
            lambda: _redis(settings, Hints(settings, database)),
            f"Is the server up? CARINA_REDIS_URL comes from {where}. Without it jobs wait longer, but none is lost.",
            is_optional=True,
        ),
        Check(
            "object store",
            lambda: _ping(ObjectStore(settings).ping),
            f"Is the server up, and the bucket {settings.s3_bucket} there? `carina migrate` makes it; "
            f"CARINA_S3_ENDPOINT_URL comes from {where}.",
        ),
        Check(
            "active model", lambda: _model(database), "Run `carina model import FILE --promote`.", needs="PostgreSQL"
        ),
        Check(
            "workers",
            lambda: _workers(database),
            "Start `carina worker STAGE` for each stage, and `carina beat` for sweep.",
            needs="schema",
        ),
        Check("trainer", lambda: _trainer(database), "Start `carina trainer`.", needs="schema"),
        Check(
            "connections",
            lambda: _connections(settings, database),
            "Raise max_connections of PostgreSQL, lower CARINA_DATABASE_CONNECTIONS, or use PgBouncer: see Size and "
            "connections in docs/operations.md.",
            needs="schema",
        ),
        *(
            [
                Check(
                    "trainer group",
                    lambda: check_group(settings, database),
                    "Start `carina trainer` on each machine, set CARINA_TRAINER_ADDRESS to an address that the others "
                    "reach, and open all TCP ports between the machines.",
                    needs="schema",
                )
            ]
            if settings.node_counts[1] > 1
            else []
        ),
    ]


def _ping(ping: Callable[[], None]) -> str:
    ping()
    return "answers"


def _redis(settings: Settings, hints: "Hints") -> str:
    from shared.redis_connection import require_answer

    require_answer(settings.redis_url.get_secret_value(), settings.ca_bundle)  # which names a cluster
    hints.check()
    return "takes hints"


def _packages() -> str:
    if missing := {extra: names for extra in MODULES if (names := find_missing(extra))}:
        told = "; ".join(f"{extra}: {', '.join(names)}" for extra, names in missing.items())
        raise CheckFailed(f"not every extra is installed ({told})")
    return f"Carina {version('carina')} with every extra"


def _device(settings: Settings) -> str:
    try:
        import torch

        cuda = torch.cuda.is_available()
    except ModuleNotFoundError:
        return "not checked, because PyTorch is not installed"
    except (ImportError, OSError, RuntimeError) as exc:  # a library of CUDA's is missing or broken
        raise CheckFailed(f"PyTorch cannot be used ({str(exc).partition(chr(10))[0]})") from exc
    if settings.device.startswith("cuda") and not cuda:
        raise CheckFailed(f"CARINA_DEVICE is {settings.device}, but PyTorch sees no GPU")
    return torch.cuda.get_device_name() if cuda and settings.device != "cpu" else "CPU"


def _decoders(settings: Settings) -> str:
    try:
        from shared.imaging.isolation import DecoderPool
        from shared.imaging.sandbox import PROTECTIONS
    except ModuleNotFoundError:
        return "not checked, because the packages that decode images are not installed"
    with DecoderPool(1, settings.decode_timeout_s, required=settings.required_protections) as pool:
        active = pool.protections()
    missing = [name for name in PROTECTIONS if name not in active]
    lacks = f"; not available here: {', '.join(missing)}" if missing else ""
    return f"sandboxed by {', '.join(active) or 'limits alone'}{lacks}"


def _schema(database: "Database") -> str:
    from shared import migrations

    if not migrations.is_current(database):
        raise CheckFailed("the tables are not those of this version")
    return "up to date"


def _model(database: "Database") -> str:
    from shared.models import registry

    with database.begin() as session:
        model = registry.active(session)
        if model is None:
            raise NoActiveModel
        return f"{model.name} ({model.id})"


def _workers(database: "Database") -> str:
    import sqlalchemy as sa

    from shared.queue.workers import is_alive
    from shared.tables import Worker

    alive = sa.select(Worker.stage, sa.func.count().label("count")).where(is_alive()).group_by(Worker.stage)
    with database.begin() as session:
        counts = {row.stage: row.count for row in session.execute(alive)}
    kinds = [kind for kind in WorkerKind if kind is not WorkerKind.TRAIN]
    if missing := [kind for kind in kinds if kind not in counts]:
        raise CheckFailed(f"none is alive for {', '.join(missing)}")
    return ", ".join(f"{counts[kind]} {kind}" for kind in kinds)


def _connections(settings: Settings, database: "Database") -> str:
    """Compare the most connections of the processes that are alive, and of one API, with what the server allows."""
    import sqlalchemy as sa

    from shared.database.sizing import SPARE, allowed_connections, most_connections, process_of
    from shared.queue.workers import is_alive
    from shared.tables import Worker

    with database.begin() as session:
        alive = session.scalars(sa.select(Worker.stage).where(is_alive())).all()
        allowed = allowed_connections(session)
    needed = SPARE + sum(most_connections(settings, name) for name in ("api", *map(process_of, alive)))
    if needed > allowed:
        raise CheckFailed(f"the running processes may open {needed}, and PostgreSQL allows {allowed}")
    return f"at most {needed} of {allowed}"


def _trainer(database: "Database") -> str:
    """Findings need no trainer, so its absence is wrong only while a task waits for one."""
    import sqlalchemy as sa

    from shared.queue.workers import is_alive
    from shared.tables import Worker
    from shared.training.tasks import KINDS

    with database.begin() as session:
        alive = sa.select(sa.func.count()).where(Worker.stage == WorkerKind.TRAIN, is_alive())
        count = session.scalar(alive) or 0
        waiting = sum(
            session.scalar(sa.select(sa.func.count()).where(row.state.in_(WAITING))) or 0 for row in KINDS.values()
        )
    if waiting and not count:
        raise CheckFailed(f"none is alive, and {waiting} tasks wait for one")
    return f"{count} alive, {waiting} tasks wait"
