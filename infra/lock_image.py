"""Writes infra/requirements-image.txt: what infra/Dockerfile installs for a CPU, each file by its hash. `make image-lock`.

pip resolves `pyproject.toml` under `constraints.txt` for the machine that this runs on (Linux, x86-64, Python 3.11: the
image's own), and installs nothing.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "infra" / "requirements-image.txt"
HEAD = """\
# What infra/Dockerfile installs for a CPU: the files for Linux on x86-64 and Python 3.11, by their hashes. Made by
# `make image-lock` of pyproject.toml and constraints.txt; tests/infra holds that they agree.
"""


def wanted() -> list[str]:
    """The extras of the Dockerfile, and what builds the package itself."""
    text = (ROOT / "infra" / "Dockerfile").read_text(encoding="utf-8")
    [extras] = re.findall(r'"\.\[(onnx-\$\{ENCODER\},[a-z,]+)\]"', text)
    return [f".[{extras.replace('${ENCODER}', 'cpu')}]", "setuptools>=77"]


def lines_of(report: dict[str, object]) -> list[str]:
    """A line for each distribution of pip's report, but for the package itself."""
    found = []
    for each in report["install"]:  # type: ignore[attr-defined]
        name = re.sub(r"[-_.]+", "-", each["metadata"]["name"]).lower()
        if name != "vidseek":
            digest = each["download_info"]["archive_info"]["hashes"]["sha256"]
            found.append(f"{name}=={each['metadata']['version']} --hash=sha256:{digest}")
    return sorted(found)


def main() -> None:
    """Resolve, and write the file whole."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--only-binary", ":all:",
             "-c", "constraints.txt", "--report", str(report), *wanted()], cwd=ROOT, check=True,
        )
        lines = lines_of(json.loads(report.read_text(encoding="utf-8")))
    beside = LOCK.with_suffix(".new")
    beside.write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")
    beside.replace(LOCK)


if __name__ == "__main__":
    main()
