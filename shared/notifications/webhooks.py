"""The secrets and signatures of webhooks, after the Standard Webhooks specification (standardwebhooks.com)."""

import base64
import hmac
import secrets

import sqlalchemy as sa

from shared.tables import ApiKey, Webhook

#: The event of a message that tests a webhook.
PING = "ping"
_SECRET_BRAND = "whsec_"


def new_secret() -> str:
    """Make the secret that signs a webhook's messages: 256 random bits."""
    return _SECRET_BRAND + base64.b64encode(secrets.token_bytes(32)).decode()


def sign(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    """Return the `webhook-signature` of a message: HMAC-SHA256 over its id, its time in Unix seconds and its body."""
    key = base64.b64decode(secret.removeprefix(_SECRET_BRAND))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


def is_deliverable() -> sa.ColumnElement[bool]:
    """The condition that messages go to a webhook: it is enabled, and its key is valid."""
    valid = sa.exists().where(
        ApiKey.id == Webhook.api_key_id,
        ApiKey.revoked_at.is_(None),
        sa.func.coalesce(ApiKey.expires_at > sa.func.now(), sa.true()),
    )
    return sa.and_(Webhook.enabled, valid)
