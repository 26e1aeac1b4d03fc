"""Metrics of this process's requests: how long they take, and their bytes. Prometheus adds up the processes."""

import time

from flask import Flask, Response, g, request
from prometheus_client import Counter, Gauge, Histogram

from api.http.services import Services
from shared.processes.scratch import free_bytes

#: Uploads of archives take minutes.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
#: The route of a request whose path has none: the paths themselves would be endless.
_NO_ROUTE = "none"


def install(app: Flask, services: Services) -> None:
    """Measure all requests of `app`. Call it before anything that may answer."""
    registry = services.registry
    took = Histogram(
        "carina_http_request_seconds",
        "Seconds from the headers of a request to the headers of its answer.",
        labelnames=["method", "route", "status"],
        buckets=_BUCKETS,
        registry=registry,
    )
    received = Counter("carina_http_received_bytes", "Bytes of request bodies.", registry=registry)
    sent = Counter("carina_http_sent_bytes", "Bytes of answers whose length is known.", registry=registry)
    free = Gauge("carina_free_disk_bytes", "Free bytes of the disk with temporary files.", registry=registry)
    free.set_function(free_bytes)

    def begin() -> None:
        g.begun_at = time.monotonic()

    def end(response: Response) -> Response:
        route = request.url_rule.rule if request.url_rule else _NO_ROUTE
        status = f"{response.status_code // 100}xx"
        took.labels(request.method, route, status).observe(time.monotonic() - g.begun_at)
        received.inc(request.content_length or 0)
        sent.inc(response.content_length or 0)
        return response

    app.before_request(begin)
    app.after_request(end)
