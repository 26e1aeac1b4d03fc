"""Studies that are being erased, and objects that may be."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ForeignKey
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from shared.ids import new_id
from shared.tables.rows import NOW, Row


class Erasure(Row):
    """What is left of a study that was erased: objects, and marks of datasets. The row goes with the last of it."""

    __tablename__ = "erasure"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    #: Both are None where a worker has put an object for a study that was gone by then.
    project_id: Mapped[UUID | None] = mapped_column(ForeignKey("project.id"))
    study_id: Mapped[UUID | None]
    #: Of the originals.
    sha256s: Mapped[list[str]]
    #: Of the objects that go, unless another image refers to them.
    keys: Mapped[list[str]]
    #: The datasets that are marked already.
    dataset_ids: Mapped[list[UUID]] = mapped_column(ARRAY(sa.Uuid()), default=list)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)


class ErasedObject(Row):
    """Says for a while that an object may be gone whose writer has no row yet: see `shared.erasure`."""

    __tablename__ = "erased_object"

    #: Of the object's key, which would name an original.
    key_sha256: Mapped[str] = mapped_column(primary_key=True)
    erased_at: Mapped[datetime] = mapped_column(server_default=NOW)
