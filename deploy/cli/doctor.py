"""`carina doctor`: check every dependency, say what is wrong and how to mend it."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa
import typer
from pydantic import ValidationError

from deploy.cli.console import out
from deploy.cli.environment import Data, client_settings_of, settings_of
from shared.database import Database
from shared.errors import CarinaError, NoActiveModel
from shared.proxies import http_client
from shared.queue.states import Stage, TaskState
from shared.settings import Settings
from shared.tables import Worker
from shared.tls import make_context

if TYPE_CHECKING:
    from shared.queue.hints import Hints

#: A trainer takes these up.
WAITING = (TaskState.QUEUED, TaskState.INTERRUPTED)


class Ailment(CarinaError):
    """Something is not as it should be."""


@dataclass(frozen=True)
class Check:
    """One thing that has to hold."""

    name: str
    #: Returns what was found; raises when it does not hold.
    run: Callable[[], str]
    remedy: str


def doctor(data: Data = None) -> None:
    """Check each dependency and say what is wrong and how to mend it."""
    settings = settings_of(data)
    healthy = True
    for check in _checks(settings, data is None):
        try:
            out.print(f"[green]ok[/]    {check.name}: {check.run()}", soft_wrap=True)
        except Exception as exc:  # noqa: BLE001 - whatever a check meets is its finding
            healthy = False
            detail = exc.detail if isinstance(exc, CarinaError) else f"{type(exc).__name__}: {exc}"
            out.print(f"[red]wrong[/] {check.name}: {detail}\n      {check.remedy}", soft_wrap=True)
    if not healthy:
        raise typer.Exit(1)


def _checks(settings: Settings, from_environment: bool) -> list[Check]:
    # Commands import what is slow to load when they run, so that the others need not wait for it.
    from shared.object_store import ObjectStore
    from shared.queue.hints import Hints

    database = Database.from_settings(settings)
    where = "the environment" if from_environment else "the stack's env file"
    return [
        Check("packages", _packages, "Install Carina with its extras: pip install 'carina[all]'."),
        Check("device", lambda: _device(settings), "Set CARINA_DEVICE=cpu, or mend the GPU's driver."),
        Check("PostgreSQL", lambda: _ping(database.ping), f"Is the server up? CARINA_DATABASE_URL comes from {where}."),
        Check("schema", lambda: _schema(database), "Run `carina migrate`."),
        Check(
            "Redis",
            lambda: _redis(settings, Hints(settings, database)),
            f"Is the server up? CARINA_REDIS_URL comes from {where}. Without it jobs wait longer, but none is lost.",
        ),
        Check(
            "object store",
            lambda: _ping(ObjectStore(settings).ping),
            f"Is the server up, and the bucket {settings.s3_bucket} there? `carina migrate` makes it; "
            f"CARINA_S3_ENDPOINT_URL comes from {where}.",
        ),
        Check("active model", lambda: _model(database), "Run `carina model import FILE --promote`."),
        Check(
            "workers",
            lambda: _workers(database),
            "Start `carina worker prepare`, `carina worker detect`, `carina beat`.",
        ),
        Check("trainer", lambda: _trainer(database), "Start `carina trainer`."),
        Check(
            "API",
            _api,
            "Start `carina api`, set CARINA_API_URL to where it answers, and make a key with `carina key create`.",
        ),
    ]


def _ping(ping: Callable[[], None]) -> str:
    ping()
    return "answers"


def _redis(settings: Settings, hints: "Hints") -> str:
    from shared.redis_connection import ping

    ping(settings.redis_url.get_secret_value(), settings.ca_bundle)  # which names a cluster
    hints.check()
    return "takes hints"


def _packages() -> str:
    names = ("torch", "torchvision", "imagecodecs", "flask", "flask_openapi3", "gunicorn", "hotcoco", "tensorboard")
    return ", ".join(f"{name} {getattr(importlib.import_module(name), '__version__', '')}".strip() for name in names)


def _device(settings: Settings) -> str:
    import torch

    cuda = torch.cuda.is_available()
    if settings.device.startswith("cuda") and not cuda:
        raise Ailment(f"CARINA_DEVICE is {settings.device}, but PyTorch sees no GPU")
    return torch.cuda.get_device_name() if cuda and settings.device != "cpu" else "CPU"


def _schema(database: Database) -> str:
    from shared import migrations

    migrations.check(database)
    return "up to date"


def _model(database: Database) -> str:
    from shared import models

    with database.begin() as session:
        model = models.active(session)
        if model is None:
            raise NoActiveModel
        return f"{model.name} ({model.id})"


def _workers(database: Database) -> str:
    from shared.queue.hints import is_alive

    alive = sa.select(Worker.stage, sa.func.count().label("count")).where(is_alive()).group_by(Worker.stage)
    with database.begin() as session:
        counts = {row.stage: row.count for row in session.execute(alive)}
    stages = (Stage.PREPARE, Stage.DETECT, Stage.SWEEP)
    if missing := [stage for stage in stages if stage not in counts]:
        raise Ailment(f"none is alive for {', '.join(missing)}")
    return ", ".join(f"{counts[stage]} {stage}" for stage in stages)


def _trainer(database: Database) -> str:
    """Findings need no trainer; it is missed once something waits for it."""
    from shared.queue.hints import is_alive
    from shared.tasks import KINDS

    with database.begin() as session:
        alive = sa.select(sa.func.count()).where(Worker.stage == Stage.TRAIN, is_alive())
        count = session.scalar(alive) or 0
        waiting = sum(
            session.scalar(sa.select(sa.func.count()).where(row.state.in_(WAITING))) or 0 for row in KINDS.values()
        )
    if waiting and not count:
        raise Ailment(f"none is alive, and {waiting} tasks wait for one")
    return f"{count} alive, {waiting} tasks wait"


def _api() -> str:
    try:
        client = client_settings_of(None)
    except ValidationError as exc:
        raise Ailment("CARINA_API_KEY is not set.") from exc
    with http_client(verify=make_context(client.ca_bundle), timeout=5) as http:
        http.get(f"{client.api_url}/readyz").raise_for_status()
    return f"ready at {client.api_url}"
