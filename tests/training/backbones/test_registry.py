"""A family that another package brings goes all the way: found by its entry point, loaded, adapted, exported, proven."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.raising import raises
from tests.training.champions import write_champion
from tests.training.tiny import CONTEXT, DIMENSION, FRAMES_OF_CLIP, SIDE, WORDS, Archive, random_pixels, write_folder
from vidseek_media.errors import ConfigError
from vidseek_training import backbones
from vidseek_training.backbones import registry
from vidseek_training.export.onnx_export import export_champion
from vidseek_training.settings import ParitySettings

PACKAGE = '''
import torch
from torch import nn

from vidseek_training.backbones import Backbone, BackboneSpec, Family, register
from vidseek_training.backbones.files.tokenizer_files import find_tokenizer


class Pool(Backbone):
    """Words summed, and the pixels of all frames together."""

    lora_ends = {"attention": (), "mlp": (".dense",), "projections": (".out",), "token_embedding": (".words",)}

    def __init__(self, spec, width):
        super().__init__()
        self.spec = spec
        self.vision = nn.ModuleDict({
            "dense": nn.Linear(spec.num_frames * 3 * spec.image_size_px**2, width), "out": nn.Linear(width, spec.dimension),
        })
        self.text = nn.ModuleDict({"words": nn.Embedding(64, width), "out": nn.Linear(width, spec.dimension)})
        self.logit_scale = nn.Parameter(torch.tensor(2.0))

    def video_features(self, pixel_values):
        return self.vision["out"](self.vision["dense"](pixel_values.flatten(1)).tanh())

    def text_features(self, input_ids):
        words = self.text["words"](input_ids) * (input_ids != self.spec.pad_id)[..., None]
        return self.text["out"](words.sum(1).tanh())


@register
class PoolFamily(Family):
    name = "pool"

    def spec_of(self, config, folder, *, name):
        sizes = {
            "dimension": config["dimension"], "context_length": config["context"], "num_frames": config["frames"],
            "image_size_px": config["side"],
        }
        return BackboneSpec(
            family="pool", name=name, resize="squash", image_mean=(0.5,) * 3, image_std=(0.5,) * 3, pad_id=0,
            tokenizer=find_tokenizer(folder), **sizes,
        )

    def build(self, config, spec):
        return Pool(spec, config["width"])
'''
CONFIG = {
    "model_type": "pool", "width": 24, "dimension": DIMENSION, "context": CONTEXT, "frames": FRAMES_OF_CLIP, "side": SIDE,
}

Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Gives a function that puts a package with one entry point where Python finds it, for the length of a test."""
    registry.families()  # those of vidseek, before the table is replaced
    monkeypatch.setattr(registry.REGISTRY, "registered", dict(registry.REGISTRY.registered))
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(str(site))

    def write(source: str, target: str) -> None:
        package = target.partition(":")[0]
        about = site / f"{package}-1.0.dist-info"
        about.mkdir(parents=True)
        (site / f"{package}.py").write_text(textwrap.dedent(source))
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[{registry.ENTRY_POINTS}]\n{package} = {target}\n")
        registry.REGISTRY.loaded = False

    yield write
    registry.REGISTRY.loaded = False


@pytest.mark.slow
def test_entry_point__a_family_of_another_package_goes_from_folder_to_proven_bundle(
    install: Install, archive: Archive, tmp_path: Path
) -> None:
    install(PACKAGE, "a_pool_package:PoolFamily")
    import a_pool_package  # type: ignore[import-not-found]
    import torch

    assert "pool" in registry.names()
    spec = backbones.BackboneSpec(
        "pool", "made", DIMENSION, CONTEXT, FRAMES_OF_CLIP, SIDE, "squash", (0.5,) * 3, (0.5,) * 3, 0, tmp_path
    )
    torch.manual_seed(0)
    made = a_pool_package.Pool(spec, 24)
    folder = write_folder(tmp_path / "backbone", CONFIG, made.state_dict())
    model = backbones.load(folder)
    with torch.no_grad():
        assert torch.equal(model.video_features(random_pixels(2)), made.video_features(random_pixels(2)))
    assert model.num_parameters() == made.num_parameters() and made.text["words"].num_embeddings > len(WORDS)

    champion = write_champion(tmp_path / "champion", folder, seed=3)
    exported, parities = export_champion(
        champion, backbone=str(folder), pairs=archive.pairs, frames=archive.frames, out=tmp_path / "encoder",
        limits={"fp32": ParitySettings().fp32}, max_clips=16,
    )
    assert (exported.family, exported.vision, exported.trims_texts) == ("pool", "video", True)
    assert not parities["fp32"].failed and parities["fp32"].min_cosine_video > 0.9999


@pytest.mark.parametrize(("source", "target", "fact"), [
    ("raise RuntimeError('half installed')", "a_broken_package:Anything", "half installed"),
    ("Anything = 3", "a_plain_package:Anything", "wanted a class derived from Family"),
    ("""
     from vidseek_training.backbones.clip import CLIPFamily

     class Anything(CLIPFamily):
         pass
     """, "a_second_clip_package:Anything", "'clip' comes from a_second_clip_package.Anything"),
])
def test_entry_point__what_cannot_be_used_is_named(install: Install, source: str, target: str, fact: str) -> None:
    install(source, target)
    with raises(ConfigError, code="plugin-broken", naming=(fact, target.partition(":")[0])) as caught:
        registry.families()
    assert caught.value.remedy


@pytest.mark.slow
def test_families__importing_them_all_imports_no_model_library() -> None:
    """Each family's part of transformers is a second or more, and every command that loads a backbone looks at all."""
    code = "from vidseek_training.backbones import registry; print(registry.names()); import sys; " \
        "sys.exit('transformers.modeling_utils' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "'clip'" in done.stdout and "'viclip'" in done.stdout
