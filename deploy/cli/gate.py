"""`carina gate`: have a candidate compared with the active model, and promoted if it is better."""

from typing import Annotated

import typer

from deploy.cli import gate_options as options
from deploy.cli.audit import note
from deploy.cli.console import err, tell
from deploy.cli.environment import Data, settings_of
from deploy.cli.following import follow, how_far_is_decision, require_success
from deploy.cli.projects import InProject, open_project
from deploy.cli.results import print_decision
from shared.access.keys import FIRST_PROJECT
from shared.tables import GateDecision
from shared.training.config import Split

EXIT_INTERRUPTED = 130


def gate(
    model: Annotated[str, typer.Argument(help="The candidate: its id or name, as `carina model list` shows it.")],
    dataset: Annotated[str, typer.Option(help="The dataset to compare on: a name (its latest version) or id.")],
    split: Annotated[Split, typer.Option(help="On which split of it.")] = "val",
    least_gain: options.LeastGain = None,
    confidence: options.Confidence = None,
    most_class_drop: options.MostClassDrop = None,
    counted_from_boxes: options.CountedFromBoxes = None,
    promote: Annotated[bool, typer.Option(help="Make it the active model if it passes.")] = True,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the end.")] = False,
    project: InProject = FIRST_PROJECT,
    data: Data = None,
) -> None:
    """Compare a candidate with the active model by a paired bootstrap; promote it only if it is better."""
    from shared.models import registry
    from shared.training.gates import ask_gate

    database, project_id = open_project(settings_of(data), project)
    with database.begin() as session:
        config = options.read_gate(
            session,
            project_id,
            None,
            dataset=dataset,
            split=split,
            least_gain=least_gain,
            confidence=confidence,
            most_class_drop=most_class_drop,
            counted_from_boxes=counted_from_boxes,
            promote=promote,
        )
        assert config is not None, "a dataset was named"
        model_id = registry.find(session, model).id
        decision_id = ask_gate(session, project_id=project_id, candidate_model_id=model_id, config=config).id
        note(session, "gate.ask", decision_id=decision_id, model_id=model_id)
        tell({"id": decision_id, "candidate_model_id": model_id}, f"gate decision {decision_id} about model {model_id}")
    if detach:
        return
    try:
        decision = follow(database, GateDecision, decision_id, how_far_is_decision)
    except KeyboardInterrupt:
        err.print("\nIt goes on; `carina model list` shows which model is active.")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    require_success(decision)
    print_decision(decision)
