"""Stores people's decisions about near-duplicates: accepted rows, which `publish` reads, and pairs found to be different.

Two people may decide at once. A decision names the revision it is based on, and is refused if that is outdated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection as Several
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vidseek_media.errors import ArtifactError, InputRejected, foreign
from vidseek_media.files.appending import locked

if TYPE_CHECKING:
    from vidseek_retrieval.dedup.video_matches import Duplicate

ACCEPTED_TABLE = "duplicates.parquet"
REFUSED_TABLE = "not_duplicates.parquet"

Pair = tuple[str, str]


class DecisionsChanged(InputRejected):
    """Somebody else has decided meanwhile."""

    category = "decisions_changed"
    code = "decisions-changed"


@dataclass(frozen=True)
class Decisions:
    """All that was decided so far."""

    accepted: tuple[Duplicate, ...]
    refused: frozenset[Pair]
    revision: str
    """Changes with every change of the two."""


def pair_of(row: Duplicate) -> Pair:
    """Return the two videos of a row, the smaller id first."""
    one, other = sorted((row.video_id, row.duplicate_of))
    return one, other


def key_of(row: Duplicate) -> str:
    """Return the key of a row: its video, its span, and the video that it duplicates."""
    return f"{row.video_id}:{row.start_ms}:{row.end_ms}:{row.duplicate_of}"


def read_decisions(folder: Path) -> Decisions:
    """Read the decisions; missing tables give none.

    Args:
        folder: Folder of the two tables.

    Raises:
        ArtifactError: a table is broken.
    """
    from vidseek_media.tables import NOT_DUPLICATES, read_table  # pandas and a decoder: the service starts without them
    from vidseek_retrieval.dedup.video_matches import read_duplicates

    accepted, refused = folder / ACCEPTED_TABLE, folder / REFUSED_TABLE
    pairs = read_table(refused, NOT_DUPLICATES).itertuples(index=False) if refused.exists() else ()
    return Decisions(
        tuple(read_duplicates(accepted)), frozenset((str(one), str(other)) for one, other in pairs),
        _revision(accepted, refused),
    )


def without_refused(rows: Sequence[Duplicate], decisions: Decisions) -> list[Duplicate]:
    """Remove the rows whose two videos were found to be different.

    Args:
        rows: Duplicates that were found.
        decisions: What people decided so far.
    """
    return [row for row in rows if pair_of(row) not in decisions.refused]


def decide_rows(
    folder: Path, *, revision: str, found: Sequence[Duplicate], accept: Several[str], refuse: Several[str]
) -> Decisions:
    """Record which rows are duplicates and which are not, and return all decisions.

    Earlier decisions about other rows stay. Refusing a row refuses its two videos for every span that is found later.

    Args:
        folder: Folder of the two tables.
        revision: Revision of the decisions that these are based on.
        found: The rows that the keys refer to.
        accept: Keys of rows that are duplicates.
        refuse: Keys of rows that are not.

    Raises:
        DecisionsChanged: the revision is outdated.
        InputRejected: a key is of no row, or is both accepted and refused.
        ArtifactError: a table is broken.
        OSError: the disk cannot hold it.
    """
    from vidseek_media.tables import NOT_DUPLICATES, write_table
    from vidseek_retrieval.dedup.video_matches import write_duplicates

    by_key = {key_of(row): row for row in found}
    unknown = sorted({*accept, *refuse} - by_key.keys())
    if unknown or set(accept) & set(refuse):
        raise InputRejected(
            f"{unknown[0]!r} is no near-duplicate that was found" if unknown else "a row is both accepted and refused",
            code="bad-decision",
            remedy="Look at the list again",
        )
    with deciding(folder):
        before = read_decisions(folder)
        if before.revision != revision:
            raise DecisionsChanged(
                "somebody else has decided about duplicates meanwhile", remedy="Look at the list again, then apply"
            )
        refused = (before.refused | {pair_of(by_key[key]) for key in refuse}) - {pair_of(by_key[key]) for key in accept}
        rows = {key_of(row): row for row in before.accepted} | {key: by_key[key] for key in accept}
        kept = [row for row in rows.values() if pair_of(row) not in refused]
        write_table(
            folder / REFUSED_TABLE, [{"video_id": one, "other_id": other} for one, other in sorted(refused)], NOT_DUPLICATES,
            sync=True,
        )
        write_duplicates(folder / ACCEPTED_TABLE, sorted(kept, key=key_of))
        return read_decisions(folder)


def _revision(*files: Path) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes() if file.exists() else b"absent")
    return digest.hexdigest()[:16]


@contextmanager
def deciding(folder: Path) -> Iterator[None]:
    """Hold the lock of the folder of decisions; read, change and write its tables inside this block.

    Args:
        folder: Folder of the two tables.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    with ExitStack() as stack:
        with foreign(ArtifactError, f"{folder} cannot be written", code="not-writable", remedy="Mend its rights"):
            stack.enter_context(locked(folder))
        yield
