"""The routes of the learning loop, behind the admin key: what to caption and to judge next, and captions by people."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from pydantic import Field

from serving.api.routes import ClipInPath, body_of, refusals
from serving.api.schema_fields import Answer, Asked
from serving.engine import Engine
from serving.http.bodies import read_body
from vidseek.actions.suggestions import (
    DEFAULT_NUM,
    MAX_NUM,
    suggest_captions,
    suggest_judgements,
    write_caption,
)
from vidseek.archive import Archive
from vidseek_media.text.written_captions import MAX_CAPTION, MAX_WHO

NumInQuery = Annotated[int, Query(ge=1, le=MAX_NUM, description="At most.")]


class SuggestedClip(Answer):
    """A clip to caption."""

    clip_id: str
    video_id: str
    start_ms: int
    end_ms: int
    uri: str
    title: str
    num_like: int = Field(description="Clips that it stands for.")
    distance: float = Field(description="To the nearest clip that is taught or suggested before, in standard deviations.")


class SuggestedCaptions(Answer):
    """Clips to caption, the best first, and from how many they were chosen."""

    suggestions: list[SuggestedClip]
    num_clips: int = Field(description="Published ones that were looked at.")
    num_captioned: int
    num_held_out: int = Field(description="Of videos of validation and test: their captions teach nothing.")
    num_without_content: int = Field(description="Black, flat or frozen.")
    num_open: int = Field(description="Of which these are chosen.")
    num_taught: int = Field(description="Clips that training captions speak of.")


class SuggestedQuestion(Answer):
    """A hit to judge: POST /v1/feedback takes the answer, with `text` as the query."""

    text: str
    clip_id: str
    video_id: str
    start_ms: int
    end_ms: int
    uri: str
    confidence: float


class SuggestedQuestions(Answer):
    """Hits to judge, those first that may as well be right as wrong."""

    questions: list[SuggestedQuestion]


class CaptionRequest(Asked):
    """What is seen in a clip."""

    text: Annotated[str, Field(max_length=MAX_CAPTION, description="Empty takes back what the same person wrote of it.")]
    who: Annotated[str, Field(max_length=MAX_WHO, description="Whose words they are.")] = ""


class CaptionAnswer(Answer):
    """A caption that was written down. The next `dvc repro` trains with it, if its video is one of training."""

    video_id: str
    start_ms: int
    end_ms: int
    text: str
    who: str
    written_at: str


def add_suggestions(app: FastAPI, archive: Archive, engine: Engine) -> None:
    """Put the routes of this module into `app`.

    Args:
        app: The application.
        archive: The archive.
        engine: For its threads and its index.
    """

    @app.get(
        "/v1/admin/suggestions", response_model=SuggestedCaptions | SuggestedQuestions, responses=refusals(422, 504)
    )
    async def suggestions(
        kind: Annotated[Literal["captions", "judgements"], Query(description="Clips to caption, or hits to judge.")] =
        "captions",
        limit: NumInQuery = DEFAULT_NUM,
    ) -> dict[str, Any]:
        """Return what the next training would gain most from."""
        if kind == "captions":
            return asdict(await engine.on_archive(lambda: suggest_captions(archive, limit)))
        found = await engine.live.answer(lambda opened: engine.in_thread(
            lambda: suggest_judgements(archive, opened.searcher, limit)
        ))
        return {"questions": [asdict(each) for each in found]}

    @app.post(
        "/v1/clips/{clip_id}/captions", response_model=CaptionAnswer, status_code=201,
        openapi_extra=body_of(CaptionRequest), responses=refusals(404, 413, 415, 422, 504),
    )
    async def caption_clip(request: Request, clip_id: ClipInPath) -> dict[str, Any]:
        """Write down what is seen in a clip."""
        asked = await read_body(request, CaptionRequest)
        known = (await engine.clip(clip_id)).clip_id
        return asdict(await engine.on_archive(lambda: write_caption(archive, known, asked.text, who=asked.who)))
