"""Examples for the API's description, made from its schemas and one table of values by field.

A new field needs a line here only if its schema has no default, no enumeration and no `examples`. A test checks every
example against its schema.
"""

from collections.abc import Mapping
from typing import Any

from shared.version import RENDITION_VERSION

_STUDY, _IMAGE, _JOB, _MODEL, _OLD_MODEL = (f"01930f3e-7c0{n}-7a10-8d3e-2f6b9c1d4e5{n}" for n in range(5))
_SUBMISSION, _DATASET, _RUN, _KEY = (f"01930f3e-7c0{n}-7a10-8d3e-2f6b9c1d4e5{n}" for n in range(5, 9))
_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_UID = "1.2.826.0.1.3680043.8.498.1"
_AT, _STARTED, _ENDED = "2026-01-15T09:30:00Z", "2026-01-15T09:30:02Z", "2026-01-15T09:30:05Z"

#: Values by `Schema.field`, by `field`, or by a parameter's name.
VALUES: dict[str, Any] = {
    # ids, names, times
    "id": _RUN, "study_id": _STUDY, "image_id": _IMAGE, "job_id": _JOB, "model_id": _MODEL, "dataset_id": _DATASET,
    "submission_id": _SUBMISSION, "training_id": _RUN, "evaluation_id": _RUN, "schedule_id": _RUN, "webhook_id": _RUN,
    "decision_id": _RUN, "delivery_id": _RUN, "api_key_id": _KEY, "project_id": None, "study_ids": [_STUDY],
    "StudyAnswer.id": _STUDY, "StudySummary.id": _STUDY, "ImageAnswer.id": _IMAGE, "JobAnswer.id": _JOB,
    "ModelAnswer.id": _MODEL, "ModelReference.id": _MODEL, "SubmissionAnswer.id": _SUBMISSION,
    "DatasetAnswer.id": _DATASET, "WorkerAnswer.id": "detect@gpu-1:4711:9b1c4d2e",
    "ReviewedFindingAnswer.id": "model-0", "candidate_model_id": _MODEL, "baseline_model_id": _OLD_MODEL,
    "training_run_id": _RUN, "candidate_evaluation_id": _RUN, "baseline_evaluation_id": _RUN,
    "evaluation_dataset_id": _DATASET, "next": None, "previous": None, "before": _RUN, "study_uid": _UID,
    "series_uid": f"{_UID}.1", "instance_uid": f"{_UID}.1.1", "study_instance_uid": _UID, "created_at": _AT,
    "ready_at": _STARTED, "started_at": _STARTED, "finished_at": _ENDED, "closed_at": _STARTED, "promoted_at": _AT,
    "retired_at": None, "seen_at": _ENDED, "available_at": _AT, "expires_at": _ENDED, "latest_at": _AT, "due_at": None,
    "late_s": None, "next_at": "2026-01-18T02:00:00Z", "last_at": _AT, "since": "2026-01-15",
    "until": "2026-01-16T12:00:00Z", "at": [_AT], "name": "chest", "AnnouncedFile.name": "chest-001.dcm",
    "ManifestRow.name": "chest-001.dcm", "FileOutcome.name": "chest-001.dcm", "InvalidParameter.name": "priority",
    "ModelAnswer.name": "chest-2026-01", "ModelReference.name": "chest-2026-01", "model_name": "chest-2026-01",
    "dataset_name": "chest", "dataset": "chest", "ScheduleAnswer.name": "weekly", "ScheduleRequest.name": "weekly",
    "file_name": "images/0042.dicom", "number": 0, "numbers": [0, 1], "frames": "1", "attempt": 1, "priority": 5,
    "digest": _SHA256, "sha256": _SHA256, "config_digest": _SHA256, "byte_count": 9437184, "code_version": "1.4.0",
    # states and reasons
    "state": "succeeded", "ModelAnswer.state": "active", "ModelReference.state": "active", "Upload.state": "expected",
    "DeliveryAnswer.state": "delivered", "SubmissionAnswer.state": "completed", "FailureAnswer.state": "failed",
    "code": None, "reason": None, "FailureAnswer.code": "worker_lost", "RetryRequest.code": "worker_lost",
    "FailureAnswer.reason": "The worker that had the job stopped responding.", "FailedImage.code": "image_missing",
    "FailedImage.reason": "There is no file for this image.", "PromotionRequest.reason": "Checked on our own images.",
    "outcome": "accepted", "ManifestRow.outcome": "succeeded", "last_outcome": f"Started run {_RUN}.", "notes": [],
    "status": 201, "Readiness.status": "ready", "review": "done", "states": {"succeeded": 1}, "problems": [],
    "progress": {"what": "rendering", "done": 400, "total": 400, "failed": 0}, "actor": None,
    # images and findings
    "media_type": "application/dicom", "height_px": 3000, "width_px": 2500, "burned_in_annotation": False,
    "row_mm": 0.15, "column_mm": 0.15, "PixelSpacing.source": "detector", "flags": [], "flag": "rotated",
    "grey_levels": ["window"], "rendition_version": RENDITION_VERSION, "ChestScores.classifier": _SHA256[:12],
    "scores": {"frontal": 0.98, "other": 0.01}, "class_id": 3, "class_name": "Cardiomegaly", "finding": "Cardiomegaly",
    "score": 0.87, "min_score": 0.3, "box_xyxy_px": [912.5, 1410.0, 1803.0, 1995.5],
    "box_xyxy_mm": [136.875, 211.5, 270.45, 299.325], "finding_id": "model-0", "is_authoritative": True,
    "abnormality": 0.91, "other_results": [], "trained_on": "VinDr-CXR", "warnings": ["Not validated for children."],
    "image_count": 1, "authoritative_results": 1, "images": 1, "objects_left": 0, "q": _UID, "verdict": "accepted",
    "is_changed": False, "is_complete": True, "complete_from_score": 0.3, "last_event": 2, "after": 2,
    "may_undo": True, "may_redo": False, "undoes": None, "reader": "reader-1", "ReviewEventAnswer.action": "accept",
    "ReviewEventAnswer.number": 1,
    # submissions and uploads
    "source": None, "file_count": 1, "codes": {}, "files_per_s": 0.2, "eta_s": 0.0, "archive_number": None,
    "entry_number": None, "url": f"/v1/submissions/{_SUBMISSION}/files/0/content", "through_api": True, "parts": None,
    "headers": {}, "offset": 0, "retried": 1, "to_upload": 0, "from": None, "Counts.succeeded": 1,
    # webhooks
    "WebhookRequest.url": "https://hospital.example/carina", "WebhookAnswer.url": "https://hospital.example/carina",
    "WebhookChange.url": "https://hospital.example/carina", "WebhookCreated.url": "https://hospital.example/carina",
    "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "events": ["job.finished"], "TrainingAnswer.events": [1],
    "DeliveryAnswer.event": "job.finished",
    "payload": {"job_id": _JOB, "image_id": _IMAGE, "study_id": _STUDY, "model_id": _MODEL, "state": "succeeded"},
    "response_status": 204,
    # the queue
    "jobs": {"queued": 12, "preparing": 2, "ready": 8, "detecting": 8}, "oldest_waiting_s": {"prepare": 3.1},
    "finished_last_minute": {"succeeded": 310}, "finished_last_day": {"succeeded": 41200, "rejected": 17},
    "batch_images": 7.6, "batch_size": 16, "step_s": 0.051, "kind": "training", "waiting": 0, "running": 1,
    "device": "cuda:0", "alive": True, "batches": 900, "WorkerAnswer.images": 7200, "stage": "detect", "count": 3,
    "HistoryAnswer.queued": [12], "HistoryAnswer.preparing": [2], "HistoryAnswer.ready": [8],
    "HistoryAnswer.detecting": [8], "HistoryAnswer.oldest_waiting_s": [3.1], "succeeded_per_min": [310.0],
    "rejected_per_min": [0.0], "failed_per_min": [0.0], "HistoryAnswer.batch_images": [7.6],
    "HistoryAnswer.step_s": [0.051], "to_prepare": 2, "to_detect": 1, "PriorityAnswer.jobs": 12,
    "files": 3, "PriorityRequest.id": _SUBMISSION, "wait": 20, "hours": 24,
    # training
    "config": {"epochs": 20, "learning_rate": 0.005}, "EvaluationAnswer.config": {"split": "val"},
    "GateDecisionAnswer.config": {"evaluation_dataset_id": _DATASET, "least_gain": 0.0}, "recipe": "default",
    "gate": None, "metrics": {"images": 1500, "map40": {"value": 0.276, "low": 0.262, "high": 0.291}}, "step": 1200,
    "epoch": 1.5, "values": {"loss": 0.61}, "model": "active", "cron": "0 3 * * 0", "time_zone": "Europe/Berlin",
    "skip_unchanged": True, "enabled": True, "overlap": "skip", "promoted": True,
    "figures": {"passes": True, "candidate_map40": 0.276, "active_map40": 0.251, "gain": 0.025},
    "explanation": "Promoted. The gain of 0.0250 is above the minimum gain of 0.0000.",
    "DatasetAnswer.source": {"format": "phantoms", "films": 400}, "box_count": 310, "failure_count": 0,
    "DatasetAnswer.image_count": 400,
    "summary": {"splits": {"train": {"images": 320, "without_findings": 90, "patients": 320, "boxes": 248}}},
    "card": {"architecture": "fasterrcnn_resnet50_fpn"}, "Consensus.readers": ["R8", "R9", "R10"],
    "annotations": "import/train.csv", "VinBigDataSource.images": "import/images/",
    # keys
    "prefix": "3f2a9c1b7d04", "project": "hospital-a", "scopes": ["submit", "read"], "KeyAnswer.expires_at": None,
    "KeyCreated.expires_at": None, "KeyRequest.expires_at": "2027-01-15T00:00:00Z", "KeyAnswer.name": "gateway",
    "KeyCreated.name": "gateway", "KeyRequest.name": "gateway", "rate_limit": "600/minute", "files_per_day": 10000,
    "bytes_per_day": None, "revoked_at": None, "key": "carina_3f2a9c1b7d04_EXAMPLE", "api_key_prefix": "3f2a9c1b7d04",
    "named": "chest", "ModelRequest.card": {"name": "chest-2026-01", "weights_sha256": _SHA256, "canvas_px": 1024},
    # operations
    "dependencies": {"database": {"ok": True, "code": None, "detail": None}},
    "InvalidParameter.detail": "Input should be less than or equal to 9", "degraded": [], "action": "images.rendition",
    "subject": {"image_id": _IMAGE}, "remote_address": "192.0.2.7", "AuditEventAnswer.status": 200,
    # projects
    "ProjectAnswer.name": "hospital-a", "original_bytes": 1720000000, "rendition_bytes": 41000000, "is_own": True,
    "RetentionAnswer.kind": "originals", "RetentionAnswer.days": 365, "RetentionRequest.days": {"originals": 365},
    "ProjectAnswer.images": 182, "patient_id": "4711", "ModelLearnt.name": "chest-2026-01", "learnt": [],
    "ModelLearnt.state": "active",
    # DICOMweb
    "includefield": ["StudyDescription"], "fuzzymatching": "false", "StudyInstanceUID": _UID,
    "SeriesInstanceUID": f"{_UID}.1", "SOPInstanceUID": f"{_UID}.1.1", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1",
    "Modality": "DX", "ModalitiesInStudy": "DX", "viewport": "512,512", "Idempotency-Key": "batch-7-part-3",
}  # fmt: skip


_NONE = object()


class NoExample(LookupError):
    """A field has no example: add it to `VALUES`."""


def example_of(schema: Mapping[str, Any], schemas: Mapping[str, Any], name: str = "") -> Any:
    """Return an example for a schema; `schemas` are those of the document, `name` is `Schema.field` or a parameter."""
    for key in (name, name.rpartition(".")[2]):
        if key in VALUES and _fits(VALUES[key], schema, schemas):
            return VALUES[key]
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return example_of(schemas[name], schemas, name)
    if (stated := _stated(schema)) is not _NONE:
        return stated
    if choices := [*schema.get("anyOf", ()), *schema.get("oneOf", ())]:
        return example_of(choices[0], schemas, name)
    if "properties" in schema:
        title = name or schema.get("title", "")
        return {field: example_of(inner, schemas, f"{title}.{field}") for field, inner in schema["properties"].items()}
    if schema.get("type") == "array":
        return [example_of(schema["items"], schemas, name)]
    raise NoExample(name)


def _stated(schema: Mapping[str, Any]) -> Any:
    """Return the value that a schema states itself; `_NONE` if there is none."""
    if "const" in schema:
        return schema["const"]
    if "examples" in schema:
        return schema["examples"][0]
    if schema.get("default", []) not in ([], {}):
        return schema["default"]
    return schema["enum"][0] if "enum" in schema else _NONE


def _fits(value: Any, schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> bool:
    """Whether a value has the type of a schema, so that a field of the same name elsewhere does not get it."""
    if "$ref" in schema:
        return _fits(value, schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if choices := [*schema.get("anyOf", ()), *schema.get("oneOf", ())]:
        return any(_fits(value, each, schemas) for each in choices)
    if "enum" in schema or "const" in schema:
        return value in schema.get("enum", [schema.get("const")])
    match schema.get("type"):
        case "array":
            items = schema.get("items", {})
            return isinstance(value, list) and all(_fits(each, items, schemas) for each in value)
        case "object":
            return isinstance(value, dict) and (
                "properties" not in schema or schema["properties"].keys() >= value.keys()
            )
        case "string":
            return isinstance(value, str) and (schema.get("format") != "uuid" or len(value) == 36)
        case "integer" | "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
    return True
