"""Embeds frames, images and texts as unit vectors with the bundle's two towers, run by ONNX Runtime."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from vidseek_encoder.bundle import TOKENIZER_FILE, EncoderSpec
from vidseek_encoder.choices import BATCH, PROVIDER, VARIANT, Provider, usable_cores
from vidseek_encoder.preprocess import centre_frames, preprocess_frames
from vidseek_encoder.providers import BUCKETS, bucket_of, open_session, require_provider, run_error
from vidseek_encoder.tokenize import Tokenizer, require_texts
from vidseek_media.errors import ArtifactError, ConfigError, InputRejected

Rows = TypeVar("Rows", NDArray[Any], Sequence[NDArray[np.uint8]])
Tower = Literal["text", "video"]
"""The text tower and the vision tower. The spec's `vision` says which model the second one is."""

TOWERS: tuple[Tower, ...] = ("text", "video")
INPUTS: Mapping[str, str] = {"text": "input_ids", "video": "pixel_values", "frame": "pixel_values"}
OUTPUTS: Mapping[str, str] = {"text": "text_embeds", "video": "video_embeds", "frame": "frame_embeds"}
"""Name of each model's input and output."""

_REMEDY = "Run `dvc repro export` to write the bundle again"
_INT8_PICTURES = 8
"""Pictures of one int8 run: the activations then fit the CPU caches (ViT-B/32 on two cores: 14.7 ms a picture, 16.4 ms with
32 pictures; fp32 gains nothing).
"""
_UNIT_TOLERANCE = 1e-2
"""Largest difference from 1 of the length of a model's vector before it is normalised. fp16 stays far below it; a graph
without its final L2 normalisation does not.
"""


class Encoder:
    """An opened encoder bundle: embeds texts, images and clips as unit vectors of one space. Safe to share between threads.

    Examples:
        >>> encoder = Encoder.load(Path("models/encoder"))
        >>> texts = encoder.embed_texts(["red", "blue"])
        >>> texts.shape, texts.dtype
        ((2, 4), dtype('float32'))
        >>> clips = np.full((1, 2, 48, 64, 3), (255, 0, 0), dtype=np.uint8)  # one red clip of two frames
        >>> int((texts @ encoder.embed_frames(clips)[0]).argmax())
        0
    """

    def __init__(
        self,
        spec: EncoderSpec,
        *,
        tokenizer: Tokenizer,
        sessions: Mapping[str, Any],
        provider: str,
        variant: str,
        batch: int,
        threads: int,
        lanes: int = 1,
    ) -> None:
        self.spec = spec
        self.provider = provider
        self.variant = variant
        self.batch = batch
        self._tokenizer = tokenizer
        self._sessions = sessions
        # Threads help, since Pillow and numpy release the GIL for most of this work.
        self._preparers = ThreadPoolExecutor(threads * lanes, thread_name_prefix="pixels")
        self._num_lanes = lanes if provider == "cpu" else 1
        self._lanes = ThreadPoolExecutor(self._num_lanes, thread_name_prefix="lane")

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        provider: Provider = PROVIDER,
        variant: str = VARIANT,
        threads: int | None = None,
        lanes: int = 1,
        batch: int = BATCH,
        towers: Sequence[Tower] = ("text", "video"),
        spin: bool = True,
    ) -> Encoder:
        """Check the bundle in the folder `path`, and open it.

        Args:
            path: The bundle's folder.
            provider: Device to run on. If it is not available, loading fails.
            variant: Precision: `fp32`, `fp16` or `int8`.
            threads: CPU threads of one run, at least 1; None uses as many as this process may.
            lanes: Runs at once on a CPU, at least 1, each on `threads` threads. For many rows one thread and a lane for each
                core are fastest: two threads of a small run wait for each other half of the time. Pixels are prepared on the
                threads of all lanes, also where a GPU runs.
            batch: Most texts or clips in one run, at least 1.
            towers: Which towers to open. A search by words needs only `text`.
            spin: Whether idle threads keep spinning for a while before they sleep. This is faster if nothing else runs
                on the machine, and much slower if something does.

        Raises:
            ArtifactError: the bundle is missing, broken or changed, or lacks the variant.
            ConfigError: an argument is out of range, or the provider does not run the variant.
            DeviceError: the provider is not available.
        """
        if min(batch, lanes) < 1 or (threads is not None and threads < 1):
            raise ConfigError(
                f"batch is {batch}, threads is {threads} and lanes is {lanes}, wanted whole numbers above 0",
                code="setting-out-of-range",
            )
        if not set(towers) <= set(TOWERS):
            raise ConfigError(f"towers are {list(towers)}, wanted some of {list(TOWERS)}", code="unknown-choice")
        threads = threads or usable_cores()
        require_provider(provider, variant=variant)
        spec = EncoderSpec.load(path)
        spec.check_files(path, variant)
        tokenizer = Tokenizer.load(path / TOKENIZER_FILE, context=spec.context_length, pad_id=spec.pad_id)
        sessions = {}
        for model in ("text" if tower == "text" else spec.vision for tower in towers):
            file = path / variant / f"{model}.onnx"
            sessions[model] = open_session(
                file, provider=provider, variant=variant, threads=threads, input_name=INPUTS[model],
                row_shape=_row_shape(model, spec), spin=spin,
            )
            _check_signature(sessions[model], model=model, spec=spec, file=file)
        return cls(
            spec, tokenizer=tokenizer, sessions=sessions, provider=provider, variant=variant, batch=batch,
            threads=threads, lanes=lanes,
        )

    def embed_texts(self, texts: Sequence[str], *, steady: bool = False) -> NDArray[np.float32]:
        """Return one unit vector for each text: float32, shape (n, dimension).

        Args:
            texts: n texts, valid Unicode. Tokens beyond the spec's context length are cut off.
            steady: As in `embed_frames`.

        Raises:
            InputRejected: an element is not a text, or not valid Unicode.
            ArtifactError: the model returns vectors that are not of unit length.

        Examples:
            >>> Encoder.load(Path("models/encoder"), towers=["text"]).embed_texts(["red"]).shape
            (1, 4)
        """
        require_texts(texts)
        # TensorRT is tuned for one length. Sorting by length keeps the padding of each batch short.
        trim = self.spec.trims_texts and self.provider != "tensorrt" and not (steady and self.provider != "cpu")
        order = sorted(range(len(texts)), key=lambda place: len(texts[place])) if trim else range(len(texts))
        most = self._most_rows(len(texts), steady=steady)
        starts = range(0, len(texts), most)
        batches = [[texts[place] for place in order[start : start + most]] for start in starts]
        rows = self._run("text", (self._tokenizer.encode(batch, trim=trim) for batch in batches), steady=steady)
        embeddings = np.empty_like(rows)
        embeddings[list(order)] = rows
        return embeddings

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text that the model reads; longer texts are cut at the spec's context length.

        Args:
            texts: n texts, valid Unicode.

        Raises:
            InputRejected: an element is not a text, or not valid Unicode.
        """
        return self._tokenizer.count(texts)

    def are_cut(self, texts: Sequence[str]) -> list[bool]:
        """Return whether each text is longer than the spec's context length, so that the model does not read all of it.

        Args:
            texts: n texts, valid Unicode.

        Raises:
            InputRejected: an element is not a text, or not valid Unicode.
        """
        return self._tokenizer.are_cut(texts)

    def embed_frames(
        self, clips: NDArray[np.uint8] | Sequence[NDArray[np.uint8]], *, steady: bool = False
    ) -> NDArray[np.float32]:
        """Return one unit vector for each clip: float32, shape (n, dimension).

        Args:
            clips: uint8 RGB of shape (n, T, height, width, 3), or a list of n arrays (T, height, width, 3) of any sizes.
                If T is not the spec's number of frames, the frames at the bin centres are taken (repeated if T is smaller).
            steady: Whether a vector must be the same to the bit whatever else is in the call, as what is stored must be. A
                CPU then runs each clip by itself, a GPU in batches of one size.

        Raises:
            InputRejected: a clip has another shape or type, no frames or no pixels.
            ArtifactError: the model returns vectors that are not of unit length.

        Examples:
            >>> clip = np.zeros((5, 48, 64, 3), dtype=np.uint8)
            >>> Encoder.load(Path("models/encoder")).embed_frames([clip]).shape
            (1, 4)
        """
        spec = self.spec
        picked = [self._picked(clip) for clip in clips]
        if spec.vision == "video":
            most = self._most_rows(len(picked), steady=steady)
            return self._see("video", self._batches("video", picked, most), steady=steady)
        lengths = np.array([len(clip) for clip in picked], dtype=np.int64)  # a still is one frame among those of the clips
        rows = [[frame[np.newaxis] for frame in clip] for clip in picked]
        most = self.batch  # a clip that is run by itself is in one run, however many lanes there are
        if not (steady and self.provider == "cpu"):
            rows = [[frame for clip in rows for frame in clip]]
            most = self._most_rows(int(lengths.sum()), steady=steady)
        frames = self._see("frame", [batch for clip in rows for batch in self._batches("frame", clip, most)], steady=steady)
        sums = np.add.reduceat(frames, np.cumsum(lengths) - lengths, axis=0) if len(frames) else frames
        return sums / np.linalg.norm(sums, axis=1, keepdims=True)

    def embed_images(self, images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return one unit vector for each image: float32, shape (n, dimension).

        An image is embedded as a clip of one frame, or, by a video tower, as a clip whose frames are all this image.

        Args:
            images: uint8 RGB of shape (n, height, width, 3), or a list of n arrays (height, width, 3) of any sizes.

        Raises:
            InputRejected: an image has another shape or type, or no pixels.
            ArtifactError: the model returns vectors that are not of unit length.
        """
        for image in images:
            if image.ndim != 3:
                raise InputRejected(f"an image has the shape {image.shape}, wanted (height, width, 3)", code="bad-shape")
        return self.embed_frames([image[np.newaxis] for image in images])

    def warm_up(self) -> float:
        """Run each open tower once for every bucket of batch sizes, and return the time taken in seconds.

        TensorRT builds its engines in the first run, and CUDA chooses its kernels.
        """
        begin = time.perf_counter()
        for model in self._sessions:
            row = np.zeros((1, *_row_shape(model, self.spec)), dtype=np.int64 if model == "text" else np.float32)
            for bucket in BUCKETS:
                self._run_batch(model, np.repeat(row, bucket, axis=0))
        return round(time.perf_counter() - begin, 3)

    def _picked(self, clip: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the spec's number of frames of a clip; a clip of one frame stays as it is."""
        if clip.ndim != 4 or len(clip) == 0:
            raise InputRejected(
                f"a clip has the shape {clip.shape}, wanted (T, height, width, 3) with T above 0", code="bad-shape",
            )
        return clip if len(clip) in (1, self.spec.num_frames) else clip[centre_frames(len(clip), self.spec.num_frames)]

    def _see(
        self, model: str, batches: Sequence[Sequence[NDArray[np.uint8]]], *, steady: bool
    ) -> NDArray[np.float32]:
        """Return the vectors of rows of the vision model, each of shape (T, height, width, 3)."""
        return self._run(model, self._pixels_of(model, batches), steady=steady)

    def _batches(self, model: str, rows: Rows, most: int) -> list[Rows]:
        """Split rows into the batches that the vision tower runs, of at most `most`."""
        if self.variant == "int8":
            pictures = self.spec.num_frames if model == "video" else 1
            most = min(most, max(1, _INT8_PICTURES // pictures))
        return [rows[start : start + most] for start in range(0, len(rows), most)]

    def _most_rows(self, num: int, *, steady: bool) -> int:
        """Return the most of `num` rows that are in one run: fewer than `batch` where a lane would have nothing to do."""
        if steady and self.provider == "cpu":
            return 1
        return max(1, min(self.batch, math.ceil(num / self._num_lanes)))

    def _pixels_of(self, model: str, batches: Sequence[Sequence[NDArray[np.uint8]]]) -> Iterator[NDArray[np.float32]]:
        """Yield the model's input for each batch; the next batch is prepared while the model runs."""
        shape = _row_shape(model, self.spec)

        def begin(batch: Sequence[NDArray[np.uint8]]) -> tuple[NDArray[np.float32], list[Future[None]]]:
            pixels = np.empty((len(batch), *shape), dtype=np.float32)
            return pixels, [self._preparers.submit(self._prepare, *each) for each in zip(batch, pixels, strict=True)]

        begun = [begin(batch) for batch in batches[:1]]
        for number in range(len(batches)):
            pixels, prepared = begun.pop()
            for each in prepared:
                each.result()
            begun += [begin(batch) for batch in batches[number + 1 : number + 2]]
            yield pixels

    def _prepare(self, row: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
        spec = self.spec
        pixels = preprocess_frames(
            row[np.newaxis], resizing=spec.resizing, image_mean=spec.image_mean, image_std=spec.image_std
        )
        out[...] = pixels[0]  # a still stands for all frames of a video tower

    def _run(self, model: str, batches: Iterable[NDArray[Any]], *, steady: bool = False) -> NDArray[np.float32]:
        if model not in self._sessions:
            tower = "text" if model == "text" else "video"
            raise ConfigError(
                f"the {tower} tower was not opened", code="tower-not-open", remedy="Name it in `towers` of Encoder.load",
            )
        least = self.batch if steady and self.provider != "cpu" else 1
        if self._num_lanes > 1:
            parts = self._run_in_lanes(model, batches)
        else:
            parts = [self._run_batch(model, batch, least=least) for batch in batches]
        return np.concatenate(parts) if parts else np.empty((0, self.spec.dimension), dtype=np.float32)

    def _run_in_lanes(self, model: str, batches: Iterable[NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Return the vectors of each batch, in order; no more batches are made than the lanes take."""
        parts: list[NDArray[np.float32]] = []
        running: deque[Future[NDArray[np.float32]]] = deque()
        for batch in batches:
            running.append(self._lanes.submit(self._run_batch, model, batch))
            if len(running) > self._num_lanes:
                parts.append(running.popleft().result())
        return parts + [each.result() for each in running]

    def _run_batch(self, model: str, inputs: NDArray[Any], *, least: int = 1) -> NDArray[np.float32]:
        """Run the rows, and others behind them until there are `least`."""
        num_rows = len(inputs)
        size = max(num_rows, least)
        if self.provider == "tensorrt":
            size = bucket_of(size)
        if size > num_rows:
            inputs = np.concatenate([inputs, np.repeat(inputs[-1:], size - num_rows, axis=0)])
        try:
            (values,) = self._sessions[model].run([OUTPUTS[model]], {INPUTS[model]: inputs})
        except Exception as error:  # onnxruntime's errors have no common base
            raise run_error(self.provider, model, error) from error
        embeddings = np.asarray(values[:num_rows], dtype=np.float32)
        lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
        self._check_lengths(lengths[:, 0], model)
        return embeddings / lengths

    def _check_lengths(self, lengths: NDArray[np.float32], model: str) -> None:
        wrong = ~(np.abs(lengths - 1) <= _UNIT_TOLERANCE)  # NaN is wrong too
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise ArtifactError(
                f"the {model} tower ({self.variant}) gave a vector of length {lengths[row]} for row {row}, wanted 1",
                code="not-unit-length",
                remedy="The weights or the export are broken: train and export again",
            )


def _row_shape(model: str, spec: EncoderSpec) -> list[int]:
    """Return the shape of one row of a model's input."""
    frame = [3, spec.image_size_px, spec.image_size_px]
    return {"text": [spec.context_length], "frame": frame, "video": [spec.num_frames, *frame]}[model]


def _check_signature(session: Any, *, model: str, spec: EncoderSpec, file: Path) -> None:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    found: dict[str, tuple[list[Any], list[Any]]] = {
        "inputs": ([each.name for each in inputs], [INPUTS[model]]),
        "outputs": ([each.name for each in outputs], [OUTPUTS[model]]),
        "input shape": (inputs[0].shape[1:] if inputs else [], _row_shape(model, spec)),
        "output shape": (outputs[0].shape[1:] if outputs else [], [spec.dimension]),
    }
    for what, (came, wanted) in found.items():
        # A named (dynamic) axis fits any size.
        fits = len(came) == len(wanted) and all(
            one == other or (isinstance(other, int) and not isinstance(one, int))
            for one, other in zip(came, wanted, strict=True)
        )
        if not fits:
            raise ArtifactError(
                f"{file}: {what} {came}, encoder.json says {wanted}", code="bundle-signature", remedy=_REMEDY,
            )
