"""What can be held of the container files without a docker engine."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"


def test_compose__publishes_on_loopback_alone_and_pins_every_image() -> None:
    services = yaml.safe_load((INFRA / "compose.yaml").read_text())["services"]
    assert {"api", "page", "mlflow", "qdrant", "prometheus", "grafana"} <= set(services)
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        assert "build" in service or service["image"] == "vidseek" or re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name


def test_dockerfile__runs_as_nobody_special_on_a_pinned_base_with_the_extras_we_have() -> None:
    text = (INFRA / "Dockerfile").read_text()
    assert all(re.match(r"FROM python:3\.11\.\d+-", line) for line in re.findall(r"^FROM .*$", text, re.M))
    assert re.findall(r"^USER (\w+)$", text, re.M) == ["vidseek"]
    (extras,) = re.findall(r"'\.\[([a-z,]+)\]'", text)
    declared = (ROOT / "pyproject.toml").read_text()
    assert all(f"\n{extra} = [" in declared for extra in extras.split(","))
    assert "train" not in extras


def test_dockerignore__lets_through_all_that_is_copied() -> None:
    kept = set(re.findall(r"^!(\S+)$", (INFRA / "Dockerfile.dockerignore").read_text(), re.M))
    copied = {
        source for line in re.findall(r"^COPY (?!--from)(.*)$", (INFRA / "Dockerfile").read_text(), re.M)
        for source in line.split()[:-1]
    }
    assert copied == kept


def test_bento__needs_what_the_extras_say_at_the_pinned_versions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["cpu"], *extras["index"], *extras["serve"]]
    names = {re.split(r"[>=<]", each)[0].lower().replace("_", "-") for each in wanted}
    pins = {line.split("==")[0].lower().replace("_", "-"): line for line in lines_of("constraints.txt")}
    assert sorted(lines_of("serving/requirements.txt")) == sorted(pins[name] for name in names)


def lines_of(name: str) -> list[str]:
    return [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]
