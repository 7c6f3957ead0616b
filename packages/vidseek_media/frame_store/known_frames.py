"""What a run of `frames` finds: clips whose frames are stored, clips that were refused, and what a killed run left.

Tables that `settings.json` vouches for are believed, with one look at the size of each shard. All other shards are scanned:
of a run that was killed, of another setting, or of an earlier version, whose shards held the videos of one first digit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vidseek_media.errors import ArtifactError
from vidseek_media.files.json_files import read_json, write_json
from vidseek_media.frame_store.members import (
    OF_FRAMES,
    SHARD_FORMAT,
    Placed,
    frames_digest_of,
    kept_of,
    parse_members,
    scan_members,
    settings_digest_of,
)
from vidseek_media.frame_store.stored_clips import SHARDS, TABLE
from vidseek_media.names import shard_file, video_id
from vidseek_media.records import Refusal
from vidseek_media.settings import FrameSettings
from vidseek_media.tables import FRAMES, read_columns, read_rejected

SETTINGS_FILE = "settings.json"
REJECTED_TABLE = "rejected.parquet"
OURS = re.compile(r"(?:(?:all|[0-9a-f]{1,4})-)?[0-9a-f]{16}\.tar|\..+\.[0-9]+|\..+\.part")
"""What this stage writes into the folder of shards, half-written files too: nothing else is removed from it."""
_EARLIER = re.compile(r"(all|[0-9a-f]{1,4})-([0-9a-f]{16})\.tar")


@dataclass(frozen=True)
class KnownFrames:
    """What earlier runs finished, under the settings of this one."""

    rows: pa.Table
    """Schema FRAMES: the clips whose frames are stored, each once."""
    refused: Mapping[str, Refusal]
    """Why, by clip_id, less those that another try may mend."""

    @staticmethod
    def find(out: Path, settings: FrameSettings, wanted: pa.Table) -> KnownFrames:
        """Look at the tables, and at shards that they do not list.

        Args:
            out: Output of the stage `frames`.
            settings: Number, size and quality of the frames.
            wanted: The clips of the archive, with the columns clip_id, video_id and key.
        """
        refused, unstable = _refused(out)
        is_trusted = is_vouched(out, settings)
        rows = _listed(out) if is_trusted else frames_table([])
        rows = rows.filter(pc.is_in(rows["shard"], value_set=_long_enough(out, rows)))
        listed = set(pc.unique(rows["shard"]).to_pylist())
        left = [path for path in sorted((out / SHARDS).glob("*.tar")) if f"{SHARDS}/{path.name}" not in listed]
        plan = _EarlierPlans(settings, wanted, {*refused, *unstable})
        found = [row for path in left for row in _scanned(path, settings, plan)]
        if found:
            rows = _each_once(pa.concat_tables([rows, frames_table(found)]))
        return KnownFrames(rows, refused if is_trusted or plan.num_fitting else {})


def frames_table(rows: list[dict[str, object]]) -> pa.Table:
    """Return rows as a table of the schema FRAMES."""
    return pa.Table.from_pylist(rows, schema=FRAMES)


def row_of(about: Mapping[str, Any], placed: Placed, shard: str, num_frames: int) -> dict[str, object]:
    """Return a clip's row of the schema FRAMES.

    Args:
        about: Its clip_id, video_id and key.
        placed: Its frames, and where they lie in the shard.
        shard: File name of the shard inside the frames folder.
        num_frames: Number of its frames.
    """
    info = dataclasses.asdict(placed.info)
    return {
        **{name: about[name] for name in ("clip_id", "video_id", "key")}, "shard": shard, "num_frames": num_frames,
        **{name: list(value) if isinstance(value, tuple) else value for name, value in info.items()},
        "offset": placed.offset, "num_bytes": placed.num_bytes,
    }


def vouch(out: Path, settings: FrameSettings) -> None:
    """Write that the tables are of these settings: the last thing of a run."""
    content = settings.model_dump(mode="json", include=set(OF_FRAMES))
    write_json(out / SETTINGS_FILE, {"made_with": settings_digest_of(settings), **content})


def scan_placed(path: Path) -> Iterator[tuple[dict[str, Any], Placed]]:
    """Yield each clip of a tar of members. Digests that an earlier version did not write are computed.

    Raises:
        ArtifactError: the tar is broken.
        KeyError: it lacks something.
    """
    with path.open("rb") as file:
        for about, offset, num_bytes in scan_members(path):
            info = kept_of(about)
            if not info.frames_digest:
                file.seek(offset)
                _, jpegs = parse_members(file.read(num_bytes), path)
                info = dataclasses.replace(info, frames_digest=frames_digest_of(jpegs))
            yield about, Placed(info, offset, num_bytes)


def is_vouched(out: Path, settings: FrameSettings) -> bool:
    """Whether the tables are of these settings, and belong together.

    Args:
        out: Output of the stage `frames`.
        settings: Number, size and quality of the frames.
    """
    try:
        return bool(read_json(out / SETTINGS_FILE)["made_with"] == settings_digest_of(settings))
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _listed(out: Path) -> pa.Table:
    try:
        table = read_columns(out / TABLE, FRAMES)
        for shard in pc.unique(table["shard"]).to_pylist():
            shard_file(shard)
    except (ArtifactError, ValueError):
        return frames_table([])
    given = [pc.is_valid(table[name]) for name in ("clip_id", "key", "frames_digest", "offset", "num_bytes")]
    return _each_once(table.filter(reduce(pc.and_, given)).cast(FRAMES))


def _each_once(rows: pa.Table) -> pa.Table:
    """Return the first row of each clip."""
    places = pc.index_in(rows["clip_id"], value_set=rows["clip_id"].combine_chunks())
    is_first = np.asarray(places) == np.arange(rows.num_rows)
    return rows if is_first.all() else rows.filter(pa.array(is_first))


def _long_enough(out: Path, rows: pa.Table) -> pa.Array:
    """Return the shards that are there, and reach to the end of their last clip."""
    ends = pa.table({"shard": rows["shard"], "end": pc.add(rows["offset"], rows["num_bytes"])})
    last = ends.group_by("shard").aggregate([("end", "max")]).to_pylist()
    sizes = [(each["shard"], each["end_max"], out / each["shard"]) for each in last]
    return pa.array([shard for shard, end, path in sizes if path.is_file() and path.stat().st_size >= end], pa.string())


def _refused(out: Path) -> tuple[dict[str, Refusal], set[str]]:
    """Return why of each clip that was refused for good, and the clips that another try may mend."""
    try:
        table = read_rejected(out)
    except ArtifactError:
        return {}, set()
    again = table["retryable"].astype(bool)
    known = {
        row.id: Refusal(row.reason, code=row.code) for row in table[~again].itertuples(index=False)
    }
    return known, set(table["id"][again])


class _EarlierPlans:
    """Shards of earlier versions: their names say which settings and clips they are of, but no clip says it by itself."""

    def __init__(self, settings: FrameSettings, wanted: pa.Table, refused: set[str]) -> None:
        self.num_fitting = 0
        """Shards that fitted."""
        self._settings = settings
        rows = wanted.filter(pc.is_in(wanted["clip_id"], value_set=pa.array(sorted(refused), pa.string())))
        self._refused = list(zip(*(rows[name].to_pylist() for name in ("clip_id", "video_id", "key")), strict=True))

    def fits(self, name: str, clips: Sequence[Mapping[str, Any]]) -> bool:
        """Whether a shard of an earlier version is of these settings.

        Args:
            name: Its file name.
            clips: Content of the .json of each of its clips.
        """
        found = _EARLIER.fullmatch(name)
        if found is None:
            return False
        prefix = "" if found[1] == "all" else found[1]
        own = {each["key"]: each["clip_id"] for each in clips}
        lacking = {key: clip_id for clip_id, of_video, key in self._refused if of_video.startswith(prefix)}
        fits = found[2] in (self._hash(own), self._hash({**own, **lacking}))
        self.num_fitting += fits
        return fits

    def _hash(self, clips: Mapping[str, str]) -> str:
        plan = {
            "format": SHARD_FORMAT, **self._settings.model_dump(include=set(OF_FRAMES)),
            "clips": [[clips[key], key] for key in sorted(clips, key=_place)],
        }
        return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:16]


def _place(key: str) -> tuple[str, int]:
    of_video, _, index = key.rpartition("_")
    return of_video, int(index)


def _scanned(path: Path, settings: FrameSettings, plans: _EarlierPlans) -> list[dict[str, object]]:
    """Return rows of the clips of a shard, if it is whole and of these settings; else none."""
    clips: list[tuple[dict[str, Any], Placed]] = []
    wanted = settings_digest_of(settings)
    try:
        shard = shard_file(f"{SHARDS}/{path.name}")
        for about, placed in scan_placed(path):
            video_id(about["video_id"])
            if about.get("made_with", wanted) != wanted:
                return []
            clips.append((about, placed))
    except (ArtifactError, OSError, KeyError, ValueError):
        return []
    abouts = [about for about, _ in clips]
    if not all("made_with" in about for about in abouts) and not plans.fits(path.name, abouts):
        return []
    return [row_of(about, placed, shard, len(about["times_ms"])) for about, placed in clips]
