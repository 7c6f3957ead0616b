"""Captions for the archive's clips."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from vidseek import printing
from vidseek_media.errors import ConfigError


def caption(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what a language model would be asked and what it "
                                          "would cost; send nothing, write nothing.")] = False,
    limit: Annotated[int | None, typer.Option(min=0, help="Ask about at most so many clips in this run, spread over the "
                                              "archive.")] = None,
    as_json: printing.AsJson = False,
) -> None:
    """Give clips their captions, as the stage `caption` does, and say what the language model did."""
    from vidseek.archive import Archive
    from vidseek_training.captioning.captioner import Captioner
    from vidseek_training.captioning.captions import clips_for_llm, write_captions
    from vidseek_training.settings import CaptionSettings

    archive = Archive.here()
    settings = archive.section(CaptionSettings)
    captioner = Captioner(
        settings.llm, frames_dir=archive.frames, journal_dir=archive.caption_journal,
        path_of=archive.source.path_of if archive.source else None, limit=limit,
    )
    if dry_run:
        clips, videos = clips_for_llm(archive.ingest, archive.cut, settings=settings)
        printing.report(_rounded(asdict(captioner.estimate(clips, videos))), as_json=as_json)
        return
    if limit is not None and "llm" not in settings.sources:
        raise ConfigError("--limit is for the language model, and caption.sources does not list llm",
        code="options-disagree",
                          remedy="Add llm to caption.sources in params.yaml")
    report = asdict(write_captions(
        archive.ingest, archive.cut, out=archive.caption, settings=settings,
        llm=captioner if "llm" in settings.sources else None,
    ))
    llm = report.pop("llm") or {}
    printing.report(report | {f"llm_{name.removeprefix('num_')}": value for name, value in _rounded(llm).items()},
                    as_json=as_json)


def _rounded(content: dict[str, Any]) -> dict[str, Any]:
    """Money to a millionth of a dollar."""
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in content.items()}
