"""Suggests what to caption and what to judge next, and takes what people write of clips."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidseek.actions.feedback import read as read_feedback
from vidseek.actions.tags import clip_targets, target_of_clip
from vidseek.archive import Archive
from vidseek_media.errors import InputRejected
from vidseek_media.files.csv_files import write_csv
from vidseek_media.records import Span, share_half
from vidseek_media.text.written_captions import WrittenCaption, append_caption, read_written

if TYPE_CHECKING:
    from vidseek_media.records import Video
    from vidseek_retrieval.search.query import Hit
    from vidseek_retrieval.search.searcher import Searcher
    from vidseek_retrieval.suggesting.suggestions import SuggestReport

DEFAULT_NUM = 20
MAX_NUM = 200
TEMPLATE = ("clip_id", "file", "start", "end", "caption")
"""Columns of the file that people fill in; `start` and `end` are seconds, for who looks at the video."""
MAX_QUESTIONS = 100
"""Texts that the archive is searched for, when hits are suggested to be judged: three seconds of a core on the demo."""
_HITS_OF_TEXT = 3


@dataclass(frozen=True)
class Question:
    """A hit to judge: does the text describe it?"""

    text: str
    clip_id: str
    video_id: str
    start_ms: int
    end_ms: int
    uri: str
    confidence: float
    """That it does, by the calibration: the nearer to 0.5, the more an answer says."""


def suggest_captions(archive: Archive, num: int = DEFAULT_NUM) -> SuggestReport:
    """Return the clips whose captions the next training gains most from, the best first.

    Args:
        archive: The archive.
        num: How many, at most.

    Raises:
        ArtifactError: a stage has not run, or its output is broken.
        ConfigError: params.yaml is wrong in a section that this reads.
    """
    from vidseek_media.forgotten import read_forgotten
    from vidseek_media.sources.ingest import read_videos
    from vidseek_retrieval.settings import PublishSettings
    from vidseek_retrieval.suggesting.suggestions import ArchiveTables, suggest_clips
    from vidseek_training.settings import PairSettings

    pairs = archive.section(PairSettings)
    written: dict[str, list[Span]] = defaultdict(list)
    for each in read_written(archive.decisions):
        written[each.video_id].append((each.start_ms, each.end_ms))
    videos = read_videos(archive.ingest)
    together = _together(archive, videos)
    return suggest_clips(
        ArchiveTables(archive.ingest, archive.cut, archive.frames, archive.pairs_table, archive.embed),
        cut=archive.section(PublishSettings).cut, num=num,
        held_out=held_out_videos(archive, videos, together), also_captioned=written,
        forgotten=read_forgotten(archive.decisions).video_ids, skip_quality_flags=pairs.skip_quality_flags,
        together=together, max_bits=pairs.near_duplicate_bits,
    )


def held_out_videos(
    archive: Archive, videos: Iterable[Video], together: Iterable[tuple[str, str]]
) -> frozenset[str]:
    """Return the videos of validation and test: those that are, and those that will be with their first caption.

    Args:
        archive: The archive.
        videos: Its videos.
        together: Pairs of videos that people say show the same.

    Raises:
        ArtifactError: a table is missing or broken.
    """
    from vidseek_media.tables import PAIRS, SIDECAR, read_table
    from vidseek_training.dataset.judgements import Side, sides_of
    from vidseek_training.dataset.pairs import split_of_group
    from vidseek_training.settings import PairSettings

    stated = read_table(archive.ingest / "sidecar.parquet", SIDECAR, columns=["video_id", "split"])
    paired = read_table(archive.pairs_table, PAIRS, columns=["video_id", "split"])
    rows = [*stated[stated["split"] != ""].itertuples(index=False), *paired.itertuples(index=False)]
    known = {video_id: Side(split, video_id) for video_id, split in rows}  # what became of a wish counts
    by_hash = partial(split_of_group, archive.section(PairSettings))
    sides = sides_of((video.video_id for video in videos), known, together, by_hash)
    return frozenset(video_id for video_id, side in sides.items() if side.split != "train")


def _together(archive: Archive, videos: Sequence[Video]) -> list[tuple[str, str]]:
    """Return the pairs of videos that people say show the same."""
    from vidseek_retrieval.dedup.video_matches import read_duplicates, same_videos
    from vidseek_training.settings import PairSettings

    share = archive.section(PairSettings).near_duplicate_share
    return same_videos(read_duplicates(archive.duplicates), videos, min_share=share)


def suggest_judgements(archive: Archive, searcher: Searcher, num: int = DEFAULT_NUM) -> list[Question]:
    """Return hits to judge, those first of which an answer says most: the ones that may as well be right as wrong.

    The texts are training captions and queries that people judged before. Hits of held-out videos are left out, since they
    teach nothing, as are those that were judged, and those that a caption of the same words speaks of.

    Args:
        archive: The archive.
        searcher: Of its live collection, with confidences; without them, nothing is found.
        num: How many, at most.

    Raises:
        ArtifactError: a stage has not run, or its output is broken.
    """
    from vidseek_media.cutting.cut import clip_spans
    from vidseek_media.sources.ingest import read_videos
    from vidseek_media.tables import PAIRS, read_table

    rows = read_table(archive.pairs_table, PAIRS, columns=["clip_id", "caption", "split"])
    rows = rows[rows["split"] == "train"].sort_values("clip_id")
    spans = clip_spans(archive.cut)
    said, _ = read_feedback(archive.feedback)
    judged = {(each.query, each.clip_id) for each in said}
    captioned: dict[str, list[tuple[str, Span]]] = defaultdict(list)
    for clip_id, caption in zip(rows["clip_id"], rows["caption"], strict=True):
        if clip_id in spans:
            captioned[caption].append(spans[clip_id])
    videos = read_videos(archive.ingest)
    held_out = held_out_videos(archive, videos, _together(archive, videos))
    texts = list(dict.fromkeys([*(each.query for each in reversed(said)), *captioned]))[:MAX_QUESTIONS]
    found = [
        _question(text, hit) for text in texts for hit in searcher.search_text(text, limit=_HITS_OF_TEXT).hits
        if hit.confidence is not None and hit.video_id not in held_out
        and judged.isdisjoint((text, clip_id) for clip_id in hit.clip_ids) and not _is_captioned(hit, captioned[text])
    ]
    return _each_once(sorted(found, key=lambda each: abs(each.confidence - 0.5)), num)


def write_caption(archive: Archive, clip_id: str, text: str, *, who: str) -> WrittenCaption:
    """Write down what is seen in a clip. The next `dvc repro` trains with it, if its video is one of training.

    Args:
        archive: The archive.
        clip_id: A UUID.
        text: The caption; empty takes back what the same person wrote of the clip.
        who: The person.

    Raises:
        ClipUnknown: the archive has no such clip, or its video was forgotten.
        InputRejected: the text is too long, or no text.
        ArtifactError: the disk cannot hold it, or nothing was cut.
    """
    video_id, span = target_of_clip(archive, clip_id)
    written = WrittenCaption.now(video_id, span, text, who=who)
    append_caption(archive.decisions, written)
    return written


def write_template(file: Path, report: SuggestReport) -> None:
    """Write the suggestions as a CSV file with an empty column `caption`.

    Args:
        file: The file to write.
        report: The suggestions.

    Raises:
        OSError: the disk does not take it.
    """
    write_csv(file, TEMPLATE, (
        (each.clip_id, each.uri, f"{each.start_ms / 1000:.3f}", f"{each.end_ms / 1000:.3f}", "")
        for each in report.suggestions
    ))


def take_template(archive: Archive, file: Path, *, who: str) -> list[WrittenCaption]:
    """Write down the captions of a filled-in template; rows without one are passed over. All of it is taken, or nothing.

    Args:
        archive: The archive.
        file: As `write_template` writes it; only the columns clip_id and caption are read.
        who: The person.

    Raises:
        InputRejected: the file cannot be read, lacks a column, or a row is wrong; the message names its line.
        ArtifactError: the disk cannot hold a caption: those before it are kept.
    """
    written = list(_rows_of(archive, file, who))
    for each in written:
        append_caption(archive.decisions, each)
    return written


def _rows_of(archive: Archive, file: Path, who: str) -> Iterator[WrittenCaption]:
    target: Callable[[str], tuple[str, Span]] | None = None
    for line, row in _lines_of(file):
        text = (row.get("caption") or "").strip()
        if not text:
            continue
        target = target or clip_targets(archive)
        try:
            yield WrittenCaption.now(*target(row.get("clip_id") or ""), text, who=who)
        except InputRejected as error:
            raise InputRejected(f"{file}:{line}: {error.message}", code=error.code, remedy=error.remedy) from error


def _lines_of(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            missing = [name for name in ("clip_id", "caption") if name not in (reader.fieldnames or ())]
            if missing:
                raise InputRejected(
                    f"{file} has no column {' and no column '.join(missing)}", code="column-missing",
                    remedy="Fill in a file of `vidseek suggest --captions FILE.csv`",
                )
            for row in reader:
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise InputRejected(f"{file} cannot be read: {why}", code="file-unreadable") from error


def _question(text: str, hit: Hit) -> Question:
    assert hit.confidence is not None
    return Question(text, hit.best_clip_id, hit.video_id, hit.start_ms, hit.end_ms, hit.uri, hit.confidence)


def _is_captioned(hit: Hit, spans: Collection[tuple[str, Span]]) -> bool:
    """Whether one of these spans is that of a hit: then the text is its caption, and nothing is asked."""
    return any(video_id == hit.video_id and share_half(span, (hit.start_ms, hit.end_ms)) for video_id, span in spans)


def _each_once(questions: Iterable[Question], num: int) -> list[Question]:
    """Return the first questions of which no two are of one text or of one clip."""
    found: list[Question] = []
    seen: set[str] = set()
    for each in questions:
        if len(found) < num and seen.isdisjoint((each.text, each.clip_id)):
            seen |= {each.text, each.clip_id}
            found.append(each)
    return found
