"""Embed every clip of the archive."""

from pipelines.params import load_params
from pipelines.stage import EMBED, ENCODER, FRAMES, run_stage
from vidseek_encoder.encoder import Encoder
from vidseek_retrieval.embed import embed_archive


def main() -> str:
    """The embed stage."""
    params = load_params().embed
    encoder = Encoder.load(ENCODER, variant=params.variant, batch=params.batch)
    report = embed_archive(FRAMES, encoder, out=EMBED, batch=params.batch)
    return f"{report.num_clips} clips in {report.num_parts} parts, {report.num_written} of them new"


if __name__ == "__main__":
    run_stage(main)
