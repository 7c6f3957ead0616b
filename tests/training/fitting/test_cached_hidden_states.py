from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.raising import raises
from tests.training.tiny import (
    TEXT,
    VISION,
    Archive,
    data_of,
    random_pixels,
    write_clip,
    write_siglip,
    write_viclip,
    write_xclip,
)
from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_training import backbones
from vidseek_training.backbones import Backbone
from vidseek_training.dataset.sampling import Data, Sampler
from vidseek_training.fitting import cached_hidden_states as lower
from vidseek_training.fitting.cached_hidden_states import CachedHiddenStates, depth_of, lower_tokens
from vidseek_training.fitting.trainer import Trainer
from vidseek_training.settings import TrainSettings

SETTINGS = TrainSettings(
    rank=4, alpha=8, dropout=0.0, targets=("attention", "mlp", "projections"), last_layers=1, cached_views=1, steps=6,
    batch=8, replay=4,
    learning_rate=1e-2, evaluate_every=3, precision="fp32", random_frames=False, shift_share=0.0, brightness=0.0,
    word_dropout=0.0,
)
DEEP = dataclasses.replace(VISION, layers=3)


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ViCLIP of three layers."""
    return write_viclip(tmp_path_factory.mktemp("deep"), vision=DEEP, text=TEXT)


@pytest.fixture(scope="module")
def data(archive: Archive, deep: Path, tmp_path_factory: pytest.TempPathFactory) -> Data:
    return data_of(archive, deep, tmp_path_factory.mktemp("general"))


@pytest.fixture
def fit(deep: Path, data: Data) -> Callable[..., Trainer]:
    def begin(*, folder: Path | None = None, **others: object) -> Trainer:
        settings = SETTINGS.model_copy(update=others)
        torch.manual_seed(settings.seed)
        return Trainer(backbones.load(deep), settings, data, lower=folder)

    return begin


@pytest.mark.parametrize("write", [write_viclip, write_clip, write_siglip])
def test_tokens__of_any_depth_go_on_to_the_same_features(write: Callable[[Path], Path], tmp_path: Path) -> None:
    model = backbones.load(write(tmp_path))
    pixels = random_pixels(3)
    with torch.no_grad():
        wanted = model.video_features(pixels)
        for depth in range(len(model.video_layers) + 1):
            found = model.features_of_tokens(model.video_tokens(pixels, depth), depth)
            assert torch.allclose(found, wanted, atol=1e-6), depth


def test_tokens__a_tower_that_cannot_be_split_says_what_to_set(tmp_path: Path) -> None:
    model = backbones.load(write_xclip(tmp_path))
    with raises(ConfigError, code="layers-not-apart", naming="xclip", remedy="cached_views"):
        depth_of(model, SETTINGS)


def test_lora_targets__of_the_last_layers_are_those_and_what_lies_above(deep: Path) -> None:
    model = backbones.load(deep)
    names = model.lora_targets(("attention", "mlp", "projections"), last_layers=1)
    # Of vision's three layers the last, of text's one the only one; four modules each; and two projections.
    assert sum("vision_encoder.transformer.resblocks.2." in name for name in names) == 4
    assert sum("text_encoder.transformer.resblocks.0." in name for name in names) == 4
    assert len(names) == 10
    everything = model.lora_targets(("attention", "mlp", "projections"))
    assert model.lora_targets(("attention", "mlp", "projections"), last_layers=3) == everything


@pytest.mark.parametrize("wrong", [{"targets": ("attention", "stem")}, {"last_layers": None}])
def test_settings__what_cannot_be_kept_is_refused(wrong: dict[str, Any]) -> None:
    with raises(ConfigError, code="setting-out-of-range", naming="last_layers"):
        TrainSettings(**{**SETTINGS.model_dump(), **wrong})


def gradients_of(training: Trainer, sampler: Sampler) -> dict[str, Tensor]:
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in training.model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.05)
    training.model.train()
    training._train_step(sampler.draw())
    return {name: each.grad.clone() for name, each in training.model.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("chunk", [None, 3])
def test_descend__from_kept_tokens_gives_the_gradients_of_the_whole_tower(
    fit: Callable[..., Trainer], data: Data, chunk: int | None
) -> None:
    whole, kept = fit(cached_views=0, chunk=chunk), fit(chunk=chunk)
    tokens = kept._lower_tokens()
    assert tokens[0] is not None and tokens[1] is not None
    found, wanted = (
        gradients_of(each, Sampler(data, SETTINGS, each.model, Fixed(), size=8, lower=below))
        for each, below in ((kept, tokens), (whole, (None, None)))
    )
    assert found.keys() == wanted.keys() and any("resblocks.2" in name for name in found)
    assert not any("resblocks.1." in name for name in found)
    for name, gradient in wanted.items():
        # Tokens are kept in half precision: 11 bits.
        assert (found[name] - gradient).norm() <= 2e-3 * gradient.norm() + 1e-7, name


class Fixed(np.random.Generator):
    """Draws the same whatever was drawn before: one sampler draws views and the other does not."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))

    def permutation(self, x: Any, axis: int = 0) -> Any:
        return np.random.default_rng(1).permutation(x)

    def uniform(self, *args: Any, **kwargs: Any) -> Any:
        return np.random.default_rng(2).uniform(*args, **kwargs)


def test_run__on_kept_tokens_learns_as_on_frames(fit: Callable[..., Trainer]) -> None:
    whole, kept = fit(cached_views=0), fit()
    for each in (whole, kept):
        each.run()
    assert kept.curves[-1]["loss"] == pytest.approx(whole.curves[-1]["loss"], rel=0.2)
    assert kept.curves[-1]["loss"] < kept.curves[0]["loss"]


def test_lower_tokens__each_clip_is_kept_once_and_its_first_view_is_what_is_served(
    fit: Callable[..., Trainer], data: Data
) -> None:
    training = fit(cached_views=3, shift_share=0.1, brightness=0.2)
    tokens, _ = training._lower_tokens()
    assert tokens is not None
    # 32 pairs of 32 clips; class token and 2 frames of 4 patches.
    assert tokens.values.shape == (32, 3, 9, 32) and tokens.values.dtype == np.float16
    twice = data.train.table.iloc[[0, 1, 0]].reset_index(drop=True)
    pairs = data.train.__class__(twice, data.train.frames[[0, 1, 0]], data.train.ids[:3], data.train.ids[:3])
    again = lower_tokens(training.model, pairs, training.settings, in_bf16=False, folder=None, side="domain")
    assert len(again.values) == 2 and again.owner.tolist() == [again.owner[0], again.owner[1], again.owner[0]]
    pixels = lower.to_pixels(data.train.frames[:1], training.model.spec)
    with torch.no_grad():
        served = training.model.video_tokens(pixels, 2).numpy()[0]
    mine = tokens.values[tokens.owner[0]].astype(np.float32)
    assert np.abs(mine[0] - served).max() < 2e-3 * np.abs(served).max()
    assert np.abs(mine[1] - served).max() > 1e-2 < np.abs(mine[1] - mine[2]).max()


def test_draw__takes_any_view_of_the_pair_s_own_clip() -> None:
    values = np.arange(2 * 3, dtype=np.float16).reshape(2, 3, 1, 1)
    tokens = CachedHiddenStates(values, np.array([1, 0, 1]))
    found = tokens.draw(np.array([0, 1] * 40), np.random.default_rng(0)).ravel()
    assert set(found[::2]) == {3, 4, 5} and set(found[1::2]) == {0, 1, 2}


def test_lower_tokens__are_found_again_and_what_they_depend_on_makes_them_anew(
    fit: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []
    usual = lower._tokens
    monkeypatch.setattr(lower, "_tokens", lambda *a, **k: computed.append(1) or usual(*a, **k))
    first, _ = fit(folder=tmp_path)._lower_tokens()
    count = len(computed)
    second, _ = fit(folder=tmp_path, rank=8, learning_rate=1e-3)._lower_tokens()
    assert len(computed) == count > 0 and first is not None and second is not None
    assert np.array_equal(first.values, second.values) and isinstance(second.values, np.memmap)
    names = {path.name for path in tmp_path.iterdir()}
    fit(folder=tmp_path, last_layers=2)._lower_tokens()
    assert len(computed) > count and names.isdisjoint(path.name for path in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == len(names) == 2  # the domain's and the general world's


def test_lower_tokens__that_were_not_finished_are_not_there(
    fit: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lower.os, "posix_fallocate", full)
    with raises(ArtifactError, code="not-writable", naming="No space left") as caught:
        fit(folder=tmp_path)._lower_tokens()
    assert str(tmp_path) in caught.value.message and "cached_views" in caught.value.remedy
    assert not list(tmp_path.iterdir())


def test_lower_tokens__too_large_for_half_precision_are_an_error(fit: Callable[..., Trainer]) -> None:
    training = fit()
    model: Backbone = training.model
    with torch.no_grad():
        model.get_submodule("vision_encoder.ln_pre").weight.mul_(1e6)
    with raises(ArtifactError, code="not-half-precision", naming="65,504"):
        training._lower_tokens()
