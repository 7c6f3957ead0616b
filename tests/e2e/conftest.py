"""A checkout of its own for the whole loop: what git has, plus what is not committed yet."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.copying import copy_tree
from tests.sharing import made_once

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 1800
"""What one command may take on a machine where others work: `dvc repro` takes one or two minutes on a quiet one."""


class Checkout:
    """A copy of the project in which commands run as a user would run them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `command` here with this interpreter's tools first on the path."""
        env = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_", "VIDSEEK_"))}
        env |= {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}",
            "PYTHONPATH": str(self.path / "packages"), "HF_HUB_OFFLINE": "1", "DVC_NO_ANALYTICS": "1",
            "OMP_NUM_THREADS": "1",  # threads of one small model wait for each other, longer where others work
            **environment,
        }
        return subprocess.run(
            command, cwd=self.path, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL,
            timeout=PATIENCE_SECONDS,
        )

    def succeed(self, *command: str, **environment: str) -> str:
        """Run `command`, which must exit with 0; gives its standard output."""
        done = self.run(*command, **environment)
        told = f"{command} exited with {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        assert done.returncode == 0, told
        return done.stdout

    def edit_params(self, changes: dict[str, object]) -> None:
        """Set keys of params.yaml, given as `section.key`."""
        import yaml

        path = self.path / "params.yaml"
        content = yaml.safe_load(path.read_text())
        for name, value in changes.items():
            *sections, key = name.split(".")
            place = content
            for section in sections:
                place = place[section]
            place[key] = value
        path.write_text(yaml.safe_dump(content, sort_keys=False))


def make_checkout(path: Path) -> Checkout:
    """The files that git tracks or would track, in a repository of their own."""
    list_files = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(list_files, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, path / name)
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "checkout"]):
        subprocess.run(["git", *command], cwd=path, check=True, capture_output=True)
    return Checkout(path)


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo world at its smallest."""
    from vidseek_demo.world import WorldSize, render_world

    return made_once(tmp_path_factory, "world", lambda out: render_world(out, size=WorldSize.tiny(), workers=2))


@pytest.fixture(scope="session")
def looped_once(tmp_path_factory: pytest.TempPathFactory, tiny_world: Path) -> Checkout:
    """A checkout in which `dvc repro` has run on the tiny world: to be copied, not written to."""
    def loop(folder: Path) -> None:
        checkout = make_checkout(folder)
        checkout.edit_params({
            "ingest.source": str(tiny_world / "domain"), "general.source": str(tiny_world / "general"),
            "train.settings.lora.steps": 30, "train.settings.lora.warmup_text_steps": 20,
            "train.settings.lora.batch": 12, "train.settings.lora.replay": 4, "train.settings.lora.evaluate_every": 10,
        })
        checkout.succeed("dvc", "repro")

    return Checkout(made_once(tmp_path_factory, "looped", loop))


@pytest.fixture(scope="module")
def looped(looped_once: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A copy of `looped_once` for the tests of one module."""
    return Checkout(copy_tree(looped_once.path, tmp_path_factory.mktemp("loop")))
