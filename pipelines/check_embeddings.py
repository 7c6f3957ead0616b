"""The gate before publishing."""

from pipelines.stage import PATHS, run_stage
from vidseek.archive import ALIAS
from vidseek.params import load_params
from vidseek_encoder.bundle import EncoderSpec
from vidseek_quality.gates import check_embeddings
from vidseek_retrieval.index.live_sample import published_sample
from vidseek_retrieval.index.open_backend import open_backend


def main() -> str:
    """The check_embeddings stage."""
    params, spec = load_params(), EncoderSpec.load(PATHS.encoder)
    thresholds = params.gates.embeddings
    result = check_embeddings(
        PATHS.embed / "parts", PATHS.frames / "frames.parquet", out=PATHS.reports / "gates" / "embeddings",
        dimension=spec.dimension, encoder_version=spec.encoder_version, variant=params.embed.variant, thresholds=thresholds,
        published=published_sample(open_backend(PATHS.index), ALIAS, num=thresholds.num_sampled),
    )
    return f"passed; {' '.join(result.notes)}" if result.notes else "passed"


if __name__ == "__main__":
    run_stage(main)
