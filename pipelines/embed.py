"""Embed every clip of the archive, and what was written about those that are published."""

from pipelines.params import load_params
from pipelines.stage import CAPTION, CUT, EMBED, ENCODER, FRAMES, INGEST, run_stage
from vidseek_retrieval.embed_all import Tables, embed_all
from vidseek_retrieval.on_ray import RaySettings


def main() -> str:
    """The embed stage."""
    params = load_params()
    report, written = embed_all(
        ENCODER, Tables(INGEST, CUT, FRAMES, CAPTION), out=EMBED, variant=params.embed.variant, batch=params.embed.batch,
        cut=params.publish.cut,
        ray=RaySettings(**params.embed.ray.model_dump()) if params.embed.executor == "ray" else None,
    )
    return (
        f"{report.num_clips} clips in {report.num_parts} parts, {report.num_written} of them new; "
        f"{written.num_texts} texts in {written.num_parts} parts, {written.num_written} of them new"
    )


if __name__ == "__main__":
    run_stage(main)
