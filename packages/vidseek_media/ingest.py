"""A folder of videos to a table of videos: list, hash and probe what is new, merge equal files, match the sidecar."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import closing
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

from vidseek_media.errors import ArtifactError, ConfigError, InputRejected
from vidseek_media.ids import video_id_of
from vidseek_media.probe import Probe, probe
from vidseek_media.records import Rejection, Video
from vidseek_media.sidecars import (
    ABOUT_VIDEO,
    PICTURE_SUFFIXES,
    ClipNaming,
    SidecarCaption,
    match_captions,
    names_of,
    read_sidecar,
    same_name,
)
from vidseek_media.tables import REJECTED, SIDECAR, TRANSCRIPTS, VIDEOS, read_table, write_table
from vidseek_media.transcripts import Cue, read_transcripts
from vidseek_media.workers import WorkerLost, run_each

VIDEO_SUFFIXES = frozenset([
    ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".h264", ".hevc", ".ivf", ".m2ts", ".m2v",
    ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogm", ".ogv", ".rm",
    ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".wtv", ".y4m",
])
"""What counts as a video by its name. Files of other kinds are not listed."""

LEDGER_VERSION = f"1 av{version('av')}"
"""A ledger of another version is not believed: another decoder may read what this one rejected."""

SOURCE_REMEDY = "Set ingest.source (or general.source) in params.yaml to a folder of videos"

SAVE_SECONDS = 10.0


@dataclass(frozen=True)
class IngestReport:
    """num_in = num_files kept + num_rejected, and rows likewise."""

    num_in: int
    """Video files that were listed."""
    num_out: int
    """Videos; equal files are one."""
    num_merged: int
    """Files that equal another one."""
    num_rejected: int
    num_probed: int
    """Videos that the ledger did not know."""
    num_captions_in: int
    """Rows of the files of captions."""
    num_captions_out: int
    num_captions_rejected: int
    num_transcripts: int
    """Videos whose transcript was read."""


def ingest(
    source: Path,
    *,
    out: Path,
    ledger: Path,
    timeout_seconds: float,
    workers: int,
    clip_pattern: str | None = None,
) -> IngestReport:
    """Write `videos.parquet`, `sidecar.parquet`, `transcripts.parquet` and `rejected.parquet` of `source` into `out`.

    The ledger, a JSON file outside the pipeline (a path without a suffix is the folder of `ingest.json`), remembers
    size, time, id and probe of every file, so that a second run reads only what is new or changed; it changes no
    result. Tables are byte-identical when nothing changed.

    Args:
        clip_pattern: A regular expression with the groups `stem` and `index` that a file's whole name without its
            suffix may match: such a file is clip `index` of the video `stem`, and a caption of a file of such a name
            that is not there is one of clip `index` of the video that is.

    Raises:
        ConfigError: `source` is missing or holds no video file, or its captions file is wrong.
        InputRejected: every file was rejected; `rejected.parquet` says why.
    """
    naming = ClipNaming.of(clip_pattern)
    root = _root_of(source)
    sidecar = read_sidecar(root)
    pictures = {name for caption in sidecar.captions for name in names_of(caption.file)}
    uris, rejected = _list_videos(root, pictures)
    if not uris and not rejected:
        raise ConfigError(
            f"{source} holds no video file", remedy=f"Files that count end in {' '.join(sorted(VIDEO_SUFFIXES))}"
        )
    book = _Ledger.load(ledger if ledger.suffix else ledger / "ingest.json")
    ids = _identify(root, uris, book, rejected)
    num_probed = _probe_new(root, ids, book, timeout_seconds=timeout_seconds, workers=workers, rejected=rejected)
    book.forget_missing(root, uris)
    book.save()

    kept = {uri: video_id for uri, video_id in ids.items() if uri not in rejected}
    matched, refused = match_captions(sidecar.captions, kept, rejected, naming)
    videos = _merge(kept, book.probes, matched, naming)
    rows = [*(Rejection(uri, "ingest", reason) for uri, reason in sorted(rejected.items()))]
    transcripts, unreadable = read_transcripts(root, kept)
    lines = [*sidecar.rejections, *refused, *unreadable]
    write_table(out / "rejected.parquet", [dataclasses.asdict(r) for r in [*rows, *lines]], REJECTED)
    if not videos:
        for stale in ("sidecar.parquet", "transcripts.parquet", "videos.parquet"):
            (out / stale).unlink(missing_ok=True)
        first = next(iter(rows))
        raise InputRejected(
            f"{source}: not one of {len(rows)} video files can be used; the first, {first.id}: {first.reason}",
            remedy=f"{out / 'rejected.parquet'} has the reason for each",
        )
    write_table(out / "sidecar.parquet", _sidecar_rows(matched), SIDECAR)
    write_table(out / "transcripts.parquet", _transcript_rows(transcripts), TRANSCRIPTS)
    write_table(out / "videos.parquet", [{**dataclasses.asdict(v), "uris": list(v.uris)} for v in videos], VIDEOS)
    return IngestReport(
        num_in=len(kept) + len(rows), num_out=len(videos), num_merged=len(kept) - len(videos), num_rejected=len(rows),
        num_probed=num_probed, num_captions_in=sidecar.num_rows, num_captions_out=len(matched),
        num_captions_rejected=len(sidecar.rejections) + len(refused), num_transcripts=len(transcripts),
    )


def read_videos(folder: Path) -> list[Video]:
    """The videos that `ingest` wrote into `folder`, by video_id.

    Raises:
        ArtifactError: the table is missing or not of this kind.
    """
    path = folder / "videos.parquet"
    rows = read_table(path, VIDEOS).to_dict("records")
    try:
        return [Video(**{**row, "uris": tuple(row["uris"])}) for row in rows]
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{path} holds a row that is no video: {error}", remedy="Run `dvc repro`") from error


def _root_of(source: Path) -> Path:
    if not source.is_dir():
        what = "is a file" if source.exists() else "does not exist"
        raise ConfigError(f"{source} {what}", remedy=SOURCE_REMEDY)
    return source.resolve()


def _list_videos(root: Path, pictures: Set[str]) -> tuple[list[str], dict[str, str]]:
    """Uris of the files to look at, sorted, and the reason by uri of those that are refused unopened.

    Pictures are among them where `pictures` names them.
    """
    uris: list[str] = []
    rejected: dict[str, str] = {}

    def refuse_folder(error: OSError) -> None:
        rejected[_uri(Path(error.filename), root)] = f"cannot be listed: {error.strerror}"

    for folder, folders, files in os.walk(root, onerror=refuse_folder):
        for name in [name for name in folders if (Path(folder) / name).is_symlink()]:
            if not (Path(folder) / name).resolve().is_relative_to(root):
                rejected[_uri(Path(folder) / name, root)] = "is a link to a folder outside the source"
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            path = Path(folder) / name
            if name.startswith("."):
                continue
            uri = _uri(path, root)
            is_picture = path.suffix.lower() in PICTURE_SUFFIXES and same_name(uri) in pictures
            if path.suffix.lower() not in VIDEO_SUFFIXES and not is_picture:
                continue
            if reason := _why_not(path, root):
                rejected[uri] = reason
            else:
                uris.append(uri)
    return sorted(uris), rejected


def _uri(path: Path, root: Path) -> str:
    """Relative to the source root; bytes that are no UTF-8 are written as \\xNN."""
    return os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")


def _why_not(path: Path, root: Path) -> str:
    try:
        path.name.encode("utf-8")
        path.relative_to(root).as_posix().encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not UTF-8; rename it"
    if path.is_symlink() and not path.exists():
        return "is a link to nothing"
    if not path.resolve().is_relative_to(root):
        return "is a link to a file outside the source"
    return "" if path.is_file() else "is no regular file"


def _identify(root: Path, uris: Iterable[str], book: _Ledger, rejected: dict[str, str]) -> dict[str, str]:
    """video_id by uri: from the ledger where size and time are as they were, else from the bytes."""
    ids = {}
    for uri in tqdm(list(uris), desc="hash", unit="file", disable=None):
        path = root / uri
        try:
            stat = path.stat()
            ids[uri] = book.id_of(path, stat) or video_id_of(path)
            after = path.stat()
        except OSError as error:
            rejected[uri] = f"cannot be read: {error.strerror}"
            continue
        if (after.st_size, after.st_mtime_ns) != (stat.st_size, stat.st_mtime_ns):
            rejected[uri] = "changed while it was being read; run again when it is complete"
            continue
        book.note(path, stat, ids[uri])
    return ids


def _probe_new(
    root: Path, ids: Mapping[str, str], book: _Ledger, *, timeout_seconds: float, workers: int, rejected: dict[str, str]
) -> int:
    """Probe each video that the ledger does not know, and spread the verdicts over the uris."""
    paths: dict[str, Path] = {}
    for uri, video_id in ids.items():
        if not book.knows(video_id):
            paths.setdefault(video_id, root / uri)
    id_of = {path: video_id for video_id, path in paths.items()}
    lost: dict[str, str] = {}
    with closing(
        run_each(probe, list(id_of), workers=min(workers, len(id_of)), timeout_seconds=timeout_seconds)
    ) as outcomes:
        for outcome in tqdm(outcomes, desc="probe", unit="video", total=len(id_of), disable=None):
            video_id = id_of[outcome.item]
            if isinstance(outcome.error, WorkerLost):
                lost[video_id] = outcome.error.message  # Not for the ledger: the next run tries again.
            elif outcome.error is not None:
                book.rejections[video_id] = outcome.error.message
            elif outcome.value is not None:
                book.probes[video_id] = outcome.value
            book.save_now_and_then()
    for uri, video_id in ids.items():
        if reason := book.rejections.get(video_id) or lost.get(video_id):
            rejected.setdefault(uri, reason)
    return len(id_of)


def _merge(
    kept: Mapping[str, str],
    probes: Mapping[str, Probe],
    matched: Iterable[tuple[str, SidecarCaption]],
    naming: ClipNaming,
) -> list[Video]:
    """One video for each id, with all its uris, and what the sidecar says about it (the first row that says it)."""
    uris: dict[str, list[str]] = {}
    for uri in sorted(kept):
        uris.setdefault(kept[uri], []).append(uri)
    about: dict[str, dict[str, str]] = {}
    for video_id, caption in matched:
        for name in ABOUT_VIDEO:
            if value := caption.about.get(name):
                about.setdefault(video_id, {}).setdefault(name, value)
    return [
        Video(
            video_id, tuple(uris[video_id]), duration_ms=p.duration_ms, fps=p.fps, width=p.width, height=p.height,
            codec=p.codec, clip_of=(naming.clip_of(uris[video_id][0]) or ("", 0))[0], **about.get(video_id, {}),
        )
        for video_id, p in ((video_id, probes[video_id]) for video_id in sorted(uris))
    ]


def _sidecar_rows(matched: Iterable[tuple[str, SidecarCaption]]) -> list[dict[str, object]]:
    return [
        {
            "video_id": video_id, "clip_index": c.clip_index, "start_ms": c.start_ms, "end_ms": c.end_ms, "text": c.text,
            "split": c.split, "gallery": c.gallery, "contrast": c.contrast, "axis": c.axis,
        }
        for video_id, c in sorted(matched, key=lambda pair: pair[0]) if c.text
    ]


def _transcript_rows(transcripts: Mapping[str, Sequence[Cue]]) -> list[dict[str, object]]:
    return [
        {"video_id": video_id, "start_ms": cue.start_ms, "end_ms": cue.end_ms, "lines": list(cue.lines)}
        for video_id in sorted(transcripts) for cue in transcripts[video_id]
    ]


@dataclass
class _Ledger:
    """What earlier runs learned: files by absolute path, probes and rejections by video id."""

    path: Path
    files: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    probes: dict[str, Probe] = field(default_factory=dict)
    rejections: dict[str, str] = field(default_factory=dict)
    saved_at: float = field(default_factory=time.monotonic)

    @classmethod
    def load(cls, path: Path) -> _Ledger:
        """The ledger at `path`; an empty one where that is missing, broken or of another version: it is a cache."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["version"] != LEDGER_VERSION:
                return cls(path)
            return cls(
                path,
                {key: (int(size), int(mtime), str(id)) for key, (size, mtime, id) in content["files"].items()},
                {key: Probe(**value) for key, value in content["probes"].items()},
                {str(key): str(value) for key, value in content["rejections"].items()},
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls(path)

    def id_of(self, path: Path, stat: os.stat_result) -> str | None:
        known = self.files.get(str(path))
        return known[2] if known and known[:2] == (stat.st_size, stat.st_mtime_ns) else None

    def note(self, path: Path, stat: os.stat_result, video_id: str) -> None:
        self.files[str(path)] = (stat.st_size, stat.st_mtime_ns, video_id)

    def knows(self, video_id: str) -> bool:
        return video_id in self.probes or video_id in self.rejections

    def forget_missing(self, root: Path, uris: Iterable[str]) -> None:
        """Drop the files of this source that are gone; other sources' files stay, and probes: a file may return."""
        there = {str(root / uri) for uri in uris}
        self.files = {
            key: value for key, value in self.files.items() if key in there or not Path(key).is_relative_to(root)
        }

    def save_now_and_then(self) -> None:
        if time.monotonic() - self.saved_at > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        content = {
            "version": LEDGER_VERSION,
            "files": self.files,
            "probes": {key: dataclasses.asdict(value) for key, value in self.probes.items()},
            "rejections": self.rejections,
        }
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps(content, indent=0, sort_keys=True), encoding="utf-8")
            beside.replace(self.path)
        except OSError as error:
            raise ConfigError(
                f"the ledger {self.path} cannot be written: {error.strerror}",
                remedy="Make room for it, or remove what is in its way; it holds nothing that cannot be read again",
            ) from error
        finally:
            beside.unlink(missing_ok=True)
        self.saved_at = time.monotonic()
