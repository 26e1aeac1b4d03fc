"""Models in the output of commands: name, state if not active, and the warnings of the card."""

from collections.abc import Iterable, Iterator

from rich.markup import escape

from api.contract.models import ModelReference
from shared.vocabulary.states import ModelState


def name_model(model: ModelReference) -> str:
    """As `carina-demo 2af74693`, or `lungs 9aaa5843 (candidate)` where it is not the active one."""
    state = "" if model.state is ModelState.ACTIVE else f" ({model.state})"
    return f"{model.name} {model.digest[:8]}{state}"


def warnings_of(models: Iterable[ModelReference]) -> Iterator[str]:
    """Yield a line, in markup, for each warning of each model, once."""
    for model in {model.id: model for model in models}.values():
        for warning in model.warnings:
            yield f"[yellow]{escape(f'{model.name} {model.digest[:8]}')} warns:[/] {escape(warning)}"
