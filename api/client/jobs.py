"""Jobs: their states, waiting for them, and retries."""

import time
from collections.abc import Callable, Iterable, Iterator
from uuid import UUID

from api.client.connection import Connection
from api.client.waiting import look_until
from api.contract.jobs import MAX_JOBS, JobAnswer, JobsAnswer
from api.contract.queue import PriorityAnswer, PriorityRequest, QueueAnswer, RetriedAnswer, RetryRequest
from shared.ids import new_id


class Jobs(Connection):
    """Single jobs, and the queue of all of them."""

    def job(self, job_id: UUID, *, wait_s: float = 0) -> JobAnswer:
        """Return a job; with `wait_s`, once it is final or the time (60 s at most) is over."""
        return self._get(JobAnswer, f"/v1/jobs/{job_id}", wait=wait_s)

    def jobs(self, job_ids: Iterable[UUID]) -> Iterator[JobAnswer]:
        """Yield jobs, a hundred a request; ids without a job are left out."""
        ids = [str(job_id) for job_id in job_ids]
        for start in range(0, len(ids), MAX_JOBS):
            yield from self._get(JobsAnswer, "/v1/jobs", id=ids[start : start + MAX_JOBS]).jobs

    def wait(
        self,
        job_ids: Iterable[UUID],
        *,
        timeout_s: float = float("inf"),
        on_job: Callable[[JobAnswer], object] = lambda _: None,
    ) -> list[JobAnswer]:
        """Wait until all jobs are final or the time is over; return them as they are. `on_job` gets each final job."""
        deadline = time.monotonic() + timeout_s
        return [self._wait_for(job_id, deadline, on_job) for job_id in dict.fromkeys(job_ids)]

    def cancel(self, job_id: UUID) -> JobAnswer:
        """Cancel a job; refused with `job_is_final` when it has come to its end."""
        return self._post(JobAnswer, f"/v1/jobs/{job_id}/cancel")

    def queue(self) -> QueueAnswer:
        """Return the numbers of the queue, the workers, and this project's failures of the last 24 hours."""
        return self._get(QueueAnswer, "/v1/queue")

    def set_priority(self, id_: UUID, priority: int) -> PriorityAnswer:
        """Set the priority of what waits of a submission, a study or a job; a higher one (0 to 9) goes first."""
        return self._post(PriorityAnswer, "/v1/jobs/priority", PriorityRequest(id=id_, priority=priority))

    def retry_failed(self, code: str, *, hours: float = 24) -> RetriedAnswer:
        """Retry jobs that failed with a code in the last hours, unless the image has a later job of the same model."""
        body = RetryRequest(code=code, hours=hours)
        return self._post(RetriedAnswer, "/v1/jobs/retry", body, key=str(new_id()))

    def _wait_for(self, job_id: UUID, deadline: float, on_job: Callable[[JobAnswer], object]) -> JobAnswer:
        left_s = max(0.0, deadline - time.monotonic())
        job = look_until(lambda wait_s: self.job(job_id, wait_s=wait_s), lambda job: job.state.is_final, left_s)
        if job.state.is_final:
            on_job(job)
        return job
