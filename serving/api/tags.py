"""The routes of tags, behind the admin key: people set and remove tags of clips and videos."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Path, Query
from pydantic import Field

from serving.api.job_schemas import VIDEO_ID_PATTERN
from serving.api.jobs import Jobs
from serving.api.routes import ClipInPath, refusals
from serving.api.schema_fields import Answer
from serving.engine import Engine
from serving.inputs.media import VideoGone
from vidseek.actions.tags import Target, decide_tags, list_tags, target_of_video
from vidseek.archive import Archive
from vidseek_media.errors import InputRejected
from vidseek_media.fields.declared import MAX_KEYWORD, TAGS
from vidseek_media.fields.tags import tags_after

TagInPath = Annotated[str, Path(min_length=1, max_length=MAX_KEYWORD, description="One word or several.")]
VideoInPath = Annotated[str, Path(pattern=VIDEO_ID_PATTERN, description="As hits name it.")]
WhoInQuery = Annotated[str, Query(max_length=MAX_KEYWORD, description="Whose word it is.")]


class TagAnswer(Answer):
    """A decision on a tag. Searches filter by it after the next publish."""

    video_id: str
    start_ms: int | None = Field(description="Null with end_ms for the whole video.")
    end_ms: int | None
    tag: str
    has_tag: bool
    who: str
    decided_at: str
    tags: list[str] | None = Field(description="Of the clip, after this; null of a video.")


class Tagging:
    """What these routes ask of an archive.

    Args:
        archive: The archive.
        engine: For its threads and its index.
        jobs: For the run that publishes tags.
    """

    def __init__(self, archive: Archive, engine: Engine, jobs: Jobs) -> None:
        self._archive = archive
        self._engine = engine
        self._jobs = jobs

    async def of_clip(self, clip_id: str, tag: str, *, has_tag: bool, who: str) -> dict[str, Any]:
        """Set or remove a tag of the span of a clip. Raises ClipGone, InputRejected."""
        payload = (await self._engine.clip(clip_id)).payload
        video_id, span = str(payload["video_id"]), (int(payload["start_ms"]), int(payload["end_ms"]))
        content = await self._decide((video_id, span), tag, has_tag=has_tag, who=who)
        decided = await self._engine.in_thread(lambda: list_tags(self._archive))
        return {**content, "tags": tags_after(payload.get(TAGS, ()), decided, video_id, *span)}

    async def of_video(self, video_id: str, tag: str, *, has_tag: bool, who: str) -> dict[str, Any]:
        """Set or remove a tag of a whole video. Raises VideoGone, InputRejected."""
        target = await self._engine.in_thread(lambda: self._video(video_id))
        return {**await self._decide(target, tag, has_tag=has_tag, who=who), "tags": None}

    def _video(self, video_id: str) -> Target:
        try:
            return target_of_video(self._archive, video_id)
        except InputRejected as error:
            raise VideoGone.of(video_id) from error

    async def _decide(self, target: Target, tag: str, *, has_tag: bool, who: str) -> dict[str, Any]:
        [decided] = await self._engine.on_archive(
            lambda: decide_tags(self._archive, target, [tag], has_tag=has_tag, who=who)
        )
        await self._jobs.publish("tags were set")
        return vars(decided)


def add_tags(app: FastAPI, tagging: Tagging) -> None:
    """Put the routes of this module into `app`."""
    common = refusals(404, 422, 504)

    @app.put("/v1/clips/{clip_id}/tags/{tag:path}", response_model=TagAnswer, responses=common)
    async def tag_clip(clip_id: ClipInPath, tag: TagInPath, who: WhoInQuery = "") -> dict[str, Any]:
        """Set a tag of a clip: of its span, which clips that share half of it have too."""
        return await tagging.of_clip(clip_id, tag, has_tag=True, who=who)

    @app.delete("/v1/clips/{clip_id}/tags/{tag:path}", response_model=TagAnswer, responses=common)
    async def untag_clip(clip_id: ClipInPath, tag: TagInPath, who: WhoInQuery = "") -> dict[str, Any]:
        """Remove a tag of a clip, wherever it came from."""
        return await tagging.of_clip(clip_id, tag, has_tag=False, who=who)

    @app.put("/v1/videos/{video_id}/tags/{tag:path}", response_model=TagAnswer, responses=common)
    async def tag_video(video_id: VideoInPath, tag: TagInPath, who: WhoInQuery = "") -> dict[str, Any]:
        """Set a tag of a whole video."""
        return await tagging.of_video(video_id, tag, has_tag=True, who=who)

    @app.delete("/v1/videos/{video_id}/tags/{tag:path}", response_model=TagAnswer, responses=common)
    async def untag_video(video_id: VideoInPath, tag: TagInPath, who: WhoInQuery = "") -> dict[str, Any]:
        """Remove a tag of a whole video and of all of its clips."""
        return await tagging.of_video(video_id, tag, has_tag=False, who=who)
