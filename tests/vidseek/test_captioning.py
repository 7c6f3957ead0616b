"""`vidseek caption` as a person meets it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.training.llm_servers import KEY, MODEL, Server, openai_reply, serve, write_archive
from tests.vidseek.test_cli import run
from vidseek_media.tables import CAPTIONS, read_table

LLM = {"provider": "openai", "model": MODEL, "usd_per_million_tokens_in": 1.0, "usd_per_million_tokens_out": 10.0}


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(lambda *_: openai_reply()) as server:
        yield server


def write_params(folder: Path, *, sources: list[str], **llm: Any) -> None:
    section = {"sources": sources, "max_transcript_characters": 300, "llm": {**LLM, **llm}}
    (folder / "params.yaml").write_text(json.dumps({"caption": section}))


def caption(folder: Path, server: Server, *args: str) -> dict[str, Any]:
    done = run("caption", "--json", *args, folder=folder, VIDSEEK_LLM_URL=server.url, VIDSEEK_LLM_KEY=KEY)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_caption__says_what_it_would_cost_then_does_it_once(server: Server, tmp_path: Path) -> None:
    write_archive(tmp_path, 5)
    write_params(tmp_path, sources=["file", "llm"])
    planned = caption(tmp_path, server, "--dry-run")
    assert planned["num_to_ask"] == 5 and planned["cost_usd"] > 0 and server.asked == []
    assert not (tmp_path / "data" / "caption").exists()

    some = caption(tmp_path, server, "--limit", "2")
    assert (some["llm_captioned"], some["llm_waiting"], some["num_out"]) == (2, 3, 6)
    every = caption(tmp_path, server)
    assert (every["llm_captioned"], every["llm_cached"], every["llm_cost_usd"]) == (5, 2, 0.006)
    assert every["llm_spent_usd"] == 0.01 and len(server.asked) == 5
    assert len(read_table(tmp_path / "data" / "caption" / "captions.parquet", CAPTIONS)) == 15
    assert caption(tmp_path, server, "--dry-run")["num_to_ask"] == 0


def test_caption__without_a_model_asks_nobody(server: Server, tmp_path: Path) -> None:
    write_archive(tmp_path, 2)
    write_params(tmp_path, sources=["title"])
    assert caption(tmp_path, server) == {"num_in": 2, "num_out": 2, "num_whole_video": 0, "num_rejected": 0}
    for option in ("--dry-run", "--limit=3"):
        done = run("caption", option, folder=tmp_path)
        assert done.returncode == 11 and "caption.sources" in done.stderr
    assert server.asked == []


@pytest.mark.slow
@pytest.mark.parametrize(("llm", "environment", "named"), [
    ({"model": None}, {}, "caption.llm.model"), ({"budget": 1}, {}, "caption.llm.budget"),
    ({"usd_per_million_tokens_in": None}, {}, "usd_per_million_tokens_in"), ({}, {}, "OPENAI_API_KEY"),
    ({"provider": "gemini"}, {}, "GEMINI_API_KEY"), ({"budget_usd": 0.0}, {"VIDSEEK_LLM_URL": "-"}, "max_clips"),
])
def test_caption__what_is_wrong_is_one_message(
    server: Server, tmp_path: Path, llm: dict[str, Any], environment: dict[str, str], named: str
) -> None:
    write_archive(tmp_path, 1)
    write_params(tmp_path, sources=["llm"], **llm)
    cleared = dict.fromkeys(("VIDSEEK_LLM_URL", "VIDSEEK_LLM_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY"), "")
    environment = dict.fromkeys(environment, server.url)
    done = run("caption", folder=tmp_path, **{**cleared, **environment})
    assert done.returncode == 11 and named in done.stderr and "Traceback" not in done.stderr
    assert server.asked == []
