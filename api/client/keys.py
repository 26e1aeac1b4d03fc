"""API keys of a project, and its audit. Both need a key with the scope `admin`."""

from collections.abc import Iterator
from urllib.parse import quote

from api.client.connection import Connection
from api.contract.audit import AuditEventAnswer, AuditEventsAnswer, AuditQuery
from api.contract.keys import KeyAnswer, KeyCreated, KeyRequest, KeysAnswer


class Keys(Connection):
    """Who may use the project, and who did."""

    def keys(self) -> list[KeyAnswer]:
        """Return every key of the project, in the order of their creation."""
        return self._get(KeysAnswer, "/v1/keys").keys

    def create_key(self, request: KeyRequest) -> KeyCreated:
        """Create a key; keep its `key`, which is not told again. Sent once only: a second try would make another."""
        return self._read(KeyCreated, self._attempt("POST", "/v1/keys", {}, body=request))

    def revoke_key(self, prefix: str) -> KeyAnswer:
        """Revoke a key for good."""
        return self._post(KeyAnswer, f"/v1/keys/{quote(prefix, safe='')}/revoke")

    def audit(self, query: AuditQuery | None = None) -> Iterator[AuditEventAnswer]:
        """Yield audit rows, the newest first, in pages of the query's `limit`."""
        asked = (query or AuditQuery()).model_dump(mode="json", exclude_none=True)
        for page in self._pages(AuditEventsAnswer, "/v1/audit-events", **asked):
            yield from page.events
