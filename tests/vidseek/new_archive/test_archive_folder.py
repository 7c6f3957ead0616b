"""The folder of a new archive: refused places, whole or absent, and a pipeline that DVC can read."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.raising import raises
from tests.vidseek.new_archive.looks import SHIPPED, TWO_CORES, look_of
from vidseek.new_archive import archive_folder
from vidseek.new_archive.archive_folder import require_new, write_archive
from vidseek.new_archive.proposal import Proposal, propose
from vidseek_media.errors import ConfigError, ServiceError


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"")
    return tmp_path / "videos"


def proposal_of() -> Proposal:
    return propose(look_of(), TWO_CORES, SHIPPED, captions=None)


def test_require_new__takes_a_folder_that_is_missing_or_empty(tmp_path: Path, videos: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "missing", "deep/er", "with space/Ärchiv 日本"):
        require_new(tmp_path / name, str(videos))
    assert not (tmp_path / "missing").exists()


def test_require_new__refuses_a_folder_that_holds_something(tmp_path: Path, videos: Path) -> None:
    with raises(ConfigError, code="folder-not-empty", naming="holds the videos"):
        require_new(tmp_path, str(videos))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with raises(ConfigError, code="folder-not-empty", naming="notes.txt"):
        require_new(tmp_path / "other", str(videos))
    with raises(ConfigError, code="folder-not-empty", naming="is a file"):
        require_new(tmp_path / "other" / "notes.txt", str(videos))
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with raises(ConfigError, code="folder-not-empty", naming="link"):
        require_new(tmp_path / "link", str(videos))


def test_require_new__an_archive_is_told_to_be_one(tmp_path: Path, videos: Path) -> None:
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_text("")
    with raises(ConfigError, code="folder-not-empty", naming="an archive already", remedy="vidseek run"):
        require_new(tmp_path, str(videos / "elsewhere"))


def test_require_new__refuses_a_place_among_the_videos(videos: Path) -> None:
    with raises(ConfigError, code="folder-in-source", naming=str(videos)):
        require_new(videos / "archive", str(videos))


def test_require_new__refuses_a_repository_unless_it_ignores_the_folder(tmp_path: Path, videos: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    with raises(ConfigError, code="folder-in-repository", naming=str(tmp_path)):
        require_new(tmp_path / "archive", str(videos))
    (tmp_path / ".gitignore").write_text("/archive\n")
    require_new(tmp_path / "archive", str(videos))


def test_require_new__git_must_be_there(tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with raises(ConfigError, code="git-missing"):
        require_new(tmp_path / "archive", str(videos))


def test_require_new__a_parent_that_is_a_file_is_refused(tmp_path: Path, videos: Path) -> None:
    (tmp_path / "file").write_text("")
    with raises(ConfigError, code="folder-not-writable", naming=str(tmp_path / "file")):
        require_new(tmp_path / "file" / "archive", str(videos))


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), ServiceError("no", code="program-failed"), OSError(28, "full")])
def test_write_archive__is_absent_where_it_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    def fails(command: list[str], folder: Path) -> None:
        raise fault

    monkeypatch.setattr(archive_folder, "_run", fails)
    with pytest.raises(type(fault)):
        write_archive(tmp_path / "archive", proposal_of(), None)
    assert list(tmp_path.iterdir()) == []


def test_write_archive__is_a_repository_that_dvc_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))  # as in a hook of git
    folder = tmp_path / "with space" / "Ärchiv 日本"
    write_archive(folder, proposal_of(), None)
    monkeypatch.delenv("GIT_DIR")
    names = {path.name for path in folder.iterdir()}
    assert names == {".dvc", ".dvcignore", ".git", ".gitignore", "README.md", "data", "dvc.yaml", "params.yaml"}
    assert len((folder / "README.md").read_text(encoding="utf-8").splitlines()) == 5
    from dvc.repo import Repo

    with Repo(str(folder)) as repo:
        stages = {stage.name for stage in repo.index.stages}
        graph = repo.index.graph
        first = next(stage for stage in graph if stage.name == "settings")
        rest = {stage.name for stage in graph if stage is not first and not list(graph.successors(stage))}
    assert {"settings", "ingest", "train@lora", "publish", "report"} <= stages
    assert rest == set(), "all others depend on what `settings` writes"
