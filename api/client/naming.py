"""Names that people type: ids, beginnings of ids, and names of models."""

from urllib.parse import quote
from uuid import UUID

from api.client.connection import Connection
from api.client.errors import RequestRefused
from api.contract.models import ModelsAnswer
from api.contract.schedules import ScheduleAnswer, SchedulesAnswer
from shared.suggestions import AmbiguousName, digits_of, no_such, pick

#: Routes that answer with the ids that begin with a text.
_PATHS = {
    "study": "/v1/studies/{}",
    "image": "/v1/images/{}/reviews",
    "job": "/v1/jobs/{}",
    "submission": "/v1/submissions/{}",
    "webhook": "/v1/webhooks/{}",
    "training": "/v1/trainings/{}",
    "evaluation": "/v1/evaluations/{}",
}


class Naming(Connection):
    """Finds objects by name."""

    def find_id(self, name: str, *kinds: str) -> UUID:
        """Return an id by its beginning; `kinds` are those of `_PATHS`. A full id is not looked up.

        Raises `NotFound` and `AmbiguousName` of `shared`, and what requests raise.
        """
        digits = digits_of(name)
        if digits and len(digits) == 32:
            return UUID(digits)
        what = " or ".join(kinds)
        found = {id_ for kind in kinds if digits for id_ in self._beginning(kind, name) if id_.hex.startswith(digits)}
        if len(found) == 1:
            return found.pop()
        raise AmbiguousName(what, name, found) if found else no_such(what, name)

    def find_model(self, name: str) -> UUID:
        """Return the id of a model by the id, its beginning, or its name; raises as `find_id` does."""
        models = self._get(ModelsAnswer, "/v1/models").models
        return pick("model", name, {model.id: model.name for model in models})

    def find_schedule(self, name: str) -> ScheduleAnswer:
        """Return a schedule by its name, the id or its beginning; raises as `find_id` does."""
        schedules = {each.id: each for each in self._get(SchedulesAnswer, "/v1/schedules").schedules}
        return schedules[pick("schedule", name, {id_: each.name for id_, each in schedules.items()})]

    def _beginning(self, kind: str, name: str) -> list[UUID]:
        try:
            self._request("GET", _PATHS[kind].format(quote(name.strip(), safe="")))
        except RequestRefused as exc:
            if exc.code not in ("not_found", "ambiguous_name"):
                raise
            return exc.candidates
        return []
