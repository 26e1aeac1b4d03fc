"""The intake API as a Flask application."""

from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI

from api import (
    address,
    audit,
    body,
    content,
    cors,
    datasets,
    docs,
    errors,
    evaluations,
    gate_decisions,
    headers,
    health,
    idempotency,
    images,
    job_list,
    jobs,
    limits,
    manifest,
    metrics,
    models,
    naming,
    odd_text,
    progress,
    queue,
    reviews,
    schedules,
    studies,
    study_list,
    submissions,
    thread_shares,
    trainings,
    webhooks,
)
from api.auth import authenticate
from api.console import assets, model_pages, queue_page, schedule_pages, sign_in, training_pages, viewer, worklist
from api.dicomweb import qido, rendered, stow
from api.json_body import Request
from api.schemas import NOTICE, Problem
from api.services import NAME, Services
from shared.settings import Settings


def create_app(settings: Settings) -> OpenAPI:
    """Build the application; it connects to nothing before the first request needs it."""
    app = OpenAPI(
        "api",
        info=Info(title="Carina", version="1", description=f"Findings on chest radiographs. {NOTICE}"),
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
    headers.install(app)
    address.install(app, settings)
    app.request_class = Request
    app.extensions[NAME] = Services.from_settings(settings)
    body.install(app)
    cors.install(app, settings)
    app.before_request(authenticate)
    errors.install(app)
    app.before_request(body.bound)
    limits.install(app, settings)
    odd_text.install(app)
    naming.install(app)
    thread_shares.install(app, settings)
    app.before_request(body.read_chunks)
    idempotency.install(app)
    audit.install(app)
    for resource in (
        studies,
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
        datasets,
        trainings,
        evaluations,
        schedules,
        gate_decisions,
        health,
        metrics,
        audit,
        webhooks,
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
