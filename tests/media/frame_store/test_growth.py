"""What a run costs when the archive grows: files decoded, members copied, and nothing lost in a run that is killed."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import random
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.forking import run_code
from tests.media.conftest import write_video
from tests.raising import raises
from tests.stored_shards import list_shards, read_members, read_shard
from vidseek_media.cutting.cut import cut_archive
from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_media.frame_store import compaction
from vidseek_media.frame_store import shards as stage
from vidseek_media.frame_store.compaction import MOST_SMALL, choose
from vidseek_media.frame_store.members import settings_digest_of
from vidseek_media.frame_store.shards import FramesReport, write_frames
from vidseek_media.frame_store.stored_clips import read_frames, stored_clips
from vidseek_media.ids import video_id_of
from vidseek_media.settings import CutSettings, FrameSettings
from vidseek_media.sources.ingest import ingest
from vidseek_media.tables import FRAMES, REJECTED, read_table, write_table

SETTINGS: dict[str, Any] = {"num_frames": 2, "side_px": 24, "workers": 1, "timeout_seconds": 60.0}
FEW_BYTES = 16_000 / 2**20
"""A few of these videos fill a shard."""
NUM_KILLS = int(os.environ.get("VIDSEEK_KILLS", "1000"))
"""More than there are changes: a kill at each."""


class Archive:
    """A source of small videos and the stages up to `frames`."""

    def __init__(self, folder: Path, num_videos: int = 0) -> None:
        self.folder, self.source, self.out = folder, folder / "source", folder / "frames"
        self.decoded: list[str] = []
        self.source.mkdir(parents=True, exist_ok=True)
        for number in range(num_videos):
            self.add(number)

    def add(self, number: int) -> Path:
        return write_video(self.source / f"{number}.mp4", num_frames=10 + number, gop=7)

    def write(
        self, monkeypatch: pytest.MonkeyPatch, *, forgotten: frozenset[str] = frozenset(), **changed: Any
    ) -> FramesReport:
        """Run the stages; `decoded` has the names of the files that were decoded."""
        self.take_in()
        self.decoded = []
        run_videos = stage.run_videos

        def counting(function: Callable[..., Any], jobs: Sequence[Any], **options: Any) -> Any:
            self.decoded += [job.path.name for job in jobs]
            return run_videos(function, jobs, **options)

        with monkeypatch.context() as patch:
            patch.setattr(stage, "run_videos", counting)
            report = self.frames(forgotten=forgotten, **changed)
        assert report.num_decoded == len(self.decoded)
        return report

    def take_in(self) -> None:
        ingest(self.source, out=self.folder / "ingest", ledger=self.folder / "ledger", timeout_seconds=60, workers=1)
        cut_archive(
            self.folder / "ingest", out=self.folder / "cut",
            settings=CutSettings(modes=("windows",), window_length_seconds=0.5, window_stride_seconds=0.5),
        )

    def frames(self, *, forgotten: frozenset[str] = frozenset(), **changed: Any) -> FramesReport:
        return write_frames(
            self.source, self.folder / "ingest", self.folder / "cut", out=self.out, forgotten=forgotten,
            settings=FrameSettings(**{**SETTINGS, **changed}),
        )

    def table(self) -> pd.DataFrame:
        return read_table(self.out / "frames.parquet", FRAMES)

    def content(self) -> dict[str, str]:
        """What each clip shows, read from its shard."""
        return {str(clip.clip_id): clip.digest for clip in read_frames(self.out)}

    def shards(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.out / "shards").iterdir()}


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos in a few shards."""
    archive = Archive(tmp_path_factory.mktemp("six"), 6)
    archive.take_in()
    archive.frames(shard_mib=FEW_BYTES)
    return archive.folder


@pytest.fixture
def archive(six: Path, tmp_path: Path) -> Archive:
    shutil.copytree(six, tmp_path / "archive")
    return Archive(tmp_path / "archive")


def test_write_frames__decodes_what_came_and_copies_nothing(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    before, content = archive.shards(), archive.content()
    assert len(before) > 2
    archive.write(monkeypatch, shard_mib=FEW_BYTES)
    assert (archive.decoded, archive.shards()) == ([], before)
    archive.add(6)
    archive.write(monkeypatch, shard_mib=FEW_BYTES)
    assert archive.decoded == ["6.mp4"]
    assert before.items() < archive.shards().items() and content.items() < archive.content().items()
    write_video(archive.source / "6.mp4", num_frames=25)
    archive.write(monkeypatch, shard_mib=FEW_BYTES)
    assert archive.decoded == ["6.mp4"]
    assert content.items() < archive.content().items()
    (archive.source / "6.mp4").unlink()
    archive.write(monkeypatch, shard_mib=FEW_BYTES)
    assert (archive.decoded, archive.shards(), archive.content()) == ([], before, content)


def test_write_frames__reads_no_shard_that_its_tables_list(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.add(6)
    archive.take_in()
    for shard in list_shards(archive.out):
        shard.chmod(0)  # root reads it all the same: what is opened is counted too
    opened: list[Path] = []
    monkeypatch.setattr("vidseek_media.frame_store.known_frames.scan_placed", lambda path: opened.append(path) or iter(()))
    archive.frames(shard_mib=FEW_BYTES)
    assert not [path for path in opened if path.suffix == ".tar"]


def test_write_frames__a_removed_video_is_listed_no_more_and_a_shard_mostly_dead_is_copied(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, content = archive.table(), archive.content()
    of_shard = {shard: sorted(set(rows["video_id"])) for shard, rows in table.groupby("shard")}
    shard, videos = max(of_shard.items(), key=lambda each: len(each[1]))
    assert len(videos) > 1
    names = {video_id_of(path): path for path in archive.source.iterdir()}
    for video_id in videos[:-1]:
        names[video_id].unlink()
    report = archive.write(monkeypatch, shard_mib=FEW_BYTES)
    left = {clip_id: content[clip_id] for clip_id in table["clip_id"][~table["video_id"].isin(videos[:-1])]}
    assert (archive.decoded, archive.content()) == ([], left)
    is_copied = Path(shard).name not in archive.shards()
    live = table["num_bytes"][table["video_id"] == videos[-1]].sum()
    assert is_copied == (live < table["num_bytes"][table["shard"] == shard].sum() / 2)
    assert report.num_shards == len(archive.shards())


def test_write_frames__no_byte_of_a_forgotten_video_is_kept(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    table = archive.table()
    sizes = table.groupby("video_id")["num_bytes"].sum()
    shared = table.groupby("shard")["video_id"].nunique()
    shard = shared[shared > 1].index[0]
    video_id = sizes[sorted(set(table["video_id"][table["shard"] == shard]))].idxmin()  # less than half of the shard
    next(path for path in archive.source.iterdir() if video_id_of(path) == video_id).unlink()
    archive.write(monkeypatch, shard_mib=FEW_BYTES, forgotten=frozenset({video_id}))
    assert archive.decoded == []
    kept = [clip.key for path in (archive.out / "shards").iterdir() for clip in read_shard(path)]
    assert kept and not [key for key in kept if key.startswith(video_id)]


def test_write_frames__many_small_shards_become_one_by_copying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive(tmp_path)
    monkeypatch.setattr(compaction, "MOST_SMALL", 2)
    content: dict[str, str] = {}
    for number, num_shards in enumerate((1, 2, 1)):
        archive.add(number)
        assert archive.write(monkeypatch).num_shards == num_shards == len(archive.shards())
        assert archive.decoded == [f"{number}.mp4"]
        assert content.items() < archive.content().items()
        content = archive.content()
    [only] = archive.shards().values()
    with tarfile.open(fileobj=io.BytesIO(only)) as tar:  # as any tool reads it
        assert len([name for name in tar.getnames() if name.endswith(".json")]) == len(content)


def test_write_frames__a_grown_archive_lists_what_one_made_at_once_lists(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.add(6)
    (archive.source / "1.mp4").unlink()
    archive.write(monkeypatch, shard_mib=FEW_BYTES)
    fresh = archive.folder / "fresh"
    write_frames(
        archive.source, archive.folder / "ingest", archive.folder / "cut", out=fresh, settings=FrameSettings(**SETTINGS)
    )
    places = ["shard", "offset"]
    pd.testing.assert_frame_equal(archive.table().drop(columns=places), read_table(fresh / "frames.parquet", FRAMES).drop(
        columns=places
    ))


def test_write_frames__a_source_that_is_away_removes_nothing(archive: Archive) -> None:
    before = archive.shards()
    archive.source.rename(archive.folder / "away")
    with raises(ConfigError, code="source-unreadable"):
        archive.frames(shard_mib=FEW_BYTES)
    archive.source.mkdir()  # mounted, and empty: what is stored needs no source
    assert archive.frames(shard_mib=FEW_BYTES).num_rejected == 0
    assert archive.shards() == before


def test_write_frames__two_at_once_is_refused(archive: Archive) -> None:
    before = archive.shards()
    descriptor = os.open(archive.out, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with raises(ArtifactError, code="folder-busy", naming=archive.out):
            archive.frames(shard_mib=FEW_BYTES)
    finally:
        os.close(descriptor)
    assert archive.shards() == before
    archive.frames(shard_mib=FEW_BYTES)


def test_write_frames__a_lost_table_is_made_from_the_shards(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (archive.out / "frames.parquet").read_bytes()
    (archive.out / "frames.parquet").unlink()
    archive.write(monkeypatch, shard_mib=FEW_BYTES)
    assert archive.decoded == [] and (archive.out / "frames.parquet").read_bytes() == before
    (archive.out / "frames.parquet").write_bytes(before[:100])
    archive.write(monkeypatch, shard_mib=FEW_BYTES)
    assert archive.decoded == [] and (archive.out / "frames.parquet").read_bytes() == before


def test_write_frames__rejections_of_other_settings_are_tried_again(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = archive.table()["clip_id"].iloc[0]
    archive.write(monkeypatch, shard_mib=FEW_BYTES, side_px=16)
    assert len(archive.decoded) == 6
    row = {"id": refused, "stage": "frames", "reason": "was refused", "kind": "frames", "retryable": False}
    write_table(archive.out / "rejected.parquet", [row], REJECTED)
    assert archive.write(monkeypatch, shard_mib=FEW_BYTES).num_rejected == 0
    assert len(archive.decoded) == 6


# --- archives of the version before ---


def as_the_version_before(archive: Archive, settings: FrameSettings) -> dict[str, str]:
    """Lay the shards as the version before did: by the first digit of video ids, and no settings in any clip."""
    digests = archive.content()
    by_digit: dict[str, list[tuple[dict[str, Any], list[bytes]]]] = {}
    for shard in list_shards(archive.out):
        for about, jpegs in read_members(shard):
            by_digit.setdefault(about["video_id"][0], []).append((about, jpegs))
    rows = {clip_id: {} for clip_id in digests}
    shutil.rmtree(archive.out / "shards")
    (archive.out / "shards").mkdir()
    for digit, clips in by_digit.items():
        clips.sort(key=lambda clip: clip[0]["key"])
        plan = {
            "format": 3, **settings.model_dump(include={"num_frames", "per_bin", "side_px", "quality", "decoder"}),
            "clips": [[about["clip_id"], about["key"]] for about, _ in clips],
        }
        name = f"{digit}-{hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:16]}.tar"
        with tarfile.open(archive.out / "shards" / name, "w", format=tarfile.USTAR_FORMAT) as tar:
            for about, jpegs in clips:
                del about["made_with"]
                rows[about["clip_id"]] = {"shard": f"shards/{name}"}
                members = {".json": json.dumps(about).encode(), **{f".{i:02d}.jpg": each for i, each in enumerate(jpegs)}}
                for suffix, content in members.items():
                    info = tarfile.TarInfo(about["key"] + suffix)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    table = archive.table().drop(columns=["offset", "num_bytes"])
    table["shard"] = [rows[clip_id]["shard"] for clip_id in table["clip_id"]]
    table.to_parquet(archive.out / "frames.parquet", index=False)
    (archive.out / "settings.json").unlink()
    return digests


def test_write_frames__takes_an_archive_of_the_version_before_over(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = as_the_version_before(archive, FrameSettings(**SETTINGS))
    assert archive.content() == digests  # it is read as it is
    before = archive.shards()
    archive.add(6)
    (archive.source / "0.mp4").unlink()
    archive.write(monkeypatch, shard_mib=FEW_BYTES)
    assert archive.decoded == ["6.mp4"]
    kept = {path.name for path in list_shards(archive.out)}
    assert len(kept & set(before)) >= len(before) - 1  # the one of the removed video may be copied, or be empty
    left = set(archive.table()["clip_id"])
    assert {clip_id: digest for clip_id, digest in archive.content().items() if clip_id in digests} == {
        clip_id: digest for clip_id, digest in digests.items() if clip_id in left
    }
    archive.write(monkeypatch, shard_mib=FEW_BYTES)
    assert archive.decoded == []


def test_write_frames__the_version_before_with_other_settings_is_decoded_again(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_the_version_before(archive, FrameSettings(**SETTINGS))
    archive.write(monkeypatch, shard_mib=FEW_BYTES, quality=80)
    assert len(archive.decoded) == 6


# --- kills ---

KILLED = """
import os
from pathlib import Path
from vidseek_media.frame_store import shards
from vidseek_media.settings import FrameSettings

def run(folder, place, settings):
    steps = [0]

    def counted(path, *arguments, _at, **named):
        steps[0] += 1
        if steps[0] == place:
            os.kill(os.getpid(), 9)
        return _at(path, *arguments, **named)

    for name in ("replace", "unlink"):  # each change of the folder is one of these
        was = getattr(Path, name)
        setattr(Path, name, lambda path, *a, _at=was, **n: counted(path, *a, _at=_at, **n))
    shards.write_frames(folder / "source", folder / "ingest", folder / "cut", out=folder / "frames",
                        settings=FrameSettings(**settings))
    print(steps[0])
"""


def killed(archive: Archive, place: int, **changed: Any) -> int:
    """Run the stage in a process that is killed at its `place`-th change of the folder; how many changes it makes in all."""
    code = f"{KILLED}\nrun(Path({str(archive.folder)!r}), {place}, {({**SETTINGS, **changed})!r})"
    done = run_code(code, imported=("vidseek_media.frame_store.shards",), folder=archive.folder, env={"PATH": ""})
    assert done.returncode == (0 if place == 0 else -9), done.stderr
    return int(done.stdout or 0)


def grown(six: Path, folder: Path) -> Archive:
    """Six videos of which one goes and most of a shard with it, and two come."""
    shutil.copytree(six, folder)
    archive = Archive(folder)
    table = archive.table()
    shard = table.groupby("shard")["video_id"].nunique().idxmax()
    for path in sorted(archive.source.iterdir()):
        if video_id_of(path) in sorted(set(table["video_id"][table["shard"] == shard]))[:-1]:
            path.unlink()
    archive.add(6)
    archive.add(7)
    archive.take_in()
    return archive


@pytest.mark.slow
def test_write_frames__killed_at_any_change_goes_on_and_ends_the_same(six: Path, tmp_path: Path) -> None:
    whole = grown(six, tmp_path / "whole")
    shutil.copytree(whole.folder, tmp_path / "begun")
    num_changes = killed(whole, 0, shard_mib=FEW_BYTES)
    content, shards = whole.content(), whole.shards()
    assert num_changes > 6
    chance = random.Random(NUM_KILLS)
    for number, place in enumerate(sorted(chance.sample(range(1, num_changes + 1), min(NUM_KILLS, num_changes)))):
        shutil.copytree(tmp_path / "begun", tmp_path / str(number))
        archive = Archive(tmp_path / str(number))
        before = archive.content()
        killed(archive, place, shard_mib=FEW_BYTES)
        assert archive.content() in (before, content), place  # readers see the one state or the other
        archive.frames(shard_mib=FEW_BYTES)
        assert (archive.content(), archive.shards()) == (content, shards), place
        assert sorted(path.name for path in archive.out.iterdir()) == sorted(path.name for path in whole.out.iterdir())


# --- what is copied ---


def test_choose__dead_many_small_and_unwanted() -> None:
    assert choose({}, most_bytes=100) == set()
    assert choose({"full": (100, 100), "half": (50, 100), "less": (49, 100)}, most_bytes=100) == {"less"}
    assert choose({"full": (100, 100)}, most_bytes=100, unwanted={"full"}) == {"full"}
    small = {f"{number:02d}": (10, 10) for number in range(MOST_SMALL)}
    assert choose(small, most_bytes=100) == set()
    # The smallest, until they fill one shard: what is copied does not grow with the archive.
    assert choose({**small, "next": (11, 11)}, most_bytes=100) == {f"{number:02d}" for number in range(10)}


def test_read_frames__frames_that_are_not_those_of_the_table_are_refused(archive: Archive) -> None:
    clip = stored_clips(archive.out)[0]
    path = archive.out / clip.shard
    content = bytearray(path.read_bytes())
    content[clip.offset + clip.num_bytes - 600] ^= 255
    path.write_bytes(content)
    with raises(ArtifactError, code="broken-shard", naming=path.name, remedy=f"Remove {path.name}"):
        list(read_frames(archive.out, [clip]))
    path.unlink()
    assert archive.frames(shard_mib=FEW_BYTES).num_rejected == 0
    assert str(next(read_frames(archive.out)).clip_id) == clip.clip_id


def test_settings_digest_of__changes_with_what_changes_frames() -> None:
    first = settings_digest_of(FrameSettings(side_px=64))
    assert first == settings_digest_of(FrameSettings(side_px=64, workers=7, shard_mib=1, timeout_seconds=1))
    assert first != settings_digest_of(FrameSettings(side_px=65))
