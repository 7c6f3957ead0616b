"""`vidseek index`: the collections, and which is live."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidseek import printing
from vidseek_media.errors import ArtifactError

AliasName = Annotated[str, typer.Option("--alias", help="The name that searches ask for.")]


def index_list(as_json: printing.AsJson = False) -> None:
    """List the collections: which is live, and which are kept for a rollback."""
    from vidseek.archive import Archive
    from vidseek_retrieval.index.aliases import list_collections

    collections = list_collections(Archive.here().backend())
    if as_json:
        printing.print_json([
            {**one.metadata.to_json(), "live_as": list(one.live_as), "kept_for": list(one.kept_for)} for one in collections
        ])
        return
    printing.show(printing.table(
        ["collection", "clips", "made", "live as", "kept for"],
        [(one.metadata.name, str(one.metadata.num_points), one.metadata.created_at[:19].replace("T", " "),
          printing.escape(", ".join(one.live_as)), printing.escape(", ".join(one.kept_for))) for one in collections],
    ), nothing="Nothing is published yet: run `dvc repro`.")


def index_verify(
    collection: Annotated[str | None, typer.Argument(help="By default the live one.")] = None,
    alias: AliasName = "clips",
    as_json: printing.AsJson = False,
) -> None:
    """Check every file of a collection, count it, and compare approximate with exact searches."""
    from vidseek.archive import Archive
    from vidseek_retrieval.index.aliases import verify

    verification = verify(Archive.here().backend(), alias=alias, collection=collection)
    printing.report(verification, as_json=as_json)
    if not verification.passed:
        raise ArtifactError(
            f"{verification.collection} does not verify: {'; '.join(verification.problems)}", code="collection-not-verified",
            remedy="`vidseek index rollback`, or `dvc repro --force --single-item publish`, which builds it again",
        )


def index_rollback(alias: AliasName = "clips", as_json: printing.AsJson = False) -> None:
    """Make the collection live that was live before."""
    from vidseek.archive import Archive
    from vidseek_retrieval.index.aliases import rollback

    printing.report({"alias": alias, "collection": rollback(Archive.here().backend(), alias=alias)}, as_json=as_json)


def index_use(
    collection: Annotated[str, typer.Argument(help="As `vidseek index list` names it.")],
    alias: AliasName = "clips",
    as_json: printing.AsJson = False,
) -> None:
    """Verify a collection that is there, and make it live: where the table of aliases was lost, say."""
    from vidseek.archive import Archive
    from vidseek_retrieval.index.aliases import use_collection

    printing.report(use_collection(Archive.here().backend(), collection, alias=alias), as_json=as_json)


def index_compact(alias: AliasName = "clips", as_json: printing.AsJson = False) -> None:
    """Build the live points at once again: into one graph, without what publishes removed. Searches go on meanwhile."""
    from vidseek.archive import Archive
    from vidseek_retrieval.index.publish import compact
    from vidseek_retrieval.settings import PublishSettings

    archive = Archive.here()
    done = compact(archive.backend(), alias=alias, settings=archive.section(PublishSettings))
    printing.report({"alias": alias, "collection": done.collection, "num_points": done.metadata.num_points,
             "built": done.built, "recall_at_10": done.verification.recall_at_10}, as_json=as_json)


def index_prune(as_json: printing.AsJson = False) -> None:
    """Remove what no alias points to or keeps for a rollback."""
    from vidseek.archive import Archive
    from vidseek_retrieval.index.aliases import prune

    removed = prune(Archive.here().backend())
    words = "\n".join(f"removed {name}" for name in removed) or "Nothing to remove."
    printing.tell({"removed": removed}, words, as_json=as_json)


def index_export(
    file: Annotated[Path, typer.Argument(help="A Parquet file to write.")],
    collection: Annotated[str | None, typer.Option(help="By default the live one.")] = None,
    alias: AliasName = "clips",
    as_json: printing.AsJson = False,
) -> None:
    """Write a collection to one file. The index is on the server that QDRANT_URL names, or else in the folder `index`."""
    from vidseek.archive import Archive
    from vidseek_retrieval.index.exchange.transfer import export_collection

    done = export_collection(Archive.here().backend(), file, alias=alias, collection=collection)
    printing.report({"collection": done.collection, "num_points": done.num_points, "file": str(done.path)}, as_json=as_json)


def index_import(
    file: Annotated[Path, typer.Argument(help="A file that `vidseek index export` wrote.")],
    alias: AliasName = "clips",
    as_json: printing.AsJson = False,
) -> None:
    """Build the collection of FILE beside the live one, verify it, and make it live."""
    from vidseek.archive import BASE_ALIAS, Archive
    from vidseek_encoder.bundle import EncoderSpec
    from vidseek_retrieval.index.exchange.transfer import import_collection

    here = Archive.here()
    bundle = here.seen_by("base" if alias == BASE_ALIAS else "vidseek").bundle
    version = EncoderSpec.load(bundle).encoder_version if bundle.exists() else None
    done = import_collection(here.backend(), file, alias=alias, encoder_version=version)
    printing.report({"collection": done.collection, "num_points": done.verification.num_points, "built": done.built,
             "moved": done.moved, "recall_at_10": done.verification.recall_at_10}, as_json=as_json)
