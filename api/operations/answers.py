"""The queue's past as columns of the API's answer."""

from api.contract.queue import HistoryAnswer
from shared.queue.samples import Span


def describe_history(spans: list[Span]) -> HistoryAnswer:
    """Turn spans into columns."""
    return HistoryAnswer(
        at=[span.at for span in spans],
        queued=[span.queued for span in spans],
        preparing=[span.preparing for span in spans],
        ready=[span.ready for span in spans],
        detecting=[span.detecting for span in spans],
        oldest_waiting_s=[round(span.oldest_waiting_s, 1) for span in spans],
        succeeded_per_min=[_per_min(span.succeeded, span) for span in spans],
        rejected_per_min=[_per_min(span.rejected, span) for span in spans],
        failed_per_min=[_per_min(span.failed, span) for span in spans],
        batch_images=[round(span.images / span.batches, 2) if span.batches else None for span in spans],
        step_s=[round(span.step_s / span.batches, 4) if span.batches else None for span in spans],
    )


def _per_min(count: int, span: Span) -> float:
    return round(60 * count / span.elapsed_s, 2)
