"""What every stage script shares: a VidseekError becomes one message and its exit code, and paths have one home."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

# Before any library is imported that would phone home.
os.environ.update(
    {"HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1"), "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1",
     "MLFLOW_DISABLE_TELEMETRY": "true", "BENTOML_DO_NOT_TRACK": "true", "GX_ANALYTICS_ENABLED": "false",
     "TOKENIZERS_PARALLELISM": "false"}
)

from vidseek_media.errors import VidseekError

DATA, MODELS, REPORTS, RECEIPTS = Path("data"), Path("models"), Path("reports"), Path("receipts")
INDEX, STATE = Path("index"), Path(".vidseek")

INGEST, CUT, FRAMES = DATA / "ingest", DATA / "cut", DATA / "frames"
CAPTION, PAIRS, EMBED, GENERAL = DATA / "caption", DATA / "pairs", DATA / "embed", DATA / "general"
ADAPTERS, CHAMPION, ENCODER = MODELS / "adapters", MODELS / "champion", MODELS / "encoder"


def run_stage(stage: Callable[[], str]) -> None:
    """Run `stage` and say what it did; a VidseekError is told in one message, with its exit code."""
    name = Path(sys.argv[0]).stem
    try:
        said = stage()
    except VidseekError as error:
        print(f"{name}: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    print(f"{name}: {said}")
