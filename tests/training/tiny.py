"""Backbones and pair sets so small that a training takes a second: clips are of one colour, captions name it."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel, XCLIPConfig, XCLIPModel

from vidseek_media.frame_store.members import encode_jpeg, frames_digest_of
from vidseek_media.ids import clip_id_of, shard_key_of
from vidseek_media.tables import FRAMES, PAIRS, write_table
from vidseek_training import backbones
from vidseek_training.backbones.viclip import TextShape, ViCLIP, ViCLIPFamily, VisionShape, build_viclip, config_of
from vidseek_training.dataset.pair_set import load_pairs
from vidseek_training.dataset.sampling import Data

COLOURS = {
    "red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 230), "white": (240, 240, 240),
    "yellow": (230, 220, 40), "black": (15, 15, 15), "purple": (160, 40, 190), "cyan": (40, 210, 220),
}
SHADES = {"bright": 1.0, "dark": 0.45}
WORDS = ("<pad>", "<unk>", "a", "video", *SHADES, *COLOURS, "<start>", "<end>")
"""The end token has the highest number, as in CLIP."""
CONTEXT, SIDE, FRAMES_OF_CLIP, DIMENSION = 8, 32, 2, 16
VISION = VisionShape(side=SIDE, patch=16, width=32, layers=1, heads=2, frames=FRAMES_OF_CLIP)
TEXT = TextShape(context=CONTEXT, vocabulary=len(WORDS), width=32, layers=1, heads=2)


_CLASSES: dict[str, tuple[Any, Any]] = {
    "clip": (CLIPConfig, CLIPModel), "xclip": (XCLIPConfig, XCLIPModel), "siglip": (SiglipConfig, SiglipModel),
}


def write_tokenizer(folder: Path) -> None:
    """A tokenizer.json of whole words."""
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("<start>", vocabulary["<start>"]), ("<end>", vocabulary["<end>"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=ends)
    tokenizer.save(str(folder / "tokenizer.json"))


def write_viclip(folder: Path, *, seed: int = 0, vision: VisionShape = VISION, text: TextShape = TEXT) -> Path:
    """A ViCLIP with random weights; gives `folder`."""
    config = config_of(vision, text, DIMENSION)
    torch.manual_seed(seed)
    write_folder(folder, config, {})
    write_tensors(folder, told_apart(dict(_random_viclip(folder, config).state_dict())))
    return folder


def told_apart(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights with larger matrices: fresh ones are so small that all clips look alike, trained ones are not."""
    return {name: 6 * tensor if tensor.ndim == 2 else tensor for name, tensor in tensors.items()}


def _random_viclip(folder: Path, config: dict[str, Any]) -> ViCLIP:
    return build_viclip(config, ViCLIPFamily().spec_of(config, folder, name=str(folder)))


def clip_config() -> dict[str, Any]:
    """The config.json of a CLIP of the same sizes."""
    tower = {"hidden_act": "quick_gelu", "hidden_size": 32, "intermediate_size": 128, "projection_dim": DIMENSION,
             "num_hidden_layers": 1, "num_attention_heads": 2}
    return {
        "model_type": "clip", "projection_dim": DIMENSION, "frames": FRAMES_OF_CLIP, "resize": "squash", "pad_id": 0,
        "vision_config": {**tower, "image_size": SIDE, "patch_size": 16},
        "text_config": {
            **tower, "vocab_size": len(WORDS), "max_position_embeddings": CONTEXT, "pad_token_id": 0,
            "bos_token_id": len(WORDS) - 2, "eos_token_id": len(WORDS) - 1,
        },
    }


def write_clip(folder: Path, *, seed: int = 0) -> Path:
    """A CLIP of transformers with random weights, its tensors named as in a published checkpoint."""
    return write_model(folder, clip_config(), seed=seed)


def xclip_config() -> dict[str, Any]:
    """The config.json of an X-CLIP of the same sizes."""
    config = clip_config()
    config["vision_config"] |= {
        "num_hidden_layers": 2, "num_frames": FRAMES_OF_CLIP, "mit_hidden_size": DIMENSION, "mit_intermediate_size": 64,
        "mit_num_hidden_layers": 1, "mit_num_attention_heads": 2,
    }
    del config["frames"]
    return config | {"model_type": "xclip", "prompt_num_attention_heads": 2}


def write_xclip(folder: Path, *, seed: int = 0) -> Path:
    """An X-CLIP of transformers with random weights, its tensors named as in a published checkpoint."""
    return write_model(folder, xclip_config(), seed=seed)


def siglip_config() -> dict[str, Any]:
    """The config.json of a SigLIP of the same sizes."""
    tower = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2}
    return {
        "model_type": "siglip", "frames": FRAMES_OF_CLIP, "pad_id": 0,
        "vision_config": {**tower, "image_size": SIDE, "patch_size": 16},
        "text_config": {**tower, "vocab_size": len(WORDS), "max_position_embeddings": CONTEXT, "projection_size": 32,
                        "bos_token_id": None, "eos_token_id": len(WORDS) - 1, "pad_token_id": 0},
    }


def write_siglip(folder: Path, *, seed: int = 0) -> Path:
    """A SigLIP of transformers with random weights, its tensors named as in a published checkpoint."""
    return write_model(folder, siglip_config(), seed=seed)


def write_model(folder: Path, config: dict[str, Any], *, seed: int = 0) -> Path:
    """A model of transformers of this config.json with random weights; gives `folder`."""
    config_class, model_class = _CLASSES[config["model_type"]]
    torch.manual_seed(seed)
    model = model_class(config_class(**{key: value for key, value in config.items() if key != "model_type"}))
    return write_folder(folder, config, dict(model.state_dict()))


def write_folder(folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Path:
    """A backbone's folder with the tokenizer of `WORDS`; gives `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder)
    write_tensors(folder, tensors)
    return folder


def write_tensors(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write model.safetensors anew."""
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, folder / "model.safetensors")


@dataclass(frozen=True)
class Row:
    """One pair: a clip of one colour, and what is said of it."""

    video: int
    index: int
    split: str
    shade: str
    colour: str
    gallery: str = "default"
    contrast: str = ""
    axis: str = ""
    text: str = ""

    @property
    def caption(self) -> str:
        return self.text or f"a {self.shade} {self.colour} video"

    @property
    def video_id(self) -> str:
        return f"{self.video:032x}"

    @property
    def clip_id(self) -> str:
        return str(clip_id_of(self.video_id, 1000 * self.index, 1000 * self.index + 1000))


def all_colours(video: int, split: str, *, contrasts: bool = False) -> list[Row]:
    """16 pairs, one for each shade of each colour, each with the other shade as its contrast if wanted."""
    rows = []
    for index, (shade, colour) in enumerate((shade, colour) for shade in SHADES for colour in COLOURS):
        other = "dark" if shade == "bright" else "bright"
        contrast = {"contrast": f"a {other} {colour} video", "axis": "shade"} if contrasts else {}
        rows.append(Row(video, index, split, shade, colour, **contrast))
    return rows


def frames_of(row: Row, *, num_frames: int = FRAMES_OF_CLIP, side: int = SIDE) -> NDArray[np.uint8]:
    """The clip of `row`: its colour with a little noise of its own."""
    rng = np.random.default_rng([row.video, row.index])
    colour = np.array(COLOURS[row.colour]) * SHADES[row.shade]
    noisy = colour + rng.normal(0, 6, (num_frames, side, side, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Archive:
    """Where the tables of a made archive are."""

    root: Path

    @property
    def pairs(self) -> Path:
        return self.root / "pairs" / "pairs.parquet"

    @property
    def frames(self) -> Path:
        return self.root / "frames"


def write_archive(root: Path, rows: Sequence[Row], *, num_frames: int = FRAMES_OF_CLIP, side: int = SIDE) -> Archive:
    """Write the pairs table, and the frames in one shard for each video, as the stages would."""
    archive = Archive(root)
    clips = {row.clip_id: row for row in rows}
    table, digests = [], {}
    (archive.frames / "shards").mkdir(parents=True)
    for video in sorted({row.video for row in rows}):
        shard = f"shards/{video:02d}.tar"
        with tarfile.open(archive.frames / shard, "w") as tar:
            for row in sorted((row for row in clips.values() if row.video == video), key=lambda row: row.index):
                key = shard_key_of(row.video_id, row.index)
                times = [1000 * row.index + 100 * number for number in range(num_frames)]
                about = {"key": key, "clip_id": row.clip_id, "video_id": row.video_id, "times_ms": times,
                         "start_ms": times[0], "end_ms": times[0] + 1000, "num_repeated": 0,
                         "decoder": "made", "quality_flags": [], "hashes": []}
                _add(tar, f"{key}.json", json.dumps(about).encode())
                jpegs = [encode_jpeg(each, quality=95) for each in frames_of(row, num_frames=num_frames, side=side)]
                for number, jpeg in enumerate(jpegs):
                    _add(tar, f"{key}.{number:02d}.jpg", jpeg)
                digests[row.clip_id] = frames_digest_of(jpegs)
                table.append({"clip_id": row.clip_id, "video_id": row.video_id, "key": key, "shard": shard,
                              "num_frames": num_frames, "num_repeated": 0, "decoder": "made",
                              "frames_digest": digests[row.clip_id]})
    write_table(archive.frames / "frames.parquet", table, FRAMES)
    write_table(archive.pairs, [
        {"clip_id": row.clip_id, "video_id": row.video_id, "caption": row.caption, "split": row.split,
         "gallery": row.gallery, "contrast": row.contrast, "axis": row.axis, "frames_digest": digests[row.clip_id]}
        for row in rows
    ], PAIRS)
    return archive


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def random_pixels(count: int, *, frames: int = FRAMES_OF_CLIP, seed: int = 0) -> torch.Tensor:
    """What a backbone takes: (count, frames, 3, side, side)."""
    return torch.randn(count, frames, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def ids_of(model: backbones.Backbone, texts: list[str]) -> torch.Tensor:
    """The token ids of `texts`."""
    from vidseek_encoder.tokenize import Tokenizer as Ours

    spec = model.spec
    return torch.from_numpy(Ours.load(spec.tokenizer, context=spec.context_length, pad_id=spec.pad_id).encode(texts))


def data_of(archive: Archive, backbone: Path, folder: Path) -> Data:
    """The archive's training and validation pairs for the backbone, and a general archive that is written to `folder`."""
    spec = backbones.load(backbone).spec
    general = write_archive(folder, all_colours(9, "train"))
    return Data(
        load_pairs(archive.pairs, archive.frames, spec, split="train"),
        load_pairs(archive.pairs, archive.frames, spec, split="validation"),
        load_pairs(general.pairs, general.frames, spec, split="train"),
    )
