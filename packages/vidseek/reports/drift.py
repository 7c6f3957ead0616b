"""Measures the drift of an archive: present queries and clips against those at publish."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vidseek.archive import ALIAS, Archive
from vidseek.reports.overview import read_json
from vidseek_media.errors import ArtifactError
from vidseek_media.files.json_files import write_json
from vidseek_retrieval.confidence.calibration import Calibration
from vidseek_retrieval.confidence.clip_drift import ClipDrift, clip_drift
from vidseek_retrieval.confidence.query_stats import (
    ACCEPTED_FILE,
    QueryDrift,
    QuerySample,
    compare,
    read_seen,
    reference_of,
    write_sample,
)
from vidseek_retrieval.index.aliases import require_published
from vidseek_retrieval.index.collection_metadata import CollectionMetadata
from vidseek_retrieval.settings import PublishSettings

REPORT_FILE = Path("reports") / "drift.json"
WHY_NOT_CALIBRATED = "the live collection has no held-out queries to compare with"


@dataclass(frozen=True)
class DriftReport:
    """How far an archive's queries and clips have gone."""

    collection: str
    encoder_version: str
    is_accepted: bool
    """Whether queries were compared with accepted ones, not with held-out captions."""
    queries: QueryDrift | None
    """None where the collection has nothing to compare with."""
    clips: ClipDrift

    def over(self, max_psi: float) -> list[str]:
        """Return the measures above `max_psi` with their values; measures that were not taken are left out."""
        psi = {**(self.queries.psi if self.queries else {}), **({} if self.clips.psi is None else {"clips": self.clips.psi})}
        return [f"{name} {value:.3f}" for name, value in psi.items() if value > max_psi]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values, for reports/drift.json."""
        queries: dict[str, Any] = {"too_few": WHY_NOT_CALIBRATED}
        if self.queries is not None:
            found = self.queries
            queries = {
                "reference": "accepted queries" if self.is_accepted else "held-out captions",
                "num_reference": found.num_reference, "num_observed": found.num_observed, "num_needed": found.num_needed,
                "too_few": found.too_few, "psi": {name: round(value, 4) for name, value in found.psi.items()},
                "levels": found.levels, "mmd": asdict(found.mmd) if found.mmd else None, "differs": found.differs,
            }
        return {
            "collection": self.collection, "encoder_version": self.encoder_version, "queries": queries,
            "clips": {**asdict(self.clips), "level": self.clips.level},
        }


def measure_drift(archive: Archive) -> DriftReport:
    """Compare recent queries with the reference, and embedded clips with published ones.

    Raises:
        ArtifactError: nothing was published, or a file is broken.
        ServiceError: the Qdrant server does not answer.
    """
    metadata, calibration = _live(archive)
    published = calibration.reference if calibration else None
    reference = reference_of(published, archive.queries)
    queries = None if reference is None else compare(reference, _seen(archive, reference))
    spec = read_json(archive.embed / "embeddings.json") or {}
    clips = clip_drift(
        archive.backend(), ALIAS, archive.embed, archive.cut,
        cut=archive.section(PublishSettings).cut,
        encoder_version=str(spec.get("encoder_version", "unknown")),
    )
    return DriftReport(metadata.name, metadata.encoder_version, reference is not published, queries, clips)


def write_drift(report: DriftReport, root: Path) -> Path:
    """Write `reports/drift.json`: whole or absent.

    Raises:
        OSError: the disk does not take it.
    """
    path = root / REPORT_FILE
    write_json(path, report.to_json())
    return path


def accept(archive: Archive) -> int:
    """Make recent queries the reference of this model, and return their number.

    Raises:
        ArtifactError: nothing was published or calibrated, or there are too few queries.
    """
    _, calibration = _live(archive)
    if calibration is None or calibration.reference is None:
        raise ArtifactError(
            WHY_NOT_CALIBRATED, code="not-calibrated",
            remedy="Publish with captions, so that `calibrate` has something to fit on",
        )
    seen = _seen(archive, calibration.reference)
    found = compare(calibration.reference, seen, kernel=False)
    if seen is None or found.too_few:
        raise ArtifactError(
            found.too_few or "no query was seen",
            code="too-few-queries", remedy="Wait until more was asked: the service leaves what it sees "
            f"in {archive.queries}",
        )
    write_sample(archive.queries / ACCEPTED_FILE, seen)
    return len(seen.rows)


def _live(archive: Archive) -> tuple[CollectionMetadata, Calibration | None]:
    """Return the live collection and its calibration."""
    backend = archive.backend()
    name = require_published(backend, ALIAS).collection
    metadata = next((metadata for metadata in backend.collections() if metadata.name == name), None)
    if metadata is None:
        raise ArtifactError(
            f"{name} is live, and not in the index", code="collection-absent",
            remedy="`vidseek index rollback`, or publish again",
        )
    return metadata, Calibration.from_json(metadata.calibration) if metadata.calibration else None


def _seen(archive: Archive, reference: QuerySample) -> QuerySample | None:
    return read_seen(archive.queries, encoder_version=reference.encoder_version, axes=reference.axes)
