from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.tiny import Archive, all_colours, random_pixels, write_archive
from vidseek_quality.intervals import Interval, interval
from vidseek_training import backbones
from vidseek_training.backbones import Backbone
from vidseek_training.dataset.pair_set import load_pairs
from vidseek_training.evaluation.embedding import embed_pairs
from vidseek_training.evaluation.retrieval_metrics import judge
from vidseek_training.evaluation.scales import Scaled, choose, sweep
from vidseek_training.fitting import lora
from vidseek_training.settings import TrainSettings

SETTINGS = TrainSettings(rank=4, alpha=8, targets=("attention", "mlp", "projections", "token_embedding"))


@pytest.fixture
def adapted(backbone: Path) -> tuple[Backbone, object]:
    model = backbones.load(backbone)
    handle = lora.attach(model, SETTINGS)
    torch.manual_seed(4)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.3)
    return model.eval(), handle


def swept(scale: float, mrr: float, high: float, general: float | None = None) -> Scaled:
    return Scaled(scale, mrr, mrr, Interval(-0.1, -0.2, high, 30), general, general)


def test_choose__without_a_general_world_the_best() -> None:
    assert choose([swept(0, 0.2, -0.1), swept(0.5, 0.6, 0.0), swept(1, 0.58, 0.01)]).scale == 0.5


def test_choose__of_those_not_proven_worse_the_one_that_keeps_most() -> None:
    rows = [swept(0, 0.2, -0.3, 0.95), swept(0.5, 0.55, -0.01, 0.9), swept(0.75, 0.58, 0.02, 0.85), swept(1, 0.6, 0.0, 0.7)]
    assert choose(rows).scale == 0.75
    # Of equal ones the larger.
    assert choose([swept(0.75, 0.58, 0.02, 0.85), swept(1, 0.6, 0.0, 0.85)]).scale == 1


def test_choose__of_a_single_video_the_best_is_taken() -> None:
    def of_one(scale: float, mrr: float, difference: float, general: float) -> Scaled:
        return Scaled(scale, mrr, mrr, interval([difference], [0], resamples=2000, seed=0, min_groups=2), general, general)

    assert choose([of_one(0, 0.2, -0.4, 0.95), of_one(1, 0.6, 0.0, 0.7)]).scale == 1


def test_set_scaled__0_is_the_base_and_1_the_adapter(adapted: tuple[Backbone, object], backbone: Path) -> None:
    model, handle = adapted
    pixels = random_pixels(2)
    state = lora.state_of(handle)
    with torch.inference_mode():
        whole = model.embed_videos(pixels)
        lora.set_scaled(handle, state, 0.0)
        assert torch.allclose(model.embed_videos(pixels), backbones.load(backbone).embed_videos(pixels), atol=1e-5)
        lora.set_scaled(handle, state, 0.5)
        assert not torch.allclose(model.embed_videos(pixels), whole, atol=1e-3)
        lora.set_scaled(handle, state, 1.0)
        assert torch.equal(model.embed_videos(pixels), whole)


def test_sweep__judges_each_scale_and_leaves_the_adapter_as_it_was(
    adapted: tuple[Backbone, object], archive: Archive, backbone: Path, tmp_path: Path
) -> None:
    model, handle = adapted
    validation = load_pairs(archive.pairs, archive.frames, model.spec, split="validation")
    other = write_archive(tmp_path, all_colours(9, "validation"))
    general = load_pairs(other.pairs, other.frames, model.spec, split="validation")
    before = judge(embed_pairs(model, validation), validation.table).text_ranks
    found = sweep(model, handle, (0.0, 0.5, 1.0), validation=validation, general=general)  # type: ignore[arg-type]
    assert [each.scale for each in found] == [0.0, 0.5, 1.0]
    base = judge(embed_pairs(backbones.load(backbone), validation), validation.table).text_ranks
    assert found[0].mrr == pytest.approx((1 / base).mean()) and found[2].mrr == pytest.approx((1 / before).mean())
    best = max(each.mrr for each in found)
    assert all(each.difference.value == pytest.approx(each.mrr - best) for each in found)
    assert all(each.general_mrr is not None for each in found)
    assert judge(embed_pairs(model, validation), validation.table).text_ranks.tolist() == before.tolist()
    alone = sweep(model, handle, (1.0,), validation=validation, general=None)  # type: ignore[arg-type]
    assert alone[0].general_mrr is None and alone[0].difference.value == 0
