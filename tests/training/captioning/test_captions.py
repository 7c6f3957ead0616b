from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.raising import raises
from vidseek_media.cutting.cut import cut_archive
from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_media.ids import clip_id_of
from vidseek_media.settings import CutSettings
from vidseek_media.tables import CAPTIONS, REJECTED, SIDECAR, TRANSCRIPTS, VIDEOS, read_table, write_table
from vidseek_training.captioning.captions import CaptionReport, write_captions
from vidseek_training.settings import CaptionSettings

A, B = "a" * 32, "b" * 32


def write(
    folder: Path,
    videos: dict[str, int],
    captions: list[tuple[str, int | None, int | None, str]],
    *,
    titles: dict[str, tuple[str, str]] | None = None,
    cues: list[tuple[str, int, int, str]] | None = None,
    sources: tuple[str, ...] = ("file", "transcript", "title"),
    modes: tuple[str, ...] = ("captions", "windows"),
    window_seconds: float = 3.0,
) -> CaptionReport:
    """Cut videos (duration by id) with their captions, and caption the clips."""
    ingest, cut = folder / "ingest", folder / "cut"
    write_table(ingest / "videos.parquet", [
        {"video_id": video_id, "uris": [f"{video_id[0]}.mp4"], "duration_ms": duration_ms, "fps": 10.0, "width": 64,
         "height": 48, "codec": "h264", "source_id": "", "title": (titles or {}).get(video_id, ("", ""))[1], "channel": "",
         "category": (titles or {}).get(video_id, ("", ""))[0],
         "published_at": "", "thumbnail": "", "clip_of": ""}
        for video_id, duration_ms in videos.items()
    ], VIDEOS)
    write_table(ingest / "sidecar.parquet", [
        {"video_id": video_id, "clip_index": None, "start_ms": start_ms, "end_ms": end_ms, "text": text,
         "split": "test", "gallery": "easy", "contrast": f"not {text}", "axis": "truth"}
        for video_id, start_ms, end_ms, text in captions
    ], SIDECAR)
    write_table(ingest / "transcripts.parquet", [
        {"video_id": video_id, "start_ms": start_ms, "end_ms": end_ms, "lines": [line]}
        for video_id, start_ms, end_ms, line in cues or []
    ], TRANSCRIPTS)
    cut_archive(
        ingest, out=cut,
        settings=CutSettings(modes=modes, window_length_seconds=window_seconds, window_stride_seconds=window_seconds),
    )
    return write_captions(ingest, cut, out=folder / "caption", settings=CaptionSettings(sources=sources))


def test_write_captions__an_index_names_a_clip_of_the_video(tmp_path: Path) -> None:
    write(tmp_path, {A: 9000}, [(A, None, None, "second"), (A, None, None, "none")], modes=("windows",))
    sidecar = read_table(tmp_path / "ingest" / "sidecar.parquet", SIDECAR)
    write_table(tmp_path / "ingest" / "sidecar.parquet", sidecar.assign(clip_index=[1, 3]), SIDECAR)
    report = write_captions(
        tmp_path / "ingest", tmp_path / "cut", out=tmp_path / "caption",
        settings=CaptionSettings(),
    )
    assert clip_ids(tmp_path) == {"second": str(clip_id_of(A, 3000, 6000))}
    assert report == CaptionReport(num_in=2, num_out=1, num_whole_video=0, num_rejected=1)
    [reason] = read_table(tmp_path / "caption" / "rejected.parquet", REJECTED)["reason"]
    assert "has 3 clips, counted from 0, none of them number 3" in reason


def test_write_captions__what_a_person_wrote_names_them_as_its_writer(tmp_path: Path) -> None:
    write(tmp_path, {A: 9000}, [(A, 0, 3000, "a van"), (A, 3000, 6000, "a crane")], modes=("windows",))
    sidecar = read_table(tmp_path / "ingest" / "sidecar.parquet", SIDECAR)
    write_table(tmp_path / "ingest" / "sidecar.parquet", sidecar.assign(writer=["person", None]), SIDECAR)
    write_captions(tmp_path / "ingest", tmp_path / "cut", out=tmp_path / "caption", settings=CaptionSettings())
    rows = read_table(tmp_path / "caption" / "captions.parquet", CAPTIONS)
    assert dict(rows[["text", "writer"]].to_numpy().tolist()) == {"a van": "person", "a crane": "file"}


def clip_ids(folder: Path) -> dict[str, str | None]:
    table = read_table(folder / "caption" / "captions.parquet", CAPTIONS)
    return {row.text: None if pd.isna(row.clip_id) else row.clip_id for row in table.itertuples()}


def test_write_captions__a_timed_caption_belongs_to_the_clip_of_its_span(tmp_path: Path) -> None:
    report = write(tmp_path, {A: 10_000}, [(A, 1000, 2000, "one"), (A, 9000, 10_400, "over the end")])
    assert clip_ids(tmp_path) == {
        "one": str(clip_id_of(A, 1000, 2000)), "over the end": str(clip_id_of(A, 9000, 10_000)),
    }
    assert report == CaptionReport(num_in=2, num_out=2, num_whole_video=0, num_rejected=0)


def test_write_captions__keeps_the_wishes_of_the_source(tmp_path: Path) -> None:
    write(tmp_path, {A: 10_000}, [(A, 1000, 2000, "one")])
    [row] = read_table(tmp_path / "caption" / "captions.parquet", CAPTIONS).itertuples()
    assert (row.writer, row.cost_usd, row.split, row.gallery) == ("file", 0.0, "test", "easy")
    assert (row.contrast, row.axis) == ("not one", "truth")


def test_write_captions__an_untimed_caption_belongs_to_the_clip_that_is_the_whole_video(tmp_path: Path) -> None:
    write(tmp_path, {A: 2000}, [(A, None, None, "all"), (A, 500, 1000, "part")])
    assert clip_ids(tmp_path) == {"all": str(clip_id_of(A, 0, 2000)), "part": str(clip_id_of(A, 500, 1000))}


def test_write_captions__an_untimed_caption_belongs_to_the_only_clip(tmp_path: Path) -> None:
    write(tmp_path, {A: 4000}, [(A, None, None, "all")])  # one window of 3 s, and a tail of less than half of it
    assert clip_ids(tmp_path) == {"all": str(clip_id_of(A, 0, 3000))}


def test_write_captions__an_untimed_caption_of_a_video_of_several_clips_is_of_the_video(tmp_path: Path) -> None:
    report = write(tmp_path, {A: 9000}, [(A, None, None, "all")])
    assert clip_ids(tmp_path) == {"all": None}
    assert report == CaptionReport(num_in=1, num_out=1, num_whole_video=1, num_rejected=0)


@pytest.mark.parametrize(
    ("start_ms", "modes"), [(20_000, ("captions", "windows")), (1000, ("windows",))], ids=["outside", "no such mode"]
)
def test_write_captions__a_span_that_is_no_clip_is_rejected(
    tmp_path: Path, start_ms: int, modes: tuple[str, ...]
) -> None:
    captions = [(A, start_ms, start_ms + 500, "x"), (B, None, None, "y")]
    report = write(tmp_path, {A: 9000, B: 2000}, captions, modes=modes)
    assert report == CaptionReport(num_in=2, num_out=1, num_whole_video=0, num_rejected=1)
    [row] = read_table(tmp_path / "caption" / "rejected.parquet", REJECTED).itertuples()
    assert (row.id, row.stage) == (f"{A}:{start_ms}:{start_ms + 500}", "caption")
    assert "cut.modes" in row.reason


def test_write_captions__of_none_is_an_empty_table(tmp_path: Path) -> None:
    assert write(tmp_path, {A: 9000}, []).num_out == 0
    assert clip_ids(tmp_path) == {}


def test_write_captions__without_its_input_is_an_artifact_error(tmp_path: Path) -> None:
    with raises(ArtifactError, code="file-absent"):
        write_captions(tmp_path, tmp_path, out=tmp_path, settings=CaptionSettings())


def test_write_captions__a_clip_takes_what_the_first_source_says_of_it(tmp_path: Path) -> None:
    write(
        tmp_path, {A: 6000, B: 2000}, [(A, 0, 3000, "written")], titles={A: ("Harbour", "Day 1"), B: ("", "Day 2")},
        cues=[(A, 500, 1500, "said first"), (A, 4000, 5000, "said second"), (A, 5000, 7500, "said at the end")],
    )
    table = read_table(tmp_path / "caption" / "captions.parquet", CAPTIONS)
    found = {(row.clip_id if pd.notna(row.clip_id) else row.video_id): (row.writer, row.text) for row in table.itertuples()}
    assert found == {
        str(clip_id_of(A, 0, 3000)): ("file", "written"),
        str(clip_id_of(A, 3000, 6000)): ("transcript", "said second"),  # the middle of the last cue is after the clip
        A: ("title", "Harbour, Day 1"),
        str(clip_id_of(B, 0, 2000)): ("title", "Day 2"),
    }


def test_write_captions__the_order_of_the_sources_decides(tmp_path: Path) -> None:
    report = write(
        tmp_path, {B: 2000}, [(B, None, None, "written")], titles={B: ("", "titled")}, sources=("title", "file")
    )
    assert clip_ids(tmp_path) == {"titled": str(clip_id_of(B, 0, 2000))}
    assert report.num_out == 1


def test_write_captions__a_source_that_is_not_listed_writes_nothing(tmp_path: Path) -> None:
    write(tmp_path, {B: 2000}, [], titles={B: ("", "titled")}, cues=[(B, 0, 900, "said")], sources=("file",))
    assert clip_ids(tmp_path) == {}


def test_write_captions__refuses_a_source_that_is_none(tmp_path: Path) -> None:
    with raises(ConfigError, code="unknown-choice", naming=("caption.sources", "'sound'")):
        write(tmp_path, {B: 2000}, [], sources=("file", "sound"))


def test_write_captions__llm_needs_a_model(tmp_path: Path) -> None:
    with raises(ConfigError, code="settings-disagree"):
        write(tmp_path, {B: 2000}, [], sources=("file", "llm"))


def test_captions__import_neither_torch_nor_a_models_library() -> None:
    """The stage and the command pay for nothing that they do not use."""
    code = (
        "import sys, pipelines.caption, pipelines.general\n"
        "heavy = {'torch', 'transformers', 'peft', 'mlflow', 'openai', 'google.genai', 'httpx2', 'great_expectations'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    root = Path(__file__).parents[3]
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env={"PYTHONPATH": f"{root / 'packages'}:{root}"}, capture_output=True,
        text=True, check=False,
    )
    assert run.returncode == 0, run.stderr
