"""The curves of a training run as rows: about one point per second, limited to a number that a page can draw."""

from collections.abc import Mapping
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.tables import TrainingPoint

#: Runs with more points are thinned out.
MAX_POINTS = 2000
#: Measured after an epoch. Points with it are thinned out separately, because there are few of them.
AP40 = "ap40"
#: Number of points of each kind after thinning, evenly spaced over the steps.
KEPT_OF_A_KIND = 500


class Curve:
    """Collects the figures of steps, and writes them as points. For one process at a time."""

    def __init__(self, run_id: UUID) -> None:
        self._run_id = run_id
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._points = 0

    def go_back(self, session: Session, steps: int) -> None:
        """Delete the points after a number of steps, because these steps are repeated."""
        mine = TrainingPoint.training_run_id == self._run_id
        session.execute(sa.delete(TrainingPoint).where(mine, TrainingPoint.step > steps))
        self._points = session.scalar(sa.select(sa.func.count()).where(mine)) or 0

    def add(self, figures: Mapping[str, float]) -> None:
        """Add the figures of a step to the next point."""
        for name, figure in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + figure
            self._counts[name] = self._counts.get(name, 0) + 1

    def write(self, session: Session, *, step: int, epoch: float) -> None:
        """Write the means since the last point, or add to the point of the step. Thins out if there are too many."""
        values = {name: float(f"{total / self._counts[name]:.6g}") for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        point = {"training_run_id": self._run_id, "step": step, "epoch": epoch, "values": values}
        added = insert(TrainingPoint).values(point)
        key = [TrainingPoint.training_run_id, TrainingPoint.step]
        merged = {"epoch": epoch, "values": TrainingPoint.values.concat(added.excluded["values"])}
        session.execute(added.on_conflict_do_update(index_elements=key, set_=merged))
        self._points += 1
        if self._points > MAX_POINTS:
            self._thin_out(session, step)

    def _thin_out(self, session: Session, last_step: int) -> None:
        mine = TrainingPoint.training_run_id == self._run_id
        stretch = sa.func.width_bucket(TrainingPoint.step, 0, last_step + 1, KEPT_OF_A_KIND)
        kept = sa.select(sa.func.max(TrainingPoint.step)).where(mine)
        kept = kept.group_by(stretch, TrainingPoint.values.has_key(AP40))
        session.execute(
            sa.delete(TrainingPoint)
            .where(mine, TrainingPoint.step.not_in(kept))
            .execution_options(synchronize_session=False)
        )
        self._points = session.scalar(sa.select(sa.func.count()).where(mine)) or 0
