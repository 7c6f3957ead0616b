from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.media.damaging import damage_packets
from tests.raising import raises
from tests.stored_shards import list_shards, read_members, read_shard
from vidseek_media.cutting.cut import cut_archive, read_clips
from vidseek_media.decoding.frames import bin_centres
from vidseek_media.errors import ArtifactError, ConfigError, InputRejected
from vidseek_media.frame_store.members import (
    decode_jpeg,
    encode_jpeg,
    frames_digest_of,
    kept_of,
    parse_members,
)
from vidseek_media.frame_store.shards import FramesReport, write_frames
from vidseek_media.frame_store.stored_clips import read_frames
from vidseek_media.records import ClipFrames
from vidseek_media.settings import CutSettings, FrameSettings
from vidseek_media.sources.ingest import ingest, read_videos
from vidseek_media.tables import FRAMES, REJECTED, read_table

MakeVideo = Callable[..., Path]
NumberOf = Callable[[np.ndarray], int]

SETTINGS: dict[str, Any] = {
    "num_frames": 4, "side_px": 24, "quality": 95, "shard_mib": 1, "workers": 1, "timeout_seconds": 60.0,
}
ENVIRONMENT = {"PYTHONPATH": ":".join(sys.path), "PATH": ""}


class Archive:
    """A source of a few small videos and the stages over it."""

    def __init__(self, folder: Path, make_video: MakeVideo) -> None:
        self.folder, self.source, self.out = folder, folder / "source", folder / "frames"
        for number in range(3):
            make_video(self.source / f"v{number}.mp4", num_frames=20 + 10 * number, gop=7)
        self.take_in()

    def take_in(self, *, modes: Sequence[str] = ("windows",)) -> None:
        ingest(
            self.source, out=self.folder / "ingest", ledger=self.folder / "ledger.json", timeout_seconds=60, workers=1
        )
        self.cut(modes=modes)

    def cut(self, *, modes: Sequence[str] = ("windows",), length: float = 1.5) -> None:
        cut_archive(
            self.folder / "ingest", out=self.folder / "cut",
            settings=CutSettings(modes=modes, window_length_seconds=length, window_stride_seconds=0.5),
        )

    def write(self, **changed: object) -> FramesReport:
        return write_frames(
            self.source, self.folder / "ingest", self.folder / "cut", out=self.out,
            settings=FrameSettings(**{**SETTINGS, **changed}),
        )

    def clips(self) -> dict[str, ClipFrames]:
        return {str(clip.clip_id): clip for clip in read_frames(self.out)}

    def bytes_of_shards(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in list_shards(self.out)}

    def video_id(self, name: str) -> str:
        return next(v.video_id for v in read_videos(self.folder / "ingest") if v.uris[0] == name)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.media.conftest import write_video

    folder = tmp_path_factory.mktemp("archive")
    Archive(folder, write_video).write()
    return folder


@pytest.fixture
def archive(made: Path, tmp_path: Path) -> Archive:
    """An archive whose frames are written."""
    shutil.copytree(made, tmp_path / "a")
    archive = object.__new__(Archive)
    archive.folder, archive.source, archive.out = tmp_path / "a", tmp_path / "a" / "source", tmp_path / "a" / "frames"
    return archive


def test_write_frames__every_clip_has_the_frames_of_its_bin_centres(archive: Archive, number_of: NumberOf) -> None:
    found = archive.clips()
    clips = read_clips(archive.folder / "cut")
    assert set(found) == {str(clip.clip_id) for clip in clips}
    for clip in clips:
        frames = found[str(clip.clip_id)]
        wanted = [time_ms // 100 for time_ms in bin_centres(clip.start_ms, clip.end_ms, 4)]  # 10 frames a second
        assert [number_of(pixels) for pixels in frames.frames] == wanted
        assert frames.times_ms == tuple(100 * number for number in wanted)
        assert (frames.key, frames.num_repeated, frames.frames.shape) == (clip.key, 0, (4, 24, 32, 3))


def test_write_frames__the_table_says_where_each_clip_is(archive: Archive) -> None:
    table = read_table(archive.out / "frames.parquet", FRAMES)
    assert len(table) == len(read_clips(archive.folder / "cut"))
    for row in table.itertuples():
        assert row.clip_id in {str(clip.clip_id) for clip in read_shard(archive.out / row.shard)}
        content = (archive.out / row.shard).read_bytes()[row.offset : row.offset + row.num_bytes]
        about, jpegs = parse_members(content, archive.out / row.shard)
        assert (about["clip_id"], frames_digest_of(jpegs)) == (row.clip_id, row.frames_digest)
        assert (row.num_frames, row.num_repeated, row.decoder) == (4, 0, "pyav")


def test_write_frames__the_table_names_the_bytes_of_each_clips_frames(archive: Archive) -> None:
    table = read_table(archive.out / "frames.parquet", FRAMES).set_index("clip_id")["frames_digest"]
    assert table.index.is_unique and len(table) == len(archive.clips())
    for shard in list_shards(archive.out):
        for about, jpegs in read_members(shard):
            content = b"".join(len(jpeg).to_bytes(8, "big") + jpeg for jpeg in jpegs)
            assert table[about["clip_id"]] == about["frames_digest"] == hashlib.sha256(content).hexdigest()[:32]
    assert {clip_id: clip.digest for clip_id, clip in archive.clips().items()} == table.to_dict()


def test_write_frames__computes_the_digests_of_shards_of_an_earlier_version(archive: Archive) -> None:
    wanted = (archive.out / "frames.parquet").read_bytes()
    for shard in list_shards(archive.out):
        _rewrite_without_digests(shard)
    shutil.rmtree(archive.source)
    archive.source.mkdir()  # nothing to decode from
    report = archive.write()
    assert report.num_shards_kept == report.num_shards
    assert (archive.out / "frames.parquet").read_bytes() == wanted


def _rewrite_without_digests(shard: Path) -> None:
    with tarfile.open(shard) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    with tarfile.open(shard, "w") as tar:
        for member, content in members:
            if member.name.endswith(".json"):
                about = json.loads(content)
                del about["frames_digest"]
                content = json.dumps(about).encode()
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_write_frames__keeps_more_frames_of_each_bin_with_its_centre_among_them(archive: Archive) -> None:
    before = archive.clips()
    archive.write(per_bin=3)
    after = archive.clips()
    for clip_id, clip in after.items():
        assert len(clip.times_ms) == 12
        assert clip.times_ms[1::3] == before[clip_id].times_ms
        np.testing.assert_array_equal(clip.frames[1::3], before[clip_id].frames)
    assert set(read_table(archive.out / "frames.parquet", FRAMES)["num_frames"]) == {12}


def test_write_frames__by_decord_says_so_for_each_clip_and_refuses_the_rest(
    archive: Archive, make_video: MakeVideo
) -> None:
    pytest.importorskip("decord")
    make_video(archive.source / "plain.mp4", num_frames=15, pixel_format="yuv420p")
    archive.take_in()
    report = archive.write(decoder="decord")
    table = read_table(archive.out / "frames.parquet", FRAMES)
    assert set(table["video_id"]) == {archive.video_id("plain.mp4")}
    assert set(table["decoder"]) == {"decord"}
    assert report.num_in == report.num_out + report.num_rejected
    assert all("its pixels are yuv444p" in r for r in read_table(archive.out / "rejected.parquet", REJECTED)["reason"])


def test_write_frames__flags_clips_that_stand_still_and_remembers_it(archive: Archive) -> None:
    still = archive.source / "still.mp4"
    _still_video(still)
    archive.take_in()
    for is_again in (False, True):  # The second run reads the quality flags back from the shards.
        report = archive.write()
        assert (report.num_shards_kept == report.num_shards) is is_again
        table = read_table(archive.out / "frames.parquet", FRAMES)
        quality_flags = {video_id: {tuple(m) for m in rows["quality_flags"]} for video_id, rows in table.groupby("video_id")}
        assert quality_flags.pop(archive.video_id("still.mp4")) == {("frozen",)}
        assert all(found == {()} for found in quality_flags.values())


def test_write_frames__members_are_sorted_and_carry_no_times_or_owners(archive: Archive) -> None:
    for path in list_shards(archive.out):
        with tarfile.open(path) as tar:
            members = tar.getmembers()
        keys = [member.name.split(".", 1)[0] for member in members]
        assert keys == sorted(keys)
        assert [m.name.split(".", 1)[1] for m in members[:5]] == ["json", "00.jpg", "01.jpg", "02.jpg", "03.jpg"]
        assert {(m.mtime, m.uid, m.gid, m.uname) for m in members} == {(0, 0, 0, "")}


def test_write_frames__each_clip_has_its_facts_beside_its_pictures(archive: Archive) -> None:
    for path in list_shards(archive.out):
        with tarfile.open(path) as tar:
            abouts = [json.load(tar.extractfile(m)) for m in tar if m.name.endswith(".json")]  # type: ignore[arg-type]
        found = {str(clip.clip_id): clip for clip in read_shard(path)}
        assert [about["clip_id"] for about in abouts] == list(found)
        for about in abouts:
            assert about["key"].startswith(about["video_id"])
            assert tuple(about["times_ms"]) == found[about["clip_id"]].times_ms
            assert about["start_ms"] <= about["times_ms"][0] < about["times_ms"][-1] < about["end_ms"]


def test_write_frames__twice_decodes_nothing_and_changes_nothing(archive: Archive) -> None:
    before = archive.bytes_of_shards()
    table = (archive.out / "frames.parquet").read_bytes()
    shutil.rmtree(archive.source)
    archive.source.mkdir()  # nothing to decode from
    report = archive.write()
    assert report.num_shards_kept == report.num_shards == len(before)
    assert archive.bytes_of_shards() == before
    assert (archive.out / "frames.parquet").read_bytes() == table


def test_write_frames__from_nothing_gives_the_same_bytes_with_any_number_of_workers(archive: Archive) -> None:
    before = archive.bytes_of_shards()
    shutil.rmtree(archive.out)
    archive.write(workers=3)
    assert archive.bytes_of_shards() == before


def test_write_frames__a_new_video_goes_into_a_new_shard(archive: Archive, make_video: MakeVideo) -> None:
    before = archive.bytes_of_shards()
    make_video(archive.source / "new.mp4", num_frames=15, width=96)
    archive.take_in()
    report = archive.write()
    after = archive.bytes_of_shards()
    assert before.items() < after.items() and len(after) == len(before) + 1
    assert (report.num_decoded, report.num_shards_kept) == (1, len(before))
    table = read_table(archive.out / "frames.parquet", FRAMES)
    [new] = table["shard"][table["video_id"] == archive.video_id("new.mp4")].unique()
    assert Path(new).name not in before


def test_write_frames__another_cut_or_setting_replaces_every_shard(archive: Archive) -> None:
    before = archive.bytes_of_shards()
    archive.cut(length=1.0)
    archive.write()
    between = archive.bytes_of_shards()
    archive.write(side_px=16)
    after = archive.bytes_of_shards()
    assert not set(before) & set(between)
    assert not set(between) & set(after)
    assert len(before) == len(between) == len(after)


@pytest.mark.parametrize("size", [0, 3000, -1024 - 2048])
def test_write_frames__a_broken_shard_is_made_again(archive: Archive, size: int) -> None:
    before = archive.bytes_of_shards()
    path = list_shards(archive.out)[0]
    path.write_bytes(path.read_bytes()[:size])
    report = archive.write()
    assert (report.num_shards_kept, report.num_decoded) == (0, 3)
    assert archive.bytes_of_shards() == before


def test_write_frames__a_video_that_is_gone_costs_its_clips_alone(archive: Archive) -> None:
    shutil.rmtree(archive.out)
    (archive.source / "v1.mp4").unlink()
    lost = archive.video_id("v1.mp4")
    report = archive.write()
    clips = read_clips(archive.folder / "cut")
    assert report.num_rejected == sum(clip.video_id == lost for clip in clips)
    assert report.num_in == report.num_out + report.num_rejected == len(clips)
    table = read_table(archive.out / "rejected.parquet", REJECTED)
    assert set(table["id"]) == {str(clip.clip_id) for clip in clips if clip.video_id == lost}
    assert all("v1.mp4" in reason and "No such file" in reason for reason in table["reason"])


def test_write_frames__a_rejection_is_remembered(archive: Archive) -> None:
    shutil.rmtree(archive.out)
    damage_packets(archive.source / "v2.mp4", first=7, last=40)
    archive.take_in()
    first = archive.write()
    second = archive.write()
    assert first.num_rejected > 0
    assert (first.num_decoded, second.num_decoded) == (3, 0)
    assert dataclasses.replace(second, num_shards_kept=0, num_decoded=3) == first
    assert second.num_rejected == len(read_table(archive.out / "rejected.parquet", REJECTED))


def test_write_frames__says_how_many_frames_are_repeated(archive: Archive, number_of: NumberOf) -> None:
    shutil.rmtree(archive.out)
    damage_packets(archive.source / "v2.mp4", first=14, last=20)  # one group of pictures of 7
    archive.take_in()
    archive.write()
    lost = archive.video_id("v2.mp4")
    found = archive.clips()
    for clip in read_clips(archive.folder / "cut"):
        if clip.video_id == lost and str(clip.clip_id) in found:
            frames = found[str(clip.clip_id)]
            wanted = [time_ms // 100 for time_ms in bin_centres(clip.start_ms, clip.end_ms, 4)]
            shown = [number_of(pixels) for pixels in frames.frames]
            assert frames.num_repeated == sum(a != b for a, b in zip(shown, wanted, strict=True))
    assert sum(clip.num_repeated for clip in found.values()) > 0


def test_write_frames__of_videos_that_are_all_gone_is_an_error_that_names_the_table(archive: Archive) -> None:
    shutil.rmtree(archive.out)
    for path in archive.source.iterdir():
        path.unlink()
    with raises(InputRejected, code="no-usable-clip") as caught:
        archive.write()
    assert "rejected.parquet" in caught.value.remedy
    assert not (archive.out / "frames.parquet").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_frames", 0), ("num_frames", 101), ("per_bin", 2), ("per_bin", 51), ("decoder", "opencv"), ("side_px", 0),
        ("quality", 101), ("shard_mib", 0),
    ],
)
def test_write_frames__refuses_settings_out_of_range(archive: Archive, name: str, value: object) -> None:
    code = "unknown-choice" if name == "decoder" else "setting-out-of-range"
    with raises(ConfigError, code=code, naming=(f"frames.{name}", value)):
        archive.write(**{name: value})


def test_write_frames__goes_on_where_an_interrupted_run_stopped(archive: Archive) -> None:
    """The first run is killed when its videos are done; the second must not decode them."""
    before = archive.bytes_of_shards()
    shutil.rmtree(archive.out)
    script = archive.folder / "killed.py"
    script.write_text(
        "import os, sys\n"
        "from pathlib import Path\n"
        "from vidseek_media.frame_store import shards\n"
        "from vidseek_media.settings import FrameSettings\n"
        "if __name__ == '__main__':\n"
        "    folder = Path(sys.argv[1])\n"
        "    shards._Run._join = lambda run, jobs: os._exit(9) if jobs else None  # as the first shard is laid together\n"
        "    shards.write_frames(folder / 'source', folder / 'ingest', folder / 'cut', out=folder / 'frames',\n"
        f"                        settings=FrameSettings(**{SETTINGS!r}))\n"
    )
    done = subprocess.run([sys.executable, str(script), str(archive.folder)], env=ENVIRONMENT, timeout=60, check=False)
    assert done.returncode == 9
    assert len(list((archive.out / ".parts").glob("*.part"))) == 3
    assert archive.write().num_decoded == 0
    assert archive.bytes_of_shards() == before
    assert not (archive.out / ".parts").exists()


def test_write_frames__a_full_disk_is_one_clear_error(archive: Archive, tmp_path: Path) -> None:
    shutil.rmtree(archive.out)
    script = tmp_path / "full.py"
    script.write_text(
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from vidseek_media.errors import ArtifactError\n"
        "from vidseek_media.settings import FrameSettings\n"
        "from vidseek_media.frame_store.shards import write_frames\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        "    folder = Path(sys.argv[1])\n"
        "    try:\n"
        "        write_frames(folder / 'source', folder / 'ingest', folder / 'cut', out=folder / 'frames',\n"
        f"                     settings=FrameSettings(**{SETTINGS!r}))\n"
        "    except ArtifactError as error:\n"
        "        sys.exit('ArtifactError ' + str(error))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script), str(archive.folder)], capture_output=True, text=True, timeout=60, check=False,
        env=ENVIRONMENT,
    )
    assert "ArtifactError" in done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (archive.out / "frames.parquet").exists()
    assert not list(archive.out.glob("shards/*"))


def test_list_shards__of_an_empty_folder_is_an_artifact_error(tmp_path: Path) -> None:
    with raises(ArtifactError, code="no-shards", naming=tmp_path):
        list_shards(tmp_path)


def test_read_shard__of_a_cut_off_file_is_an_artifact_error(archive: Archive) -> None:
    path = list_shards(archive.out)[0]
    path.write_bytes(path.read_bytes()[:3000])
    with raises(ArtifactError, code="broken-shard", naming=path):
        list(read_shard(path))


def test_encode_jpeg__keeps_the_colour_of_single_pixels() -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:, ::2] = (255, 0, 0)
    decoded = decode_jpeg(encode_jpeg(pixels, quality=95)).astype(int)
    assert np.abs(decoded - pixels).max() < 40


def _still_video(path: Path) -> None:
    import av

    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def test_write_frames__of_a_replaced_file_keeps_nothing_under_the_id_of_the_first(
    tmp_path: Path, make_video: MakeVideo, number_of: NumberOf
) -> None:
    archive = Archive(tmp_path, make_video)
    kept = tmp_path / "kept.mp4"
    shutil.copy2(archive.source / "v2.mp4", kept)
    shutil.copy2(archive.source / "v1.mp4", archive.source / "v2.mp4")
    replaced = archive.video_id("v2.mp4")
    assert archive.write().num_rejected == sum(clip.video_id == replaced for clip in read_clips(archive.folder / "cut"))
    assert replaced not in set(read_table(archive.out / "frames.parquet", FRAMES)["video_id"])
    reasons = read_table(archive.out / "rejected.parquet", REJECTED)["reason"]
    assert reasons.str.contains("not those that were ingested").all()
    shutil.copy2(kept, archive.source / "v2.mp4")
    assert archive.write().num_rejected == 0
    last = max((clip for clip in archive.clips().values() if clip.key.startswith(replaced)), key=lambda clip: clip.key)
    assert number_of(last.frames[-1]) == last.times_ms[-1] // 100


def test_write_frames__of_files_that_were_all_replaced_leaves_the_stop_to_the_gate(archive: Archive) -> None:
    shutil.rmtree(archive.out)
    for path in archive.source.iterdir():
        path.write_bytes(b"another")
    report = archive.write()
    assert (report.num_out, report.num_rejected) == (0, report.num_in)


def test_kept_of__a_shard_of_an_earlier_version_calls_its_flags_marks() -> None:
    about = {"num_repeated": 0, "decoder": "pyav", "hashes": [1]}
    now = kept_of({**about, "quality_flags": ["black"]})
    assert kept_of({**about, "marks": ["black"]}) == now and now.quality_flags == ("black",)
    with pytest.raises(KeyError):
        kept_of(about)
