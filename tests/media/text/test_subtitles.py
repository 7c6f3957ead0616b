from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.subtitles.subtitle import SubtitleSet

from tests.raising import raises
from vidseek_media.errors import InputRejected
from vidseek_media.settings import SubtitleSettings
from vidseek_media.sources.ingest import ingest
from vidseek_media.tables import REJECTED, read_table
from vidseek_media.text.segments import Segment, read_segments
from vidseek_media.text.subtitles import read_archive_subtitles
from vidseek_media.text.text_streams import read_text_streams

CUES = "1\n00:00:00,500 --> 00:00:01,000\n<i>Quarterly</i> revenue\n\n2\n00:00:01,200 --> 00:00:01,900\ntwo\nlines\n"
HEADER = (
    b"[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name\nStyle: Default\n\n[Events]\n"
    b"Format: ReadOrder, Layer, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
)


def write_video(path: Path, *, shade: int = 0, codec: str = "subrip", said: dict[str, str] | None = None) -> None:
    """Two seconds of plain frames, with one text stream for each language of `said`, from 300 to 1000 ms."""
    with av.open(path, "w") as container:
        video = container.add_stream("mpeg4", rate=5)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        streams = []
        for language, text in (said or {}).items():
            stream = container.add_stream(codec)
            stream.metadata["language"] = language
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
            stream.codec_context.subtitle_header = HEADER
            streams.append((stream, text))
        for number in range(10):
            pixels = np.full((32, 32, 3), 10 * number + shade, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode(None))
        for stream, text in streams:
            subtitle = SubtitleSet.create(f"0,0,Default,,0,0,0,,{text}".encode(), 0, 700)
            packet = stream.codec_context.encode_subtitle(subtitle)
            packet.stream, packet.time_base = stream, Fraction(1, 1000)
            packet.pts = packet.dts = 300
            packet.duration = 700
            container.mux(packet)


@pytest.mark.parametrize(("codec", "suffix"), [("subrip", "mkv"), ("ass", "mkv"), ("mov_text", "mp4")])
def test_read_text_streams__every_stream_with_its_language(tmp_path: Path, codec: str, suffix: str) -> None:
    path = tmp_path / f"film.{suffix}"
    write_video(path, codec=codec, said={"eng": r"{\i1}hello{\i0} world", "heb": "שלום", "jpn": r"今日\Nは"})
    cues = read_text_streams(path)
    assert [cue[:2] for cue in cues] == [(300, 1000)] * 3 and [cue.language for cue in cues] == ["eng", "heb", "jpn"]
    assert "hello" in cues[0].text and "שלום" in cues[1].text


def test_read_archive_subtitles__of_ten_streams_with_wrong_languages_and_of_broken_files(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "subtitles"
    source.mkdir()
    said = {
        "eng": "hello", "ara": "افتتح الوزير", "jpn": "今日は", "zxx": "none", "english": "long", "x" * 200: "longer",
        "": "bare", "qqq": "reserved", "ENG": "capitals", "heb": r"{\p1}m 0 0 l 9 9{\p0}",
    }
    write_video(source / "a.mkv", codec="ass", said=said)
    write_video(source / "b.mp4", shade=3)
    times = "00:00:00,100 --> 00:00:00,900\n"
    (source / "b.de.srt").write_bytes(f"{times}Übung".encode("cp1252"))
    (source / "b.fr.srt").write_bytes(f"{times}été".encode("utf-16-le"))
    odd = f"1\n-00:00:01,000 --> 00:00:01,000\nno\n2\n{times}sí\n3\n00:00:00,500 --> 123:00:00,0\ntardes"
    (source / "b.es.srt").write_text(odd)
    (source / "b.en.vtt").write_bytes(b"\0" * 4096)
    (source / "b.Brazilian Portuguese.srt").write_text(f"{times}olá")
    (source / "b.director.srt").write_text(f"{times}cut")
    (source / "b.en.ass").write_text("[Script Info]\n")
    ingest(source, out=tmp_path / "ingest", ledger=tmp_path / "ledger", timeout_seconds=60, workers=1)
    read_archive_subtitles(
        tmp_path / "ingest", out=out, source=source, settings=SubtitleSettings(workers=1), memory=tmp_path / "memory"
    )
    found = [(each.text, each.language) for segments in read_segments(out).values() for each in segments]
    assert sorted(found) == sorted([
        ("hello", "eng"), ("افتتح الوزير", "ara"), ("今日は", "jpn"), ("none", ""), ("long", "en"), ("longer", ""),
        ("bare", ""), ("reserved", ""), ("capitals", "ENG"), ("été", "fr"), ("sí", "es"), ("tardes", "es"),
        ("olá", "pt-BR"),
    ])
    rejected = read_table(out / "rejected.parquet", REJECTED)
    assert dict(zip(rejected["id"], rejected["code"], strict=True)) == {
        "b.de.srt": "transcript-not-utf8", "b.director.srt": "subtitles-passed-over", "b.en.ass": "subtitles-passed-over",
        "b.en.vtt": "transcript-without-cues",
    }


def test_read_text_streams__none_and_no_video(tmp_path: Path) -> None:
    write_video(tmp_path / "plain.mp4")
    assert read_text_streams(tmp_path / "plain.mp4") == []
    (tmp_path / "broken.mkv").write_bytes(b"no video")
    with raises(InputRejected, code="not-a-video"):
        read_text_streams(tmp_path / "broken.mkv")


def test_read_archive_subtitles__files_and_streams_in_all_languages_read_once(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "subtitles"
    source.mkdir()
    write_video(source / "a.mkv", said={"eng": r"{\i1}hello{\i0} world", "und": "welt"})
    write_video(source / "b.mp4", shade=3)
    (source / "b.en.srt").write_text(CUES)
    (source / "b.de.vtt").write_text("WEBVTT\n\n00:00.100 --> 00:00.900\nUmsatz\n")
    (source / "b.fr.srt").write_bytes(b"\xff\xfe\x00 nothing")
    ingest(source, out=tmp_path / "ingest", ledger=tmp_path / "ledger", timeout_seconds=60, workers=1)

    def run() -> tuple[int, dict[tuple[Segment, ...], int]]:
        report = read_archive_subtitles(
            tmp_path / "ingest", out=out, source=source, settings=SubtitleSettings(workers=1), memory=tmp_path / "memory"
        )
        return report.num_known, {tuple(each): len(each) for each in read_segments(out).values()}

    known, found = run()
    assert known == 0 and found == {
        (Segment(300, 1000, "hello world", "eng", "embedded"), Segment(300, 1000, "welt", "", "embedded")): 2,
        (Segment(100, 900, "Umsatz", "de", "file"), Segment(500, 1000, "Quarterly revenue", "en", "file"),
         Segment(1200, 1900, "two lines", "en", "file")): 3,
    }
    assert read_table(out / "rejected.parquet", REJECTED)["id"].tolist() == ["b.fr.srt"]
    before = (out / "segments.parquet").read_bytes()
    assert run() == (2, found) and (out / "segments.parquet").read_bytes() == before
