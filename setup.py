"""What pyproject.toml cannot say: a wheel carries the stages, the service and the pipeline inside of the package `vidseek`.

They lie beside `packages/` in the repository. In a wheel they are `vidseek/shipped/`, which `vidseek.installation` finds.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SHIPPED = ("pipelines", "serving", ".dvc/plots", "data/decisions/README.md", "dvc.yaml", "constraints.txt")


class BuildWithStages(build_py):
    """Copies `SHIPPED` behind the packages; an editable installation finds it in the repository."""

    def run(self) -> None:
        """Build the packages, then copy the rest."""
        super().run()
        if not self.editable_mode:
            copy_shipped(Path(self.build_lib) / "vidseek" / "shipped")


def copy_shipped(folder: Path) -> None:
    """Write the folder anew: a file that was renamed since an earlier build is in none.

    Args:
        folder: Where it goes.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for name in SHIPPED:
        source, target = ROOT / name, folder / name.removeprefix(".")
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copy2(source, target)


if __name__ == "__main__":
    setup(cmdclass={"build_py": BuildWithStages})
