"""`carina rerun`: another look by the active model, as after a promotion."""

from typing import Annotated

import typer

from deploy.cli.clients import connect
from deploy.cli.console import is_json, out, print_json
from deploy.cli.environment import Data
from deploy.cli.status import print_jobs


def rerun(
    studies: Annotated[list[str], typer.Argument(metavar="STUDY...", help="Studies, as `carina studies` prints.")],
    priority: Annotated[int, typer.Option(min=0, max=9, help="A higher one goes first.")] = 5,
    data: Data = None,
) -> None:
    """Have the active model look at images of which it has no result, as after a promotion."""
    with connect(data) as client:
        study_ids = [client.find_id(study, "study") for study in studies]
        jobs = [job for study_id in study_ids for job in client.rerun(study_id, priority=priority)]
    if is_json():
        print_json([job.model_dump(mode="json") for job in jobs])
        return
    print_jobs(jobs)
    out.print("`carina status JOB --wait` waits for a job.")
