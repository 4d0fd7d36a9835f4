"""docs/operations.md and the code say the same; logs are JSON and keep secrets."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from recsvc.settings import Settings
from recsvc.telemetry import LATENCY_BUCKETS_S, PHASES, Metrics

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text()

LEVELS = {"debug", "info", "warning", "error", "exception"}


def table(heading: str) -> list[list[str]]:
    """Return the rows of the first table below a heading."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def named(cell: str) -> list[str]:
    return re.findall(r"`([a-z_]+)`", cell)


def log_calls() -> set[tuple[str, str, frozenset[str]]]:
    """Return event, level and fields of every ``log.LEVEL("event", field=...)`` of the service."""
    found = set()
    for file in (ROOT / "recsvc").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "log"
                and node.func.attr in LEVELS
            ):
                assert isinstance(node.args[0], ast.Constant), (file, node.lineno)
                fields = {str(keyword.arg) for keyword in node.keywords} - {"request_id"}
                level = node.func.attr
                if level == "exception":
                    fields, level = fields | {"exception"}, "error"
                found.add((str(node.args[0].value), level, frozenset(fields)))
    return found


def test_every_metric_is_explained_and_no_other() -> None:
    documented = {named(row[0])[0]: row for row in table("Metrics")}
    metrics = Metrics()
    assert set(documented) == {name.removeprefix("recsvc_") for name in metrics.names()}
    for row in documented.values():
        assert row[2], row
        assert row[3], row
        assert row[4], row
    for collector, name in (
        (metrics.requests, "http_requests_total"),
        (metrics.recommendations, "recommendations_total"),
        (metrics.phase_seconds, "recommendation_phase_seconds_total"),
        (metrics.degraded, "degraded_answers_total"),
        (metrics.model_workers, "model_workers"),
    ):
        assert named(documented[name][1]) == list(collector._labelnames)
    assert set(named(documented["recommendation_phase_seconds_total"][2])) >= set(PHASES)


def test_every_log_line_is_explained_and_no_other() -> None:
    documented = {
        (named(row[0])[0], row[1], frozenset(named(row[2])))
        for row in table("Log lines")
        if named(row[0]) != ["library"]
    }
    assert documented == log_calls()


def test_every_setting_is_explained_and_no_other() -> None:
    documented = {named(row[0])[0]: row for row in table("Settings")}
    assert list(documented) == list(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        if field.default is not None:
            shown = documented[name][1].strip("`")
            assert shown == (
                f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
            )


def test_phases_are_handed_over_when_somebody_looks() -> None:
    metrics = Metrics()
    metrics.phase_sums[1] += 0.25
    text = metrics.exposition().decode()
    assert 'recsvc_recommendation_phase_seconds_total{phase="store"} 0.25' in text
    assert metrics.phase_sums == [0.0] * len(PHASES)


def test_answers_counted_in_plain_numbers_are_what_the_library_would_have_observed() -> None:
    metrics, seconds = Metrics(), [*LATENCY_BUCKETS_S, 0.0, 0.0123, 60.0]
    for one in seconds:
        metrics.answered("/v1/rank", 200, one)
    plain = Histogram(
        "http_request_duration_seconds",
        "As the library counts",
        ["route"],
        namespace="recsvc",
        buckets=LATENCY_BUCKETS_S,
        registry=(registry := CollectorRegistry()),
    ).labels("/v1/rank")
    for one in seconds:
        plain.observe(one)
    expected = [line for line in generate_latest(registry).decode().splitlines() if line[0] != "#"]
    lines: list[str] = []
    for _ in range(2):
        # Whoever looks twice finds the same.
        lines = metrics.exposition().decode().splitlines()
        assert [line for line in lines if "duration_seconds" in line and line[0] != "#"] == expected
    total = f'recsvc_http_requests_total{{route="/v1/rank",status="200"}} {len(seconds)}.0'
    assert total in lines


def test_lists_are_counted_by_placement() -> None:
    metrics = Metrics()
    for personalized in (True, False, True):
        metrics.recommended("home", personalized=personalized)
    for _ in range(2):
        text = metrics.exposition().decode()
        series = 'recsvc_recommendations_total{personalized="%s",placement="home"} %s.0'
        assert series % ("true", 2) in text
        assert series % ("false", 1) in text


def test_only_the_model_that_serves_is_counted() -> None:
    metrics = Metrics()
    for version in ("a", "b", "b"):
        metrics.serves(version)
    text = metrics.exposition().decode()
    assert 'recsvc_model_workers{version="a"} 0.0' in text
    assert 'recsvc_model_workers{version="b"} 1.0' in text


def test_an_unknown_address_makes_no_series_of_its_own() -> None:
    metrics = Metrics()
    metrics.answered(None, 404, 0.001)
    assert 'route="other",status="404"' in metrics.exposition().decode()


_LOGGING = """
import logging
from recsvc.telemetry import configure_logging, get_logger
configure_logging("LEVEL")
log = get_logger()
log.info("serving", port=1)
try:
    secret = "hunter2"
    raise ValueError("broken")
except ValueError:
    log.exception("request_failed", request_id="r")
logging.getLogger("uvicorn.error").info("quiet")
logging.getLogger("uvicorn.error").warning("loud %s", 1)
"""


@pytest.mark.parametrize(
    ("level", "events"),
    [
        ("info", ["serving", "request_failed", "library"]),
        ("error", ["request_failed"]),
    ],
)
def test_logs_are_json_without_local_variables(level: str, events: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOGGING.replace("LEVEL", level)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == events
    assert all(re.fullmatch(r"\d{4}-.*Z", line["at"]) for line in lines)
    failed = lines[events.index("request_failed")]
    assert failed["exception"][0]["exc_type"] == "ValueError"
    assert "hunter2" not in done.stderr
    if level == "info":
        assert (lines[-1]["logger"], lines[-1]["message"]) == ("uvicorn.error", "loud 1")
