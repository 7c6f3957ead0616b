from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import get_peft_model_state_dict
from torch import Tensor

from tests.raising import raises
from tests.training.tiny import Archive, data_of, write_siglip
from vidseek_media.errors import GateFailed
from vidseek_training import backbones
from vidseek_training.dataset.sampling import BaseVectors, Data, Sampler
from vidseek_training.evaluation.embedding import embed_pairs
from vidseek_training.fitting import grad_cache
from vidseek_training.fitting import trainer as fitting
from vidseek_training.fitting.checkpoints import Checkpoint
from vidseek_training.fitting.trainer import Trainer
from vidseek_training.settings import TrainSettings

SETTINGS = TrainSettings(
    rank=4, alpha=8, dropout=0.1, targets=("attention", "mlp", "projections", "token_embedding"), steps=12, batch=8,
    warmup_text_steps=3, warmup_text_batch=8, learning_rate=5e-3, evaluate_every=4, replay=4, precision="fp32",
    hard_share=0.25, text_view_weight=0.1, clip_view_weight=0.1,
)


@pytest.fixture(scope="module")
def data(archive: Archive, backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Data:
    return data_of(archive, backbone, tmp_path_factory.mktemp("general"))


@pytest.fixture
def fit(backbone: Path, data: Data) -> Callable[..., Trainer]:
    """A fresh training; other settings by name."""

    def begin(*, checkpoint: Checkpoint | None = None, log: Any = None, **others: object) -> Trainer:
        settings = SETTINGS.model_copy(update=others)
        torch.manual_seed(settings.seed)
        return Trainer(backbones.load(backbone), settings, data, checkpoint=checkpoint, log=log)

    return begin


def adapter_of(training: Trainer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in get_peft_model_state_dict(training.handle).items()}


class Killed(Exception):
    """The process was stopped."""


@pytest.mark.slow
@pytest.mark.parametrize(("stopped_at", "others"), [
    (4, {}), (8, {}), (8, {"loss": "sigmoid", "cycles": 3}),
    (4, {"last_layers": 1, "cached_views": 2, "targets": ("attention",)}),
    (4, {"hard_share": 0.25, "hard_depth": 2, "hard_clips": 8}),  # most pairs have no hard negative yet
])
def test_run__goes_on_from_its_checkpoint_and_ends_as_if_it_had_not_been_stopped(
    fit: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_at: int, others: dict[str, Any]
) -> None:
    undisturbed = fit(checkpoint=Checkpoint(tmp_path, "whole", "0" * 16), **others)
    undisturbed.run()
    kept = Checkpoint(tmp_path, "stopped", "0" * 16)
    first = fit(checkpoint=kept, **others)
    usual = Trainer._train_step

    def train_step(self: Trainer, batch: Any) -> float:
        if self.steps_done == 3 + stopped_at + 1:
            raise Killed
        return usual(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", train_step)
        with pytest.raises(Killed):
            first.run()
    saved = kept.load()
    assert saved is not None and saved["step"] == stopped_at
    torch.manual_seed(12345)  # a new process knows nothing of the old one's generators
    second = fit(checkpoint=kept, **others)
    second.run(saved)
    wanted, found = adapter_of(undisturbed), adapter_of(second)
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    assert second.steps_done == undisturbed.steps_done == 15
    told = [{k: v for k, v in row.items() if k not in ("clips_per_second", "data_share")} for row in second.curves]
    assert told == [
        {k: v for k, v in row.items() if k not in ("clips_per_second", "data_share")} for row in undisturbed.curves
    ]
    assert second.adapted.text_ranks.tolist() == undisturbed.adapted.text_ranks.tolist()


def step_gradients(training: Trainer, batch: Any) -> dict[str, Tensor]:
    training.model.train()
    training.model.zero_grad()
    torch.manual_seed(5)
    training._train_step(batch)
    return {name: each.grad.clone() for name, each in training.model.named_parameters() if each.grad is not None}


def shaken(training: Trainer) -> Trainer:
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in training.model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.05)
    return training


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_descend__in_chunks_gives_the_gradients_of_the_whole_batch(fit: Callable[..., Trainer], chunk: int) -> None:
    whole, pieces = shaken(fit(dropout=0.0)), shaken(fit(dropout=0.0, chunk=chunk))
    batch = Sampler(whole.data, whole.settings, whole.model, np.random.default_rng(1), size=8).draw()
    wanted, found = step_gradients(whole, batch), step_gradients(pieces, batch)
    assert wanted.keys() == found.keys() and "logit_scale" in wanted
    for name, gradient in wanted.items():
        assert torch.allclose(found[name], gradient, atol=1e-6, rtol=1e-4), name


def test_descend__in_chunks_the_second_pass_drops_what_the_first_one_did(
    fit: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    training = shaken(fit(dropout=0.5, chunk=3))
    seen: list[Tensor] = []
    usual = Trainer._embed
    monkeypatch.setattr(Trainer, "_embed", lambda self, piece: seen.append(usual(self, piece)) or seen[-1])
    batch = Sampler(training.data, training.settings, training.model, np.random.default_rng(1), size=8).draw()
    step_gradients(training, batch)
    half = len(seen) // 2
    assert half > 4 and all(torch.equal(a, b) for a, b in zip(seen[:half], seen[half:], strict=True))
    assert not any(part.requires_grad for part in seen[:half]) and all(part.requires_grad for part in seen[half:])


def test_draw__terms_are_the_pairs_replay_and_two_views_of_each_kind(fit: Callable[..., Trainer]) -> None:
    training = fit()
    batch = Sampler(training.data, training.settings, training.model, np.random.default_rng(0), size=8).draw()
    pairs, replay, clips, texts = batch.terms
    assert [term.weight for term in batch.terms] == [1.0, 0.5, 0.1, 0.1]
    # 8 clips, 4 general ones, 8 second views; 8 captions with 8 contrasts, 4 general captions, 8 second ones.
    assert len(batch.clips) == 20 and len(batch.ids) == 28
    assert (pairs.left, pairs.right) == (slice(0, 8), slice(20, 36))
    assert (replay.left, replay.right) == (slice(8, 12), slice(36, 40))
    assert (clips.left, clips.right) == (slice(0, 8), slice(12, 20))
    assert (texts.left, texts.right) == (slice(20, 28), slice(40, 48))
    assert pairs.same.shape == (8, 16) and clips.same.shape == texts.same.shape == (8, 8)
    # Two views of a clip are not the same picture, and two of a caption not always the same words.
    assert not np.array_equal(batch.clips[:8], batch.clips[12:20])


def test_mine__hard_negatives_join_after_the_first_look(fit: Callable[..., Trainer]) -> None:
    training = fit(hard_share=0.5, hard_depth=1)
    sampler = Sampler(training.data, training.settings, training.model, np.random.default_rng(0), size=8)
    training._mine(sampler)
    assert sampler.neighbours is not None and sampler.neighbours.shape == (32, 1)
    train = training.data.train.table
    for row, (hard,) in enumerate(sampler.neighbours):
        assert train.clip_id[hard] != train.clip_id[row] and train.caption[hard] != train.caption[row]
    assert fit(hard_share=0.0)._mine(sampler) is None


def test_look__logs_losses_recall_both_ways_and_speed(fit: Callable[..., Trainer]) -> None:
    told: list[tuple[int, dict[str, float]]] = []
    training = fit(log=lambda figures, step: told.append((step, figures)))
    training.run()
    assert [step for step, _ in told] == [7, 11, 15]
    last = told[-1][1]
    assert {"loss", "learning_rate", "logit_scale", "alignment", "uniformity", "epoch", "data_share"} <= last.keys()
    recalls = ("r1", "r5", "r10", "mdr", "video_to_text_r1", "video_to_text_mdr")
    assert {f"validation_{each}" for each in recalls} <= last.keys()
    assert last["clips_per_second"] > 0 and 0 <= last["data_share"] <= 1
    assert last["epoch"] == pytest.approx(15 * 8 / 32)


def test_run__patience_counts_epochs_where_it_is_said_so(fit: Callable[..., Trainer]) -> None:
    training = fit(
        patience=1, patience_unit="epochs", learning_rate=1e-9, warmup_text_steps=0, steps=40, evaluate_every=2, hard_share=0
    )
    training.run()
    # The first validation, after 2 steps, is the best; an epoch of 32 pairs is 4 steps of 8.
    assert training.steps_done == 6


def test_run__a_loss_that_is_no_number_says_where_the_last_good_state_is(
    fit: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Checkpoint(tmp_path, "lora", "0" * 16)
    training = fit(checkpoint=kept, warmup_text_steps=0)
    usual = grad_cache.info_nce

    def info_nce(*args: Any, **kwargs: Any) -> Tensor:
        return usual(*args, **kwargs) * (float("nan") if training.steps_done == 6 else 1)

    monkeypatch.setattr(grad_cache, "info_nce", info_nce)
    with raises(GateFailed, code="loss-not-finite", naming=("step 7", kept.path.name)):
        training.run()
    saved = kept.load()
    assert saved is not None and saved["step"] == 4


@pytest.mark.parametrize("holds", [False, True])
def test_run__a_gradient_that_is_no_number_stops_it_though_the_loss_is_one(
    fit: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch, holds: bool
) -> None:
    training = fit(warmup_text_steps=0, hold_updates=holds, max_update_ratio=0.2)
    usual = grad_cache.info_nce

    def info_nce(videos: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        # The root's slope at 0 is infinite.
        return usual(videos, *args, **kwargs) + ((videos.sum() * 0).sqrt() if training.steps_done == 3 else 0)

    monkeypatch.setattr(grad_cache, "info_nce", info_nce)
    with raises(GateFailed, code="loss-not-finite", naming=("nan", "step 4")):
        training.run()
    trained = [each for name, each in training.model.named_parameters() if "lora_" in name]
    assert trained and all(bool(each.isfinite().all()) for each in trained)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [None, 3])
def test_run__an_anchor_keeps_the_general_world_where_the_base_had_it(
    fit: Callable[..., Trainer], data: Data, chunk: int | None
) -> None:
    assert data.general is not None
    kept = {}
    for weight in (0.0, 20.0):
        training = fit(replay_anchor=weight, chunk=chunk)
        base = embed_pairs(training.model, data.general)
        training.run()
        after = embed_pairs(training.model, data.general)
        kept[weight] = min((base.videos * after.videos).sum(1).mean(), (base.texts * after.texts).sum(1).mean())
    assert kept[20.0] > kept[0.0] + 0.02


def test_draw__anchors_are_the_rows_of_the_general_world(backbone: Path, data: Data) -> None:
    assert data.general is not None
    count = len(data.general)
    base = BaseVectors(
        np.zeros((len(data.train), 4), np.float32), np.tile(np.arange(count, dtype=np.float32)[:, None], 4),
        np.tile(100 + np.arange(count, dtype=np.float32)[:, None], 4),
    )
    settings = SETTINGS.model_copy(update={"replay_anchor": 2.0, "word_dropout": 0.5})
    model = backbones.load(backbone)
    batch = Sampler(data, settings, model, np.random.default_rng(0), size=8, base=base).draw()
    texts, clips = batch.anchors
    rows = clips.held[:, 0].astype(int)
    assert (texts.held[:, 0] == 100 + rows).all() and texts.weight == clips.weight == 2.0
    assert clips.rows == slice(8, 12) == batch.terms[1].left
    said = batch.ids[texts.rows.start - len(batch.clips) : texts.rows.stop - len(batch.clips)]
    wanted = data.general.ids[rows]
    assert (said == wanted[:, : said.shape[1]]).all() and not wanted[:, said.shape[1] :].any()
    warm = Sampler(data, settings, model, np.random.default_rng(0), size=8, base=base, clips_are_known=True).draw()
    assert len(warm.anchors) == 1 and warm.clips.shape == (12, 4)


def test_run__by_the_sigmoid_loss_learns_and_begins_where_the_softmax_stands(fit: Callable[..., Trainer]) -> None:
    training = fit(loss="sigmoid", steps=30, evaluate_every=10, dropout=0.0, hard_share=0.0, text_view_weight=0.0,
                   clip_view_weight=0.0, warmup_text_steps=0, learning_rate=2e-2)
    training.run()
    assert training.bias is not None and training.bias.grad is not None
    assert training.curves[-1]["loss"] < 0.7 * training.curves[0]["loss"]
    assert training.curves[-1]["validation_mrr"] > (1 / training.base.text_ranks).mean() + 0.1


def test_descend__the_sigmoid_loss_in_chunks_has_the_gradients_of_the_whole_batch(fit: Callable[..., Trainer]) -> None:
    found = []
    for chunk in (None, 3):
        training = shaken(fit(dropout=0.0, loss="sigmoid", chunk=chunk))
        training.bias = training._first_bias()
        batch = Sampler(training.data, training.settings, training.model, np.random.default_rng(1), size=8).draw()
        found.append(step_gradients(training, batch) | {"bias": training.bias.grad})
    for name, gradient in found[0].items():
        assert torch.allclose(found[1][name], gradient, atol=1e-6, rtol=1e-4), name
    assert float(found[0]["bias"]) != 0


def test_cosine__warms_up_once_and_falls_as_often_as_it_is_told() -> None:
    rate = fitting._cosine(44, 0.1, 4)
    rates = [rate(step) for step in range(44)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    tops = [step for step in range(4, 44) if rates[step] == pytest.approx(1.0)]
    assert tops == [4, 14, 24, 34] and all(rates[top + 9] < 0.03 for top in tops)
    assert [fitting._cosine(44, 0.1, 1)(step) for step in (4, 24)] == [pytest.approx(1.0), pytest.approx(0.5)]


def test_mine__looks_at_no_more_clips_than_its_budget_and_at_others_next_time(
    fit: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    training = fit(hard_share=0.5, hard_depth=2, hard_clips=8)
    sampler = Sampler(training.data, training.settings, training.model, np.random.default_rng(0), size=8)
    embedded: list[int] = []
    usual = training.model.embed_videos
    monkeypatch.setattr(training.model, "embed_videos", lambda pixels: embedded.append(len(pixels)) or usual(pixels))
    seen = []
    for step in (4, 8):
        training.steps_done = step
        training._mine(sampler)
        assert sampler.neighbours is not None
        seen.append(set(np.flatnonzero((sampler.neighbours >= 0).any(1)).tolist()))
    assert sum(embedded) == 16 and len(seen[0]) == 8 and len(seen[1]) > 8
    captions, clips = (training.data.train.table[name].to_numpy() for name in ("caption", "clip_id"))
    for row, found in enumerate(sampler.neighbours):
        for hard in found[found >= 0]:
            assert captions[hard] != captions[row] and clips[hard] != clips[row]


def test_look__of_many_pairs_judges_as_many_as_it_is_told_and_the_result_is_of_all(
    fit: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[int] = []
    usual = fitting.judge
    monkeypatch.setattr(fitting, "judge", lambda vectors, table: judged.append(len(table)) or usual(vectors, table))
    training = fit(validation_clips=5, steps=8)
    training.run()
    assert judged == [16, 5, 5, 16]
    assert len(training.adapted.text_ranks) == 16


def test_look__measures_the_updates_and_warns_once_of_one_that_is_too_strong(fit: Callable[..., Trainer]) -> None:
    told: list[str] = []
    strong = fit(learning_rate=5e-2, max_update_ratio=0.2)
    strong._say = told.append
    strong.run()
    assert strong.strongest[0] > 0.2 and len(told) == len(strong.warnings) == 1
    assert strong.warnings[0] in told[0] and "spectral norm" in told[0]
    assert max(row["update_ratio"] for row in strong.curves) <= strong.strongest[0] + 1e-4
    assert strong.strongest[1] in dict(strong.handle.base_model.model.named_modules())
    assert fit(learning_rate=1e-6).warnings == []
    assert fit(learning_rate=5e-2, max_update_ratio=None).warnings == []


def test_run__by_epochs_sees_each_pair_as_often(fit: Callable[..., Trainer]) -> None:
    training = fit(epochs=2.0, steps=None, validations_per_epoch=2.0, evaluate_every=None, warmup_text_steps=0)
    training.run()
    assert training.steps_done == 8 and [row["step"] for row in training.curves] == [2, 4, 6, 8]


@pytest.mark.slow
@pytest.mark.parametrize("others", [
    {}, {"chunk": 3}, {"last_layers": 1, "cached_views": 1, "targets": ("attention",)}, {"towers": ("text",)},
])
def test_forecast__counts_what_run_does_and_changes_nothing(fit: Callable[..., Trainer], others: dict[str, Any]) -> None:
    plain, asked = fit(**others), fit(**others)
    found = asked.forecast()
    work = found.work
    assert (work.num_pairs, work.num_steps, work.num_validations, work.epochs) == (32, 12, 3, 3.0)
    assert (work.clips_a_step, work.texts_a_step) == (20, 28)  # as in the terms of a batch, above
    assert found.seconds > 0 and found.memory_bytes > 4 * asked.model.num_parameters()
    for said in ("32 pairs", "12 steps of 8", "3 epochs", "GiB here", "measured"):
        assert said in str(found)
    torch.manual_seed(9)
    plain.run()
    torch.manual_seed(9)
    asked.run()
    assert all(torch.equal(tensor, adapter_of(asked)[name]) for name, tensor in adapter_of(plain).items())


def test_run__a_siglip_goes_on_from_its_own_scale_and_bias(data: Data, tmp_path: Path) -> None:
    model = backbones.load(write_siglip(tmp_path))
    with torch.no_grad():
        model.logit_scale.fill_(4.8)  # SigLIP's own factor is over CLIP's limit of 100
        model.siglip.logit_bias.fill_(-12.5)
    training = Trainer(model, SETTINGS.model_copy(update={
        "loss": "sigmoid", "replay": 0, "steps": 1, "warmup_text_steps": 0, "learning_rate": 1e-6,
    }), Data(data.train, data.validation, None))
    training.run()
    assert training.bias is not None and float(training.bias.detach()) == pytest.approx(-12.5, abs=1e-4)
    assert float(model.logit_scale.detach()) == pytest.approx(4.8, abs=1e-4)


def test_run__updates_that_are_held_are_under_the_limit_after_every_step(
    fit: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    training = fit(learning_rate=5e-2, max_update_ratio=0.2, hold_updates=True)
    seen: list[float] = []
    usual = Trainer._train_step

    def train_step(self: Trainer, batch: Any) -> float:
        seen.append(max(self._gauge.ratios().values()))
        return usual(self, batch)

    monkeypatch.setattr(Trainer, "_train_step", train_step)
    training.run()
    assert 0.19 < max(seen) <= 0.2  # the text tower's warm-up is held too
    assert training.curves[-1]["updates_held"] > 0 and any("held at 0.2" in each for each in training.warnings)


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "limit", "warns"), [
    ("base-few", 0.2, False), ("base-few", 0.1, True), ("none", 0.2, True),
])
def test_run__updates_that_the_preset_holds_are_noted_and_only_a_limit_of_one_s_own_is_warned_of(
    fit: Callable[..., Trainer], preset: str, limit: float, warns: bool
) -> None:
    training = fit(learning_rate=5e-2, max_update_ratio=limit, hold_updates=True, preset=preset, warmup_text_steps=0)
    assert training.held_updates() == ""
    training.run()
    most, layers = max(training.curves, key=lambda row: row["updates_held"]), len(training._gauge)
    note = f"of {layers} layers are held at {limit:g} of their weights"
    assert 2 * most["updates_held"] > layers
    assert training.held_updates() == f"after step {most['step']} updates of {most['updates_held']} {note}"
    assert [note in each for each in training.warnings] == [True] * warns
