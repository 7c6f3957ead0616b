from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.raising import raises
from tests.training.tiny import VISION, ids_of, random_pixels, write_clip, write_viclip
from vidseek_media.errors import DeviceError
from vidseek_training import backbones
from vidseek_training.backbones import Backbone
from vidseek_training.fitting import lora, precision
from vidseek_training.fitting.losses import info_nce
from vidseek_training.fitting.precision import bf16_products, multiplies_in_bf16, training_products
from vidseek_training.settings import TrainSettings

CPU = torch.device("cpu")
PRODUCTS = (torch.bfloat16, torch.float32)
TARGETS = ("attention", "mlp", "projections", "token_embedding")


@pytest.fixture(scope="module", params=["viclip", "clip"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    write: Callable[[Path], Path] = {"viclip": write_viclip, "clip": write_clip}[request.param]
    return write(tmp_path_factory.mktemp(request.param))


def adapted(folder: Path, *, dropout: float = 0.0, targets: tuple[str, ...] = TARGETS) -> Backbone:
    """A backbone whose adapter is no longer nothing."""
    model = backbones.load(folder)
    settings = TrainSettings.model_validate({"rank": 4, "alpha": 8, "dropout": dropout, "targets": targets})
    lora.attach(model, settings)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.05)
    return model.train()


def loss_of(model: Backbone, *, in_bf16: bool) -> Tensor:
    with bf16_products(model, wanted=in_bf16):
        videos = model.embed_videos(random_pixels(6))
        texts = model.embed_texts(
            ids_of(model, ["a red video", "blue", "dark green", "a white video", "cyan", "black video"])
        )
    return info_nce(videos, texts, model.logit_scale)


def gradients(model: Backbone, *, in_bf16: bool) -> dict[str, Tensor]:
    model.zero_grad()
    loss_of(model, in_bf16=in_bf16).backward()  # type: ignore[no-untyped-call]
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_bf16_products__gradients_are_those_of_fp32_to_3_percent(folder: Path) -> None:
    model = adapted(folder)
    exact, fast = gradients(model, in_bf16=False), gradients(model, in_bf16=True)
    assert exact.keys() == fast.keys() and len(exact) > 10
    whole, other = (torch.cat([each.flatten() for each in side.values()]) for side in (exact, fast))
    assert float((whole - other).norm() / whole.norm()) < 0.03
    # It did multiply in bf16: that leaves a trace.
    assert float((whole - other).norm() / whole.norm()) > 1e-5


@pytest.mark.parametrize("targets", [("attention",), ("mlp",)])
def test_bf16_products__layers_without_an_adapter_multiply_in_bf16_too(folder: Path, targets: tuple[str, ...]) -> None:
    model = adapted(folder, targets=targets)
    exact, fast = gradients(model, in_bf16=False), gradients(model, in_bf16=True)
    for name, wanted in exact.items():
        assert float((wanted - fast[name]).norm()) <= 0.05 * float(wanted.norm()) + 1e-6, name


def test_bf16_products__afterwards_the_model_is_as_it_was(folder: Path) -> None:
    model = adapted(folder).eval()
    pixels = random_pixels(3)
    before, names = model.embed_videos(pixels), set(model.state_dict())
    with bf16_products(model, wanted=True):
        inside = model.embed_videos(pixels)
    assert not torch.equal(inside, before)
    assert torch.equal(model.embed_videos(pixels), before)
    assert set(model.state_dict()) == names and not any("forward" in vars(module) for module in model.modules())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_bf16_products__is_undone_by_an_error_and_does_nothing_unwanted(folder: Path) -> None:
    model = adapted(folder)
    with pytest.raises(ZeroDivisionError), bf16_products(model, wanted=True):
        _ = 1 / 0
    assert not any("forward" in vars(module) for module in model.modules())
    with bf16_products(model, wanted=False):
        assert not any("forward" in vars(module) for module in model.modules())


def test_bf16_products__a_switched_off_adapter_is_the_base(folder: Path) -> None:
    base, model = backbones.load(folder), backbones.load(folder)
    handle = lora.attach(model, TrainSettings(rank=4, targets=("attention",)))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_()
    with handle.disable_adapter(), bf16_products(model, wanted=True):
        found = model.embed_videos(random_pixels(2))
    with bf16_products(base, wanted=True):
        assert torch.allclose(found, base.embed_videos(random_pixels(2)), atol=0.02)


def _layer(dropout: float) -> tuple[nn.Module, nn.Module]:
    """peft's linear layer of a model of one, and its copy."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 48))
    get_peft_model(net, LoraConfig(r=8, lora_alpha=16, lora_dropout=dropout, target_modules=["0"]))
    nn.init.normal_(net[0].lora_B["default"].weight, std=0.1)
    return net[0].train(), copy.deepcopy(net[0]).train()


@pytest.mark.parametrize("product", PRODUCTS)
def test_adapted_forward__is_peft_s_layer(product: torch.dtype) -> None:
    ours, theirs = _layer(0.0)
    values, other = (torch.randn(5, 7, 64, generator=torch.Generator().manual_seed(2)).requires_grad_() for _ in range(2))
    found, wanted = precision._adapted_forward(product, ours, None, values), theirs(other)
    pull = torch.randn_like(wanted)
    found.backward(pull)
    wanted.backward(pull)
    pairs = [(found, wanted), (values.grad, other.grad)]
    pairs += [(ours.lora_A["default"].weight.grad, theirs.lora_A["default"].weight.grad)]
    pairs += [(ours.lora_B["default"].weight.grad, theirs.lora_B["default"].weight.grad)]
    for mine, reference in pairs:
        assert mine.dtype == torch.float32
        assert float((mine - reference).detach().norm() / reference.detach().norm()) < 0.01
    assert ours.base_layer.weight.grad is None and ours.base_layer.bias.grad is None


@pytest.mark.parametrize("product", PRODUCTS)
def test_adapted_forward__drops_only_on_the_adapter_s_side_and_keeps_the_mean(product: torch.dtype) -> None:
    ours, theirs = _layer(0.5)
    values = torch.ones(20000, 64).requires_grad_()
    found = precision._adapted_forward(product, ours, None, values)
    with torch.no_grad():
        wanted = theirs.eval()(values[:1])
        base = theirs.base_layer(values[:1])
    assert not torch.equal(found[0], found[1])
    spread = (found - wanted).std(0)
    assert torch.allclose(found.mean(0), wanted[0], atol=float(5 * spread.detach().max() / 20000**0.5) + 0.01)
    assert float((wanted - base).abs().max()) > 0.2
    # In evaluation nothing is dropped.
    ours.eval()
    assert torch.allclose(precision._adapted_forward(product, ours, None, values[:1]), wanted, atol=0.02)


@pytest.mark.parametrize("product", PRODUCTS)
def test_adapted_forward__the_gradient_goes_where_the_value_went(product: torch.dtype) -> None:
    """With the base's weight at zero, an input that was dropped gets no gradient, and the others get it scaled."""
    ours, _ = _layer(0.25)
    nn.init.zeros_(ours.base_layer.weight)
    values = torch.ones(4000, 64).requires_grad_()
    precision._adapted_forward(product, ours, None, values).sum().backward()
    whole = ours.scaling["default"] * ours.lora_B["default"].weight.sum(0) @ ours.lora_A["default"].weight
    dropped = values.grad == 0
    assert float(dropped.float().mean()) == pytest.approx(0.25, abs=0.01)
    kept_mean = values.grad.masked_fill(dropped, 0).sum(0) / (~dropped).sum(0)
    assert torch.allclose(kept_mean, whole / 0.75, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_draw_kept__keeps_the_share_that_it_says(share: float) -> None:
    torch.manual_seed(0)
    kept, kept_share = precision._draw_kept(torch.empty(1001, 333), share)
    assert kept_share == pytest.approx(1 - share, abs=1e-5)
    assert set(kept.unique().tolist()) == {0, 1} and kept.shape == (1001, 333)
    assert float(kept.float().mean()) == pytest.approx(1 - share, abs=0.004)


def test_multiplies_in_bf16__auto_asks_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    for able in (True, False):
        monkeypatch.setattr(precision, "_has_bf16", lambda device, able=able: able)
        assert multiplies_in_bf16("auto", CPU) is able
        assert multiplies_in_bf16("fp32", CPU) is False
    with raises(DeviceError, code="no-bf16", naming="bf16") as caught:
        multiplies_in_bf16("bf16", CPU)
    assert "precision" in caught.value.remedy


def trained(model: Backbone, *, fast: bool) -> dict[str, Tensor]:
    """Gradients of a step in fp32, by peft's own layers or by ours."""
    model.zero_grad()
    with training_products(model, in_bf16=False) if fast else contextlib.nullcontext():
        loss = loss_of(model, in_bf16=False)
    loss.backward()  # type: ignore[no-untyped-call]
    return {"loss": loss.detach(), **{name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}}


@pytest.mark.parametrize("stem", ["patch", "motion"])
def test_training_products__in_fp32_are_those_of_peft(tmp_path: Path, stem: str) -> None:
    folder = write_viclip(tmp_path, vision=dataclasses.replace(VISION, stem=stem))
    model = adapted(folder, targets=(*TARGETS, "stem"))
    assert any(isinstance(each, precision.LoraConv) for each in model.modules())
    usual, fast = trained(model, fast=False), trained(model, fast=True)
    assert usual.keys() == fast.keys()
    for name, wanted in usual.items():
        torch.testing.assert_close(fast[name], wanted, rtol=2e-4, atol=2e-6, msg=lambda told, name=name: f"{name}: {told}")


def test_training_products__a_switched_off_adapter_is_the_base(folder: Path) -> None:
    model = adapted(folder)
    pixels = random_pixels(2)
    handles = [each for each in model.modules() if isinstance(each, precision.LoraLayer)]
    for each in handles:
        each.enable_adapters(False)
    with torch.no_grad():
        wanted = backbones.load(folder).eval().embed_videos(pixels)
        with training_products(model.eval(), in_bf16=False):
            torch.testing.assert_close(model.embed_videos(pixels), wanted)
