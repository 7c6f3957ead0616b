"""The model card of an encoder bundle: what it was made of, and how near each variant is to torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidseek_encoder.bundle import EncoderSpec


def write_card(folder: Path, spec: EncoderSpec, parities: Mapping[str, Mapping[str, Any]], *, made_of: str) -> None:
    """Write README.md into the bundle's folder.

    Args:
        folder: Of the bundle.
        spec: Its encoder.json.
        parities: Its parity.json.
        made_of: What the backbone was merged with, and why.
    """
    rows = "\n".join(
        f"| {variant} | {'yes' if not parity['failed'] else 'no: ' + '; '.join(parity['failed'])} | {parity['recipe']} | "
        f"{parity['size_mb']} | {parity['min_cosine_video']} | {parity['min_cosine_text']} | "
        f"{parity['top_10_overlap']} | {parity['r1_difference_low']} |"
        for variant, parity in parities.items()
    )
    fp32 = parities["fp32"]
    seen = "frames, one by one; a clip is the mean of its frames" if spec.vision == "frame" else "clips as a whole"
    (folder / "README.md").write_text(f"""# Encoder {spec.encoder_version}

Made by vidseek from `{spec.backbone}` ({spec.family}) {made_of}.

- Vectors: {spec.dimension} numbers, unit length; clips of {spec.frames} frames of {spec.side} pixels;
  texts of {spec.context} tokens. It sees {seen}.
- Vectors of another `encoder_version` cannot be compared with these.

Each variant against torch in fp32, on {fp32['num_clips']} clips and {fp32['num_texts']} texts of this archive, run by
ONNX Runtime on a CPU: least cosine, agreement of the top 10, lower end of the interval of the difference in R@1.

int8 is made by the first of these recipes that is near enough: all products that can be in 8 bits; sparing, all but
those that do most harm; static, all on scales that were fixed beforehand.

| variant | in the bundle | recipe | MB | clips | texts | top 10 | R@1 |
|---|---|---|---|---|---|---|---|
{rows}
""", encoding="utf-8")
