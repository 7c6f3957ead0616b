"""A made archive whose words are all known: names, places and figures on the screen, and sentences that are said."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.videos.titles import CJK_FONT, LATIN_FONTS, Title, drifting, make_titled_video

SECONDS, FPS, SIZE = 6, 5, (640, 360)
TITLE_MS = 3000
"""The name stands for the first half of a programme, the figure for the second."""
HEIGHTS_PX = (20, 24, 28, 34)

_FIRST = (
    "Anna", "Maria", "John", "Elena", "Peter", "Lucy", "Omar", "Sofia", "David", "Ingrid", "Tomás", "Claire",
)
_LAST = (
    "Bergström", "O'Brien", "García-López", "Kowalczyk", "Müller", "D'Angelo", "Nakamura", "Fitzgerald",
    "Abernathy", "Çelik", "Østergaard", "Whitfield", "Castellanos", "Ramanujan", "Lindqvist", "Okonkwo",
)
_ROLES = (
    "Minister of Transport", "Head Coach", "Chief Economist", "Harbour Master", "Marine Biologist", "City Architect",
    "Night Editor", "Fire Officer",
)
_PLACES = (
    "Cambridge", "Rotterdam", "Valparaíso", "Reykjavik", "Marrakesh", "Ljubljana", "Wellington", "Thessaloniki",
    "Gothenburg", "Casablanca",
)
_FIGURES = (
    "Budget £{thousands}", "Attendance {thousands}", "Flight {letters}{small}", "Distance {decimal} km", "Platform {small}",
    "Score {small}-{tiny}", "Departs {hour}:{minute}", "Turnover {decimal} billion",
)
_WHO = (
    "negotiators", "surgeons", "the volunteers", "engineers", "the referee", "local farmers", "two astronauts",
    "the orchestra", "firefighters", "archaeologists", "the committee", "beekeepers",
)
_DID = (
    "announced a ceasefire", "repaired the turbine", "cancelled the tournament", "discovered a shipwreck",
    "photographed the comet", "postponed the referendum", "evacuated the stadium", "restored the cathedral",
    "rehearsed the symphony", "harvested the vineyard", "questioned the verdict", "abandoned the pipeline",
)
_WHEN = (
    "after a long co-operation", "because of the thunderstorm", "in spite of the strike", "without any warning",
    "before the solar eclipse", "during the state visit", "despite the price of copper", "to everyone's surprise",
)
_THEN = (
    "and the inquiry will open next year", "but nobody was injured this time", "so the ferry leaves at dawn",
    "and the insurance pays for half", "while the museum stays closed", "and the results come on Thursday",
)

FOREIGN: tuple[tuple[str, str, str, str], ...] = (
    ("de", "Straßenbahn nach Köln", "die Bürgermeisterin eröffnet", "das neue Schwimmbad"),
    ("de", "Gemüsehändler Düsseldorf", "im Gewächshaus wachsen", "riesige Kürbisse"),
    ("fr", "Élection présidentielle", "l'été dernier à Besançon", "le théâtre a brûlé"),
    ("fr", "Château de Chenonceau", "la forêt où naît", "une rivière glacée"),
    ("pl", "Święto żeglarzy Gdańsk", "źródło rzeki leży", "pod starą dzwonnicą"),
    ("zh", "第三季度营业收入", "工程师修理了发电机", "火车站今天关闭"),
    ("zh", "国家公园天气预报", "足球比赛推迟到星期四", "厨房里发生火灾"),
    ("ja", "東京駅の天気予報", "消防士が博物館に到着した", "来年は新しい橋が開通します"),
    ("ja", "株式会社ニュース", "宇宙飛行士は彗星を撮影した", "明日の電車は運休です"),
    ("ru", "", "учёные обнаружили корабль", "на дне северного моря"),
    ("ru", "", "строители закончили мост", "раньше намеченного срока"),
    ("ar", "", "افتتح الوزير المتحف الجديد", "في مدينة الإسكندرية"),
    ("he", "", "המדענים גילו ספינה עתיקה", "בקרקעית הים הצפוני"),
    ("ko", "", "소방관들이 박물관에 도착했다", "내일은 눈이 내립니다"),
    ("th", "", "นักวิทยาศาสตร์ค้นพบเรือโบราณ", "พิพิธภัณฑ์ปิดวันพฤหัสบดี"),
    ("el", "", "οι πυροσβέστες έφτασαν στο μουσείο", "πριν από την καταιγίδα"),
)
"""Language, what stands on the screen (in letters that the reader knows), and what is said in the first and second half."""


@dataclass(frozen=True)
class Line:
    """A text of a programme."""

    field: str
    """ocr or speech."""
    start_ms: int
    end_ms: int
    text: str


@dataclass(frozen=True)
class Programme:
    """A video whose texts are known."""

    name: str
    lines: tuple[Line, ...]
    language: str = "en"
    height_px: int = 24

    def of(self, field: str) -> list[Line]:
        """Return the lines of a field, in order of time."""
        return [line for line in self.lines if line.field == field]


def programmes(count: int, *, seed: int) -> list[Programme]:
    """Return `count` programmes in English and those of `FOREIGN`.

    First names, surnames, roles and places are shared by several programmes; no two have the same name and surname.

    Args:
        count: In English; at most 144.
        seed: Of what is drawn.
    """
    rng = np.random.default_rng(seed)
    people = [f"{first} {last}" for first in _FIRST for last in _LAST]
    said = [(who, did) for who in _WHO for did in _DID]
    names, talks = (rng.permutation(len(each))[:count].tolist() for each in (people, said))
    made = [
        _programme(number, people[name], said[talk], rng)
        for number, (name, talk) in enumerate(zip(names, talks, strict=True))
    ]
    return made + [_foreign(number, *each) for number, each in enumerate(FOREIGN)]


def _programme(number: int, person: str, talk: tuple[str, str], rng: np.random.Generator) -> Programme:
    who, did = talk
    role, place = str(rng.choice(_ROLES)), str(rng.choice(_PLACES))
    figure = _FIGURES[number % len(_FIGURES)].format(
        thousands=f"{rng.integers(1, 99)},{rng.integers(100, 999)}", small=rng.integers(10, 99), tiny=rng.integers(1, 9),
        decimal=f"{rng.integers(2, 90)}.{rng.integers(1, 9)}", hour=f"{rng.integers(6, 23):02d}",
        minute=f"{rng.integers(10, 59)}", letters="".join(map(str, rng.choice(list("ABCDEFGHKLMNPRSTUVX"), 2))),
    )
    when, then = str(rng.choice(_WHEN)), str(rng.choice(_THEN))
    lines = (
        Line("ocr", 0, TITLE_MS, person), Line("ocr", 0, TITLE_MS, f"{role}, {place}"),
        Line("ocr", TITLE_MS, 1000 * SECONDS, figure),
        # A sentence goes on from one subtitle to the next.
        Line("speech", 0, 2000, f"In {place} {who} {did}"), Line("speech", 2000, 4000, f"{when},"),
        Line("speech", 4000, 6000, f"{then}."),
    )
    return Programme(f"{number:03d}", lines, height_px=HEIGHTS_PX[number % len(HEIGHTS_PX)])


def _foreign(number: int, language: str, shown: str, first: str, second: str) -> Programme:
    lines = [Line("speech", 0, TITLE_MS, first), Line("speech", TITLE_MS, 1000 * SECONDS, second)]
    if shown:
        lines.insert(0, Line("ocr", 0, TITLE_MS, shown))
    return Programme(f"{language}{number:02d}", tuple(lines), language)


def write_programmes(folder: Path, made: Sequence[Programme], *, spoken: bool) -> None:
    """Write the videos with their subtitles beside them, and where `spoken` says so the speech of the English ones.

    A video that is there stays as it is.

    Args:
        folder: Of the source.
        made: What is written.
        spoken: Whether espeak-ng speaks the English ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number, each in enumerate(made):
        path = folder / f"{each.name}.mp4"
        if not path.exists():
            make_titled_video(
                path, _titles(each, number), seconds=SECONDS, background=drifting(*SIZE, number), fps=FPS
            )
            if spoken and each.language == "en":
                _speak(path, each.of("speech"))
        (folder / f"{each.name}.{each.language}.srt").write_text(_srt(each.of("speech")), encoding="utf-8")


def _titles(each: Programme, number: int) -> list[Title]:
    font = CJK_FONT if each.language in ("zh", "ja") else LATIN_FONTS[number % 2]
    lines = each.of("ocr")
    return [
        Title(
            line.text, 30 + 7 * (number % 9), 200 + 60 * place, each.height_px, start_seconds=line.start_ms / 1000,
            end_seconds=line.end_ms / 1000, font=font,
        ) for place, line in enumerate(lines)
    ]


def _srt(lines: Sequence[Line]) -> str:
    return "".join(
        f"{number}\n{_clock(line.start_ms)} --> {_clock(line.end_ms)}\n{line.text}\n\n"
        for number, line in enumerate(lines, 1)
    )


def _clock(ms: int) -> str:
    return f"00:00:{ms // 1000:02d},{ms % 1000:03d}"


def _speak(path: Path, lines: Sequence[Line]) -> None:
    """Put the voice of espeak-ng under a video."""
    sound, whole = path.with_suffix(".wav"), path.with_suffix(".spoken.mp4")
    text = " ".join(line.text for line in lines)
    subprocess.run(["espeak-ng", "-v", "en-us", "-s", "150", "-w", str(sound), text], check=True)
    command = ["ffmpeg", "-v", "error", "-y", "-i", path, "-i", sound, "-c:v", "copy", "-c:a", "aac", whole]
    subprocess.run([str(each) for each in command], check=True)
    whole.replace(path)
    sound.unlink()
