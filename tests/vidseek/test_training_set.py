from __future__ import annotations

import json
from pathlib import Path

from tests.vidseek.test_cli import code_of, run
from vidseek_media.tables import PAIRS, write_table


def test_training_set__is_frozen_shown_and_thawed(tmp_path: Path) -> None:
    pair = {"clip_id": "a", "video_id": "b", "caption": "a dog", "split": "train", "gallery": "default"}
    write_table(tmp_path / "data" / "pairs" / "pairs.parquet", [pair], PAIRS)
    frozen = tmp_path / "data" / "decisions" / "training_set.parquet"
    found = json.loads(run("training-set", "freeze", "--json", folder=tmp_path).stdout)
    assert (found["frozen"], found["num_train"], found["num_new"]) == (True, 1, 0) and frozen.is_file()
    assert code_of(run("training-set", "freeze", "--json", folder=tmp_path)) == "already-frozen"
    told = run("training-set", "status", folder=tmp_path)
    assert told.returncode == 0 and "frozen" in told.stdout and "new" in told.stdout
    assert json.loads(run("training-set", "thaw", "--json", folder=tmp_path).stdout) == {"was_frozen": True}
    assert not frozen.exists()
