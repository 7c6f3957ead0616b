"""The page of the learning loop, run by Streamlit's own test harness over a real API."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.serving.live_api import live_api, write_taught_archive
from vidseek.actions.feedback import read
from vidseek.archive import Archive
from vidseek_media.text.written_captions import read_written

testing = pytest.importorskip("streamlit.testing.v1")
PAGE = "from serving.page.teaching.teaching_page import teaching_page\nteaching_page()"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return write_taught_archive(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def url(archive: Archive) -> Iterator[str]:
    with live_api(archive) as one:
        yield one


@pytest.fixture
def page(url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("VIDSEEK_API_KEY", "VIDSEEK_ADMIN_KEY", "VIDSEEK_PAGE_HOST", "VIDSEEK_PAGE_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VIDSEEK_URL", url)
    # Streamlit puts the script in the place of the main module, which processes that decode are started from.
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    app = testing.AppTest.from_string(PAGE, default_timeout=60).run()
    assert not app.exception
    return app


def shown(app: Any) -> str:
    return "\n".join(each.proto.body for each in app.get("html"))


def test_teaching__a_caption_is_written_down_and_its_clip_makes_room(page: Any, archive: Archive) -> None:
    fields = [each for each in page.text_input if each.key.startswith("caption-")]
    assert fields and "stands for" in shown(page) and "&lt;img" not in page.caption[0].value
    clip_id = fields[0].key.removeprefix("caption-")
    fields[0].set_value("a red square").run()
    assert [each.text for each in read_written(archive.decisions)] == ["a red square"]
    assert f"caption-{clip_id}" not in {each.key for each in page.text_input}


def test_teaching__a_hit_is_judged_once(page: Any, archive: Archive) -> None:
    page.radio(key="teach-kind").set_value("judgements").run()
    assert "/thumbnail" in shown(page)
    before = len([each for each in page.button if each.key.startswith("wrong-")])
    page.button(key="wrong-0").click().run()
    said, _ = read(archive.feedback)
    assert [(each.relevant, bool(each.query)) for each in said] == [(False, True)]
    assert len([each for each in page.button if each.key.startswith("wrong-")]) <= before
