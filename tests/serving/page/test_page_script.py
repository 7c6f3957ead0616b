"""The page's script, run by Streamlit's own test harness over a real API."""

from __future__ import annotations

import html
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from serving.page import duplicates_page, frame, moments, searching
from serving.page.texts import TEXTS, text
from tests.serving.api.test_admin import ADMIN_KEY, KEY, ROW, write_found
from tests.serving.colours import (
    BASE_VERSION,
    VERSION,
    publish_base,
    publish_colours,
    video_id_of_colour,
    write_colour_archive,
)
from tests.serving.live_api import live_api, write_video_archive, write_worded_archive
from vidseek.archive import Archive
from vidseek.client import Api
from vidseek.saved.records import SavedMoment
from vidseek.saved.saved_table import Looked, SavedTable
from vidseek_media.ids import clip_id_of

testing = pytest.importorskip("streamlit.testing.v1")
ContextProxy = pytest.importorskip("streamlit.runtime.context").ContextProxy
SCRIPT = Path(__file__).parents[3] / "serving" / "page" / "script.py"
RED = str(clip_id_of(video_id_of_colour("red"), 0, 1000))
TIMEOUT_SECONDS = 180


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return write_video_archive(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def url(archive: Archive) -> Iterator[str]:
    with live_api(archive) as one:
        yield one


@pytest.fixture(autouse=True)
def asks(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VIDSEEK_API_KEY", "VIDSEEK_ADMIN_KEY", "VIDSEEK_PAGE_HOST", "VIDSEEK_PAGE_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VIDSEEK_URL", url)
    # Streamlit puts the script in the place of the main module, which processes that decode are started from.
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


def opened(**address: Any) -> Any:
    """The page at an address."""
    app = testing.AppTest.from_file(str(SCRIPT), default_timeout=TIMEOUT_SECONDS)
    for name, value in address.items():
        app.query_params[name] = value
    return app.run()


def page_of(name: str) -> Any:
    """Another page."""
    code = f"from serving.page import {name}\n{name}.{name}()"
    return testing.AppTest.from_string(code, default_timeout=TIMEOUT_SECONDS).run()


def said(app: Any) -> str:
    """Everything that the page shows, without its style sheet."""
    assert not getattr(app, "exception", None)
    shown = [each.value for kind in ("info", "caption", "success") for each in app.get(kind)]
    parts = [each.proto.body for each in app.get("html")] + shown
    return "\n".join(part for part in parts if "<style>" not in part)


def titles(app: Any) -> list[str]:
    """The titles of the moments, in order."""
    return [html.unescape(each) for each in re.findall(r'<div class="vs-title" title="[^"]*">(.*?)</div>', said(app))]


def test_search__words_in_the_address_are_searched_for() -> None:
    assert titles(opened(q="blue"))[0] == "blue"
    assert "12 clips" in said(opened())


@pytest.mark.slow
def test_search__typing_changes_the_answer() -> None:
    app = opened(q="blue")
    app.text_input(key="q").set_value("green").run()
    assert titles(app)[0] == "green"


@pytest.mark.slow
def test_search__several_queries_stand_side_by_side() -> None:
    app = opened(q="blue, green")
    assert len(app.columns) == 2
    for column, colour in zip(app.columns, ("blue", "green"), strict=True):
        heading, best = [each.proto.body for each in column.get("html")][:2]
        assert colour in heading and f'title="{colour}"' in best


def test_search__title_full_of_html_is_text() -> None:
    shown = said(opened(q="red"))
    assert "&lt;img src=x onerror=alert(1)&gt; **red**" in shown and "<img src=x" not in shown


def test_more_like_this__forgets_the_words_and_finds_others_than_the_clip() -> None:
    app = opened(q="red")
    app.button(key="alike-0-0").click().run()
    assert app.text_input(key="q").value == ""
    (like,) = [app.query_params["like"]] if isinstance(app.query_params["like"], str) else app.query_params["like"]
    assert len(titles(app)) == 4
    assert said(app).count(f"/shown/{like}/thumbnail") == 1  # as the example; it is no answer


def test_likes_and_dislikes__have_signs_that_every_font_has() -> None:
    app = opened(q="red")
    assert [app.button(key=f"{name}-0-0").label for name in ("like", "unlike")] == [r"\+", "−"]


def test_likes_and_dislikes__turn_the_answer_and_can_be_taken_away() -> None:
    app = opened(q="red", unlike=RED)
    before = titles(opened(q="red"))[0]
    assert "**red**" in before
    app.button(key="remove-unlike-0").click().run()
    assert titles(app)[0] == before and not app.query_params.get("unlike")


def test_search__nothing_fits_is_said() -> None:
    assert "Nothing fits." in said(opened(q="red", longest=1))


def test_search__options_are_open_where_the_address_filters() -> None:
    assert [app.expander[0].proto.expanded for app in (opened(q="red"), opened(q="red", longest=1))] == [False, True]


@pytest.mark.slow
def test_search__offers_a_least_confidence_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not opened(q="red").slider  # nothing was calibrated here
    monkeypatch.setattr(searching, "has_confidence", lambda: True)
    assert opened(q="red").slider


def test_search__one_moment_is_no_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "4 moments" in said(opened(q="red")).splitlines()
    search = Api.search
    monkeypatch.setattr(Api, "search", lambda self, body: {**(whole := search(self, body)), "hits": whole["hits"][:1]})
    assert "1 moment" in said(opened(q="red")).splitlines()


def test_search__in_korean() -> None:
    assert "맞는 장면이 없습니다." in said(opened(q="red", longest=1, lang="ko"))


def test_feedback__one_click_is_written_down(archive: Archive) -> None:
    app = opened(q="green")
    app.button(key="wrong-0-0").click().run()
    lines = [json.loads(line) for file in archive.feedback.glob("*.jsonl") for line in file.read_text().splitlines()]
    assert (lines[-1]["query"], lines[-1]["relevant"]) == ("green", False)
    assert "<td>green</td><td>Wrong</td>" in said(page_of("feedback_page"))


def test_feedback_page__leads_to_the_moment_that_was_meant(archive: Archive) -> None:
    query = "red, & <blue>"
    Api(os.environ["VIDSEEK_URL"]).record_feedback(query=query, clip_id=RED, relevant=False)
    shown = said(page_of("feedback_page"))
    assert "<td>red, &amp; &lt;blue&gt;</td><td>Wrong</td>" in shown
    (address,) = (html.unescape(each) for each in re.findall(r'<a href="([^"]*)"', shown) if "blue" in each)
    given = dict(parse_qsl(address.removeprefix("./?")))
    assert given == {"q": query, "play": RED, "lang": "en"}


@pytest.mark.slow
def test_feedback_page__shows_the_time_by_the_clock_of_the_visitor(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"num": 1, "said": [{"query": "red", "clip_id": RED, "relevant": True, "said_at": "2026-11-27T20:16:09.5+00:00"}]}
    monkeypatch.setattr(Api, "admin", lambda self, name, body=None: told)
    assert "<td>2026-11-27 20:16:09 UTC</td>" in said(page_of("feedback_page"))  # the harness names no zone
    monkeypatch.setattr(ContextProxy, "timezone", "Asia/Seoul")
    assert "<td>2026-11-28 05:16:09</td>" in said(page_of("feedback_page"))
    monkeypatch.setattr(ContextProxy, "timezone", "../nowhere")
    assert "<td>2026-11-27 20:16:09 UTC</td>" in said(page_of("feedback_page"))


@pytest.mark.slow
def test_duplicates_page__second_of_two_people_is_told_to_look_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates_page, "_pictures", lambda api, row: ("", ""))  # no decoder starts from the harness
    own = write_video_archive(tmp_path)
    write_found(own, ROW)
    with live_api(own) as url:
        monkeypatch.setenv("VIDSEEK_URL", url)
        first, second = page_of("duplicates_page"), page_of("duplicates_page")
        for app, choice in ((first, "accepted"), (second, "refused")):
            app.radio[0].set_value(choice)
            app.button[1].click().run()
        assert "Applied: 1 accepted, 0 refused." in said(first)
        assert "Applied" not in said(second) and 'role="alert"' in said(second)
        assert second.radio[0].value == "accepted"  # as the first decided; now it may be changed
        second.radio[0].set_value("refused")
        second.button[1].click().run()
        assert "Applied: 0 accepted, 1 refused." in said(second)


def test_player__shows_a_gif_as_a_picture_and_gives_other_files_to_whose_browser_cannot_play_them() -> None:
    clip = {"uri": 'tapes/a "b".GIF', "title": "a", "start_ms": 1500}
    shown = moments._player(RED, clip)
    assert shown.startswith(f'<img class="vs-video" src="/shown/{RED}/media?s=') and "<video" not in shown
    shown = moments._player(RED, {**clip, "uri": 'tapes/a "b".avi'})
    assert "#t=1.500" in shown and 'download="a &quot;b&quot;.avi"' in shown


@pytest.mark.slow
def test_duplicates_page__says_that_it_looks_while_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    running = {"state": "running", "threshold": None, "rows": []}
    monkeypatch.setattr(Api, "admin", lambda self, name, body=None: running)
    app = page_of("duplicates_page")
    assert [each.value for each in app.info] == [text("en", "finding")]
    assert app.button(key="find").disabled


@pytest.mark.slow
def test_feedback__of_no_words_cannot_be_given() -> None:
    app = opened(like=RED)
    assert not [button for button in app.button if button.key.startswith("right-")]


@pytest.mark.slow
@pytest.mark.parametrize("address", [
    {"q": "red", "like": "../../etc/passwd"}, {"q": "red", "n": "-1"}, {"q": "red", "n": "9" * 30},
    {"q": "red", "play": "<script>"}, {"q": "red", "after": "yesterday"}, {"q": "red", "sure": "nan"},
    {"q": "red", "lang": "xx"}, {"q": "red", "channel": "no such"}, {"q": "red", "longest": "-5"},
])
def test_search__hostile_address_is_passed_over(address: dict[str, str]) -> None:
    assert "**red**" in titles(opened(**address))[0]


@pytest.mark.slow
def test_search__what_the_api_refuses_is_said_in_its_words() -> None:
    shown = said(opened(q="x" * 3000))
    assert "the text has 3000 characters" in shown and "What to do" in said(opened(q="red", sure=0.5))


def test_search__example_that_is_gone_is_said() -> None:
    assert "has no clip" in said(opened(like=str(clip_id_of("f" * 32, 0, 1000))))


def test_page__without_an_api_says_so_and_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDSEEK_URL", "http://127.0.0.1:9")
    shown = said(opened(q="red"))
    assert "does not answer" in shown and "vidseek serve" in shown and "goes on by itself" in shown


@pytest.mark.slow
def test_compare_page__asks_both_apis(archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = write_colour_archive(tmp_path, titles={video_id_of_colour("blue"): "blue as the base has it"})
    with live_api(other) as url:
        monkeypatch.setenv("VIDSEEK_OTHER_URL", url)
        app = compared(**{"compare-q": "blue"})
        left, right = app.columns
        assert titles(left)[0] == "blue as the base has it" and titles(right)[0] == "blue"
        assert "The other service" in said(left) and "This service" in said(right) and "Base" not in said(app)


def compared(**address: str) -> Any:
    """The page that compares, at an address."""
    code = "from serving.page.compare_page import compare_page\ncompare_page()"
    app = testing.AppTest.from_string(code, default_timeout=TIMEOUT_SECONDS)
    for name, value in address.items():
        app.query_params[name] = value
    return app.run()


@pytest.mark.slow
def test_compare_page__without_a_base_says_how_to_get_one() -> None:
    app = compared(**{"compare-q": "green"})
    assert "`vidseek base` publishes it, where the live model was taught something" in said(app) and not app.columns
    assert "`vidseek base`를 실행하면 게시됩니다" in said(compared(lang="ko"))


def test_compare_page__without_an_api_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDSEEK_URL", "http://127.0.0.1:9")
    shown = said(compared(**{"compare-q": "green"}))
    assert "does not answer" in shown and "goes on by itself" in shown and "vidseek base" not in shown


@pytest.mark.slow
def test_compare_page__asks_the_base_of_the_same_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = write_colour_archive(tmp_path)
    publish_base(tmp_path)
    with live_api(own) as url:
        monkeypatch.setenv("VIDSEEK_URL", url)
        app = compared(**{"compare-q": "green"})
        left, right = app.columns
        assert titles(left)[0] == "red" and titles(right)[0] == "green"  # the base takes green for red
        assert f"Model {BASE_VERSION}" in said(left) and f"Model {VERSION}" in said(right)
        assert "Base" in said(left) and "Adapted" in said(right)
        assert "4 of 4 moments are found by both." in said(app)
        assert "another state" not in said(app)
        publish_colours(tmp_path, folder="moved")
        frame._models.clear()
        assert "vidseek base" in said(compared(**{"compare-q": "green"}))
        korean = said(compared(**{"compare-q": "green", "lang": "ko"}))
        assert f"모델 {BASE_VERSION}" in korean and "기본 모델" in korean and "모두 찾았습니다" in korean


def test_page__offers_to_compare_where_the_api_has_a_base_of_another_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = write_colour_archive(tmp_path)
    with live_api(own) as url:
        monkeypatch.setenv("VIDSEEK_URL", url)
        assert frame.other() is None
        publish_base(tmp_path)
        frame._models.clear()
        there = frame.other()
        assert there is not None and (there.body, there.is_current) == ({"model": "base"}, True)
        publish_base(tmp_path, encoder_version=VERSION)  # what is live is the base again
        frame._models.clear()
        assert frame.other() is None
    frame._models.clear()
    assert frame.other() is None  # the API is away: no page dies of it


def test_page__that_others_reach_asks_for_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDSEEK_PAGE_HOST", "0.0.0.0")
    monkeypatch.setenv("VIDSEEK_API_KEY", "a key for everybody")
    app = opened(q="red")
    assert not titles(app)
    app.text_input[0].set_value("another key")
    app.button[0].click().run()
    assert "not the key" in said(app) and not titles(app)
    app.text_input[0].set_value("a key for everybody")
    app.button[0].click().run()
    assert titles(app)


@pytest.mark.slow
def test_archive_page__shows_and_rolls_back_after_a_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = write_video_archive(tmp_path)
    with live_api(own) as url:
        monkeypatch.setenv("VIDSEEK_URL", url)
        first = own.backend().aliases()["clips"].collection
        assert "no earlier collection" in said(page_of("archive_page"))
        second = publish_colours(own.root, folder="elsewhere")
        app = page_of("archive_page")
        assert [metric.value for metric in app.metric] == ["4", "4:00", "12", "0"]
        app.button(key="rollback").click().run()
        assert own.backend().aliases()["clips"].collection == second  # asked, not done
        app.button(key="rollback-yes").click().run()
        assert own.backend().aliases()["clips"].collection == first


def test_admin_pages__ask_for_the_admin_key(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    with live_api(archive, key="a key for everybody", admin_key="a key for those who run it") as url:
        monkeypatch.setenv("VIDSEEK_URL", url)
        monkeypatch.setenv("VIDSEEK_API_KEY", "a key for everybody")
        app = page_of("archive_page")
        assert "asks for the admin key" in said(app) and "Bearer" not in said(app) and not app.metric
        app.text_input[0].set_value("another key")
        app.button[0].click().run()
        assert "not the key" in said(app) and not app.metric
        app.text_input[0].set_value("a key for those who run it")
        app.button[0].click().run()
        assert app.metric


@pytest.mark.slow
@pytest.mark.parametrize("key", [None, "another key than theirs"])
def test_page__without_the_key_of_the_api_says_how_to_start_it(
    key: str | None, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    with live_api(archive, key="a key for everybody") as url:
        monkeypatch.setenv("VIDSEEK_URL", url)
        if key:
            monkeypatch.setenv("VIDSEEK_API_KEY", key)
        shown = said(opened(q="red"))
        assert "starts it with VIDSEEK_API_KEY" in shown and "Bearer" not in shown


@pytest.fixture(scope="module")
def worded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with live_api(write_worded_archive(tmp_path_factory.mktemp("worded"))) as one:
        yield one


@pytest.mark.slow
def test_player__begins_at_the_words_and_jumps_to_a_line(worded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDSEEK_URL", worded)
    app = opened(q="harbour reopens")
    assert titles(app)[0] == "green"
    assert "Speech: <bdi>the <mark>harbour</mark> &lt;b&gt;<mark>reopens</mark>&lt;/b&gt;</bdi>" in said(app)
    app.button(key="play-0-0").click().run()
    assert "#t=1.400" in said(app)
    lines = [each.label for each in app.button if str(each.key).startswith("said-")]
    assert [line.replace("\\", "") for line in lines] == [
        "0:00  good morning", "0:01  the harbour <b>reopens</b>", "0:02  rain"
    ]
    app.button(key="said-2").click().run()
    assert "#t=2.200" in said(app)


@pytest.mark.slow
def test_saved__a_search_is_saved_where_it_was_asked_and_listed_with_what_was_new(archive: Archive) -> None:
    app = opened(q="blue")
    app.button(key="save-0").click().run()
    [saved] = SavedTable(archive.saved).searches()
    assert saved.query.texts == ("blue",) and saved.query.min_score is not None  # of the last moment that was shown
    page = "from serving.page.saved.saved_page import saved_page\nsaved_page()"
    listed = testing.AppTest.from_string(page, default_timeout=TIMEOUT_SECONDS).run()
    assert "blue" in said(listed) and text("en", "nothing_new") in said(listed)
    hit = Api(os.environ["VIDSEEK_URL"]).search({"text": "blue", "limit": 1})["hits"][0]
    moment = SavedMoment("m", saved.id, hit["video_id"], 0, 1000, 1.0, {**hit, "title": "<b>new</b>"})
    fault = Looked(saved.id, [moment], code="unknown-filter", reason="no field <i>x</i>")
    SavedTable(archive.saved).keep([fault], SavedTable(archive.saved).seen(), now=1.0, most=9)
    listed.run()
    assert "&lt;b&gt;new&lt;/b&gt;" in said(listed) and "no field &lt;i&gt;x&lt;/i&gt;" in said(listed)
    listed.button(key=f"remove-{saved.id}").click().run()
    assert SavedTable(archive.saved).searches() == [] and text("en", "none_saved") in said(listed)


@pytest.mark.slow
def test_saved__asks_for_the_admin_key_where_the_api_wants_one(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    with live_api(archive, key=KEY, admin_key=ADMIN_KEY) as guarded:
        monkeypatch.setenv("VIDSEEK_URL", guarded)
        monkeypatch.setenv("VIDSEEK_API_KEY", KEY)
        app = opened(q="blue")
        app.button(key="save-0").click().run()
        assert SavedTable(archive.saved).searches() == []
        [asked] = [each for each in app.text_input if each.label == text("en", "admin_key")]
        asked.set_value(ADMIN_KEY)
        next(each for each in app.button if each.label == text("en", "enter")).click().run()
        assert not [each for each in app.text_input if each.label == text("en", "admin_key")]
        app.button(key="save-0").click().run()
    [saved] = SavedTable(archive.saved).searches()
    SavedTable(archive.saved).remove(saved.id)


@pytest.mark.slow
@pytest.mark.parametrize("given", ["ocr", "On-screen text", TEXTS["ocr"][1]])
@pytest.mark.parametrize("lang", ["en", "ko"])
def test_fields__of_an_address_hold_in_every_language(
    given: str, lang: str, worded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDSEEK_URL", worded)
    app = opened(q="harbour reopens", lang=lang, **{"in": given})
    assert app.button_group(key="in").value == ["ocr"]
    assert titles(app) == ["blue"]  # green says it, and does not show it


def test_fields__that_are_chosen_stand_in_the_address_by_name(worded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDSEEK_URL", worded)
    app = opened(q="harbour reopens")
    app.button_group(key="in").set_value(["ocr"]).run()
    assert app.query_params["in"] == "ocr" and titles(app) == ["blue"]
