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
from vidseek_media import youtube
from vidseek_media.errors import ArtifactError, ConfigError, InputRejected, ServiceError
from vidseek_media.ingest import ingest, read_videos
from vidseek_media.listing import About
from vidseek_media.settings import DownloadSettings
from vidseek_media.youtube import Youtube, options_of

yt_dlp = pytest.importorskip("yt_dlp")
from yt_dlp.extractor.common import InfoExtractor  # noqa: E402
from yt_dlp.utils import ExtractorError  # noqa: E402

MakeVideo = Callable[..., Path]
CHANNEL = "https://www.youtube.com/@harbour"
QUICK = DownloadSettings(sleep_seconds=0, retries=0)


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

    def __init__(self, server: Server) -> None:
        self.server, self.url = server, server.url
        self.pages: dict[str, Any] = {}
        self.asked: list[str] = []

    def answer(self, url: str) -> Any:
        self.asked.append(url)
        page = self.pages[url]
        if isinstance(page, Exception):
            raise page
        return page

    def add(self, id: str, **changes: Any) -> None:
        self.pages[f"https://www.youtube.com/watch?v={id}"] = video(id, self.url, **changes)

    def fail(self, id: str, said: str) -> None:
        self.pages[f"https://www.youtube.com/watch?v={id}"] = ExtractorError(said, expected=True, video_id=id)

    def list(self, page: str, *entries: dict[str, Any]) -> None:
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
    site = Site(server)

    class YoutubeIE(InfoExtractor):  # type: ignore[misc]
        _VALID_URL = r"https?://www\.youtube\.com/watch\?v=(?P<id>\w+)"
        _RETURN_TYPE = "video"

        def _real_extract(self, url: str) -> Any:
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
    assert {uri: second.about[uri] for uri in first.about} == first.about


def test_youtube__one_video(site: Site, tmp_path: Path) -> None:
    url = "https://www.youtube.com/watch?v=one"
    listing = Youtube(url, downloads=tmp_path, settings=QUICK).list_videos()
    assert list(listing.paths) == ["Youtube-one.mp4"]
    assert site.asked == [url]


def test_youtube__takes_no_more_than_max_videos_and_asks_no_further_page(site: Site, tmp_path: Path) -> None:
    settings = DownloadSettings(sleep_seconds=0, retries=0, max_videos=2)
    listing = Youtube(CHANNEL, downloads=tmp_path, settings=settings).list_videos()
    assert set(listing.paths) == {"Youtube-one.mp4", "Youtube-two.mp4"}
    assert f"{CHANNEL}/shorts" not in site.asked


def test_youtube__a_video_that_cannot_be_had_is_rejected_alone(site: Site, tmp_path: Path) -> None:
    site.fail("two", "Private video. Sign in if you've been granted access to this video")
    site.add("three", live_status="is_live")
    listing = Youtube(CHANNEL, downloads=tmp_path, settings=QUICK).list_videos()
    assert set(listing.paths) == {"Youtube-one.mp4"}
    assert "Private video" in listing.rejected["Youtube-two"].reason
    assert listing.rejected["Youtube-three"].reason == "is a live stream that still runs"
    assert not list((tmp_path / "youtube").glob("Youtube-three*"))


@pytest.mark.parametrize("said", [
    "Sign in to confirm you’re not a bot. Use --cookies-from-browser or --cookies for the authentication.",
    "HTTP Error 429: Too Many Requests",
    "Video unavailable. This content isn't available, try again later. The current session has been rate-limited",
])
def test_youtube__a_block_is_one_error_that_names_the_remedy(site: Site, tmp_path: Path, said: str) -> None:
    site.fail("two", said)
    source = Youtube(CHANNEL, downloads=tmp_path, settings=QUICK)
    with pytest.raises(ServiceError, match="takes us for a machine") as caught:
        source.list_videos()
    assert "ingest.youtube.cookies" in caught.value.remedy and "sleep_seconds" in caught.value.remedy
    assert "https://www.youtube.com/watch?v=three" not in site.asked
    assert source.path_of("Youtube-one.mp4").is_file()  # what was loaded before stays


@pytest.mark.parametrize(("said", "error", "words"), [
    ("Unable to download webpage: <urlopen error [Errno -3] Temporary failure in name resolution>", ServiceError,
     "does not answer"),
    ("This channel does not exist", ConfigError, "cannot be listed: .*does not exist"),
    ("HTTP Error 429: Too Many Requests", ServiceError, "takes us for a machine"),
])
def test_youtube__a_page_that_cannot_be_listed_is_one_error(
    site: Site, tmp_path: Path, said: str, error: type[Exception], words: str
) -> None:
    site.pages[CHANNEL] = ExtractorError(said, expected=True)
    with pytest.raises(error, match=words):
        Youtube(CHANNEL, downloads=tmp_path, settings=QUICK).list_videos()


def test_youtube__an_error_on_a_later_page_of_the_list_is_ours_too(site: Site, tmp_path: Path) -> None:
    def entries() -> Iterator[dict[str, Any]]:
        yield listed("one")
        raise ExtractorError("HTTP Error 429: Too Many Requests", expected=True)

    site.pages[CHANNEL] = {"_type": "playlist", "id": "x", "entries": entries()}
    with pytest.raises(ServiceError, match="takes us for a machine"):
        Youtube(CHANNEL, downloads=tmp_path, settings=QUICK).list_videos()


def test_youtube__an_empty_page_is_a_config_error(site: Site, tmp_path: Path) -> None:
    site.list(CHANNEL)
    with pytest.raises(ConfigError, match="lists no video"):
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
    settings = DownloadSettings(sleep_seconds=0, retries=1, rate_limit_kib=4096)
    source = Youtube(url, downloads=tmp_path, settings=settings)
    [(uri, path)] = source.list_videos().paths.items()
    assert uri == "Generic-large.mp4"
    assert path.read_bytes() == (tmp_path / "served" / "large.mp4").read_bytes()
    record = json.loads((tmp_path / "youtube" / "Generic-large.about.json").read_text())
    assert (record["address"], record["file"]) == ("Generic:large", uri)


def test_youtube__a_link_to_a_server_that_is_down_or_busy_is_a_service_error(site: Site, tmp_path: Path) -> None:
    """What yt-dlp's own extractor says of it, not what a test makes up."""
    with pytest.raises(ServiceError, match="does not answer"):
        Youtube("http://127.0.0.1:9/a.mp4", downloads=tmp_path, settings=QUICK).list_videos()
    site.server.status["/busy.mp4"] = 429
    with pytest.raises(ServiceError, match="takes us for a machine"):
        Youtube(f"{site.url}/busy.mp4", downloads=tmp_path, settings=QUICK).list_videos()


def test_youtube__a_link_to_nothing_is_one_error(site: Site, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="404"):
        Youtube(f"{site.url}/lost.mp4", downloads=tmp_path, settings=QUICK).list_videos()


def test_youtube__a_rate_limit_is_kept(site: Site, tmp_path: Path) -> None:
    (tmp_path / "served" / "large.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(96 * 1024))
    took = {}
    for limit in (None, 48):
        settings = DownloadSettings(sleep_seconds=0, rate_limit_kib=limit)
        source = Youtube(f"{site.url}/large.mp4", downloads=tmp_path / str(limit), settings=settings)
        begin = time.monotonic()
        source.list_videos()
        took[limit] = time.monotonic() - begin
    assert took[48] > took[None] + 1  # 96 KiB at 48 KiB a second


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
    settings = DownloadSettings(sleep_seconds=0, retries=3)
    listing = Youtube("https://www.youtube.com/watch?v=one", downloads=tmp_path, settings=settings).list_videos()
    assert list(listing.paths) == ["Youtube-one.mp4"]
    assert slept[:2] == [1, 2]


def test_youtube__an_extractor_that_breaks_costs_its_video(site: Site, tmp_path: Path) -> None:
    site.pages["https://www.youtube.com/watch?v=two"] = TypeError("odd page")
    listing = Youtube(CHANNEL, downloads=tmp_path, settings=QUICK).list_videos()
    assert "TypeError: odd page" in listing.rejected["Youtube-two"].reason and len(listing.paths) == 2


def test_options_of__say_what_the_settings_say(tmp_path: Path) -> None:
    cookies = tmp_path / "cookies.txt"
    cookies.write_text("# Netscape HTTP Cookie File\n")
    options = options_of(
        DownloadSettings(cookies=cookies, max_height=480, rate_limit_kib=500, sleep_seconds=3, retries=7), tmp_path
    )
    assert options["ratelimit"] == 512_000
    assert (options["retries"], options["extractor_retries"], options["sleep_interval"]) == (7, 7, 3)
    assert "[height<=?480]" in options["format"]
    wait = options["retry_sleep_functions"]["http"]
    assert [wait(n=n) for n in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert options["cookiefile"].read().startswith("# Netscape")


def test_youtube__cookies_are_read_and_never_written(site: Site, tmp_path: Path) -> None:
    cookies = tmp_path / "cookies.txt"
    content = "# Netscape HTTP Cookie File\n.youtube.com\tTRUE\t/\tTRUE\t2000000000\tname\tvalue\n"
    cookies.write_text(content)
    settings = DownloadSettings(cookies=cookies, sleep_seconds=0)
    Youtube("https://www.youtube.com/watch?v=one", downloads=tmp_path / "d", settings=settings).list_videos()
    assert cookies.read_text() == content
    with pytest.raises(ConfigError, match="cookies"):
        options_of(DownloadSettings(cookies=tmp_path / "none.txt"), tmp_path)


def test_youtube__without_yt_dlp_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(youtube, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        Youtube(CHANNEL, downloads=tmp_path, settings=QUICK).list_videos()
    assert "'.[youtube]'" in caught.value.remedy


def test_youtube__a_disk_that_takes_nothing_is_an_artifact_error(site: Site, tmp_path: Path) -> None:
    (tmp_path / "youtube").write_text("in the way")
    with pytest.raises(ArtifactError, match="cannot be written"):
        Youtube(CHANNEL, downloads=tmp_path, settings=QUICK).list_videos()


def test_address_of__is_the_records_word_or_read_off_the_name(tmp_path: Path) -> None:
    source = Youtube(CHANNEL, downloads=tmp_path, settings=QUICK)
    assert source.address_of("Youtube-a-b_c.mp4") == "Youtube:a-b_c"
    with pytest.raises(InputRejected):
        source.path_of("../x.mp4")


def test_stem_of__other_letters_get_a_hash_so_that_two_ids_are_two_files() -> None:
    stems = {youtube._stem_of(address) for address in ("Site:a/b", "Site:a_b", "Site:ä", "Site:" + "x" * 200)}
    assert len(stems) == 4 and all(len(stem) < 140 and stem.isascii() and "/" not in stem for stem in stems)


def test_settings_of__an_unknown_key_is_a_config_error() -> None:
    assert DownloadSettings.of({"max_videos": 3, "cookies": "c.txt"}).cookies == Path("c.txt")
    with pytest.raises(ConfigError, match=r"ingest\.youtube"):
        DownloadSettings.of({"max_video": 3})


def test_about_of__a_day_where_there_is_no_time_and_the_uploader_where_no_channel() -> None:
    about = youtube._about_of({"id": "x", "title": "T", "uploader": "U", "upload_date": "20251231"}, [])
    assert about == About(source_id="x", title="T", channel="U", published_at="2025-12-31T00:00:00Z")
