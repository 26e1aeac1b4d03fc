"""`carina reviews`: what readers say of an image."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from deploy.cli.clients import connect
from deploy.cli.console import is_json, out, print_json
from deploy.cli.environment import Data
from deploy.cli.model_names import name_model, warnings_of
from deploy.cli.tables import Column, Table

if TYPE_CHECKING:  # the HTTP client is only loaded by the commands that use it
    from api.client import ReviewAnswer


def reviews(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="An image, as `findings` prints it.")],
    job: Annotated[
        str | None, typer.Option("--job", help="Job of the result.", show_default="the active model's")
    ] = None,
    data: Data = None,
) -> None:
    """Show what readers say of an image: its findings as they stand, and who said what."""
    with connect(data) as client:
        job_id = client.find_id(job, "job") if job else None
        review = client.review(client.find_id(image, "image"), job_id=job_id)
    if is_json():
        print_json(review)
        return
    _print_findings(review)
    _print_events(review)
    looked_at = f" for scores from {review.complete_from_score:g}" if review.complete_from_score is not None else ""
    done = f"done{looked_at}" if review.is_complete else "not done"
    out.print(f"job {review.job_id}, model {escape(name_model(review.model))}: the review is {done}", soft_wrap=True)
    for warning in warnings_of([review.model]):
        out.print(warning)
    out.print(f"[dim]{review.notice}[/]")


def _print_findings(review: "ReviewAnswer") -> None:
    table = Table("id", "finding", "score", "box (x, y, x, y in pixels)", "verdict")
    for finding in review.findings:
        score = "drawn" if finding.score is None else f"{finding.score:.2f}"
        box = ", ".join(f"{value:.0f}" for value in finding.box_xyxy_px)
        verdict = f"{finding.verdict}{', changed' if finding.is_changed else ''}"
        table.add_row(finding.id, escape(finding.class_name), score, box, verdict)
    out.print(table)


def _print_events(review: "ReviewAnswer") -> None:
    table = Table(Column("event", justify="right"), "when (UTC)", "reader", "said", "of")
    for event in review.events:
        of = f"event {event.undoes}" if event.undoes is not None else event.finding_id or ""
        said = f"{event.action} {event.class_name or ''}".strip()
        when = f"{event.created_at:%Y-%m-%d %H:%M:%S}"
        table.add_row(str(event.number), when, escape(event.reader), escape(said), of)
    out.print(table)
