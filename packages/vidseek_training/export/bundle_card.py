"""The model card of an encoder bundle: its origin, and how close each variant is to torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidseek_encoder.bundle import EncoderSpec


def write_card(folder: Path, spec: EncoderSpec, parities: Mapping[str, Mapping[str, Any]], *, made_of: str) -> None:
    """Write README.md into the bundle's folder.

    Args:
        folder: The bundle's folder.
        spec: Content of its encoder.json.
        parities: Content of its parity.json.
        made_of: The adapter that was merged, and why.
    """
    rows = "\n".join(
        f"| {variant} | {'yes' if not parity['failed'] else 'no: ' + '; '.join(parity['failed'])} | {parity['recipe']} | "
        f"{parity['size_mb']} | {parity['min_cosine_video']} | {parity['min_cosine_text']} | "
        f"{parity['top_10_overlap']} | {parity['r1']} | {parity['num_lost']}, {parity['num_won']} | "
        f"{parity['r1_difference_low']} | {parity['r1_difference_low_by_video']} |"
        for variant, parity in parities.items()
    )
    unjudged = "".join(
        f"- {variant}: {reason}\n" for variant, parity in parities.items() for reason in parity["not_judged"]
    )
    unjudged = f"\nNot judged, and kept for cosine, overlap and what was observed:\n\n{unjudged}" if unjudged else ""
    fp32 = parities["fp32"]
    seen = "frames, one by one; a clip is the mean of its frames" if spec.vision == "frame" else "clips as a whole"
    (folder / "README.md").write_text(f"""# Encoder {spec.encoder_version}

Made by vidseek from `{spec.backbone}` ({spec.family}) {made_of}.

- Vectors: {spec.dimension} numbers, unit length; clips of {spec.num_frames} frames of {spec.image_size_px} pixels;
  texts of {spec.context_length} tokens. It sees {seen}.
- Vectors of another `encoder_version` cannot be compared with these.

Each variant against torch in fp32, on {fp32['num_clips']} clips and {fp32['num_texts']} texts of this archive
({fp32['split']}, {fp32['num_groups']} groups of videos), run by ONNX Runtime on a CPU: least cosine, agreement of the
top 10, R@1 (in torch {fp32['r1_torch']}), captions lost and won at the first place, and the exact lower bound at 97.5 %
of the difference in R@1, over clips and over groups of videos. A variant that is left out shows the last of its recipes.

int8 is made by the first of these recipes that is near enough on captions that do not judge it: all products that can be
in 8 bits; sparing, all but those that do most harm; static, all on scales that were fixed beforehand.

| variant | in the bundle | recipe | MB | clips | texts | top 10 | R@1 | lost, won | low | low by video |
|---|---|---|---|---|---|---|---|---|---|---|
{rows}
{unjudged}""", encoding="utf-8")
