"""Embed every clip of the archive, and what was written about those that are published."""

from pipelines.stage import PATHS, run_stage
from vidseek.params import load_params
from vidseek_retrieval.embedding.embed_archive import Tables, embed_all


def main() -> str:
    """The embed stage."""
    params = load_params()
    report, written = embed_all(
        PATHS.encoder, Tables(PATHS.ingest, PATHS.cut, PATHS.frames, PATHS.caption), out=PATHS.embed,
        variant=params.embed.variant, batch=params.embed.batch, cut=params.publish.cut,
        ray=params.embed.ray if params.embed.executor == "ray" else None,
    )
    return (
        f"{report.num_clips} clips in {report.num_parts} parts, {report.num_embedded} of them new; "
        f"{written.num_texts} texts in {written.num_parts} parts, {written.num_embedded} of them new"
    )


if __name__ == "__main__":
    run_stage(main)
