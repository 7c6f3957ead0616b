"""How much `bench.gpu.check` runs: on a GPU, and in a test on the CPU."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.gpu import towers as gpu_towers
from bench.gpu import training as gpu_training
from bench.gpu.models import B16, B32, EXPORTED, L14, TINY_CLIP, TINY_XCLIP, XCLIP_B32


@dataclass(frozen=True)
class Sizes:
    """Of all parts."""

    backbones: tuple[str, ...]
    paths: tuple[str, ...]
    """Of `gpu_training.PATHS`."""
    training: gpu_training.Sizes
    towers: gpu_towers.Sizes


FULL = Sizes(
    ("vidseek/clip-tiny", "vidseek/viclip-tiny"), tuple(gpu_training.PATHS),
    gpu_training.Sizes(
        replace(B32, frames=4), curve_pairs=32, curve_batch=8, curve_steps=10, speed=(
            (B32, 64, None, "fp32"), (B32, 64, None, "bf16"), (B32, 128, 32, "bf16"), (B16, 64, 16, "bf16"),
            (L14, 32, 8, "bf16"), (XCLIP_B32, 64, 16, "bf16"),
        ), speed_steps=3,
    ),
    gpu_towers.Sizes(
        (B32, B16, L14, XCLIP_B32), batches=(1, 32, 256), clips=(1, 32), exported=EXPORTED, exported_batches=(1, 32),
        seconds=0.1, slow={("ViT-L/14", "fp32"): 32},
    ),
)
TINY = Sizes(
    ("vidseek/clip-tiny",), ("plain", "replay with anchor"),
    gpu_training.Sizes(
        TINY_CLIP, curve_pairs=8, curve_batch=4, curve_steps=3,
        speed=((TINY_CLIP, 4, None, "fp32"), (TINY_CLIP, 4, 2, "fp32")), speed_steps=2,
    ),
    gpu_towers.Sizes(
        (TINY_CLIP, TINY_XCLIP), batches=(1, 2), clips=(1, 2), exported=TINY_CLIP, exported_batches=(1, 2), seconds=0.0,
        slow={},
    ),
)
