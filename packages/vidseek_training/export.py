"""Merge the champion, export both towers to ONNX, and admit the bundle only if its vectors are torch's."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim

from vidseek_encoder.bundle import EncoderSpec, encoder_version_of
from vidseek_encoder.encoder import Encoder
from vidseek_encoder.tokenize import Tokenizer
from vidseek_media.errors import GateFailed
from vidseek_media.folders import whole_folder
from vidseek_media.tables import PAIRS, read_table
from vidseek_training import backbones, lora
from vidseek_training.backbones import Backbone
from vidseek_training.data import load_pairs, sample_clips
from vidseek_training.embedding import embed_frames, embed_ids
from vidseek_training.metrics import bootstrap, ranks_of
from vidseek_training.select import adapter_of, read_selected

_OPSET = 18
_LARGEST_BATCH = 1024
_TIE = 1e-6
_PROBES = (
    "a person talks to the camera", "a red car on a street at night", "two dogs play on the grass", "a bird in a tree",
    "hands cut vegetables in a kitchen", "waves at the beach", "a football match", "snow on a mountain",
    "a map with text", "a close-up of a machine", "children in a classroom", "an empty road",
)
"""Texts for the gate where the archive has no captions."""


@dataclass(frozen=True)
class Parity:
    """How near the exported towers are to torch in fp32; parity.json."""

    variant: str
    num_clips: int
    num_texts: int
    min_cosine_video: float
    min_cosine_text: float
    top_10_overlap: float
    """Mean share of a text's ten best clips that both agree on; scores within 1e-6 are ties."""
    r1_difference_low: float | None
    """Lower end of the paired interval of exported minus torch; None without held-out pairs."""


@dataclass(frozen=True)
class ParityLimits:
    """What a variant must reach to be kept."""

    min_cosine: float = 0.9999
    min_overlap: float = 0.999
    min_r1_difference: float = -0.02


class _VideoTower(nn.Module):
    def __init__(self, model: Backbone) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model.embed_videos(pixel_values)


class _TextTower(nn.Module):
    def __init__(self, model: Backbone) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.model.embed_texts(input_ids)


def export_champion(
    champion: Path, *, backbone: str, pairs: Path, frames: Path, out: Path, limits: ParityLimits, max_clips: int
) -> tuple[EncoderSpec, Parity]:
    """Write the encoder bundle of the champion to `out`, whole or absent.

    Args:
        champion: The select stage's folder.
        backbone: The base.
        pairs: The pairs table: captions for the gate.
        frames: The frames stage's folder: clips for the gate.
        out: Gets encoder.json, fp32/, tokenizer.json, parity.json and the model card.
        limits: What the bundle must reach.
        max_clips: Most clips and captions for the gate.

    Raises:
        ArtifactError: the adapter does not fit the base, or a table is missing.
        GateFailed: the exported vectors are not torch's; nothing is written.
    """
    model = lora.merged(backbones.load(backbone), adapter_of(champion))
    with whole_folder(out) as folder:
        shutil.copy(model.spec.tokenizer, folder / "tokenizer.json")
        _export_towers(model, folder / "fp32")
        spec = _spec_of(model, folder / "tokenizer.json").save(folder)
        parity = measure_parity(model, Encoder.load(folder), pairs=pairs, frames=frames, max_clips=max_clips)
        _require_parity(parity, limits)
        (folder / "parity.json").write_text(json.dumps(asdict(parity), indent=2) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(_card(spec, parity, champion), encoding="utf-8")
    return spec, parity


def _export_towers(model: Backbone, folder: Path) -> None:
    spec = model.spec
    folder.mkdir()
    # Traced with two rows: a batch of one would be taken for a constant.
    pixels = torch.randn(2, spec.frames, 3, spec.side, spec.side)
    ids = torch.ones(2, spec.context, dtype=torch.int64)
    batch = Dim("batch", min=1, max=_LARGEST_BATCH)
    # Names of outputs must not be names of operators: ONNX Runtime then finds a value defined twice (trials.md, D1).
    towers = (
        ("video", _VideoTower(model), pixels, "pixel_values", "video_embeds"),
        ("text", _TextTower(model), ids, "input_ids", "text_embeds"),
    )
    for name, tower, example, input_name, output_name in towers:
        with warnings.catch_warnings(), _quiet("torch.onnx", "onnxscript"), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                tower.eval(), (example,), str(folder / f"{name}.onnx"), input_names=[input_name],
                output_names=[output_name], dynamic_shapes=({0: batch},), opset_version=_OPSET, dynamo=True,
                optimize=True, external_data=False, verbose=False,
            )


class _quiet:  # noqa: N801 - reads as a word in `with`
    """Only errors of these loggers for the length of a block."""

    def __init__(self, *names: str) -> None:
        self._loggers = [logging.getLogger(name) for name in names]
        self._levels = [logger.level for logger in self._loggers]

    def __enter__(self) -> None:
        for logger in self._loggers:
            logger.setLevel(logging.ERROR)

    def __exit__(self, *error: object) -> None:
        for logger, level in zip(self._loggers, self._levels, strict=True):
            logger.setLevel(level)


def _spec_of(model: Backbone, tokenizer: Path) -> EncoderSpec:
    spec = model.spec
    # The scale on cosines does not move a vector, so it is no part of the space.
    tensors = {
        name: tensor.float().numpy() for name, tensor in model.state_dict().items() if not name.endswith("logit_scale")
    }
    space = {
        "family": spec.family, "context": spec.context, "frames": spec.frames, "side": spec.side, "resize": spec.resize,
        "mean": spec.mean, "deviation": spec.deviation, "dimension": spec.dimension,
    }
    version = encoder_version_of(tensors=tensors, tokenizer=tokenizer, **space)  # type: ignore[arg-type]
    return EncoderSpec(
        encoder_version=version, pad_id=spec.pad_id, backbone=spec.name, variants=("fp32",), **space,  # type: ignore[arg-type]
    )


def measure_parity(model: Backbone, encoder: Encoder, *, pairs: Path, frames: Path, max_clips: int) -> Parity:
    """Compare `encoder` with `model` on held-out captions and their clips, or on any clips where there are no captions."""
    table = read_table(pairs, PAIRS)
    splits = ("test", "validation", "train")
    split = next((each for each in splits if (table.split == each).sum() >= 10), None)
    if split is None:
        clips, captions = sample_clips(frames, model.spec, count=max_clips), list(_PROBES)
    else:
        held_out = load_pairs(pairs, frames, model.spec, split=split)
        clips, captions = held_out.frames[:max_clips], held_out.captions[:max_clips]
    videos, texts = encoder.embed_frames(np.asarray(clips)), encoder.embed_texts(captions)
    own_videos = embed_frames(model, clips)
    tokenizer = Tokenizer.load(model.spec.tokenizer, context=model.spec.context, pad_id=model.spec.pad_id)
    own_texts = embed_ids(model, tokenizer.encode(captions))
    difference = None
    if split is not None:
        ranks, own_ranks = ranks_of(texts @ videos.T), ranks_of(own_texts @ own_videos.T)
        difference = bootstrap((ranks <= 1).astype(float) - (own_ranks <= 1), resamples=1000, seed=0).low
    return Parity(
        encoder.variant, len(videos), len(texts), _least(videos, own_videos), _least(texts, own_texts),
        round(_overlap(texts @ videos.T, own_texts @ own_videos.T), 5), difference,
    )


def _least(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    return round(float((ours * theirs).sum(1).min()), 7) if len(ours) else 1.0


def _overlap(scores: NDArray[np.float32], wanted: NDArray[np.float32], *, top: int = 10) -> float:
    """Mean share of each row's best `top` in `scores` that are among the best in `wanted`, near-ties counted as both."""
    top = min(top, scores.shape[1])
    least = -np.sort(-wanted, axis=1)[:, top - 1] - _TIE
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return float((np.take_along_axis(wanted, best, 1) >= least[:, None]).mean())


def _require_parity(parity: Parity, limits: ParityLimits) -> None:
    failed = []
    for name in ("min_cosine_video", "min_cosine_text"):
        if getattr(parity, name) < limits.min_cosine:
            failed.append(f"{name} {getattr(parity, name)}, wanted {limits.min_cosine}")
    if parity.top_10_overlap < limits.min_overlap:
        failed.append(f"top_10_overlap {parity.top_10_overlap}, wanted {limits.min_overlap}")
    if parity.r1_difference_low is not None and parity.r1_difference_low <= limits.min_r1_difference:
        failed.append(f"r1_difference_low {parity.r1_difference_low}, wanted above {limits.min_r1_difference}")
    if failed:
        raise GateFailed(
            f"the {parity.variant} export is not the model that was trained: {'; '.join(failed)}",
            remedy="No bundle was written; check the versions of torch, onnxscript and onnxruntime with `vidseek doctor`",
        )


def _card(spec: EncoderSpec, parity: Parity, champion: Path) -> str:
    selected = read_selected(champion)
    return f"""# Encoder {spec.encoder_version}

Made by vidseek from `{spec.backbone}` ({spec.family}) with the adapter setting `{selected.setting}`.

- Vectors: {spec.dimension} numbers, unit length; clips of {spec.frames} frames of {spec.side} pixels;
  texts of {spec.context} tokens.
- Chosen on {selected.num_queries} validation captions with a mean reciprocal rank of {selected.mrr}.
- Variants: {", ".join(spec.variants)}. Parity with torch in fp32 on {parity.num_clips} clips and {parity.num_texts} texts:
  least cosine {parity.min_cosine_video} (clips) and {parity.min_cosine_text} (texts);
  top 10 agree to {parity.top_10_overlap:.2%}.
- Vectors of another `encoder_version` cannot be compared with these.
"""
