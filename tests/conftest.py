"""What tests of several rooms share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real files, where it is there."""
    default = Path(__file__).resolve().parents[1].parent / "shared" / "realdata"
    folder = Path(os.environ.get("VIDSEEK_REALDATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real files at {folder}; set VIDSEEK_REALDATA")
    return folder
