"""`carina demo`: sends phantom studies through the whole system and compares planted lesions with findings."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import httpx
import numpy as np
import typer
from rich.progress import track

from api.client import Carina, FileOutcome, Finding, ImageFindings
from api.contract.models import ModelReference
from deploy.cli.clients import await_jobs, connect, send
from deploy.cli.console import complain, err, is_json, story, tell
from deploy.cli.demo_training import teach
from deploy.cli.environment import NoStack, client_settings_of, read_environment
from deploy.cli.exits import Exit
from deploy.cli.model_names import warnings_of
from deploy.cli.tables import Table
from deploy.stack import processes
from shared.detector.boxes import iou
from shared.network.proxies import http_client
from shared.phantoms import Lesion
from shared.phantoms.demo import bad_files, demo_studies
from shared.settings import ClientSettings

#: A planted lesion counts as found when a finding of its class overlaps it by more than this (VinBigData's rule).
MIN_IOU = 0.4
SHOWN_FROM_SCORE = 0.3
STACK_TIMEOUT_S = 120


def demo(data: Path, *, exit_when_done: bool, studies: int, seed: int, train: bool) -> None:
    """Start the stack, send synthetic chest images and bad files, show the findings, and keep running.

    With `train`, half of the images are a second machine's, which the model is taught first. Raises `typer.Exit` with
    `Exit.NO_RESULT` when a file has not the outcome that it should have.
    """
    with _stack(data) as ours:
        if train:
            teach(data)
        images = _draw(data / "demo", studies, seed, negatives=train)
        wrong = {name: (path, code) for name, path, code in _write_bad_files(data / "demo")}
        with connect(data) as client:
            begun = time.monotonic()
            outcomes = send(client, [*(path for path, _ in images), *(path for path, _ in wrong.values())])
            jobs = [outcome.job_id for outcome in outcomes if outcome.job_id]
            states = await_jobs(client, jobs, timeout_s=600)
            took_s = time.monotonic() - begun
            by_name = {outcome.name: outcome for outcome in outcomes}
            shown = _show_findings(client, images, by_name, data / "demo" / "overlays")
            _show_bad_files(client, wrong, by_name)
            lost = _lost(images, wrong, by_name, states, client)
            new = sum(outcome.outcome == "accepted" for outcome in outcomes)
            if new:
                story().print(f"throughput: {new} new images in {took_s:.1f} s, {new / took_s:.2f} images/s")
            else:
                story().print(
                    "These images were known from an earlier run, so nothing had to be computed; --seed draws others."
                )
            _show_urls(client_settings_of(data), by_name[images[0][0].name])
            if is_json():
                refused = {name: _code_of(client, by_name[name]) for name in wrong}
                tell({"films": shown, "bad_files": refused, "new": new, "took_s": round(took_s, 1), "lost": lost})
        if lost:
            complain(f"{len(lost)} of {len(outcomes)} files have no right outcome: {', '.join(lost)}")
            raise typer.Exit(Exit.NO_RESULT)
        story().print(f"[green]nothing was lost:[/] each of {len(outcomes)} files has its outcome")
        if ours is not None and not exit_when_done:
            story().print("The stack stays up; Ctrl-C stops it.")
            ours.wait()


@contextmanager
def _stack(data: Path) -> Iterator[subprocess.Popen[bytes] | None]:
    """Use the stack that runs in the folder, or start one and stop it at the end."""
    if is_up(data):
        story().print(f"using the stack that is up in {data}")
        yield None
        return
    command = [sys.executable, "-m", "deploy.cli", "up", "--data", str(data)]
    # In a session of its own, so that Ctrl-C ends the stack only after this process has finished with it.
    stops = processes.die_with_parent(signal.SIGTERM)
    said = sys.stderr if is_json() else None
    with subprocess.Popen(command, start_new_session=True, preexec_fn=stops, stdout=said) as stack:
        try:
            deadline = time.monotonic() + STACK_TIMEOUT_S
            while not is_up(data):
                if stack.poll() is not None or time.monotonic() > deadline:
                    complain("The stack did not come up.")
                    raise typer.Exit(1)
                time.sleep(0.2)
            yield stack
        except KeyboardInterrupt:
            pass
        finally:
            if stack.poll() is None:
                stack.send_signal(signal.SIGTERM)


def is_up(data: Path) -> bool:
    """Whether a stack runs in the folder and its API is ready. A killed stack leaves its files there."""
    try:
        read_environment(data)
        with http_client(timeout=5) as client:
            return client.get(f"{os.environ.get('CARINA_API_URL', '')}/readyz").is_success
    except (NoStack, httpx.HTTPError):
        return False


def _draw(folder: Path, count: int, seed: int, *, negatives: bool) -> list[tuple[Path, Sequence[Lesion]]]:
    folder.mkdir(parents=True, exist_ok=True)
    images: list[tuple[Path, Sequence[Lesion]]] = []
    for name, content, phantom in track(
        demo_studies(count, seed, negatives=negatives), "drawing   ", total=count, console=err
    ):
        (folder / name).write_bytes(content)
        images.append((folder / name, phantom.lesions))
    return images


def _write_bad_files(folder: Path) -> Iterator[tuple[str, Path, str]]:
    for name, content, code in bad_files():
        (folder / name).write_bytes(content)
        yield name, folder / name, code


def _show_findings(
    client: Carina,
    images: Sequence[tuple[Path, Sequence[Lesion]]],
    by_name: dict[str, FileOutcome],
    overlays: Path,
) -> list[dict[str, object]]:
    """Show the planted lesions of each image and whether they were found; return the same as JSON."""
    table = Table("image", "planted", "found", "other findings", title="Planted lesions and findings")
    overlays.mkdir(exist_ok=True)
    pictures, shown = [], []
    models: list[ModelReference] = []
    planted = hit = 0
    for path, lesions in images:
        outcome = by_name[path.name]
        if outcome.study_id is None or outcome.image_id is None:
            continue
        image = _image_of(client, outcome.study_id, outcome.image_id)
        findings = image.findings
        models += [image.model] if image.model else []
        matched = [_match(lesion, findings) for lesion in lesions]
        others = [finding for finding in findings if finding not in matched]
        shown.append(
            {
                "film": path.name,
                "study_id": outcome.study_id,
                "planted": [lesion.class_name for lesion in lesions],
                "found": [match is not None for match in matched],
                "others": [finding.class_name for finding in others],
            }
        )
        planted += len(lesions)
        hit += sum(match is not None for match in matched)
        table.add_row(
            path.stem,
            "\n".join(lesion.class_name for lesion in lesions) or "nothing",
            "\n".join(f"yes, {match.score:.2f}" if match else "[yellow]missed[/]" for match in matched),
            "\n".join(f"{finding.class_name} {finding.score:.2f}" for finding in others),
            end_section=True,
        )
        if findings:
            pictures.append(overlays / f"{path.stem}.png")
            pictures[-1].write_bytes(client.overlay(outcome.image_id, min_score=SHOWN_FROM_SCORE))
    story().print(table)
    story().print(
        f"recall: {hit} of {planted} planted lesions found (IoU > {MIN_IOU}, score at least {SHOWN_FROM_SCORE})"
    )
    for warning in warnings_of(models):
        story().print(warning)
    story().print("overlays:")
    for picture in pictures:
        story().print(f"  {picture}", soft_wrap=True)
    return shown


def _image_of(client: Carina, study_id: UUID, image_id: UUID) -> ImageFindings:
    study = client.findings(study_id, min_score=SHOWN_FROM_SCORE)
    return next(image for image in study.images if image.image_id == image_id)


def _match(lesion: Lesion, findings: Sequence[Finding]) -> Finding | None:
    """Return the best-scored finding of the lesion's class that overlaps it enough; findings come best first."""
    planted = np.array([lesion.box_xyxy_px], np.float32)
    for finding in findings:
        same_class = finding.class_id == lesion.class_id
        if same_class and iou(np.array([finding.box_xyxy_px], np.float32), planted).item() > MIN_IOU:
            return finding
    return None


def _show_bad_files(client: Carina, wrong: dict[str, tuple[Path, str]], by_name: dict[str, FileOutcome]) -> None:
    table = Table("bad file", "refused with", title="Bad files, refused with a reason")
    for name in wrong:
        table.add_row(name, _code_of(client, by_name[name]) or "[red]nothing[/]")
    story().print(table)


def _code_of(client: Carina, outcome: FileOutcome) -> str | None:
    return client.job(outcome.job_id).code if outcome.job_id else outcome.code


def _lost(
    images: Sequence[tuple[Path, Sequence[Lesion]]],
    wrong: dict[str, tuple[Path, str]],
    by_name: dict[str, FileOutcome],
    states: dict[UUID, str],
    client: Carina,
) -> list[str]:
    """Return the files without the outcome that they should have."""
    unseen = [path.name for path, _ in images if states.get(by_name[path.name].job_id or UUID(int=0)) != "succeeded"]
    return unseen + [name for name, (_, code) in wrong.items() if _code_of(client, by_name[name]) != code]


def _show_urls(settings: ClientSettings, example: FileOutcome) -> None:
    base = settings.public_url or settings.api_url.rstrip("/")
    story().print(f"console: {base}/console/  (sign in with CARINA_API_KEY of the folder's env file)", soft_wrap=True)
    story().print(f"API: {base}  (with the same key)", soft_wrap=True)
    for path in (
        "openapi.json",
        f"v1/studies/{example.study_id}/findings",
        f"v1/images/{example.image_id}/overlay.png",
    ):
        story().print(f"  {base}/{path}", soft_wrap=True)
