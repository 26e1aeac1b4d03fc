"""The intake API as a Flask application."""

from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI

from api.console import assets, model_pages, queue_page, schedule_pages, sign_in, training_pages, viewer, worklist
from api.contract.problems import Problem
from api.dicom.web import headers as dicom_headers
from api.dicom.web import qido, rendered, stow
from api.http import (
    address,
    audit,
    body,
    cors,
    docs,
    errors,
    headers,
    health,
    idempotency,
    limits,
    metrics,
    path_ids,
    request_metrics,
    text_checks,
    thread_shares,
)
from api.http.auth import authenticate
from api.http.json_body import Request
from api.http.services import NAME, Services
from api.operations import audit_events, keys, projects, queue, queue_metrics, queue_watch, webhooks
from api.reviews import reviews
from api.studies import exports, images, job_list, jobs, studies, study_list
from api.submissions import content, manifest, progress, submissions
from api.training import datasets, evaluations, gate_decisions, models, schedules, trainings, weights
from shared.settings import Settings


def create_app(settings: Settings) -> OpenAPI:
    """Build the application; it connects to nothing before the first request needs it."""
    app = OpenAPI(
        "api",
        info=Info(title="Carina", version="1", description=docs.INTRODUCTION),
        security_schemes={
            "bearer": {"type": "http", "scheme": "bearer"},
            # As the password; the user's name does not matter.
            "basic": {"type": "http", "scheme": "basic"},
        },
        validation_error_model=Problem,
        validation_error_callback=errors.reject_parameters,
        doc_ui=False,
        static_folder=None,
    )
    services = Services.from_settings(settings)
    app.extensions[NAME] = services
    request_metrics.install(app, services)
    headers.install(app)
    address.install(app, settings)
    app.request_class = Request
    queue_watch.install(app, services)
    queue_metrics.install(services)
    dicom_headers.install(app, services)
    body.install(app)
    cors.install(app, settings)
    app.before_request(authenticate)
    errors.install(app)
    app.before_request(body.bound)
    limits.install(app, settings)
    text_checks.install(app)
    path_ids.install(app)
    thread_shares.install(app, settings)
    app.before_request(body.read_chunks)
    idempotency.install(app)
    audit.install(app)
    for resource in (
        studies,
        exports,
        study_list,
        submissions,
        content,
        progress,
        manifest,
        jobs,
        job_list,
        queue,
        images,
        reviews,
        models,
        weights,
        datasets,
        trainings,
        evaluations,
        schedules,
        gate_decisions,
        health,
        metrics,
        audit_events,
        webhooks,
        keys,
        projects,
        stow,
        qido,
        rendered,  # with the routes of `wado`
    ):
        _register(app, resource.blueprint)
    app.register_blueprint(docs.blueprint)
    for page in (assets, sign_in, viewer, queue_page, training_pages, model_pages, schedule_pages, worklist):
        app.register_blueprint(page.blueprint)
    return app


def _register(app: OpenAPI, blueprint: APIBlueprint) -> None:
    """Register a blueprint; of a path that several have, flask-openapi3 would describe the last one's methods only."""
    known = dict(app.paths)
    app.register_api(blueprint)
    for path in known.keys() & blueprint.paths.keys():
        item = blueprint.paths[path]
        methods = {method: getattr(item, method) for method in item.model_fields_set}
        app.paths[path] = known[path].model_copy(update=methods)
