"""`vidseek plan`: what an archive of some size will cost."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from vidseek import printing


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


def _number(value: float | None) -> str:
    if value is None:
        return "not measured here"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
