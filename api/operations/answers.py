"""The history of the queue as columns of the API's answer."""

from api.contract.queue import HistoryAnswer
from shared.queue.samples import Span
from shared.vocabulary.states import JobState


def describe_history(spans: list[Span]) -> HistoryAnswer:
    """Return the columns of the spans."""
    return HistoryAnswer(
        at=[span.at for span in spans],
        oldest_waiting_s=[round(span.oldest_waiting_s, 1) for span in spans],
        batch_images=[round(span.images / span.batches, 2) if span.batches else None for span in spans],
        step_s=[round(span.step_s / span.batches, 4) if span.batches else None for span in spans],
        **{state: [span.jobs[state] for span in spans] for state in JobState.open()},
        **{
            f"{state}_per_min": [round(60 * span.jobs[state] / span.elapsed_s, 2) for span in spans]
            for state in (JobState.SUCCEEDED, JobState.REJECTED, JobState.FAILED)
        },
    )
