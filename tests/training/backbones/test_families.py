"""Every family at reduced sizes with random weights: from a folder over an adapter to a bundle whose vectors are torch's.

A new family adds its tiny model to `FAMILIES`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.training.tiny import (
    FRAMES_OF_CLIP,
    SIDE,
    ids_of,
    random_pixels,
    write_clip,
    write_siglip,
    write_viclip,
    write_xclip,
)
from tests.training.tiny_dual import KINDS, write_dual
from tests.training.tiny_open_clip import write_open_clip
from vidseek_encoder.bundle import EncoderSpec
from vidseek_training import backbones
from vidseek_training.backbones import registry

ROOT = Path(__file__).parents[3]
FAMILIES: dict[str, Callable[[Path], Path]] = {
    "viclip": write_viclip, "clip": write_clip, "xclip": write_xclip, "siglip": write_siglip,
    "siglip2": partial(write_dual, kind="siglip2"), "dual": partial(write_dual, kind="chinese_clip"),
    "open_clip": write_open_clip,
}
"""By family: what writes a tiny model of it into a folder, which reads the captions of `tiny.write_archive`."""
EXPORTED_ELSEWHERE = ("viclip", "clip")
"""By test_export.py."""
ALL_KINDS = sorted(set(KINDS) - {"siglip2"})
QUICK = ("open_clip",)
"""Always exported: its tensors have names of another library. The rest takes most of a minute, and slow tests export it."""


def test_families__each_has_a_tiny_model_here_and_a_line_in_the_docs() -> None:
    table = (ROOT / "docs" / "backbones.md").read_text(encoding="utf-8")
    assert set(FAMILIES) == set(registry.names())
    assert [name for name in registry.names() if f"\n| `{name}` |" not in table] == []


@pytest.mark.parametrize(("name", "family"), [
    pytest.param(name, family, marks=[] if name in QUICK else pytest.mark.slow)
    for name, family in [
        *((name, name) for name in sorted(set(FAMILIES) - {"dual", *EXPORTED_ELSEWHERE})),
        *((kind, "dual") for kind in ALL_KINDS),
    ]
])
def test_family__goes_from_a_folder_over_an_adapter_to_a_proven_bundle(
    name: str, family: str, export_once: Callable[[str, Callable[[Path], Path]], Path]
) -> None:
    folder = export_once(name, partial(write_dual, kind=name) if family == "dual" else FAMILIES[family])
    spec = EncoderSpec.load(folder / "encoder")
    assert json.loads((folder / "encoder" / "parity.json").read_text())["fp32"]["failed"] == []
    model = backbones.load(folder / "backbone")
    assert (spec.family, spec.dimension) == (name, model.spec.dimension)
    assert (spec.image_size_px, spec.num_frames) == (SIDE, FRAMES_OF_CLIP)
    assert spec.trims_texts != model.reads_padding
    # Vectors that are all alike would agree with anything.
    videos = model.embed_videos(random_pixels(4)).detach()
    texts = model.embed_texts(ids_of(model, ["a red video", "cyan", "dark"])).detach()
    assert (videos @ videos.T).min() < 0.9999 and (texts @ texts.T).min() < 0.9999
