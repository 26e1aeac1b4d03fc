"""A typed client of the API. It imports nothing of the server but the schemas, and so needs no Flask."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from uuid import UUID

import httpx
from pydantic import BaseModel, ValidationError
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from api.schemas import (
    FileOutcome,
    FileOutcomes,
    Finding,
    FindingsAnswer,
    ImageFindings,
    JobAnswer,
    ModelAnswer,
    ModelsAnswer,
    Problem,
    StudyAnswer,
)
from api.training_schemas import EvaluationAnswer, EvaluationRequest, TaskAnswer, TrainingAnswer, TrainingRequest
from shared.errors import CarinaError, TransientError
from shared.training import EvaluationConfig, GateConfig

__all__ = [
    "ApiUnavailable",
    "Carina",
    "EvaluationAnswer",
    "FileOutcome",
    "Finding",
    "FindingsAnswer",
    "ImageFindings",
    "JobAnswer",
    "ModelAnswer",
    "RequestRefused",
    "StudyAnswer",
    "TrainingAnswer",
]

#: A request ends with the file that brings it to either; what breaks off is sent again as a whole.
BUNDLE_BYTES, BUNDLE_FILES = 64 * 1024**2, 50
LONG_POLL_S = 20.0
#: Between two looks at a job where the server did not wait.
_PAUSE_S = 0.5
#: Between two looks at what takes minutes or hours.
TASK_PAUSE_S = 2.0
_UNAVAILABLE = {502, 503, 504}

Answer = TypeVar("Answer", bound=BaseModel)
Task = TypeVar("Task", bound=TaskAnswer)
Params = Mapping[str, str | float]


class ApiUnavailable(TransientError):
    """The API does not answer."""

    code = "api_unavailable"


class RequestRefused(CarinaError):
    """The API answered with an error; `code` and the text are the answer's own."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.code = problem.code
        self.status = problem.status


class Carina:
    """The API at one URL, under one key. Use it in a `with` block, or call `close`.

    Every method raises `RequestRefused` for an error answer, and `ApiUnavailable` when there was no answer for
    `retry_for_s`. Until then a request is tried again with a growing pause, which does no harm: a file that did arrive
    is answered as a duplicate.
    """

    def __init__(self, api_url: str, api_key: str, *, retry_for_s: float = 60) -> None:
        self.api_url = api_url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.api_url,
            headers={"Authorization": f"Bearer {api_key}"},
            # To read: the longest of a long poll and of storing a large file after its last byte.
            timeout=httpx.Timeout(30, read=120),
        )
        self._retrying = Retrying(
            retry=retry_if_exception_type(ApiUnavailable),
            stop=stop_after_delay(retry_for_s),
            wait=wait_random_exponential(multiplier=0.3, max=10),
            reraise=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def submit(
        self,
        paths: Iterable[Path],
        *,
        priority: int = 5,
        model_id: UUID | None = None,
        on_file: Callable[[FileOutcome], object] = lambda _: None,
    ) -> list[FileOutcome]:
        """Send files, streamed from disk; return what became of each, in their order. `on_file` hears of each."""
        params: Params = {"priority": priority} | ({"model_id": str(model_id)} if model_id else {})
        outcomes = []
        for bundle in _bundles(paths):
            answer = self._request("POST", "/v1/studies", params, files=bundle)
            for outcome in FileOutcomes.model_validate_json(answer).files:
                outcomes.append(outcome)
                on_file(outcome)
        return outcomes

    def job(self, job_id: UUID, *, wait_s: float = 0) -> JobAnswer:
        """Return a job; with `wait_s`, once it is final or the time (60 s at most) is over."""
        return self._get(JobAnswer, f"/v1/jobs/{job_id}", wait=wait_s)

    def wait(
        self,
        job_ids: Iterable[UUID],
        *,
        timeout_s: float = float("inf"),
        on_job: Callable[[JobAnswer], object] = lambda _: None,
    ) -> list[JobAnswer]:
        """Wait until all jobs are final or the time is over; return them as they are. `on_job` hears of each end."""
        deadline = time.monotonic() + timeout_s
        return [self._wait_for(job_id, deadline, on_job) for job_id in dict.fromkeys(job_ids)]

    def cancel(self, job_id: UUID) -> JobAnswer:
        """Cancel a job; refused with `job_is_final` when it has come to its end."""
        return JobAnswer.model_validate_json(self._request("POST", f"/v1/jobs/{job_id}/cancel"))

    def study(self, study_id: UUID) -> StudyAnswer:
        """Return a study with its images and their jobs."""
        return self._get(StudyAnswer, f"/v1/studies/{study_id}")

    def findings(self, study_id: UUID, *, min_score: float = 0.0) -> FindingsAnswer:
        """Return what was found on a study's images."""
        return self._get(FindingsAnswer, f"/v1/studies/{study_id}/findings", min_score=min_score)

    def rendition(self, image_id: UUID) -> bytes:
        """Return the picture that the detector sees, as a PNG file."""
        return self._request("GET", f"/v1/images/{image_id}/rendition.png")

    def overlay(self, image_id: UUID, *, min_score: float = 0.3) -> bytes:
        """Return the rendition with its findings drawn on it, as a PNG file."""
        return self._request("GET", f"/v1/images/{image_id}/overlay.png", {"min_score": min_score})

    def models(self) -> list[ModelAnswer]:
        """Return every model, the newest first."""
        return self._get(ModelsAnswer, "/v1/models").models

    def train(
        self,
        dataset: str,
        *,
        recipe: str = "default",
        config: Mapping[str, Any] | None = None,
        gate: GateConfig | None = None,
        name: str | None = None,
    ) -> TrainingAnswer:
        """Ask for a training on a dataset's id or name; `config` holds what differs from the recipe.

        Sent once only: a second try after a lost answer could begin a second training.
        """
        body = TrainingRequest(dataset=dataset, recipe=recipe, config=dict(config or {}), gate=gate, name=name)
        return TrainingAnswer.model_validate_json(self._attempt("POST", "/v1/trainings", {}, body=body))

    def training(self, training_id: UUID) -> TrainingAnswer:
        """Return where a training stands."""
        return self._get(TrainingAnswer, f"/v1/trainings/{training_id}")

    def wait_training(
        self,
        training_id: UUID,
        *,
        timeout_s: float = float("inf"),
        on_progress: Callable[[TrainingAnswer], object] = lambda _: None,
    ) -> TrainingAnswer:
        """Wait until a training is final or the time is over; return it as it is. `on_progress` hears of each look."""
        return _await_end(lambda: self.training(training_id), timeout_s, on_progress)

    def cancel_training(self, training_id: UUID) -> TrainingAnswer:
        """End a training; refused with `task_is_final` when it has come to its end."""
        return TrainingAnswer.model_validate_json(self._request("POST", f"/v1/trainings/{training_id}/cancel"))

    def evaluate(
        self, dataset: str, *, model: UUID | Literal["active"] = "active", config: EvaluationConfig | None = None
    ) -> EvaluationAnswer:
        """Ask for an evaluation of a model on a dataset's id or name; sent once only, like `train`."""
        body = EvaluationRequest(model=model, dataset=dataset, config=config or EvaluationConfig())
        return EvaluationAnswer.model_validate_json(self._attempt("POST", "/v1/evaluations", {}, body=body))

    def evaluation(self, evaluation_id: UUID) -> EvaluationAnswer:
        """Return an evaluation, with its metrics once it has succeeded."""
        return self._get(EvaluationAnswer, f"/v1/evaluations/{evaluation_id}")

    def wait_evaluation(self, evaluation_id: UUID, *, timeout_s: float = float("inf")) -> EvaluationAnswer:
        """Wait until an evaluation is final or the time is over; return it as it is."""
        return _await_end(lambda: self.evaluation(evaluation_id), timeout_s)

    def report(self, evaluation_id: UUID) -> bytes:
        """Return an evaluation's report, an HTML page."""
        return self._request("GET", f"/v1/evaluations/{evaluation_id}/report")

    def _wait_for(self, job_id: UUID, deadline: float, on_job: Callable[[JobAnswer], object]) -> JobAnswer:
        while True:
            asked = time.monotonic()
            job = self.job(job_id, wait_s=min(LONG_POLL_S, max(0.0, deadline - asked)))
            if job.state.is_final:
                on_job(job)
                return job
            now = time.monotonic()
            if now >= deadline:
                return job
            # The server answers early when too many wait, or when it is about to end.
            time.sleep(max(0.0, min(deadline - now, asked + _PAUSE_S - now)))

    def _get(self, answer: type[Answer], path: str, **params: float) -> Answer:
        return answer.model_validate_json(self._request("GET", path, params))

    def _request(self, method: str, path: str, params: Params | None = None, files: Sequence[Path] = ()) -> bytes:
        return self._retrying(self._attempt, method, path, params or {}, files)

    def _attempt(
        self, method: str, path: str, params: Params, files: Sequence[Path] = (), body: BaseModel | None = None
    ) -> bytes:
        with ExitStack() as opened:
            parts = [("files", (file.name, opened.enter_context(file.open("rb")))) for file in files]
            try:
                json = None if body is None else body.model_dump(mode="json")
                response = self._http.request(method, path, params=params, files=parts or None, json=json)
            except httpx.TransportError as exc:
                raise ApiUnavailable(f"The API at {self.api_url} does not answer ({type(exc).__name__}).") from exc
        if response.status_code in _UNAVAILABLE:
            raise ApiUnavailable(_problem(response).detail)
        if not response.is_success:
            raise RequestRefused(_problem(response))
        return response.content


def _bundles(paths: Iterable[Path]) -> Iterator[list[Path]]:
    """Cut the files into what goes into one request."""
    bundle: list[Path] = []
    byte_count = 0
    for path in paths:
        size = path.stat().st_size
        if bundle and (byte_count + size > BUNDLE_BYTES or len(bundle) == BUNDLE_FILES):
            yield bundle
            bundle, byte_count = [], 0
        bundle.append(path)
        byte_count += size
    if bundle:
        yield bundle


def _await_end(look: Callable[[], Task], timeout_s: float, on_look: Callable[[Task], object] = lambda _: None) -> Task:
    deadline = time.monotonic() + timeout_s
    while True:
        task = look()
        on_look(task)
        left_s = deadline - time.monotonic()
        if task.state.is_final or left_s <= 0:
            return task
        time.sleep(min(TASK_PAUSE_S, left_s))


def _problem(response: httpx.Response) -> Problem:
    """Read an error answer; one that a proxy made is no problem document."""
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        phrase = response.reason_phrase or "error"
        detail = f"The server answered {response.status_code} {phrase}."
        return Problem(title=phrase, status=response.status_code, detail=detail, code="unknown_error")
