"""What a real model is to hold on to: a folder of pictures with captions, named in `general.source`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from pipelines import general
from tests.pipelines.growing import write_colours
from vidseek_media.tables import PAIRS, read_table
from vidseek_training import backbones
from vidseek_training.dataset.pair_set import load_pairs

ROOT = Path(__file__).parents[2]
NUM_PICTURES = 12


def write_pictures(folder: Path) -> None:
    rng, rows = np.random.default_rng(0), ["file,caption"]
    for number in range(NUM_PICTURES):
        coarse = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
        Image.fromarray(coarse).resize((80, 60), Image.Resampling.NEAREST).save(folder / f"{number}.jpg")
        rows += [f"{number}.jpg,a quilt with pattern {number}", f"{number}.jpg,cloth of kind {number}"]
    (folder / "captions.csv").write_text("\n".join(rows) + "\n")


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for stages to run in, with a general world of pictures."""
    (tmp_path / "pictures").mkdir()
    write_pictures(tmp_path / "pictures")
    content = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    content["general"]["source"] = "pictures"  # as the stages have it: relative to where they run
    content["frames"] |= {"workers": 1, "shard_mib": 1}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "side.json").write_text('{"side_px": 64}')  # as the stage side leaves it
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_general__rewritten_in_equal_bytes_or_with_files_that_give_no_pair_it_trains_nothing(archive: Path) -> None:
    """`train`, `evaluate` and `calibrate` depend on data/general/pairs alone."""
    general.main()
    before, pairs = files_of(archive / "data" / "general"), files_of(archive / "data" / "general" / "pairs")
    for path in (archive / "pictures").iterdir():
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    general.main()
    assert files_of(archive / "data" / "general") == before
    write_colours(archive / "pictures" / "undescribed.mp4", seed=0)
    general.main()
    assert files_of(archive / "data" / "general") != before
    assert files_of(archive / "data" / "general" / "pairs") == pairs


def test_general__without_a_source_is_a_table_of_no_pairs(archive: Path) -> None:
    params = yaml.safe_load((archive / "params.yaml").read_text())
    params["general"]["source"] = None
    (archive / "params.yaml").write_text(yaml.safe_dump(params))
    general.main()
    assert [*files_of(archive / "data" / "general")] == ["pairs/pairs.parquet"]
    assert len(read_table(Path("data/general/pairs/pairs.parquet"), PAIRS)) == 0


def test_general__a_folder_of_captioned_pictures_gives_pairs_to_replay_and_to_judge_by(archive: Path) -> None:
    said = general.main()
    pairs = read_table(Path("data/general/pairs/pairs.parquet"), PAIRS)
    assert len(pairs) == 2 * NUM_PICTURES and {"train", "validation", "test"} == set(pairs.split)
    assert f"{(pairs.split == 'train').sum()} pairs for replay" in said
    spec = backbones.load("vidseek/clip-tiny").spec
    loaded = load_pairs(Path("data/general/pairs/pairs.parquet"), Path("data/general/frames"), spec, split="train")
    assert loaded.frames.shape == (len(loaded), spec.num_frames, spec.image_size_px, spec.image_size_px, 3)
    assert len(loaded.frames.stored) == len(loaded) // 2  # a picture is stored once, whatever is said of it
