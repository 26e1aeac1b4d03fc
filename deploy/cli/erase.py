"""`carina erase`: a study removed for good."""

from typing import Annotated

import typer

from deploy.cli.clients import connect
from deploy.cli.console import show_result
from deploy.cli.environment import Data


def erase(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="The study's id.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data: Data = None,
) -> None:
    """Erase a study for good: originals, renditions, findings and reviews; needs a key with the scope `admin`."""
    with connect(data) as client:
        study_id = client.find_id(study, "study")
        if not yes:
            images = len(client.study(study_id).images)
            typer.confirm(f"Erase the study {study_id} with {images} images for good?", abort=True, err=True)
        erased = client.erase_study(study_id)
    later = f"{erased.objects_left} objects are removed as soon as the object store allows."
    said = [f"erased study {erased.study_id}: {erased.images} images", *([later] if erased.objects_left else [])]
    show_result(erased.model_dump(mode="json"), *said)
