"""The `carina` command: all its parts, and what an error of any of them becomes."""

import sys
from importlib.metadata import version

import typer

from deploy.cli.application import Application, Part
from deploy.cli.exits import explain_exits
from deploy.cli.failures import report

#: By heading and name, the function or application of each command, in `deploy.cli`.
_COMMANDS = {
    "One machine": {"demo": "stack:demo", "up": "stack:up", "down": "stack:down", "ps": "stack:ps"},
    "Processes": {
        "api": "services:api",
        "dicom-listener": "services:dicom_listener",
        "worker": "services:worker",
        "trainer": "services:trainer",
        "beat": "services:beat",
        "migrate": "services:migrate",
        "probe": "services:probe",
    },
    "Studies": {
        "submit": "submit:submit",
        "status": "status:status",
        "studies": "studies:studies",
        "erase": "studies:erase",
        "findings": "findings:findings",
        "reviews": "reviews:reviews",
        "rerun": "studies:rerun",
        "retry": "status:retry",
        "cancel": "status:cancel",
        "priority": "status:priority",
    },
    None: {
        "model": "models:app",
        "dataset": "datasets:app",
        "key": "keys:app",
        "project": "project:app",
        "webhook": "webhooks:app",
        "doctor": "doctor:doctor",
        "audit": "audit:audit",
        "completion": "completion:completion",
    },
    "Data": {"backup": "backup:backup", "restore": "backup:restore", "fsck": "fsck:fsck"},
    "Training": {
        "train": "trainings:train",
        "evaluate": "evaluations:evaluate",
        "training": "trainings:app",
        "evaluation": "evaluations:app",
        "gate": "gate:gate",
        "schedule": "schedules:app",
    },
}

app = Application(
    help="Chest X-ray abnormality detection as a distributed, queue-based system. For research use only.",
    epilog=explain_exits(),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for panel, places in _COMMANDS.items():
    app.parts |= {name: Part(f"deploy.cli.{place}", panel) for name, place in places.items()}


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("carina"))
        raise typer.Exit


@app.callback()
def _options(
    _: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None: ...


def main() -> None:
    """Run the command line; turn every error into one line and an exit code."""
    try:
        app(prog_name="carina")
    except (Exception, KeyboardInterrupt) as exc:  # noqa: BLE001 - no command ends with a traceback
        sys.exit(report(exc))
