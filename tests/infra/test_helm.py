"""The chart, rendered by Helm's own engine and held against Kubernetes' published schemas."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.metrics import Metrics
from tests.raising import raises

ROOT = Path(__file__).parents[2]
HELM = ROOT / "infra" / "helm"
CHART = HELM / "vidseek"
OLDEST, NEWEST = "1.27", "1.37"
"""Of Kubernetes: what Chart.yaml wants at least, and the newest that the schemas know."""
needs_helm = pytest.mark.skipif(not find_spec("helm_python"), reason="no Helm: pip install -c constraints.txt -e '.[chart]'")
needs_schemas = pytest.mark.skipif(
    not find_spec("kubernetes_validate"), reason="no schemas: pip install -c constraints.txt -e '.[chart]'"
)
# Helm is a library in Go, and Go keeps signal handlers and threads of its own: it gets a process of its own.
RUN = """
import json, sys, helm_python as helm
asked = json.load(sys.stdin)
if asked["lint"]:
    print(json.dumps(helm.lint(asked["chart"], asked["values"], strict=True)["messages"]))
else:
    with helm.Chart.load(asked["chart"]) as chart:
        chart.validate_schema(asked["values"])
        print(json.dumps(chart.render(asked["values"], name=asked["name"], namespace="video")))
"""
EVERYTHING: dict[str, Any] = {
    "image": {"repository": "registry.example/vidseek", "tag": "1.2.3"}, "imagePullSecrets": [{"name": "pull"}],
    "archive": {"accessMode": "ReadWriteMany", "storageClass": "fast"},
    "videos": {"nfs": {"server": "files", "path": "/video"}},
    "api": {"nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]},
    "autoscaling": {"enabled": True}, "page": {"otherUrl": "http://base:3000"},
    "jobs": {"embed": {"schedule": "0 3 * * *", "resources": {"limits": {"nvidia.com/gpu": 1}}}},
    "index": {"qdrantKey": {"secret": "qdrant-keys"}}, "qdrant": {"enabled": True},
    "monitoring": {"serviceMonitor": {"enabled": True, "labels": {"release": "watch"}}},
    "networkPolicy": {"enabled": True, "fromApi": [{"namespaceSelector": {}}], "fromPage": [{"namespaceSelector": {}}]},
}


def helm(values: dict[str, Any], *, chart: Path = CHART, name: str = "vidseek", lint: bool = False) -> Any:
    asked = {"chart": str(chart), "values": values, "name": name, "lint": lint}
    done = subprocess.run([sys.executable, "-c", RUN], input=json.dumps(asked), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(done.stderr)
    return json.loads(done.stdout)


def render(values: dict[str, Any], **how: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """The manifests by kind and name."""
    texts = [text for file, text in helm(values, **how).items() if file.endswith(".yaml")]
    manifests = [each for text in texts for each in yaml.safe_load_all(text) if each]
    return {(each["kind"], each["metadata"]["name"]): each for each in manifests}


def pods(manifests: dict[tuple[str, str], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The template of every pod, by its owner's name."""
    found = {name: each["spec"]["template"] for (kind, name), each in manifests.items() if kind == "Deployment"}
    jobs = {name: each["spec"]["jobTemplate"] for (kind, name), each in manifests.items() if kind == "CronJob"}
    return found | {name: job["spec"]["template"] for name, job in jobs.items()}


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


def environment(container: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


@pytest.fixture(scope="module")
def default() -> dict[tuple[str, str], dict[str, Any]]:
    return render({})


@pytest.fixture(scope="module")
def everything() -> dict[tuple[str, str], dict[str, Any]]:
    return render(EVERYTHING)


@pytest.fixture
def with_qdrant(tmp_path: Path) -> Iterator[Path]:
    """The chart as `helm dependency update` leaves it, with a chart of one ConfigMap in the place of Qdrant's."""
    chart = tmp_path / "vidseek"
    shutil.copytree(CHART, chart, ignore=shutil.ignore_patterns("charts"))
    (templates := chart / "charts" / "qdrant" / "templates").mkdir(parents=True)
    (templates.parent / "Chart.yaml").write_text("{apiVersion: v2, name: qdrant, version: 1.16.0}\n")
    (templates / "map.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: qdrant}\n"
        "data: {silent: {{ .Values.config.telemetry_disabled | quote }}}\n"
    )
    yield chart


@needs_helm
@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["default", "everything"])
def test_chart__passes_helms_lint(values: dict[str, Any], with_qdrant: Path) -> None:
    assert [each for each in helm(values, chart=with_qdrant, lint=True) if each["severity"] > 1] == []


@needs_helm
@needs_schemas
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("which", ["default", "everything"])
def test_manifests__are_what_kubernetes_takes(which: str, version: str, request: pytest.FixtureRequest) -> None:
    from kubernetes_validate import validate

    manifests = request.getfixturevalue(which)
    for (kind, name), manifest in manifests.items():
        if kind != "ServiceMonitor":  # the Prometheus operator's own: no schema of it is published where we can reach
            assert validate(manifest, version, strict=True) == version, name
    assert f">={OLDEST}." in yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"]


@needs_helm
def test_chart__without_options_is_api_page_jobs_and_a_claim(default: dict[tuple[str, str], dict[str, Any]]) -> None:
    assert set(default) == {
        ("Deployment", "vidseek-api"), ("Service", "vidseek-api"), ("PodDisruptionBudget", "vidseek-api"),
        ("Deployment", "vidseek-page"), ("Service", "vidseek-page"), ("CronJob", "vidseek-embed"),
        ("CronJob", "vidseek-publish"), ("PersistentVolumeClaim", "vidseek-archive"),
    }


@needs_helm
@pytest.mark.parametrize("which", ["default", "everything"])
def test_pods__are_nobody_special_and_are_told_nothing_by_accident(which: str, request: pytest.FixtureRequest) -> None:
    for name, pod in pods(request.getfixturevalue(which)).items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] > 0, name
        # A Service `vidseek-page` would be VIDSEEK_PAGE_PORT=tcp://..., which the page takes for its port.
        assert spec["enableServiceLinks"] is False and spec["automountServiceAccountToken"] is False, name
        for container in containers(pod):
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"], name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"], name
            assert all(type(value) is str or "secretKeyRef" in value for value in environment(container).values()), name


@needs_helm
def test_api__is_found_by_its_service_its_page_and_its_budget(everything: dict[tuple[str, str], dict[str, Any]]) -> None:
    service = everything["Service", "vidseek-api"]["spec"]
    chosen = [
        name for name, pod in pods(everything).items()
        if service["selector"].items() <= pod["metadata"]["labels"].items()
    ]
    assert chosen == ["vidseek-api"]
    assert everything["PodDisruptionBudget", "vidseek-api"]["spec"]["selector"]["matchLabels"] == service["selector"]
    (api,), (page,) = (containers(pods(everything)[name]) for name in ("vidseek-api", "vidseek-page"))
    assert environment(page)["VIDSEEK_URL"] == f"http://vidseek-api:{service['ports'][0]['port']}"
    assert api["ports"] == [{"name": service["ports"][0]["targetPort"], "containerPort": int(api["command"][-1])}]
    assert [api[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")] == [
        "/healthz", "/healthz", "/readyz",
    ]
    allowed = everything["NetworkPolicy", "vidseek-api"]["spec"]["ingress"][0]["from"]
    assert everything["Service", "vidseek-page"]["spec"]["selector"] == allowed[0]["podSelector"]["matchLabels"]


@needs_helm
def test_key__comes_from_the_secret_alone(everything: dict[tuple[str, str], dict[str, Any]]) -> None:
    wanted = {"secretKeyRef": {"name": "vidseek-keys", "key": "api-key"}}
    (api,), (page,) = (containers(pods(everything)[name]) for name in ("vidseek-api", "vidseek-page"))
    assert environment(api)["VIDSEEK_API_KEY"] == environment(page)["VIDSEEK_API_KEY"] == wanted
    assert "VIDSEEK_ADMIN_KEY" not in environment(page)
    (endpoint,) = everything["ServiceMonitor", "vidseek-api"]["spec"]["endpoints"]
    assert endpoint["authorization"]["credentials"] == wanted["secretKeyRef"]
    assert endpoint["port"] == everything["Service", "vidseek-api"]["spec"]["ports"][0]["name"]


@needs_helm
def test_jobs__run_stages_of_the_image_after_their_gate(default: dict[tuple[str, str], dict[str, Any]]) -> None:
    jobs = {name: containers(pods(default)[name]) for name in ("vidseek-embed", "vidseek-publish")}
    assert {name: [each["command"] for each in stages] for name, stages in jobs.items()} == {
        "vidseek-embed": [["python", "-P", "-m", "pipelines.embed"]],
        "vidseek-publish": [["python", "-P", "-m", f"pipelines.{stage}"] for stage in ("check_embeddings", "publish")],
    }
    assert all(default["CronJob", name]["spec"]["suspend"] for name in jobs)
    image = (ROOT / "infra" / "Dockerfile").read_text()
    assert "\nWORKDIR /app\n" in image and "\nCOPY pipelines pipelines\n" in image
    assert all(environment(each)["PYTHONPATH"] == "/app" for stages in jobs.values() for each in stages)


@needs_helm
def test_autoscaling__asks_for_the_queue_that_the_api_shows(everything: dict[tuple[str, str], dict[str, Any]]) -> None:
    scaler = everything["HorizontalPodAutoscaler", "vidseek-api"]["spec"]
    queue, cpu = scaler["metrics"]
    (rule,) = yaml.safe_load((HELM / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    assert rule["name"]["as"] == queue["pods"]["metric"]["name"]
    (series,) = re.findall(r"^(\w+)\{", rule["seriesQuery"])
    assert series in {family.name for family in Metrics().registry.collect()}
    assert cpu["resource"]["target"] == {"type": "Utilization", "averageUtilization": 80}
    assert "cpu" in containers(pods(everything)["vidseek-api"])[0]["resources"]["requests"]
    assert "replicas" not in everything["Deployment", "vidseek-api"]["spec"]  # else each upgrade would undo it


@needs_helm
def test_autoscaling__by_the_cpu_alone_where_nothing_serves_the_queue() -> None:
    manifests = render({"autoscaling": {"enabled": True, "waitingPerPod": None}})
    scaler = manifests["HorizontalPodAutoscaler", "vidseek-api"]["spec"]
    assert [metric["type"] for metric in scaler["metrics"]] == ["Resource"]
    with raises(ValueError, naming=("waitingPerPod", "cpuPercent")):
        render({"autoscaling": {"enabled": True, "waitingPerPod": None, "cpuPercent": None}})


@needs_helm
def test_archive__on_a_disk_of_one_node_keeps_its_pods_together(
    default: dict[tuple[str, str], dict[str, Any]], everything: dict[tuple[str, str], dict[str, Any]]
) -> None:
    with_archive = {name: pod for name, pod in pods(default).items() if name != "vidseek-page"}
    terms = [
        pod["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        for pod in with_archive.values()
    ]
    assert len(terms) == 3 and all(term == terms[0] for term in terms)
    (wanted,) = (each["labelSelector"]["matchLabels"] for each in terms[0])
    assert all(wanted.items() <= pod["metadata"]["labels"].items() for pod in with_archive.values())
    assert not any("affinity" in pod["spec"] for pod in pods(everything).values())
    kept = default["PersistentVolumeClaim", "vidseek-archive"]["metadata"]["annotations"]
    assert kept == {"helm.sh/resource-policy": "keep"}
    assert ("PersistentVolumeClaim", "vidseek-archive") not in render({"archive": {"existingClaim": "tapes"}})


@needs_helm
def test_qdrant__comes_where_it_is_asked_for_and_is_asked_then(with_qdrant: Path) -> None:
    without = render({}, chart=with_qdrant)
    assert ("ConfigMap", "qdrant") not in without
    assert "QDRANT_URL" not in environment(containers(pods(without)["vidseek-api"])[0])
    enabled = render({"qdrant": {"enabled": True}}, chart=with_qdrant, name="tapes")
    assert enabled["ConfigMap", "qdrant"]["data"] == {"silent": "true"}
    askers = [each for name, pod in pods(enabled).items() if not name.endswith("-page") for each in containers(pod)]
    assert len(askers) == 4 and all(environment(each)["QDRANT_URL"] == "http://tapes-qdrant:6333" for each in askers)


@needs_helm
@pytest.mark.parametrize(("values", "said"), [
    ({"replicas": 2}, "at '': additional properties 'replicas' not allowed"),
    ({"api": {"replica": 2}}, "at '/api': additional properties 'replica' not allowed"),
    ({"auth": {"secret": ""}}, "at '/auth/secret'"),
    ({"archive": {"accessMode": "ReadOnlyMany"}}, "at '/archive/accessMode'"),
    ({"autoscaling": {"maxReplicas": "many"}}, "at '/autoscaling/maxReplicas': got string, want integer"),
    ({"page": {"otherUrl": "base:3000"}}, "at '/page/otherUrl'"),
])
def test_values__that_cannot_be_are_refused(values: dict[str, Any], said: str) -> None:
    with raises(ValueError, naming=said):
        render(values)


@needs_schemas
def test_kuberay__example_has_pods_that_kubernetes_takes_on_the_charts_archive() -> None:
    from kubernetes_validate import validate

    spec = yaml.safe_load((HELM / "kuberay-embed.yaml").read_text())["spec"]
    cluster = spec["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, **group["template"]}
        validate(pod, NEWEST, strict=True)
        assert pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == "vidseek-archive"
    assert (ROOT / "pipelines" / "embed.py").is_file() and "-m pipelines.embed" in spec["entrypoint"]
