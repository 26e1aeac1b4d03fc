"""`docs/operations.md` lists every metric with its labels."""

import ast
import re
from collections.abc import Iterator

from tests.requirements import REPOSITORY

METRICS = REPOSITORY / "api" / "operations" / "queue_metrics.py"
PAGE = REPOSITORY / "docs" / "operations.md"


def defined() -> Iterator[tuple[str, str]]:
    """Yield each metric's name, as Prometheus shows it, and its labels."""
    for node in ast.walk(ast.parse(METRICS.read_text())):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        if node.func.id.endswith("MetricFamily"):
            name = ast.literal_eval(node.args[0])
            labels = [word for each in node.keywords if each.arg == "labels" for word in ast.literal_eval(each.value)]
            suffix = "_total" if node.func.id.startswith("Counter") else ""
            yield name + suffix, ",".join(labels)


def test_the_page_lists_every_metric_with_its_labels() -> None:
    _, _, section = PAGE.read_text().partition("## Metrics and alerts")
    table = section.partition("Alerts to begin with")[0]
    listed = set(re.findall(r"`(carina_\w+)(?:\{([\w,]*)\})?`", table))
    assert listed == set(defined())
    assert len(listed) >= 10
