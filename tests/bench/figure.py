"""What a bench reports."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Figure:
    """One measured number, and what it should be where there is a target."""

    what: str
    measured: float
    unit: str = ""
    #: The bound that counts as kept when it is met exactly; None: reported only.
    target: float | None = None
    sense: Literal["at least", "below"] = "at least"

    @property
    def verdict(self) -> Literal["ok", "missed", ""]:
        """Whether the target is met; empty without one."""
        if self.target is None:
            return ""
        met = self.measured >= self.target if self.sense == "at least" else self.measured < self.target
        return "ok" if met else "missed"
