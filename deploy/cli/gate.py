"""`carina gate`: have a candidate compared with the active model, and promoted if it is better."""

from typing import Annotated

import typer

from deploy.cli import training_options as options
from deploy.cli.clients import connect
from deploy.cli.console import tell
from deploy.cli.environment import Data
from deploy.cli.following import follow, may_leave
from deploy.cli.trainings import print_decision
from shared.training.config import Split


def gate(
    model: Annotated[str, typer.Argument(help="The candidate: its id or name, as `carina model list` shows it.")],
    dataset: Annotated[str, typer.Option(help="The dataset to compare on: a name (its latest version) or id.")],
    split: Annotated[Split, typer.Option(help="Split of the dataset to compare on.")] = "val",
    metric: options.Metric = None,
    least_gain: options.LeastGain = None,
    confidence: options.Confidence = None,
    most_class_drop: options.MostClassDrop = None,
    counted_from_boxes: options.CountedFromBoxes = None,
    promote: Annotated[
        bool, typer.Option(help="Make it the active model if it passes, which needs a key with the scope `system`.")
    ] = True,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the end.")] = False,
    data: Data = None,
) -> None:
    """Compare a candidate with the active model by a paired bootstrap; promote it only if it is better."""
    with connect(data) as client:
        config = options.read_gate(
            client,
            None,
            dataset=dataset,
            split=split,
            metric=metric,
            least_gain=least_gain,
            confidence=confidence,
            most_class_drop=most_class_drop,
            counted_from_boxes=counted_from_boxes,
            promote=promote,
        )
        assert config is not None, "a dataset was named"
        decision = client.ask_gate(client.find_model(model), config)
        model_id = decision.candidate_model_id
        described = {"id": decision.id, "candidate_model_id": model_id}
        tell(described, f"gate decision {decision.id} about model {model_id}")
        if detach:
            return
        with may_leave("`carina model list` shows which model is active"):
            decision = follow(client, decision, lambda: client.gate_decision(decision.id))
        print_decision(decision)
