from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines import side
from tests.media.frame_store.test_stored_side import videos_of
from tests.raising import raises
from vidseek_media.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive with this repository's params.yaml and one video of 640 x 360."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "ingest").mkdir(parents=True)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    videos_of(tmp_path / "data" / "ingest" / "videos.parquet", [(640, 360)])
    return tmp_path


def set_params(archive: Path, *, backbone: str, side_px: int | str) -> None:
    content = yaml.safe_load((archive / "params.yaml").read_text())
    content["backbone"]["name"], content["frames"]["side_px"] = backbone, side_px
    (archive / "params.yaml").write_text(yaml.safe_dump(content))


def published(folder: Path, side_px: int) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": {"image_size": side_px}}))
    return str(folder)


def stored(archive: Path) -> bytes:
    side.main()
    return (archive / "data" / "side.json").read_bytes()


def test_side__changing_the_backbone_alone_gives_it_the_pixels_that_it_takes(archive: Path) -> None:
    assert json.loads(stored(archive)) == {"side_px": 64}  # the demo's
    set_params(archive, backbone=published(archive / "b32", 224), side_px="auto")
    first = stored(archive)
    assert json.loads(first) == {"side_px": 224}
    # Another of the same side: the file that frames depend on stays as it is.
    set_params(archive, backbone=published(archive / "b16", 224), side_px="auto")
    assert stored(archive) == first
    set_params(archive, backbone=published(archive / "l14", 336), side_px="auto")
    assert json.loads(stored(archive)) == {"side_px": 336}


def test_side__fewer_than_the_backbone_and_the_video_have_is_an_error_before_anything_is_decoded(archive: Path) -> None:
    set_params(archive, backbone=published(archive / "b32", 224), side_px=64)
    with raises(ConfigError, code="frames-too-small", naming="64"):
        side.main()
    assert not (archive / "data" / "side.json").exists()
    videos_of(archive / "data" / "ingest" / "videos.parquet", [(80, 64), (640, 48)])  # no video has more
    assert json.loads(stored(archive)) == {"side_px": 64}
    set_params(archive, backbone=str(archive / "b32"), side_px=512)  # more is no fault
    assert json.loads(stored(archive)) == {"side_px": 512}


def test_side__of_a_backbone_that_is_not_here_is_asked_for_only_by_auto(archive: Path) -> None:
    set_params(archive, backbone="someone/not-here", side_px=96)
    assert json.loads(stored(archive)) == {"side_px": 96}
    set_params(archive, backbone="someone/not-here", side_px="auto")
    with raises(ConfigError, code="hub-not-cached", naming="someone/not-here"):
        side.main()


def test_side__needs_no_torch(archive: Path) -> None:
    code = (
        "import sys\nfor name in ('torch', 'transformers', 'peft', 'mlflow'): sys.modules[name] = None\n"
        "from pipelines.side import main\nprint(main())"
    )
    environment = {"PYTHONPATH": f"{ROOT / 'packages'}:{ROOT}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "64" in done.stdout, done.stderr
