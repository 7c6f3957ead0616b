"""What `bench.gpu.check` measures with: models of published shapes with random weights, pairs, and a clock for a GPU."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from transformers import CLIPConfig, CLIPModel, XCLIPConfig, XCLIPModel

from bench.shapes import FRAMES, spec_of, whole_words
from vidseek_encoder.tokenize import Tokenizer
from vidseek_training.backbones import Backbone
from vidseek_training.backbones.clip import FrameAveragedCLIP
from vidseek_training.backbones.xclip import XCLIP
from vidseek_training.dataset.pair_set import PairSet

_COLOURS = {
    "red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 230), "white": (240, 240, 240),
    "yellow": (230, 220, 40), "black": (15, 15, 15), "purple": (160, 40, 190), "orange": (240, 140, 30),
}


@dataclass(frozen=True)
class Tower:
    """The sizes of a transformer."""

    width: int
    layers: int
    heads: int

    def config(self, **others: Any) -> dict[str, Any]:
        """As transformers names them."""
        return {
            "hidden_size": self.width, "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "intermediate_size": 4 * self.width, **others,
        }


@dataclass(frozen=True)
class Shape:
    """The sizes of a CLIP, or of an X-CLIP."""

    name: str
    vision: Tower
    text: Tower
    patch: int
    dimension: int = 512
    side: int = 224
    frames: int = FRAMES
    context: int = 77
    family: str = "clip"


B32 = Shape("ViT-B/32", Tower(768, 12, 12), Tower(512, 12, 8), patch=32)
B16 = Shape("ViT-B/16", Tower(768, 12, 12), Tower(512, 12, 8), patch=16)
L14 = Shape("ViT-L/14", Tower(1024, 24, 16), Tower(768, 12, 12), patch=14, dimension=768)
XCLIP_B32 = Shape("X-CLIP B/32", Tower(768, 12, 12), Tower(512, 12, 8), patch=32, family="xclip")
EXPORTED = replace(B32, name="ViT-B/32 of 3 layers", vision=Tower(768, 3, 12), text=Tower(512, 3, 8))
"""What is exported in a minute and fits beside the rest: an export of twelve layers took longer than was left."""
TINY_CLIP = Shape("tiny", Tower(32, 2, 2), Tower(32, 2, 2), patch=16, dimension=16, side=32, frames=2, context=20)
TINY_XCLIP = Shape(
    "tiny X-CLIP", Tower(32, 2, 2), Tower(32, 2, 2), patch=16, dimension=16, side=32, frames=2, context=20, family="xclip"
)


def build(shape: Shape, words: Path) -> Backbone:
    """A model of `shape` on the CPU, in evaluation mode, the same weights each time; `words` gets its tokenizer."""
    if not words.is_file():
        whole_words().save(str(words))
    torch.manual_seed(0)
    text = shape.text.config(
        max_position_embeddings=shape.context, projection_dim=shape.dimension, bos_token_id=1, eos_token_id=3, pad_token_id=0
    )
    vision = shape.vision.config(image_size=shape.side, patch_size=shape.patch, projection_dim=shape.dimension)
    spec = spec_of(
        shape.family, words, dimension=shape.dimension, context=shape.context, frames=shape.frames, side=shape.side
    )
    if shape.family == "xclip":
        mit = {"mit_hidden_size": shape.dimension, "mit_intermediate_size": 4 * shape.dimension, "num_frames": shape.frames}
        if shape.dimension < 64:
            mit |= {"mit_num_attention_heads": 2}
        config = XCLIPConfig(
            text_config=text, vision_config=vision | mit, projection_dim=shape.dimension,
            prompt_num_attention_heads=8 if shape.dimension >= 64 else 2,
        )
        config._attn_implementation = "sdpa"
        return XCLIP(spec, XCLIPModel(config)).eval()
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=shape.dimension)
    config._attn_implementation = "sdpa"
    return FrameAveragedCLIP(spec, CLIPModel(config)).eval()


def copy_on(model: Backbone, device: torch.device, dtype: torch.dtype = torch.float32) -> Backbone:
    """A copy of `model` there."""
    return copy.deepcopy(model).to(device, dtype)


def coloured_pairs(model: Backbone, count: int, *, num_videos: int | None = None, words: bool = True) -> PairSet:
    """Clips of a square that moves over a ground, all different, with captions.

    Args:
        model: Whose tokenizer, sizes and number of frames count.
        count: At most 448: eight colours on seven others, in eight places.
        num_videos: Of which the clips are; as many as clips by default.
        words: Whether captions are of `whole_words`; else they are English.
    """
    rng = np.random.default_rng(0)
    names = list(_COLOURS)
    kinds = [(one, other, place) for place in range(8) for one in names for other in names if one != other]
    frames = np.empty((count, model.spec.num_frames, model.spec.image_size_px, model.spec.image_size_px, 3), np.uint8)
    rows = []
    for number, (colour, ground, place) in enumerate(kinds[:count]):
        _draw(frames[number], _COLOURS[colour], _COLOURS[ground], place, rng)
        numbers = np.random.default_rng(number).integers(1000, size=14)
        caption = " ".join(f"word{word}" for word in numbers) if words else (
            f"a {colour} square moves over {ground}, number {place}"
        )
        video = number if num_videos is None else number % num_videos
        rows.append((f"c{number}", f"v{video}", caption, "train", "default", "", ""))
    table = pd.DataFrame(rows, columns=["clip_id", "video_id", "caption", "split", "gallery", "contrast", "axis"])
    tokenizer = Tokenizer.load(model.spec.tokenizer, context=model.spec.context_length, pad_id=model.spec.pad_id)
    ids = tokenizer.encode(list(table.caption)) if count else np.empty((0, model.spec.context_length), np.int64)
    return PairSet(table, frames, ids, ids)


def _draw(
    frames: NDArray[np.uint8], colour: tuple[int, int, int], ground: tuple[int, int, int], place: int,
    rng: np.random.Generator,
) -> None:
    side = frames.shape[1]
    size, top = side // 4, place * side // 11
    for time_, frame in enumerate(frames):
        left = time_ * (side - size) // max(1, len(frames) - 1)
        frame[:] = ground
        frame[top : top + size, left : left + size] = colour
    noise = rng.integers(0, 24, frames.shape, dtype=np.uint8)
    np.add(frames, noise, out=frames, where=frames < 230)


def random_pixels(count: int, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Of `count` rows of `shape`, on the device."""
    generator = torch.Generator(device).manual_seed(count)
    return torch.randn(count, *shape, device=device, generator=generator).to(dtype)


def median_ms(
    run: Callable[[], object], device: torch.device, *, seconds: float = 0.25, least: int = 3, most: int = 50
) -> float:
    """The median of calls that last `seconds` together; one call before them warms up.

    On CUDA by its events, each call waited for: what one caller waits, the launches included.
    """
    run()
    synchronize(device)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < least or (time.perf_counter() < end and len(times) < most):
        times.append(_once_ms(run, device))
    return statistics.median(times)


def _once_ms(run: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        began = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - began)
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    run()
    end.record()
    torch.cuda.synchronize(device)
    return float(start.elapsed_time(end))


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def peak_gib(device: torch.device) -> Iterator[dict[str, float]]:
    """Fills `peak_gib` when the block ends: the most memory of the device that tensors took; nothing on a CPU."""
    found: dict[str, float] = {}
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    yield found
    if device.type == "cuda":
        found["peak_gib"] = round(torch.cuda.max_memory_allocated(device) / 2**30, 2)


@contextmanager
def tf32(*, products: bool, convolutions: bool) -> Iterator[None]:
    """Whether fp32 is multiplied in TF32 inside the block; as torch comes, convolutions are and matrix products are not."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = products, convolutions
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
