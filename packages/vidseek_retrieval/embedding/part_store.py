"""Keeps vectors in parts by what they were embedded from: a run computes what is missing and copies the rest.

A run writes new parts beside the old ones, then the list in `embeddings.json`, then removes parts that it does not list. Who
reads, reads listed parts alone; so a run that ends anywhere leaves the table as it was, or the new one.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidseek_media.errors import ArtifactError
from vidseek_media.files.json_files import read_json, write_json
from vidseek_media.frame_store.compaction import choose
from vidseek_retrieval.embedding.embedding_parts import (
    SUMMARY_FILE,
    listed_parts,
    read_digests,
    read_rows,
    remove_stale,
    write_part,
)

PART_ROWS = 4096
"""Most rows of a part: what is rewritten when one of its clips is removed."""
PIECE_ROWS = 256
"""Rows that are embedded between two writes: what a run that is killed loses."""

Row = tuple[str, str]
"""Id of a clip or text, and the digest of what is embedded."""


@dataclass(frozen=True)
class Space:
    """The vectors that count: all others are of another encoder."""

    encoder_version: str
    variant: str
    dimension: int


@dataclass(frozen=True)
class _Place:
    part: Path
    row: int


class PartStore:
    """The parts of one folder that are of one space, as they are now.

    Args:
        folder: Folder of the parts; `embeddings.json` lies beside it.
        space: Of the vectors that count.
    """

    def __init__(self, folder: Path, space: Space) -> None:
        self.folder = folder
        self.space = space
        self._rows: dict[Path, list[Row]] = {}
        for part in sorted(folder.glob("*.parquet")):
            self.note(part)

    def note(self, part: Path) -> None:
        """Take a part up, if it is whole and of this space."""
        try:
            table = read_digests(part)
        except ArtifactError:
            return
        of = [table[name].unique().to_pylist() for name in ("encoder_version", "variant")]
        if of == [[self.space.encoder_version], [self.space.variant]]:
            self._rows[part] = list(zip(table["clip_id"].to_pylist(), table["digest"].to_pylist(), strict=True))

    def missing(self, wanted: Iterable[Row]) -> list[Row]:
        """Return one row for each digest that no part has a vector of, in order."""
        known = {digest for rows in self._rows.values() for _, digest in rows if digest}
        found: dict[str, Row] = {}
        for row in wanted:
            if row[1] not in known:
                found.setdefault(row[1], row)
        return list(found.values())

    def path_of(self, rows: Sequence[Row]) -> Path:
        """Return the path of the part that holds these rows: equal rows of one space have equal names."""
        space = f"{self.space.encoder_version}:{self.space.variant}"
        named = hashlib.sha256(space.encode())
        for row in rows:
            named.update(f"\n{row[0]} {row[1]}".encode())
        return self.folder / f"{named.hexdigest()[:16]}.parquet"

    def write(self, rows: Sequence[Row], vectors: NDArray[np.float32]) -> Path:
        """Write a part of these rows, whole or not at all, and take it up.

        Raises:
            OSError: the disk cannot hold it.
        """
        path = self.path_of(rows)
        write_part(
            path, clip_ids=[row[0] for row in rows], vectors=vectors, digests=[row[1] for row in rows],
            encoder_version=self.space.encoder_version, variant=self.space.variant,
        )
        self.note(path)
        return path

    def commit(self, wanted: Sequence[Row]) -> dict[str, int]:
        """Make the table hold just these rows, and return the number of rows of each part by file name.

        Parts that hold nothing else stay as they are. The rows of others, of several that are new, and of too many small
        ones are copied.

        Args:
            wanted: The rows; each digest has a vector, and each id occurs once.

        Raises:
            ArtifactError: a part is broken.
            OSError: the disk cannot hold it.
        """
        distinct = set(wanted)
        kept = self._kept(distinct)
        if sum(len(self._rows[part]) for part in kept) < len(distinct):  # theirs are wanted, and each is in one of them
            distinct.difference_update(*(self._rows[part] for part in kept))
            written = [self.write(*piece) for piece in self._copied([row for row in wanted if row in distinct])]
        else:
            written = []
        names = {part.name: len(self._rows[part]) for part in sorted({*kept, *written})}
        write_summary(self.folder, self.space, names)
        remove_stale(self.folder, keep={self.folder / name for name in names})
        self._rows = {part: rows for part, rows in self._rows.items() if part.name in names}
        return names

    def _places_of(self, wanted: Set[str]) -> Mapping[str, _Place]:
        """Return where the vector of each of these digests lies."""
        places: dict[str, _Place] = {}
        for part, rows in self._rows.items():
            for number, (_, digest) in enumerate(rows):
                if digest in wanted:
                    places.setdefault(digest, _Place(part, number))
        return places

    def _kept(self, wanted: set[Row]) -> list[Path]:
        """Return the parts that stay as they are: of wanted rows alone, none of them twice, and not too many small ones."""
        held: set[Row] = set()
        clean, unwanted = [], set()
        for part, rows in sorted(self._rows.items(), key=lambda each: (-len(each[1]), each[0])):
            if rows and len(set(rows)) == len(rows) and wanted.issuperset(rows) and held.isdisjoint(rows):
                held.update(rows)
                clean.append(part)
        listed = listed_parts(self.folder) or {}
        new = [part for part in clean if part.name not in listed]
        if len(new) > 1:
            unwanted = {part.name for part in new if len(self._rows[part]) < PART_ROWS}
        sizes = {part.name: (len(self._rows[part]),) * 2 for part in clean}
        moved = choose(sizes, most_bytes=PART_ROWS, unwanted=unwanted)
        return [part for part in clean if part.name not in moved]

    def _copied(self, rows: Sequence[Row]) -> Iterator[tuple[list[Row], NDArray[np.float32]]]:
        """Yield rows with their vectors, a part of them at a time, in order of where they lie."""
        by_part: dict[Path, list[tuple[int, Row]]] = defaultdict(list)
        places = self._places_of({digest for _, digest in rows})
        for row in rows:
            place = places[row[1]]
            by_part[place.part].append((place.row, row))
        waiting: list[Row] = []
        vectors = np.empty((0, self.space.dimension), np.float32)
        for part in sorted(by_part):
            placed = sorted(by_part[part])
            waiting += [row for _, row in placed]
            vectors = np.concatenate([vectors, read_rows(part, [number for number, _ in placed])])
            while len(waiting) >= PART_ROWS:
                yield waiting[:PART_ROWS], vectors[:PART_ROWS]
                waiting, vectors = waiting[PART_ROWS:], vectors[PART_ROWS:]
        if waiting:
            yield waiting, vectors


def write_summary(folder: Path, space: Space, parts: Mapping[str, int]) -> None:
    """Write the list of the parts of a folder into `embeddings.json` beside it, whole or not at all.

    Args:
        folder: Folder of the parts: `parts` of clips, or `texts`.
        space: Of their vectors.
        parts: Number of rows of each part by file name.

    Raises:
        OSError: the disk cannot hold it.
    """
    path = folder.parent / SUMMARY_FILE
    try:
        before = read_json(path)
    except (OSError, ValueError):
        before = {}
    content = {name: value for name, value in before.items() if name in ("num_clips", "parts", "texts")}
    content |= {"encoder_version": space.encoder_version, "variant": space.variant, "dimension": space.dimension}
    content[folder.name] = dict(parts)
    if "parts" in content:  # a list of an earlier version counts its clips, and does not name their parts
        content["num_clips"] = sum(content["parts"].values())
    write_json(path, content, sort_keys=True)
