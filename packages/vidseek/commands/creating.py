"""From videos to an archive of one's own, and what it costs: init, run, settings, plan."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidseek import printing
from vidseek_media.errors import ConfigError

if TYPE_CHECKING:
    from vidseek.new_archive.costs import Costs
    from vidseek.new_archive.machine import Machine
    from vidseek.new_archive.proposal import Proposal
    from vidseek.new_archive.source_look import SourceLook

SHOWN_FAULTS = 3
"""Files that cannot be used, with their reasons."""


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make; it is not there yet, or empty.")],
    videos: Annotated[str, typer.Option(help="Where the videos are: a folder, a pattern, a manifest, a URL or a page of "
                                             "YouTube. They stay where they are.")],
    captions: Annotated[Path | None, typer.Option(help="A file of captions that does not lie among the videos: CSV, Parquet "
                                                       "or JSON lines.")] = None,
    backbone: Annotated[str | None, typer.Option(help="A model that was fetched, or a folder; by default the best that is "
                                                      "on this machine.")] = None,
    ocr: Annotated[bool, typer.Option("--ocr", help="Read what the videos show in words too (needs the extra ocr).")
                   ] = False,
    speech: Annotated[str | None, typer.Option(metavar="ENGINE[=MODEL]", help="Hear what is said too: faster-whisper=MODEL, "
                                               "openai=MODEL, pocketsphinx (each needs its extra).")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Take what is proposed, without a question.")] = False,
    run_now: Annotated[bool, typer.Option("--run", help="Run the pipeline at once.")] = False,
    as_json: printing.AsJson = False,
) -> None:
    """Make an archive of your own: look at the videos, propose settings, say what they cost, and write a folder."""
    from vidseek.new_archive import archive_folder
    from vidseek.new_archive.backbone_choice import choose_backbone, named_backbone
    from vidseek.new_archive.costs import estimate
    from vidseek.new_archive.machine import this_machine
    from vidseek.new_archive.proposal import propose
    from vidseek.new_archive.source_look import absolute, look_at
    from vidseek_media.installing import require_module
    from vidseek_media.speech.registry import require_engine
    from vidseek_media.terminal.progress import waiting

    archive_folder.require_new(folder, absolute(videos))
    engine, _, model = (speech or "").partition("=")
    if engine:
        require_engine(engine, model or None)
    if ocr:
        require_module("rapidocr", "ocr")
    machine = this_machine()
    chosen = named_backbone(backbone) if backbone else None
    with waiting("looking at the videos"):
        look = look_at(videos, captions=captions, workers=machine.cores)
    chosen = chosen or choose_backbone(machine, look.captions.languages)
    proposal = propose(
        look, machine, chosen, captions=str(captions.absolute()) if captions else None, reads_text=ocr,
        speech=(engine, model or None),
    )
    if not as_json:
        _show_look(look)
    is_asked = not yes and not as_json and sys.stdin.isatty()
    if is_asked:
        proposal = _ask(proposal, is_backbone_named=backbone is not None)
    with waiting("measuring what it will cost"):
        costs = estimate(look, proposal, machine)
    if not as_json:
        _show_plan(proposal, costs, machine)
    require_room(folder, costs)
    is_made = typer.confirm(f"Make {folder}?", default=True) if is_asked else yes
    if is_made:
        archive_folder.write_archive(folder, proposal, costs)
    if as_json:
        printing.print_json(_document(folder, look, proposal, costs, is_made=is_made))
    elif is_made:
        printing.say(f"{folder} is made.\n\n    cd {_quoted(folder)}\n    vidseek run\n    vidseek search \"WORDS\"\n")
    else:
        printing.say("Nothing was made: add --yes." if not is_asked else "Nothing was made.")
    if is_made and run_now:
        _run_in(folder)


def run(
    folder: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="The archive; by default the working directory, or "
                                                  "VIDSEEK_HOME.")] = None,
    renew: Annotated[bool, typer.Option("--renew", help="First write dvc.yaml anew, as the installed vidseek has it: after "
                                        "an upgrade.")] = False,
) -> None:
    """Make or update an archive: run each stage of its pipeline that has something to do."""
    from vidseek.archive import Archive

    root = folder or Archive.here().root
    if renew:
        from vidseek.configuration.archive_pipeline import renew_pipeline

        renew_pipeline(root)
    _run_in(root)


def settings(as_json: printing.AsJson = False) -> None:
    """Print every setting of this archive, with the defaults of those that params.yaml does not state."""
    import yaml

    from vidseek.archive import Archive
    from vidseek.configuration.comments import commented
    from vidseek.params import load_short_params

    content = load_short_params(Archive.here().params).model_dump(mode="json")
    if as_json:
        printing.print_json(content)
    else:
        typer.echo(commented(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10_000)), nl=False)


def plan(
    hours_of_video: Annotated[float | None, typer.Option(min=0.001, help="Of the archive that is planned.")] = None,
    cores: Annotated[int, typer.Option(min=1, help="That work at once.")] = 64,
    gpus: Annotated[int, typer.Option(min=0, help="The same; 0: the cores encode.")] = 0,
    measure: Annotated[bool, typer.Option("--measure", help="First measure this machine: half a minute.")] = False,
    as_json: printing.AsJson = False,
) -> None:
    """Cores, GPUs, hours and storage for archives of 10^4, 10^6 and 10^8 clips, and yours, from rates measured here."""
    from vidseek.archive import Archive
    from vidseek.reports.plan import RATES_FILE, SIZES, Rates, num_clips_of
    from vidseek.reports.plan import measure as measure_rates
    from vidseek.reports.plan import plan as plan_for

    archive = Archive.here()
    path = archive.state / RATES_FILE
    if measure:
        measure_rates(archive).write(path)
    rates = Rates.read(path)
    sizes = [*SIZES, *([num_clips_of(hours_of_video, rates)] if hours_of_video else [])]
    plans = [plan_for(rates, num_clips=num, cores=cores, gpus=gpus) for num in sizes]
    if as_json:
        printing.print_json({"rates": asdict(rates), "cores": cores, "gpus": gpus, "plans": [asdict(one) for one in plans]})
        return
    names = {
        "clips": "num_clips", "hours of video": "hours_of_video", "decode, core hours": "decode_core_hours",
        "encode, core hours": "encode_core_hours", "encode, GPU hours": "encode_gpu_hours",
        "publish, core hours": "publish_core_hours", f"all, hours on {cores} cores, {gpus} GPUs": "wall_hours",
        "frame shards, GB": "shards_gb", "embeddings, GB": "parts_gb", "index, GB": "index_gb",
        "vectors in memory, GB": "memory_gb",
    }
    printing.show(printing.table(
        ["", *["" for _ in plans]],
        [(label, *[_number(getattr(one, name)) for one in plans]) for label, name in names.items()],
    ), nothing="")
    typer.echo(f"Measured {rates.measured_at} on {rates.machine}; {rates.provider}, {rates.variant}. "
               "What is not measured here hangs on hardware that this machine has not.")


def require_room(folder: Path, costs: Costs | None) -> None:
    """Check that the disk of a new archive has room for it.

    Raises:
        ConfigError: it has not.
    """
    from vidseek.new_archive.machine import free_bytes

    free = free_bytes(folder)
    if costs is not None and costs.disk_bytes > free:
        raise ConfigError(
            f"the archive will need about {_size(costs.disk_bytes)}, and the disk of {folder} has {_size(free)} free",
            code="disk-too-small", remedy="Make room, name a folder on another disk, or take longer windows",
        )


def _run_in(folder: Path) -> None:
    import subprocess

    from vidseek.installation import PIPELINE
    from vidseek.new_archive.archive_folder import run_command, run_environment
    from vidseek_media.installing import require_module

    if not (folder / PIPELINE).is_file():
        raise ConfigError(
            f"{folder.absolute()} has no pipeline ({PIPELINE})", code="archive-not-made",
            remedy="Run it in the folder of an archive; `vidseek init` makes one",
        )
    require_module("dvc", "cpu")
    sys.stdout.flush()
    ended = subprocess.run(run_command(), cwd=folder, env=run_environment(), check=False).returncode
    if ended:
        printing.say("The run has stopped: what is above says why. `vidseek run` goes on from there.", err=True)
        raise typer.Exit(ended)
    printing.say(f"\nDone. In {folder}: vidseek search \"WORDS\", vidseek ui, or open reports/report.html", err=True)


def _ask(proposal: Proposal, *, is_backbone_named: bool) -> Proposal:
    """Ask for what a person may want otherwise; the return key takes what is proposed."""
    from vidseek.new_archive.backbone_choice import named_backbone

    window = typer.prompt("Length of a window, in seconds", default=proposal.window_seconds, type=float)
    least = min(proposal.stride_seconds, window)
    stride = typer.prompt("From one window to the next, in seconds", default=least, type=float)
    backbone = proposal.backbone
    if not is_backbone_named:
        name = typer.prompt("Backbone", default=backbone.name)
        backbone = backbone if name == backbone.name else named_backbone(name)
    return proposal.with_answers(window_seconds=window, stride_seconds=stride, backbone=backbone)


def _show_look(look: SourceLook) -> None:
    captions = look.captions
    rows = [("source", look.text)]
    if look.not_looked:
        rows.append(("looked at", f"no: {look.not_looked}"))
    else:
        rows += [
            ("videos", f"{look.num_videos:,}, {_size(look.num_bytes)}; {look.num_sampled} were looked at, "
                       f"{len(look.faults)} of them cannot be used"),
            *[("unusable", f"{name}: {reason}") for name, reason in list(look.faults.items())[:SHOWN_FAULTS]],
            ("length", f"about {_hours(look.hours)} in all, {printing.clock(look.median_ms())} in the middle"),
            ("picture", f"{look.median_side_px()} pixels on the shorter side, in the middle"),
            ("sound", f"in {look.share_of('has_sound'):.0%}"),
            ("subtitles", f"in {look.share_of('has_subtitles'):.0%}, and as a file beside {look.num_with_subtitle_file:,}"),
            ("captions", _captions_in_words(look) if captions.num_rows else "none"),
        ]
    printing.show(printing.table(["", ""], [(name, printing.escape(text)) for name, text in rows]))


def _captions_in_words(look: SourceLook) -> str:
    captions = look.captions
    spoken = ", ".join(f"{language} {share:.0%}" for language, share in list(captions.languages.items())[:3])
    return (
        f"{captions.num_matched:,} of {captions.num_rows:,} rows name one of {captions.num_videos:,} videos; "
        f"{captions.num_timed:,} with times" + (f"; language: {spoken}" if spoken else "")
    )


def _show_plan(proposal: Proposal, costs: Costs | None, machine: Machine) -> None:
    backbone = proposal.backbone
    rows = [
        ("window", f"{proposal.window_seconds:g} s, every {proposal.stride_seconds:g} s"),
        ("backbone", f"{backbone.name} ({backbone.reason})"),
    ]
    rows += _cost_rows(costs, machine) if costs is not None else [("cost", "not known: the source was not looked at")]
    printing.show(printing.table(["", ""], [(name, printing.escape(text)) for name, text in rows]))
    for note in proposal.notes:
        printing.say_wrapped(note, mark="- ")


def _cost_rows(costs: Costs, machine: Machine) -> list[tuple[str, str]]:
    frames = costs.frame_seconds_per_hour
    read = "not measured" if frames is None else (
        f"{frames:,.0f} s of a core for an hour of video (measured on {costs.measured_on} of them)"
    )
    return [
        ("clips", f"about {costs.num_clips:,}"),
        ("read, decode", read),
        ("embed", f"{costs.embed_seconds_per_hour:,.0f} s of a core for an hour of video"),
        *([("read text", f"{costs.text_seconds:,.0f} s of a core")] if costs.text_seconds else []),
        *([("hear speech", f"at most {costs.speech_seconds:,.0f} s of a core")] if costs.speech_seconds else []),
        ("teach", f"{costs.train_seconds:,.0f} s of a core" if costs.train_seconds else "nothing: too few captions"),
        ("in all", f"about {_minutes(costs.minutes)} on {machine.cores} cores, and {_size(costs.disk_bytes)} of disk"),
    ]


def _document(
    folder: Path, look: SourceLook, proposal: Proposal, costs: Costs | None, *, is_made: bool
) -> dict[str, Any]:
    captions = look.captions
    return {
        "folder": str(folder.absolute()), "made": is_made,
        "source": {
            "name": look.text, "looked_at": not look.not_looked, "why_not": look.not_looked, "num_videos": look.num_videos,
            "num_bytes": look.num_bytes, "hours": round(look.hours, 6), "rejected_share": round(look.rejected_share, 4),
            "num_sampled": look.num_sampled, "faults": dict(look.faults), "sound_share": look.share_of("has_sound"),
            "subtitle_share": look.share_of("has_subtitles"), "num_with_subtitle_file": look.num_with_subtitle_file,
            "captions": {**asdict(captions), "rejected_share": round(captions.rejected_share, 4)},
        },
        "params": proposal.params(), "notes": proposal.notes, "costs": asdict(costs) if costs else None,
    }


def _quoted(path: Path) -> str:
    import shlex

    return shlex.quote(str(path))


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.0f} MB"


def _hours(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 1 else f"{hours * 60:,.1f} minutes"


def _minutes(minutes: float) -> str:
    if minutes >= 90:
        return f"{minutes / 60:,.1f} hours"
    return "a minute" if minutes < 1.5 else f"{round(minutes)} minutes"


def _number(value: float | None) -> str:
    if value is None:
        return "not measured here"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
