"""The work of a frame worker: decode the clips of one video once into members of a tar, and read them back."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import re
import struct
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vidseek_media.cutting.quality_flags import INTERLACED, quality_flags_of, thumb_of
from vidseek_media.decoding.frames import bin_centres, frames_at
from vidseek_media.errors import ArtifactError, foreign
from vidseek_media.files.folders import whole_file
from vidseek_media.files.json_files import parse_json
from vidseek_media.names import clip_id, shown
from vidseek_media.records import Clip, Refusal
from vidseek_media.settings import FrameSettings
from vidseek_media.sources.originals import original
from vidseek_media.splitting.perceptual_hashes import hash_of

SHARD_FORMAT = 3
"""Part of what names the settings: raise it when equal settings give other frames."""
OF_FRAMES = frozenset({"num_frames", "per_bin", "side_px", "quality", "decoder"})
"""Settings that change the frames of a clip."""
MOST_PICTURES = 1000
"""Of a clip, in a shard that is read; what is written has at most a hundred."""
MOST_ABOUT_BYTES = 2**20
MOST_JPEG_BYTES = 2**26
MOST_PIXELS = 2**26
"""Of a frame: frames of 8,192 pixels square are the largest that `frames.side_px` lets through."""
_DIGEST = re.compile(r"(?:[0-9a-f]{32})?")
_SETTINGS = re.compile(r"(?:[0-9a-f]{16})?")
_MEMBER = re.compile(r"([0-9A-Za-z_-]{1,64}_[0-9]{5,9})(?:\.json|\.([0-9]{2,3})\.jpg)")


@dataclass(frozen=True)
class VideoJob:
    """The input of a worker for one video, and the file that receives its members."""

    video_id: str
    path: Path
    clips: tuple[Clip, ...]
    """By index."""
    part: Path
    """The members of this video as a tar without its end, so that parts make a shard when laid end to end."""


@dataclass(frozen=True)
class ClipFramesInfo:
    """The metadata of a clip's frames in a shard."""

    num_repeated: int
    decoder: str
    """pyav or decord."""
    quality_flags: tuple[str, ...]
    """Why it is no clip to learn from or to find: see `vidseek_media.cutting.quality_flags`."""
    hashes: tuple[int, ...]
    """Of its different frames, less plain ones: see `vidseek_media.splitting.perceptual_hashes`."""
    frames_digest: str
    """`frames_digest_of` its JPEGs; empty in a shard of an earlier version."""


@dataclass(frozen=True)
class Placed:
    """The frames of a clip in a tar."""

    info: ClipFramesInfo
    offset: int
    """Of its first member, in bytes."""
    num_bytes: int
    """Of its members with their headers."""


@dataclass(frozen=True)
class DecodeResult:
    """The result for each clip by clip_id: its frames, or the reason why it has none."""

    kept: dict[str, Placed]
    refused: dict[str, Refusal]
    changed: set[str] = dataclasses.field(default_factory=set)
    """Of those refused, the clips whose file was replaced."""


def write_part(job: VideoJob, *, settings: FrameSettings) -> DecodeResult:
    """Decode one video once for all its clips, and write its members to `job.part`, whole or not at all.

    Args:
        job: The video and its clips.
        settings: Number, size and quality of the frames.

    Raises:
        InputRejected: no frame of the video can be decoded.
        FileChanged: the file's bytes differ from those that were ingested.
        ArtifactError: the disk cannot hold the members.
    """
    folder = job.part.parent.parent
    with (
        disk_faults(folder), whole_file(job.part) as beside, original(job.path, job.video_id),
        disk_faults(folder), beside.open("wb") as file,  # once more: `original` takes an OSError for one of the video
    ):
        return _write_clips(job, file, settings)


@dataclass(frozen=True)
class _Picture:
    jpeg: bytes
    time_ms: int
    is_repeated: bool
    decoder: str
    is_interlaced: bool
    thumb: NDArray[np.float32]
    """What `vidseek_media.cutting.quality_flags` looks at."""


def _write_clips(job: VideoJob, file: BinaryIO, settings: FrameSettings) -> DecodeResult:
    centres = {clip.index: bin_centres(clip.start_ms, clip.end_ms, settings.num_kept) for clip in job.clips}
    wanted_ms = sorted({time_ms for times in centres.values() for time_ms in times})
    waiting, made_with = list(reversed(job.clips)), settings_digest_of(settings)
    pictures: dict[int, _Picture] = {}
    verdict = DecodeResult({}, {})
    made: tuple[NDArray[np.uint8], bytes, NDArray[np.float32]] | None = None
    for frame in frames_at(job.path, wanted_ms, side_px=settings.stored_px, decoder=settings.decoder):
        if made is None or made[0] is not frame.pixels:
            made = (frame.pixels, encode_jpeg(frame.pixels, quality=settings.quality), thumb_of(frame.pixels))
        pictures[frame.wanted_ms] = _Picture(
            made[1], frame.time_ms, frame.is_repeated, frame.decoder, frame.is_interlaced, made[2]
        )
        while waiting and centres[waiting[-1].index][-1] <= frame.wanted_ms:
            clip = waiting.pop()
            own = [pictures[time_ms] for time_ms in centres[clip.index]]
            if all(picture.is_repeated for picture in own):
                reason = f"{job.path.name}: no frame of [{clip.start_ms}, {clip.end_ms}) ms can be decoded"
                verdict.refused[str(clip.clip_id)] = Refusal(reason, code="undecodable")
            else:
                verdict.kept[str(clip.clip_id)] = _write_clip(file, clip, own, made_with)
            _forget_before(pictures, waiting[-1].start_ms if waiting else 0)
    return verdict


def _forget_before(pictures: dict[int, _Picture], start_ms: int) -> None:
    """Clips come in order of start, so no later one asks for a picture before `start_ms`."""
    while pictures and (first := next(iter(pictures))) < start_ms:
        del pictures[first]


def _write_clip(file: BinaryIO, clip: Clip, pictures: Sequence[_Picture], made_with: str) -> Placed:
    """Write the members of `clip`."""
    offset = file.tell()
    thumbs = [picture.thumb for picture in {picture.time_ms: picture for picture in pictures}.values()]
    kept = ClipFramesInfo(
        num_repeated=sum(picture.is_repeated for picture in pictures), decoder=pictures[0].decoder,
        quality_flags=(*quality_flags_of(thumbs), *([INTERLACED] if any(p.is_interlaced for p in pictures) else [])),
        hashes=tuple(dict.fromkeys(h for t in thumbs if (h := hash_of(t)) is not None)),
        frames_digest=frames_digest_of([picture.jpeg for picture in pictures]),
    )
    about = {
        "key": clip.key, "clip_id": str(clip.clip_id), "video_id": clip.video_id, "start_ms": clip.start_ms,
        "end_ms": clip.end_ms, "times_ms": [picture.time_ms for picture in pictures], "made_with": made_with,
        **dataclasses.asdict(kept),
    }
    _write_member(file, f"{clip.key}.json", json.dumps(about).encode())
    for i, picture in enumerate(pictures):
        _write_member(file, f"{clip.key}.{i:02d}.jpg", picture.jpeg)
    return Placed(kept, offset, file.tell() - offset)


def kept_of(about: Mapping[str, Any]) -> ClipFramesInfo:
    """Read the metadata of a clip's .json.

    Raises:
        KeyError: a key is missing.
    """
    return ClipFramesInfo(
        about["num_repeated"], about["decoder"], tuple(_flags_of(about)), tuple(about["hashes"]),
        about.get("frames_digest", ""),
    )


def settings_digest_of(settings: FrameSettings) -> str:
    """Return 16 hex digits that name the settings which change the frames of a clip; the others say how they are made."""
    content = {"format": SHARD_FORMAT, **settings.model_dump(include=set(OF_FRAMES))}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _flags_of(about: Mapping[str, Any]) -> Any:
    """`quality_flags`; shards of earlier versions call them `marks`."""
    return about["quality_flags"] if "quality_flags" in about else about["marks"]


def frames_digest_of(jpegs: Iterable[bytes]) -> str:
    """Return 32 hex digits that name the frames of a clip: the SHA-256 of their JPEGs, each behind its length."""
    digest = hashlib.sha256()
    for jpeg in jpegs:
        digest.update(len(jpeg).to_bytes(8, "big"))
        digest.update(jpeg)
    return digest.hexdigest()[:32]


def _write_member(file: BinaryIO, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)  # Everything else stays at its default of 0 or empty: equal frames give equal bytes.
    file.write(info.tobuf(tarfile.USTAR_FORMAT))
    file.write(content)
    file.write(bytes(-len(content) % tarfile.BLOCKSIZE))


def scan_members(path: Path) -> Iterator[tuple[dict[str, Any], int, int]]:
    """Yield the content of each clip's .json, its place in the file and its length, in bytes. No JPEG is read.

    Args:
        path: The tar file.

    Raises:
        ArtifactError: the tar is missing or broken, or lacks frames of a clip.
    """
    with _broken_shards(path), tarfile.open(path, "r:") as tar:
        for about, _, start, end in _clips_of(tar, with_jpegs=False):
            yield about, start, end - start


def parse_members(content: bytes, path: Path) -> tuple[dict[str, Any], list[bytes]]:
    """Return the content of the .json and the JPEGs of one clip.

    Args:
        content: The bytes of its members with their headers, as `scan_members` places them.
        path: Where they come from, for the message.

    Raises:
        ArtifactError: they are not the members of just one clip.
    """
    with _broken_shards(path), tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
        clips = [(about, jpegs) for about, jpegs, _, _ in _clips_of(tar, with_jpegs=True)]
        if len(clips) != 1:
            raise ValueError(f"there are {len(clips)} clips where one was expected")
        return clips[0]


def _broken_shards(path: Path) -> AbstractContextManager[None]:
    return foreign(
        ArtifactError, f"{path} is no whole frame shard", code="broken-shard",
        remedy=f"Remove {path.name}, then run `dvc repro frames`: its videos are decoded again",
        errors=(OSError, tarfile.TarError, ValueError, KeyError, TypeError, OverflowError),
    )


def _clips_of(tar: tarfile.TarFile, *, with_jpegs: bool) -> Iterator[tuple[dict[str, Any], list[bytes], int, int]]:
    """Yield .json and JPEGs of each clip, and the first byte of its members and the one behind them."""
    about: dict[str, Any] = {}
    jpegs: list[bytes] = []
    start = end = 0
    for member in tar:
        key, place = _named(member)
        if place is None:
            if about:
                yield *_whole(about, jpegs), start, end
            about, jpegs, start = _about(_content(tar, member, MOST_ABOUT_BYTES), key), [], member.offset
        elif key != about.get("key") or place != len(jpegs):
            raise ValueError(f"the member {shown(member.name)} does not follow the one before it")
        else:
            jpegs.append(_content(tar, member, MOST_JPEG_BYTES) if with_jpegs else b"")
        end = member.offset_data + member.size + -member.size % tarfile.BLOCKSIZE
    if about:
        yield *_whole(about, jpegs), start, end


def _named(member: tarfile.TarInfo) -> tuple[str, int | None]:
    """Return the key that a member's name has, and the number of its picture; None of the .json."""
    found = _MEMBER.fullmatch(member.name)
    if found is None or not member.isreg() or member.issparse():
        raise ValueError(f"it has the member {shown(member.name)}, wanted files <video_id>_<index>.json and .<number>.jpg")
    return found[1], None if found[2] is None else int(found[2])


def _about(content: bytes, key: str) -> dict[str, Any]:
    """Return the content of a clip's .json, with types and ranges checked."""
    about = parse_json(content)
    if not isinstance(about, dict) or about["key"] != key:
        raise ValueError(f"the .json of {key} is of another clip")
    clip_id(about["clip_id"])
    times = about["times_ms"]
    if not isinstance(times, list) or not 0 < len(times) <= MOST_PICTURES or not all(map(_is_time, times)):
        raise ValueError(f"clip {key} has times that are none: {shown(times)}")
    flags, hashes = _flags_of(about) if "quality_flags" in about or "marks" in about else [], about.get("hashes", [])
    if not isinstance(flags, list) or not all(isinstance(each, str) for each in (about.get("decoder", ""), *flags)):
        raise ValueError(f"the .json of {key} has quality flags or a decoder that are none: {shown(flags)}")
    if not _is_time(about.get("num_repeated", 0)) or not isinstance(hashes, list) or len(hashes) > MOST_PICTURES:
        raise ValueError(f"the .json of {key} has counts that are none: {shown(about.get('num_repeated'))}")
    if _DIGEST.fullmatch(str(about.get("frames_digest", ""))) is None:
        raise ValueError(f"the .json of {key} has a digest that is none: {shown(about['frames_digest'])}")
    if _SETTINGS.fullmatch(str(about.get("made_with", ""))) is None:
        raise ValueError(f"the .json of {key} names settings that are none: {shown(about['made_with'])}")
    if not all(isinstance(each, int) and 0 <= each < 2**64 for each in hashes):
        raise ValueError(f"clip {key} has hashes that are none: {shown(hashes)}")
    return about


def _is_time(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _whole(about: dict[str, Any], jpegs: list[bytes]) -> tuple[dict[str, Any], list[bytes]]:
    if len(jpegs) != len(about["times_ms"]):
        raise ValueError(f"clip {about['key']} has {len(jpegs)} pictures, its times are {len(about['times_ms'])}")
    return about, jpegs


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, most_bytes: int) -> bytes:
    if member.size > most_bytes:
        raise ValueError(f"the member {member.name} has {member.size} bytes, wanted at most {most_bytes}")
    file = tar.extractfile(member)
    return file.read() if file else b""


def encode_jpeg(pixels: NDArray[np.uint8], *, quality: int) -> bytes:
    """Encode a frame as JPEG without chroma subsampling, which small frames cannot afford.

    Args:
        pixels: uint8 RGB of shape (height, width, 3).
        quality: JPEG quality, from 1 to 100.
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def decode_jpeg(content: bytes) -> NDArray[np.uint8]:
    """Shape (height, width, 3), RGB.

    Raises:
        OSError: `content` is no picture, or a larger one than a frame is.
    """
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            if image.width * image.height > MOST_PIXELS:
                raise OSError(f"a frame is {image.width} x {image.height}, wanted at most {MOST_PIXELS} pixels")
            return np.asarray(image.convert("RGB"))
    except (Image.DecompressionBombError, SyntaxError, ValueError, TypeError, struct.error) as error:
        raise OSError(f"a frame is no picture: {error}") from error


def disk_faults(folder: Path) -> AbstractContextManager[None]:
    """Raise an ArtifactError if the disk cannot hold a file of `folder`."""
    return foreign(
        ArtifactError, f"{folder} cannot be written", code="not-writable",
        remedy="Make room; the videos that are done are kept, and a new run goes on from there",
    )
