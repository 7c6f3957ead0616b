from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from tests.raising import raises
from tests.tiny_bundle import SIDE, write_tiny_bundle
from vidseek_encoder import providers
from vidseek_encoder.choices import usable_cores
from vidseek_encoder.encoder import Encoder
from vidseek_encoder.providers import available_providers, bucket_of, engine_folder, provider_list, run_error
from vidseek_media.errors import ArtifactError, ConfigError, DeviceError

GPU = "NVIDIA H100, 570.1"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    write_tiny_bundle(folder)
    return folder


@pytest.fixture
def all_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: list(providers.PROVIDERS.values()))


def test_available_providers__has_the_cpu() -> None:
    assert "cpu" in available_providers()


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_load__provider_not_built_in(bundle: Path, provider: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with raises(DeviceError, code="provider-missing", naming=provider):
        Encoder.load(bundle, provider=provider, variant="fp32")


def test_load__provider_that_steps_down_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # onnxruntime-gpu without a driver: CUDA is built in, asked for, and silently replaced by the CPU.
    open_session = ort.InferenceSession
    loaded: list[str] = []
    monkeypatch.setattr(ort, "preload_dlls", lambda directory: loaded.append(directory))
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(
        ort, "InferenceSession", lambda path, **kw: open_session(path, **{**kw, "providers": ["CPUExecutionProvider"]})
    )
    with raises(DeviceError, code="provider-failed", naming="CPUExecutionProvider"):
        Encoder.load(bundle, provider="cuda")
    assert loaded == [""]  # NVIDIA's wheels, before the session looks for them
    Encoder.load(bundle)
    assert loaded == [""]


def test_run__failure_on_a_device_is_a_device_error() -> None:
    assert isinstance(run_error("cuda", "text", RuntimeError("out of memory")), DeviceError)
    assert isinstance(run_error("cpu", "text", RuntimeError("bad node")), ArtifactError)


@pytest.mark.usefixtures("all_built_in")
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_load__int8_on_a_gpu_is_refused(bundle: Path, provider: Any) -> None:
    with raises(ConfigError, code="settings-disagree", naming="CPUs"):
        Encoder.load(bundle, provider=provider, variant="int8")


def options_of(bundle: Path, provider: str, *, variant: str = "fp32") -> list[tuple[str, dict[str, str]]]:
    file = bundle / "fp32" / "video.onnx"
    return provider_list(provider, file, variant=variant, input_name="pixel_values", row_shape=[2, 3, SIDE, SIDE])


def test_provider_list__cuda_multiplies_in_fp32(bundle: Path) -> None:
    ((name, options),) = options_of(bundle, "cuda")
    assert name == "CUDAExecutionProvider" and options["use_tf32"] == "0"


def test_provider_list__tensorrt_has_profiles_and_a_folder_of_its_own(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(providers.ENGINES_VARIABLE, str(tmp_path / "engines"))
    monkeypatch.setattr(providers, "_gpu", lambda: GPU)
    (name, options), (behind, _) = options_of(bundle, "tensorrt", variant="fp16")
    assert (name, behind) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    shapes = [options[f"trt_profile_{which}_shapes"] for which in ("min", "opt", "max")]
    assert shapes == [f"pixel_values:{batch}x2x3x8x8" for batch in (1, 32, 64)]
    assert options["trt_fp16_enable"] == "1"
    folder = Path(options["trt_engine_cache_path"])
    assert folder.is_dir() and folder.parent == tmp_path / "engines"
    # fp32 was admitted as fp32, so nothing may round it; and its engine is another one.
    exact = options_of(bundle, "tensorrt")[0][1]
    assert exact["trt_fp16_enable"] == "0" and Path(exact["trt_engine_cache_path"]) != folder


def test_engine_folder__is_of_model_and_gpu(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "_gpu", lambda: GPU)
    text, video = (engine_folder(bundle / "fp32" / f"{name}.onnx", variant="fp16") for name in ("text", "video"))
    assert text != video and text == engine_folder(bundle / "fp32" / "text.onnx", variant="fp16")
    monkeypatch.setattr(providers, "_gpu", lambda: "NVIDIA L4, 570.1")
    assert engine_folder(bundle / "fp32" / "text.onnx", variant="fp16") != text


@pytest.mark.usefixtures("all_built_in")
def test_load__tensorrt_without_a_gpu_is_a_device_error(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with raises(DeviceError, code="provider-missing", naming="nvidia-smi"):
        Encoder.load(bundle, provider="tensorrt")


def test_bucket_of__is_the_next_larger() -> None:
    assert [bucket_of(num) for num in (1, 2, 8, 9, 33, 64, 65)] == [1, 8, 8, 32, 64, 64, 65]


@pytest.mark.parametrize(("files", "cores"), [
    ({}, 8), ({"cpu.max": "max 100000"}, 8), ({"cpu.max": "150000 100000"}, 2), ({"cpu.max": "1600000 100000"}, 8),
    ({"cpu.max": "5000 100000"}, 1), ({"cpu.max": "what"}, 8),
    ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
    ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
])
def test_usable_cores__are_those_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert usable_cores(tmp_path) == cores
