"""Looks at a source before an archive is made of it: how many videos, how long, with which captions, text and sound."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from vidseek_media.decoding.worker_batch import run_each
from vidseek_media.errors import ConfigError
from vidseek_media.settings import IngestSettings
from vidseek_media.sources.glance import Glance, glance
from vidseek_media.sources.local import Folder
from vidseek_media.sources.manifest import Manifest, read_manifest
from vidseek_media.sources.opening import ENVIRONMENT_PREFIX, open_source
from vidseek_media.sources.source import VIDEO_SUFFIXES, Listing, Source
from vidseek_media.text.sidecars import Sidecar, match_captions, read_captions
from vidseek_media.text.subtitle_files import find_subtitles
from vidseek_media.urls import is_url

Item = TypeVar("Item")
NUM_SAMPLED = 48
"""Videos that are looked at, spread evenly over all."""
SAMPLE_SECONDS = 20.0
"""After that the rest of the sample is left out."""
FILE_SECONDS = 15.0
"""For one file."""
NUM_TEXTS = 200
"""Captions whose language is looked at."""


@dataclass(frozen=True)
class CaptionLook:
    """What the files of captions hold."""

    num_rows: int = 0
    num_matched: int = 0
    """Rows that name a video of the source."""
    num_timed: int = 0
    """Of these, with start and end."""
    num_videos: int = 0
    """Videos with a caption."""
    median_span_ms: int | None = None
    """Of the timed ones."""
    languages: Mapping[str, float] = field(default_factory=dict)
    """ISO 639 codes of the captions that are clearly in one language, with their shares, the largest first."""
    first_unmatched: str = ""
    """The file that the first row names that names none."""
    has_splits: bool = False
    """Whether some rows say of which split they are."""

    @property
    def rejected_share(self) -> float:
        """Rows that name no video here, as a share of all."""
        return 1 - self.num_matched / self.num_rows if self.num_rows else 0.0


@dataclass(frozen=True)
class SourceLook:
    """What a source holds, as far as it was looked at."""

    text: str
    """As params.yaml names it: a path is absolute."""
    not_looked: str = ""
    """Why it was not looked at; empty where it was."""
    num_videos: int = 0
    num_bytes: int = 0
    num_refused: int = 0
    """Files that the listing refuses already."""
    sampled: Mapping[Path, Glance] = field(default_factory=dict)
    """Those of the sample that can be used, in order of their names."""
    faults: Mapping[str, str] = field(default_factory=dict)
    """Those that cannot, by file name, with the reason."""
    num_with_subtitle_file: int = 0
    """Of all videos."""
    captions: CaptionLook = CaptionLook()

    @property
    def num_sampled(self) -> int:
        """Files that were looked at."""
        return len(self.sampled) + len(self.faults)

    @property
    def hours(self) -> float:
        """Hours of video: the mean of the sample, for all."""
        if not self.sampled:
            return 0.0
        mean_ms = statistics.fmean(each.duration_ms for each in self.sampled.values())
        return mean_ms * self.num_videos * (1 - self.rejected_share) / 3_600_000

    @property
    def rejected_share(self) -> float:
        """Of files that cannot be used, by the listing and the sample, 0 to 1."""
        listed = self.num_videos + self.num_refused
        in_sample = len(self.faults) / self.num_sampled if self.num_sampled else 0.0
        return (self.num_refused + in_sample * self.num_videos) / listed if listed else 0.0

    def share_of(self, what: str) -> float:
        """Return the share of the sample for which a flag of `Glance` holds, 0 to 1."""
        return sum(bool(getattr(each, what)) for each in self.sampled.values()) / max(1, len(self.sampled))

    def median_ms(self) -> int:
        """Return the median length of the sample; 0 where there is none."""
        return int(statistics.median(each.duration_ms for each in self.sampled.values())) if self.sampled else 0

    def median_side_px(self) -> int:
        """Return the median of the shorter sides; 0 where there is no sample."""
        return int(statistics.median(each.side_px for each in self.sampled.values())) if self.sampled else 0


def look_at(videos: str, *, captions: Path | None, workers: int) -> SourceLook:
    """Look at a source on this machine. One that lies elsewhere is named, and not looked at: no network is used.

    Args:
        videos: The source, as `ingest.source` names it; relative to the working directory.
        captions: A file of captions that lies elsewhere; None for none.
        workers: Processes that look.

    Raises:
        ConfigError: the source does not exist or holds no video, none that was tried can be used, or captions name none.
    """
    text = absolute(videos)
    source = open_source(text, downloads=Path("downloads"), settings=IngestSettings())
    if why := _elsewhere(text, source):
        return SourceLook(text, why)
    listing = source.list_videos()
    if not listing.paths:
        raise _none_usable(source, listing)
    sidecar = listing.sidecar.joined(read_captions(captions) if captions else Sidecar())
    found = _look_at_captions(sidecar, listing)
    if captions and not found.num_matched:
        raise ConfigError(
            f"none of the {found.num_rows} rows of {captions} names a video of {source.name}: the first names "
            f"{found.first_unmatched or 'no file'}, the first video is {next(iter(listing.paths))}",
            code="captions-match-nothing", remedy="The column file has paths relative to the folder of the videos",
        )
    sample = _spread(list(listing.paths.values()), NUM_SAMPLED)
    sampled, faults = _sample(sample, workers)
    if faults and not sampled:
        name, reason = next(iter(faults.items()))
        raise ConfigError(
            f"{text}: not one of {len(faults)} files that were tried can be used; the first, {name}: {reason}",
            code="source-empty", remedy="`vidseek probe FILE` says more of a file",
        )
    return SourceLook(
        text, num_videos=len(listing.paths), num_bytes=sum(map(_size_of, listing.paths.values())),
        num_refused=len(listing.rejected), sampled=sampled, faults=faults,
        num_with_subtitle_file=sum(bool(each) for each in find_subtitles(listing.paths).beside.values()), captions=found,
    )


def absolute(videos: str) -> str:
    """Return a source as params.yaml of another folder must name it: a relative path becomes an absolute one."""
    if is_url(videos) or videos.startswith(("yt-dlp:", ENVIRONMENT_PREFIX)):
        return videos
    return str(Path(videos).expanduser().absolute())


def _elsewhere(text: str, source: Source) -> str:
    """Why a source cannot be looked at; empty where it can."""
    if text.startswith(ENVIRONMENT_PREFIX):
        return "its address is in the environment, and was not used"
    if isinstance(source, Folder):
        return ""
    if isinstance(source, Manifest):
        rows, _ = read_manifest(Path(source.name))
        is_remote = any(is_url(row.file) and not row.file.lower().startswith("file://") for row in rows)
        return "it names files on other machines" if is_remote else ""
    return "it lies on another machine"


def _none_usable(source: Source, listing: Listing) -> ConfigError:
    refused = next(iter(listing.rejected.items()), None)
    if refused is not None:
        return ConfigError(
            f"{source.name}: not one of {len(listing.rejected)} files can be used; the first, {refused[0]}: "
            f"{refused[1].reason}", code="source-empty", remedy="Mend the folder, or name another one",
        )
    return ConfigError(
        f"{source.name} holds no video file", code="source-empty",
        remedy=f"Files that count end in {' '.join(sorted(VIDEO_SUFFIXES))}",
    )


def _spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many of the items, evenly over all."""
    return [items[number * len(items) // most] for number in range(most)] if len(items) > most else list(items)


def _sample(paths: Sequence[Path], workers: int) -> tuple[dict[Path, Glance], dict[str, str]]:
    """What each file seems to be, and why others cannot be used; those that the time does not suffice for are in neither."""
    found: dict[Path, Glance] = {}
    faults: dict[str, str] = {}
    deadline = time.monotonic() + SAMPLE_SECONDS
    with closing(run_each(glance, paths, workers=min(workers, len(paths)), timeout_seconds=FILE_SECONDS)) as outcomes:
        for outcome in outcomes:
            if outcome.value is not None:
                found[outcome.item] = outcome.value
            elif outcome.error is not None:
                faults[outcome.item.name] = outcome.error.message
            if time.monotonic() > deadline:
                break
    return dict(sorted(found.items())), dict(sorted(faults.items()))


def _look_at_captions(sidecar: Sidecar, listing: Listing) -> CaptionLook:
    named = {uri: uri for uri in listing.paths}
    written = [each for each in sidecar.captions if each.text]
    matched, refused = match_captions(written, named, listing.rejected)
    spans = [each.end_ms - each.start_ms for _, each in matched if each.start_ms is not None and each.end_ms is not None]
    is_matched = {each.place for _, each in matched}
    return CaptionLook(
        num_rows=sidecar.num_rows, num_matched=len(matched), num_timed=len(spans),
        num_videos=len({uri for uri, _ in matched}), median_span_ms=int(statistics.median(spans)) if spans else None,
        languages=_languages([each.text for _, each in matched]),
        has_splits=any(each.split for _, each in matched),
        first_unmatched=next((each.file for each in written if each.place not in is_matched), "") if refused else "",
    )


def _languages(texts: Sequence[str]) -> dict[str, float]:
    """Languages with their shares, the largest first; empty where the extra is missing or no text is clear."""
    try:
        from vidseek_quality.languages import UNSURE, languages_of

        told = [each for each in languages_of(_spread(texts, NUM_TEXTS)) if each != UNSURE]
    except ImportError:
        return {}
    shares = {language: told.count(language) / len(told) for language in dict.fromkeys(told)}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
