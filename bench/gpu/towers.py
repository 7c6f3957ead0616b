"""`bench.gpu.check`: how fast towers are, in torch and as exported for ONNX Runtime, and whether vectors are the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.gpu.models import Shape, build, coloured_pairs, copy_on, median_ms, peak_gib, random_pixels, tf32
from vidseek_encoder.encoder import Encoder
from vidseek_encoder.providers import PROVIDERS, available_providers
from vidseek_media.errors import VidseekError
from vidseek_training.backbones import Backbone
from vidseek_training.dataset.pair_set import to_pixels
from vidseek_training.evaluation.embedding import embed_frames, embed_ids
from vidseek_training.export.onnx_export import write_unproven
from vidseek_training.settings import ParitySettings

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_TOKENS = 16
"""Of a text, start and end counted, as most captions are."""


@dataclass(frozen=True)
class Sizes:
    """What is run."""

    shapes: tuple[Shape, ...]
    batches: tuple[int, ...]
    """Pictures, and texts, in one run."""
    clips: tuple[int, ...]
    """Clips in one run."""
    exported: Shape
    exported_batches: tuple[int, ...]
    seconds: float
    """Of each measurement."""
    slow: Mapping[tuple[str, str], int]
    """The most pictures in one run, of shapes and precisions that would take too long with more."""


def rates(sizes: Sizes, device: torch.device, folder: Path) -> Iterator[list[dict[str, Any]]]:
    """A row for each shape, precision, kind of input and batch: milliseconds, and how many a second.

    The rows of one shape and precision come together.
    """
    for shape in sizes.shapes:
        model = build(shape, folder / "words.json")
        with tf32(products=False, convolutions=False):
            wanted = _vectors(copy_on(model, device), model)
        for precision in PRECISIONS:
            if precision != "fp32" and device.type != "cuda":
                continue
            own = copy_on(model, device, _TYPES.get(precision, torch.float32))
            is_tf32 = precision == "tf32"
            with torch.inference_mode(), tf32(products=is_tf32, convolutions=is_tf32), peak_gib(device) as peak:
                cosine = float((_vectors(own, model) * wanted).sum(1).min())
                most = sizes.slow.get((shape.name, precision), max(sizes.batches))
                rows = list(_rates_of(own, sizes, device, average=model.averages_frames, most=most))
            about = {"shape": shape.name, "precision": precision, "least_cosine": round(cosine, 7), **peak}
            yield [about | row for row in rows]
        yield [_end_to_end(model, shape, sizes, device)]


def _vectors(model: Backbone, like: Backbone) -> NDArray[np.float32]:
    """Of 16 clips."""
    with torch.inference_mode():
        pixels = to_pixels(coloured_pairs(like, 16).frames[:], like.spec)
        vectors = model.embed_videos(pixels.to(model.logit_scale.device, model.logit_scale.dtype)).float()
    found: NDArray[np.float32] = torch.nn.functional.normalize(vectors, dim=-1).cpu().numpy()
    return found


def _rates_of(
    model: Backbone, sizes: Sizes, device: torch.device, *, average: bool, most: int
) -> Iterator[dict[str, Any]]:
    spec, dtype = model.spec, model.logit_scale.dtype
    frame = (3, spec.image_size_px, spec.image_size_px)

    def row(kind: str, count: int, run: Any) -> dict[str, Any]:
        ms = median_ms(run, device, seconds=sizes.seconds)
        return {"kind": kind, "batch": count, "ms": round(ms, 3), "per_second": round(1e3 * count / ms, 1)}

    for count in (count for count in sizes.batches if average and count <= most):
        pictures = random_pixels(count, (1, *frame), device, dtype)
        yield row("pictures", count, lambda pictures=pictures: model.embed_videos(pictures))
    for count in (count for count in sizes.clips if count == min(sizes.clips) or count * spec.num_frames <= most):
        clips = random_pixels(count, (spec.num_frames, *frame), device, dtype)
        yield row("clips", count, lambda clips=clips: model.embed_videos(clips))
    length = min(_TOKENS, spec.context_length)
    for count in sizes.batches:
        ids = torch.full((count, length), 10, dtype=torch.int64, device=device)
        ids[:, 0], ids[:, -1] = 1, 3
        yield row("texts", count, lambda ids=ids: model.embed_texts(ids))


def _end_to_end(model: Backbone, shape: Shape, sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """From frames in the computer's memory, uint8, to vectors there, as evaluation and looks do it (fp32)."""
    own, count = copy_on(model, device), max(sizes.clips)
    frames = coloured_pairs(model, count).frames
    ms = median_ms(lambda: embed_frames(own, frames), device, seconds=sizes.seconds)
    return {
        "shape": shape.name, "precision": "fp32, as torch comes", "kind": "clips, end to end", "batch": count,
        "ms": round(ms, 3), "per_second": round(1e3 * count / ms, 1),
    }


def exported(sizes: Sizes, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The bundle of a shape by our export: on each provider that is there, whether its vectors are torch's, and how fast."""
    model = build(sizes.exported, folder / "words.json")
    bundle = folder / "bundle"
    bundle.mkdir()
    write_unproven(model, bundle, variants=("fp16",))
    pairs = coloured_pairs(model, 32)
    wanted = embed_frames(model, pairs.frames), embed_ids(model, pairs.ids)
    for provider in PROVIDERS:
        for variant in ("fp32", "fp16"):
            name = f"{provider} {variant}"
            if provider not in available_providers():
                yield name, {"skipped": f"the installed onnxruntime has {', '.join(available_providers())}"}
                continue
            most = max(sizes.exported_batches)
            try:
                encoder = Encoder.load(bundle, provider=provider, variant=variant, batch=most)  # type: ignore[arg-type]
                proven = _proven(encoder, bundle, wanted, list(pairs.table.caption), pairs.frames[:])
                yield name, proven | _speed(encoder, sizes)
            except VidseekError as error:
                yield name, {"failed": f"{error.message} ({error.remedy})"}


def _proven(
    encoder: Encoder, bundle: Path, wanted: tuple[NDArray[np.float32], NDArray[np.float32]], captions: list[str],
    frames: NDArray[np.uint8],
) -> dict[str, Any]:
    """The least cosines with torch's vectors on the CPU, in a batch and one by one, and whether fp32's gate admits them."""
    warm = encoder.warm_up()
    alone = Encoder.load(bundle, provider=encoder.provider, variant=encoder.variant, batch=1)  # type: ignore[arg-type]
    found = {"least_cosine_video": 1.0, "least_cosine_text": 1.0}
    for each, count in ((encoder, len(captions)), (alone, 8)):
        vectors = each.embed_frames(frames[:count]), each.embed_texts(captions[:count])
        for name, own, theirs in zip(found, vectors, wanted, strict=True):
            found[name] = min(found[name], round(float((own * theirs[:count]).sum(1).min()), 7))
    scores = encoder.embed_texts(captions) @ encoder.embed_frames(frames).T
    limit = ParitySettings().fp32.min_cosine
    return {
        "warm_up_seconds": warm, **found, "largest_score_difference": float(np.abs(scores - wanted[1] @ wanted[0].T).max()),
        "limit": limit, "admitted": min(found.values()) >= limit,
    }


def _speed(encoder: Encoder, sizes: Sizes) -> dict[str, Any]:
    """Pictures and texts a second, from NumPy to NumPy, without what prepares them."""
    spec, rng, device = encoder.spec, np.random.default_rng(0), torch.device("cpu")
    found: dict[str, Any] = {}
    for count in sizes.exported_batches:
        side = spec.image_size_px
        row = (3, side, side) if spec.vision == "frame" else (spec.num_frames, 3, side, side)
        pixels = rng.normal(size=(count, *row)).astype(np.float32)
        ids = np.full((count, spec.context_length if encoder.provider == "tensorrt" else _TOKENS), 10, np.int64)
        ids[:, -1] = 3
        for kind, model, values in (("pictures", spec.vision, pixels), ("texts", "text", ids)):
            ms = median_ms(lambda m=model, v=values: encoder._run(m, [v]), device, seconds=sizes.seconds)  # type: ignore[misc]
            found[f"{kind}_per_second_at_{count}"] = round(1e3 * count / ms, 1)
    return found
