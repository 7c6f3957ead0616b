from __future__ import annotations

from pathlib import Path

import yaml

from bench.growing.whole_run import LEFT_OUT, without_makers
from vidseek.configuration.archive_pipeline import archive_pipeline


def test_without_makers__each_dependency_is_there_or_made(tmp_path: Path) -> None:
    (tmp_path / "models" / "encoder").mkdir(parents=True)
    stages = without_makers(yaml.safe_load(archive_pipeline()), tmp_path)["stages"]
    assert not set(stages) & set(LEFT_OUT) and {"ingest", "embed", "publish"} <= set(stages)
    assert "models/encoder" in stages["embed"]["deps"]
    assert not any(dep.startswith("models/champion") for stage in stages.values() for dep in stage["deps"])
