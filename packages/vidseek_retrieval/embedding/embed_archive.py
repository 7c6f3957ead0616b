"""Embeds everything of an archive that a search needs: the clips, and the texts of published clips."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vidseek_encoder.choices import usable_cores
from vidseek_encoder.encoder import Encoder
from vidseek_retrieval.embedding.embed_clips import EmbedReport, embed_archive
from vidseek_retrieval.embedding.embed_texts import TextReport, clip_texts, embed_texts
from vidseek_retrieval.embedding.on_ray import executor_on_ray
from vidseek_retrieval.settings import RaySettings


@dataclass(frozen=True)
class Tables:
    """The folders of the stages whose tables are read."""

    ingest: Path
    cut: Path
    frames: Path
    caption: Path


def embed_all(
    bundle: Path, tables: Tables, *, out: Path, variant: str, batch: int, cut: str, ray: RaySettings | None = None
) -> tuple[EmbedReport, TextReport]:
    """Write `out/parts/`, `out/texts/` and `out/embeddings.json`, which lists them; only what is missing is embedded.

    Args:
        bundle: The encoder's folder.
        tables: Clips, frames and texts of the archive.
        out: Output folder.
        variant: Precision: `fp32`, `fp16` or `int8`.
        batch: Most clips that are read at once, and clips or texts in one run of the encoder on a GPU; at least 1.
        cut: Cut mode of the clips whose texts are embedded.
        ray: Settings of Ray actors that embed the clips; None embeds them in this process. Texts are always embedded here.

    Raises:
        ArtifactError: the bundle or a table is missing or broken, or the bundle lacks the variant.
        ConfigError: an argument is out of range, or Ray is requested and not installed.
        ServiceError: Ray does not answer.
    """
    executor = executor_on_ray(bundle, variant=variant, settings=ray) if ray else None
    encoder = Encoder.load(
        bundle, variant=variant, batch=batch, threads=1, lanes=usable_cores(),
        towers=("text",) if executor else ("text", "video"),
    )
    clips = embed_archive(tables.frames, encoder, out=out, batch=batch, executor=executor)
    texts = clip_texts(tables.ingest, tables.cut, tables.caption, cut=cut)
    return clips, embed_texts([each.spoken for each in texts.values()], encoder, out=out)
