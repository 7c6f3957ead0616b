"""Keys from the environment, or from the file that it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.raising import raises
from vidseek_media.errors import ConfigError
from vidseek_media.secret import secret


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("A_KEY", "A_KEY_FILE"):
        monkeypatch.delenv(variable, raising=False)


def test_secret__of_the_variable_or_its_file_without_the_line_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert secret("A_KEY") is None
    monkeypatch.setenv("A_KEY", "told")
    assert secret("A_KEY") == "told"
    monkeypatch.delenv("A_KEY")
    (tmp_path / "key").write_text(" of a file\r\n")
    monkeypatch.setenv("A_KEY_FILE", str(tmp_path / "key"))
    assert secret("A_KEY") == " of a file"


def test_secret__both_is_refused_and_neither_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("of a file")
    monkeypatch.setenv("A_KEY", "told")
    monkeypatch.setenv("A_KEY_FILE", str(tmp_path / "key"))
    with raises(ConfigError, code="secret-set-twice", naming=("A_KEY", "A_KEY_FILE")) as caught:
        secret("A_KEY")
    assert "told" not in str(caught.value) and "of a file" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_secret__a_file_that_cannot_be_read_is_named(
    content: bytes | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    monkeypatch.setenv("A_KEY_FILE", str(tmp_path / "key"))
    with raises(ConfigError, code="secret-unreadable", naming=("A_KEY_FILE", tmp_path / 'key')):
        secret("A_KEY")
