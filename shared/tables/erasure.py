"""Unfinished erasures of studies, and recently erased objects."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ForeignKey
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from shared.ids import new_id
from shared.tables.rows import NOW, Row


class Erasure(Row):
    """The remaining work of an erasure: objects to delete and datasets to mark. Deleted when all is done."""

    __tablename__ = "erasure"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    #: `study_id` is None if only objects are to be deleted; `project_id` too if no project owns them.
    project_id: Mapped[UUID | None] = mapped_column(ForeignKey("project.id"))
    study_id: Mapped[UUID | None]
    #: Digests of the originals.
    sha256s: Mapped[list[str]]
    #: Keys of the objects to delete, unless another image refers to them.
    keys: Mapped[list[str]]
    #: The datasets that have been checked already.
    dataset_ids: Mapped[list[UUID]] = mapped_column(ARRAY(sa.Uuid()), default=list)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)


class ErasedObject(Row):
    """An object that was erased recently: a writer whose row is still missing must check it. See `shared.erasure`."""

    __tablename__ = "erased_object"

    #: The digest of the object's key. The key itself would identify an original.
    key_sha256: Mapped[str] = mapped_column(primary_key=True)
    erased_at: Mapped[datetime] = mapped_column(server_default=NOW)
