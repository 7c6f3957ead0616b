"""The page in headless Chromium: what only a browser can prove. Needs Debian's `chromium`, or CHROMIUM names one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.serving.api.test_admin import ROW, write_found
from tests.serving.colours import BASE_VERSION, VERSION, picture, publish_base
from tests.serving.live_api import free_port, live_api, write_field_archive, write_video_archive, write_worded_archive
from tests.waiting import PATIENCE_SECONDS, wait_until
from vidseek.actions.page import answers, page_command, running, wait_until_answered
from vidseek.archive import Archive
from vidseek.jobs.job_table import JobTable
from vidseek_media.fields.tags import read_tags
from vidseek_retrieval.dedup.decisions import read_decisions

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("streamlit")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
WAIT_MS = 1000 * PATIENCE_SECONDS
sync_api.expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Of all tests that leave it as it is; `own_archive` is for the others."""
    return write_video_archive(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="module")
def api_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def api(archive: Archive, api_port: int) -> Iterator[str]:
    with live_api(archive, port=api_port) as url:
        yield url


@pytest.fixture
def own_archive(tmp_path: Path) -> Archive:
    return write_video_archive(tmp_path)


@pytest.fixture
def own_port() -> int:
    return free_port()


@pytest.fixture
def own_api(own_archive: Archive, own_port: int) -> Iterator[str]:
    with live_api(own_archive, port=own_port) as url:
        yield url


@pytest.fixture
def own_page_url(own_port: int) -> Iterator[str]:
    """The page's server, which need not have its API yet."""
    with served_page(own_port) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def page_url(api_port: int) -> Iterator[str]:
    """Of all tests but those that have an archive of their own: to start a page takes seconds."""
    with served_page(api_port) as url:
        yield url


@contextmanager
def served_page(api_port: int, **told_too: str) -> Iterator[str]:
    """A page over the API at that port."""
    command, folder = page_command()
    url = f"http://127.0.0.1:{(port := free_port())}"
    told = {
        "VIDSEEK_URL": f"http://127.0.0.1:{api_port}", "VIDSEEK_PAGE_PORT": str(port), "VIDSEEK_PAGE_HOST": "127.0.0.1",
        "PYTHONPATH": os.pathsep.join(sys.path), "VIDSEEK_API_KEY": "", "VIDSEEK_ADMIN_KEY": "", **told_too,
    }
    with running(command, folder=folder, environment=told) as process:
        wait_until_answered(f"{url}/_stcore/health", process, what="the page")
        yield url


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    """A tab in which nothing is asked for that is not on this machine, and no script dies."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-US")
    context.set_default_timeout(WAIT_MS)
    tab = context.new_page()
    elsewhere: list[str] = []
    tab.on("request", lambda request: elsewhere.append(request.url)
           if not re.match(r"(https?|wss?)://127\.0\.0\.1:|data:|blob:|about:", request.url) else None)
    tab.on("dialog", lambda dialog: pytest.fail(f"the page was made to say {dialog.message!r}"))
    yield tab
    assert not elsewhere
    context.close()


def cards(tab: Any) -> Any:
    return tab.locator("[class*='st-key-card-']")


def settle(tab: Any) -> None:
    """Wait until the page is whole: while it is still being written, a click or the focus may be lost."""
    tab.locator("[data-test-script-state='notRunning']").wait_for()


def test_search__by_typing_shows_moments_with_their_pictures_and_html_as_text(tab: Any, page_url: str, api: str) -> None:
    headers = tab.goto(page_url).headers
    assert "frame-ancestors 'none'" in headers["content-security-policy"] and headers["x-frame-options"] == "DENY"
    tab.get_by_role("searchbox", name="What are you looking for?").fill("red")
    tab.keyboard.press("Enter")
    sync_api.expect(cards(tab).first).to_contain_text("<img src=x onerror=alert(1)> **red**")
    assert "q=red" in tab.url
    tab.wait_for_function("document.querySelector(\"[class*='st-key-card-'] img\")?.naturalWidth > 0")
    # White's video was moved away: a drawing stands in its place.
    white = tab.locator("[class*='st-key-card-']", has_text="white").locator("img")
    white.scroll_into_view_if_needed()
    tab.wait_for_function("image => image.naturalWidth > 0", arg=white.element_handle())


@pytest.mark.slow
def test_play__begins_at_the_second_and_shows_what_lies_around(tab: Any, page_url: str, api: str) -> None:
    tab.goto(f"{page_url}/?q=blue")
    cards(tab).first.get_by_role("button", name="Play").click()
    clip_id = re.search(r"play=([0-9a-f-]{36})", wait_for_address(tab, "play="))
    tab.wait_for_function("document.querySelector('video.vs-video')?.readyState >= 1")
    video = tab.locator("video.vs-video")
    video_source = video.get_attribute("src")
    begin = float(re.search(r"#t=([\d.]+)", video_source)[1])  # type: ignore[index]
    assert video.evaluate("video => video.currentTime") >= begin
    others = tab.get_by_role("dialog").locator("[class*='st-key-near-']")
    assert others.count() == 3
    others.get_by_role("button").nth(0 if begin else -1).click()  # one that does not play
    tab.wait_for_function(f"!location.search.includes('{clip_id[1]}')")  # type: ignore[index]
    # The address changes before the dialog does: what is closed must be the other clip's.
    tab.wait_for_function(
        "old => [...document.querySelectorAll('video.vs-video')]"
        ".some(video => video.readyState >= 1 && video.getAttribute('src') !== old)",
        arg=video_source,
    )
    tab.keyboard.press("Escape")
    sync_api.expect(tab.get_by_role("dialog")).to_have_count(0)
    tab.wait_for_function("!location.search.includes('play=')")


@pytest.mark.slow
def test_play__second_is_where_a_link_says(tab: Any, page_url: str, api: str) -> None:
    tab.goto(f"{page_url}/?q=blue")
    cards(tab).first.get_by_role("button", name="Play").click()
    address = wait_for_address(tab, "play=")
    begin = re.search(r"#t=([\d.]+)", tab.locator("video.vs-video").get_attribute("src"))
    tab.goto("about:blank")
    tab.goto(address)
    tab.wait_for_function("document.querySelector('video.vs-video')?.readyState >= 1")
    video = tab.locator("video.vs-video")
    assert begin and video.get_attribute("src").endswith(begin[0])
    assert video.evaluate("video => video.currentTime") >= float(begin[1])


@pytest.mark.slow
def test_words__are_marked_filtered_by_kind_and_played_from_where_they_are(
    tab: Any, tmp_path: Path, own_port: int, own_page_url: str
) -> None:
    with live_api(write_worded_archive(tmp_path), port=own_port):
        tab.goto(f"{own_page_url}/?q=harbour")
        sync_api.expect(tab.locator("mark").first).to_contain_text(re.compile("harbour", re.I))
        settle(tab)
        tab.get_by_text("Picture, clip, filters").click()
        tab.get_by_role("button", name="Speech").click()
        sync_api.expect(cards(tab)).to_have_count(1)
        look_at(tab, "words")
        cards(tab).first.get_by_role("button", name="Play").click()
        said = tab.get_by_role("dialog").locator("[class*='st-key-said-']")
        sync_api.expect(said).to_have_count(3)
        video = tab.locator("video.vs-video")
        sync_api.expect(video).to_have_attribute("src", re.compile(r"#t=1\.400$"))
        look_at(tab, "transcript")
        said.get_by_role("button").nth(2).click()
        sync_api.expect(video).to_have_attribute("src", re.compile(r"#t=2\.200$"))
        tab.wait_for_function("document.querySelector('video.vs-video').currentTime >= 2.2")
        assert video.evaluate("video => video.currentTime") < 3.1


@pytest.mark.slow
def test_fields__filter_are_shown_and_tags_are_set_and_removed(
    tab: Any, tmp_path: Path, own_port: int, own_page_url: str
) -> None:
    archive = write_field_archive(tmp_path)
    with live_api(archive, port=own_port):
        tab.goto(f"{own_page_url}/?q=red&f_camera=A")  # two of four
        sync_api.expect(cards(tab)).to_have_count(2)
        settle(tab)
        tab.get_by_label("take to").fill("1")
        tab.keyboard.press("Enter")
        sync_api.expect(cards(tab)).to_have_count(1)
        tab.goto(wait_for_address(tab, "f_take_greatest=1"))  # the address has the filters
        sync_api.expect(cards(tab)).to_have_count(1)
        sync_api.expect(tab.get_by_label("take to")).to_have_value("1")
        sync_api.expect(tab.get_by_role("searchbox", name="What are you looking for?")).to_have_value("red")
        shown = "camera: A · take: 0 · shot_at: 2026-03-01"
        sync_api.expect(cards(tab).first).to_contain_text(f"{shown} · tags: <b>rain</b> *1*")
        look_at(tab, "fields")

        cards(tab).first.get_by_role("button", name="Play").click()
        dialog = tab.get_by_role("dialog")
        sync_api.expect(dialog.get_by_text(shown)).to_be_visible()
        tags = dialog.locator(".st-key-tags")
        sync_api.expect(tags).to_contain_text("<b>rain</b> *1*")
        tags.get_by_role("combobox").fill("night, <i>late</i>")
        tab.keyboard.press("Enter")
        sync_api.expect(tags).to_contain_text("Written down")
        sync_api.expect(tags).to_contain_text("night, <i>late</i>")
        assert tab.locator("video.vs-video").bounding_box()["width"] > 600, "the page has lost its style sheet"
        look_at(tab, "tagged")
        tags.get_by_role("combobox").press("Backspace")  # takes the last one
        wait_until(lambda: len(read_tags(archive.decisions)) == 2)
        assert [(each.tag, each.has_tag) for each in read_tags(archive.decisions)] == [
            ("night, <i>late</i>", True), ("night, <i>late</i>", False),
        ]
        sync_api.expect(tags).not_to_contain_text("night")


@pytest.mark.slow
def test_search__by_a_dropped_picture_then_more_like_this(tab: Any, page_url: str, api: str) -> None:
    tab.goto(page_url)
    tab.get_by_text("Picture, clip, filters").click()
    tab.locator("input[type=file]").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": picture("green")})
    sync_api.expect(cards(tab).first).to_contain_text("green")
    assert cards(tab).first.get_by_role("button", name="Right").count() == 0  # there are no words to say it of
    cards(tab).first.get_by_role("button", name="More like this").click()
    wait_for_address(tab, "like=")
    sync_api.expect(tab.get_by_text("By example")).to_be_visible()


@pytest.mark.slow
def test_search__file_that_is_too_large_is_refused_before_it_is_sent(
    tab: Any, page_url: str, api: str, tmp_path: Path
) -> None:
    with (tmp_path / "long.mp4").open("wb") as file:
        file.truncate(65 * 2**20)
    tab.goto(page_url)
    tab.get_by_text("Picture, clip, filters").click()
    tab.locator("input[type=file]").set_input_files(tmp_path / "long.mp4")
    sync_api.expect(tab.get_by_text(re.compile(r"64(\.0)? ?MB or smaller"))).to_be_visible()
    assert cards(tab).count() == 0


@pytest.mark.slow
def test_feedback__one_click_is_written_down(tab: Any, page_url: str, api: str, archive: Archive) -> None:
    tab.goto(f"{page_url}/?q=blue")
    cards(tab).first.get_by_role("button", name="Right").click()
    sync_api.expect(tab.get_by_text("Noted: Right.")).to_be_visible()
    (file,) = archive.feedback.glob("*.jsonl")
    assert '"query": "blue"' in file.read_text() and '"relevant": true' in file.read_text()


@pytest.mark.slow
def test_duplicates__accept_and_apply(tab: Any, own_page_url: str, own_api: str, own_archive: Archive) -> None:
    write_found(own_archive, ROW)
    tab.goto(f"{own_page_url}/duplicates")
    pair = tab.locator(".st-key-duplicate-0")
    sync_api.expect(pair).to_contain_text("tapes/red.mp4")
    assert pair.locator("img").count() == 2
    pair.get_by_text("Accept", exact=True).click()
    tab.get_by_role("button", name="Apply the decisions").click()
    for place in ("stToast", "stAlert"):  # below, where the button is, the top is out of sight
        sync_api.expect(tab.get_by_test_id(place).get_by_text("Applied: 1 accepted, 0 refused.")).to_be_visible()
    assert read_decisions(own_archive.decisions).accepted == (ROW,)


@pytest.mark.slow
def test_api__goes_away_and_comes_back(tab: Any, own_page_url: str, own_archive: Archive, own_port: int) -> None:
    tab.goto(f"{own_page_url}/?q=blue")
    sync_api.expect(tab.get_by_role("alert")).to_contain_text("does not answer")
    with live_api(own_archive, port=own_port):
        sync_api.expect(cards(tab).first).to_contain_text("blue")
    cards(tab).first.get_by_role("button", name="More like this").click()
    sync_api.expect(tab.get_by_role("alert").first).to_contain_text("does not answer")
    with live_api(own_archive, port=own_port):
        sync_api.expect(cards(tab).first).to_be_visible()
        settle(tab)


def test_search__works_by_keyboard_alone(tab: Any, page_url: str, api: str) -> None:
    tab.goto(f"{page_url}/?q=blue")
    sync_api.expect(cards(tab).first).to_be_visible()
    settle(tab)
    cards(tab).first.get_by_role("button", name="Play").focus()
    tab.keyboard.press("Tab")
    assert "More like this" in tab.evaluate("document.activeElement.textContent")
    tab.keyboard.press("Shift+Tab")
    tab.keyboard.press("Enter")
    sync_api.expect(tab.get_by_role("dialog")).to_be_visible()


@pytest.mark.slow
def test_page__is_sensible_on_a_phone(browser: Any, page_url: str, api: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    tab = context.new_page()
    tab.goto(f"{page_url}/?q=blue")
    sync_api.expect(cards(tab).first).to_be_visible(timeout=WAIT_MS)
    # The grid finds its columns after the first card is there.
    wait_until(lambda: cards(tab).first.bounding_box()["width"] > 300)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()


@pytest.mark.slow
def test_compare__a_link_to_it_says_how_to_get_a_base(tab: Any, api_port: int, api: str) -> None:
    with served_page(api_port) as url:  # of its own: a page remembers for a while whether there is a base
        tab.goto(f"{url}/compare?compare-q=green")
        sync_api.expect(tab.get_by_text("There is no base to compare with.")).to_be_visible(timeout=WAIT_MS)
        sync_api.expect(tab.get_by_role("link", name="Search", exact=True)).to_be_visible()
        sync_api.expect(tab.get_by_role("link", name="Base against adapted")).to_be_hidden()
        look_at(tab, "compare-none")


@pytest.mark.slow
def test_compare__appears_with_a_base_and_shows_what_each_finds(
    tab: Any, own_page_url: str, own_api: str, own_archive: Archive
) -> None:
    publish_base(own_archive.root)  # it takes green for red
    tab.goto(own_page_url)
    tab.get_by_role("link", name="Base against adapted").click()
    sync_api.expect(tab.get_by_text("The same query to two models")).to_be_visible()  # the search page has such a box too
    tab.get_by_role("searchbox", name="What are you looking for?").fill("green")
    tab.keyboard.press("Enter")
    base, taught = (tab.locator(f".st-key-card-{name}-0") for name in ("other_search", "this_search"))
    sync_api.expect(base).to_contain_text("tapes/red.mp4")
    sync_api.expect(taught).to_contain_text("tapes/green.mp4")
    for shown in (f"Model {BASE_VERSION}", f"Model {VERSION}", "4 of 4 moments are found by both."):
        sync_api.expect(tab.get_by_text(shown)).to_be_visible()
    left, right = base.bounding_box(), taught.bounding_box()
    assert left["x"] + left["width"] <= right["x"] and left["y"] == right["y"]
    # Its videos have no titles, as those of the live one have.
    sync_api.expect(tab.get_by_text("is of another state of the archive")).to_be_visible()
    loaded = "[...document.querySelectorAll('.st-key-compared img')].every(each => each.naturalWidth > 0)"
    tab.wait_for_function(loaded)
    look_at(tab, "compare")
    base.get_by_role("button", name="Play").click()
    tab.wait_for_function("document.querySelector('video.vs-video')?.readyState >= 1")
    tab.goto(f"{own_page_url}/compare?compare-q=green&lang=ko")
    sync_api.expect(tab.get_by_text(f"모델 {BASE_VERSION}")).to_be_visible()
    tab.wait_for_function(loaded)
    look_at(tab, "compare-ko")


@pytest.mark.slow
def test_compare__stands_side_by_side_on_a_phone_too(browser: Any, api_port: int, api: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    tab = context.new_page()
    with served_page(api_port, VIDSEEK_OTHER_URL=api) as url:
        tab.goto(f"{url}/compare?compare-q=blue")
        firsts = [tab.locator(f".st-key-card-{name}-0") for name in ("other_search", "this_search")]
        for card in firsts:
            sync_api.expect(card).to_be_visible(timeout=WAIT_MS)
        boxes: list[dict[str, float]] = []

        def is_beside() -> bool:
            boxes[:] = [card.bounding_box() for card in firsts]
            left, right = boxes
            return left["x"] + left["width"] <= right["x"] and left["y"] == right["y"]

        wait_until(is_beside)  # columns find their places after their cards are there
        right = boxes[1]
        assert right["x"] + right["width"] <= 390 and tab.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()


def test_ui__brings_up_both_and_stops_both(own_archive: Archive) -> None:
    api_port, port = free_port(), free_port()
    (own_archive.root / "params.yaml").write_text(f"ingest: {{source: videos}}\nserve: {{port: {api_port}}}\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VIDSEEK")}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-m", "vidseek.cli", "ui", "--port", str(port)]
    process = subprocess.Popen(command, cwd=own_archive.root, env=environment)
    try:
        wait_until_answered(f"http://127.0.0.1:{port}/_stcore/health", process, what="vidseek ui")
        wait_until(lambda: answers(f"http://127.0.0.1:{api_port}/readyz"))
    finally:
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 0
    assert not answers(f"http://127.0.0.1:{api_port}/healthz")


def look_at(tab: Any, name: str) -> None:
    """Leave a picture for a person, where VIDSEEK_SCREENSHOTS names a folder."""
    if folder := os.environ.get("VIDSEEK_SCREENSHOTS"):
        tab.screenshot(path=Path(folder) / f"{name}.png")


def wait_for_address(tab: Any, part: str) -> str:
    tab.wait_for_function(f"location.search.includes('{part}')")
    address: str = tab.url
    return address


@pytest.mark.slow
def test_add__videos_are_uploaded_one_after_the_other_and_listed(
    tab: Any, own_page_url: str, own_api: str, own_archive: Archive, tmp_path: Path
) -> None:
    (text := tmp_path / "notes.txt").write_text("no video")
    (large := tmp_path / "<b>new.mp4").write_bytes(b"video" * 200_000)
    tab.goto(f"{own_page_url}/add")
    sync_api.expect(tab.get_by_text("There are no jobs yet.")).to_be_visible()
    chooser = tab.locator("input[type=file]")
    chooser.focus()
    assert tab.evaluate("element => element.matches(':focus')", chooser.element_handle())
    chooser.set_input_files([str(large), str(text)])
    rows = tab.locator("li")
    sync_api.expect(rows.nth(0)).to_contain_text("<b>new.mp4")
    sync_api.expect(rows.nth(0)).to_contain_text("uploaded")
    sync_api.expect(rows.nth(1)).to_contain_text("not taken: notes.txt ends in .txt, which is no suffix of a video")
    listed = tab.locator(".vs-table")
    sync_api.expect(listed).to_contain_text("<b>new.mp4")
    sync_api.expect(tab.get_by_text("run vidseek watch")).to_be_visible()
    [job] = JobTable(own_archive.jobs).queued(limit=9)
    assert (own_archive.jobs / job.file).read_bytes() == large.read_bytes()
    tab.get_by_role("button", name="Cancel").click()
    sync_api.expect(listed).to_contain_text("cancelled")
    assert JobTable(own_archive.jobs).get(job.id).state == "cancelled"
    JobTable(own_archive.jobs).retry(job.id)
    sync_api.expect(tab.get_by_text("run vidseek watch")).to_be_visible()  # the list is drawn anew by itself
    sync_api.expect(rows).to_have_count(2)
    shots = os.environ.get("VIDSEEK_SHOTS")
    for name, size in (("wide", (1280, 900)), ("narrow", (390, 844))) if shots else ():
        tab.set_viewport_size({"width": size[0], "height": size[1]})
        tab.wait_for_timeout(500)
        tab.screenshot(path=f"{shots}/add-{name}.png")


@pytest.mark.slow
def test_basket__becomes_a_timeline_and_a_moment_becomes_a_file(tab: Any, page_url: str, api: str, tmp_path: Path) -> None:
    pytest.importorskip("opentimelineio")
    tab.goto(f"{page_url}/?q=blue")
    for place in (0, 1):
        cards(tab).nth(place).get_by_role("button", name="Basket").click()
        button = cards(tab).nth(place).get_by_role("button", name="Basket")
        sync_api.expect(button).to_have_attribute("data-testid", "stBaseButton-primary")
    if folder := os.environ.get("VIDSEEK_SCREENSHOTS"):
        tab.screenshot(path=f"{folder}/cards.png")
    with tab.expect_download() as saving:
        cards(tab).first.get_by_role("link", name="Save the moment").click()
    saved = Path(saving.value.path())
    assert saved.read_bytes()[4:8] == b"ftyp" and saving.value.suggested_filename.endswith(".mp4")
    tab.get_by_role("link", name="Basket").click()
    kept = tab.locator("[class*='st-key-kept-']")
    sync_api.expect(kept).to_have_count(2)
    second = kept.nth(1).locator(".vs-facts").text_content()
    kept.nth(1).get_by_role("button", name="↑").click()
    sync_api.expect(kept.first.locator(".vs-facts")).to_have_text(second)
    tab.get_by_role("textbox", name="Handles").fill("2f")
    tab.keyboard.press("Enter")
    tab.get_by_role("button", name="Make the timeline").click()
    if folder:
        sync_api.expect(tab.get_by_role("button", name="Download vidseek.otio")).to_be_visible()
        tab.screenshot(path=f"{folder}/basket.png")
    with tab.expect_download() as downloading:
        tab.get_by_role("button", name="Download vidseek.otio").click()
    content = Path(downloading.value.path()).read_text(encoding="utf-8")
    assert content.count('"OTIO_SCHEMA": "Clip') == 2 and second.split("/")[-1] in content
    kept.first.get_by_role("button", name="Remove").click()
    sync_api.expect(kept).to_have_count(1)
    tab.get_by_role("button", name="Empty the basket").click()
    sync_api.expect(tab.get_by_text("The basket is empty")).to_be_visible()
