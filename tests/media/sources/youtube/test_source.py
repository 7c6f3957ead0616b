"""Through the real YoutubeDL. Pages are answered by extractors of the test, in the shapes that yt-dlp's own ones give
(extractor/common.py, extractor/youtube/_tab.py); files come from a server on the loopback."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.media.loopback import Server
from tests.raising import raises
from vidseek_media.errors import ArtifactError, ConfigError, InputRejected, VidseekError
from vidseek_media.settings import DownloadSettings, SubtitleSettings
from vidseek_media.sources.ingest import ingest, read_videos
from vidseek_media.sources.source import Annotations
from vidseek_media.sources.youtube import download_record, entries
from vidseek_media.sources.youtube import source as youtube
from vidseek_media.sources.youtube.downloader import options_of
from vidseek_media.sources.youtube.failures import Cause, SiteStopped
from vidseek_media.sources.youtube.javascript import JavaScript
from vidseek_media.sources.youtube.source import Youtube
from vidseek_media.text.segments import read_segments
from vidseek_media.text.subtitles import read_archive_subtitles
from vidseek_media.text.transcripts import read_transcripts

yt_dlp = pytest.importorskip("yt_dlp")
from yt_dlp.extractor.common import InfoExtractor  # noqa: E402
from yt_dlp.utils import ExtractorError  # noqa: E402

MakeVideo = Callable[..., Path]
CHANNEL = "https://www.youtube.com/@harbour"
PLAYLIST = "https://www.youtube.com/playlist?list=PL1"
AWAKE: dict[str, Any] = {
    "sleep_seconds": 0, "max_sleep_seconds": 0, "sleep_requests_seconds": 0, "sleep_subtitles_seconds": 0, "retries": 0,
}
QUICK = DownloadSettings(**AWAKE)


def video(id: str, url: str, **changes: Any) -> dict[str, Any]:
    """What the extractor of a video gives."""
    return {
        "id": id, "title": f"Day  {id}", "channel": "Harbour", "uploader": "harbour-uploads", "view_count": 1234,
        "timestamp": 1_772_366_400, "upload_date": "20260301", "categories": ["Travel & Events"], "live_status": "not_live",
        "webpage_url": f"https://www.youtube.com/watch?v={id}", "thumbnail": f"{url}/{id}.jpg",
        "formats": [
            {"format_id": "audio", "url": f"{url}/sound.mp4", "ext": "mp4", "vcodec": "none", "acodec": "aac"},
            {"format_id": "360", "url": f"{url}/small.mp4", "ext": "mp4", "height": 360, "vcodec": "h264", "acodec": "aac"},
            {"format_id": "1080", "url": f"{url}/large.mp4", "ext": "mp4", "height": 1080, "vcodec": "h264",
             "acodec": "aac"},
        ],
        **changes,
    }


def listed(id: str) -> dict[str, Any]:
    """What a playlist says of a video."""
    return {"_type": "url", "ie_key": "Youtube", "id": id, "url": f"https://www.youtube.com/watch?v={id}",
            "title": f"Day {id}"}


class Site:
    """What the site answers, by URL, and what it was asked."""

    def __init__(self, server: Server, root: Path, folder: Path) -> None:
        self.server, self.url = server, server.url
        self.root, self.folder = root, folder
        """Of downloads."""
        self.pages: dict[str, Any] = {}
        self.asked: list[str] = []
        self.extractor: Any = None

    def answer(self, url: str) -> Any:
        self.asked.append(url)
        page = self.pages[url]
        if isinstance(page, Exception):
            raise page
        return page(self.extractor) if callable(page) else page

    def serve(self, name: str, text: str) -> None:
        """Have the server give this file."""
        (self.root / name).write_text(text)

    def add(self, id: str, **changes: Any) -> None:
        self.pages[f"https://www.youtube.com/watch?v={id}"] = video(id, self.url, **changes)

    def fail(self, id: str, said: str) -> None:
        self.pages[f"https://www.youtube.com/watch?v={id}"] = ExtractorError(said, expected=True, video_id=id)

    def list(self, page: str, *entries: Any) -> None:
        self.pages[page] = {"_type": "playlist", "id": page[-8:], "title": "x", "entries": iter(entries)}


@pytest.fixture
def site(tmp_path: Path, make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A channel with tabs for videos and shorts; every YoutubeDL of the test asks it."""
    root = tmp_path / "served"
    for number, name in enumerate(("small", "large", "sound")):
        make_video(root / f"{name}.mp4", num_frames=10 + number)
    for id in ("one", "two", "three", "live"):
        (root / f"{id}.jpg").write_bytes(b"\xff\xd8 picture of " + id.encode())
    server = Server(root)
    site = Site(server, root, tmp_path / "downloads")

    class YoutubeIE(InfoExtractor):  # type: ignore[misc]
        _VALID_URL = r"https?://www\.youtube\.com/watch\?v=(?P<id>\w+)"
        _RETURN_TYPE = "video"

        def _real_extract(self, url: str) -> Any:
            site.extractor = self
            return site.answer(url)

    class YoutubeTabIE(InfoExtractor):  # type: ignore[misc]
        _VALID_URL = r"https?://www\.youtube\.com/(?:@|playlist)(?P<id>.+)"
        _RETURN_TYPE = "playlist"

        def _real_extract(self, url: str) -> Any:
            return site.answer(url)

    def make(options: dict[str, Any]) -> Any:
        ydl = real({**options, "outtmpl": {"default": "%(id)s.%(ext)s"}}, auto_init="no_verbose_header")
        ydl._ies.clear()
        ydl._ies_instances.clear()
        for extractor in (YoutubeIE(), YoutubeTabIE(), yt_dlp.extractor.generic.GenericIE()):
            ydl.add_info_extractor(extractor)
        return ydl

    real = yt_dlp.YoutubeDL
    monkeypatch.setattr(yt_dlp, "YoutubeDL", make)
    for id in ("one", "two", "three"):
        site.add(id)
    tabs = [{"_type": "url", "ie_key": "YoutubeTab", "url": f"{CHANNEL}/{tab}"} for tab in ("videos", "shorts")]
    site.list(CHANNEL, *tabs)
    site.list(f"{CHANNEL}/videos", listed("one"), listed("two"))
    site.list(f"{CHANNEL}/shorts", listed("three"))
    yield site
    server.close()


def test_youtube__a_channel_becomes_videos_with_what_the_site_says(site: Site, tmp_path: Path) -> None:
    source = Youtube(CHANNEL, downloads=tmp_path / "downloads", settings=QUICK)
    ingest(source, out=tmp_path / "ingest", ledger=tmp_path / "ledger", timeout_seconds=60, workers=1)
    [one] = read_videos(tmp_path / "ingest")  # the three files are equal
    assert one.uris == ("Youtube-one.mp4", "Youtube-three.mp4", "Youtube-two.mp4")
    assert (one.source_id, one.title, one.channel, one.category, one.views, one.published_at, one.thumbnail) == (
        "one", "Day one", "Harbour", "Travel & Events", 1234, "2026-03-01T12:00:00Z", "Youtube-one.jpg",
    )
    small = (tmp_path / "served" / "small.mp4").read_bytes()
    assert source.path_of("Youtube-one.mp4").read_bytes() == small  # the best of at most 720 lines that has sound
    assert source.path_of("Youtube-two.jpg").read_bytes() == b"\xff\xd8 picture of two"
    assert source.address_of("Youtube-one.mp4") == "Youtube:one"


def test_youtube__again_downloads_nothing_and_asks_for_no_video(site: Site, tmp_path: Path) -> None:
    playlist = "https://www.youtube.com/playlist?list=PL1"
    site.list(playlist, listed("one"), listed("two"))
    source = Youtube(playlist, downloads=tmp_path, settings=QUICK)
    first = source.list_videos()
    site.asked.clear()
    site.list(playlist, listed("three"), listed("one"), listed("two"))
    second = source.list_videos()
    assert set(second.paths) - set(first.paths) == {"Youtube-three.mp4"}
    assert site.asked == [playlist, "https://www.youtube.com/watch?v=three"]
    assert {uri: second.annotations[uri] for uri in first.annotations} == first.annotations


def test_youtube__one_video(site: Site, tmp_path: Path) -> None:
    url = "https://www.youtube.com/watch?v=one"
    listing = Youtube(url, downloads=tmp_path, settings=QUICK).list_videos()
    assert list(listing.paths) == ["Youtube-one.mp4"]
    assert site.asked == [url]


def test_youtube__takes_no_more_than_max_videos_and_asks_no_further_page(site: Site, tmp_path: Path) -> None:
    settings = DownloadSettings(**AWAKE, max_videos=2)
    listing = Youtube(CHANNEL, downloads=tmp_path, settings=settings).list_videos()
    assert set(listing.paths) == {"Youtube-one.mp4", "Youtube-two.mp4"}
    assert f"{CHANNEL}/shorts" not in site.asked


def test_youtube__a_video_that_cannot_be_had_is_rejected_alone(site: Site, tmp_path: Path) -> None:
    site.fail("two", "Private video. Sign in if you've been granted access to this video")
    site.add("three", live_status="is_live")
    listing = Youtube(CHANNEL, downloads=tmp_path, settings=QUICK).list_videos()
    assert set(listing.paths) == {"Youtube-one.mp4"}
    assert "Private video" in listing.rejected["Youtube-two"].reason
    assert "is a live stream that still runs" in listing.rejected["Youtube-three"].reason
    assert not list((tmp_path / "youtube").glob("Youtube-three*"))


BOT = "Sign in to confirm you’re not a bot. Use --cookies-from-browser or --cookies for the authentication."
RATE = "Video unavailable. This content isn't available, try again later. The current session has been rate-limited"


def many(site: Site, *ids: str) -> Youtube:
    """A playlist of these videos, each of a length of its own: equal files would be one."""
    for id in ids:
        if f"https://www.youtube.com/watch?v={id}" not in site.pages:
            site.add(id)
    site.list(PLAYLIST, *(listed(id) for id in ids))
    return Youtube(PLAYLIST, downloads=site.folder, settings=QUICK)


@pytest.mark.slow
@pytest.mark.parametrize(("said", "cause"), [
    (BOT, Cause.BLOCKED), ("HTTP Error 429: Too Many Requests", Cause.BLOCKED), (RATE, Cause.BLOCKED),
    ("All player responses are invalid. Your IP is likely being blocked by Youtube", Cause.BLOCKED),
    ("The page needs to be reloaded.", Cause.RELOAD), ("Failed to extract any player response", Cause.RELOAD),
    ("unable to download video data: HTTP Error 403: Forbidden", Cause.FORBIDDEN),
    ("Unable to download webpage: <urlopen error [Errno -3] Temporary failure in name resolution>", Cause.SILENT),
])
def test_youtube__three_alike_in_a_row_stop_the_run_and_one_does_not(site: Site, said: str, cause: Cause) -> None:
    source = many(site, "one", "bad1", "two", "bad2", "bad3", "bad4", "three")
    for number in range(1, 5):
        site.fail(f"bad{number}", said)
    with raises(SiteStopped, code="site-stopped") as caught:
        source.list_videos()
    assert caught.value.cause is cause and caught.value.exit_code == 15 and "3 videos" in caught.value.message
    assert site.asked[-1].endswith("bad4") and caught.value.remedy
    assert source.path_of("Youtube-one.mp4").is_file() and source.path_of("Youtube-two.mp4").is_file()

    many(site, "one", "bad1", "two", "bad2", "three")
    listing = source.list_videos()
    assert set(listing.paths) == {"Youtube-one.mp4", "Youtube-two.mp4", "Youtube-three.mp4"}
    assert {id: why.retryable for id, why in listing.rejected.items()} == {"Youtube-bad1": True, "Youtube-bad2": True}


def test_youtube__media_that_is_forbidden_is_found_by_the_status(site: Site) -> None:
    """The media file itself answers 403: what yt-dlp's own downloader raises, and no sentence of a test."""
    source = many(site, "one", "two", "three", "four")
    site.server.status["/small.mp4"] = site.server.status["/large.mp4"] = 403
    with raises(SiteStopped, code="site-stopped") as caught:
        source.list_videos()
    assert caught.value.cause is Cause.FORBIDDEN
    assert not [each for each in site.asked if each.endswith("four")]
    assert site.server.loaded() == ["/small.mp4"] * 3  # at once each: 403 is no error that goes away
    del site.server.status["/small.mp4"], site.server.status["/large.mp4"]
    many(site, "one", "two", "three", "four")
    assert len(source.list_videos().paths) == 4


def test_youtube__no_format_is_found_by_what_yt_dlp_itself_says(site: Site) -> None:
    source = many(site, "one", "two", "three", "four")
    for id in ("two", "three", "four"):
        site.add(id, formats=[])
    with raises(SiteStopped, code="site-stopped") as caught:
        source.list_videos()
    assert caught.value.cause is Cause.NO_FORMAT and "vidseek doctor" in caught.value.remedy


def test_youtube__failures_of_several_causes_and_of_the_videos_themselves_do_not_add_up(site: Site) -> None:
    source = many(site, "one", *(f"bad{number}" for number in range(7)), "two")
    reload = "The page needs to be reloaded."
    for number, said in enumerate([BOT, "Private video", BOT, reload, BOT, "Video unavailable", BOT]):
        site.fail(f"bad{number}", said)
    listing = source.list_videos()
    assert len(listing.paths) == 2
    assert [listing.rejected[f"Youtube-bad{n}"].retryable for n in range(7)] == [True, False, True, True, True, False, True]


def test_youtube__a_private_video_between_does_not_end_a_row(site: Site) -> None:
    source = many(site, "bad1", "private", "bad2", "bad3", "one")
    site.fail("private", "Private video")
    for number in range(1, 4):
        site.fail(f"bad{number}", BOT)
    with raises(SiteStopped, code="site-stopped"):
        source.list_videos()


def test_youtube__where_nothing_is_here_one_failure_of_the_site_is_the_error(site: Site) -> None:
    site.fail("one", BOT)
    with raises(SiteStopped, code="site-stopped") as caught:
        Youtube("https://www.youtube.com/watch?v=one", downloads=site.folder, settings=QUICK).list_videos()
    assert caught.value.cause is Cause.BLOCKED and "ingest.youtube.cookies" in caught.value.remedy


@pytest.mark.parametrize(("said", "error"), [
    ("Unable to download webpage: <urlopen error [Errno -3] Temporary failure in name resolution>", SiteStopped),
    ("This channel does not exist", ConfigError), ("HTTP Error 429: Too Many Requests", SiteStopped),
])
def test_youtube__a_page_that_cannot_be_listed_is_one_error(site: Site, said: str, error: type[VidseekError]) -> None:
    site.pages[CHANNEL] = ExtractorError(said, expected=True)
    with raises(error, code="page-not-listed" if error is ConfigError else "site-stopped"):
        Youtube(CHANNEL, downloads=site.folder, settings=QUICK).list_videos()


def test_youtube__an_error_on_a_later_page_of_the_list_is_ours_too(site: Site) -> None:
    def entries() -> Iterator[dict[str, Any]]:
        yield listed("one")
        raise ExtractorError("HTTP Error 429: Too Many Requests", expected=True)

    site.pages[CHANNEL] = {"_type": "playlist", "id": "x", "entries": entries()}
    with raises(SiteStopped, code="site-stopped") as caught:
        Youtube(CHANNEL, downloads=site.folder, settings=QUICK).list_videos()
    assert caught.value.cause is Cause.BLOCKED


def test_youtube__an_empty_page_is_a_config_error(site: Site, tmp_path: Path) -> None:
    site.list(CHANNEL)
    with raises(ConfigError, code="source-empty"):
        Youtube(CHANNEL, downloads=tmp_path, settings=QUICK).list_videos()


def test_youtube__what_was_forgotten_is_neither_asked_for_nor_loaded(site: Site, tmp_path: Path) -> None:
    listing = Youtube(CHANNEL, downloads=tmp_path, settings=QUICK).list_videos(forgotten={"Youtube:two"})
    assert set(listing.paths) == {"Youtube-one.mp4", "Youtube-three.mp4"}
    assert listing.rejected["Youtube-two"].reason.startswith("forgotten")
    assert "https://www.youtube.com/watch?v=two" not in site.asked


def test_youtube__a_file_that_is_gone_is_loaded_again(site: Site, tmp_path: Path) -> None:
    source = Youtube(CHANNEL, downloads=tmp_path, settings=QUICK)
    source.list_videos()
    gone = source.downloads_of("Youtube-one.mp4")
    assert sorted(path.name for path in gone) == ["Youtube-one.about.json", "Youtube-one.jpg", "Youtube-one.mp4"]
    source.path_of("Youtube-one.mp4").unlink()
    site.list(CHANNEL, listed("one"))
    assert source.list_videos().paths["Youtube-one.mp4"].is_file()


def test_youtube__a_direct_link_goes_through_the_generic_extractor(site: Site, tmp_path: Path) -> None:
    """No answer is made up here: yt-dlp's own extractor finds the file on the loopback and loads it."""
    url = f"{site.url}/large.mp4"
    settings = DownloadSettings(**{**AWAKE, "retries": 1}, rate_limit_kib=4096)
    source = Youtube(url, downloads=tmp_path, settings=settings)
    [(uri, path)] = source.list_videos().paths.items()
    assert uri == "Generic-large.mp4"
    assert path.read_bytes() == (tmp_path / "served" / "large.mp4").read_bytes()
    record = json.loads((tmp_path / "youtube" / "Generic-large.about.json").read_text())
    assert (record["address"], record["file"]) == ("Generic:large", uri)


def test_youtube__a_link_to_a_server_that_is_down_or_busy_is_a_service_error(site: Site, tmp_path: Path) -> None:
    """What yt-dlp's own extractor says of it, not what a test makes up."""
    site.server.status.update({"/busy.mp4": 429, "/refused.mp4": 403, "/broken.mp4": 503})
    wanted = {"http://127.0.0.1:9/a.mp4": Cause.SILENT, f"{site.url}/busy.mp4": Cause.BLOCKED,
              f"{site.url}/refused.mp4": Cause.FORBIDDEN, f"{site.url}/broken.mp4": Cause.SILENT}
    for url, cause in wanted.items():
        with raises(SiteStopped, code="site-stopped") as caught:
            Youtube(url, downloads=tmp_path, settings=QUICK).list_videos()
        assert caught.value.cause is cause


def test_youtube__a_link_to_nothing_is_one_error(site: Site, tmp_path: Path) -> None:
    with raises(ConfigError, code="page-not-listed") as caught:
        Youtube(f"{site.url}/lost.mp4", downloads=tmp_path, settings=QUICK).list_videos()
    assert caught.value.code == "page-not-listed"


@pytest.mark.slow
def test_youtube__a_rate_limit_is_kept(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "served" / "large.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(96 * 1024))
    took, slept = {}, []
    sleep = time.sleep
    monkeypatch.setattr("yt_dlp.downloader.common.time.sleep", lambda seconds: (slept.append(seconds), sleep(seconds)))
    for limit in (None, 48):
        assert not any(slept)  # without a limit nothing waits
        settings = DownloadSettings(**AWAKE, rate_limit_kib=limit)
        source = Youtube(f"{site.url}/large.mp4", downloads=tmp_path / str(limit), settings=settings)
        begin = time.monotonic()
        source.list_videos()
        took[limit] = time.monotonic() - begin
    assert took[48] > 1.5  # 96 KiB at 48 KiB a second


def test_youtube__a_request_that_fails_is_tried_again(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through yt-dlp's own RetryManager, as its extractor of YouTube does it."""
    slept: list[float] = []
    monkeypatch.setattr("yt_dlp.utils._utils.time.sleep", slept.append)
    answer, failures = site.answer, iter([ExtractorError("no JSON"), ExtractorError("no JSON")])

    class Shaky:
        def __call__(self, url: str) -> Any:
            extractor = self.extractor
            for retry in extractor.RetryManager():
                try:
                    if error := next(failures, None):
                        raise error
                    return answer(url)
                except ExtractorError as error:
                    retry.error = error
            raise AssertionError("the manager raises")

    shaky = Shaky()
    monkeypatch.setattr(site, "answer", shaky)
    make = yt_dlp.YoutubeDL

    def make_and_tell(options: dict[str, Any]) -> Any:
        ydl = make(options)
        shaky.extractor = ydl.get_info_extractor("Youtube")
        return ydl

    monkeypatch.setattr(yt_dlp, "YoutubeDL", make_and_tell)
    settings = DownloadSettings(**{**AWAKE, "retries": 3})
    listing = Youtube("https://www.youtube.com/watch?v=one", downloads=tmp_path, settings=settings).list_videos()
    assert list(listing.paths) == ["Youtube-one.mp4"]
    assert slept[:2] == [1, 2]


def test_youtube__an_extractor_that_breaks_costs_its_video(site: Site, tmp_path: Path) -> None:
    site.pages["https://www.youtube.com/watch?v=two"] = TypeError("odd page")
    listing = Youtube(CHANNEL, downloads=tmp_path, settings=QUICK).list_videos()
    assert "TypeError: odd page" in listing.rejected["Youtube-two"].reason and len(listing.paths) == 2


@pytest.mark.slow
@pytest.mark.parametrize("odd", [
    {"categories": 5}, {"categories": {"a": 1}}, {"webpage_url": "https://www.youtube.com/watch?v=\ud83d"},
    {"timestamp": float("inf")}, {"timestamp": [1], "view_count": ["1,234"]}, {"upload_date": 20260301, "timestamp": None},
    {"title": [None], "channel": {}, "live_status": []}, {"subtitles": {"en": [{"ext": "vtt", "data": "\ud83d"}]}},
])
def test_youtube__what_a_site_says_oddly_of_a_video_costs_no_other(site: Site, odd: dict[str, Any]) -> None:
    site.add("two", **odd)
    listing = Youtube(CHANNEL, downloads=site.folder, settings=DownloadSettings(**AWAKE, subtitles=["en"])).list_videos()
    assert {"Youtube-one.mp4", "Youtube-three.mp4"} <= set(listing.paths)
    assert ("Youtube-two.mp4" in listing.paths) != ("Youtube-two" in listing.rejected)
    assert not listing.rejections


@pytest.mark.slow
@pytest.mark.parametrize("entry", [
    5, "two", {"_type": "url", "id": "two"}, {"_type": "video", "title": "two"},
    {"_type": "url", "ie_key": "No", "url": "x"},
    {"_type": "url", "ie_key": "YoutubeTab", "url": "https://www.youtube.com/playlist?list=gone"},
    {"_type": "playlist", "id": "two", "entries": 5}, {**listed("gone"), "id": "\ud83d"}, listed("gone"),
])
def test_youtube__an_entry_that_is_odd_or_gone_is_rejected_alone(site: Site, entry: Any) -> None:
    site.fail("gone", "Video unavailable. This video has been removed by the uploader")
    site.pages["https://www.youtube.com/playlist?list=gone"] = ExtractorError("The playlist does not exist.", expected=True)
    site.list(PLAYLIST, listed("one"), entry, listed("three"))
    listing = Youtube(PLAYLIST, downloads=site.folder, settings=QUICK).list_videos()
    assert set(listing.paths) == {"Youtube-one.mp4", "Youtube-three.mp4"}
    assert len(listing.rejected) == 1


def test_youtube__a_page_within_the_page_that_the_site_refuses_ends_the_run(site: Site) -> None:
    site.pages[f"{CHANNEL}/shorts"] = ExtractorError(BOT, expected=True)
    with raises(SiteStopped, code="site-stopped"):
        Youtube(CHANNEL, downloads=site.folder, settings=QUICK).list_videos()


def test_about_of__a_category_is_a_word_and_no_letter() -> None:
    assert download_record.annotations_of({"id": "x", "categories": "Music"}, []).category == "Music"


def test_options_of__say_what_the_settings_say(tmp_path: Path) -> None:
    cookies = tmp_path / "cookies.txt"
    cookies.write_text("# Netscape HTTP Cookie File\n")
    options = options_of(
        DownloadSettings(cookies=cookies, max_side_px=480, rate_limit_kib=500, sleep_seconds=9, retries=7,
                         sleep_requests_seconds=1.5, sleep_subtitles_seconds=4), tmp_path
    )
    assert options["ratelimit"] == 512_000
    assert (options["retries"], options["extractor_retries"]) == (7, 7)
    assert (options["sleep_interval"], options["max_sleep_interval"]) == (9, 9)
    assert (options["sleep_interval_requests"], options["sleep_interval_subtitles"]) == (1.5, 4)
    wait = options["retry_sleep_functions"]["http"]
    assert [wait(n=n) for n in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert options["cookiefile"].read().startswith("# Netscape")


def test_youtube__pauses_before_each_video_and_each_file_of_subtitles(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("yt_dlp.downloader.common.time.sleep", slept.append)
    site.add("one", subtitles={"en": [{"ext": "vtt", "url": f"{site.url}/one.vtt"}]})
    site.serve("one.vtt", "WEBVTT\n\n00:01.000 --> 00:02.000\nhello\n")
    site.list(PLAYLIST, listed("one"), listed("two"))
    settings = DownloadSettings(sleep_seconds=3, max_sleep_seconds=5, sleep_requests_seconds=0, sleep_subtitles_seconds=7)
    Youtube(PLAYLIST, downloads=site.folder, settings=settings).list_videos()
    assert len(slept) == 3 and slept[1] == 7 and 3 <= slept[0] <= 5 and 3 <= slept[2] <= 5


FORMATS: dict[str, tuple[int, int, str, bool]] = {
    "tall720": (720, 1280, "avc1.64001f", True), "tall1080": (1080, 1920, "avc1.640028", True),
    "tall480": (480, 854, "avc1.4d401f", True), "tall720vp9": (720, 1280, "vp9", True),
    "wide720av1": (1280, 720, "av01.0.05M.08", True), "wide720": (1280, 720, "avc1.64001f", True),
    "wide1080": (1920, 1080, "avc1.640028", True), "wide2160": (3840, 2160, "vp9", True),
    "mute720": (1280, 720, "avc1.64001f", False), "wide360": (640, 360, "avc1.42001E", True),
}


@pytest.mark.parametrize(("offered", "side", "taken"), [
    (["tall480", "tall720", "tall1080"], 720, "tall720"),  # a short that is 1280 lines high is no 720 too much
    (["tall720vp9", "tall720"], 720, "tall720"), (["wide720av1", "wide720", "wide1080"], 720, "wide720"),
    (["wide2160", "wide1080"], 720, "wide1080"), (["wide720", "wide360"], 360, "wide360"),
    (["mute720", "wide360"], 720, "wide360"), (["mute720"], 720, "mute720"),
])
def test_youtube__takes_the_short_side_and_h264_first(site: Site, offered: list[str], side: int, taken: str) -> None:
    formats = []
    for name in offered:
        width, height, codec, has_sound = FORMATS[name]
        site.serve(f"{name}.mp4", f"the file of {name}")
        formats.append({"format_id": name, "url": f"{site.url}/{name}.mp4", "ext": "mp4", "width": width, "height": height,
                        "vcodec": codec, "acodec": "mp4a.40.2" if has_sound else "none"})
    site.add("one", formats=formats)
    settings = DownloadSettings(**AWAKE, max_side_px=side)
    source = Youtube("https://www.youtube.com/watch?v=one", downloads=site.folder, settings=settings)
    [path] = source.list_videos().paths.values()
    assert path.read_text() == f"the file of {taken}"


SAID = "WEBVTT\n\n00:00.100 --> 00:00.400\n{}\n"


def track(site: Site, name: str, text: str | None = None, ext: str = "vtt") -> list[dict[str, Any]]:
    """Files of one language, as YouTube lists them: several formats, vtt among them."""
    if text is not None:
        site.serve(f"{name}.{ext}", text)
    return [{"ext": "json3", "url": f"{site.url}/{name}.json3"}, {"ext": ext, "url": f"{site.url}/{name}.{ext}"}]


@pytest.mark.slow
@pytest.mark.parametrize(("languages", "automatic", "taken"), [
    (("de", "en"), True, "written de"), (("en", "de"), True, "written en-GB"), (("fr", "de"), True, "written de"),
    (("es",), True, "spoken es"), (("fr",), True, ""), (("es",), False, ""), ((), True, ""),
])
def test_youtube__subtitles_are_the_transcript(
    site: Site, languages: tuple[str, ...], automatic: bool, taken: str
) -> None:
    """What people wrote comes first, then what was heard; a machine's translation of that is none (`fr`)."""
    written = {"de": track(site, "de", SAID.format("written de")), "en-GB": track(site, "en", SAID.format("written en-GB")),
               "live_chat": [{"ext": "json", "url": f"{site.url}/chat"}]}
    heard = {name: track(site, name, SAID.format(f"spoken {name[:2]}")) for name in ("es-orig", "es", "fr")}
    site.add("one", subtitles=written, automatic_captions=heard)
    settings = DownloadSettings(**AWAKE, subtitles=languages, automatic_captions=automatic)
    source = Youtube("https://www.youtube.com/watch?v=one", downloads=site.folder, settings=settings)
    for _ in range(2):
        paths = source.list_videos().paths
        transcripts, _ = read_transcripts(paths, dict.fromkeys(paths, "id"))
        assert [cue.lines for cues in transcripts.values() for cue in cues] == ([(taken,)] if taken else [])
    num_loaded = [path for _, path in site.server.asked if path.endswith(".vtt")]
    assert len(num_loaded) == bool(taken)  # once, in both runs


ROLLING = """WEBVTT
Kind: captions
Language: en

00:00:00.160 --> 00:00:00.389 align:start position:0%

the<00:00:00.180><c> harbour</c><00:00:00.200><c> bridge</c>

00:00:00.389 --> 00:00:00.399 align:start position:0%
the harbour bridge
\x20

00:00:00.399 --> 00:00:00.789 align:start position:0%
the harbour bridge
will<00:00:00.410><c> open</c><00:00:00.500><c> soon</c>

00:00:00.789 --> 00:00:00.799 align:start position:0%
will open soon
\x20
"""


def test_youtube__automatic_captions_say_so_and_each_line_once(site: Site, tmp_path: Path) -> None:
    site.add("spoken", automatic_captions={"en-orig": track(site, "spoken", ROLLING)})
    other = {"format_id": "480", "url": f"{site.url}/large.mp4", "ext": "mp4", "vcodec": "h264", "acodec": "aac"}
    site.add("written", subtitles={"en": track(site, "written", SAID.format("by hand"))}, formats=[other])
    source = many(site, "spoken", "written")
    ingest(source, out=tmp_path / "ingest", ledger=tmp_path / "ledger", timeout_seconds=60, workers=1)
    assert source.path_of("Youtube-spoken.en.auto.vtt") in source.downloads_of("Youtube-spoken.mp4")
    read_archive_subtitles(
        tmp_path / "ingest", out=tmp_path / "out", source=source, settings=SubtitleSettings(workers=1),
        memory=tmp_path / "memory",
    )
    found = [
        (each.text, each.source, each.language) for segments in read_segments(tmp_path / "out").values() for each in segments
    ]
    assert sorted(found) == [
        ("by hand", "file", "en"), ("the harbour bridge", "file/automatic", "en"),
        ("will open soon", "file/automatic", "en"),
    ]


def test_youtube__subtitles_that_fail_cost_no_video_and_are_asked_for_again(site: Site) -> None:
    site.add("one", subtitles={"en": track(site, "en", SAID.format("hello"))})
    site.server.status["/en.vtt"] = 429
    source = Youtube("https://www.youtube.com/watch?v=one", downloads=site.folder, settings=QUICK)
    listing = source.list_videos()
    [rejection] = listing.rejections
    assert list(listing.paths) == ["Youtube-one.mp4"] and not listing.rejected
    assert (rejection.id, rejection.kind, rejection.retryable) == ("Youtube-one.mp4", "transcript", True)
    num_loaded = len(site.server.loaded())
    del site.server.status["/en.vtt"]
    assert not source.list_videos().rejections
    assert source.path_of("Youtube-one.en.vtt").read_text() == SAID.format("hello")
    assert len(site.server.loaded()) == num_loaded  # the video was not loaded again
    assert source.path_of("Youtube-one.en.vtt") in source.downloads_of("Youtube-one.mp4")


def test_youtube__subtitles_that_fail_three_times_are_asked_for_no_more(site: Site) -> None:
    ids = [f"v{number}" for number in range(6)]
    for id in ids:
        site.add(id, subtitles={"en": track(site, id)})
        site.server.status[f"/{id}.vtt"] = 429
    listing = many(site, *ids).list_videos()
    assert len(listing.paths) == 6 and len(listing.rejections) == 6
    assert all(each.retryable for each in listing.rejections)
    assert [path for _, path in site.server.asked if path.endswith(".vtt")] == ["/v0.vtt", "/v1.vtt", "/v2.vtt"]


def test_youtube__other_languages_are_asked_for_and_the_old_file_goes(site: Site) -> None:
    site.add("one", subtitles={name: track(site, name, SAID.format(name)) for name in ("en", "de")})
    url = "https://www.youtube.com/watch?v=one"
    for languages in (("en",), ("de",), ()):
        source = Youtube(url, downloads=site.folder, settings=DownloadSettings(**AWAKE, subtitles=languages))
        source.list_videos()
        found = [path.name for path in source.downloads_of("Youtube-one.mp4") if path.suffix == ".vtt"]
        assert found == [f"Youtube-one.{name}.vtt" for name in languages]


def test_youtube__warnings_are_shown_once(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    def warn(id: str) -> Callable[[Any], Any]:
        def answer(extractor: Any) -> Any:
            extractor.report_warning("Some formats may be missing", id)
            return video(id, site.url)
        return answer

    source = many(site, "one", "two", "three")
    for id in ("one", "two", "three"):
        site.pages[f"https://www.youtube.com/watch?v={id}"] = warn(id)
    source.list_videos()
    said = [each.getMessage() for each in caplog.records if "Some formats" in each.getMessage()]
    assert len(said) == 1 and "one" in said[0]


def test_youtube__without_a_javascript_runtime_it_says_so_once(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = JavaScript((), ("node 20.20.2, wanted 22.0.0",), "", "0.8.0")
    monkeypatch.setattr(youtube, "javascript", lambda: none)
    Youtube(CHANNEL, downloads=site.folder, settings=QUICK).list_videos()
    [said] = [each.getMessage() for each in caplog.records if "JavaScript" in each.getMessage()]
    assert "node 20.20.2, wanted 22.0.0" in said and "'.[youtube]'" in said
    caplog.clear()
    Youtube(f"{site.url}/large.mp4", downloads=site.folder, settings=QUICK).list_videos()
    assert not [each for each in caplog.records if "JavaScript" in each.getMessage()]  # of no use there


def test_youtube__a_fragment_that_is_missing_leaves_no_file_with_a_hole(site: Site) -> None:
    fragments = [{"url": f"{site.url}/part{number}"} for number in range(3)]
    site.serve("part0", "a"), site.serve("part2", "c")
    formats = [{"format_id": "dash", "url": f"{site.url}/x.mp4", "protocol": "http_dash_segments", "fragments": fragments,
                "ext": "mp4", "vcodec": "avc1", "acodec": "mp4a", "width": 640, "height": 360}]
    site.add("two", formats=formats)
    listing = many(site, "one", "two").list_videos()
    assert list(listing.paths) == ["Youtube-one.mp4"] and list(listing.rejected) == ["Youtube-two"]


def test_youtube__cookies_are_read_and_never_written(site: Site, tmp_path: Path) -> None:
    cookies = tmp_path / "cookies.txt"
    content = "# Netscape HTTP Cookie File\n.youtube.com\tTRUE\t/\tTRUE\t2000000000\tname\tvalue\n"
    cookies.write_text(content)
    settings = DownloadSettings(**AWAKE, cookies=cookies)
    Youtube("https://www.youtube.com/watch?v=one", downloads=tmp_path / "d", settings=settings).list_videos()
    assert cookies.read_text() == content
    with raises(ConfigError, code="cookies-unreadable", naming="cookies"):
        options_of(DownloadSettings(cookies=tmp_path / "none.txt"), tmp_path)


def test_youtube__without_yt_dlp_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidseek_media.installing.find_spec", lambda name: None)
    with raises(ConfigError, code="not-installed") as caught:
        Youtube(CHANNEL, downloads=tmp_path, settings=QUICK).list_videos()
    assert "'.[youtube]'" in caught.value.remedy


def test_youtube__a_disk_that_takes_nothing_is_an_artifact_error(site: Site, tmp_path: Path) -> None:
    (tmp_path / "youtube").write_text("in the way")
    with raises(ArtifactError, code="download-not-written"):
        Youtube(CHANNEL, downloads=tmp_path, settings=QUICK).list_videos()


def test_address_of__is_the_records_word_or_read_off_the_name(tmp_path: Path) -> None:
    source = Youtube(CHANNEL, downloads=tmp_path, settings=QUICK)
    assert source.address_of("Youtube-a-b_c.mp4") == "Youtube:a-b_c"
    with raises(InputRejected, code="outside-source"):
        source.path_of("../x.mp4")


def test_stem_of__other_letters_get_a_hash_so_that_two_ids_are_two_files() -> None:
    stems = {entries._stem_of(address) for address in ("Site:a/b", "Site:a_b", "Site:ä", "Site:" + "x" * 200)}
    assert len(stems) == 4 and all(len(stem) < 140 and stem.isascii() and "/" not in stem for stem in stems)


def test_settings_of__an_unknown_key_is_a_config_error() -> None:
    assert DownloadSettings.of({"max_videos": 3, "cookies": "c.txt"}).cookies == Path("c.txt")
    with raises(ConfigError, code="unknown-setting", naming="ingest.youtube"):
        DownloadSettings.of({"max_video": 3})


def test_about_of__a_day_where_there_is_no_time_and_the_uploader_where_no_channel() -> None:
    annotations = download_record.annotations_of({"id": "x", "title": "T", "uploader": "U", "upload_date": "20251231"}, [])
    assert annotations == Annotations(source_id="x", title="T", channel="U", published_at="2025-12-31T00:00:00Z")
