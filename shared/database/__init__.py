"""PostgreSQL through SQLAlchemy: one engine per process, one short transaction per change."""

from shared.database.engine import Database, is_any

__all__ = ["Database", "is_any"]
