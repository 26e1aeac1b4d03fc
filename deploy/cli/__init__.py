"""The `carina` command: all its parts, and what an error of any of them becomes."""

import sys
from importlib.metadata import version

import typer

from deploy.cli import (
    dataset_imports,  # noqa: F401 - registers itself
    datasets,
    evaluations,
    gate,
    keys,
    models,
    schedules,
    services,
    stack,
    trainings,
    webhooks,
)
from deploy.cli.application import Application, Group
from deploy.cli.audit import audit
from deploy.cli.completion import completion
from deploy.cli.doctor import doctor
from deploy.cli.exits import explain_exits
from deploy.cli.failures import report
from deploy.cli.findings import findings
from deploy.cli.reviews import reviews
from deploy.cli.status import cancel, retry, status
from deploy.cli.studies import erase, rerun, studies
from deploy.cli.submit import submit

app = Application(
    cls=Group,
    help="Chest X-ray abnormality detection as a distributed, queue-based system. For research use only.",
    epilog=explain_exits(),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for part in (stack, services):
    part.register(app)
for command in (submit, status, studies, erase, findings, reviews, rerun, retry, cancel):
    app.command(rich_help_panel="Studies")(command)
app.add_typer(models.app, name="model")
app.add_typer(datasets.app, name="dataset")
app.add_typer(keys.app, name="key")
app.add_typer(webhooks.app, name="webhook")
app.command(rich_help_panel="Training")(trainings.train)
app.command(rich_help_panel="Training")(evaluations.evaluate)
app.add_typer(trainings.app, name="training", rich_help_panel="Training")
app.add_typer(evaluations.app, name="evaluation", rich_help_panel="Training")
app.command(rich_help_panel="Training")(gate.gate)
app.add_typer(schedules.app, name="schedule", rich_help_panel="Training")
app.command()(doctor)
app.command()(audit)
app.command()(completion)


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
