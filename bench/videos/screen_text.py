"""How well on-screen text is read: recall and precision of words burnt in by us, strays a minute, CPU time of an hour.

    python -m bench.videos.screen_text [--out bench/ocr.json]

Real clips are used where VIDSEEK_REALDATA (or shared/realdata beside the checkout) has them: for strays, which a person has
to judge, and for time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import machine
from bench.videos.titles import (
    CJK_FONT,
    LATIN_FONTS,
    Background,
    Frame,
    Shown,
    Title,
    busy,
    drifting,
    encode,
    make_titled_video,
    plain,
)
from vidseek_media.files.json_files import read_json, write_json
from vidseek_media.ocr.screen_text import ScreenText, read_screen_text
from vidseek_media.ocr.text_reader import rapid_reader, require_reader
from vidseek_media.settings import OcrSettings
from vidseek_media.text.segments import Segment

SECONDS, FPS = 6.0, 10
TIMED_SECONDS = 20
PARTS = ("words", "strays", "time")
WORDS = {
    "en": "quarterly revenue harbour bridge engine weather report goal minister station window kitchen garden river "
          "camera winter market interview airport Budget Williams Cambridge 2027 48 £3,500 km/h",
    "de": "Straße Übung Größe Bürger Ärzte Wetterbericht Bahnhof Regierung Schlüssel Frühling Äpfel Flüsse München "
          "Sitzung Köln 1989 Fußball Zürich",
    "fr": "élection forêt château Noël français théâtre où été garçon réunion gouvernement aéroport déjà leçon août",
    "pl": "źródło książka łódź święto mąż żółty pięć dzień Kraków zdjęcie środa wrzesień",
    "el": "ειδήσεις καιρός Αθήνα θάλασσα δρόμος βιβλίο",
    "zh": "第三季度 营业收入 天气预报 火车站 足球比赛 国家公园 厨房 今天",
    "ja": "ニュース 東京駅 天気予報 サッカー 株式会社 日本語 電車",
    "ru": "новости погода вокзал правительство Москва книга",
    "ko": "뉴스 날씨 서울 축구 기차역 정부",
    "ar": "أخبار الطقس محطة القطار حكومة",
}
"""Words of each language; of el, ru, ko and ar the models do not know the letters."""


@dataclass
class Tally:
    """Words shown and words found."""

    num_shown: int = 0
    num_hit: int = 0
    num_hit_joined: int = 0
    """Of those shown, found in what was read, with its spaces left out."""
    num_found: int = 0
    num_right: int = 0

    def row(self) -> dict[str, float | None]:
        """The numbers of one row of the report."""
        return {
            "words": self.num_shown, "recall": _share(self.num_hit, self.num_shown),
            "recall_without_spaces": _share(self.num_hit_joined, self.num_shown),
            "precision": _share(self.num_right, self.num_found),
        }


def tokens(text: str) -> list[str]:
    """Return the words of a text, in small letters; each Chinese or Japanese character is a word."""
    return [
        each for word in re.findall(r"[^\W_]+", text.casefold())
        for each in (list(word) if re.search(r"[\u3040-\u30ff\u4e00-\u9fff]", word) else [word])
    ]


def score(shown: Sequence[Shown], segments: Sequence[Segment], *, slack_ms: int = 1000) -> Tally:
    """Compare what a video shows with what was read, word by word, within `slack_ms` of its time."""
    tally = Tally()
    for text in shown:
        near = [each for each in segments if each.start_ms < text.end_ms and text.start_ms < each.end_ms]
        read = {word for each in near for word in tokens(each.text)}
        joined = ["".join(tokens(each.text)) for each in near]
        for word in tokens(text.text):
            tally.num_shown += 1
            tally.num_hit += word in read
            tally.num_hit_joined += any(word in each for each in joined)
    for segment in segments:
        near_texts = [
            text for text in shown
            if segment.start_ms - slack_ms < text.end_ms and text.start_ms - slack_ms < segment.end_ms
        ]
        known = {word for text in near_texts for word in tokens(text.text)}
        for word in tokens(segment.text):
            tally.num_found += 1
            tally.num_right += word in known
    return tally


def titles_of(rng: np.random.Generator, language: str, *, height_px: int, size: tuple[int, int], level: int = 240,
              move: tuple[float, float] = (0.0, 0.0), num_lines: int = 4) -> list[Title]:
    """Return lines of words drawn at random, one below the other, for the whole video or a half of it."""
    width, height = size
    words = WORDS[language].split()
    titles = []
    for number in range(num_lines):
        # As many words as fit beside each other.
        per_line = max(1, min(4, int(width * 0.8 / (height_px * 0.62 * 9))))
        text = " ".join(rng.choice(words, per_line, replace=False))
        font = LATIN_FONTS[int(rng.integers(len(LATIN_FONTS)))]
        half = int(rng.integers(3))
        titles.append(Title(
            text, 20 + float(rng.integers(0, 30)), 10 + number * (height - 20) / num_lines, height_px,
            colour=(level, level, level if rng.random() < 0.5 else level // 2),
            start_seconds=3.0 if half == 1 else 0.0, end_seconds=3.0 if half == 2 else 1e9, move=move,
            font=CJK_FONT if language in ("zh", "ja", "ko") else "truetype/dejavu/DejaVuSans.ttf" if language in
            ("el", "ru", "ar", "pl") else font,
        ))
    return titles


Case = tuple[str, Callable[[np.random.Generator], tuple[list[Title], tuple[int, int], Background]]]


def cases() -> list[Case]:
    """Return each condition by name, and what makes a video of it."""
    small, large = (640, 360), (1280, 720)
    made: list[Case] = []

    def add(name: str, language: str = "en", *, height_px: int = 24, size: tuple[int, int] = small, level: int = 240,
            ground: Callable[[int, int, int], Background] = drifting, move: tuple[float, float] = (0.0, 0.0)) -> None:
        def make(rng: np.random.Generator) -> tuple[list[Title], tuple[int, int], Background]:
            titles = titles_of(rng, language, height_px=height_px, size=size, level=level, move=move)
            return titles, size, ground(*size, int(rng.integers(1000)))

        made.append((name, make))

    for height_px in (12, 16, 20, 24, 32, 40, 60):
        add(f"size: {height_px} px of 360", height_px=height_px)
    for height_px in (12, 16, 20, 24, 40, 60):
        add(f"size: {height_px} px of 720", height_px=height_px, size=large)
    for contrast in (120, 60, 30, 15):
        add(f"contrast: {contrast} of 255", level=90 + contrast, ground=lambda w, h, seed: plain(w, h, 90))
    for language in WORDS:
        add(f"language: {language}", language)
    for height_px in (20, 32):
        add(f"on busy ground: {height_px} px", height_px=height_px, ground=busy)
    for speed in (20, 60, 120):
        add(f"moves {speed} px/s", move=(speed, 0))
    made += [(name, partial(_changing, texts)) for name, texts in _CLOCKS.items()]
    return made


_CLOCKS: dict[str, Sequence[Callable[[int], str]]] = {
    "clocks: 10:41:07": (
        lambda s: f"10:41:{s + 7:02d}", lambda s: f"{s // 60}:{s % 60:02d}", lambda s: f"00:00:{59 - s:02d}",
    ),
    "counters: 97, 4 %, 1 250": (lambda s: f"{97 + s}", lambda s: f"{4 + 8 * s}%", lambda s: f"{1250 + 37 * s}"),
}


def _changing(
    texts: Sequence[Callable[[int], str]], rng: np.random.Generator
) -> tuple[list[Title], tuple[int, int], Background]:
    titles = [Title(text, 40 + 200 * i, 30 + 100 * i, int(rng.integers(20, 41))) for i, text in enumerate(texts)]
    return titles, (640, 360), drifting(640, 360, int(rng.integers(1000)))


def measure_words(settings: OcrSettings, *, videos: int, seed: int) -> dict[str, dict[str, Any]]:
    """Return recall and precision of each condition over so many videos."""
    report: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, make in cases():
            total: Counter[str] = Counter()
            for number in range(videos):
                rng = np.random.default_rng([seed, number, len(name)])
                titles, _, ground = make(rng)
                path = Path(folder) / "video.mp4"
                shown = make_titled_video(path, titles, seconds=SECONDS, background=ground, fps=FPS)
                total.update(vars(score(shown, read_screen_text(path, settings=settings, name="").segments)))
            report[name] = Tally(**total).row()
            print(f"{name:32} {report[name]}", flush=True)  # noqa: T201 - a person waits for minutes
    return report


def measure_bare(settings: OcrSettings, paths: Iterable[Path]) -> dict[str, Any]:
    """Return what is read in videos without any text: strays a minute."""
    minutes, found = 0.0, []
    for path in paths:
        text = read_screen_text(path, settings=settings, name="")
        minutes += text.num_frames * settings.interval_seconds / 60
        found += [segment.text for segment in text.segments]
    return {"minutes": round(minutes, 2), "strays": len(found), "texts": found}


def measure_time(settings: OcrSettings, path: Path) -> dict[str, Any]:
    """Return the CPU time of an hour of such video, on one core, with decoding."""
    rapid_reader()
    began = time.process_time()
    text: ScreenText = read_screen_text(path, settings=settings, name="")
    used = time.process_time() - began
    return {
        "cpu_minutes_per_hour": round(used / TIMED_SECONDS * 60, 2), "frames": text.num_frames,
        "passed_over": _share(text.num_passed_over, text.num_frames), "segments": len(text.segments),
    }


def talking_head(size: tuple[int, int]) -> Background:
    """A still room with the noise of a camera, and a head and a hand that move in it."""
    width, height = size
    room, ys, xs = plain(width, height, 110), *np.mgrid[:height, :width]

    def frame(number: int) -> Frame:
        picture = room(number).copy()
        x, y = width / 2 + 12 * np.sin(number / 9), height * 0.42 + 6 * np.sin(number / 7)
        hand = (width * 0.62 + width * 0.06 * np.sin(number / 5), height * 0.8 + height * 0.07 * np.cos(number / 6))
        picture[((xs - x) / (width * 0.09)) ** 2 + ((ys - y) / (height * 0.2)) ** 2 < 1] = (196, 160, 140)
        picture[ys > height * 0.7 + ((xs - width / 2) / width) ** 2 * height] = (60, 70, 110)
        picture[(xs - hand[0]) ** 2 + (ys - hand[1]) ** 2 < (height * 0.05) ** 2] = (196, 160, 140)
        return picture

    return frame


def timed_videos(folder: Path, *, seconds: int, real: Sequence[Path]) -> dict[str, Path]:
    """Make a talking head with a name, a logo and a clock, and cuts a second, each 1280 x 720 at 25 frames a second."""
    size = (1280, 720)
    words = [Title("ACME News", 1060, 30, 36), Title(lambda s: f"10:{41 + s // 60}:{s % 60:02d}", 60, 40, 32),
             Title("Anna Bergström, Minister of Transport", 80, 600, 40, start_seconds=seconds / 4, end_seconds=seconds / 2)]
    made = {"talking head, 720p": folder / "head.mp4", "a cut a second, 720p": folder / "cuts.mp4"}
    make_titled_video(made["talking head, 720p"], words, seconds=seconds, background=talking_head(size))
    scenes = [drifting(*size, seed) for seed in range(12)]
    titles = [
        Title(" ".join(np.random.default_rng(s).choice(WORDS["en"].split(), 4)), 80, 80 + 90 * (s % 6), 44,
              start_seconds=s, end_seconds=s + 1) for s in range(seconds)
    ]
    make_titled_video(
        made["a cut a second, 720p"], titles, seconds=seconds, background=lambda n: scenes[n // 25 % len(scenes)](n)
    )
    if real:
        made["real clips joined, 180p"] = folder / "real.mp4"
        encode(made["real clips joined, 180p"], _joined(real), fps=25)
    return made


def _joined(paths: Sequence[Path]) -> Iterable[Frame]:
    from bench.videos.rendered import recorded_scene

    for path in paths:
        yield from (np.asarray(frame) for frame in recorded_scene(path, start_ms=0, end_ms=2000)(50))


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 3) if whole else None


def main() -> None:
    """Measure what is asked for, and write it into the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench/ocr.json"))
    parser.add_argument("--videos", type=int, default=3, help="of each condition")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", action="append", choices=PARTS, help="what is measured; without it all")
    args = parser.parse_args()
    settings = OcrSettings(enabled=True)
    default = Path(__file__).resolve().parents[2].parent / "shared" / "realdata"
    real = sorted((Path(os.environ.get("VIDSEEK_REALDATA", default)) / "A_video_captioned").rglob("*.mp4"))
    report = read_json(args.out) if args.out.exists() else {}
    report |= {"reader": require_reader(), "settings": settings.model_dump(mode="json")}
    for part in args.part or PARTS:
        if part == "words":
            report[part] = measure_words(settings, videos=args.videos, seed=args.seed)
        elif part == "strays":
            report[part] = _strays(settings, real)
        else:
            with tempfile.TemporaryDirectory() as name:
                videos = timed_videos(Path(name), seconds=TIMED_SECONDS, real=real[: TIMED_SECONDS // 2])
                report[part] = {what: measure_time(settings, path) for what, path in videos.items()}
            report[part]["machine"] = machine(1, ["rapidocr", "onnxruntime"])
        write_json(args.out, report, ensure_ascii=False)
        print(json.dumps({part: report[part]}, indent=2, ensure_ascii=False))  # noqa: T201 - this is the answer


def _strays(settings: OcrSettings, real: Sequence[Path]) -> dict[str, Any]:
    """Return what is read where nothing is written, and in real clips, where a person has to tell."""
    with tempfile.TemporaryDirectory() as folder:
        bare = [Path(folder) / f"{number}.mp4" for number in range(6)]
        for number, path in enumerate(bare):
            ground = drifting if number % 2 else busy
            make_titled_video(path, [], seconds=20, background=ground(640, 360, number), fps=5)
        found = {"rendered, no text": measure_bare(settings, bare)}
    return {**found, "real clips, to be judged by a person": measure_bare(settings, real)} if real else found


if __name__ == "__main__":
    main()
