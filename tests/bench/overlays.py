"""What drawing many overlays at once leaves behind in the API's memory."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil

from api.client import Carina
from deploy.stack import state
from deploy.stack.folder import Folder
from shared.phantoms import demo_studies
from tests.bench.figure import Figure
from tests.bench.servers import Stack, stack

OVERLAYS, AT_ONCE, WARM_UP = 5000, 16, 20


def measure() -> Iterator[Figure]:
    """Draw overlays of one film, 16 at a time; then ask for one that the client has already."""
    with stack() as running, Carina(running.environ["CARINA_API_URL"], running.environ["CARINA_API_KEY"]) as client:
        name, content, _ = next(iter(demo_studies(1)))
        path = running.folder / name
        path.write_bytes(content)
        (outcome,) = client.submit([path])
        assert outcome.job_id is not None
        client.wait([outcome.job_id], timeout_s=300)
        headers = {"Authorization": f"Bearer {running.environ['CARINA_API_KEY']}"}
        url = f"{running.environ['CARINA_API_URL']}/v1/images/{outcome.image_id}/overlay.png?min_score=0"
        with httpx.Client(headers=headers, timeout=300) as http, ThreadPoolExecutor(AT_ONCE) as threads:

            def draw(count: int) -> None:
                for answer in threads.map(lambda _: http.get(url), range(count)):
                    answer.raise_for_status()

            draw(WARM_UP)
            before = _memory_bytes(running)
            begun = time.monotonic()
            draw(OVERLAYS)
            yield Figure(f"overlays, {AT_ONCE} at once", OVERLAYS / (time.monotonic() - begun), "images/s")
            after = _memory_bytes(running)
            yield Figure("the API's memory before", before / 2**20, "MiB")
            yield Figure("the API's memory after, of before", after / before, target=1.3, sense="below")
            etag = http.get(url).headers["ETag"]
            begun = time.monotonic()
            assert http.get(url, headers={"If-None-Match": etag}).status_code == 304
            yield Figure("one that the client has already", 1000 * (time.monotonic() - begun), "ms")


def _memory_bytes(running: Stack) -> int:
    api = next(entry for entry in state.read(Folder(running.folder)) if entry.name == "api")
    process = psutil.Process(api.pid)
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))
