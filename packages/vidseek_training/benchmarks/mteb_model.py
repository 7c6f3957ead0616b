"""Wraps a bundle as a model for MTEB (github.com/embeddings-benchmark/mteb), for its text, image and video tasks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vidseek_encoder.encoder import Encoder
from vidseek_media.decoding.frames import decode_uniform
from vidseek_media.errors import ConfigError, InputRejected, ServiceError, foreign
from vidseek_media.installing import install_command

if TYPE_CHECKING:
    from mteb.models import ModelMeta

_SIDE = 256
"""Pixels of the shorter side that frames are decoded at: the archive's own."""
_MODALITIES = ("text", "image", "video")


class MtebModel:
    """Speaks MTEB's `EncoderProtocol` for an encoder; `mteb.evaluate(MtebModel(encoder, name), tasks)`.

    Videos are decoded as the archive's clips are, at the bin centres of the whole, and not by MTEB's own sampler. Where a
    row has several modalities, the row's vector is their mean's direction.
    """

    def __init__(self, encoder: Encoder, name: str) -> None:
        self._encoder = encoder
        self._name = name

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """The name and encoder_version under which results are kept."""
        from mteb.models import ModelMeta

        spec = self._encoder.spec
        unknown = dict.fromkeys((
            "release_date", "languages", "n_parameters", "memory_usage_mb", "license", "public_training_code",
            "public_training_data", "training_datasets",
        ))
        return ModelMeta(
            loader=None, name=f"vidseek/{self._name}", revision=spec.encoder_version, max_tokens=spec.context_length,
            embed_dim=spec.dimension, open_weights=True, framework=["ONNX"], similarity_fn_name="cosine",
            use_instructions=False, modalities=list(_MODALITIES), **unknown,
        )

    def encode(self, inputs: Any, **_: Any) -> NDArray[np.float32]:
        """Return unit rows of shape (rows of the dataset, dimension).

        Args:
            inputs: MTEB's DataLoader, whose `dataset` has the columns `text`, `image` or `video`.

        Raises:
            InputRejected: a video cannot be decoded, or the dataset has none of these columns.
        """
        from datasets import Video

        dataset = inputs.dataset
        known = [name for name in _MODALITIES if name in dataset.column_names]
        if not known:
            raise InputRejected(
                f"a dataset of the columns {dataset.column_names}, wanted one of {', '.join(_MODALITIES)}",
                code="unknown-modality",
            )
        if "video" in known:
            dataset = dataset.cast_column("video", Video(decode=False))  # or MTEB's decoder, which wants FFmpeg's libraries
        parts = [np.empty((0, self._encoder.spec.dimension), np.float32)]
        for batch in dataset.select_columns(known).iter(batch_size=inputs.batch_size or 32):
            total = np.sum([getattr(self, f"_{name}s")(batch[name]) for name in known], axis=0)
            parts.append((total / np.linalg.norm(total, axis=1, keepdims=True)).astype(np.float32))
        return np.concatenate(parts)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the cosines of all pairs as a tensor of shape (n, m).

        Args:
            embeddings1: Unit rows, shape (n, dimension).
            embeddings2: Unit rows, shape (m, dimension).
        """
        import torch

        first, second = (torch.as_tensor(np.atleast_2d(np.asarray(each))) for each in (embeddings1, embeddings2))
        return first @ second.T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the cosines of corresponding rows as a tensor of shape (n,).

        Args:
            embeddings1: Unit rows, shape (n, dimension).
            embeddings2: Unit rows, shape (n, dimension).
        """
        import torch

        return (torch.as_tensor(np.asarray(embeddings1)) * torch.as_tensor(np.asarray(embeddings2))).sum(dim=-1)

    def _texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._encoder.embed_texts(list(texts))

    def _images(self, images: Iterable[Any]) -> NDArray[np.float32]:
        return self._encoder.embed_images([np.asarray(image.convert("RGB")) for image in images])

    def _videos(self, videos: Iterable[dict[str, Any]]) -> NDArray[np.float32]:
        return self._encoder.embed_frames([self._frames_of(video) for video in videos])

    def _frames_of(self, video: dict[str, Any]) -> NDArray[np.uint8]:
        num_frames = self._encoder.spec.num_frames
        if video["bytes"] is None:
            return decode_uniform(Path(video["path"]), num_frames, _SIDE)
        with tempfile.TemporaryDirectory(prefix="vidseek-") as folder:
            path = Path(folder) / Path(video["path"] or "video").name
            path.write_bytes(video["bytes"])
            return decode_uniform(path, num_frames, _SIDE)


def run_tasks(encoder: Encoder, name: str, tasks: Sequence[str], out: Path) -> dict[str, float]:
    """Evaluate an encoder on MTEB tasks; MTEB's cache keeps the full results.

    Args:
        encoder: An opened bundle.
        name: Name of the model in the results.
        tasks: MTEB's names of tasks, such as `MSRVTTT2V`. Their data come from the model hub.
        out: MTEB's results folder.

    Returns:
        The main score of each task.

    Raises:
        ConfigError: mteb is not installed, or does not know a task.
        ServiceError: the hub does not provide a task's data.
    """
    try:
        import mteb
    except ImportError as error:
        raise ConfigError(
            f"mteb is not there: {error}", code="not-installed", remedy=f"Run `{install_command('mteb')}`"
        ) from error
    try:
        chosen = [mteb.get_task(task) for task in tasks]
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"MTEB has no such task: {error}", code="unknown-task", remedy="Name tasks as mteb.get_tasks() lists them",
        ) from error
    with foreign(
        ServiceError, "the model hub does not give the data", code="hub-no-answer",
        remedy="Set HF_HUB_OFFLINE=0 where there is a network",
        errors=ConnectionError,  # datasets' way of saying that the hub was not reached, or may not be asked
    ):
        results = mteb.evaluate(MtebModel(encoder, name), chosen, cache=mteb.ResultCache(out))
    return {result.task_name: float(result.get_score()) for result in results.task_results}
