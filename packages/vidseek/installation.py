"""Where the code of the stages and the service lies: in the wheel, beside the packages, or in the working directory."""

from __future__ import annotations

from pathlib import Path

from vidseek_media.errors import ConfigError

SHIPPED = Path(__file__).resolve().parent / "shipped"
"""In a wheel: `setup.py` puts there what lies beside the packages in the repository."""
PACKAGES = Path(__file__).resolve().parents[1]
"""The folder of the packages."""
STAGES, SERVICE = "pipelines/stage.py", "serving/service.py"
PIPELINE, CONSTRAINTS = "dvc.yaml", "constraints.txt"


def code_root(mark: str) -> Path:
    """Return the folder that holds a file which no package has: `pipelines/`, `serving/`, dvc.yaml.

    Args:
        mark: The file, relative to the folder.

    Raises:
        ConfigError: no folder holds it.
    """
    for root in (SHIPPED, PACKAGES.parent, Path.cwd()):
        if (root / mark).is_file():
            return root
    raise ConfigError(
        f"{mark} was not found in {SHIPPED} or {PACKAGES.parent}", code="installation-incomplete",
        remedy="Install vidseek again from its wheel, or run in the repository",
    )
