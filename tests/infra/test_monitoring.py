"""Rules and dashboard against the figures that the API really gives; Debian's Prometheus where it is there."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from serving.metrics import Metrics
from tests.serving.asked_colours import queries, write_calibrated_archive
from tests.serving.live_api import free_port, live_api

ROOT = Path(__file__).parents[2]
RULES = ROOT / "infra" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "infra" / "grafana" / "vidseek.json"
DOCUMENT = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
KEY = "a key for everybody"
NUM_QUERIES = 200
needs_prometheus = pytest.mark.skipif(
    not shutil.which("promtool"), reason="no promtool: apt-get install prometheus"
)


def rules() -> list[dict[str, str]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return list(group["rules"])


def expressions() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [rule["expr"] for rule in rules()] + [target["expr"] for panel in panels for target in panel["targets"]]


def names_given() -> set[str]:
    """Every series that the API can give, by its name."""
    metrics = Metrics()
    return {
        f"{family.name}{suffix}"
        for family in metrics.registry.collect()
        for suffix in {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
    }


def test_expressions__ask_only_for_what_the_api_gives() -> None:
    asked = {name for each in expressions() for name in re.findall(r"\bvidseek_\w+", each)}
    assert asked and asked <= names_given()


def test_rules__each_has_a_runbook_in_the_document() -> None:
    for rule in rules():
        name = rule["alert"]
        assert f"docs/monitoring.md#{name.lower()}" in rule["annotations"]["runbook"]  # type: ignore[index]
        assert f"### {name}\n" in DOCUMENT


def test_dashboard__panels_do_not_overlap_and_are_of_one_source() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    places = [tuple(panel["gridPos"].values()) for panel in panels]
    assert len(set(places)) == len(places) == len({panel["id"] for panel in panels})
    (source,) = yaml.safe_load((DASHBOARD.parent / "datasources.yml").read_text())["datasources"]
    assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"]}


@pytest.mark.slow
@needs_prometheus
def test_rules__fire_and_stay_silent_as_they_should() -> None:
    for command in (["check", "rules", "alerts.yml"], ["check", "config", "--syntax-only", "prometheus.yml"],
                    ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run(["promtool", *command], cwd=RULES.parent, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_rules__each_is_made_to_fire() -> None:
    tests = yaml.safe_load((RULES.parent / "alerts_test.yml").read_text())["tests"]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert fired == {rule["alert"] for rule in rules()}


@needs_prometheus
@pytest.mark.slow
def test_prometheus__scrapes_the_real_api_with_its_key_and_each_panel_shows_something(tmp_path: Path) -> None:
    archive = write_calibrated_archive(tmp_path / "archive")
    with live_api(archive, key=KEY) as url, prometheus_of(url, tmp_path) as asked:
        load(url)
        assert value_of(asked, 'vidseek_requests_total{route="/v1/search",status="200"}') == NUM_QUERIES
        assert value_of(asked, "vidseek_ready") == 1
        assert value_of(asked, "vidseek_index_points") == 12
        groups = httpx.get(asked.replace("query", "rules")).json()["data"]["groups"]
        assert len(groups[0]["rules"]) == len(rules())
        load(url)  # a rate takes two values that differ
        for panel in json.loads(DASHBOARD.read_text())["panels"]:
            for target in panel["targets"]:
                assert math.isfinite(value_of(asked, target["expr"])), panel["title"]


def load(url: str) -> None:
    """What people do: search, look around a hit, say what it is, and make mistakes."""
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {KEY}"}) as client:
        for text in queries(NUM_QUERIES, seed=2):
            (hit,) = client.post("/v1/search", json={"text": text, "limit": 1}).json()["hits"]
        clip = hit["best_clip_id"]
        assert client.get(f"/v1/clips/{clip}/neighbours").status_code == 200
        assert client.post("/v1/feedback", json={"query": text, "clip_id": clip, "relevant": True}).status_code == 201
        assert client.post("/v1/search", json={"text": ""}).status_code == 422


@contextmanager
def prometheus_of(url: str, folder: Path) -> Iterator[str]:
    """Prometheus with our configuration, which scrapes the API at `url` every second; gives where it is asked."""
    (folder / "key").write_text(KEY)
    config = yaml.safe_load((RULES.parent / "prometheus.yml").read_text())
    (scrape,) = config["scrape_configs"]
    scrape["authorization"]["credentials_file"] = str(folder / "key")
    scrape["static_configs"] = [{"targets": [url.removeprefix("http://")]}]
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(RULES)]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    process = subprocess.Popen([
        "prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}/api/v1/query"
    finally:
        process.terminate()
        process.wait(30)


def value_of(asked: str, query: str) -> float:
    """What Prometheus has of a series, as soon as it has a number."""
    for _ in range(600):
        try:
            result = httpx.get(asked, params={"query": query}).json()["data"]["result"]
        except (httpx.HTTPError, ValueError):  # it says in words that it is not ready yet
            result = []
        for each in result:
            if math.isfinite(value := float(each["value"][1])):
                return value
        time.sleep(0.2)
    raise AssertionError(f"Prometheus has no number for {query}")
