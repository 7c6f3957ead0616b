"""What can be held of the container files without a docker engine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra import pin_images
from vidseek.archive import Archive

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"


def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((INFRA / "compose.yaml").read_text())
    return content


def test_compose__publishes_on_loopback_alone_and_pins_every_image() -> None:
    services = compose()["services"]
    assert {"api", "page", "mlflow", "postgres", "objects", "qdrant", "prometheus", "grafana"} <= set(services)
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        own = "build" in service or service["image"] == "vidseek"
        assert own or re.search(r":v?\d+\.\d+(\.\d+)?(-[a-z]+)?(@sha256:[0-9a-f]{64})?$", service["image"]), name


def test_compose__every_service_has_limits_and_is_watched_and_none_is_told_a_secret() -> None:
    content = compose()
    for name, service in content["services"].items():
        assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"], name
        if name != "bucket":  # ends by itself
            assert service["deploy"]["resources"]["limits"]["memory"], name
            assert "healthcheck" in service or name == "api", name  # the API's is the image's
        for variable, value in service.get("environment", {}).items():
            if re.search(r"KEY|PASSWORD|SECRET|CREDENTIALS", variable):
                assert value.startswith("/run/secrets/"), (name, variable)
                assert value.removeprefix("/run/secrets/") in service["secrets"], (name, variable)
    assert "HEALTHCHECK" in (INFRA / "Dockerfile").read_text()


def test_prepare__makes_the_secrets_that_compose_reads_and_leaves_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "infra").mkdir()
    shutil.copy(INFRA / "prepare.sh", tmp_path / "infra")
    command = [tmp_path / "infra" / "prepare.sh"]
    subprocess.run(command, check=True)
    folder = tmp_path / "infra" / "secrets"
    made = {file.name: file.read_text() for file in folder.iterdir()}
    assert {Path(each["file"]).name for each in compose()["secrets"].values()} <= set(made)
    assert folder.stat().st_mode & 0o777 == 0o700
    subprocess.run(command, check=True)
    assert {file.name: file.read_text() for file in folder.iterdir()} == made
    key = made["objects_key"].strip()
    (identity,) = json.loads(made["objects.json"])["identities"]
    assert identity["credentials"] == [{"accessKey": "mlflow", "secretKey": key}] and key in made["objects.ini"]
    assert yaml.safe_load(made["qdrant.yaml"]) == {"service": {"api_key": made["qdrant_api_key"].strip()}}
    folders = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_dir()}
    mounted = {volume.split(":")[0].removeprefix("../") for volume in compose()["services"]["api"]["volumes"]}
    assert mounted - {"params.yaml"} <= folders and (ROOT / "params.yaml").is_file()


WRITTEN = {
    "index", "feedback", "data/decisions", ".vidseek/queries", ".vidseek/thumbnails", ".vidseek/jobs", ".vidseek/saved",
    ".vidseek/relevance",
}
READ = {"params.yaml", "models", "data", "reports", ".vidseek/base", ".vidseek/downloads", ".vidseek/demo"}


def test_compose__mounts_only_what_is_read_and_only_what_is_written_for_writing() -> None:
    mounts = [volume.split(":") for volume in compose()["services"]["api"]["volumes"]]
    of_archive = {source.removeprefix("../"): (target, options) for source, target, *options in mounts}
    assert set(of_archive) == READ | WRITTEN
    for name, (target, options) in of_archive.items():
        assert target == f"/archive/{name}" and options == ([] if name in WRITTEN else ["ro"])
    for name, service in compose()["services"].items():
        for volume in service.get("volumes", []):
            source, _, *options = volume.split(":")
            own = not source.startswith((".", "/"))  # a volume of docker's own
            assert own or options == ["ro"] or name == "api", (name, volume)


def test_compose__the_service_reads_nothing_else_of_the_archive() -> None:
    """Every folder of the archive that the service's code names is mounted, or is another command's."""
    files = [*(ROOT / "serving").rglob("*.py"), ROOT / "packages" / "vidseek" / "reports" / "overview.py"]
    code = "".join(path.read_text() for path in files)
    root = Path("/archive")
    places = [getattr(Archive(root), name, None) for name in set(re.findall(r"archive\.(\w+)", code)) - {"root", "state"}]
    named = {place.relative_to(root).as_posix() for place in places if isinstance(place, Path)}
    named |= {f".vidseek/{each}" for each in re.findall(r"archive\.state / \"([\w.]+)\"", code)}
    assert {"data", "reports", "feedback", ".vidseek/queries"} <= named
    mounted = READ | WRITTEN | {".vidseek/duplicates.json"}
    assert {name for name in named if not any(f"{name}/".startswith(f"{one}/") for one in mounted)} == set()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("docker-compose"), reason="no docker-compose: apt-get install docker-compose")
def test_compose__is_what_compose_takes(tmp_path: Path) -> None:
    folder = tmp_path / "infra"
    folder.mkdir()
    for name in ("compose.yaml", "compose.gpu.yaml"):
        # Debian's version is of before the specification had names of projects.
        (folder / name).write_text(re.sub(r"^name: .*$", "", (INFRA / name).read_text(), flags=re.M))
    shutil.copy(INFRA / "prepare.sh", folder)
    subprocess.run([folder / "prepare.sh"], check=True)
    for files in (["compose.yaml"], ["compose.yaml", "compose.gpu.yaml"]):
        command = ["docker-compose", *(part for name in files for part in ("-f", name)), "config", "--quiet"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_compose_gpu__changes_the_api_alone() -> None:
    services = yaml.safe_load((INFRA / "compose.gpu.yaml").read_text())["services"]
    assert set(services) == {"api"} and set(services["api"]) <= {*compose()["services"]["api"]}
    (name,) = services["api"]["build"]["args"]
    assert f"ARG {name}=cpu" in (INFRA / "Dockerfile").read_text()


def test_dockerfile__runs_as_nobody_special_on_a_pinned_base_with_the_extras_we_have() -> None:
    text = (INFRA / "Dockerfile").read_text()
    assert all(re.match(r"FROM python:3\.11\.\d+-", line) for line in re.findall(r"^FROM .*$", text, re.M))
    assert re.findall(r"^USER (\w+)$", text, re.M) == ["vidseek"]
    (extras,) = re.findall(r'"\.\[(onnx-\$\{ENCODER\},[a-z,]+)\]"', text)
    declared = (ROOT / "pyproject.toml").read_text()
    for encoder in ("cpu", "gpu"):
        assert all(f"\n{extra} = [" in declared for extra in extras.replace("${ENCODER}", encoder).split(","))
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
    wanted = [*project["dependencies"], *extras["onnx-cpu"], *extras["index"], *extras["serve"], *extras["edit"]]
    names = {re.split(r"[>=<]", each)[0].lower().replace("_", "-") for each in wanted}
    pins = {line.split("==")[0].lower().replace("_", "-"): line for line in lines_of("constraints.txt")}
    assert sorted(lines_of("serving/requirements.txt")) == sorted(pins[name] for name in names)


def test_image_lock__has_a_hash_for_each_file_and_agrees_with_the_constraints() -> None:
    lines = lines_of("infra/requirements-image.txt")
    parsed = [re.fullmatch(r"([a-z0-9-]+)==(\S+) --hash=sha256:[0-9a-f]{64}", line) for line in lines]
    locked = {match[1]: match[2] for match in parsed if match}
    assert len(locked) == len(lines)
    pins = {line.split("==")[0].lower().replace("_", "-").replace(".", "-"): line.split("==")[1]
            for line in lines_of("constraints.txt")}
    free = {name for name in locked if name not in pins}
    assert free <= {"setuptools"} and {name: locked[name] for name in locked.keys() - free} == {
        name: pins[name].split(";")[0].strip() for name in locked.keys() - free}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = [*tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"],
              *(each for extra in ("onnx-cpu", "index", "quality", "serve", "ui") for each in extras[extra])]
    assert {re.split(r"[>=<\[]", each)[0].lower().replace("_", "-") for each in wanted} <= set(locked)


def test_pin_images__gives_every_image_its_digest_and_says_which_has_none() -> None:
    digest = f"sha256:{'0f' * 32}"
    for name in pin_images.FILES:
        text = (INFRA / name).read_text()
        found = pin_images.images(text)
        assert found and all(image in text for image in found)
        again = pin_images.pinned(text, dict.fromkeys(found, digest))
        assert pin_images.images(again) == dict.fromkeys(found, True) and again.count(f"@{digest}") >= len(found)
        assert pin_images.pinned(again, dict.fromkeys(found, digest)) == again
    named = {image.split(":")[0] for image in pin_images.images((INFRA / "compose.yaml").read_text())}
    assert named == {service["image"].split(":")[0] for service in compose()["services"].values()} - {"vidseek"}
    assert pin_images.images("FROM a:1 AS b\nFROM a:1@" + digest) == {"a:1": False}


def lines_of(name: str) -> list[str]:
    return [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]
