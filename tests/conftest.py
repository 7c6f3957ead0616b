"""What tests of several rooms share."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from vidseek.archive import Archive


@pytest.fixture(scope="session")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """A published archive with a reference for drift: to be copied, not written to."""
    from tests.serving.asked_colours import write_calibrated_archive  # encoder and index: few tests need it

    return write_calibrated_archive(tmp_path_factory.mktemp("calibrated"))


@pytest.fixture
def asked_archive(calibrated: Archive, tmp_path: Path) -> Archive:
    """A copy of `calibrated` of one's own."""
    shutil.copytree(calibrated.root, tmp_path / "archive")
    return type(calibrated)(tmp_path / "archive")


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real files, where it is there."""
    default = Path(__file__).resolve().parents[1].parent / "shared" / "realdata"
    folder = Path(os.environ.get("VIDSEEK_REALDATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real files at {folder}; set VIDSEEK_REALDATA")
    return folder
