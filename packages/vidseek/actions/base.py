"""Publishes the base model beside the adapted one: exported without adapter, embedded, and under its own alias.

It is not a stage, since most archives do without it, and it costs as much as export, embed and publish together. Its files
are in .vidseek/base, its alias is `base`; output of the stages is read but never changed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vidseek.archive import BASE_ALIAS, Archive
from vidseek_media.errors import GateFailed, ServiceError

if TYPE_CHECKING:
    from vidseek_retrieval.index.collection_metadata import CollectionMetadata
    from vidseek_training.export.parity import Parity


@dataclass(frozen=True)
class BaseReport:
    """The result of a run."""

    encoder_version: str
    collection: str
    num_clips: int
    """In the collection."""
    exported: bool
    """False where the bundle was there already; so the next two."""
    num_embedded: int
    """Clips and texts that this run embedded."""
    built: bool
    removed: tuple[str, ...]
    """Collections that no alias needs any more: earlier ones of the base, that is."""

    @property
    def did_something(self) -> bool:
        """False where all of it was there."""
        return self.exported or self.num_embedded > 0 or self.built


def make_base(archive: Archive) -> BaseReport | None:
    """Export, embed and publish the model that the champion was trained from; existing parts are kept.

    Returns:
        None if the champion is the base itself, which is live already.

    Raises:
        ArtifactError: a stage has not run, or its output is broken.
        ConfigError: params.yaml is wrong in a section that these stages read.
        GateFailed: the exported vectors differ from torch's, or the collection does not verify.
        ServiceError: a publish is running, the disk is full, or another program does not answer.
    """
    # As the stages do: what was trained on is here already.
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from vidseek_retrieval.dedup.video_matches import read_duplicates
    from vidseek_retrieval.embedding.embed_archive import Tables, embed_all
    from vidseek_retrieval.index.open_backend import open_backend
    from vidseek_retrieval.index.publish import publish
    from vidseek_retrieval.settings import EmbedSettings, PublishSettings, SearchSettings
    from vidseek_training.evaluation.champion import read_selected
    from vidseek_training.export.onnx_export import export_base
    from vidseek_training.settings import ExportSettings

    selected = read_selected(archive.champion)
    if not selected.adapter_sha256:
        return None
    export, embed = archive.section(ExportSettings), archive.section(EmbedSettings)
    settings = archive.section(PublishSettings)
    # No other variant is needed than those that are embedded with and searched with.
    wanted = {"fp32", embed.variant, archive.section(SearchSettings).variant}
    tables = Tables(archive.ingest, archive.cut, archive.frames, archive.caption)
    own = archive.seen_by("base")
    spec, parities, exported = export_base(
        backbone=_found_from(archive.root, selected.backbone), pairs=archive.pairs_table, frames=tables.frames,
        out=own.bundle, limits={name: export.parity.limits(name) for name in wanted}, max_clips=export.max_clips,
    )
    _require_variants(parities, wanted)
    clips, texts = embed_all(
        own.bundle, tables, out=archive.base / "embed", variant=embed.variant, batch=embed.batch, cut=settings.cut,
        ray=embed.ray if embed.executor == "ray" else None,
    )
    done = publish(
        archive.base / "embed", tables.cut, tables.ingest, tables.caption, archive.segment_dirs,
        index=open_backend(archive.index, settings.server), alias=BASE_ALIAS,
        # It is held against what is live now: nobody goes back to an earlier one.
        settings=settings.model_copy(update={"keep_previous": 0}),
        duplicates=read_duplicates(archive.duplicates), fields_dir=archive.fields,
    )
    return BaseReport(
        spec.encoder_version, done.collection, done.num_points, exported,
        clips.num_embedded + texts.num_embedded, done.built, done.removed,
    )


def remove_base(archive: Archive) -> list[str]:
    """Take the base away again: its alias, its collections (whose names are given), its bundle and its embeddings.

    Raises:
        ServiceError: a publish runs, or the disk does not let go.
    """
    from vidseek_retrieval.index.aliases import retract

    removed = retract(archive.backend(), alias=BASE_ALIAS)  # first, so that a service stops asking for what goes next
    try:
        shutil.rmtree(archive.base)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ServiceError(
            f"{error.filename or archive.base}: {error.strerror}",
            code="base-not-removed", remedy="Mend the rights, then remove it again"
        ) from error
    return removed


def base_facts(archive: Archive) -> CollectionMetadata | None:
    """Return the metadata of the base's collection; None if the base is not published.

    Raises:
        ArtifactError: the index is broken.
        ServiceError: the Qdrant server does not answer.
    """
    backend = archive.backend()
    alias = backend.aliases().get(BASE_ALIAS)
    if alias is None or not archive.seen_by("base").bundle.is_dir():
        return None
    return next((metadata for metadata in backend.collections() if metadata.name == alias.collection), None)


def _found_from(root: Path, backbone: str) -> str:
    """Return the base's name; a folder is named as from the archive, in which the stages run."""
    folder = root / backbone
    return str(folder) if folder.is_dir() else backbone


def _require_variants(parities: Mapping[str, Parity], wanted: Iterable[str]) -> None:
    for name in sorted(wanted):
        if failed := parities[name].failed:
            raise GateFailed(
                f"the base in {name} is not near enough to the base in torch: {'; '.join(failed)}", code="export-differs",
                remedy="Set embed.variant and search.variant in params.yaml to fp32, `dvc repro`, and run it again",
            )
