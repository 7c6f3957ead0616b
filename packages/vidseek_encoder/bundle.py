"""The encoder bundle on disk: its description (encoder.json), and the check that its files are unchanged."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from vidseek_encoder.onnx_file import DATA_SUFFIX, data_file
from vidseek_encoder.preprocess import Resample, Resize, Resizing
from vidseek_media.errors import ArtifactError, foreign
from vidseek_media.files.json_files import read_json, write_json
from vidseek_media.names import hex_digits, relative_file, shown

Vision = Literal["video", "frame"]

FORMAT = 4
_FORMER_NAMES: Mapping[str, str] = {
    "context": "context_length", "frames": "num_frames", "side": "image_size_px", "mean": "image_mean",
    "deviation": "image_std",
}
"""Names that fields have in formats 2 and 3, and their names now."""
_FORMER_VALUES: Mapping[str, Any] = {"resample": "bicubic", "resize_side": None}
"""Bundles of format 2 lack these keys; the values are assumed."""
SPEC_FILE = "encoder.json"
TOKENIZER_FILE = "tokenizer.json"
_REMEDY = "Run `dvc repro export` to write the bundle again"
_MOST_BYTES = 2**20
_MOST_FILES = 256
_MOST_VARIANTS = 8
_MOST_LETTERS = 1024
_MOST: Mapping[str, int] = {
    "context_length": 65_536, "num_frames": 4096, "image_size_px": 8192, "dimension": 16_384,
}
_MOST_PIXELS = 2**27
"""Largest number of pixels of a clip: 1.5 GB as input of the tower. 64 frames of 1,024 by 1,024 pixels have half as many."""


@dataclass(frozen=True)
class EncoderSpec:
    """The content of encoder.json: the vector space, and how frames and texts are preprocessed."""

    family: str
    """Backbone family: clip, xclip, viclip, ..."""
    encoder_version: str
    """16 hex digits that name the vector space (`encoder_version_of`)."""
    context_length: int
    """Tokens of a text, padding included."""
    num_frames: int
    """Frames of a clip."""
    image_size_px: int
    """Height and width of a frame, in pixels."""
    resize: Resize
    image_mean: tuple[float, float, float]
    """Of R, G, B on a scale of 0 to 1."""
    image_std: tuple[float, float, float]
    """The standard deviation of R, G, B, on the same scale."""
    dimension: int
    pad_id: int
    """Id of the padding token."""
    backbone: str
    """Where the weights come from: a hub id with its commit (`owner/name@commit`), `vidseek/...`, or the name of a
    folder.
    """
    variants: tuple[str, ...]
    """The precisions in the bundle, each a folder: fp32, fp16, int8."""
    vision: Vision = "video"
    """The vision tower: `video` takes whole clips; `frame` takes single frames, and the vector of a clip is the normalised
    mean
    of its frames' vectors, so a still picture costs one frame.
    """
    trims_texts: bool = False
    """Whether the text tower takes texts shorter than the context length, so that padding need not be computed."""
    resample: Resample = "bicubic"
    """The filter of the resizing, see `Resizing`."""
    resize_side: int | None = None
    """See `Resizing`; None: `image_size_px`."""
    files: Mapping[str, str] = field(default_factory=dict)
    """sha256 of each file that makes vectors, by its path in the bundle. Written by `save`."""
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.vision not in ("video", "frame"):
            raise ValueError(f"vision is {self.vision!r}, wanted video or frame")
        for name, most in _MOST.items():
            if not _is_whole(getattr(self, name)) or not 0 < getattr(self, name) <= most:
                raise ValueError(f"{name} is {shown(getattr(self, name))}, wanted a whole number above 0, at most {most}")
        if self.num_frames * self.image_size_px**2 > _MOST_PIXELS:
            raise ValueError(
                f"a clip has {self.num_frames} frames of {self.image_size_px} pixels square, wanted {_MOST_PIXELS} at most"
            )
        if self.resize_side is not None and not (_is_whole(self.resize_side) and self.resize_side <= _MOST["image_size_px"]):
            raise ValueError(
                f"resize_side is {shown(self.resize_side)}, wanted a whole number of at most {_MOST['image_size_px']}"
            )
        _ = self.resizing  # refuses what it cannot mean
        if not _is_whole(self.pad_id) or not 0 <= self.pad_id < 2**31:
            raise ValueError(f"pad_id is {shown(self.pad_id)}, wanted a token's number")
        if not isinstance(self.trims_texts, bool):
            raise ValueError(f"trims_texts is {self.trims_texts!r}, wanted true or false")
        for name in ("image_mean", "image_std"):
            values = getattr(self, name)
            if len(values) != 3 or not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
                raise ValueError(f"{name} is {shown(values)}, wanted three numbers")
        if min(self.image_std) <= 0:
            raise ValueError(f"image_std is {self.image_std!r}, wanted numbers above 0")
        hex_digits(self.encoder_version, 16, what="encoder_version")
        if not 0 < len(self.variants) <= _MOST_VARIANTS or not all(map(_is_variant, self.variants)):
            raise ValueError(f"variants are {shown(self.variants)}, wanted 1 to {_MOST_VARIANTS} names such as fp32")
        for name in ("family", "backbone"):
            if len(getattr(self, name)) > _MOST_LETTERS or not getattr(self, name).isprintable():
                raise ValueError(f"{name} is {shown(getattr(self, name))}, wanted a name of at most {_MOST_LETTERS} letters")

    @property
    def resizing(self) -> Resizing:
        """Return how frames are resized."""
        return Resizing(self.image_size_px, self.resize, self.resample, self.resize_side)

    @property
    def towers(self) -> tuple[str, str]:
        """Return the file names (without suffix) of the two models of each variant."""
        return ("text", self.vision)

    def save(self, folder: Path) -> EncoderSpec:
        """Write encoder.json into `folder`, with the sha256 of the tokenizer and of every file of every variant.

        Call it last, since encoder.json makes the folder a bundle. The file is written whole or not at all.

        Args:
            folder: The bundle's folder, which already holds the tokenizer and the models.

        Returns:
            This spec with `files` filled in.

        Raises:
            ArtifactError: a file of the bundle is missing.
        """
        paths = [folder / TOKENIZER_FILE]
        for variant in self.variants:
            for tower in self.towers:
                if not (folder / variant / f"{tower}.onnx").is_file():
                    raise ArtifactError(
                        f"{folder / variant / f'{tower}.onnx'} is missing", code="file-absent", remedy=_REMEDY,
                    )
            paths += sorted(path for path in (folder / variant).rglob("*") if path.is_file())
        files = {path.relative_to(folder).as_posix(): file_sha256(path) for path in paths}
        spec = replace(self, files=files)
        write_json(folder / SPEC_FILE, spec._to_json())
        return spec

    @classmethod
    def load(cls, folder: Path) -> EncoderSpec:
        """Read encoder.json from `folder`. `check_files` checks the other files.

        Raises:
            ArtifactError: the bundle is missing, unreadable, of another format, or holds impossible values.
        """
        path = folder / SPEC_FILE
        try:
            content = read_json(path, most_bytes=_MOST_BYTES)
        except FileNotFoundError as error:
            raise ArtifactError(
                f"{path} is missing: there is no encoder bundle in {folder}", code="bundle-absent", remedy=_REMEDY,
            ) from error
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path} cannot be read as JSON: {error}", code="bundle-broken", remedy=_REMEDY) from error
        content = _of_former_format(content)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            found = content.get("format") if isinstance(content, dict) else type(content).__name__
            raise ArtifactError(
                f"{path} is of format {shown(found)}, wanted {FORMAT}", code="bundle-old-format", remedy=_REMEDY,
            )
        wanted = {each.name for each in fields(cls)}
        if set(content) != wanted:
            raise ArtifactError(
                f"{path} has the keys {shown(sorted(content))}, wanted {sorted(wanted)}", code="bundle-broken",
                remedy=_REMEDY,
            )
        try:
            return cls(**_from_json(content))
        except (ValueError, TypeError) as error:
            raise ArtifactError(f"{path}: {error}", code="bundle-broken", remedy=_REMEDY) from error

    def check_files(self, folder: Path, variant: str) -> None:
        """Compare the sha256 of the tokenizer and of the models of one variant with encoder.json.

        Args:
            folder: The bundle's folder.
            variant: Precision: `fp32`, `fp16` or `int8`.

        Raises:
            ArtifactError: the bundle lacks the variant, or a file is missing, changed, or not listed.
        """
        if variant not in self.variants:
            raise ArtifactError(
                f"{folder} has the variants {', '.join(self.variants)}, not {variant!r}", code="no-such-variant",
                remedy="Ask for one that it has, or export this one",
            )
        recorded = {name: digest for name, digest in self.files.items() if name.startswith(f"{variant}/")}
        models = [f"{variant}/{tower}.onnx" for tower in self.towers]
        # Weights beside a model count as what they are.
        beside = [f"{name}{DATA_SUFFIX}" for name in models if data_file(folder / name).exists()]
        needed = {TOKENIZER_FILE, *models, *beside}
        for name in sorted(needed - set(self.files)):
            raise ArtifactError(f"{folder / SPEC_FILE} records no sha256 of {name}", code="bundle-broken", remedy=_REMEDY)
        for name in sorted({TOKENIZER_FILE, *recorded}):
            path = folder / name
            with foreign(ArtifactError, f"{path} is missing or cannot be read", code="file-absent", remedy=_REMEDY):
                found = file_sha256(path)
            if found != self.files[name]:
                raise ArtifactError(
                    f"{path} has the sha256 {found[:12]}..., {SPEC_FILE} says {self.files[name][:12]}...: "
                    "it was changed or swapped after the export", code="bundle-changed",
                    remedy=_REMEDY,
                )

    def _to_json(self) -> dict[str, Any]:
        content = {each.name: getattr(self, each.name) for each in fields(self)}
        return {"format": content.pop("format"), **content, "files": dict(sorted(self.files.items()))}


def encoder_version_of(
    *,
    family: str,
    tensors: Mapping[str, NDArray[np.generic]],
    tokenizer: Path,
    context_length: int,
    num_frames: int,
    image_size_px: int,
    resize: Resize,
    image_mean: tuple[float, float, float],
    image_std: tuple[float, float, float],
    dimension: int,
    resample: Resample = "bicubic",
    resize_side: int | None = None,
) -> str:
    """Return the 16 hex digits that name a vector space. They are equal on every machine and for every export.

    They are the first digits of a sha256 over a canonical JSON (sorted keys, no spaces) of the arguments. A tensor is
    represented by its name, shape and fp32 values, the tokenizer by the sha256 of its file. The keys of the JSON are the
    first names of the arguments (`context`, `frames`, `side`, `mean`, `deviation`), so that vector spaces keep theirs.

    Args:
        family: The backbone family.
        tensors: Merged weights of both towers by name; they are converted to fp32.
        tokenizer: The tokenizer.json of the bundle.
        context_length: Tokens of a text, padding included.
        num_frames: Frames of a clip.
        image_size_px: Height and width of a frame in pixels.
        resize: How the aspect ratio is handled: `squash` or `crop`.
        image_mean: Mean of R, G, B, on a scale of 0 to 1.
        image_std: Standard deviation of R, G, B, on a scale of 0 to 1.
        dimension: Length of a vector.
        resample: Filter of the resizing. The default is not hashed, so that older vector spaces keep their names.
        resize_side: Side in pixels that frames are resized to before they are cropped; None means
            `image_size_px`, and is not hashed.
    """
    content = {
        "family": family,
        "tensors": {name: _tensor_digest(tensor) for name, tensor in tensors.items()},
        "tokenizer": file_sha256(tokenizer),
        "context": int(context_length),
        "frames": int(num_frames),
        "side": int(image_size_px),
        "resize": resize,
        "mean": [float(value) for value in image_mean],
        "deviation": [float(value) for value in image_std],
        "dimension": int(dimension),
        **({"resample": resample} if resample != "bicubic" else {}),
        **({"resize_side": int(resize_side)} if resize_side is not None else {}),
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hex.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tensor_digest(tensor: NDArray[np.generic]) -> str:
    values = np.ascontiguousarray(tensor, dtype="<f4")
    shape = ",".join(str(size) for size in np.shape(tensor))
    return hashlib.sha256(f"{shape}:".encode() + values.tobytes()).hexdigest()


def _of_former_format(content: Any) -> Any:
    """What a spec of format 2 or 3 says, as one of `FORMAT` says it; anything else as it is."""
    if not isinstance(content, dict) or content.get("format") not in (2, 3) or set(content) & {*_FORMER_NAMES.values()}:
        return content
    values = {} if content["format"] == 3 else _FORMER_VALUES
    if set(content) & set(values):
        return content
    return {**{_FORMER_NAMES.get(name, name): value for name, value in content.items()}, **values, "format": FORMAT}


def _from_json(content: dict[str, Any]) -> dict[str, Any]:
    for name in ("family", "encoder_version", "backbone", "resize", "resample", "vision"):
        if not isinstance(content[name], str):
            raise TypeError(f"{name} is {shown(content[name])}, wanted a text")
    for name in ("image_mean", "image_std", "variants"):
        if not isinstance(content[name], list):
            raise TypeError(f"{name} is {shown(content[name])}, wanted a list")
    files = content["files"]
    if not isinstance(files, dict) or len(files) > _MOST_FILES:
        raise TypeError("files is not a table of sha256 by path")
    for path, digest in files.items():
        relative_file(path, what="a file of the bundle")  # it is opened: it may not lead out of the folder
        hex_digits(digest, 64, what=f"the sha256 of {path}")
    lists = {name: tuple(content[name]) for name in ("image_mean", "image_std", "variants")}
    return {**content, **lists, "files": cast(dict[str, str], files)}


def _is_variant(value: object) -> bool:
    """Whether `value` can name a variant, and so a folder."""
    return isinstance(value, str) and re.fullmatch(r"[a-z0-9]{1,16}", value) is not None


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
