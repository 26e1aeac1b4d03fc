"""The worklist: the studies of a project, with the search, the filters and the order in the URL."""

from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import urlencode

from flask import Response, redirect, request
from pydantic import ValidationError
from werkzeug.wrappers import Response as AnyResponse

from api.console.pages import console_blueprint, show, show_problem
from api.contract.models import ModelReference
from api.contract.study_list import MIN_DIGEST_CHARACTERS, StudiesAnswer, StudiesQuery, StudyCursor, StudyOrder
from api.http.audit import unaudited
from api.http.auth import identity, requires
from api.http.errors import suggestion_for
from api.http.services import services
from api.studies.study_list import list_studies
from shared.models import registry
from shared.models.registry import has_abnormality_head
from shared.suggestions import UnknownName
from shared.vocabulary.flags import Flag
from shared.vocabulary.states import JobState, Scope

blueprint = console_blueprint("worklist")

_PATH = "/console/studies"
#: Parameters of a page's URL other than the conditions, which have fields in the form.
_PLACE = ("before", "after", "limit")


@blueprint.get(_PATH)
@requires(Scope.READ)
@unaudited("What has not changed is not sent again.", only=HTTPStatus.NOT_MODIFIED)
def studies() -> AnyResponse:
    """Show a page of studies; a script asks for it again and again, and is told when nothing has changed."""
    # A form also sends its empty fields; they are removed from the page's URL.
    asked = {name: value for name, value in request.args.items() if value}
    if len(asked) < len(request.args):
        return redirect(_address(asked))
    try:
        query = StudiesQuery.model_validate(asked)
    except ValidationError as error:
        return _show(asked, None, None, errors=_explain(error), status=422)
    try:
        answer = list_studies(identity().project_id, query)
    except UnknownName as error:
        return _show(asked, query, None, errors={error.parameter or "": error.detail}, status=error.status)
    response = _show(asked, query, answer)
    response.add_etag()
    response.make_conditional(request)
    return response


@blueprint.get("/console/<path:_>")
@requires(Scope.READ)
def nothing(_: str) -> Response:
    """Show "not found" as a page of the console."""
    return show_problem(404, "not_found", "There is no such page.")


def _show(
    asked: Mapping[str, str],
    query: StudiesQuery | None,
    answer: StudiesAnswer | None,
    *,
    errors: Mapping[str, str] | None = None,
    status: int = 200,
) -> Response:
    conditions = {name: value for name, value in asked.items() if name not in _PLACE}
    errors = errors or {}
    has_field = StudiesQuery.model_fields.keys() - _PLACE - {"order"}
    with services().database.begin() as session:
        classes, active = registry.class_names(session), registry.active(session)
        has_model, has_head = active is not None, active is not None and has_abnormality_head(active)
    in_order = {order: _address(conditions | {"order": order.value}) for order in StudyOrder}
    return show(
        "worklist.html",
        status,
        asked=asked,
        errors=errors,
        other_errors={name: words for name, words in errors.items() if name not in has_field},
        answer=answer,
        min_digest_characters=MIN_DIGEST_CHARACTERS,
        min_score=query.min_score if query else StudiesQuery.model_fields["min_score"].default,
        state_words={state: state.words for state in JobState},
        flags=list(Flag),
        # A class that no model knows any longer can still be searched for.
        classes=sorted({*classes, *([asked["finding"]] if "finding" in asked else [])}),
        has_model=has_model,
        has_probability=has_head or bool({"order", "min_abnormality"} & asked.keys()),
        by_abnormality=query is not None and query.order is StudyOrder.ABNORMALITY,
        in_order=in_order,
        warned=_warned(answer),
        is_narrowed=query is None or query.is_narrowed,
        is_first=not {"before", "after"} & asked.keys(),
        query=urlencode(asked),
        first_address=_address(conditions),
        older_address=_page(conditions, "before", answer.next if answer else None),
        newer_address=_page(conditions, "after", answer.previous if answer else None),
    )


def _warned(answer: StudiesAnswer | None) -> list[ModelReference]:
    """Return the models with findings on the page, and the active one, if their cards have warnings."""
    if answer is None:
        return []
    others = [other.model for study in answer.studies for other in study.other_results]
    shown = {model.id: model for model in (answer.active_model, *others) if model is not None}
    return [model for model in shown.values() if model.warnings]


def _page(conditions: Mapping[str, str], cursor: str, place: StudyCursor | None) -> str | None:
    return _address({**conditions, cursor: str(place)}) if place else None


def _address(asked: Mapping[str, str]) -> str:
    path = request.script_root + _PATH
    return f"{path}?{urlencode(asked)}" if asked else path


def _explain(error: ValidationError) -> dict[str, str]:
    """Return the error of each field; the empty name stands for errors of several fields."""
    return {
        str(each["loc"][0]) if each["loc"] else "": each["msg"].removeprefix("Value error, ") + suggestion_for(each)
        for each in error.errors(include_url=False)
    }
