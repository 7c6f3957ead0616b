"""What the stage `publish` does beside publishing: saved searches are asked, and of an experiment they are not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines import publish
from vidseek.archive import Archive


@pytest.mark.parametrize(("experiment", "asked"), [(None, 1), ("rank32", 0)])
def test_publish__asks_saved_searches_of_what_is_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], experiment: str | None, asked: int
) -> None:
    roots: list[Path] = []

    def after_publish(archive: Archive) -> list[str]:
        roots.append(archive.root)
        return ["2 new moments"]

    report = SimpleNamespace(
        num_points=1, num_captions=0, collection="clips-0-1", num_written=1, num_deleted=0, moved=True, auto_tags=(),
        verification=SimpleNamespace(recall_at_10=1.0),
    )
    settings = SimpleNamespace(
        publish=SimpleNamespace(server=None), tags=SimpleNamespace(prompts={}), search=None,
    )
    for name, value in (
        ("load_params", lambda: settings), ("read_calibration", lambda _: None), ("why_unapplied", lambda *_: ""),
        ("open_backend", lambda *_: None), ("read_duplicates", lambda _: []), ("publish", lambda *_, **__: report),
        ("after_publish", after_publish),
    ):
        monkeypatch.setattr(publish, name, value)
    monkeypatch.chdir(tmp_path)
    if experiment:
        monkeypatch.setenv("DVC_EXP_NAME", experiment)
    publish.main()
    assert roots == [tmp_path] * asked
    assert capsys.readouterr().err.count("2 new moments") == asked
