"""Train the two small backbones that vidseek ships, from scratch, on the general world. About half an hour.

    python -m vidseek_demo.train_backbones --work /tmp/backbones --out packages/vidseek_training/weights

Steps, as in the literature (pictures first, then rendered): (1) single pictures and captions without motion, with a helper
that reads the place off the vector. (2) Clips, where the reversed video and the reversed caption are negatives. (3) Clips,
half of them in random false colours, so that motion survives another rendering: domain randomisation towards the kind of
shift that the demo's domain has (the thermal palette itself, its noise, marks and grounds are never drawn here). The
CLIP-like control is step 1 and false-colour pictures. docs/backbones.md has what was measured and tried.

Only scenes on the training side of the hold-out are drawn; progress is judged on the validation side. Nothing of this is
part of `dvc repro`. Each step ends in a checkpoint in `--work`; a second call goes on from there.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn

from vidseek_demo.render import Camera, Take, pose_at
from vidseek_demo.scenes import (
    AXES,
    BACKGROUNDS,
    COLOURS,
    GENERAL,
    MOTIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    Scene,
    Side,
    distinct_scenes,
    near_duplicates,
    random_scene,
)
from vidseek_demo.words import caption_of
from vidseek_media.files.appending import append_line
from vidseek_training.backbones.base import IMAGENET_MEAN, IMAGENET_STD, BackboneSpec, clamp_logit_scale
from vidseek_training.backbones.viclip import TextShape, ViCLIP, VisionShape, config_of
from vidseek_training.fitting.precision import bf16_products, multiplies_in_bf16

SIDE, FRAMES, DIMENSION, CONTEXT, VOCABULARY = 64, 8, 128, 48, 1000
VISION = VisionShape(side=SIDE, patch=16, width=128, layers=4, heads=4, frames=FRAMES, stem="motion")
TEXT = TextShape(context=CONTEXT, vocabulary=VOCABULARY, width=128, layers=2, heads=4)

_USUAL_POSE = torch.tensor([[0.5, 0.5, 0.23], [0.15, 0.15, 0.08]])
"""About the mean and the spread of `RenderedClips.poses`."""

_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES, "tone": COLOURS, "size": SIZES, "texture": TEXTURES, "ground": BACKGROUNDS, "motion": MOTIONS,
}


@dataclass(frozen=True)
class RenderedClips:
    """Rendered training clips."""

    pictures: NDArray[np.uint8]
    """Shape (n, T, 3, side, side)."""
    scenes: list[Scene]
    poses: NDArray[np.float32]
    """Shape (n, T, 3): x, y and radius in each frame, in shares of the side."""


def _render(seed: int, num_clips: int, side: Side) -> RenderedClips:
    rng = np.random.default_rng(seed)
    return _video(rng, [random_scene(rng, GENERAL, side=side) for _ in range(num_clips)])


def _video(rng: np.random.Generator, scenes: list[Scene]) -> RenderedClips:
    """Render each scene over a random part of its path, at least half, so that the ends do not reveal the path."""
    pictures = np.empty((len(scenes), FRAMES, 3, SIDE, SIDE), np.uint8)
    poses = np.empty((len(scenes), FRAMES, 3), np.float32)
    for number, scene in enumerate(scenes):
        take = Take.draw(rng)
        camera = Camera(GENERAL, scene, take, side_px=SIDE)
        length = rng.uniform(0.55, 1.0)
        start = rng.uniform(0, 1 - length)
        times = start + length * (np.arange(FRAMES) + 0.5) / FRAMES
        for frame, time_in_scene in enumerate(times):
            pictures[number, frame] = camera.frame_at(time_in_scene).transpose(2, 0, 1)
        poses[number] = [pose_at(scene, take, time_in_scene)[:3] for time_in_scene in times]
    return RenderedClips(pictures, scenes, poses)


def render_videos(num_clips: int) -> RenderedClips:
    """Training clips, drawn with two processes."""
    parts = 16
    with ProcessPoolExecutor(2) as pool:
        done = list(pool.map(_render, range(1000, 1000 + parts), [num_clips // parts] * parts, ["train"] * parts))
    return RenderedClips(
        np.concatenate([part.pictures for part in done]), [scene for part in done for scene in part.scenes],
        np.concatenate([part.poses for part in done]),
    )


def train_tokenizer(path: Path) -> Tokenizer:
    """Return a byte-level BPE on general captions and the licence's English; the end token has the highest id."""
    rng = np.random.default_rng(7)
    corpus = [
        caption_of(rng, GENERAL, random_scene(rng, GENERAL, side="train"))[0] for _ in range(4000)
    ]
    licence = (Path(__file__).parents[2] / "LICENSE").read_text(encoding="utf-8").lower()
    corpus += [line for line in licence.splitlines() if line.strip()] * 4
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2, special_tokens=["<pad>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_special_tokens(["<start>", "<end>"])
    start, end = tokenizer.token_to_id("<start>"), tokenizer.token_to_id("<end>")
    assert end == tokenizer.get_vocab_size() - 1 == VOCABULARY - 1
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", start), ("<end>", end)]
    )
    tokenizer.save(str(path))
    return tokenizer


def _ids(tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    rows = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    rows = [row if len(row) <= CONTEXT else row[: CONTEXT - 1] + row[-1:] for row in rows]
    longest = max(map(len, rows))
    return torch.tensor([row + [0] * (longest - len(row)) for row in rows])


def _normalise(pictures: Tensor) -> Tensor:
    """uint8 (n, T, 3, h, w) or floats in [0, 255] to what the model takes."""
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (pictures.float() / 255 - mean) / deviation


def _augment(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """Shift a clip and change its brightness and contrast, equally for all frames, and add noise. Floats in [0, 255]."""
    count = len(pictures)
    dx, dy = (rng.integers(-4, 5, count) for _ in range(2))
    shifted = torch.stack([
        torch.roll(clip, (int(y), int(x)), (-2, -1)) for clip, x, y in zip(pictures, dx, dy, strict=True)
    ]).float()
    gain = torch.from_numpy(rng.uniform(0.85, 1.15, (count, 1, 1, 1, 1)).astype(np.float32))
    lift = torch.from_numpy(rng.uniform(-12, 12, (count, 1, 1, 1, 1)).astype(np.float32))
    level = torch.from_numpy(rng.uniform(0, 5, (count, 1, 1, 1, 1)).astype(np.float32))
    return (shifted * gain + lift + torch.randn_like(shifted) * level).clamp(0, 255)


def _false_colours(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """Return clips made grey, sometimes inverted, then coloured by a random scale of five stops from dark to bright."""
    grey = (pictures * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(-3) / 255
    coloured = torch.empty_like(pictures)
    for number, clip in enumerate(grey):
        level = (1 - clip if rng.uniform() < 0.5 else clip) ** float(rng.uniform(0.6, 1.6))
        stops = np.sort(rng.uniform(0, 255, 5))[:, None] + rng.normal(0, 60, (5, 3))
        stops = np.clip(stops + np.array([-30, 0, 0, 0, 30])[:, None], 0, 255)
        at = np.linspace(0, 1, 256)
        table = np.stack([np.interp(at, np.linspace(0, 1, 5), stops[:, c]) for c in range(3)])
        index = (level * 255).long().clamp(0, 255)
        coloured[number] = torch.from_numpy(table.astype(np.float32))[:, index].transpose(0, 1)
    return coloured


class Heads(nn.Module):
    """Helpers in training: linear readings of each attribute from both embeddings, and of the path from the clip's."""

    def __init__(self) -> None:
        super().__init__()
        self.video = nn.ModuleDict({name: nn.Linear(DIMENSION, len(v)) for name, v in _ATTRIBUTES.items()})
        self.text = nn.ModuleDict({name: nn.Linear(DIMENSION, len(v)) for name, v in _ATTRIBUTES.items()})
        self.path = nn.Linear(DIMENSION, 6)

    def loss(self, videos: Tensor, texts: Tensor, batch: Batch, *, path_weight: float) -> Tensor:
        """Cross entropy of what each caption speaks of, 0.5 for clips and 0.15 for texts; and the path's error."""
        scenes, silent = batch.scenes, batch.silent
        wanted = (batch.paths - _USUAL_POSE[0]) / _USUAL_POSE[1]
        total = path_weight * F.smooth_l1_loss(self.path(videos * 8), wanted.flatten(1))
        for name, values in _ATTRIBUTES.items():
            target = torch.tensor([
                -100 if name in quiet else values.index(getattr(scene, name))
                for scene, quiet in zip(scenes, silent, strict=True)
            ])
            if (target >= 0).any():
                total = total + 0.5 * F.cross_entropy(self.video[name](videos * 8), target)
                total = total + 0.15 * F.cross_entropy(self.text[name](texts * 8), target)
        return total


def _contrastive(videos: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE; rows of `texts` beyond those of `videos` are extra negatives."""
    logits = scale.exp() * videos @ texts.T
    target = torch.arange(len(videos))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits[:, : len(videos)].T, target)) / 2


@dataclass
class Batch:
    """What one step sees."""

    pixels: Tensor
    scenes: list[Scene]
    silent: list[tuple[str, ...]]
    captions: list[str]
    contrasts: list[str]
    paths: Tensor
    """Shape (n, 2, 3): pose in the first and in the last frame."""


def picture_batch(rendered: RenderedClips, rng: np.random.Generator, size: int, *, palettes: float) -> Batch:
    """Single frames, with captions that do not speak of motion."""
    clips, frames = rng.integers(len(rendered.scenes), size=size), rng.integers(FRAMES, size=size)
    pictures = torch.from_numpy(rendered.pictures[clips, frames][:, None])
    places = torch.from_numpy(rendered.poses[clips, frames])[:, None].repeat(1, 2, 1)
    return _batch(pictures, [rendered.scenes[i] for i in clips], rng, palettes=palettes, silent=("motion",), paths=places)


def clip_batch(rendered: RenderedClips, rng: np.random.Generator, size: int, *, palettes: float) -> Batch:
    """Return clips; the second half are the first half's rendered run backwards, where that changes what is said."""
    clips = rng.integers(len(rendered.scenes), size=size)
    half = size // 2
    backwards = rng.uniform(size=size) < 0.5
    for number in range(half):
        if rendered.scenes[clips[number]].motion in AXES:
            clips[half + number] = clips[number]
            backwards[half + number] = not backwards[number]
    mirrored = rng.uniform(size=size) < 0.5
    pictures, paths = torch.from_numpy(rendered.pictures[clips]), torch.from_numpy(rendered.poses[clips][:, [0, -1]])
    scenes = [rendered.scenes[i] for i in clips]
    for number in range(size):
        if backwards[number]:
            pictures[number] = pictures[number].flip(0)
            paths[number] = paths[number].flip(0)
            scenes[number] = scenes[number].reversed()
        if mirrored[number]:
            pictures[number] = pictures[number].flip(-1)
            paths[number, :, 0] = 1 - paths[number, :, 0]
            scenes[number] = scenes[number].mirrored()
    return _batch(pictures, scenes, rng, palettes=palettes, silent=(), paths=paths)


def _batch(
    pictures: Tensor, scenes: list[Scene], rng: np.random.Generator, *, palettes: float, silent: tuple[str, ...],
    paths: Tensor,
) -> Batch:
    pixels = _augment(pictures, rng)
    false = rng.uniform(size=len(scenes)) < palettes
    if false.any():
        pixels[false] = _false_colours(pixels[false], rng)
    quiet = [(*silent, "tone") if is_false else silent for is_false in false]
    spoken = [caption_of(rng, GENERAL, scene, silent=q) for scene, q in zip(scenes, quiet, strict=True)]
    captions, contrasts = [said for said, _ in spoken], [other for _, other in spoken if other]
    return Batch(_normalise(pixels), scenes, quiet, captions, contrasts, paths)


@dataclass(frozen=True)
class Step:
    """One step of the recipe."""

    name: str
    make: Callable[..., Batch]
    """`picture_batch` or `clip_batch`."""
    size: int
    num_steps: int
    rate: float
    falls: bool
    """Whether the learning rate falls to nothing (half a cosine); else it stays, after the warm-up."""
    palettes: float
    """Share of clips in false colours."""
    path_weight: float
    seed: int

    def rate_at(self, step: int) -> float:
        """Return the learning rate: linear over the first 5 %, then as `falls` says."""
        warm = max(1, self.num_steps // 20)
        if step < warm:
            return self.rate * (step + 1) / warm
        if not self.falls:
            return self.rate
        return self.rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / (self.num_steps - warm)))


def train_step(
    step: Step, model: ViCLIP, tokenizer: Tokenizer, rendered: RenderedClips, judge: Judge, *, work: Path
) -> None:
    """Train `model` in place by one step of the recipe; ends in `work/<name>.pt`, which a second call loads."""
    done = work / f"{step.name}.pt"
    if done.is_file():
        model.load_state_dict(torch.load(done))
        return
    torch.manual_seed(step.seed)
    rng = np.random.default_rng(step.seed)
    heads = Heads()
    parameters = [*model.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=step.rate, betas=(0.9, 0.98), weight_decay=0.05)
    began = time.monotonic()
    for number in range(step.num_steps):
        for group in optimiser.param_groups:
            group["lr"] = step.rate_at(number)
        batch = step.make(rendered, rng, step.size, palettes=step.palettes)
        videos = model.embed_videos(batch.pixels)
        texts = model.embed_texts(_ids(tokenizer, batch.captions + batch.contrasts))
        loss = _contrastive(videos, texts, model.logit_scale)
        total = loss + heads.loss(videos, texts[: len(batch.captions)], batch, path_weight=step.path_weight)
        optimiser.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        clamp_logit_scale(model)
        last = number == step.num_steps - 1
        if number % 50 == 49 or last:
            figures = judge(model, stills=step.make is picture_batch) if number % 200 == 199 or last else {}
            _log(work, step.name, number + 1, float(loss.detach()), time.monotonic() - began, figures)
    torch.save(model.state_dict(), done)


def _log(work: Path, name: str, step: int, loss: float, seconds: float, figures: dict[str, float]) -> None:
    line = {"phase": name, "step": step, "loss": round(loss, 4), "seconds": round(seconds), **figures}
    append_line(work / "log.jsonl", line, sync=False)


@torch.no_grad()
def _tell_places_and_times_apart(model: ViCLIP) -> None:
    """Start the positions as slopes across and down, and the times as waves, about as strong as the patches they mark.

    From a random start neither 250 steps on places nor 600 on clips taught where an object is, and so not where it goes;
    from slopes 40 steps do.
    """
    positions = model.vision_encoder.positional_embedding
    along = torch.linspace(-1, 1, SIDE // VISION.patch)
    down, across = torch.meshgrid(along, along, indexing="ij")
    directions = torch.randn(2, VISION.width, generator=torch.Generator().manual_seed(3))
    positions[1:] += 0.3 * (across.flatten()[:, None] * directions[0] + down.flatten()[:, None] * directions[1])
    angles = torch.arange(FRAMES)[:, None] * torch.logspace(0, -1.5, VISION.width // 2)
    waves = torch.cat([angles.sin(), angles.cos()], 1)
    model.vision_encoder.temporal_positional_embedding.copy_(0.3 * (waves - waves.mean(0)))


class Judge:
    """Recall on unseen scenes and two-way choices of direction, both on the validation side."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        rng = np.random.default_rng(99)
        scenes = distinct_scenes(rng, GENERAL, 200, side="validation")
        scenes += [scene for group in near_duplicates(rng, GENERAL, 30, side="validation") for scene in group[:2]]
        self._scenes, self._pictures = scenes, _video(rng, scenes).pictures
        spoken = [caption_of(rng, GENERAL, scene) for scene in scenes]
        self._ids = _ids(tokenizer, [said for said, _ in spoken])
        self._contrasts = _ids(tokenizer, [other or said for said, other in spoken])
        self._stills = _ids(tokenizer, [caption_of(rng, GENERAL, scene, silent=("motion",))[0] for scene in scenes])
        rng = np.random.default_rng(98)
        self._false = _false_colours(torch.from_numpy(self._pictures).float(), rng)

    @torch.no_grad()
    def __call__(self, model: ViCLIP, *, stills: bool) -> dict[str, float]:
        """R@1 among the 200, the share of right directions for each axis, in true and in false colours."""
        model.eval()
        figures: dict[str, float] = {}
        appearances = {"": torch.from_numpy(self._pictures), "false_": self._false}
        for appearance, pictures in appearances.items():
            shown = pictures[:, FRAMES // 2 : FRAMES // 2 + 1] if stills else pictures
            videos = torch.cat([model.embed_videos(_normalise(part)) for part in shown.split(65)])
            texts = model.embed_texts(self._stills if stills else self._ids)
            logits = videos[:200] @ texts[:200].T
            figures[f"{appearance}r1"] = round(float((logits.argmax(0) == torch.arange(200)).float().mean()), 3)
            if stills:
                continue
            others = model.embed_texts(self._contrasts)
            right = ((videos * texts).sum(1) > (videos * others).sum(1)).float()
            for axis in sorted(set(AXES.values())):
                on = torch.tensor([scene.axis == axis for scene in self._scenes])
                figures[f"{appearance}{axis}"] = round(float(right[on].mean()), 3)
        model.train()
        return figures


def to_clip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a one-frame ViCLIP under the names of transformers' CLIPModel: it is the same function."""
    renamed: dict[str, Tensor] = {"logit_scale": state["logit_scale"]}
    plain = {
        "vision_encoder.class_embedding": "vision_model.embeddings.class_embedding",
        "vision_encoder.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "vision_encoder.proj.weight": "visual_projection.weight",
        "text_encoder.token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "text_encoder.positional_embedding": "text_model.embeddings.position_embedding.weight",
        "text_encoder.text_projection.weight": "text_projection.weight",
    }
    parts = {
        "ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
        "attn.out_proj": "self_attn.out_proj",
    }
    norms = {"ln_pre": "pre_layrnorm", "ln_post": "post_layernorm", "ln_final": "final_layer_norm"}
    for name, tensor in state.items():
        tower = "vision_model" if name.startswith("vision") else "text_model"
        rest = name.split(".", 1)[-1]
        if ".compare." in name:
            continue  # a single frame passes it by
        if name in plain:
            renamed[plain[name]] = tensor
        elif rest.startswith("conv1."):
            renamed[f"vision_model.embeddings.patch_embedding.{rest.removeprefix('conv1.')}"] = tensor
        elif rest.split(".")[0] in norms:
            renamed[f"{tower}.{norms[rest.split('.')[0]]}.{rest.split('.')[1]}"] = tensor
        elif rest.startswith("transformer.resblocks."):
            _, _, layer, part = rest.split(".", 3)
            head = f"{tower}.encoder.layers.{layer}."
            module, kind = part.rsplit(".", 1)
            if module == "attn.in_proj":
                for letter, third in zip("qkv", tensor.chunk(3), strict=True):
                    renamed[f"{head}self_attn.{letter}_proj.{kind}"] = third.clone()
            else:
                renamed[f"{head}{parts[module]}.{kind}"] = tensor
    # One frame sees the mean of the times, which a picture model carries in its places.
    times = state["vision_encoder.temporal_positional_embedding"].mean(1)[0]
    places = renamed["vision_model.embeddings.position_embedding.weight"].clone()
    places[1:] += times
    renamed["vision_model.embeddings.position_embedding.weight"] = places
    return renamed


def clip_config() -> dict[str, object]:
    """Return the config.json of the CLIP-like backbone."""
    tower = {"hidden_act": "quick_gelu", "hidden_size": 128, "intermediate_size": 512, "projection_dim": DIMENSION}
    return {
        "model_type": "clip", "projection_dim": DIMENSION, "stem": "conv", "frames": FRAMES, "resize": "squash",
        "mean": list(IMAGENET_MEAN), "deviation": list(IMAGENET_STD), "pad_id": 0,
        "vision_config": {
            **tower, "image_size": SIDE, "patch_size": VISION.patch, "num_hidden_layers": VISION.layers,
            "num_attention_heads": VISION.heads,
        },
        "text_config": {
            **tower, "vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, "num_hidden_layers": TEXT.layers,
            "num_attention_heads": TEXT.heads, "pad_token_id": 0, "bos_token_id": VOCABULARY - 2,
            "eos_token_id": VOCABULARY - 1,
        },
    }


def _save(folder: Path, tensors: dict[str, Tensor], config: dict[str, object], tokenizer: Tokenizer) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    halves = {name: tensor.detach().half().contiguous() for name, tensor in tensors.items()}
    save_file(halves, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tokenizer.save(str(folder / "tokenizer.json"))


def main() -> None:
    """Run the recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=16000)
    parser.add_argument("--steps", type=int, nargs=4, default=(1500, 1200, 1500, 600), metavar="N")
    parser.add_argument("--palettes", type=float, default=0.5, help="share in false colours; 0 for a control without")
    options = parser.parse_args()
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(work / "tokenizer.json")
    rendered = render_videos(options.clips)
    judge = Judge(tokenizer)
    torch.manual_seed(0)
    spec = BackboneSpec(
        "viclip", "vidseek/viclip-tiny", DIMENSION, CONTEXT, FRAMES, SIDE, "squash", IMAGENET_MEAN, IMAGENET_STD,
        0, work / "tokenizer.json",
    )
    model = ViCLIP(spec, VISION, TEXT)
    _tell_places_and_times_apart(model)
    in_bf16 = multiplies_in_bf16("auto", torch.device("cpu"))
    pictures, clips, palettes, stills = options.steps

    def run(*step: Any) -> None:
        with bf16_products(model, wanted=in_bf16):
            train_step(Step(*step), model, tokenizer, rendered, judge, work=work)

    run("pictures", picture_batch, 192, pictures, 1.5e-3, True, 0.0, 2.0, 1)
    after_pictures = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    run("clips", clip_batch, 48, clips, 1e-3, False, 0.0, 1.0, 2)
    run("palettes", clip_batch, 48, palettes, 1e-3, True, options.palettes, 0.3, 3)
    _save(options.out / "viclip-tiny", dict(model.state_dict()), config_of(VISION, TEXT, DIMENSION), tokenizer)
    model.load_state_dict(after_pictures)
    run("stills", picture_batch, 192, stills, 6e-4, True, options.palettes, 0.3, 4)
    _save(options.out / "clip-tiny", to_clip(dict(model.state_dict())), clip_config(), tokenizer)


if __name__ == "__main__":
    main()
