"""Digests of the images that Dockerfile and compose.yaml name: `check` says which have none, `pin` asks the registries.

    make image-digests    # needs docker with buildx, and the registries
    make release-check    # fails while an image has no digest
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

INFRA = Path(__file__).resolve().parent
FILES = ("Dockerfile", "compose.yaml")
_IMAGE = re.compile(
    r"^(?P<head>FROM |\s+image: )(?P<name>[\w./-]+:[\w.-]+)(?P<digest>@sha256:[0-9a-f]{64})?(?=\s|$)", re.MULTILINE
)


def images(text: str) -> dict[str, bool]:
    """The images of other projects that a file names with a tag, and whether each has a digest everywhere."""
    found: dict[str, bool] = {}
    for match in _IMAGE.finditer(text):
        found[match["name"]] = found.get(match["name"], True) and match["digest"] is not None
    return found


def pinned(text: str, digests: dict[str, str]) -> str:
    """`text` in which each image has the digest that is known of it."""
    def pin(match: re.Match[str]) -> str:
        digest = digests.get(match["name"])
        return match[0] if digest is None else f"{match['head']}{match['name']}@{digest}"

    return _IMAGE.sub(pin, text)


def digest_of(image: str) -> str:
    """What the registry says now."""
    command = ["docker", "buildx", "imagetools", "inspect", image, "--format", "{{.Manifest.Digest}}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", said):
        raise SystemExit(f"{image}: the registry said {said[:100]!r}, wanted a digest")
    return said


def main(act: str) -> int:
    """`check` or `pin`; gives the exit code."""
    paths = [INFRA / name for name in FILES]
    if act == "pin":
        wanted = sorted({image for path in paths for image in images(path.read_text(encoding="utf-8"))})
        digests = {image: digest_of(image) for image in wanted}  # all of them first: no file is half pinned
        for path in paths:
            path.write_text(pinned(path.read_text(encoding="utf-8"), digests), encoding="utf-8")
    found = {path.name: images(path.read_text(encoding="utf-8")) for path in paths}
    lacking = [f"{name}: {image}" for name, named in found.items() for image, has in named.items() if not has]
    sys.stderr.write("".join(f"no digest: {each}\n" for each in lacking))
    return 1 if lacking else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1] if len(sys.argv) > 1 else "check"))
