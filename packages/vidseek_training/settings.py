"""Settings of this room: `caption`, `pairs`, `backbone`, `train`, `select`, `export` and `evaluate` of params.yaml.

No torch here, so that params can be checked in no time.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from vidseek_media.settings import Positive, QualityFlag, Section, Share
from vidseek_training.captioning.settings import LlmSettings

CaptionSource = Literal["file", "transcript", "title", "llm"]
SettingName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
"""Of an adapter setting; it becomes the name of a folder."""

Group = Literal["attention", "mlp", "projections", "token_embedding", "stem"]
Preset = Literal["none", "auto", "tiny", "base-few", "base-many", "large-few", "large-many"]
"""See `presets`. `none`: what is not said has the default that stands here; `auto`: chosen by model and number of pairs."""

DEFAULT_PRESET: Preset = "none"

TOWERS: tuple[Literal["video", "text"], ...] = ("video", "text")

DEFAULT_STEPS, DEFAULT_EVALUATE_EVERY = 1000, 100


NEAR_DUPLICATE_SHARE = 0.5
"""Of a video that shows what another shows, for the two to count as one."""


class CaptionSettings(Section):
    """Where captions come from."""

    place = "caption"
    unstated = ("llm",)

    sources: tuple[CaptionSource, ...] = ("file", "transcript", "title")
    """A clip takes what the first of them has to say of it."""
    max_transcript_characters: Positive = 300
    """Longer talk is cut off after a whole word."""
    llm: LlmSettings = LlmSettings()
    """Read where sources lists llm; docs/captions.md has the other keys."""


class PairSettings(Section):
    """Which captions make pairs, and how videos are split where the source does not say."""

    place = "pairs"

    validation_share: Share = 0.15
    """Of the videos, where the source does not say."""
    test_share: Share = 0.15
    """Of the videos, where the source does not say."""
    seed: int = 0
    """Of the split."""
    skip_quality_flags: tuple[QualityFlag, ...] = ("black", "flat", "frozen")
    """Clips that say nothing make no pairs."""
    near_duplicate_bits: Annotated[int, Field(ge=0, le=7)] | None = 6
    """Of 63: frames whose hashes differ no more show the same; null: do not look."""
    near_duplicate_share: Annotated[float, Field(gt=0, le=1)] = NEAR_DUPLICATE_SHARE
    """Of a video that shows what another shows; then both are on one side."""


class BackboneSettings(Section):
    """The base model."""

    place = "backbone"

    name: Annotated[str, Field(min_length=1)]
    """vidseek/viclip-tiny, vidseek/clip-tiny, a hub id, or a folder."""


class TrainSettings(Section):
    """One adapter setting of `train.settings` in params.yaml."""

    place = "train.settings.*"
    unstated = ("*",)

    preset: Preset | None = None
    """Where the values of keys that are not given come from; None: as `train.preset` says."""
    seed: int = 0
    """Of everything that is drawn in a training."""
    rank: int = Field(32, ge=1)
    """Of the low-rank matrices (Hu et al. 2021)."""
    alpha: int = Field(64, ge=1)
    """LoRA's updates are scaled by alpha / rank."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Before the low-rank matrices, in training."""
    targets: tuple[Group, ...] = Field(("attention",), min_length=1)
    """The groups of modules, in both towers, that get an adapter."""
    towers: tuple[Literal["video", "text"], ...] = Field(TOWERS, min_length=1)
    """The towers that get one; the other stays the base's."""
    last_layers: int | None = Field(None, ge=1)
    """Of the transformer layers of each tower only so many, the upper ones, get one; None: all."""
    cached_views: int = Field(0, ge=0)
    """Views of each clip whose features below `last_layers` are computed once and kept on disk, to be learned from instead
    of the frames: the first is the clip as it is served, the others are drawn at random. 0: nothing is kept."""
    warmup_text_steps: int = Field(0, ge=0)
    """Steps on the text tower alone, against cached video vectors of the base, before both towers are trained."""
    warmup_text_batch: int = Field(128, ge=2)
    """Pairs of each of those steps."""
    steps: int | None = Field(None, ge=1)
    """Steps on both towers; None: as `epochs` says, or 1,000 where it says nothing either."""
    epochs: float | None = Field(None, gt=0)
    """How often each training pair is seen, in the place of `steps`."""
    batch: int = Field(64, ge=2)
    """Pairs of the domain in each step."""
    chunk: int | None = Field(None, ge=1)
    """Most rows that are in memory at once, the loss being that of the whole batch (Gao et al. 2021, GradCache)."""
    device: Literal["cpu", "cuda"] = "cpu"
    """cpu or cuda."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the towers' matrix products in training; `auto` is bf16 where the processor has it. All else is fp32."""
    learning_rate: float = Field(1.0e-4, gt=0)
    """The largest, after the warm-up."""
    weight_decay: float = Field(0.0, ge=0)
    """Of the adapter's matrices (AdamW)."""
    warmup_share: float = Field(0.05, ge=0, lt=1)
    """Share of the steps with a linearly rising learning rate; a cosine follows."""
    cycles: int = Field(1, ge=1)
    """So many cosines one after the other, each from the full rate again (Loshchilov and Hutter 2017, SGDR)."""
    loss: Literal["infonce", "sigmoid"] = "infonce"
    """Of clips and captions: which of the batch belongs to each (Radford et al. 2021), or of each two whether they belong
    together (Zhai et al. 2023, SigLIP)."""
    replay: int = Field(0, ge=0)
    """General pairs added to each step, so that the general world is not forgotten."""
    replay_weight: float = Field(0.5, ge=0)
    """Of their loss."""
    replay_anchor: float = Field(0.0, ge=0)
    """Weight of keeping clips and captions of the general world where the base had them (Li and Hoiem 2016, LwF)."""
    shift_share: float = Field(0.06, ge=0, lt=0.5)
    """Largest shift of a view, in shares of the side; one for all frames of a clip."""
    brightness: float = Field(0.15, ge=0, lt=1)
    """Largest change of gain and of level of a view."""
    random_frames: bool = True
    """Where the shards hold more frames than the backbone takes, a view takes a random one of each of T equal bins."""
    word_dropout: float = Field(0.1, ge=0, lt=1)
    """Chance of each token of a caption to be left out of a view."""
    text_view_weight: float = Field(0.0, ge=0)
    """Of InfoNCE between two views of each caption: other words dropped, other dropout (Gao et al. 2021, SimCSE)."""
    clip_view_weight: float = Field(0.0, ge=0)
    """Of InfoNCE between two views of each clip."""
    mask_same_video: bool = False
    """Whether clips of one video are kept from being each other's negatives."""
    mask_overlap: float = Field(1.0, gt=0, le=1)
    """Captions whose words overlap at least so much (Jaccard) are no negatives of each other; 1: the same words."""
    hard_share: float = Field(0.0, ge=0, le=0.5)
    """Share of a batch that is picked as hard negatives of the rest, by the model as it was at the last validation."""
    hard_depth: int = Field(10, ge=1)
    """Among so many of a caption's best wrong clips."""
    hard_clips: int = Field(4000, ge=2)
    """Most training clips that are embedded to find hard negatives; after each validation another part of them."""
    evaluate_every: int | None = Field(None, ge=1)
    """Steps between two validations; None: as `validations_per_epoch` says, or 100 where it says nothing either."""
    validations_per_epoch: float | None = Field(None, gt=0)
    """Validations an epoch, in the place of `evaluate_every`."""
    validation_clips: int = Field(1000, ge=1)
    """Most validation clips that a validation while training embeds, chosen by `seed`; the result is judged on all."""
    patience: int = Field(10, ge=1)
    """How long without a better mean reciprocal rank until training stops; the best adapter is kept."""
    patience_unit: Literal["evaluations", "epochs"] = "evaluations"
    """Of `patience`."""
    scales: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field((1.0,), min_length=1)
    """Strengths of the adapter among which `scales.choose` chooses on validation; (0, 0.25, 0.5, 0.75, 1) is a sweep."""
    min_pairs: int = Field(16, ge=2)
    """With fewer training pairs nothing is trained and the base stays."""

    allow_large_updates: bool = False
    """Of a backbone over 20 M parameters: whether a learning rate over 1e-3, and adapters on stem or token embedding, are
    meant. They destroy what a published model knows."""
    max_update_ratio: float | None = Field(0.2, gt=0)
    """An update that is larger than this share of its weight, in spectral norm, is warned of; None: never."""
    hold_updates: bool = False
    """Whether an update that grows over `max_update_ratio` is scaled back to it after each step."""

    @model_validator(mode="after")
    def _one_of_each(self) -> TrainSettings:
        for one, other in (("steps", "epochs"), ("evaluate_every", "validations_per_epoch")):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise ValueError(f"{one} and {other} are both set: give one of them")
        return self

    @model_validator(mode="after")
    def _held_to_something(self) -> TrainSettings:
        if self.hold_updates and self.max_update_ratio is None:
            raise ValueError("hold_updates wants max_update_ratio: say what updates are held to")
        return self

    @model_validator(mode="after")
    def _lower_layers_stay(self) -> TrainSettings:
        if self.last_layers is not None and {"stem", "token_embedding"} & set(self.targets):
            raise ValueError("last_layers is set: stem and token_embedding lie below, and cannot be among targets")
        if self.cached_views and self.last_layers is None:
            raise ValueError("cached_views wants last_layers: where all layers are trained there is nothing to keep")
        return self

    def pairs_a_step(self, num_pairs: int) -> int:
        """Return pairs of the domain in each step's batch, of `num_pairs` training pairs."""
        return min(self.batch, num_pairs)

    def num_steps(self, num_pairs: int) -> int:
        """Steps on both towers, with `num_pairs` training pairs."""
        if self.epochs is not None:
            return max(1, math.ceil(self.epochs * num_pairs / self.pairs_a_step(num_pairs)))
        return self.steps or DEFAULT_STEPS

    def validate_every(self, num_pairs: int) -> int:
        """Steps between two validations, with `num_pairs` training pairs."""
        if self.validations_per_epoch is not None:
            return max(1, round(num_pairs / self.pairs_a_step(num_pairs) / self.validations_per_epoch))
        return self.evaluate_every or DEFAULT_EVALUATE_EVERY


class TrainingSettings(Section):
    """The adapters that are trained, and what they share."""

    place = "train"
    unstated = ("preset",)

    preset: Preset = DEFAULT_PRESET
    """By the backbone's size and the number of pairs (auto), none, or one of docs/training.md."""
    settings: dict[SettingName, TrainSettings] = Field(min_length=1)
    """Each becomes an adapter; select compares them. Keys that a setting does not give are those of its preset."""


class SelectSettings(Section):
    """The bootstrap by which adapters are compared; the rule, and its level, are in `evaluation/proof.py`."""

    place = "select"

    resamples: Positive = 2000
    """Of groups of videos, in the bootstrap; more where a level is small."""
    seed: int = 0
    """Of the bootstrap."""


class ParityLimits(Section):
    """What a variant must reach to be kept."""

    place = "export.parity.*"

    min_cosine: Annotated[float, Field(ge=-1, le=1)]
    """Of each clip and text, between the export and torch."""
    min_overlap: Share
    """Mean share of a text's ten best clips that both agree on."""
    min_r1_difference: Annotated[float, Field(ge=-1, le=1)]
    """The least difference of R@1 to torch, exported minus torch. -0.02 lets two of a hundred queries be lost."""


class ParitySettings(Section):
    """What each variant must reach."""

    place = "export.parity"

    fp32: ParityLimits = ParityLimits(min_cosine=0.9999, min_overlap=0.999, min_r1_difference=-0.02)
    """Of the exported graph itself."""
    fp16: ParityLimits = ParityLimits(min_cosine=0.999, min_overlap=0.99, min_r1_difference=-0.02)
    """Of half precision."""
    int8: ParityLimits = ParityLimits(min_cosine=0.995, min_overlap=0.97, min_r1_difference=-0.02)
    """Of quantized weights."""

    def limits(self, variant: str) -> ParityLimits:
        """Return those of fp32, fp16 or int8."""
        limits: ParityLimits = getattr(self, variant)
        return limits


class ExportSettings(Section):
    """The variants of the bundle, and the parity gate."""

    place = "export"

    variants: tuple[Literal["fp16", "int8"], ...] = ("fp16", "int8")
    """Beside fp32; one that is not near enough to torch is left out."""
    max_clips: Annotated[int, Field(ge=10)] = 400
    """That the parity gate looks at; below 183 it cannot prove that 2 of 100 queries are kept."""
    parity: ParitySettings = ParitySettings()
    """What each variant must reach against torch."""


class EvaluateSettings(Section):
    """The bootstrap of the report."""

    place = "evaluate"

    resamples: Positive = 2000
    """Of groups of videos, in the bootstrap."""
    seed: int = 0
    """Of the bootstrap."""
