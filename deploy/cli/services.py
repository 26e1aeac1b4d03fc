"""The long-running processes, as containers and the embedded stack start them."""

from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.console import is_json, print_json
from deploy.cli.environment import Data, settings_of
from deploy.cli.extras import require
from shared.errors import HintNotSent
from shared.processes.scratch import use_scratch
from shared.queue.stages import STAGES
from shared.redis_connection import require_answer
from shared.settings import Settings, SettingsWithoutHints
from shared.vocabulary.states import SERVED


def api(data: Data = None) -> None:
    """Serve the intake API over HTTP."""
    settings = _prepare(data, "api")
    from api.serve import serve

    serve(settings)


def _served(name: str) -> str:
    if name not in SERVED:
        raise typer.BadParameter(f"{name} is not one of {', '.join(SERVED)}.")
    return name


def _complete(incomplete: str) -> list[str]:
    return [kind for kind in SERVED if kind.startswith(incomplete)]


def worker(
    stage: Annotated[
        str,
        typer.Argument(parser=_served, autocompletion=_complete, metavar="STAGE", help=f"One of {', '.join(SERVED)}."),
    ],
    data: Data = None,
) -> None:
    """Work in one stage: `detect` needs one GPU or CPU, the others CPU. Start as many as there is hardware for."""
    settings = _prepare(data, *(("worker",) if stage in {each.worker for each in STAGES} else ()))
    import_module(f"workers.{stage}").run(settings)


def beat(data: Data = None) -> None:
    """Run the sweep: return lost jobs to the queue and wake workers. Several of these processes may run."""
    settings = _prepare(data)
    from workers.sweep import run

    run(settings)


def dicom_listener(data: Data = None) -> None:
    """Receive DICOM objects (C-STORE) from the application entities in CARINA_DICOM_ALLOWED_AES."""
    settings = _prepare(data, "api")
    from api.dicom.listener import run_listener

    run_listener(settings)


def trainer(data: Data = None) -> None:
    """Import datasets, train, evaluate and run the gate, one task at a time. Start one on each training machine."""
    settings = _prepare(data, "worker", "trainer", uses_redis=False)
    from trainer.agent import run_trainer

    run_trainer(settings)


def migrate(data: Data = None) -> None:
    """Update the database schema, and create the bucket if it does not exist."""
    from deploy.bootstrap import migrate as bring_up_to_date

    bring_up_to_date(settings_of(data, SettingsWithoutHints))
    if is_json():
        print_json({"migrated": True})


def probe(context: typer.Context) -> None:
    """Check whether a process is alive or takes work: `carina probe live`, `carina probe ready`."""
    from deploy.probe import main

    raise typer.Exit(main([*context.args, *(["--json"] if is_json() else [])]))


#: The probe parses its own options, including --help.
probe.options = {  # type: ignore[attr-defined]
    "add_help_option": False,
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True},
}


def _prepare(data: Path | None, *extras: str, uses_redis: bool = True) -> Settings:
    """Return the settings of a process that runs on, which writes nothing but temporary files from here on.

    Raises `ModuleNotFoundError` for an extra that is not installed. A server that is down is waited for.
    """
    require(*extras)
    use_scratch()
    settings = settings_of(data, Settings if uses_redis else SettingsWithoutHints)
    if uses_redis:
        # If Redis does not answer, the process starts anyway and works without hints.
        with suppress(HintNotSent):
            require_answer(settings.redis_url.get_secret_value(), settings.ca_bundle)
    return settings
