"""Embed every clip of the archive, and what was written about those that are published."""

from pipelines.params import load_params
from pipelines.stage import CAPTION, CUT, EMBED, ENCODER, FRAMES, INGEST, run_stage
from vidseek_encoder.encoder import Encoder
from vidseek_retrieval.embed import embed_archive
from vidseek_retrieval.on_ray import RaySettings, executor_on_ray
from vidseek_retrieval.texts import clip_texts, embed_texts


def main() -> str:
    """The embed stage."""
    params = load_params()
    variant, batch, executor = params.embed.variant, params.embed.batch, None
    if params.embed.executor == "ray":
        executor = executor_on_ray(ENCODER, variant=variant, settings=RaySettings(**params.embed.ray.model_dump()))
    # The actors see; what was written is embedded here.
    encoder = Encoder.load(ENCODER, variant=variant, batch=batch, towers=("text",) if executor else ("text", "video"))
    report = embed_archive(FRAMES, encoder, out=EMBED, batch=batch, executor=executor)
    texts = clip_texts(INGEST, CUT, CAPTION, cut=params.publish.cut)
    written = embed_texts([each.spoken for each in texts.values()], encoder, out=EMBED, batch=batch)
    return (
        f"{report.num_clips} clips in {report.num_parts} parts, {report.num_written} of them new; "
        f"{written.num_texts} texts in {written.num_parts} parts, {written.num_written} of them new"
    )


if __name__ == "__main__":
    run_stage(main)
