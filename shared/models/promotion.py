"""Promotes a model by hand. The gate's decision is returned, and the reason for overriding it goes into the audit."""

from uuid import UUID

from sqlalchemy.orm import Session

from shared.errors import RequestError
from shared.models import registry
from shared.models.gate_verdicts import read_verdicts
from shared.models.verdict import GateVerdict
from shared.tables import Model
from shared.vocabulary.states import ModelState


class PromotionRefused(RequestError):
    """The gate refused this model. Send a `reason` to promote it anyway."""

    code = "promotion_refused"
    status = 409
    parameter = "reason"


def audited(verdict: GateVerdict | None, reason: str | None) -> dict[str, object]:
    """Return the fields of a promotion for the audit: the gate's decision, and the reason that the user gave."""
    kept: dict[str, object] = {}
    if verdict is not None:
        kept |= {"gate_decision_id": verdict.decision_id, "gate": verdict.outcome or verdict.state}
    return kept | ({"reason": reason} if reason else {})


def promote_by_hand(session: Session, model_id: UUID, reason: str | None) -> tuple[Model, GateVerdict | None]:
    """Promote a model on a user's request; return it with the gate's last decision about it.

    Raises `NotFound`, and `PromotionRefused` if the gate refused it and no reason is given. The caller records the
    reason in the audit.
    """
    registry.hold(session)
    model = registry.require(session, model_id)
    # All projects share the model, so a refusal in any of them counts. Only its figures are shown.
    verdict = read_verdicts(session, [model_id], of_all_projects=True).get(model_id)
    is_refused = verdict is not None and verdict.outcome == "refused"
    if is_refused and model.state != ModelState.ACTIVE and not reason:
        assert verdict is not None
        raise PromotionRefused(f"{verdict.in_words()} State a reason to promote it all the same.")
    return registry.promote(session, model_id), verdict
