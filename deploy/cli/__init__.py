"""The `carina` command.

Exit codes: 0 done; 1 it failed, and one line says why; 2 the command line is wrong; 3 something sent in has no result
(rejected, failed, cancelled or not finished in time); 4 a server cannot be reached; 5 a process finds no writable
folder for temporary files; 130 interrupted.
"""

import sys
from importlib.metadata import version

import typer
from pydantic import ValidationError

from deploy.cli import (
    dataset_imports,
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
from deploy.cli.audit import audit
from deploy.cli.console import complain
from deploy.cli.doctor import doctor
from deploy.cli.findings import findings
from deploy.cli.reviews import reviews
from deploy.cli.status import cancel, retry, status
from deploy.cli.studies import studies
from deploy.cli.submit import submit
from shared.errors import CarinaError, TransientError
from shared.scratch import EXIT_NO_SCRATCH, ScratchUnwritable

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 4
EXIT_INTERRUPTED = 130

app = typer.Typer(
    help="Chest X-ray abnormality detection as a distributed, queue-based system. For research use only.",
    epilog=(
        "Exit codes: 0 done; 1 failed; 2 wrong command line; 3 something sent in has no result; "
        "4 a server cannot be reached; 5 no writable folder for temporary files; 130 interrupted."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for part in (stack, services):
    part.register(app)
for command in (submit, status, studies, findings, reviews, retry, cancel):
    app.command(rich_help_panel="Studies")(command)
app.add_typer(models.app, name="model")
app.add_typer(datasets.app, name="dataset")
dataset_imports.register(datasets.app)
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


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("carina"))
        raise typer.Exit


@app.callback()
def _options(
    _: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None: ...


def main() -> None:
    """Run the command line; turn every error of ours into one line and an exit code."""
    try:
        app()
    except ValidationError as exc:
        missing = ", ".join(
            f"CARINA_{'_'.join(map(str, error['loc'])).upper()}: {error['msg']}" for error in exc.errors()
        )
        complain(f"settings: {missing}", hint="Set these variables, or name a running stack with --data DIR.")
        sys.exit(EXIT_USAGE)
    except TransientError as exc:
        complain(f"{exc.code}: {exc.detail}", hint="`carina doctor` checks every server.")
        sys.exit(EXIT_UNREACHABLE)
    except CarinaError as exc:
        complain(f"{exc.code}: {exc.detail}")
        sys.exit(EXIT_NO_SCRATCH if isinstance(exc, ScratchUnwritable) else EXIT_FAILED)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
