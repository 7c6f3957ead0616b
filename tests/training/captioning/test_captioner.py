"""From clips with frames to rows of captions: the cache, the estimate, and a death at any moment."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.forking import run_code
from tests.media.conftest import write_video
from tests.raising import raises
from tests.training.llm_servers import (
    CAPTIONS,
    KEY,
    MODEL,
    ReceivedRequest,
    Reply,
    Server,
    gemini_reply,
    openai_fault,
    openai_reply,
    serve,
    write_archive,
)
from tests.waiting import wait_until
from vidseek_media.decoding.frames import decode_uniform
from vidseek_media.errors import ConfigError
from vidseek_media.frame_store.members import decode_jpeg
from vidseek_media.sources import originals
from vidseek_media.tables import CAPTIONS as TABLE
from vidseek_media.tables import REJECTED, read_table, write_table
from vidseek_training.captioning.captioner import GUESSED_THOUGHTS, GUESSED_TOKENS_OUT, Captioner, Estimate
from vidseek_training.captioning.captions import CaptionReport, clips_for_llm, write_captions
from vidseek_training.captioning.journal import read_journal
from vidseek_training.captioning.prompt import prompt_hash
from vidseek_training.captioning.settings import LlmSettings
from vidseek_training.settings import CaptionSettings

ROOT = Path(__file__).parents[3]
IMPORTED = ("vidseek.cli", "openai", "vidseek_training.captioning.captioner", "vidseek_training.captioning.captions")
COMMAND = """
import os, sys
from pathlib import Path
from vidseek.cli import main
Path("pid").write_text(str(os.getpid()))
sys.argv = ["vidseek", "caption", "--json"]
main()
"""


def settings_of(**more: Any) -> LlmSettings:
    """An answer of 1000 tokens in and 100 out costs 0.002 USD."""
    return LlmSettings.of({
        "provider": "openai", "model": MODEL, "usd_per_million_tokens_in": 1.0, "usd_per_million_tokens_out": 10.0,
        "num_frames": 2, "budget_usd": 10.0, **more,
    })


def caption(
    folder: Path, settings: LlmSettings, *, sources: tuple[str, ...] = ("file", "llm", "title"), limit: int | None = None
) -> CaptionReport:
    return write_captions(
        folder / "data" / "ingest", folder / "data" / "cut", out=folder / "data" / "caption",
        settings=CaptionSettings(sources=sources), llm=captioner_of(folder, settings, limit=limit),
    )


def captioner_of(folder: Path, settings: LlmSettings, *, limit: int | None = None) -> Captioner:
    return Captioner(
        settings, frames_dir=folder / "data" / "frames", journal_dir=folder / ".vidseek" / "captions",
        path_of=(folder / "videos").joinpath, limit=limit,
    )


def estimate(folder: Path, settings: LlmSettings) -> Estimate:
    clips, videos = clips_for_llm(
        folder / "data" / "ingest", folder / "data" / "cut",
        settings=CaptionSettings(sources=("file", "llm")),
    )
    return captioner_of(folder, settings).estimate(clips, videos)


def rows_of(folder: Path) -> list[Any]:
    return list(read_table(folder / "data" / "caption" / "captions.parquet", TABLE).itertuples(index=False))


def by_clip(asked: ReceivedRequest) -> Reply:
    """An answer that names the clip by what it shows."""
    name = hashlib.sha256(b"".join(asked.pictures)).hexdigest()[:8]
    return openai_reply(json.dumps({detail: f"{text} ({name})" for detail, text in CAPTIONS.items()}))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serve(lambda asked, _: by_clip(asked)) as server:
        monkeypatch.setenv("VIDSEEK_LLM_URL", server.url)
        monkeypatch.setenv("VIDSEEK_LLM_KEY", KEY)
        yield server


def test_caption__three_captions_a_clip_with_writer_and_cost(server: Server, tmp_path: Path) -> None:
    clip_ids = write_archive(tmp_path, 3)
    settings = settings_of()
    report = caption(tmp_path, settings)
    rows = rows_of(tmp_path)
    assert Counter(row.clip_id for row in rows) == dict.fromkeys(clip_ids, 3)
    writer = f"openai/{MODEL} {prompt_hash(settings)}"
    assert {row.writer for row in rows} == {f"{writer} short", f"{writer} sentence", f"{writer} detail"}
    assert sum(row.cost_usd for row in rows) == pytest.approx(3 * 0.002)
    assert all(row.text.startswith(CAPTIONS[row.writer.split()[-1]]) for row in rows)
    assert len({row.text for row in rows}) == 9
    assert report.num_in == report.num_out == 9 and report.llm is not None
    assert (report.llm.num_clips, report.llm.num_captioned, report.llm.num_cached) == (3, 3, 0)
    assert report.llm.cost_usd == report.llm.spent_usd == pytest.approx(0.006)
    assert KEY.encode() not in (tmp_path / ".vidseek" / "captions" / "journal.sqlite3").read_bytes()


def test_caption__shows_the_frames_of_the_shard_at_the_centres_of_equal_parts(server: Server, tmp_path: Path) -> None:
    write_archive(tmp_path, 1, num_frames=8)
    caption(tmp_path, settings_of(num_frames=2))
    [asked] = server.asked
    import tarfile

    with tarfile.open(tmp_path / "data" / "frames" / "shards" / "0.tar") as tar:
        jpegs = [tar.extractfile(member).read() for member in tar if member.name.endswith(".jpg")]  # type: ignore[union-attr]
    assert asked.pictures == (jpegs[2], jpegs[6])
    assert decode_jpeg(asked.pictures[0]).shape == (24, 32, 3)


def test_caption__a_still_picture_is_shown_once(server: Server, tmp_path: Path) -> None:
    write_archive(tmp_path, 1, num_frames=8, still=True)
    one = estimate(tmp_path, settings_of(num_frames=4, tokens_per_picture=1000))
    caption(tmp_path, settings_of(num_frames=4))
    assert len(server.asked[0].pictures) == 1 and 1000 < one.tokens_in < 2000


def test_caption__twice_asks_nothing_and_changes_nothing(server: Server, tmp_path: Path) -> None:
    write_archive(tmp_path, 4)
    caption(tmp_path, settings_of())
    table = tmp_path / "data" / "caption" / "captions.parquet"
    before, journal = table.read_bytes(), (tmp_path / ".vidseek" / "captions" / "journal.sqlite3").read_bytes()
    report = caption(tmp_path, settings_of(concurrency=1, budget_usd=0.0))
    assert table.read_bytes() == before and len(server.asked) == 4
    assert (tmp_path / ".vidseek" / "captions" / "journal.sqlite3").read_bytes() == journal
    assert report.llm is not None and (report.llm.num_cached, report.llm.cost_usd) == (4, 0.0)


@pytest.mark.parametrize("more", [
    {"prompt": "Say what is there."}, {"model": "seer-2"}, {"num_frames": 3}, {"options": {"temperature": 0.5}},
])
def test_caption__another_prompt_model_or_picture_is_another_question(
    server: Server, tmp_path: Path, more: dict[str, object]
) -> None:
    write_archive(tmp_path, 2)
    caption(tmp_path, settings_of())
    caption(tmp_path, settings_of(**more))
    assert len(server.asked) == 4
    caption(tmp_path, settings_of())  # both are kept
    assert len(server.asked) == 4


def test_caption__keep_is_free_to_choose_afterwards(server: Server, tmp_path: Path) -> None:
    write_archive(tmp_path, 2)
    caption(tmp_path, settings_of())
    caption(tmp_path, settings_of(keep=["sentence"]))
    assert len(server.asked) == 2
    rows = rows_of(tmp_path)
    assert [row.writer.split()[-1] for row in rows] == ["sentence"] * 2
    assert sum(row.cost_usd for row in rows) == pytest.approx(0.004)


def test_caption__what_shows_the_same_is_paid_for_once(server: Server, tmp_path: Path) -> None:
    write_archive(tmp_path, 5, same=True)
    caption(tmp_path, settings_of())
    rows = rows_of(tmp_path)
    assert len(server.asked) == 1 and len({row.clip_id for row in rows}) == 5
    assert sum(row.cost_usd for row in rows) == pytest.approx(0.002)


def test_caption__clips_that_say_nothing_are_not_shown(server: Server, tmp_path: Path) -> None:
    clip_ids = write_archive(tmp_path, 3, quality_flags={1: ["black"]})
    report = caption(tmp_path, settings_of())
    assert {row.clip_id for row in rows_of(tmp_path) if row.writer != "title"} == {clip_ids[0], clip_ids[2]}
    assert report.llm is not None and report.llm.num_marked == 1
    assert [row.writer for row in rows_of(tmp_path) if row.clip_id == clip_ids[1]] == ["title"]  # the next source


def test_caption__a_clip_that_an_earlier_source_captions_is_not_asked_about(server: Server, tmp_path: Path) -> None:
    write_archive(tmp_path, 3)
    caption(tmp_path, settings_of(), sources=("title", "llm"))
    assert server.asked == []


def test_caption__only_clips_of_the_wanted_cuts(server: Server, tmp_path: Path) -> None:
    write_archive(tmp_path, 2)
    caption(tmp_path, settings_of(cuts=["shots"]))
    assert server.asked == []


def test_caption__max_clips_is_of_the_archive_and_limit_of_the_run(server: Server, tmp_path: Path) -> None:
    write_archive(tmp_path, 9)
    report = caption(tmp_path, settings_of(max_clips=5), limit=2)
    assert report.llm is not None and (report.llm.num_captioned, report.llm.num_waiting) == (2, 3)
    assert len(server.asked) == 2
    caption(tmp_path, settings_of(max_clips=5))
    captioned = {row.clip_id for row in rows_of(tmp_path) if row.writer != "title"}
    write_archive(tmp_path, 30)  # more videos push none out of the five
    caption(tmp_path, settings_of(max_clips=5))
    assert {row.clip_id for row in rows_of(tmp_path) if row.writer != "title"} == captioned
    assert len(server.asked) == len(captioned) == 5


def test_caption__a_verdict_is_a_rejected_row_and_is_not_paid_for_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip_ids = write_archive(tmp_path, 2)
    bad = openai_reply("no")
    with serve(lambda asked, _: by_clip(asked) if "Title 0" in asked.prompt else bad) as server:
        monkeypatch.setenv("VIDSEEK_LLM_URL", server.url)
        settings = settings_of(prompt="Of {title}.")
        for _ in range(2):
            report = caption(tmp_path, settings, sources=("llm",))
            assert (report.num_in, report.num_out, report.num_rejected) == (4, 3, 1)
            [row] = read_table(tmp_path / "data" / "caption" / "rejected.parquet", REJECTED).itertuples()
            assert (row.id, row.stage) == (clip_ids[1], "caption") and "is no JSON" in row.reason
            assert len(server.asked) == 3
        caption(tmp_path, settings_of(prompt="Of {title}.", max_output_tokens=9000), sources=("llm",))
        assert len(server.asked) == 3


def test_caption__an_answer_that_was_cut_off_may_be_whole_where_a_longer_one_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_archive(tmp_path, 1)
    with serve(lambda *_: openai_reply("{", finish="length")) as server:
        monkeypatch.setenv("VIDSEEK_LLM_URL", server.url)
        for longest, num_asked in ((100, 2), (100, 2), (90, 2), (101, 4)):
            assert caption(tmp_path, settings_of(max_output_tokens=longest), sources=("llm",)).num_rejected == 1
            assert len(server.asked) == num_asked


def test_caption__the_model_that_answered_is_a_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An alias answers as one model first, and after it was moved as another; the cache keeps who said what."""
    write_archive(tmp_path, 4)
    with serve(lambda _, number: openai_reply(model="seer-1-old" if number < 2 else "seer-1-new")) as server:
        monkeypatch.setenv("VIDSEEK_LLM_URL", server.url)
        caption(tmp_path, settings_of(), limit=2)
        caption(tmp_path, settings_of())
    found = Counter(row.model for row in rows_of(tmp_path))
    assert found == {"seer-1-old": 6, "seer-1-new": 6}


def test_caption__a_table_of_an_earlier_version_is_read_without_the_model(tmp_path: Path) -> None:
    old = pa.schema([field for field in TABLE if field.name != "model"])
    write_table(tmp_path / "captions.parquet", [dict.fromkeys(old.names)], old)
    assert read_table(tmp_path / "captions.parquet", TABLE)["model"].isna().all()
    assert list(read_table(tmp_path / "captions.parquet", TABLE, columns=["text", "model"]).columns) == ["text", "model"]
    assert list(read_table(tmp_path / "captions.parquet", TABLE, columns=["text"]).columns) == ["text"]


def test_caption__what_was_not_answered_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_archive(tmp_path, 2)
    faults = {"Title 1"}

    def script(asked: ReceivedRequest, _: int) -> Reply:
        return openai_fault(400, "invalid image") if any(name in asked.prompt for name in faults) else by_clip(asked)

    with serve(script) as server:
        monkeypatch.setenv("VIDSEEK_LLM_URL", server.url)
        settings = settings_of(prompt="Of {title}.")
        assert caption(tmp_path, settings, sources=("llm",)).num_rejected == 1
        [reason] = read_table(tmp_path / "data" / "caption" / "rejected.parquet", REJECTED)["reason"]
        assert reason.endswith("(another run tries it again)")
        faults.clear()
        assert caption(tmp_path, settings, sources=("llm",)).num_rejected == 0


def test_caption__a_stop_writes_no_table_and_keeps_what_was_paid_for(server: Server, tmp_path: Path) -> None:
    write_archive(tmp_path, 9)
    with raises(ConfigError, code="budget-used-up"):
        caption(tmp_path, settings_of(budget_usd=0.0165, max_output_tokens=1024))
    assert not (tmp_path / "data" / "caption").exists()
    num_asked = len(server.asked)
    assert 0 < num_asked < 9 and read_journal(tmp_path / ".vidseek" / "captions").settled_usd <= 0.0165
    report = caption(tmp_path, settings_of())
    assert len(server.asked) == 9 and report.llm is not None and report.llm.num_cached == num_asked


def test_caption__without_model_or_price_asks_for_it(server: Server, tmp_path: Path) -> None:
    write_archive(tmp_path, 1)
    with raises(ConfigError, code="setting-missing", naming="caption.llm.model"):
        caption(tmp_path, LlmSettings())


def test_estimate__is_tokens_times_prices_and_sends_nothing(server: Server, tmp_path: Path) -> None:
    write_archive(tmp_path, 4, quality_flags={3: ["flat"]})
    settings = settings_of(prompt="x" * 400, tokens_per_picture=200, max_output_tokens=500)
    found = estimate(tmp_path, settings)
    tokens_in = 3 * (2 * 200 + found.tokens_in // 3 - 400)
    assert 100 <= found.tokens_in // 3 - 400 <= 200  # 400 characters of prompt, and the schema
    assert (found.num_clips, found.num_marked, found.num_cached, found.num_to_ask) == (3, 1, 0, 3)
    assert found.tokens_in == tokens_in and found.tokens_out == 3 * GUESSED_TOKENS_OUT
    assert found.cost_usd == pytest.approx((found.tokens_in * 1.0 + found.tokens_out * 10.0) / 1e6)
    assert found.at_most_usd == pytest.approx((found.tokens_in * 1.0 + 3 * 500 * 10.0) / 1e6)
    assert "a guess" in found.estimated_by and server.asked == []
    assert not (tmp_path / ".vidseek").exists() and not (tmp_path / "data" / "caption").exists()


def test_estimate__pictures_and_thoughts_cost_what_the_providers_rule_says(server: Server, tmp_path: Path) -> None:
    """Pictures of 32 x 24 pixels: one patch, times 1.62; and a model that thinks a little before it answers."""
    write_archive(tmp_path, 1)
    found = [estimate(tmp_path, settings_of(model="gpt-5-mini", num_frames=number)) for number in (1, 3)]
    assert found[1].tokens_in - found[0].tokens_in == 2 * 2
    assert found[0].tokens_out == GUESSED_TOKENS_OUT + GUESSED_THOUGHTS["low"]
    tiled = [estimate(tmp_path, settings_of(model="gpt-4o", num_frames=number)) for number in (1, 3)]
    assert tiled[1].tokens_in - tiled[0].tokens_in == 2 * 255 and tiled[0].tokens_out == GUESSED_TOKENS_OUT
    gemini = settings_of(provider="gemini", model="gemini-2.5-flash")
    assert estimate(tmp_path, gemini).tokens_out == GUESSED_TOKENS_OUT
    assert estimate(tmp_path, gemini.model_copy(update={"thinking": 700})).tokens_out == GUESSED_TOKENS_OUT + 700


def test_estimate__rests_on_answers_where_there_are_some(server: Server, tmp_path: Path) -> None:
    write_archive(tmp_path, 10)
    caption(tmp_path, settings_of(), limit=4)
    found = estimate(tmp_path, settings_of())
    assert (found.num_cached, found.num_to_ask) == (4, 6)
    assert (found.tokens_in, found.tokens_out) == (6000, 600) and "mean of 4 answers" in found.estimated_by
    spent = caption(tmp_path, settings_of()).llm
    assert spent is not None and spent.cost_usd == pytest.approx(found.cost_usd)
    assert found.cost_usd <= found.at_most_usd


def test_clips_for_llm__needs_llm_among_the_sources(tmp_path: Path) -> None:
    write_archive(tmp_path, 1)
    with raises(ConfigError, code="settings-disagree", naming="caption.sources"):
        clips_for_llm(
            tmp_path / "data" / "ingest", tmp_path / "data" / "cut",
            settings=CaptionSettings(sources=("file",)),
        )


def test_caption__a_video_part_shows_the_span(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_archive(tmp_path, 1)
    write_video(tmp_path / "videos" / "0.mp4", num_frames=20, fps=10, width=64, height=48)
    monkeypatch.setattr(originals, "video_id_of", lambda path: f"{0:032x}")  # as the archive has it
    settings = settings_of(provider="gemini", send="video", video_fps=5.0, video_side_px=24)
    with serve(lambda *_: gemini_reply()) as server:
        monkeypatch.setenv("VIDSEEK_LLM_URL", server.url)
        assert caption(tmp_path, settings, sources=("llm",)).num_out == 3
        caption(tmp_path, settings, sources=("llm",))
    [asked] = server.asked
    assert asked.video is not None
    (tmp_path / "sent.mp4").write_bytes(asked.video)
    sent = decode_uniform(tmp_path / "sent.mp4", 10)  # 2 s at 5 frames a second
    assert sent.shape == (10, 24, 32, 3)
    greys = sent[:, 18:, 24:].mean(axis=(1, 2, 3))  # frame 2 i of the source, at 4 levels a frame
    assert [abs(grey - 8 * i) < 6 for i, grey in enumerate(greys)] == [True] * 10


def test_caption__no_span_of_a_replaced_video_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_archive(tmp_path, 1)
    write_video(tmp_path / "videos" / "0.mp4", num_frames=20, fps=10, width=64, height=48)  # of another id
    with serve(lambda *_: gemini_reply()) as server:
        monkeypatch.setenv("VIDSEEK_LLM_URL", server.url)
        assert caption(tmp_path, settings_of(provider="gemini", send="video"), sources=("llm",)).num_rejected == 1
    assert server.asked == []
    [row] = read_table(tmp_path / "data" / "caption" / "rejected.parquet", REJECTED).itertuples()
    assert "not those that were ingested" in row.reason and row.retryable


@pytest.mark.slow
def test_caption__killed_at_any_moment_keeps_what_was_paid_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 at several points: a clip whose answer was received is never asked about again."""
    num_clips, concurrency = 60, 4
    write_archive(tmp_path, num_clips)
    (tmp_path / "params.yaml").write_text(json.dumps({"caption": {"sources": ["llm"], "llm": {
        **settings_of().model_dump(mode="json"), "concurrency": concurrency, "budget_usd": 10.0,
    }}}))

    def script(asked: ReceivedRequest, _: int) -> Reply:
        return Reply(by_clip(asked).body, seconds=0.1)

    kills = (3, 14, 29, 50)
    with serve(script) as server:
        environment = {
            **os.environ, "PYTHONPATH": f"{ROOT / 'packages'}", "VIDSEEK_LLM_URL": server.url, "VIDSEEK_LLM_KEY": KEY,
            "VIDSEEK_HOME": str(tmp_path),
        }
        pid = tmp_path / "pid"

        def run() -> subprocess.CompletedProcess[str]:
            return run_code(COMMAND, imported=IMPORTED, folder=tmp_path, env=environment)

        kept: set[str] = set()
        with ThreadPoolExecutor(1) as pool:
            for at in kills:
                running = pool.submit(run)
                wait_until(lambda at=at: len(server.asked) >= at)  # type: ignore[misc]
                os.kill(int(pid.read_text()), signal.SIGKILL)
                assert running.result().returncode == -signal.SIGKILL
                pid.unlink()
                entries = read_journal(tmp_path / ".vidseek" / "captions").entries
                now = {key for key, entry in entries.items() if entry.captions}
                assert kept <= now and len(now) >= len(server.asked) - concurrency * (kills.index(at) + 1)
                kept = now
        ended = run()
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert report["llm_captioned"] == num_clips
    asked = Counter(each.pictures for each in server.asked)
    assert len(asked) == num_clips
    assert len(server.asked) <= num_clips + concurrency * len(kills)
    journal = read_journal(tmp_path / ".vidseek" / "captions")
    assert journal.settled_usd == pytest.approx(0.002 * num_clips)
    assert len({row.clip_id for row in rows_of(tmp_path)}) == num_clips
    # What was on its way at a kill may have been paid: it counts, at the most that it may have cost.
    assert journal.unsettled_usd > 0 and len(server.asked) - num_clips >= 1
