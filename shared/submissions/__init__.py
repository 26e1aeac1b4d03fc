"""Bulk submissions: their progress, changes of a whole one, and what failed."""
