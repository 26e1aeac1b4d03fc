"""API keys through the database: the first one, and those of projects that the operator has no key of."""

from typing import Self

import sqlalchemy as sa

from api.contract.keys import KeyAnswer, KeyCreated, KeyRequest
from shared.access.audit import CLI, record
from shared.access.keys import FIRST_PROJECT, Allowance, add_key, describe_key, find_project, open_project, revoke_key
from shared.database import Database
from shared.settings import Settings, read_settings
from shared.tables import ApiKey


class DatabaseKeys:
    """The keys of one project, or of all if none is named, with the methods of the API's client."""

    def __init__(self, project: str | None) -> None:
        """Connect when needed; raises `InvalidSettings`."""
        self._project = project
        self._database = Database.from_settings(read_settings(Settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._database.close()

    def create_key(self, request: KeyRequest) -> KeyCreated:
        """Create a key, and its project if that is new; the first one is `default`."""
        allowance = Allowance(request.expires_at, request.rate_limit, request.files_per_day, request.bytes_per_day)
        with self._database.begin() as session:
            project_id = open_project(session, self._project or FIRST_PROJECT)
            row, key = add_key(session, project_id, request.name, set(request.scopes), allowance)
            session.flush()
            session.refresh(row)
            record(session, action="key.create", subject={"prefix": row.prefix}, actor=CLI)
            return KeyCreated(key=key, **describe_key(session, row))

    def keys(self) -> list[KeyAnswer]:
        """Return the keys in the order of their creation."""
        with self._database.begin() as session:
            rows = sa.select(ApiKey).order_by(ApiKey.id)
            if self._project is not None:
                rows = rows.where(ApiKey.project_id == find_project(session, self._project))
            return [KeyAnswer(**describe_key(session, row)) for row in session.scalars(rows)]

    def revoke_key(self, prefix: str) -> KeyAnswer:
        """Revoke a key for good."""
        with self._database.begin() as session:
            project_id = None if self._project is None else find_project(session, self._project)
            described = describe_key(session, revoke_key(session, prefix, project_id))
            record(session, action="key.revoke", subject={"prefix": prefix}, actor=CLI)
            return KeyAnswer(**described)
