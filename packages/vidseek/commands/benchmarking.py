"""`vidseek benchmark`: a published benchmark with one's own model, beside what papers say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidseek import printing
from vidseek_media.errors import ConfigError

if TYPE_CHECKING:
    from vidseek_training.benchmarks.run import BenchmarkResult


def benchmark(
    name: Annotated[str, typer.Argument(help="msrvtt-1ka or msvd.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of its videos.")],
    backbone: Annotated[str | None, typer.Option(help="A backbone as it is: a name, a folder, a hub id.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="An exported bundle; by default this archive's.")] = None,
    variant: Annotated[str | None, typer.Option(help="Of the bundle: fp32 (the default), fp16 or int8.")] = None,
    annotations: Annotated[Path | None, typer.Option(help="Its file of captions; by default that of the published name, "
                                                      "in DIR or beside it.")] = None,
    work: Annotated[Path, typer.Option(help="Keeps what was embedded.")] = Path(".vidseek/benchmarks"),
    workers: Annotated[int, typer.Option(min=1, help="Processes that decode.")] = 2,
    as_json: printing.AsJson = False,
) -> None:
    """Run a published benchmark: R@1, R@5, R@10, median and mean rank both ways, beside published figures."""
    from vidseek.archive import Archive
    from vidseek_encoder.choices import VARIANT
    from vidseek_training.benchmarks.run import BackboneEmbedder, BundleEmbedder, run_benchmark

    if backbone is not None and bundle is not None:
        raise ConfigError("both --backbone and --bundle were named, wanted one of them", code="options-disagree")
    embedder = (
        BackboneEmbedder(backbone) if backbone
        else BundleEmbedder(bundle or Archive.here().bundle, variant=variant or VARIANT)
    )
    result = run_benchmark(name, folder, embedder, work=work, annotations=annotations, workers=workers)
    if as_json:
        printing.print_json(result.to_json())
    else:
        _print(result)


def _print(result: BenchmarkResult) -> None:
    """Ours first, then what papers say, and their sources."""
    ours = {
        "model": result.model, "taught": None,
        **{side: [getattr(result, side)[name] for name in ("r1", "r5", "r10", "mdr", "mnr")]
           for side in ("text_to_video", "video_to_text")},
    }
    rows = [_row(ours, "this run")]
    rows += [_row(each, f"[{number}]") for number, each in enumerate(result.published, 1)]
    columns = ["", "", "R@1", "R@5", "R@10", "MdR", "MnR", "R@1", "R@5", "R@10", "MdR", "MnR"]
    typer.echo(f"{result.benchmark}: text to video, then video to text")
    printing.show(printing.table(columns, rows))
    over = f"{result.num_videos} of {result.num_videos_published} videos, {result.num_queries} of "
    typer.echo(f"Over {over}{result.num_queries_published} captions.")
    if not result.is_whole:
        typer.echo("The published figures are over all of them: among fewer videos the same model finds more.")
    if result.missing:
        typer.echo(f"{len(result.missing)} are not in the folder: {_some(result.missing)}")
    if result.rejected:
        typer.echo(f"{len(result.rejected)} cannot be decoded: {_some(list(result.rejected))}")
    for number, each in enumerate(result.published, 1):
        typer.echo(f"[{number}] {each['source']}")


def _row(figures: dict[str, Any], where: str) -> tuple[str, ...]:
    how = {True: "taught on it", False: "zero-shot", None: where}[figures["taught"]]
    values = [*figures["text_to_video"], *figures["video_to_text"]]
    name = figures["model"] if figures["taught"] is None else f"{figures['model']} {where}"
    return (printing.escape(name), how, *("" if value is None else f"{value:.1f}" for value in values))


def _some(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(printing.escape(name) for name in names[:5]) + (" ..." if len(names) > 5 else "")
