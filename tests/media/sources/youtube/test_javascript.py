from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from vidseek_media.sources.youtube.javascript import RUNTIMES, JavaScript, javascript


def fake(folder: Path, name: str, says: str) -> None:
    """A program of this name that tells this version."""
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_javascript__tells_what_is_too_old_from_what_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("yt_dlp")
    monkeypatch.setattr("sysconfig.get_path", lambda *_: str(tmp_path))  # where yt-dlp looks before PATH
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin")
    for name, says in (("deno", "deno 1.9.0 (stable)"), ("node", "v22.4.1"), ("bun", "1.3.0"), ("qjs", "nothing")):
        fake(tmp_path, name, says)
    found = javascript()
    assert found.runtimes == ("node 22.4.1", "bun 1.3.0")
    assert [each.split(",")[0] for each in found.too_old] == ["deno 1.9.0", "quickjs unknown"]
    assert "wanted 2.3.0" in found.too_old[0]


@pytest.mark.parametrize(("runtimes", "solver", "wanted", "is_whole"), [
    (("deno 2.9.8",), "0.8.0", "0.8.0", True), (("deno 2.9.8",), "0.8.3", "0.8.0", True),
    (("deno 2.9.8",), "0.7.0", "0.8.0", False), (("deno 2.9.8",), "", "0.8.0", False), ((), "0.8.0", "0.8.0", False),
    (("deno 2.9.8",), "0.8.0", "", True),
])
def test_is_whole__wants_a_runtime_and_the_solver_of_this_yt_dlp(
    runtimes: tuple[str, ...], solver: str, wanted: str, is_whole: bool
) -> None:
    found = JavaScript(runtimes, (), solver, wanted)
    assert found.is_whole is is_whole
    said = found.in_words()
    assert all(each in said for each in runtimes) and (runtimes or all(name in said for name in RUNTIMES))
    assert is_whole or not runtimes or wanted in said


def test_javascript__the_extra_brings_a_runtime_and_the_solver() -> None:
    """With `pip install '.[youtube]'`, as `make setup` does; the solver is the one that this yt-dlp checks by its hash."""
    pytest.importorskip("yt_dlp_ejs")
    assert javascript().is_whole
