"""Execution providers of ONNX Runtime: choose one, open a session on it, and check that it is in use."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import onnxruntime as ort

from vidseek_encoder.bundle import file_sha256
from vidseek_encoder.onnx_file import data_file, require_plain_model
from vidseek_media.errors import ArtifactError, ConfigError, DeviceError

PROVIDERS: Mapping[str, str] = {
    "cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider",
}
BUCKETS = (1, 8, 32, 64)
"""Batches on TensorRT are padded to one of these sizes, so that it optimises for few shapes."""
ENGINES_VARIABLE = "VIDSEEK_ENGINES"
"""Environment variable that names the folder of TensorRT's engines; the default is `.vidseek/engines` in the working
directory.
"""

_REMEDY = "Run `dvc repro export` to write the bundle again"


def available_providers() -> list[str]:
    """Return the names of the providers that the installed onnxruntime supports."""
    built = set(ort.get_available_providers())
    return [name for name, theirs in PROVIDERS.items() if theirs in built]


def require_provider(provider: str, *, variant: str) -> None:
    """Check that a provider is available and runs a variant.

    Args:
        provider: Name of the provider: `cpu`, `cuda` or `tensorrt`.
        variant: Precision: `fp32`, `fp16` or `int8`.

    Raises:
        ConfigError: the provider is unknown, or does not run the variant.
        DeviceError: the installed onnxruntime lacks it.
    """
    if provider not in PROVIDERS:
        raise ConfigError(f"provider is {provider!r}, wanted one of {', '.join(PROVIDERS)}", code="unknown-choice")
    if provider != "cpu" and variant == "int8":
        raise ConfigError(
            f"int8 was asked for on {provider}; it is made for CPUs", code="settings-disagree",
            remedy="Ask for the variant fp16",
        )
    if provider not in available_providers():
        raise DeviceError(
            f"the provider {provider} was asked for, the installed onnxruntime has {', '.join(available_providers())}",
            code="provider-missing",
            remedy="Install vidseek[gpu] in the place of vidseek[cpu], or ask for the provider cpu",
        )


def open_session(
    file: Path,
    *,
    provider: str,
    variant: str,
    threads: int,
    input_name: str,
    row_shape: Sequence[int],
    spin: bool = True,
) -> Any:
    """Open a model on a provider; fail if the model would run anywhere else.

    Args:
        file: An ONNX model.
        provider: A provider that `require_provider` accepts.
        variant: Precision: `fp32`, `fp16` or `int8`.
        threads: CPU threads of one run, at least 1.
        input_name: Name of the model's input.
        row_shape: Shape of one row of that input.
        spin: Whether idle threads keep spinning for a while before they sleep.

    Raises:
        ArtifactError: the file is not a model, or `require_plain_model` refuses it.
        DeviceError: the provider does not start, or ONNX Runtime chose another one.
    """
    try:
        require_plain_model(file)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{file} cannot be opened: {error}", code="model-file-broken", remedy=_REMEDY) from error
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    ort.disable_telemetry_events()
    if provider != "cpu":
        _load_libraries()
    wanted = provider_list(provider, file, variant=variant, input_name=input_name, row_shape=row_shape)
    try:
        session = ort.InferenceSession(str(file), sess_options=options, providers=wanted)
    except Exception as error:  # onnxruntime's errors have no common base
        if provider == "cpu":
            raise ArtifactError(f"{file} cannot be opened: {error}", code="model-file-broken", remedy=_REMEDY) from error
        raise DeviceError(
            f"{file} cannot be opened on {provider}: {error}", code="provider-failed", remedy=_device_remedy(provider),
        ) from error
    # Without this a provider that fails to start is replaced by the CPU, with a line on stderr.
    session.disable_fallback()
    used = session.get_providers()
    if used[0] != PROVIDERS[provider]:
        raise DeviceError(
            f"{provider} was asked for, {file.name} runs on {used[0]}", code="provider-failed",
            remedy=_device_remedy(provider),
        )
    return session


def provider_list(
    provider: str, file: Path, *, variant: str, input_name: str, row_shape: Sequence[int]
) -> list[tuple[str, dict[str, str]]]:
    """Return the providers to request from onnxruntime, each with its options.

    For TensorRT, CUDA is the second one, for operators that TensorRT lacks.

    Args:
        provider: Name of the provider: `cpu`, `cuda` or `tensorrt`.
        file: The ONNX model.
        variant: Precision: `fp32`, `fp16` or `int8`.
        input_name: Name of the model's input.
        row_shape: Shape of one row of that input.
    """
    if provider == "cpu":
        return [(PROVIDERS["cpu"], {})]
    # TF32 has ten bits of mantissa: results would differ from the fp32 that the parity check accepted.
    cuda = (PROVIDERS["cuda"], {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"})
    if provider == "cuda":
        return [cuda]
    folder = engine_folder(file, variant=variant)
    folder.mkdir(parents=True, exist_ok=True)

    def shape(batch: int) -> str:
        return f"{input_name}:{'x'.join(str(size) for size in (batch, *row_shape))}"

    engine = {
        "trt_fp16_enable": "1" if variant == "fp16" else "0",
        "trt_profile_min_shapes": shape(BUCKETS[0]),
        "trt_profile_opt_shapes": shape(BUCKETS[-2]),
        "trt_profile_max_shapes": shape(BUCKETS[-1]),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
    }
    return [(PROVIDERS["tensorrt"], engine), cuda]


def engine_folder(file: Path, *, variant: str) -> Path:
    """Return the folder of a model's TensorRT engine. It differs for each model, onnxruntime, driver and GPU.

    Args:
        file: The ONNX model.
        variant: Precision: `fp32`, `fp16` or `int8`.

    Raises:
        DeviceError: no GPU answers.
    """
    weights = [file_sha256(data_file(file))] if data_file(file).is_file() else []
    content = [file_sha256(file), *weights, list(BUCKETS), variant, ort.__version__, _gpu()]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    return Path(os.environ.get(ENGINES_VARIABLE) or Path(".vidseek") / "engines") / digest


def bucket_of(num_rows: int) -> int:
    """Return the smallest bucket that holds `num_rows` rows."""
    return next((bucket for bucket in BUCKETS if bucket >= num_rows), num_rows)


def run_error(provider: str, tower: str, error: Exception) -> ArtifactError | DeviceError:
    """Convert an error of a run into one of vidseek's.

    Args:
        provider: Name of the provider.
        tower: Name of the tower that ran.
        error: What onnxruntime raised.
    """
    message = f"the {tower} tower failed on {provider}: {error}"
    if provider == "cpu":
        return ArtifactError(message, code="model-run-failed", remedy=_REMEDY)
    return DeviceError(message, code="provider-failed", remedy=_device_remedy(provider))


def _load_libraries() -> None:
    """Load CUDA and cuDNN from NVIDIA's wheels, which the extra `gpu` installs: no search path of the system has them."""
    with redirect_stdout(sys.stderr):  # it prints what it does not find; what opens the session says so again
        ort.preload_dlls(directory="")


def _gpu() -> str:
    """Return the name and driver version of the first GPU."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader", "--id=0"]
    if shutil.which(command[0]) is None:
        raise DeviceError(
            "tensorrt was asked for, there is no nvidia-smi", code="provider-missing", remedy=_device_remedy("tensorrt"),
        )
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode != 0:
        raise DeviceError(
            f"tensorrt was asked for, nvidia-smi says: {done.stdout.strip() or done.stderr.strip()}",
            code="provider-missing",
            remedy=_device_remedy("tensorrt"),
        )
    return done.stdout.strip()


def _device_remedy(provider: str) -> str:
    return f"See that the driver and libraries of {provider} are there (`vidseek doctor`), or ask for the provider cpu"
