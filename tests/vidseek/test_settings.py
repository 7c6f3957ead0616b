from __future__ import annotations

from pathlib import Path

import pytest

from tests.raising import raises
from vidseek.params import Settings, load_settings
from vidseek_media.errors import ConfigError


def written(folder: Path, text: str) -> Path:
    path = folder / "params.yaml"
    path.write_bytes(text.encode("utf-8"))
    return path


def test_load_settings__no_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load_settings(tmp_path / "params.yaml") == Settings()


def test_load_settings__reads_its_two_sections_and_leaves_the_others(tmp_path: Path) -> None:
    path = written(tmp_path, "train: {x: 1}\nsearch: {merge_margin_sd: 0.1}\nserve: {max_queue: 7}\n")
    settings = load_settings(path)
    assert (settings.search.merge_margin_sd, settings.serve.max_queue) == (0.1, 7)
    assert settings.serve.max_batch == Settings().serve.max_batch


def test_load_settings__a_margin_as_a_cosine_is_read_and_the_new_key_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    search = load_settings(written(tmp_path, "search: {merge_margin: 0.0317}")).search
    assert search.margin(0.5) == search.margin(0.01) == 0.0317
    assert "search.merge_margin_sd" in caplog.text
    assert load_settings(written(tmp_path, "search: {merge_margin_sd: 0.1}")).search.margin(0.5) == 0.05


@pytest.mark.parametrize(("text", "place", "code"), [
    ("search: {margin: 0.1}", "search.margin", "unknown-setting"),
    ("search: {merge_margin: -1}", "search.merge_margin", "setting-out-of-range"),
    ("search: {merge_margin_sd: -1}", "search.merge_margin_sd", "setting-out-of-range"),
    ("search: {merge_margin: wide}", "search.merge_margin", "setting-out-of-range"),
    ("serve: {max_queue: 0}", "serve.max_queue", "setting-out-of-range"),
    ("search: {provider: rocm}", "search.provider", "unknown-choice"),
    ("search: {provider: rocm, margin: 1}", "search.margin", "invalid-settings"),
    ("search: [1]", "search", "setting-out-of-range"),
    ("- a list", "list", "params-unreadable"),
    ("a: [", "YAML", "params-unreadable"),
])
def test_load_settings__wrong_params_are_one_config_error_that_names_the_place(
    tmp_path: Path, text: str, place: str, code: str
) -> None:
    with raises(ConfigError, code=code, naming=place):
        load_settings(written(tmp_path, text))


def test_load_settings__not_utf8_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(b"a: \xff")
    with raises(ConfigError, code="params-unreadable"):
        load_settings(tmp_path / "params.yaml")
