"""What must hold at the end of a campaign, whatever happened: each check yields a sentence for each violation."""

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families

from api.client import Carina
from shared.leases import leased_tables
from shared.tables import Detection, Evaluation, Image, Job, Model, SubmissionFile, TopScore, TrainingRun
from shared.tables import WebhookDelivery as Delivery
from shared.vocabulary.states import DeliveryState, JobState, TaskState
from shared.vocabulary.webhook_events import WebhookEvent
from tests.chaos.ledger import Ledger, Routes
from tests.chaos.supply import Supply
from tests.e2e.conftest import Stack
from tests.integration.receiver import Message

#: Sentences of one check; a broken mechanism would yield thousands.
MOST_SENTENCES = 10
#: Jobs whose boxes are computed again.
_LOOKED_AT = 24
_METRICS_LOOKS = 20


@dataclass(frozen=True)
class Evidence:
    """A stack at rest, and what was seen from outside."""

    stack: Stack
    client: Carina
    ledger: Ledger
    supply: Supply
    routes: Routes
    messages: list[Message]

    def rows(self, statement: sa.Select[Any] | sa.TextClause) -> list[Any]:
        """Rows of the stack's database."""
        return self.stack.query(statement)


Check = Callable[[Evidence], Iterator[str]]


def violations(evidence: Evidence) -> list[str]:
    """Run all checks."""
    return [sentence for check in CHECKS for sentence in islice(check(evidence), MOST_SENTENCES)]


def every_file_has_one_end(evidence: Evidence) -> Iterator[str]:
    """Each accepted file is one image whose jobs are final, with a result unless a client cancelled its job."""
    images: dict[str, set[UUID]] = defaultdict(set)
    jobs: dict[str, list[Any]] = defaultdict(list)
    columns = (Image.sha256, Job.image_id, Job.id, Job.state, Job.code, Job.attempt)
    for row in evidence.rows(sa.select(*columns).join(Job, Job.image_id == Image.id)):
        images[row.sha256].add(row.image_id)
        jobs[row.sha256].append(row)
    for sha256, ways in evidence.ledger.accepted.items():
        if len(images[sha256]) != 1:
            yield f"file {sha256[:12]} was accepted by {dict(ways)} and has {len(images[sha256])} images with jobs"
        for problem in _problems_of(jobs[sha256], evidence.ledger, is_unfit=sha256 in evidence.ledger.unfit):
            yield f"file {sha256[:12]} was accepted by {dict(ways)}: {problem}"


def _problems_of(jobs: Sequence[Any], ledger: Ledger, *, is_unfit: bool) -> Iterator[str]:
    for job in jobs:
        if not JobState(job.state).is_final or job.state == JobState.FAILED:
            yield f"its job {job.id} is {job.state} ({job.code}, attempt {job.attempt})"
    ends = {job.state for job in jobs}
    was_cancelled = any(job.id in ledger.cancels for job in jobs)
    if is_unfit and ends - {JobState.REJECTED, JobState.CANCELLED}:
        yield f"it is unfit and ended as {sorted(ends)}"
    if not is_unfit and jobs and JobState.SUCCEEDED not in ends and not was_cancelled:
        yield f"it ended as {sorted(ends)}"


def one_result_for_each_image_and_model(evidence: Evidence) -> Iterator[str]:
    """No image has two results of a model, and only results have boxes, all of the model that the job names."""
    succeeded = Job.state == JobState.SUCCEEDED
    twice = sa.select(Job.image_id, Job.model_id).where(succeeded).group_by(Job.image_id, Job.model_id)
    for image_id, model_id in evidence.rows(twice.having(sa.func.count() > 1)):
        yield f"image {image_id} has two results of model {model_id}"
    for table in (Detection, TopScore):
        stray = sa.select(table.job_id).join(Job, Job.id == table.job_id).where(~succeeded).distinct()
        for (job_id,) in evidence.rows(stray):
            yield f"job {job_id} has no result, and rows in {table.__tablename__}"
    other = sa.select(Detection.job_id).join(Job, Job.id == Detection.job_id).where(Detection.model_id != Job.model_id)
    for (job_id,) in evidence.rows(other.distinct()):
        yield f"job {job_id} has boxes of another model than it names"


def boxes_are_right(evidence: Evidence) -> Iterator[str]:
    """The boxes of a sample of jobs are what an undisturbed run of their model finds."""
    by_sha256 = {file.sha256: file for file in evidence.supply.kept}
    jobs = (
        sa.select(Job.id, Job.model_id, Image.sha256)
        .join(Image, Image.id == Job.image_id)
        .where(Image.sha256.in_(by_sha256), Job.state == JobState.SUCCEEDED)
        .order_by(Job.id)
    )
    found = [row for row in evidence.rows(jobs) if row.model_id in evidence.supply.models]
    for job_id, model_id, sha256 in Random(0).sample(found, min(_LOOKED_AT, len(found))):
        columns = (Detection.class_id, Detection.score, Detection.x_min_px, Detection.y_min_px)
        corners = (Detection.x_max_px, Detection.y_max_px)
        boxes = sa.select(*columns, *corners).where(Detection.job_id == job_id).order_by(Detection.rank)
        rows = evidence.rows(boxes)
        expected = evidence.supply.expect(by_sha256[sha256], model_id)
        pairs = list(zip(rows, expected, strict=False))
        same = len(rows) == len(expected) and all(
            row[0] == box.category_id
            and math.isclose(row[1], box.score, abs_tol=1e-4)
            and all(math.isclose(*pair, abs_tol=0.1) for pair in zip(row[2:], box.box_xyxy_px, strict=True))
            for row, box in pairs
        )
        if not same:
            yield f"job {job_id} has other boxes than an undisturbed run of model {model_id}"


def cancelled_jobs_have_no_result(evidence: Evidence) -> Iterator[str]:
    """A job whose cancel was confirmed is cancelled, and no message reported another end."""
    confirmed = evidence.ledger.cancelled
    states = dict(evidence.rows(sa.select(Job.id, Job.state).where(Job.id.in_(confirmed)))) if confirmed else {}
    for job_id in confirmed:
        if states.get(job_id) != JobState.CANCELLED:
            yield f"the cancel of job {job_id} was confirmed, and it is {states.get(job_id)}"
    for message in evidence.messages:
        data = message.content["data"]
        if data.get("state") != JobState.CANCELLED and data.get("job_id") in map(str, confirmed):
            yield f"job {data['job_id']} was cancelled, and reported as {data['state']}"


def manifests_agree(evidence: Evidence) -> Iterator[str]:
    """Each file of a submission has one row with a final outcome, and counts, manifest and rows say the same."""
    files = sa.select(SubmissionFile.submission_id, sa.func.count()).group_by(SubmissionFile.submission_id)
    row_counts = dict(evidence.rows(files))
    for submission_id, bulk in evidence.ledger.bulks.items():
        submission = evidence.client.submission(submission_id)
        rows = list(evidence.client.manifest(submission_id))
        outcomes = Counter(row.outcome.partition(":")[0] for row in rows)
        counts = {name: count for name, count in submission.counts.model_dump().items() if count}
        what = f"submission {submission_id} ({submission.state})"
        if not submission.state.is_final:
            yield f"{what} is not final: {counts}"
        if counts != dict(outcomes) or len(rows) != submission.file_count or len(rows) != row_counts[submission_id]:
            yield f"{what}: counts {counts}, manifest {dict(outcomes)}, {row_counts[submission_id]} rows"
        if open_outcomes := set(outcomes) & {"expected", "arrived", "accepted"}:
            yield f"{what} has rows without an end: {sorted(open_outcomes)}"
        if submission.state == "cancelled":
            continue
        expected = Counter(bulk.sha256s)
        sent = Counter(row.sha256 for row in rows if row.outcome in ("succeeded", "duplicate", "cancelled"))
        if missing := expected - sent:
            ends = sorted({row.outcome for row in rows if row.sha256 in missing})
            yield f"{what}: {missing.total()} files without a result; their outcomes are {ends}"
        if outcomes["rejected"] != bulk.unfit or outcomes["unpacked"] != bulk.archives:
            yield f"{what}: {dict(outcomes)} instead of {bulk.unfit} rejected and {bulk.archives} unpacked"


def counters_agree(evidence: Evidence) -> Iterator[str]:
    """`/metrics` counts the jobs as the rows are, as soon as the answers from before the rest are out of its cache."""
    states = dict(evidence.rows(sa.select(Job.state, sa.func.count()).group_by(Job.state)))
    for _ in range(_METRICS_LOOKS):
        text = evidence.client._request("GET", "/metrics").decode()
        families = {family.name: family for family in text_string_to_metric_families(text)}
        samples = families["carina_jobs"].samples
        counted = {sample.labels["state"]: int(sample.value) for sample in samples if sample.value}
        if counted == states:
            return
        time.sleep(1)
    yield f"/metrics counts {counted}, the rows are {states}"


def webhooks_arrived(evidence: Evidence) -> Iterator[str]:
    """Each job and submission that ended was announced at least once, with one id, and nothing unknown was."""
    ids: dict[str, set[str]] = defaultdict(set)
    said: dict[str, set[str]] = defaultdict(set)
    for message in evidence.messages:
        data = message.content["data"]
        subject = data.get("job_id") or data["submission_id"]
        ids[subject].add(message.id)
        said[subject].add(data["state"])
    jobs = {str(job_id): state for job_id, state in evidence.rows(sa.select(Job.id, Job.state))}
    for job_id, state in jobs.items():
        if len(ids[job_id]) != 1 or said[job_id] != {state}:
            yield f"job {job_id} is {state}; {len(ids[job_id])} messages said {sorted(said[job_id])}"
    bulks = {str(submission_id) for submission_id in evidence.ledger.bulks}
    for submission_id in bulks - ids.keys():
        yield f"the end of submission {submission_id} was not announced"
    for subject in ids.keys() - jobs.keys() - bulks:
        yield f"a message was about {subject}, which does not exist"


def messages_have_rows(evidence: Evidence) -> Iterator[str]:
    """Each message that arrived is a row, each row is delivered, and no job has two."""
    deliveries = {str(id_): state for id_, state in evidence.rows(sa.select(Delivery.id, Delivery.state))}
    for message_id in {message.id for message in evidence.messages} - deliveries.keys():
        yield f"message {message_id} arrived and has no row"
    for id_, state in deliveries.items():
        if state != DeliveryState.DELIVERED:
            yield f"delivery {id_} is {state}"
    job_id = Delivery.payload["job_id"].astext.label("job")
    of_jobs = sa.select(job_id).where(Delivery.event == WebhookEvent.JOB_FINISHED).group_by("job")
    for (subject,) in evidence.rows(of_jobs.having(sa.func.count() > 1)):
        yield f"job {subject} has two messages"


def trainings_ended_alike(evidence: Evidence) -> Iterator[str]:
    """Each training has a model, all with the same weights, and each evaluation has metrics."""
    runs = sa.select(TrainingRun, Model.weights_sha256).outerjoin(Model, Model.id == TrainingRun.model_id)
    columns = (TrainingRun.id, TrainingRun.state, TrainingRun.code, TrainingRun.reason)
    weights: dict[str, list[str]] = defaultdict(list)
    known = set()
    for run in evidence.rows(runs.with_only_columns(*columns, Model.weights_sha256)):
        known.add(run.id)
        if run.state != TaskState.SUCCEEDED or run.weights_sha256 is None:
            yield f"training {run.id} is {run.state} ({run.code}: {run.reason})"
        else:
            weights[run.weights_sha256].append(str(run.id))
    if len(weights) > 1:
        yield f"equal trainings ended with different weights: {list(weights.values())}"
    for run_id in set(evidence.ledger.trainings) - known:
        yield f"training {run_id} was accepted and does not exist"
    for row in evidence.rows(sa.select(Evaluation.id, Evaluation.state, Evaluation.metrics, Evaluation.code)):
        if row.state != TaskState.SUCCEEDED or not row.metrics:
            yield f"evaluation {row.id} is {row.state} ({row.code})"


def no_lease_is_left(evidence: Evidence) -> Iterator[str]:
    """Nothing is leased at rest, and no session of the database holds a transaction open."""
    for table in leased_tables():
        ((count,),) = evidence.rows(sa.select(sa.func.count()).where(table.lease_owner.is_not(None)))
        if count:
            yield f"{count} leases are left in {sa.inspect(table).local_table.name}"
    idle = "SELECT application_name, now() - xact_start FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
    for name, since in evidence.rows(sa.text(f"{idle} AND xact_start < now() - interval '10 seconds'")):
        yield f"a session of {name or 'a process'} has held a transaction for {since}"


def only_documented_answers(evidence: Evidence) -> Iterator[str]:
    """The API answered only with statuses that its description lists."""
    for (method, route, status), count in sorted(evidence.ledger.answers.items()):
        if not evidence.routes.is_documented(method, route, status):
            yield f"{method} {route} answered {status}, {count} times, which is not documented"


def clients_met_no_error(evidence: Evidence) -> Iterator[str]:
    """No client had an error beyond those that it expects."""
    yield from evidence.ledger.errors


CHECKS: tuple[Check, ...] = (
    every_file_has_one_end,
    one_result_for_each_image_and_model,
    boxes_are_right,
    cancelled_jobs_have_no_result,
    manifests_agree,
    counters_agree,
    webhooks_arrived,
    messages_have_rows,
    trainings_ended_alike,
    no_lease_is_left,
    only_documented_answers,
    clients_met_no_error,
)
