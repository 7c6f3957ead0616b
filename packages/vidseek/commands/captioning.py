"""Captions for the archive's clips, and which to write next."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidseek import printing
from vidseek_media.errors import ConfigError

if TYPE_CHECKING:
    from vidseek.actions.suggestions import Question
    from vidseek_retrieval.suggesting.suggestions import Suggestion, SuggestReport


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


def suggest(
    num: Annotated[int, typer.Option("--limit", min=1, max=200, help="How many, at most.")] = 20,
    judge: Annotated[bool, typer.Option("--judge", help="Hits to judge, in the place of clips to caption.")] = False,
    captions: Annotated[Path | None, typer.Option(help="Write the clips to a CSV file with an empty column for captions.")
                        ] = None,
    take: Annotated[Path | None, typer.Option(help="Take the captions of a file that --captions wrote and you filled in.")
                    ] = None,
    who: Annotated[str, typer.Option(envvar="USER", help="Whose captions they are.")] = "",
    as_json: printing.AsJson = False,
) -> None:
    """Say which clips to caption, or which hits to judge, so that the next training gains most."""
    from vidseek.actions import suggestions
    from vidseek.archive import Archive, open_text_searcher

    archive = Archive.here()
    if sum(map(bool, (judge, captions, take))) > 1:
        raise typer.BadParameter("give one of --judge, --captions and --take")
    if take is not None:
        written = suggestions.take_template(archive, take, who=who)
        printing.report({"num_captions": len(written)}, as_json=as_json)
        if not as_json:
            printing.say("Written down. `dvc repro` trains with those of training videos, and says what they changed.")
    elif judge:
        _show_questions(suggestions.suggest_judgements(archive, open_text_searcher(archive), num), as_json=as_json)
    else:
        found = suggestions.suggest_captions(archive, num)
        if captions is not None:
            suggestions.write_template(captions, found)
        _show_suggestions(found, captions, as_json=as_json)


def _show_suggestions(found: SuggestReport, file: Path | None, *, as_json: bool) -> None:
    if as_json:
        printing.print_json({**asdict(found), "file": None if file is None else str(file)})
        return
    for number, each in enumerate(found.suggestions, start=1):
        _show_clip(number, each)
        printing.say(f"     stands for {each.num_like} clips; {each.distance:.2f} from what is taught or above")
    if not found.suggestions:
        printing.say("There is no clip to suggest.")
    printing.say(
        f"Chosen from {found.num_open} of {found.num_clips} clips: {found.num_captioned} are captioned, "
        f"{found.num_held_out} are of videos held out for validation and test, {found.num_without_content} show nothing."
    )
    if file is not None:
        printing.say(f"{file}: fill in the column caption, then `vidseek suggest --take {file}`.")


def _show_questions(found: list[Question], *, as_json: bool) -> None:
    if as_json:
        printing.print_json({"questions": [asdict(each) for each in found]})
        return
    for number, each in enumerate(found, start=1):
        _show_clip(number, each)
        printing.say(f"     is this what it shows? {each.text}  (confidence {each.confidence:.2f})")
    printing.say(
        "Answer under Teach (`vidseek ui`), with `vidseek feedback say`, or with POST /v1/feedback." if found
        else "There is nothing to judge: hits need a confidence (`vidseek doctor` says why there is none)."
    )


def _show_clip(number: int, clip: Suggestion | Question) -> None:
    printing.say(f"{number:3}. {clip.uri} {printing.clock(clip.start_ms)} – {printing.clock(clip.end_ms)}")
    printing.say(f"     {clip.clip_id}")
