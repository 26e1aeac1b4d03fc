"""The long-running processes, as containers and the embedded stack start them."""

from enum import StrEnum

import typer

from deploy.cli.environment import Data, settings_of


class WorkerStage(StrEnum):
    """Which stage a worker process serves."""

    INTAKE = "intake"
    PREPARE = "prepare"
    DETECT = "detect"
    NOTIFY = "notify"


def api(data: Data = None) -> None:
    """Serve the intake API over HTTP."""
    from api.serve import serve

    serve(settings_of(data))


def worker(stage: WorkerStage, data: Data = None) -> None:
    """Work in one stage: `detect` needs one GPU or CPU, the others CPU. Start as many as there is hardware for."""
    from workers import app

    run = {
        WorkerStage.INTAKE: app.run_intake,
        WorkerStage.PREPARE: app.run_prepare,
        WorkerStage.DETECT: app.run_detect,
        WorkerStage.NOTIFY: app.run_notify,
    }[stage]
    run(settings_of(data))


def beat(data: Data = None) -> None:
    """Tick: bring back lost jobs and hint again. Several of these do no harm."""
    from workers.app import run_beat

    run_beat(settings_of(data))


def dicom_listener(data: Data = None) -> None:
    """Take in what DICOM application entities send (C-STORE); CARINA_DICOM_ALLOWED_AES says who may."""
    from api.dicom_listener import run_listener

    run_listener(settings_of(data))


def trainer(data: Data = None) -> None:
    """Import datasets, train, evaluate and decide, one task at a time. Start one on each machine that is to train."""
    from trainer.agent import run_trainer

    run_trainer(settings_of(data))


def migrate(data: Data = None) -> None:
    """Bring the database's schema up to date and make sure of the bucket."""
    from deploy.bootstrap import migrate as bring_up_to_date

    bring_up_to_date(settings_of(data))


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (api, dicom_listener, worker, trainer, beat, migrate):
        app.command(rich_help_panel="Processes")(command)
