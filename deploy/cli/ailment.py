"""The finding of a check that failed."""

from shared.errors import CarinaError


class Ailment(CarinaError, shares_code=True):
    """A check of `carina doctor` failed."""
