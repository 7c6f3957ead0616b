"""`vidseek drift`: whether queries and clips are still of the kind that was published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vidseek import printing
from vidseek_media.errors import GateFailed

if TYPE_CHECKING:
    from vidseek.reports.drift import DriftReport


def drift(
    accept: Annotated[bool, typer.Option("--accept", help="From now on compare with what was asked last.")] = False,
    as_json: printing.AsJson = False,
) -> None:
    """Compare what was asked last, and what is embedded now, with what was at publish; write reports/drift.json.

    Ends with 14 where something has gone further than gates.drift.max_psi.
    """
    from vidseek.archive import Archive
    from vidseek.reports import drift as drifting
    from vidseek_quality.thresholds import DriftThresholds

    archive = Archive.here()
    if accept:
        printing.report({"accepted_queries": drifting.accept(archive)}, as_json=as_json)
        return
    gate = archive.section(DriftThresholds)
    found = drifting.measure_drift(archive)
    path = drifting.write_drift(found, archive.root)
    if as_json:
        printing.print_json(found.to_json())
    else:
        _show(found)
    if over := found.over(gate.max_psi):
        raise GateFailed(
            f"{', '.join(over)}: further than gates.drift.max_psi, {gate.max_psi}, from what was at publish ({path})",
            code="queries-drifted",
            remedy="docs/monitoring.md#vidseekdrift: caption what is new and `dvc repro`, or `vidseek drift "
            "--accept` if it is as it should be",
        )


def _show(found: DriftReport) -> None:
    rows: list[tuple[str, ...]] = []
    if found.queries:
        levels = found.queries.levels
        rows = [(name, f"{value:.3f}", levels[name]) for name, value in found.queries.psi.items()]
    if found.clips.psi is not None:
        rows.append(("clips", f"{found.clips.psi:.3f}", str(found.clips.level)))
    printing.show(printing.table(["", "PSI", ""], rows), nothing="Nothing could be measured.")
    content = found.to_json()
    queries = content["queries"]
    if queries["too_few"]:
        typer.echo(f"Queries: {queries['too_few']}.")
    else:
        typer.echo(f"Queries: the last {queries['num_observed']} against {queries['num_reference']} {queries['reference']}.")
        if queries["mmd"]:
            said = "differ" if queries["differs"] else "do not differ"
            typer.echo(f"As a whole they {said} (kernel test, p {queries['mmd']['p_value']:.3f}).")
    typer.echo(f"Clips: {found.clips.reason}." if found.clips.reason else
               f"Clips: {found.clips.num_observed} of those embedded against {found.clips.num_reference} published.")
