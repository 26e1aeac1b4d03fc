"""The finding of a check that failed."""

from shared.errors import CarinaError


class Ailment(CarinaError):
    """Something is not as it should be."""
