"""Errors that keep the embedded stack from running."""

from shared.errors import CarinaError


class StackError(CarinaError):
    """The embedded stack cannot run."""

    code = "stack_error"


class StackInUse(StackError):
    """Another `carina up` uses this data folder."""

    code = "stack_in_use"


class ComponentFailed(StackError):
    """A component of the stack did not start."""

    code = "component_failed"
