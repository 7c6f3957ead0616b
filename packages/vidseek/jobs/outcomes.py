"""What the stages made of a video: in how many clips it is searched, or why it is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vidseek.archive import Archive
from vidseek_media.errors import InputRejected
from vidseek_retrieval.settings import PublishSettings


@dataclass(frozen=True)
class Outcomes:
    """The tables of the stages, as far as they speak of single videos."""

    uris: Mapping[str, str]
    """video_id by uri."""
    clips: Mapping[str, int]
    """Clips that are searched, by video_id, of the videos that were asked for."""
    refused: Mapping[str, tuple[str, str, bool]]
    """Stage, reason and whether another run may take it, by the uri of a file or the id of a video."""

    @classmethod
    def of(cls, archive: Archive, videos: Iterable[tuple[str, str]]) -> Outcomes:
        """Read the tables, as far as they speak of these videos.

        Args:
            archive: The archive.
            videos: video_id, empty where it is not known, and uri of each.

        Raises:
            ArtifactError: a table is missing or broken.
        """
        from vidseek_media.cutting.cut import read_clips
        from vidseek_media.frame_store.stored_clips import stored_clips
        from vidseek_media.sources.ingest import read_videos
        from vidseek_media.tables import REJECTED, read_table

        uris = {uri: video.video_id for video in read_videos(archive.ingest) for uri in video.uris}
        video_ids = {video_id or uris.get(uri, "") for video_id, uri in videos}
        cut = archive.section(PublishSettings).cut
        with_frames = {clip.clip_id for clip in stored_clips(archive.frames, video_ids=video_ids)}
        clips = Counter(
            clip.video_id for clip in read_clips(archive.cut, video_ids=video_ids)
            if cut in clip.cut and str(clip.clip_id) in with_frames
        )
        refused: dict[str, tuple[str, str, bool]] = {}
        for folder in (archive.ingest, archive.cut, archive.frames):
            for row in read_table(folder / "rejected.parquet", REJECTED).to_dict("records"):
                refused.setdefault(str(row["id"]), (str(row["stage"]), str(row["reason"]), bool(row["retryable"])))
        return cls(uris, dict(clips), refused)

    def video_id_of(self, uri: str) -> str:
        """Return the id of the video at a uri; empty if there is none."""
        return self.uris.get(uri, "")

    def num_clips(self, video_id: str) -> int:
        """Return in how many clips a video is searched."""
        return self.clips.get(video_id, 0)

    def fault_of(self, video_id: str, uri: str) -> InputRejected | None:
        """Return why a video is not searched; None if it is."""
        video_id = video_id or self.video_id_of(uri)
        if self.uris.get(uri) == video_id and self.clips.get(video_id):
            return None
        stage, reason, is_retryable = self.refused.get(uri) or self.refused.get(video_id) or self._of_clips(video_id)
        error = InputRejected(
            f"{uri} was refused by the stage {stage}: {reason}", code="refused-by-stage",
            remedy="It lies in the source: mend it there, or `vidseek forget` it",
        )
        error.retryable = is_retryable
        return error

    def _of_clips(self, video_id: str) -> tuple[str, str, bool]:
        return ("frames", "none of its clips has frames; data/frames/rejected.parquet has the reasons", False) \
            if video_id in self.uris.values() else ("ingest", "it is not among the videos of the source", True)
