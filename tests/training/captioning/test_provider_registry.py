"""A caption provider that another package brings: found by its entry point, set up, asked, and its captions written."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.raising import raises
from tests.training.llm_servers import write_archive
from vidseek_media.errors import ConfigError
from vidseek_media.tables import CAPTIONS, read_table
from vidseek_training.captioning import registry
from vidseek_training.captioning.captioner import Captioner
from vidseek_training.captioning.captions import write_captions
from vidseek_training.captioning.opening import open_provider
from vidseek_training.captioning.settings import LlmSettings
from vidseek_training.settings import CaptionSettings

ROOT = Path(__file__).parents[3]
PARROT = """
import json

from pydantic import BaseModel, ConfigDict

from vidseek_training.captioning.provider import Answer, CaptionProvider, Usage


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")
    word: str = "squawk"


class Parrot:
    def __init__(self, settings, url, key):
        self.word, self.key = settings.options["word"], key

    def ask(self, request):
        captions = dict.fromkeys(("short", "sentence", "detail"), f"{self.word} at {len(request.pictures)} pictures")
        return Answer(json.dumps(captions), Usage(1000, 100), model="parrot-2")

    def close(self):
        pass


PROVIDER = CaptionProvider(
    name="parrot", library="parrot", key_variable="PARROT_KEY", models_page="https://example.org/parrots", options=Options,
    open=lambda settings, *, url, key: Parrot(settings, url, key),
    picture_tokens=lambda model, width, height, options: width,
)
"""

Install = Callable[[str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a package with one entry point, `parrot`, where Python finds it."""
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PARROT_KEY", "a key")
    monkeypatch.delenv("VIDSEEK_LLM_URL", raising=False)
    registry.caption_provider.cache_clear()

    def write(source: str) -> None:
        about = site / "parrot-1.0.dist-info"
        about.mkdir(parents=True)
        (site / "parrot.py").write_text(source)
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: parrot\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[{registry.ENTRY_POINTS}]\nparrot = parrot:PROVIDER\n")
        monkeypatch.delitem(__import__("sys").modules, "parrot", raising=False)

    return write


def settings_of(**more: Any) -> LlmSettings:
    return LlmSettings.of({
        "provider": "parrot", "model": "grey", "usd_per_million_tokens_in": 1.0, "usd_per_million_tokens_out": 10.0,
        "options": {"word": "hello"}, **more,
    })


def test_provider__of_another_package_captions_an_archive(install: Install, tmp_path: Path) -> None:
    install(PARROT)
    write_archive(tmp_path, 2)
    data = tmp_path / "data"
    captioner = Captioner(settings_of(num_frames=3), frames_dir=data / "frames", journal_dir=tmp_path / "journal")
    report = write_captions(
        data / "ingest", data / "cut", out=data / "caption", settings=CaptionSettings(sources=("llm",)), llm=captioner,
    )
    assert report.llm is not None and report.llm.cost_usd == pytest.approx(2 * 0.002)
    rows = read_table(data / "caption" / "captions.parquet", CAPTIONS)
    assert set(rows["text"]) == {"hello at 3 pictures"} and set(rows["model"]) == {"parrot-2"}
    assert all(writer.startswith("parrot/grey ") for writer in rows["writer"])


def test_provider__its_settings_and_key_are_its_own(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(PARROT)
    assert "parrot" in registry.provider_names()
    with raises(ConfigError, code="setting-out-of-range") as caught:
        settings_of(options={"colour": "grey"})
    assert "options.colour" in caught.value.message and "caption.llm" in caught.value.message
    with raises(ConfigError, code="setting-out-of-range") as caught:
        settings_of(send="video")
    assert "send: frames" in caught.value.message
    monkeypatch.delenv("PARROT_KEY")
    with raises(ConfigError, code="variable-not-set") as caught:
        open_provider(settings_of())
    assert "PARROT_KEY" in caught.value.message


@pytest.mark.parametrize("source", [
    "PROVIDER = 3", "import no_such_library_at_all", PARROT.replace('name="parrot"', 'name="crow"'),
])
def test_provider__what_cannot_be_used_is_named(install: Install, source: str) -> None:
    install(source)
    with raises(ConfigError, code="bad-plugin", naming="parrot"):
        registry.caption_provider("parrot")


def test_provider__unknown_names_those_there_are() -> None:
    with raises(ConfigError, code="unknown-choice", naming=["oracle", "gemini", "openai"]):
        registry.caption_provider("oracle")


def test_providers__each_has_its_line_in_the_docs_and_nobody_else_names_it() -> None:
    """What a provider costs: its module, its test, its line in the docs; its client where it has a library of its own."""
    table = (ROOT / "docs" / "captions.md").read_text(encoding="utf-8")
    folder = ROOT / "packages" / "vidseek_training" / "captioning"
    names = {path.stem for path in (folder / "providers").glob("*.py")} - {"__init__"}
    assert names == {name for name in registry.provider_names() if name in ("gemini", "openai")}
    for name in names:
        assert f"| `{name}` |" in table
        assert registry.caption_provider(name).name == name
    # No module outside of a provider's own two compares or imports its name.
    own = {folder / "gemini.py", folder / "openai_endpoint.py", folder / "settings.py"}
    for path in {*folder.glob("*.py")} - own:
        words = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
        assert not names & {word for word in words if isinstance(word, str)}, path
