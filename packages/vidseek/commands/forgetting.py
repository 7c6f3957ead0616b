"""`vidseek forget`: a video is kept out of the archive, or taken back."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidseek import printing

if TYPE_CHECKING:
    from vidseek.actions.forget import Plan

AFTERWARDS = ("dvc repro", "dvc gc --workspace")
OF_THE_BASE = "vidseek base"


def forget(
    video: Annotated[str | None, typer.Argument(help="Its video_id, the first digits of it, or its uri.")] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take it back.")] = False,
    list_all: Annotated[bool, typer.Option("--list", help="Say what is forgotten.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
    as_json: printing.AsJson = False,
) -> None:
    """Take a video out of the archive and keep it out. Files that are your own are never deleted."""
    from vidseek.actions import forget as forgetting
    from vidseek.archive import Archive

    archive = Archive.here()
    if list_all:
        _list(archive.decisions, as_json=as_json)
        return
    if video is None:
        raise typer.BadParameter("say which video")
    if undo:
        taken = forgetting.take_back(archive, video)
        content = {"video_id": taken.video_id, "uris": list(taken.uris), "forgotten": False, "next": ["dvc repro"]}
        words = f"{taken.video_id} ({taken.uris[0]}) is taken back. `dvc repro` ingests it, where its file is still there."
        printing.tell(content, words, as_json=as_json)
        return
    plan = forgetting.plan_forget(archive, video)
    if not as_json:
        _show(plan)
    if not yes and not as_json and sys.stdin.isatty():
        yes = typer.confirm("Forget it?")
    if yes:
        forgetting.forget(archive, plan)
    has_base = archive.base.is_dir()
    afterwards = [*AFTERWARDS, *([OF_THE_BASE] if has_base else [])]
    and_then = f", and `{OF_THE_BASE}` takes it out of what the base has." if has_base else "."
    printing.tell(
        {**dataclasses.asdict(plan.video), "num_clips": plan.num_clips, "num_frames": plan.num_frames,
         "num_captions": plan.num_captions, "num_pairs": plan.num_pairs, "removed": [str(each) for each in plan.removed],
         "kept": [str(each) for each in plan.kept], "forgotten": yes, "next": afterwards if yes else []},
        "Forgotten: no search shows it any more. `dvc repro` takes it out of tables, frames, vectors and the index; then "
        f"`dvc gc --workspace` takes older versions out of DVC's cache{and_then}" if yes else "Nothing was done: add --yes.",
        as_json=as_json,
    )


def _show(plan: Plan) -> None:
    rows = [
        ("video", [plan.video.video_id]), ("title", [plan.video.title]), ("uris", plan.video.uris),
        ("by `dvc repro`", [f"{plan.num_clips} clips, {plan.num_frames} with frames, {plan.num_captions} captions, "
                            f"{plan.num_pairs} pairs"]),
        ("removed at once", [str(each) for each in plan.removed]), ("yours, stays", [str(each) for each in plan.kept]),
    ]
    printing.show(printing.table(
        ["", ""], [(name, "\n".join(map(printing.escape, lines))) for name, lines in rows if any(lines)]
    ))


def _list(decisions: Any, *, as_json: bool) -> None:
    from vidseek_media.forgotten import read_forgotten

    videos = read_forgotten(decisions).videos
    if as_json:
        printing.print_json([dataclasses.asdict(video) for video in videos])
        return
    printing.show(printing.table(
        ["video", "title", "uri", "since"],
        [(v.video_id, printing.escape(v.title), printing.escape(v.uris[0]), v.forgotten_at) for v in videos],
    ), nothing="Nothing is forgotten.")
