from __future__ import annotations

from typing import Any

import pytest

from tests.raising import raises
from vidseek_media.errors import ConfigError
from vidseek_training.fitting.presets import PRESETS, Model, holds_as_preset, refuse_large, resolve
from vidseek_training.settings import TrainSettings

TINY = Model("vidseek/viclip-tiny", 1_500_000, 50_000)
B32 = Model("openai/clip-vit-base-patch32", 151_277_313, 25_296_896)
SIGLIP = Model("google/siglip2-base-patch16-224", 375_187_970, 196_608_000)
L14 = Model("openai/clip-vit-large-patch14-336", 427_944_193, 37_945_344)


@pytest.mark.parametrize(("model", "num_pairs", "wanted"), [
    (TINY, 400, "tiny"), (TINY, 100_000, "tiny"), (B32, 100, "base-few"), (B32, 1_999, "base-few"),
    (B32, 2_000, "base-many"), (B32, 50_000, "base-many"), (SIGLIP, 500, "base-few"), (L14, 500, "large-few"),
    (L14, 5_000, "large-many"),
])
def test_resolve__auto_chooses_by_model_and_pairs_and_says_why(model: Model, num_pairs: int, wanted: str) -> None:
    choice = resolve(TrainSettings(), model, num_pairs, default="auto")
    assert choice.preset == choice.settings.preset == wanted
    for key, value in PRESETS[wanted].items():
        assert getattr(choice.settings, key) == value, key
    assert wanted in choice.reason and model.name in choice.reason and f"{num_pairs:,} training pairs" in choice.reason
    assert f"{model.num_parameters / 1e6:.1f} M parameters" in choice.reason


def test_resolve__the_shipped_demo_is_taught_as_before_there_were_presets() -> None:
    settings = resolve(TrainSettings(seed=0), TINY, 400, default="auto").settings
    before = TrainSettings(
        rank=16, alpha=32, dropout=0.05, targets=("attention", "mlp", "projections", "token_embedding", "stem"),
        warmup_text_steps=60, warmup_text_batch=128, steps=200, batch=32, learning_rate=4.0e-3, replay=16,
        replay_weight=0.5, replay_anchor=4.0, evaluate_every=50,
    )
    apart = {"preset", "max_update_ratio"}
    assert settings.model_dump(exclude=apart) == before.model_dump(exclude=apart)


@pytest.mark.parametrize("preset", sorted(set(PRESETS) - {"tiny"}))
def test_presets__of_real_models_are_careful(preset: str) -> None:
    settings = resolve(TrainSettings(preset=preset), L14, 1).settings  # type: ignore[arg-type]
    assert settings.warmup_text_steps == 0 and settings.mask_same_video and 0.0 in settings.scales
    assert 5.0e-5 <= settings.learning_rate <= 1.0e-3 and not {"stem", "token_embedding"} & set(settings.targets)
    assert settings.epochs is not None and settings.steps is None and settings.max_update_ratio == 0.2
    assert holds_as_preset(settings)


@pytest.mark.parametrize(("given", "is_preset"), [
    ({"learning_rate": 1.0e-3}, True), ({"max_update_ratio": 0.3}, False), ({"hold_updates": False}, False),
    ({"preset": "none", "hold_updates": True, "max_update_ratio": 0.2}, False), ({"preset": "tiny"}, False),
])
def test_holds_as_preset__only_at_the_limit_of_a_preset_that_holds(given: dict[str, Any], is_preset: bool) -> None:
    assert holds_as_preset(resolve(TrainSettings(**given), TINY, 500, default="base-few").settings) is is_preset


@pytest.mark.parametrize(("given", "gone"), [
    ({"learning_rate": 3.0e-5}, None), ({"steps": 7}, "epochs"), ({"evaluate_every": 9}, "validations_per_epoch"),
    ({"rank": 2, "targets": ("mlp",)}, None), ({"scales": (1.0,)}, None), ({"epochs": 2.0, "steps": None}, "steps"),
])
def test_resolve__keys_that_are_given_override_the_preset(given: dict[str, Any], gone: str | None) -> None:
    choice = resolve(TrainSettings(**given), B32, 500, default="auto")
    for key, value in given.items():
        assert getattr(choice.settings, key) == value
        assert value is None or key in choice.reason
    if gone:
        assert getattr(choice.settings, gone) is None
    others = set(PRESETS["base-few"]) - set(given) - {gone}
    assert all(getattr(choice.settings, key) == PRESETS["base-few"][key] for key in others)


def test_resolve__a_setting_s_own_preset_goes_before_that_of_all_and_none_is_the_defaults() -> None:
    assert resolve(TrainSettings(preset="large-few"), B32, 500, default="auto").preset == "large-few"
    plain = resolve(TrainSettings(preset="none", rank=5), B32, 500, default="auto").settings
    assert plain.model_dump(exclude={"preset"}) == TrainSettings(rank=5).model_dump(exclude={"preset"})
    assert resolve(TrainSettings(rank=5), B32, 500).settings.num_steps(500) == 1000


def test_resolve__twice_changes_nothing() -> None:
    once = resolve(TrainSettings(rank=3), B32, 5_000, default="auto")
    assert resolve(once.settings, B32, 100, default="auto").settings == once.settings


def test_resolve__keys_that_do_not_go_with_the_preset_are_named() -> None:
    with raises(ConfigError, code="settings-disagree", naming=("cached_views", "base-many", "last_layers")):
        resolve(TrainSettings(last_layers=None, preset="base-many", cached_views=0).model_copy(update={"cached_views": 2}),
                B32, 9_000)


@pytest.mark.parametrize(("given", "told"), [
    ({"learning_rate": 4.0e-3}, "0.004"), ({"targets": ("attention", "stem")}, "stem"),
    ({"targets": ("token_embedding",), "learning_rate": 2.0e-3}, "token_embedding"),
])
@pytest.mark.parametrize("preset", ["auto", "none"])
def test_resolve__updates_that_wreck_a_real_model_are_refused_unless_said_twice(
    given: dict[str, Any], told: str, preset: Any
) -> None:
    with raises(ConfigError, code="preset-destructive", naming=(told, "151 M"), remedy="allow_large_updates"):
        resolve(TrainSettings(**given), B32, 500, default=preset)
    assert resolve(TrainSettings(**given, allow_large_updates=True), B32, 500, default=preset).settings.learning_rate > 0
    assert resolve(TrainSettings(**given), TINY, 500, default=preset).settings.learning_rate > 0


def test_refuse_large__lets_a_rate_of_1e_3_through() -> None:
    refuse_large(TrainSettings(learning_rate=1.0e-3), L14)


def test_resolve__the_tiny_preset_of_a_real_model_is_refused() -> None:
    with raises(ConfigError, code="preset-destructive", naming="0.001"):
        resolve(TrainSettings(preset="tiny"), B32, 500)


@pytest.mark.parametrize("both", [{"steps": 3, "epochs": 1.0}, {"evaluate_every": 3, "validations_per_epoch": 1.0}])
def test_settings__one_of_two_ways_to_count(both: dict[str, Any]) -> None:
    with raises(ConfigError, code="setting-out-of-range", naming=tuple(both)):
        TrainSettings(**both)


@pytest.mark.parametrize(("given", "num_pairs", "steps", "every"), [
    ({"epochs": 10.0, "batch": 64, "validations_per_epoch": 1.0}, 700, 110, 11),
    ({"epochs": 0.5, "batch": 64, "validations_per_epoch": 4.0}, 640, 5, 2),
    ({"epochs": 3.0, "batch": 64}, 20, 3, 100), ({"steps": 40, "evaluate_every": 7}, 10_000, 40, 7), ({}, 50, 1000, 100),
])
def test_settings__epochs_and_looks_are_of_the_pairs_there_are(
    given: dict[str, Any], num_pairs: int, steps: int, every: int
) -> None:
    settings = TrainSettings(**given)
    assert (settings.num_steps(num_pairs), settings.validate_every(num_pairs)) == (steps, every)
