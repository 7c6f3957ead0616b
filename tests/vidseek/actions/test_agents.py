"""The tools for agents, asked by the protocol's own client over a real API."""

from __future__ import annotations

import base64
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from PIL import Image

from tests.serving.colours import video_id_of_colour
from tests.serving.live_api import live_api, write_video_archive
from vidseek.archive import Archive
from vidseek.client import Api
from vidseek_media.ids import clip_id_of

mcp = pytest.importorskip("mcp")
from vidseek.actions.agents import create_server  # noqa: E402

RED = str(clip_id_of(video_id_of_colour("red"), 0, 1000))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return write_video_archive(tmp_path_factory.mktemp("agents"))


@pytest.fixture(scope="module")
def url(archive: Archive) -> Iterator[str]:
    with live_api(archive) as one:
        yield one


def called(url: str, tool: str, **arguments: Any) -> Any:
    """What the tool gives to a client that is connected in the process."""
    async def call() -> Any:
        async with mcp.Client(create_server(Api(url))) as client:
            return await client.call_tool(tool, arguments)

    return anyio.run(call)


def test_tools__are_the_five_with_what_they_take(url: str) -> None:
    async def listed() -> Any:
        async with mcp.Client(create_server(Api(url))) as client:
            return (await client.list_tools()).tools

    tools = {tool.name: tool for tool in anyio.run(listed)}
    assert set(tools) == {"search", "list_filters", "similar", "get_clip", "feedback"}
    assert all(tool.description for tool in tools.values())
    assert tools["search"].input_schema["required"] == ["query"]


def test_search__gives_moments(url: str) -> None:
    moments = called(url, "search", query="blue", limit=2).structured_content["moments"]
    assert len(moments) == 2
    assert (moments[0]["title"], moments[0]["start_seconds"], moments[0]["end_seconds"]) == ("blue", 0.0, 3.0)


def test_search__filters_and_what_it_shall_not_show(url: str) -> None:
    filters = {"video_id": video_id_of_colour("green")}
    moments = called(url, "search", query="blue", without="red", filters=filters).structured_content["moments"]
    assert {moment["title"] for moment in moments} == {"green"}


def test_similar__is_not_the_clip_itself(url: str) -> None:
    moments = called(url, "similar", clip_id=RED).structured_content["moments"]
    assert moments and RED not in {moment["clip_id"] for moment in moments}


def test_get_clip__shows_frames_as_pictures(url: str) -> None:
    text, *pictures = called(url, "get_clip", clip_id=RED, frames=3).content
    assert text.text.endswith("0.0 to 1.0 s of tapes/red.mp4")
    assert len(pictures) == 3
    for each in pictures:
        with Image.open(io.BytesIO(base64.b64decode(each.data))) as picture:
            assert picture.size == (64, 48)
            red, green, _ = picture.convert("RGB").getpixel((32, 24))  # type: ignore[misc]
            assert red > 200 and green < 60


def test_feedback__is_written_down(url: str, archive: Archive) -> None:
    assert called(url, "feedback", query="red", clip_id=RED, relevant=True).content[0].text == "noted"
    (file,) = archive.feedback.glob("*.jsonl")
    assert json.loads(file.read_text().splitlines()[-1])["clip_id"] == RED


@pytest.mark.parametrize(("tool", "arguments", "says"), [
    ("search", {"query": "red", "filters": {"nonsense": 1}}, "The fields are"),
    ("get_clip", {"clip_id": str(clip_id_of("f" * 32, 0, 1000))}, "has no clip"),
    ("get_clip", {"clip_id": "../../etc/passwd"}, "pattern"),
    ("search", {"query": "red", "limit": 1000}, "less than or equal to 20"),
])
def test_tools__what_cannot_be_is_an_error_that_says_why(url: str, tool: str, arguments: dict[str, Any], says: str) -> None:
    answer = called(url, tool, **arguments)
    assert answer.is_error and says in answer.content[0].text


def test_tools__without_an_api_say_so() -> None:
    answer = called("http://127.0.0.1:9", "search", query="red")
    assert answer.is_error and "vidseek serve" in answer.content[0].text


@pytest.mark.slow
def test_command__speaks_the_protocol_over_its_pipes(url: str) -> None:
    async def call() -> Any:
        command = mcp.StdioServerParameters(
            command=sys.executable, args=["-m", "vidseek.cli", "mcp", "--url", url],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, cwd=str(Path(__file__).parent),
        )
        async with mcp.Client(command) as client:
            return await client.call_tool("search", {"query": "green", "limit": 1})

    assert anyio.run(call).structured_content["moments"][0]["title"] == "green"
