"""Frames, images and texts to unit vectors: the bundle's two towers, run by ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from vidseek_encoder.bundle import TOKENIZER_FILE, TOWERS, EncoderSpec
from vidseek_encoder.preprocess import preprocess_frames
from vidseek_encoder.tokenize import Tokenizer
from vidseek_media.errors import ArtifactError, ConfigError, DeviceError, InputRejected

Provider = Literal["cpu", "cuda", "tensorrt"]
Tower = Literal["text", "video"]

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
_INPUTS = {"text": "input_ids", "video": "pixel_values"}
_OUTPUTS = {"text": "text_embeds", "video": "video_embeds"}
_REMEDY = "Run `dvc repro export` to write the bundle again"
_UNIT_TOLERANCE = 1e-2
"""How far from 1 the length of a vector may be: fp16 and int8 stay far inside it, a graph without L2 does not."""


class Encoder:
    """An opened bundle. Safe to share between threads."""

    def __init__(
        self,
        spec: EncoderSpec,
        *,
        tokenizer: Tokenizer,
        sessions: Mapping[Tower, Any],
        provider: str,
        variant: str,
        batch: int,
    ) -> None:
        self.spec = spec
        self.provider = provider
        self.variant = variant
        self.batch = batch
        self._tokenizer = tokenizer
        self._sessions = sessions

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        provider: Provider = "cpu",
        variant: str = "fp32",
        threads: int | None = None,
        batch: int = 32,
        towers: Sequence[Tower] = ("text", "video"),
    ) -> Encoder:
        """Check the bundle in the folder `path`, and open it.

        Args:
            path: The bundle's folder.
            provider: Where it runs. It runs there or not at all.
            variant: Which precision.
            threads: Of one run; by default as many as this process may use.
            batch: The most texts or clips in one run.
            towers: Which towers to open: a search by words needs no video tower.

        Raises:
            ArtifactError: the bundle is missing, broken or changed.
            ConfigError: an argument is out of range.
            DeviceError: the provider is not there.
        """
        if batch < 1 or (threads is not None and threads < 1):
            raise ConfigError(f"batch is {batch} and threads is {threads}, wanted whole numbers above 0")
        if not set(towers) <= set(TOWERS):
            raise ConfigError(f"towers are {list(towers)}, wanted some of {list(TOWERS)}")
        _require_provider(provider)
        spec = EncoderSpec.load(path)
        spec.check_files(path, variant)
        tokenizer = Tokenizer.load(path / TOKENIZER_FILE, context=spec.context, pad_id=spec.pad_id)
        sessions: dict[Tower, Any] = {}
        for tower in towers:
            file = path / variant / f"{tower}.onnx"
            sessions[tower] = _open_session(file, provider=provider, threads=threads)
            _check_signature(sessions[tower], tower=tower, spec=spec, file=file)
        return cls(spec, tokenizer=tokenizer, sessions=sessions, provider=provider, variant=variant, batch=batch)

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, float32 of shape (n, dimension), one for each text.

        Raises:
            InputRejected: a text is not valid Unicode.
            ArtifactError: the model gives something else than unit vectors.
        """
        return self._run("text", self._tokenizer.encode(texts))

    def embed_frames(self, clips: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Unit vectors, float32 of shape (n, dimension), one for each clip.

        Args:
            clips: uint8 RGB of shape (n, T, height, width, 3), or a list of (T, height, width, 3) of any sizes.
                Where T is not the spec's `frames`, frames are picked at bin centres (and repeated where T is less).

        Raises:
            InputRejected: the shape or type is another, or there are no frames or pixels.
            ArtifactError: the model gives something else than unit vectors.
        """
        embeddings = [
            self._run("video", self._pixels_of(clips[start : start + self.batch]))
            for start in range(0, len(clips), self.batch)
        ]
        return np.concatenate(embeddings) if embeddings else self._no_rows()

    def embed_images(self, images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Unit vectors, float32 of shape (n, dimension): a still image is a clip whose frames are all alike.

        Args:
            images: uint8 RGB of shape (n, height, width, 3), or a list of (height, width, 3) of any sizes.

        Raises:
            InputRejected: the shape or type is another, or there are no pixels.
            ArtifactError: the model gives something else than unit vectors.
        """
        for image in images:
            if image.ndim != 3:
                raise InputRejected(f"an image has the shape {image.shape}, wanted (height, width, 3)")
        return self.embed_frames([image[np.newaxis] for image in images])

    def _pixels_of(self, clips: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        spec = self.spec
        pixels = np.empty((len(clips), spec.frames, 3, spec.side, spec.side), dtype=np.float32)
        for row, clip in enumerate(clips):
            if clip.ndim != 4 or len(clip) == 0:
                raise InputRejected(f"a clip has the shape {clip.shape}, wanted (T, height, width, 3) with T above 0")
            # A still is resized once, not once for each of its equal frames.
            picked = clip if len(clip) in (1, spec.frames) else clip[_bin_centres(len(clip), spec.frames)]
            pixels[row] = preprocess_frames(
                picked[np.newaxis], side=spec.side, resize=spec.resize, mean=spec.mean, deviation=spec.deviation
            )[0]
        return pixels

    def _run(self, tower: Tower, inputs: NDArray[Any]) -> NDArray[np.float32]:
        if tower not in self._sessions:
            raise ConfigError(f"the {tower} tower was not opened", remedy="Name it in `towers` of Encoder.load")
        session = self._sessions[tower]
        outputs = []
        for start in range(0, len(inputs), self.batch):
            try:
                (values,) = session.run([_OUTPUTS[tower]], {_INPUTS[tower]: inputs[start : start + self.batch]})
            except Exception as error:  # onnxruntime's errors have no common base
                raise _run_error(self.provider, tower, error) from error
            outputs.append(np.asarray(values, dtype=np.float32))
        embeddings = np.concatenate(outputs) if outputs else self._no_rows()
        self._check_unit(embeddings, tower)
        return embeddings

    def _check_unit(self, embeddings: NDArray[np.float32], tower: str) -> None:
        lengths = np.linalg.norm(embeddings, axis=1)
        wrong = ~(np.abs(lengths - 1) <= _UNIT_TOLERANCE)  # NaN is wrong too
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise ArtifactError(
                f"the {tower} tower ({self.variant}) gave a vector of length {lengths[row]} for row {row}, wanted 1",
                remedy="The weights or the export are broken: train and export again",
            )

    def _no_rows(self) -> NDArray[np.float32]:
        return np.empty((0, self.spec.dimension), dtype=np.float32)


def available_providers() -> list[str]:
    """The providers that the installed onnxruntime was built with, by our names."""
    built = set(ort.get_available_providers())
    return [name for name, theirs in _PROVIDERS.items() if theirs in built]


def _bin_centres(length: int, num_frames: int) -> list[int]:
    """Which of `length` frames lie at the centres of `num_frames` equal bins."""
    return [int((place + 0.5) * length / num_frames) for place in range(num_frames)]


def _require_provider(provider: str) -> None:
    if provider not in _PROVIDERS:
        raise ConfigError(f"provider is {provider!r}, wanted one of {', '.join(_PROVIDERS)}")
    if provider not in available_providers():
        raise DeviceError(
            f"the provider {provider} was asked for, the installed onnxruntime has {', '.join(available_providers())}",
            remedy="Install vidseek[gpu] in the place of vidseek[cpu], or ask for the provider cpu",
        )


def _open_session(file: Path, *, provider: str, threads: int | None) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    ort.disable_telemetry_events()
    wanted = _PROVIDERS[provider]
    try:
        session = ort.InferenceSession(str(file), sess_options=options, providers=[wanted])
    except Exception as error:  # onnxruntime's errors have no common base
        if provider == "cpu":
            raise ArtifactError(f"{file} cannot be opened: {error}", remedy=_REMEDY) from error
        raise DeviceError(f"{file} cannot be opened on {provider}: {error}", remedy=_device_remedy(provider)) from error
    # Without this a provider that fails to start is replaced by the CPU, with a line on stderr.
    session.disable_fallback()
    used = session.get_providers()
    if used[0] != wanted:
        raise DeviceError(f"{provider} was asked for, {file.name} runs on {used[0]}", remedy=_device_remedy(provider))
    return session


def _device_remedy(provider: str) -> str:
    return f"See that the driver and libraries of {provider} are there (`vidseek doctor`), or ask for the provider cpu"


def _check_signature(session: Any, *, tower: str, spec: EncoderSpec, file: Path) -> None:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    wanted_shape = [spec.context] if tower == "text" else [spec.frames, 3, spec.side, spec.side]
    found: dict[str, tuple[list[Any], list[Any]]] = {
        "inputs": ([each.name for each in inputs], [_INPUTS[tower]]),
        "outputs": ([each.name for each in outputs], [_OUTPUTS[tower]]),
        "input shape": (inputs[0].shape[1:] if inputs else [], wanted_shape),
        "output shape": (outputs[0].shape[1:] if outputs else [], [spec.dimension]),
    }
    for what, (came, wanted) in found.items():
        # A named (dynamic) axis fits any size.
        fits = len(came) == len(wanted) and all(
            one == other or (isinstance(other, int) and not isinstance(one, int))
            for one, other in zip(came, wanted, strict=True)
        )
        if not fits:
            raise ArtifactError(f"{file}: {what} {came}, encoder.json says {wanted}", remedy=_REMEDY)


def _run_error(provider: str, tower: str, error: Exception) -> ArtifactError | DeviceError:
    message = f"the {tower} tower failed on {provider}: {error}"
    if provider == "cpu":
        return ArtifactError(message, remedy=_REMEDY)
    return DeviceError(message, remedy=_device_remedy(provider))
