"""Summarises an archive from the tables and reports of its stages; stages that have not run are left out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vidseek.archive import ALIAS, BASE_ALIAS, Archive
from vidseek_media.errors import ArtifactError
from vidseek_media.files import json_files

STAGES = ("ingest", "fields", "cut", "frames", "subtitles", "ocr", "speech", "caption", "pairs")
"""Those that refuse rows, in their order; `fields` is what ingest refuses of declared fields."""
GATES = ("pairs", "embeddings")
NUM_REJECTED_SHOWN = 50
"""Of each stage."""
REPORTS = {"pairs": "gates/pairs/report.html", "embeddings": "gates/embeddings/report.html", "report": "report.html"}
"""The pages that may be looked at, by name, in `reports`."""


def overview(archive: Archive) -> dict[str, Any]:
    """Return videos, rejections, gates, figures, collections and model of `archive`.

    Raises:
        ArtifactError: a table or a report is broken.
        ServiceError: the Qdrant server does not answer.
    """
    return {
        "videos": _videos(archive.ingest),
        "num_clips": _num_clips(archive.cut),
        "rejected": list(_rejected(archive.data)),
        "gates": list(_gates(archive.reports)),
        "figures": _figures(archive.reports),
        "reports": [name for name, place in REPORTS.items() if (archive.reports / place).is_file()],
        "model": _model(archive),
        **_collections(archive),
    }


def report_file(archive: Archive, name: str) -> Path | None:
    """Return the page of that name, where it was written."""
    path = archive.reports / REPORTS[name]
    return path if path.is_file() else None


def _videos(folder: Path) -> dict[str, int] | None:
    if not (folder / "videos.parquet").exists():
        return None
    from vidseek_media.tables import VIDEOS, read_table  # pandas: the service starts without it

    lengths = read_table(folder / "videos.parquet", VIDEOS)["duration_ms"]
    return {"num": len(lengths), "total_ms": int(lengths.sum())}


def _num_clips(folder: Path) -> int | None:
    from vidseek_media.tables import CLIPS, read_table

    path = folder / "clips.parquet"
    return len(read_table(path, CLIPS)) if path.exists() else None


def _rejected(data: Path) -> Iterator[dict[str, Any]]:
    from vidseek_media.tables import read_rejected

    for stage in STAGES:
        path = data / stage / "rejected.parquet"
        rows = read_rejected(path.parent) if path.exists() else None
        if rows is not None and len(rows):
            shown = rows.head(NUM_REJECTED_SHOWN)
            yield {
                "stage": stage, "num": len(rows),
                "first": [
                    {"id": str(row.id), "reason": str(row.reason), "code": str(row.code), "kind": str(row.kind),
                     "retryable": bool(row.retryable)}
                    for row in shown.itertuples()
                ],
            }


def _gates(reports: Path) -> Iterator[dict[str, Any]]:
    for name in GATES:
        result = read_json(reports / "gates" / name / "result.json")
        if result is not None:
            wanted = [f"{each['rule']}: {each['num_offending']}" for each in result["failures"]]
            yield {"name": name, "passed": bool(result["passed"]), "failures": wanted}


def _figures(reports: Path) -> list[dict[str, Any]]:
    """R@1 of base and adapted on each gallery, with their 95 % intervals."""
    metrics = read_json(reports / "evaluate" / "metrics.json") or {}
    return [
        {"gallery": name, "num_queries": entry["num_queries"], "base": entry["base"]["r1_interval"],
         "adapted": entry["adapted"]["r1_interval"]}
        for name, entry in (metrics.get("galleries") or {}).items()
    ]


def _model(archive: Archive) -> dict[str, Any] | None:
    spec = read_json(archive.bundle / "encoder.json")
    if spec is None:
        return None
    selected = read_json(archive.selected) or {}
    return {
        "encoder_version": spec["encoder_version"], "backbone": spec["backbone"], "variants": spec["variants"],
        "setting": selected.get("setting"), "proof": _proof(selected.get("proof")),
    }


def _proof(said: dict[str, Any] | None) -> dict[str, Any] | None:
    return said and {name: said[name] for name in ("num_queries", "num_groups", "times_used", "alpha")}


def _collections(archive: Archive) -> dict[str, Any]:
    from vidseek_retrieval.index.aliases import list_collections

    backend = archive.backend()
    alias = backend.aliases().get(ALIAS)
    return {
        "live": alias.collection if alias else None,
        "previous": alias.previous[0] if alias and alias.previous else None,
        "collections": [
            {"name": one.metadata.name, "num_clips": one.metadata.num_points, "made_at": one.metadata.created_at,
             "encoder_version": one.metadata.encoder_version, "is_live": ALIAS in one.live_as,
             "is_kept": ALIAS in one.kept_for, "is_base": BASE_ALIAS in one.live_as}
            for one in list_collections(backend)
        ],
    }


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON file; None if it is missing.

    Raises:
        ArtifactError: it is broken.
    """
    try:
        content = json_files.read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} is broken: {error}", code="json-unreadable", remedy="Run `dvc repro`") from error
    if not isinstance(content, dict):
        raise ArtifactError(f"{path} is broken: it holds no table", code="json-unreadable", remedy="Run `dvc repro`")
    return content
