"""The gate before publishing."""

from pipelines.params import load_params
from pipelines.stage import EMBED, ENCODER, FRAMES, INDEX, REPORTS, run_stage
from vidseek.archive import ALIAS
from vidseek_encoder.bundle import EncoderSpec
from vidseek_quality.gates import check_embeddings
from vidseek_quality.thresholds import EmbeddingThresholds
from vidseek_retrieval.homes import open_home
from vidseek_retrieval.published import published_sample


def main() -> str:
    """The check_embeddings stage."""
    params, spec = load_params(), EncoderSpec.load(ENCODER)
    thresholds = EmbeddingThresholds(**params.gates.embeddings.model_dump())
    result = check_embeddings(
        EMBED / "parts", FRAMES / "frames.parquet", out=REPORTS / "gates" / "embeddings", dimension=spec.dimension,
        encoder_version=spec.encoder_version, variant=params.embed.variant, thresholds=thresholds,
        published=published_sample(open_home(INDEX), ALIAS, num=thresholds.num_sampled),
    )
    return f"passed; {' '.join(result.notes)}" if result.notes else "passed"


if __name__ == "__main__":
    run_stage(main)
