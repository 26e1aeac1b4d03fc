"""Webhooks of a project and the messages sent to them."""

import sqlalchemy as sa
from flask import Response
from sqlalchemy.orm import Session

from api.contract.webhooks import (
    DeliveriesAnswer,
    DeliveriesQuery,
    DeliveryAnswer,
    DeliveryPath,
    WebhookAnswer,
    WebhookChange,
    WebhookCreated,
    WebhookPath,
    WebhookRequest,
    WebhooksAnswer,
)
from api.http.audit import note, unaudited
from api.http.auth import identity, requires
from api.http.errors import may_raise
from api.http.idempotency import idempotent
from api.http.resource import as_json, resource
from api.http.rows import find_row, read_page
from api.http.services import services
from shared.database.notices import DELIVERIES, notify
from shared.errors import Forbidden, NotFound, Place, RequestError
from shared.notifications.address_guard import (
    InvalidWebhookUrl,
    WebhookAddressNotAllowed,
    WebhookHostUnknown,
    check_destination,
)
from shared.notifications.deliveries import send_again
from shared.notifications.webhooks import PING, is_deliverable, new_secret
from shared.tables import Webhook, WebhookDelivery
from shared.vocabulary.states import Scope, WorkerKind

#: Limits the rows that each event writes: one per webhook.
MAX_WEBHOOKS = 50

blueprint = resource("webhooks")


class TooManyWebhooks(RequestError):
    """The project has the maximum number of webhooks. Delete one first."""

    code = "too_many_webhooks"
    status = 409


class WebhookDisabled(RequestError):
    """The webhook is disabled, or its API key has ended. Enable it first."""

    code = "webhook_disabled"
    places = Place.REQUEST | Place.DELIVERY
    status = 409


class DeliveryUnderWay(RequestError):
    """The message is being sent at the moment."""

    code = "delivery_under_way"
    status = 409


@blueprint.post("/v1/webhooks", responses={201: WebhookCreated})
@requires(Scope.SUBMIT)
@idempotent
@may_raise(TooManyWebhooks, InvalidWebhookUrl, WebhookHostUnknown, WebhookAddressNotAllowed)
def create(body: WebhookRequest) -> Response:
    """Create a webhook.

    The webhook belongs to the key of this request. Its secret is shown only in this answer.
    """
    _check(body.url)
    webhook = Webhook(
        project_id=identity().project_id,
        api_key_id=identity().key_id,
        url=body.url,
        events=body.events,
        secret=new_secret(),
    )
    with services().database.begin() as session:
        if len(session.scalars(sa.select(Webhook)).all()) >= MAX_WEBHOOKS:
            raise TooManyWebhooks
        session.add(webhook)
        session.flush()
        session.refresh(webhook)
        return as_json(WebhookCreated.model_validate(webhook), 201)


@blueprint.get("/v1/webhooks", responses={200: WebhooksAnswer})
@requires(Scope.READ)
@unaudited("It shows settings.")
def show_all() -> Response:
    """List webhooks.

    Returns the webhooks of the project, the newest first, without their secrets.
    """
    with services().database.begin() as session:
        rows = session.scalars(sa.select(Webhook).order_by(Webhook.id.desc()))
        return as_json(WebhooksAnswer(webhooks=[WebhookAnswer.model_validate(row) for row in rows]))


@blueprint.get("/v1/webhooks/<uuid:webhook_id>", responses={200: WebhookAnswer})
@requires(Scope.READ)
@unaudited("It shows settings.")
def show(path: WebhookPath) -> Response:
    """Show a webhook.

    The secret is not shown.
    """
    with services().database.begin() as session:
        return as_json(WebhookAnswer.model_validate(find_row(session, Webhook, path.webhook_id)))


@blueprint.patch("/v1/webhooks/<uuid:webhook_id>", responses={200: WebhookAnswer})
@requires(Scope.SUBMIT)
@may_raise(InvalidWebhookUrl, WebhookHostUnknown, WebhookAddressNotAllowed)
def change(path: WebhookPath, body: WebhookChange) -> Response:
    """Change a webhook.

    Fields that are left out stay as they are. Only the webhook's own key or an `admin` key may change it. A webhook
    that is enabled again receives the messages that have waited.
    """
    if body.url is not None:
        _check(body.url)
    with services().database.begin() as session:
        webhook = _find_own(session, path)
        for name, value in body.model_dump(exclude_none=True).items():
            setattr(webhook, name, value)
        answer = WebhookAnswer.model_validate(webhook)
        notify(session, [DELIVERIES])
    return as_json(answer)


@blueprint.delete("/v1/webhooks/<uuid:webhook_id>", responses={204: None})
@requires(Scope.SUBMIT)
def delete(path: WebhookPath) -> Response:
    """Delete a webhook.

    Its messages are deleted too. Only the webhook's own key or an `admin` key may delete it.
    """
    with services().database.begin() as session:
        session.delete(_find_own(session, path))
    return Response(status=204)


@blueprint.post("/v1/webhooks/<uuid:webhook_id>/test", responses={202: DeliveryAnswer})
@requires(Scope.SUBMIT)
@idempotent
@may_raise(WebhookDisabled)
def test(path: WebhookPath) -> Response:
    """Send a test message to a webhook.

    Sends a `ping`. Only the webhook's own key or an `admin` key may do so.
    """
    with services().database.begin() as session:
        webhook = _find_own(session, path, deliverable=True)
        session.add(ping := WebhookDelivery(webhook_id=webhook.id, event=PING, payload={"webhook_id": str(webhook.id)}))
        session.flush()
        session.refresh(ping)
        note(delivery_id=ping.id)
        answer = DeliveryAnswer.model_validate(ping)
    services().hints.send(WorkerKind.NOTIFY, 1)
    return as_json(answer, 202)


@blueprint.get("/v1/webhooks/<uuid:webhook_id>/deliveries", responses={200: DeliveriesAnswer})
@requires(Scope.READ)
def show_deliveries(path: WebhookPath, query: DeliveriesQuery) -> Response:
    """List a webhook's messages.

    The newest first. Delivered messages are deleted after 30 days.
    """
    with services().database.begin() as session:
        where = [WebhookDelivery.webhook_id == find_row(session, Webhook, path.webhook_id).id]
        if query.state is not None:
            # As a literal, to use the partial index of dead messages.
            where.append(WebhookDelivery.state == sa.literal(query.state, literal_execute=True))
        rows, following = read_page(session, WebhookDelivery, query, *where)
        deliveries = [DeliveryAnswer.model_validate(row) for row in rows]
        return as_json(DeliveriesAnswer(deliveries=deliveries, next=following))


@blueprint.post(
    "/v1/webhooks/<uuid:webhook_id>/deliveries/<uuid:delivery_id>/redeliver", responses={202: DeliveryAnswer}
)
@requires(Scope.SUBMIT)
@may_raise(WebhookDisabled, DeliveryUnderWay)
def redeliver(path: DeliveryPath) -> Response:
    """Send a message again.

    It is sent at once, with the same `webhook-id`.
    """
    with services().database.begin() as session:
        _find_own(session, path, deliverable=True)
        of_webhook = WebhookDelivery.webhook_id == path.webhook_id
        if (
            session.scalar(sa.select(WebhookDelivery.id).where(WebhookDelivery.id == path.delivery_id, of_webhook))
            is None
        ):
            raise NotFound
        delivery = send_again(session, path.delivery_id)
        if delivery is None:
            raise DeliveryUnderWay
        answer = DeliveryAnswer.model_validate(delivery)
    services().hints.send(WorkerKind.NOTIFY, 1)
    return as_json(answer, 202)


def _check(url: str) -> None:
    """Raise `InvalidWebhookUrl`, `WebhookHostUnknown` or `WebhookAddressNotAllowed`."""
    check_destination(url, allow_private=services().settings.webhook_allow_private)


def _find_own(session: Session, path: WebhookPath, *, deliverable: bool = False) -> Webhook:
    """Return a webhook that this key may change: its own or, with `admin`, any webhook of the project."""
    webhook = find_row(session, Webhook, path.webhook_id)
    if webhook.api_key_id != identity().key_id and not identity().may(Scope.ADMIN):
        raise Forbidden("The webhook belongs to another key.")
    if deliverable and not session.scalar(sa.select(is_deliverable()).where(Webhook.id == webhook.id)):
        raise WebhookDisabled
    return webhook
