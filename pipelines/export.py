"""Export the champion to ONNX, behind the parity gate."""

from pipelines.params import load_params
from pipelines.stage import CHAMPION, ENCODER, FRAMES, PAIRS, run_stage
from vidseek_training.export import ParityLimits, export_champion


def main() -> str:
    """The export stage."""
    params = load_params()
    limits = ParityLimits(params.export.min_cosine, params.export.min_overlap, params.export.min_r1_difference)
    spec, parity = export_champion(
        CHAMPION, backbone=params.backbone.name, pairs=PAIRS / "pairs.parquet", frames=FRAMES, out=ENCODER,
        limits=limits, max_clips=params.export.max_clips,
    )
    return (
        f"encoder {spec.encoder_version}; least cosine to torch {parity.min_cosine_video} (clips), "
        f"{parity.min_cosine_text} (texts), top 10 agree to {parity.top_10_overlap:.2%}"
    )


if __name__ == "__main__":
    run_stage(main)
