from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.raising import raises
from tests.training.tiny import Archive, all_colours, write_archive
from vidseek_encoder.bundle import file_sha256
from vidseek_media.errors import ArtifactError, DeviceError, GateFailed, ServiceError
from vidseek_training import backbones
from vidseek_training.dataset.pair_set import load_pairs
from vidseek_training.evaluation.embedding import embed_pairs
from vidseek_training.evaluation.metrics import ranks_of_owned
from vidseek_training.fitting import grad_cache, lora, train
from vidseek_training.fitting import trainer as fitting
from vidseek_training.fitting.train import Outcome, train_adapter
from vidseek_training.settings import TrainSettings

SETTINGS = TrainSettings(
    rank=8, alpha=16, dropout=0.0, targets=("attention", "mlp", "projections", "token_embedding"), steps=40, batch=16,
    warmup_text_steps=10, warmup_text_batch=16, learning_rate=2e-2, shift_share=0.0, brightness=0.02, word_dropout=0.0,
    evaluate_every=10, min_pairs=16,
)


@dataclass(frozen=True)
class Trained:
    outcome: Outcome
    out: Path
    report: Path


def trained(
    archive: Archive, backbone: Path, root: Path, settings: TrainSettings, *, general: Path | None = None,
    state: Path | None = None,
) -> Trained:
    out, report = root / "adapters" / "lora", root / "report"
    outcome = train_adapter(
        "lora", settings, backbone=str(backbone), pairs=archive.pairs, frames=archive.frames, general=general, out=out,
        report=report, state=state,
    )
    return Trained(outcome, out, report)


@pytest.fixture(scope="module")
def result(
    archive: Archive, backbone: Path, tracking_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tracking_store / 'mlflow.db'}")
        patch.chdir(tracking_store)
        return trained(archive, backbone, tmp_path_factory.mktemp("trained"), SETTINGS)


def curves_of(report: Path) -> list[dict[str, float]]:
    with (report / "curves.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def scales_of(report: Path) -> list[dict[str, float | None]]:
    with (report / "scales.csv").open() as file:
        return [{name: float(value) if value else None for name, value in row.items()} for row in csv.DictReader(file)]


def test_train_adapter__learns(result: Trained) -> None:
    curves = curves_of(result.report)
    assert curves[-1]["loss"] < curves[0]["loss"]
    figures = json.loads((result.report / "metrics.json").read_text())["validation"]
    assert figures["adapted"]["default"]["mrr"] > figures["base"]["default"]["mrr"] + 0.2
    assert figures["adapted"]["two_way"]["shade"] > 0.8


def test_train_adapter__says_what_became_of_it(result: Trained, backbone: Path) -> None:
    written = json.loads((result.out / "outcome.json").read_text())
    assert Outcome(**written) == result.outcome
    assert result.outcome.trained and result.outcome.reason == ""
    assert result.outcome.backbone == str(backbone)
    assert (result.outcome.num_pairs, result.outcome.num_steps) == (32, 50)
    assert [row["step"] for row in curves_of(result.report)] == [20, 30, 40, 50]
    assert {path.name for path in result.report.iterdir()} == {"metrics.json", "curves.csv", "scales.csv", "pictures"}
    (scale,) = scales_of(result.report)
    ranks = np.array(json.loads((result.out / "validation.json").read_text())["adapted"])
    assert scale["scale"] == 1.0 and scale["mrr"] == pytest.approx((1 / ranks).mean()) and scale["general_mrr"] is None
    pictures = {path.name for path in (result.report / "pictures").iterdir()}
    assert pictures == {"curves.png", "similarity.png", "retrieval.png", "map.png"}
    assert {path.name for path in result.out.iterdir()} == {"adapter", "outcome.json", "pairs.parquet", "validation.json"}


def test_train_adapter__validation_ranks_are_those_of_the_saved_adapter(
    result: Trained, archive: Archive, backbone: Path
) -> None:
    written = json.loads((result.out / "validation.json").read_text())
    model = backbones.load(backbone)
    pairs = load_pairs(archive.pairs, archive.frames, model.spec, split="validation")
    for name, adapter in (("base", None), ("adapted", result.out / "adapter")):
        vectors = embed_pairs(lora.merged(model, adapter), pairs)
        ranks = ranks_of_owned(vectors.texts @ vectors.videos.T, np.arange(len(vectors.texts)))
        assert np.abs(ranks - written[name]).max() <= 1  # merging moves the last bits
        assert (ranks == written[name]).mean() > 0.8
    assert written["gallery"] == train.gallery_hash(pairs)
    # The best validation is what was kept.
    best = max(row["validation_mrr"] for row in curves_of(result.report))
    assert (1 / np.array(written["adapted"])).mean() == pytest.approx(best, abs=1e-3)


def test_train_adapter__leaves_a_run_with_curves_adapter_and_pictures(
    result: Trained, tracked: Path, archive: Archive
) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{tracked / 'mlflow.db'}")
    client = mlflow.MlflowClient()
    run = client.get_run(result.outcome.run_id)
    assert run.info.status == "FINISHED" and run.info.run_name == "train-lora"
    assert run.data.params["learning_rate"] == "0.02" and run.data.params["num_pairs"] == "32"
    assert run.data.tags["pairs_sha256"] == file_sha256(archive.pairs)
    history = client.get_metric_history(result.outcome.run_id, "validation_r1")
    assert [(each.step, each.value) for each in history] == [
        (row["step"], row["validation_r1"]) for row in curves_of(result.report)
    ]
    folders = ("adapter", "report")
    kept = {each.path for folder in folders for each in client.list_artifacts(run.info.run_id, folder)}
    assert {"adapter/adapter_model.safetensors", "report/curves.csv", "report/pictures"} <= kept


@pytest.mark.slow
def test_train_adapter__the_same_seed_gives_the_same_adapter(
    archive: Archive, backbone: Path, tracked: Path, no_pictures: None, tmp_path: Path
) -> None:
    short = SETTINGS.model_copy(update={"steps": 4, "warmup_text_steps": 2, "evaluate_every": 2})
    digests = set()
    for number in range(2):
        result = trained(archive, backbone, tmp_path / str(number), short)
        digests.add(file_sha256(result.out / "adapter" / "adapter_model.safetensors"))
    assert len(digests) == 1


def test_train_adapter__stops_when_validation_gains_nothing_more(
    archive: Archive, backbone: Path, tracked: Path, no_pictures: None, tmp_path: Path
) -> None:
    patient = {"patience": 1, "steps": 60, "evaluate_every": 1, "learning_rate": 1e-9, "warmup_text_steps": 0}
    result = trained(archive, backbone, tmp_path, SETTINGS.model_copy(update=patient))
    # The first validation is the best so far, the second gains nothing.
    assert result.outcome.num_steps == len(curves_of(result.report)) == 2


@pytest.mark.slow
def test_train_adapter__says_how_many_updates_the_preset_holds_and_does_not_warn_of_it(
    archive: Archive, backbone: Path, tracked: Path, no_pictures: None, tmp_path: Path
) -> None:
    held = {"preset": "base-few", "hold_updates": True, "max_update_ratio": 0.2, "mask_same_video": False}
    short = SETTINGS.model_copy(update={**held, "steps": 10, "evaluate_every": 4, "learning_rate": 5e-2})
    result = trained(archive, backbone, tmp_path, short)
    note, figures = result.outcome.updates_held, json.loads((result.report / "metrics.json").read_text())
    assert re.fullmatch(r"after step \d+ updates of \d+ of \d+ layers are held at 0\.2 of their weights", note)
    assert figures["updates_held"] == note and not any("held at" in each for each in figures["warnings"])


def test_train_adapter__without_validation_pairs_trains_to_the_end(
    backbone: Path, tracked: Path, tmp_path: Path
) -> None:
    archive = write_archive(tmp_path / "archive", all_colours(1, "train"))
    short = SETTINGS.model_copy(update={"steps": 4, "warmup_text_steps": 0, "evaluate_every": 2})
    result = trained(archive, backbone, tmp_path, short)
    assert result.outcome.trained and result.outcome.num_steps == 4
    written = json.loads((result.out / "validation.json").read_text())
    assert written["base"] == written["adapted"] == []
    assert all(np.isnan(row["validation_r1"]) for row in curves_of(result.report))
    json.loads((result.report / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert [path.name for path in (result.report / "pictures").iterdir()] == ["curves.png"]


@pytest.mark.slow
@pytest.mark.parametrize("masked", [True, False])
def test_train_adapter__warns_that_pairs_of_one_video_have_no_negatives(
    masked: bool, backbone: Path, tracked: Path, no_pictures: None, tmp_path: Path
) -> None:
    archive = write_archive(tmp_path / "archive", all_colours(1, "train"))
    short = {"steps": 2, "warmup_text_steps": 0, "evaluate_every": 2, "mask_same_video": masked}
    result = trained(archive, backbone, tmp_path, SETTINGS.model_copy(update=short))
    said = [each for each in result.outcome.warnings if "mask_same_video" in each]
    assert len(said) == masked
    losses = [row["loss"] for row in curves_of(result.report)]
    assert (max(losses) == pytest.approx(0, abs=1e-6)) == masked


def test_train_adapter__too_few_pairs_are_not_trained(archive: Archive, backbone: Path, tmp_path: Path) -> None:
    result = trained(archive, backbone, tmp_path, SETTINGS.model_copy(update={"min_pairs": 33}))
    assert not result.outcome.trained and result.outcome.run_id == ""
    assert "32" in result.outcome.reason and "33" in result.outcome.reason
    assert {path.name for path in result.out.iterdir()} == {"outcome.json", "pairs.parquet"}
    assert json.loads((result.report / "metrics.json").read_text()) == {"trained": False}
    # dvc.yaml lists these as outputs: they are there, whatever became of the training.
    assert (result.report / "curves.csv").is_file() and (result.report / "pictures").is_dir()


def test_train_adapter__a_loss_that_is_no_number_stops_it_and_nothing_is_written(
    archive: Archive, backbone: Path, tracked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([1.0, 1.0, float("nan")])

    def info_nce(videos: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        return videos.sum() * 0 + next(losses)

    monkeypatch.setattr(grad_cache, "info_nce", info_nce)
    with raises(GateFailed, code="loss-not-finite", naming=("nan", "step 3")) as caught:
        trained(archive, backbone, tmp_path, SETTINGS.model_copy(update={"warmup_text_steps": 0}))
    assert "learning_rate" in caught.value.remedy
    assert not (tmp_path / "adapters" / "lora").exists()
    assert not [path for path in (tmp_path / "report").rglob("*") if path.is_file()]


def test_train_adapter__a_store_that_does_not_answer_is_a_service_error(
    archive: Archive, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://nowhere")
    with raises(ServiceError, code="mlflow-no-answer", naming="nonsense"):
        trained(archive, backbone, tmp_path, SETTINGS)
    assert not (tmp_path / "adapters").exists()


def test_replay__general_pairs_join_each_step(
    archive: Archive, backbone: Path, tracked: Path, no_pictures: None, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    general = write_archive(tmp_path / "general", all_colours(9, "train"))
    calls: list[int] = []
    real = grad_cache.info_nce
    monkeypatch.setattr(grad_cache, "info_nce", lambda videos, *a, **k: calls.append(len(videos)) or real(videos, *a, **k))
    short = SETTINGS.model_copy(update={"steps": 2, "warmup_text_steps": 1, "replay": 6})
    trained(archive, backbone, tmp_path, short, general=general.root)
    assert calls == [16, 6] * 3


@pytest.mark.slow
def test_train_adapter__a_stopped_run_goes_on_as_the_same_run_and_gives_the_same_adapter(
    archive: Archive, backbone: Path, tracked: Path, no_pictures: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = SETTINGS.model_copy(update={"steps": 6, "warmup_text_steps": 2, "evaluate_every": 2, "dropout": 0.1})
    wanted = trained(archive, backbone, tmp_path / "whole", short, state=tmp_path / "state-of-whole")
    assert not list((tmp_path / "state-of-whole" / "checkpoints").iterdir())  # it ended well
    state, usual = tmp_path / "state", grad_cache.info_nce

    def stopped(*args: object, **kwargs: object) -> torch.Tensor:
        if len(list((state / "checkpoints").glob("*.pt"))):
            raise KeyboardInterrupt
        return usual(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(grad_cache, "info_nce", stopped)
        with pytest.raises(KeyboardInterrupt):
            trained(archive, backbone, tmp_path / "stopped", short, state=state)
    assert not (tmp_path / "stopped" / "adapters" / "lora").exists()
    (checkpoint,) = (state / "checkpoints").iterdir()
    first_run = torch.load(checkpoint, weights_only=True)["run_id"]
    found = trained(archive, backbone, tmp_path / "stopped", short, state=state)
    adapters = [each.out / "adapter" / "adapter_model.safetensors" for each in (wanted, found)]
    assert file_sha256(adapters[0]) == file_sha256(adapters[1])
    assert found.outcome.run_id == first_run and found.outcome.num_steps == wanted.outcome.num_steps == 8
    assert [row["step"] for row in curves_of(found.report)] == [4, 6, 8]
    assert not list((state / "checkpoints").iterdir())


@pytest.mark.slow
def test_train_adapter__other_settings_do_not_go_on_from_a_checkpoint(
    archive: Archive, backbone: Path, tracked: Path, no_pictures: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = SETTINGS.model_copy(update={"steps": 4, "warmup_text_steps": 0, "evaluate_every": 2})
    with monkeypatch.context() as patch:
        patch.setattr(lora, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with raises(ArtifactError, code="not-writable", naming="No space"):
            trained(archive, backbone, tmp_path, short, state=tmp_path)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1  # nothing lost: the same settings would go on from it
    begun: list[object] = []
    usual = fitting.Trainer.run
    monkeypatch.setattr(fitting.Trainer, "run", lambda self, saved: begun.append(saved) or usual(self, saved))
    trained(archive, backbone, tmp_path, short.model_copy(update={"seed": 1}), state=tmp_path)
    assert begun == [None]


def test_train_adapter__tags_say_what_it_was_made_from_and_tensorboard_has_the_curves(
    archive: Archive, backbone: Path, tracked: Path, no_pictures: None, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    short = SETTINGS.model_copy(update={"steps": 4, "warmup_text_steps": 0, "evaluate_every": 2})
    result = trained(archive, backbone, tmp_path, short, state=tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tracked / 'mlflow.db'}")
    tags = mlflow.MlflowClient().get_run(result.outcome.run_id).data.tags
    assert tags["pairs_sha256"] == file_sha256(archive.pairs)
    assert "frames_sha256" not in tags  # frames.parquet changes with every clip; the pairs table names those that count
    assert tags["backbone_sha256"] == file_sha256(backbone / "model.safetensors")
    assert tags["precision"] in ("bf16", "fp32") and "git_commit" in tags
    (folder,) = (tmp_path / "tensorboard").iterdir()
    board = EventAccumulator(str(folder)).Reload()
    curves = curves_of(result.report)
    for name in ("loss", "validation_r1", "clips_per_second"):
        assert [(each.step, round(each.value, 4)) for each in board.Scalars(name)] == [
            (row["step"], pytest.approx(row[name], abs=1e-3)) for row in curves
        ]


def test_train_adapter__a_device_that_is_not_there_stops_it(
    archive: Archive, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with raises(DeviceError, code="no-cuda"):
        trained(archive, backbone, tmp_path, SETTINGS.model_copy(update={"device": "cuda"}))


@pytest.mark.slow
def test_train_adapter__the_scale_that_the_rule_chose_is_in_the_saved_adapter(
    archive: Archive, backbone: Path, tracked: Path, no_pictures: None, tmp_path: Path
) -> None:
    general = write_archive(tmp_path / "general", [*all_colours(9, "train"), *all_colours(8, "validation")])
    swept = SETTINGS.model_copy(update={"scales": (0.0, 0.5, 1.0), "steps": 20})
    result = trained(archive, backbone, tmp_path / "swept", swept, general=general.root)
    figures = json.loads((result.report / "metrics.json").read_text())
    assert [each["scale"] for each in figures["sweep"]] == [0.0, 0.5, 1.0]
    for row, each in zip(scales_of(result.report), figures["sweep"], strict=True):
        assert row == {name: pytest.approx(each[name], abs=1e-4) for name in row}
    chosen = next(each for each in figures["sweep"] if each["scale"] == figures["scale"])
    assert chosen["difference_to_best"]["value"] == 0  # of one video nothing more can be said
    assert figures["validation"]["adapted"]["default"]["mrr"] == pytest.approx(chosen["mrr"], abs=1e-4)
    plain = trained(archive, backbone, tmp_path / "plain", swept.model_copy(update={"scales": (1.0,)}), general=general.root)
    whole, saved = (load_file(each.out / "adapter" / "adapter_model.safetensors") for each in (plain, result))
    for name, tensor in whole.items():
        is_up = "lora_B" in name or "lora_embedding_B" in name
        assert torch.equal(saved[name], tensor * figures["scale"] if is_up else tensor), name
