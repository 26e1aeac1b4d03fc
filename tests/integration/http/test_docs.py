"""`/docs` shows the description in a real browser, which asks nobody but the API."""

import json
import subprocess
from pathlib import Path

import PIL.Image
import pytest

from tests.integration.conftest import Api, Server
from tests.requirements import needs
from tests.waiting import DEADLINE_S


def test_the_page_and_all_that_it_is_made_of_are_ours(api: Api) -> None:
    page = api.as_(None).get("/docs")
    assert page.status_code == 200
    for name in ("docs/swagger-ui.css", "docs/swagger-ui-bundle.js", "docs/start.js"):
        assert name in page.text
        asset = api.as_(None).get(f"/{name}")
        assert asset.status_code == 200
        assert "default-src 'none'" in asset.headers["Content-Security-Policy"]
    assert "http" not in page.text
    assert api.as_(None).get("/docs/../app.py").status_code == 404
    assert api.as_(None).get("/docs/index.html").status_code == 404


@pytest.mark.needs("chromium")
def test_a_browser_shows_the_routes_without_any_outside_request(server: Server, tmp_path: Path) -> None:
    log, picture = tmp_path / "net.json", tmp_path / "docs.png"
    command = [needs("chromium"), "--headless", "--no-sandbox", "--disable-gpu"]
    command += [f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--virtual-time-budget=20000"]
    command += ["--window-size=1200,1600", f"--log-net-log={log}", f"--screenshot={picture}", "--dump-dom"]
    run = subprocess.run(
        [*command, f"{server.url}/docs"], capture_output=True, text=True, timeout=DEADLINE_S, check=True
    )
    for shown in ("abnormalities on chest radiographs", "/v1/studies", "/v1/audit-events"):
        assert shown in run.stdout
    with PIL.Image.open(picture) as shot:
        assert len(shot.convert("RGB").getcolors(1200 * 1600) or ()) > 100
    events = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    # Of the page; the browser has errands of its own.
    asked = {event["url"] for event in events if "url" in event and event.get("initiator") == server.url}
    assert f"{server.url}/openapi.json" in asked
    assert all(url.startswith((f"{server.url}/", "data:")) for url in asked)
