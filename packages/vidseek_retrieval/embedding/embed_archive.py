"""All of an archive that a bundle turns into vectors: the clips, and what was written about those that are published."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
    """Write `out/parts/`, `out/embeddings.json` and `out/texts/`; what is there already is kept.

    Args:
        bundle: The encoder's folder.
        tables: Clips, frames, and what was written.
        out: The folder for all three.
        variant: Which precision.
        batch: Clips, or texts, in one run of the encoder, at most.
        cut: What was written about clips of this cut mode is embedded.
        ray: The actors that embed the clips; texts are embedded here. None: all of it here.

    Raises:
        ArtifactError: the bundle or a table is missing or broken, or the bundle lacks the variant.
        ConfigError: an argument is out of range, or Ray is wanted and not installed.
        ServiceError: Ray does not answer.
    """
    executor = executor_on_ray(bundle, variant=variant, settings=ray) if ray else None
    encoder = Encoder.load(bundle, variant=variant, batch=batch, towers=("text",) if executor else ("text", "video"))
    clips = embed_archive(tables.frames, encoder, out=out, batch=batch, executor=executor)
    texts = clip_texts(tables.ingest, tables.cut, tables.caption, cut=cut)
    return clips, embed_texts([each.spoken for each in texts.values()], encoder, out=out, batch=batch)
