"""PostgreSQL through SQLAlchemy: one engine a process, one short transaction a change."""

from shared.database.engine import Database, is_any

__all__ = ["Database", "is_any"]
