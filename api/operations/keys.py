"""API keys of a project: creating, listing and revoking them. The first key comes from `carina key create`."""

import sqlalchemy as sa
from flask import Response

from api.contract.keys import KeyAnswer, KeyCreated, KeyPath, KeyRequest, KeysAnswer
from api.http.audit import note
from api.http.auth import identity, requires
from api.http.errors import may_raise
from api.http.resource import as_json, resource
from api.http.services import services
from shared.access.keys import Allowance, InvalidRateLimit, add_key, describe_key, require_grantable, revoke_key
from shared.tables import ApiKey
from shared.vocabulary.states import Scope

blueprint = resource("keys")


@blueprint.post("/v1/keys", responses={201: KeyCreated})
@requires(Scope.ADMIN)
@may_raise(InvalidRateLimit)
def create(body: KeyRequest) -> Response:
    """Create an API key.

    The key belongs to the project of the requesting key. The answer is the only copy of the secret, so the request
    takes no `Idempotency-Key`: if the answer is lost, revoke the key and create another. A key that expires or has
    limits cannot create keys.
    """
    require_grantable(identity(), body.scopes)
    allowance = Allowance(body.expires_at, body.rate_limit, body.files_per_day, body.bytes_per_day)
    with services().database.begin() as session:
        row, key = add_key(session, identity().project_id, body.name, set(body.scopes), allowance)
        session.flush()
        session.refresh(row)
        note(prefix=row.prefix)
        return as_json(KeyCreated(key=key, **describe_key(session, row)), 201)


@blueprint.get("/v1/keys", responses={200: KeysAnswer})
@requires(Scope.ADMIN)
def show_all() -> Response:
    """List API keys.

    Returns every key of the project, also revoked ones, without secrets.
    """
    with services().database.begin() as session:
        rows = session.scalars(sa.select(ApiKey).order_by(ApiKey.id))
        return as_json(KeysAnswer(keys=[KeyAnswer(**describe_key(session, row)) for row in rows]))


@blueprint.post("/v1/keys/<prefix>/revoke", responses={200: KeyAnswer})
@requires(Scope.ADMIN)
def revoke(path: KeyPath) -> Response:
    """Revoke an API key.

    The key stops working within seconds, permanently.
    """
    with services().database.begin() as session:
        return as_json(KeyAnswer(**describe_key(session, revoke_key(session, path.prefix))))
