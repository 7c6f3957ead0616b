"""Archives to measure the service on: bundles of known shapes, and an index of random vectors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from bench.shapes import build_clip
from vidseek_encoder.bundle import EncoderSpec
from vidseek_media.ids import clip_id_of
from vidseek_media.tables import CLIPS, VIDEOS, write_table
from vidseek_retrieval.embedding.embedding_parts import write_part
from vidseek_retrieval.index.publish import publish
from vidseek_retrieval.settings import PublishSettings
from vidseek_training import backbones
from vidseek_training.export.onnx_export import write_unproven

CLIPS_OF_A_VIDEO = 100


def vit_archive(root: Path, *, plain: Path, num_clips: int) -> None:
    """A bundle of CLIP ViT-B/32's shape with random weights, and the same weights in `plain` for transformers."""
    bundle = root / "models" / "encoder"
    bundle.mkdir(parents=True)
    clip, tokenizer = build_clip(bundle)
    clip.save_pretrained(plain)
    tokenizer.save(str(plain / "tokenizer.json"))
    _publish_random(root, num_clips=num_clips)


def small_archive(root: Path, *, num_clips: int = 1000) -> None:
    """The bundle of the shipped backbone, untaught, in fp32."""
    bundle = root / "models" / "encoder"
    bundle.mkdir(parents=True)
    write_unproven(backbones.load("vidseek/viclip-tiny"), bundle)
    _publish_random(root, num_clips=num_clips)


def _publish_random(root: Path, *, num_clips: int) -> None:
    """An index of random unit vectors, in videos of `CLIPS_OF_A_VIDEO` clips of a second."""
    spec = EncoderSpec.load(root / "models" / "encoder")
    videos, clips = [], []
    for first in range(0, num_clips, CLIPS_OF_A_VIDEO):
        video_id = f"{first + 1:032x}"
        numbers = {"duration_ms": 1000 * CLIPS_OF_A_VIDEO, "fps": 25.0, "width": 64, "height": 48, "views": None}
        videos.append({**dict.fromkeys(VIDEOS.names, ""), "video_id": video_id, "uris": [f"{first}.mp4"], **numbers})
        for index in range(min(CLIPS_OF_A_VIDEO, num_clips - first)):
            span = {"start_ms": 1000 * index, "end_ms": 1000 * index + 1000}
            clip_id = str(clip_id_of(video_id, span["start_ms"], span["end_ms"]))
            clips.append({"clip_id": clip_id, "video_id": video_id, "index": index, "cut": ["windows"], **span})
    write_table(root / "ingest" / "videos.parquet", videos, VIDEOS)
    write_table(root / "cut" / "clips.parquet", clips, CLIPS)
    vectors = np.random.default_rng(0).normal(size=(num_clips, spec.dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    write_part(
        root / "embed" / "parts" / "0-0.parquet", clip_ids=[str(clip["clip_id"]) for clip in clips], vectors=vectors,
        encoder_version=spec.encoder_version, variant="fp32",
    )
    summary = {"encoder_version": spec.encoder_version, "num_clips": num_clips}
    (root / "embed" / "embeddings.json").write_text(json.dumps(summary), encoding="utf-8")
    # Random vectors are the hardest there are for an approximate index; how well it finds them is not asked here.
    publish(root / "embed", root / "cut", root / "ingest", index=root / "index", settings=PublishSettings(min_recall=0.0))
