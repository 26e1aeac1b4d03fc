"""`docs/operations.md` lists every metric with its labels."""

import ast
import re
from collections.abc import Iterator

from tests.requirements import REPOSITORY

#: The modules that define metrics.
METRICS = (
    REPOSITORY / "api" / "operations" / "queue_metrics.py",
    REPOSITORY / "api" / "http" / "request_metrics.py",
)
_OF_PROCESS = ("Histogram", "Counter", "Gauge")
PAGE = REPOSITORY / "docs" / "operations.md"


def defined() -> Iterator[tuple[str, str]]:
    """Yield each metric's name, as Prometheus shows it, and its labels."""
    for node in (node for path in METRICS for node in ast.walk(ast.parse(path.read_text()))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        if node.func.id.endswith("MetricFamily") or node.func.id in _OF_PROCESS:
            name = ast.literal_eval(node.args[0])
            named = [each.value for each in node.keywords if each.arg in ("labels", "labelnames")]
            labels = [word for each in named for word in ast.literal_eval(each)]
            suffix = "_total" if node.func.id.startswith("Counter") else ""
            yield name + suffix, ",".join(labels)


def test_the_page_lists_every_metric_with_its_labels() -> None:
    _, _, section = PAGE.read_text().partition("## Metrics and alerts")
    table = section.partition("Alerts to begin with")[0]
    listed = set(re.findall(r"`(carina_\w+)(?:\{([\w,]*)\})?`", table))
    assert listed == set(defined())
    assert len(listed) >= 10


def test_no_other_module_defines_a_metric() -> None:
    found = {
        path
        for path in (REPOSITORY / "api").rglob("*.py")
        if re.search(r"MetricFamily\(|\b(Histogram|Counter|Gauge|Summary)\(\s*\"carina_", path.read_text())
    }
    assert found == set(METRICS)
