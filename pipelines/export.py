"""Export the champion to ONNX, behind the parity gate."""

from pipelines.stage import PATHS, run_stage
from vidseek.params import load_params
from vidseek_training.export.onnx_export import export_champion
from vidseek_training.hub import pinned


def main() -> str:
    """The export stage."""
    params = load_params()
    spec, parities = export_champion(
        PATHS.champion, backbone=pinned(params.backbone.name), pairs=PATHS.pairs_table, frames=PATHS.frames,
        out=PATHS.encoder,
        limits={name: params.export.parity.limits(name) for name in ("fp32", *params.export.variants)},
        max_clips=params.export.max_clips,
    )
    least = ", ".join(
        f"{name} {parity.min_cosine}"
        + (f" (left out: {'; '.join(parity.failed)})" if parity.failed else "")
        + (f" ({parity.recipe}, after {'; '.join(parity.tried)})" if parity.tried and not parity.failed else "")
        for name, parity in parities.items()
    )
    unjudged = sorted({reason for parity in parities.values() if not parity.failed for reason in parity.not_judged})
    note = f"; not judged: {'; '.join(unjudged)}" if unjudged else ""
    return f"encoder {spec.encoder_version}; least cosine to torch: {least}{note}"


if __name__ == "__main__":
    run_stage(main)
