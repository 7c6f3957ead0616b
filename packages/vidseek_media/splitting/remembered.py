"""Comparisons of frames that are kept from run to run: what was compared before is not compared again.

A memory that is missing, broken or of another version is as none: the result never depends on it.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

import pandas as pd

from vidseek_media.files.json_files import read_memory, write_json
from vidseek_media.splitting.both_sides import find_both_sides, hashes_of, joined_hashes
from vidseek_media.splitting.perceptual_hashes import Comparison, HashesByKey, compare
from vidseek_media.tables import BOTH_SIDES, is_among

GROUPS_FILE, BOTH_SIDES_FILE = "near_duplicates.json", "both_sides.json"
VERSION = 1
"""Of both files: raise it when equal hashes give another result."""


def remembered_near_duplicates(
    hashes: HashesByKey, *, max_bits: int, min_share: float, memory: Path
) -> list[tuple[str, str]]:
    """Return the pairs of keys that show the same, as `compare` finds them, and remember them.

    Args:
        hashes: As there.
        max_bits: As there.
        min_share: As there.
        memory: Folder of the memory.

    Raises:
        OSError: the disk does not take the memory.
    """
    path = memory / GROUPS_FILE
    before = _read_comparison(path)
    found = compare(hashes, max_bits=max_bits, min_share=min_share, before=before)
    if found != before:
        content = {
            "version": VERSION, "max_bits": max_bits, "min_share": min_share, "digests": found.digests,
            "similar": found.similar,
        }
        write_json(path, content, indent=None)
    return found.similar


def remembered_both_sides(
    pairs: pd.DataFrame, frames: pd.DataFrame, *, max_bits: int, min_share: float, memory: Path
) -> pd.DataFrame:
    """Return the leaks of `find_both_sides`, and remember them by their pairs and the hashes of these.

    Args:
        pairs: As there.
        frames: With the columns clip_id and hashes of FRAMES.
        max_bits: As there.
        min_share: As there.
        memory: Folder of the memory.

    Raises:
        OSError: the disk does not take the memory.
    """
    paired = frames.loc[is_among(frames["clip_id"], pairs["clip_id"]), ["clip_id", "hashes"]]
    path, key = memory / BOTH_SIDES_FILE, _key_of(pairs, paired, max_bits=max_bits, min_share=min_share)
    known = read_memory(path, version=VERSION)
    if known.get("key") == key:
        with suppress(KeyError, TypeError, ValueError):
            rows = pd.DataFrame(known["rows"], columns=BOTH_SIDES.names)
            return rows.astype({"same_caption": bool, "same_frames": bool})
    found = find_both_sides(pairs, hashes_of(paired), max_bits=max_bits, min_share=min_share)
    kept = [[row[name] for name in BOTH_SIDES.names] for row in found.to_dict("records")]
    write_json(path, {"version": VERSION, "key": key, "rows": kept}, indent=None)
    return found


def _key_of(pairs: pd.DataFrame, paired: pd.DataFrame, *, max_bits: int, min_share: float) -> str:
    """Return a digest of all that the leaks depend on."""
    found = hashlib.sha256(f"{max_bits} {min_share!r}".encode())
    for name in ("clip_id", "caption", "split"):
        found.update("\0".join(map(str, pairs[name].tolist())).encode())
    clip_ids = paired["clip_id"].tolist()
    order = sorted(range(len(clip_ids)), key=clip_ids.__getitem__)
    values, sizes = joined_hashes(paired["hashes"], order)
    found.update("\0".join([clip_ids[row] for row in order]).encode())
    found.update(sizes.tobytes())
    found.update(values.tobytes())
    return found.hexdigest()


def _read_comparison(path: Path) -> Comparison | None:
    content = read_memory(path, version=VERSION)
    with suppress(KeyError, TypeError, ValueError, AttributeError):
        similar = [(str(a), str(b)) for a, b in content["similar"]]
        digests = {str(key): str(digest) for key, digest in content["digests"].items()}
        return Comparison(int(content["max_bits"]), float(content["min_share"]), digests, similar)
    return None
