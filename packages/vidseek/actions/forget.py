"""Forgets a video: the decision, what is removed immediately, and what the next `dvc repro` removes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from vidseek.archive import Archive
from vidseek_media.errors import ArtifactError, InputRejected, foreign
from vidseek_media.files.appending import locked
from vidseek_media.forgotten import ForgottenVideo, read_forgotten, write_forgotten
from vidseek_media.urls import bare_url

if TYPE_CHECKING:
    import pyarrow as pa

    from vidseek_media.records import Video

MIN_PREFIX = 4
"""Digits of an id that may stand for the whole."""
NO_CACHES = ("demo", "downloads", "mlartifacts")
"""Folders of .vidseek in which nothing is named after a video of the archive, but videos, and MLflow's runs."""


@dataclass(frozen=True)
class Plan:
    """The consequences of forgetting one video."""

    video: ForgottenVideo
    num_clips: int
    """Rows of the tables that `dvc repro` takes out; so the next three."""
    num_frames: int
    """Clips with frames."""
    num_captions: int
    num_pairs: int
    removed: tuple[Path, ...]
    """Downloads and caches, which go at once."""
    kept: tuple[Path, ...]
    """Files that are the user's own: they stay where they are, and are not looked at any more."""


def plan_forget(archive: Archive, name: str, *, again: bool = False) -> Plan:
    """Determine what forgetting a video would remove; nothing is changed.

    Args:
        archive: The archive.
        name: Id of the video, its first digits (at least 4, unique), or one of its uris.
        again: Whether to plan for a video that is forgotten, and out of the tables, already.

    Raises:
        InputRejected: no video matches, or several do.
        ArtifactError: nothing was ingested.
    """
    from vidseek_media.sources.ingest import read_videos
    from vidseek_media.tables import CAPTIONS, CLIPS, FRAMES, PAIRS

    videos = read_videos(archive.ingest)
    uris = {video.video_id: video.uris for video in videos}
    video_id = video_named(name, uris)
    if video_id is None:
        if (old := video_named(name, _names_of_forgotten(archive))) is not None:
            if again:
                known = next(each for each in read_forgotten(archive.decisions).videos if each.video_id == old)
                caches = _caches_of(archive, old, set())
                return Plan(known, 0, 0, 0, 0, removed=tuple(sorted(caches)), kept=())
            raise InputRejected(
                f"{old} is forgotten already", code="forgotten-already", remedy="`vidseek forget --undo` takes it back",
            )
        raise video_unknown(archive, name)
    video = next(each for each in videos if each.video_id == video_id)
    clips = _rows(archive.cut / "clips.parquet", CLIPS, video_id)
    downloads, kept = _files_of(archive, video)
    caches = _caches_of(archive, video_id, set(clips))
    return Plan(
        ForgottenVideo(video_id, video.uris, _addresses_of(archive, video), video.title, _now()),
        num_clips=len(clips), num_frames=len(_rows(archive.frames / "frames.parquet", FRAMES, video_id)),
        num_captions=len(_rows(archive.caption / "captions.parquet", CAPTIONS, video_id)),
        num_pairs=len(_rows(archive.pairs_table, PAIRS, video_id)),
        removed=tuple(sorted({*downloads, *caches})), kept=tuple(sorted(kept)),
    )


def decide_forgotten(archive: Archive, plan: Plan) -> None:
    """Record the decision alone: no search shows the video any more. `forget` removes what is left of it.

    Args:
        archive: The archive.
        plan: Output of `plan_forget`.

    Raises:
        ArtifactError: the table of decisions or of aliases is broken, or cannot be written.
        ServiceError: the Qdrant server does not answer.
    """
    from vidseek_retrieval.index.aliases import require_alias_table

    require_alias_table(archive.backend())  # else nobody can say which collections show the video
    with _writing(archive), locked(archive.decisions):
        earlier = read_forgotten(archive.decisions)
        known = next((video for video in earlier.videos if video.video_id == plan.video.video_id), None)
        addresses = {*plan.video.addresses, *(known.addresses if known else ())}
        write_forgotten(
            archive.decisions, [*earlier.videos, replace(plan.video, addresses=tuple(sorted(addresses)))]
        )


def forget(archive: Archive, plan: Plan) -> None:
    """Record the decision, so that no search shows the video any more, and remove its files.

    After an interruption, another call finishes the work.

    Args:
        archive: The archive.
        plan: Output of `plan_forget`.

    Raises:
        ArtifactError: the table of decisions or of aliases is broken, or something cannot be removed or written.
        ServiceError: the Qdrant server does not answer.
    """
    from vidseek.saved.saved_table import SavedTable
    from vidseek_media.sources.ledger import Ledger
    from vidseek_training.captioning.journal import forget_captions
    from vidseek_training.dataset.training_set import forget_pairs

    decide_forgotten(archive, plan)
    with _writing(archive):
        with locked(archive.decisions):
            forget_pairs(archive.training_set, plan.video.video_id)
        book = Ledger.load(archive.ledger)
        if book.forget([plan.video.video_id]):
            book.save()
        for path in plan.removed:
            path.unlink(missing_ok=True)
        forget_captions(archive.caption_journal, [plan.video.video_id])
    SavedTable(archive.saved).forget([plan.video.video_id])


@contextmanager
def _writing(archive: Archive) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ArtifactError(
            f"{error.filename or archive.decisions}: {error.strerror}",
            code="not-writable", remedy="Mend the rights, then forget it again"
        ) from error


def take_back(archive: Archive, name: str) -> ForgottenVideo:
    """Undo the decision, and return the video; the next `dvc repro` ingests it again if its file still exists.

    Args:
        archive: The archive.
        name: Id of the video, its first digits, or one of its uris.

    Raises:
        InputRejected: no forgotten video matches, or several do.
    """
    video_id = video_named(name, _names_of_forgotten(archive))
    if video_id is None:
        raise InputRejected(
            f"no video {name!r} is forgotten", code="unknown-video", remedy="`vidseek forget --list` says what is",
        )
    fault = f"{archive.decisions} cannot be written"
    with foreign(ArtifactError, fault, code="not-writable", remedy="Make room"), locked(archive.decisions):
        known = read_forgotten(archive.decisions).videos
        write_forgotten(archive.decisions, [video for video in known if video.video_id != video_id])
    return next(video for video in known if video.video_id == video_id)


def _names_of_forgotten(archive: Archive) -> dict[str, tuple[str, ...]]:
    return {video.video_id: (*video.uris, *video.addresses) for video in read_forgotten(archive.decisions).videos}


def id_of_video(archive: Archive, name: str) -> str:
    """Return the id of a video of the archive that is not forgotten.

    Args:
        archive: The archive.
        name: Its id, its first digits (at least 4, unique), or one of its uris.

    Raises:
        InputRejected: no video matches, or several do.
        ArtifactError: nothing was ingested.
    """
    from vidseek_media.sources.ingest import read_videos

    forgotten = read_forgotten(archive.decisions).video_ids
    uris = {each.video_id: each.uris for each in read_videos(archive.ingest) if each.video_id not in forgotten}
    if (found := video_named(name, uris)) is None:
        raise video_unknown(archive, name)
    return found


def video_unknown(archive: Archive, name: str) -> InputRejected:
    """Return the error that no video of an archive has a name.

    Args:
        archive: The archive.
        name: As `video_named` takes it.
    """
    return InputRejected(
        f"there is no video {name!r} in {archive.ingest / 'videos.parquet'}", code="unknown-video",
        remedy="Name the video_id or the uri of a hit, or the first digits of the id",
    )


def video_named(name: str, videos: dict[str, tuple[str, ...]]) -> str | None:
    """Return the id of the one video that is meant; None where none is.

    Args:
        name: Its id, the first digits of it (at least `MIN_PREFIX`), or one of its uris.
        videos: The uris of each video, by id.

    Raises:
        InputRejected: several videos are meant.
    """
    name = bare_url(name)
    if name in videos:
        return name
    found = [video_id for video_id, names in videos.items() if name in names]
    if not found and re.fullmatch(rf"[0-9a-f]{{{MIN_PREFIX},}}", name):
        found = [video_id for video_id in videos if video_id.startswith(name)]
    if len(found) > 1:
        shown = ", ".join(found[:5]) + (" ..." if len(found) > 5 else "")
        raise InputRejected(
            f"{name!r} names {len(found)} videos: {shown}", code="ambiguous-video", remedy="Give more digits of the id",
        )
    return found[0] if found else None


def _rows(path: Path, schema: pa.Schema, video_id: str) -> list[str]:
    """Return the clip ids (or the video's) of the rows that are of the video; none where the stage has not run."""
    from vidseek_media.tables import read_table

    if not path.exists():
        return []
    table = read_table(path, schema)
    return [str(each) for each in table.loc[table["video_id"] == video_id, "clip_id"]]


def _addresses_of(archive: Archive, video: Video) -> tuple[str, ...]:
    source = archive.source
    found = [source.address_of(uri) for uri in video.uris] if source else []
    return tuple(sorted({address for address in found if address}))


def _files_of(archive: Archive, video: Video) -> tuple[set[Path], set[Path]]:
    """Return the files of a video: downloads from this or an earlier source, and the user's own files."""
    from vidseek_media.sources.ledger import Ledger

    source, downloads = archive.source, archive.downloads.resolve()
    loaded: set[Path] = set()
    own: set[Path] = set()
    for uri in video.uris if source else ():
        assert source is not None
        try:
            found, path = source.downloads_of(uri), source.path_of(uri)
        except InputRejected:
            continue  # The source has changed since.
        loaded |= set(found)
        if not found and path.exists() and not path.resolve().is_relative_to(downloads):
            own.add(path)
    for known, (*_, video_id) in Ledger.load(archive.ledger).files.items():
        path = Path(known)
        if video_id == video.video_id and path.resolve().is_relative_to(downloads):
            loaded |= {each for each in (path, path.with_name(f".{path.name}.stamp")) if each.exists()}
    return {path for path in loaded if path.resolve().is_relative_to(downloads)}, own


def _caches_of(archive: Archive, video_id: str, clip_ids: set[str]) -> Iterator[Path]:
    """Yield files of .vidseek that are named after the video or a clip of it: its cuts, thumbnails."""
    for folder in _folders(archive.state):
        for path in folder.iterdir():
            if path.is_file() and (path.name.startswith(video_id) or path.name[:36] in clip_ids):
                yield path


def _folders(state: Path) -> Iterable[Path]:
    """Return the caches."""
    if not state.is_dir():
        return []
    return [path for path in sorted(state.iterdir()) if path.is_dir() and path.name not in NO_CACHES]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
