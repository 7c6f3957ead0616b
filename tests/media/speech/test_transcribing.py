from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from tests.media.speech.sounds import spoken, tone, write_sound
from tests.raising import raises
from vidseek_media.errors import ConfigError, ServiceError
from vidseek_media.ids import video_id_of
from vidseek_media.settings import SpeechSettings
from vidseek_media.sources.ingest import ingest
from vidseek_media.speech.engine import NoAnswer, SpeechEngine, Utterance
from vidseek_media.speech.registry import REGISTRY
from vidseek_media.speech.sound import RATE, Samples
from vidseek_media.speech.transcribing import MAX_UNANSWERED, SpeechReport, transcribe_archive
from vidseek_media.speech.voice_activity import require_model
from vidseek_media.tables import REJECTED, read_table
from vidseek_media.text.segments import read_segments


class Parrot(SpeechEngine):
    """Says how long each span is, and costs money; `fails` says at which spans it gives up."""

    name = "parrot"
    extra = "speech"
    is_paid = True
    heard: ClassVar[list[int]] = []
    fails: ClassVar[set[int]] = set()
    stops: ClassVar[set[int]] = set()
    is_parallel = False

    def open(self, *, model: str | None, language: str | None, options: Mapping[str, Any]) -> Parrot:
        return self

    def transcribe(self, samples: Samples, *, language: str | None) -> list[Utterance]:
        number = len(self.heard)
        self.heard.append(len(samples))
        if number in self.stops:
            raise ConfigError("no more", code="budget-used-up")
        if number in self.fails:
            raise NoAnswer("silent today")
        ms = len(samples) * 1000 // RATE
        return [Utterance(100, ms - 100, f"{number}", language or "", 0.5), Utterance(ms - 50, ms + 9999, "late")]

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def parrot() -> Iterator[type[Parrot]]:
    try:
        require_model()
    except ConfigError:
        pytest.skip("silero-vad is not installed: the extra speech")
    REGISTRY.load()
    REGISTRY.register(Parrot)
    Parrot.heard, Parrot.fails, Parrot.stops = [], set(), set()
    yield Parrot
    del REGISTRY.registered["parrot"]


class Archive:
    def __init__(self, folder: Path) -> None:
        self.folder, self.source, self.out = folder, folder / "source", folder / "speech"

    def take_in(self) -> None:
        ingest(self.source, out=self.folder / "ingest", ledger=self.folder / "ledger.json", timeout_seconds=60, workers=1)

    def hear(self, **changed: object) -> SpeechReport:
        settings = SpeechSettings.of({"enabled": True, "engine": "parrot", "usd_per_minute": 0.6, "workers": 1, **changed})
        return transcribe_archive(
            self.folder / "ingest", out=self.out, source=self.source, settings=settings, memory=self.folder / "memory"
        )

    def texts(self) -> list[str]:
        return [segment.text for segments in read_segments(self.out).values() for segment in segments]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """A video in which somebody speaks, pauses and speaks; one with a tone; one without sound."""
    made = Archive(tmp_path)
    line, pause = spoken("The harbour bridge will open next year.", tmp_path), np.zeros((1, 2 * RATE), np.float32)
    write_sound(made.source / "talk.mkv", [np.concatenate([line, pause, line], axis=1)])
    write_sound(made.source / "tone.mkv", [tone(2.0)])
    write_sound(made.source / "silent.mp4", [], seconds=2)
    made.take_in()
    return made


def test_transcribe_archive__hears_each_video_once(archive: Archive) -> None:
    report = archive.hear(language="de")
    assert (report.num_in, report.num_known, report.num_rejected) == (3, 0, 0)
    assert (report.num_with_speech, report.num_segments) == (1, 4)
    assert report.spent_usd == pytest.approx(report.speech_seconds / 60 * 0.6) and 4 < report.speech_seconds < 9
    [segments] = read_segments(archive.out).values()
    first, _, second, last = segments
    assert (first.text, first.language, first.source, first.confidence) == ("0", "de", "parrot", 0.5)
    assert first.end_ms < second.start_ms and last.end_ms < second.end_ms + 200  # cut at the end of its span
    before = (archive.out / "segments.parquet").read_bytes()
    for path in archive.source.iterdir():
        path.unlink()  # nothing is opened again
    again = archive.hear(language="de")
    assert (again.num_known, again.speech_seconds, len(Parrot.heard)) == (3, 0, 2)
    assert (archive.out / "segments.parquet").read_bytes() == before
    left = {path.name for path in (archive.folder / "memory").iterdir()}
    assert not any(name.endswith(".parts.jsonl") or name.startswith("sound-") for name in left)


def test_transcribe_archive__in_the_working_directory_as_the_stage_does(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(archive.folder)
    relative = Archive(Path())
    assert relative.hear().num_with_speech == 1 and relative.texts()


def test_transcribe_archive__a_stopped_run_pays_for_no_span_twice(archive: Archive) -> None:
    Parrot.stops = {1}
    with raises(ConfigError, code="budget-used-up"):
        archive.hear()
    assert not archive.out.exists() and len(Parrot.heard) == 2
    Parrot.stops = set()
    report = archive.hear()
    assert len(Parrot.heard) == 3 and archive.texts() == ["0", "late", "2", "late"]
    assert report.spent_usd == pytest.approx((Parrot.heard[0] + Parrot.heard[2]) / RATE / 60 * 0.6)


def test_transcribe_archive__a_span_without_an_answer_costs_its_video_until_another_run(archive: Archive) -> None:
    Parrot.fails = {0}
    report = archive.hear()
    assert (report.num_with_speech, report.num_rejected) == (0, 1)
    [row] = read_table(archive.out / "rejected.parquet", REJECTED).to_dict("records")
    assert row["id"] == video_id_of(archive.source / "talk.mkv") and row["retryable"] and "1 of 2 spans" in row["reason"]
    Parrot.fails = set()
    assert archive.hear().num_rejected == 0 and len(Parrot.heard) == 3


def test_transcribe_archive__stops_where_nothing_is_answered(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    line = spoken("The harbour bridge will open next year.", tmp_path)
    for number in range(MAX_UNANSWERED):
        write_sound(archive.source / f"{number}.mkv", [line[:, number * 100 :]])
    archive.take_in()
    Parrot.fails = set(range(99))
    with raises(ServiceError, code="speech-no-answer", naming="silent today"):
        archive.hear()
    assert len(Parrot.heard) == MAX_UNANSWERED


def test_transcribe_archive__stays_in_its_budget(archive: Archive) -> None:
    with raises(ConfigError, code="budget-used-up", naming="0.03 USD"):
        archive.hear(budget_usd=0.03)
    assert len(Parrot.heard) == 1
    assert archive.hear(budget_usd=1.0).num_with_speech == 1 and len(Parrot.heard) == 2


def test_transcribe_archive__asks_for_a_price(archive: Archive) -> None:
    with raises(ConfigError, code="setting-missing", naming="usd_per_minute"):
        archive.hear(usd_per_minute=None)


def test_transcribe_archive__a_broken_video_costs_itself(archive: Archive) -> None:
    talk = archive.source / "talk.mkv"
    talk.write_bytes(talk.read_bytes()[:400])
    report = archive.hear()
    assert (report.num_rejected, report.num_with_speech) == (1, 0)


def test_transcribe_archive__where_it_is_off_touches_nothing(tmp_path: Path) -> None:
    report = transcribe_archive(
        tmp_path / "nowhere", out=tmp_path / "out", source=tmp_path, settings=SpeechSettings(), memory=tmp_path / "memory"
    )
    assert report == SpeechReport() and read_segments(tmp_path / "out") == {} and not (tmp_path / "memory").exists()
