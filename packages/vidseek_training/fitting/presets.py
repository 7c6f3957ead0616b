"""Presets of training settings by model and number of pairs: `preset: auto` chooses one; keys that are given override it.

`bench/teaching/recipe.py` measures them; docs/training.md reports the results.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vidseek_media.errors import ConfigError
from vidseek_media.settings import SettingsRefused
from vidseek_training.settings import DEFAULT_PRESET, Preset, TrainSettings

REAL_PARAMETERS = 20_000_000
"""A backbone of more parameters is no toy: what it knows already is worth more than what an adapter adds."""
LARGE_TOWERS = 250_000_000
"""Parameters without the token embedding. Below: B/32 and B/16 of all families (126 M to 178 M); above: L/14 (390 M)."""
MANY_PAIRS, MOST_PAIRS = 2_000, 50_000
HIGHEST_RATE = 1.0e-3
_LOW_LAYERS = ("stem", "token_embedding")

_KEEPS: dict[str, Any] = {
    "warmup_text_steps": 0, "validations_per_epoch": 1.0, "mask_same_video": True, "scales": (0.0, 0.25, 0.5, 0.75, 1.0),
    "replay": 32, "replay_weight": 0.5, "replay_anchor": 4.0, "dropout": 0.05, "max_update_ratio": 0.2, "hold_updates": True,
}
"""What all presets of real models have in common. There is no replay without `general.source`."""

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "rank": 16, "alpha": 32, "dropout": 0.05, "warmup_text_steps": 60, "warmup_text_batch": 128, "steps": 200,
        "targets": ("attention", "mlp", "projections", "token_embedding", "stem"), "batch": 32, "learning_rate": 4.0e-3,
        "replay": 16, "replay_weight": 0.5, "replay_anchor": 4.0, "evaluate_every": 50, "max_update_ratio": None,
    },
    "base-few": {
        **_KEEPS, "rank": 16, "alpha": 16, "targets": ("attention", "mlp"), "learning_rate": 3.0e-4, "batch": 64,
        "chunk": 32, "epochs": 10.0,
    },
    "base-many": {
        **_KEEPS, "rank": 16, "alpha": 16, "targets": ("attention", "mlp"), "learning_rate": 2.0e-4, "batch": 256,
        "chunk": 16, "epochs": 4.0,
    },
    "large-few": {
        **_KEEPS, "rank": 8, "alpha": 8, "targets": ("attention",), "last_layers": 8, "learning_rate": 5.0e-5, "batch": 64,
        "chunk": 4, "epochs": 10.0,
    },
    "large-many": {
        **_KEEPS, "rank": 16, "alpha": 16, "targets": ("attention",), "learning_rate": 1.0e-4, "batch": 256, "chunk": 4,
        "epochs": 4.0,
    },
}
"""`tiny` is for backbones made to be taught, such as those that are shipped."""

_EITHER = {
    "steps": "epochs", "epochs": "steps", "evaluate_every": "validations_per_epoch",
    "validations_per_epoch": "evaluate_every",
}


@dataclass(frozen=True)
class Model:
    """The sizes of a backbone that decide."""

    name: str
    num_parameters: int
    num_embedding: int
    """Of them in the table of token embeddings: a large vocabulary does not make a tower large."""


@dataclass(frozen=True)
class Choice:
    """The settings of a training with every key filled in."""

    settings: TrainSettings
    preset: Preset
    reason: str
    """Which preset, why, and which keys were given."""


def resolve(settings: TrainSettings, model: Model, num_pairs: int, *, default: Preset = DEFAULT_PRESET) -> Choice:
    """Fill in the settings that params.yaml leaves open.

    Args:
        settings: Settings from params.yaml; keys that are given there stay.
        model: The backbone.
        num_pairs: Number of training pairs.
        default: `train.preset`, for settings that name no preset.

    Raises:
        ConfigError: the settings would destroy what the model knows, or the given keys contradict the preset.
    """
    asked = settings.preset or default
    preset = preset_of(model, num_pairs) if asked == "auto" else asked
    given = {name: getattr(settings, name) for name in settings.model_fields_set - {"preset"}}
    given = {name: value for name, value in given.items() if name not in _EITHER or value is not None}
    values = {
        name: value for name, value in PRESETS.get(preset, {}).items()
        if name not in given and _EITHER.get(name) not in given
    }
    if "targets" in given and "last_layers" in values and set(_LOW_LAYERS) & set(given["targets"]):
        del values["last_layers"]  # these layers lie below the upper ones
    if settings.replay == 0 and "replay" in given:
        values.pop("replay_anchor", None)
    try:
        filled = TrainSettings(**values, **given, preset=preset)
    except SettingsRefused as error:
        told = "; ".join(fault.text for fault in error.faults)
        raise ConfigError(
            f"the keys given in params.yaml ({', '.join(sorted(given))}) do not go with preset {preset}: {told}",
            code="settings-disagree",
            remedy="Give the other keys that are named too, or set train.settings.<name>.preset to none",
        ) from error
    refuse_large(filled, model)
    return Choice(filled, preset, _reason(asked, preset, model, num_pairs, sorted(given)))


def holds_as_preset(settings: TrainSettings) -> bool:
    """Whether updates are held at the limit of the settings' preset: that many of them reach it is then as intended.

    Args:
        settings: The complete settings.
    """
    own = PRESETS.get(settings.preset or "none", {})
    return settings.hold_updates and all(
        key in own and getattr(settings, key) == own[key] for key in ("hold_updates", "max_update_ratio")
    )


def preset_of(model: Model, num_pairs: int) -> Preset:
    """Return the preset for a model and a number of training pairs."""
    if model.num_parameters <= REAL_PARAMETERS:
        return "tiny"
    few = num_pairs < MANY_PAIRS
    if model.num_parameters - model.num_embedding > LARGE_TOWERS:
        return "large-few" if few else "large-many"
    return "base-few" if few else "base-many"


def refuse_large(settings: TrainSettings, model: Model) -> None:
    """Refuse updates that destroy a published model, unless the settings state that they are intended.

    Args:
        settings: The complete settings.
        model: The backbone.

    Raises:
        ConfigError: the learning rate is above 1e-3, or adapters are on stem or token embedding, and the model has more than
            20 M parameters.
    """
    if settings.allow_large_updates or model.num_parameters <= REAL_PARAMETERS:
        return
    faults = []
    if settings.learning_rate > HIGHEST_RATE:
        faults.append(f"learning_rate is {settings.learning_rate:g}, over {HIGHEST_RATE:g}")
    if low := [group for group in _LOW_LAYERS if group in settings.targets]:
        faults.append(f"targets name {' and '.join(low)}")
    if faults:
        raise ConfigError(
            f"{model.name} has {model.num_parameters / 1e6:.0f} M parameters, over {REAL_PARAMETERS / 1e6:.0f} M, and "
            f"{'; '.join(faults)}: that destroys what it knows", code="preset-destructive",
            remedy="Set train.preset to auto and leave these keys out; or, where it is meant, also set "
            "train.settings.<name>.allow_large_updates to true",
        )


def _reason(asked: str, preset: str, model: Model, num_pairs: int, given: list[str]) -> str:
    why = "params.yaml names it"
    if asked == "auto":
        size = f"{model.num_parameters / 1e6:.1f} M parameters, {model.num_embedding / 1e6:.1f} M of them token embeddings"
        why = f"{model.name} has {size}, and there are {num_pairs:,} training pairs"
    beyond = ""
    if asked == "auto" and num_pairs > MOST_PAIRS and preset != "tiny":
        beyond = f"; it was made for up to {MOST_PAIRS:,} pairs, so set epochs yourself"
    return f"preset {preset}: {why}{beyond}; given in params.yaml: {', '.join(given) or 'nothing'}"
