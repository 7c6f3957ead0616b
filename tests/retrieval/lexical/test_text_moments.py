from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.retrieval.archive import VERSION, clip_row, unit_rows, video_row, write_archive
from vidseek_media.text.segments import Segment, write_segments
from vidseek_retrieval.index.publish import publish
from vidseek_retrieval.lexical.hit_evidence import Evidence, spoken_span
from vidseek_retrieval.lexical.text_moments import TextMoments
from vidseek_retrieval.search.moments import Moment
from vidseek_retrieval.search.query import Hit, Query, SearchOptions
from vidseek_retrieval.search.searcher import Searcher

NUM_VIDEOS = 6
LENGTH_MS = 60_000
WORDS = ("harbour", "kowalczyk", "revenue", "turbine", "ljubljana", "orchard")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos in windows of 3 s each second, in which every second shows another text beside longer ones."""
    root = tmp_path_factory.mktemp("texts")
    rng = np.random.default_rng(5)
    videos = [video_row(f"{number:032x}", f"{number}.mp4", duration_ms=LENGTH_MS) for number in range(NUM_VIDEOS)]
    clips = [
        clip_row(f"{number:032x}", at, 1000 * at, 1000 * at + 3000) for number in range(NUM_VIDEOS) for at in range(58)
    ]
    tables = write_archive(root, videos, clips, unit_rows(len(clips), 16))
    said, shown = {}, {}
    for number in range(NUM_VIDEOS):
        starts = sorted(rng.choice(np.arange(0, LENGTH_MS - 8000, 400), size=8, replace=False).tolist())
        said[f"{number:032x}"] = [
            Segment(start, start + int(rng.integers(300, 8000)), _line(rng, number + place), "en", "file")
            for place, start in enumerate(starts)
        ]
        clock = [
            Segment(1000 * at, 1000 * at + 1000, " ".join(["tick", f"10:{at:02d}", *["tock"] * int(rng.integers(0, 9))]))
            for at in range(60)
        ]
        title = Segment(4000, 24_000, f"{WORDS[number].upper()} LIVE TONIGHT")
        logo = [Segment(0, LENGTH_MS, "CHANNEL ELEVEN")] if number == 0 else []
        shown[f"{number:032x}"] = [*clock, title, *logo]
    write_segments(root / "speech", said)
    write_segments(root / "ocr", shown)
    publish(**tables, segment_dirs={"speech": [root / "speech"], "ocr": [root / "ocr"]}, index=root / "index")
    return root / "index"


def _line(rng: np.random.Generator, place: int) -> str:
    others = rng.choice(["and", "of", "market", "weather", "station", "meeting", "paper"], size=int(rng.integers(0, 7)))
    return " ".join([WORDS[place % len(WORDS)], *map(str, others)])


def _hits(index: Path, text: str, *, fields: tuple[str, ...] = (), limit: int = 1000, offset: int = 0) -> list[Hit]:
    query = Query.of_vector(unit_rows(1, 16, seed=3)[0], VERSION, words=text)
    return list(Searcher.open(index, None).search(query, SearchOptions(limit, offset, fields=fields)).hits)


@pytest.mark.parametrize("fields", [(), ("speech",), ("ocr",), ("speech", "ocr")])
@pytest.mark.parametrize("text", [*WORDS, "kowalczyk market", "harbour live", '"revenue"'])
def test_search__one_moment_for_a_text(index: Path, text: str, fields: tuple[str, ...]) -> None:
    given = [
        (hit.video_id, each.field, each.start_ms, each.end_ms) for hit in _hits(index, text, fields=fields)
        for each in hit.evidence if len(each.matches) == len(hit.evidence[0].matches)
        and hit.start_ms <= each.start_ms and each.end_ms <= hit.end_ms
    ]
    assert len(given) == len(set(given))
    spans = [(hit.video_id, hit.start_ms, hit.end_ms) for hit in _hits(index, text, fields=fields) if hit.evidence]
    assert len(spans) == len(set(spans)) > 0


@pytest.mark.parametrize("word", WORDS)
def test_search__each_text_with_the_word_has_its_moment(index: Path, word: str) -> None:
    hits = _hits(index, word, fields=("speech",))
    texts = {(hit.video_id, each.text, each.start_ms) for hit in hits for each in hit.evidence}
    assert all(word in text for _, text, _ in texts)
    assert len(texts) == len({(video, start) for video, _, start in texts}) >= NUM_VIDEOS  # each video says it once at least
    for hit in hits:
        best = hit.evidence[0]
        assert hit.start_ms <= best.start_ms < best.end_ms <= hit.end_ms  # moments begin and end where the words do


def test_search__what_stands_all_along_is_one_moment(index: Path) -> None:
    (hit,) = _hits(index, "channel eleven", fields=("ocr",))
    assert (hit.video_id, hit.start_ms, hit.end_ms) == (f"{0:032x}", 0, LENGTH_MS)


@pytest.mark.slow
@pytest.mark.parametrize("fields", [(), ("speech", "ocr")])
def test_search__pages_of_texts_fit_together(index: Path, fields: tuple[str, ...]) -> None:
    whole = _hits(index, "harbour live", fields=fields)
    pages = [hit for offset in range(0, len(whole) + 2, 2) for hit in _hits(
        index, "harbour live", fields=fields, limit=2, offset=offset
    )]
    assert pages == whole


def test_spoken_span__of_a_text_that_is_there_for_minutes_is_cut_to_the_moment() -> None:
    logo = Evidence("ocr", "ACME", 0, 600_000, ("ACME",))
    title = Evidence("ocr", "ACME", 9000, 20_000, ("ACME",))
    assert spoken_span([logo], 30_000, 33_000) == (30_000, 33_000)
    assert spoken_span([title], 10_000, 13_000) == (9000, 20_000)


def _kept(*found: tuple[int, int, tuple[Evidence, ...]], is_visual: bool = True) -> list[tuple[int, int]]:
    """Return the spans of the moments that are kept of moments of one video, given with their texts, best first."""
    moments = [Moment("v", start, end, 1 - place / 100, f"{place}", 0, (f"{place}",)) for place, (start, end, _) in
               enumerate(found)]
    texts = {moment: evidence for moment, (_, _, evidence) in zip(moments, found, strict=True)}
    ranking: Any = SimpleNamespace(
        is_visual=is_visual, moments=lambda num: moments[:num], nearest=SimpleNamespace(collection=None)
    )
    evidence: Any = SimpleNamespace(
        has_words=lambda moment: bool(texts[moment]), texts_of=lambda _, asked: [texts[each] for each in asked]
    )
    return [(each.start_ms, each.end_ms) for each in TextMoments(ranking, evidence).moments(10)]


def _caption(text: str, start_ms: int, end_ms: int) -> Evidence:
    return Evidence("captions", text, start_ms, end_ms, ("keeper",))


def test_moments__a_caption_made_of_what_is_said_is_one_with_it() -> None:
    said = Evidence("speech", "the keeper waved", 2000, 4000, ("keeper",))
    first, second = _caption("film; the keeper waved", 0, 6000), _caption("film; the keeper waved", 4500, 7500)
    assert _kept((0, 6000, (first, said)), (4500, 7500, (second,))) == [(0, 6000)]
    assert spoken_span([first, said], 0, 6000) == (2000, 4000)
    assert spoken_span([_caption("film; a keeper who waves", 0, 6000), said], 0, 6000) is None  # of its own, and longer


def test_moments__captions_of_moments_that_overlap_and_say_the_same() -> None:
    one, two = _caption("film; the keeper", 0, 3000), _caption("film; the keeper; no keeper", 2000, 5000)
    assert _kept((0, 3000, (one,)), (2000, 5000, (two,))) == [(0, 3000), (2000, 5000)]
    assert _kept((2000, 5000, (two,)), (0, 3000, (one,))) == [(2000, 5000)]
    assert _kept((0, 3000, (one,)), (3000, 6000, (one,))) == [(0, 3000), (3000, 6000)]
    titled = _caption("the keeper; a boat", 0, 3000)  # a title is of the whole video: pictures choose
    assert _kept((0, 3000, (titled,)), (2000, 5000, (titled,))) == [(0, 3000), (2000, 5000)]


@pytest.mark.parametrize(("is_visual", "num"), [(True, 2), (False, 1)])
def test_moments__a_logo_gives_several_where_pictures_count(is_visual: bool, num: int) -> None:
    logo = Evidence("ocr", "ACME", 0, 600_000, ("ACME",))
    assert len(_kept((0, 3000, (logo,)), (9000, 12_000, (logo,)), is_visual=is_visual)) == num


def test_moments__what_was_found_by_its_look_stays() -> None:
    said = Evidence("speech", "hello", 0, 2000, ("hello",))
    assert _kept((0, 3000, (said,)), (1000, 4000, ()), (1000, 4000, (said,))) == [(0, 3000), (1000, 4000)]
