"""Which pairs are new, changed or gone since an adapter was trained, or since the training set was frozen."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from vidseek_media.errors import ArtifactError
from vidseek_media.files.json_files import read_json
from vidseek_media.tables import PAIRS, read_table
from vidseek_media.text.written_captions import WRITER
from vidseek_training.dataset.judgements import JUDGED

TRAINED_ON = "pairs.parquet"
"""In an adapter's folder: the pairs table that it was trained on."""

OUTCOME = "outcome.json"
"""In an adapter's folder: what became of its training."""
_KEY = ["clip_id", "caption"]
_WRITER = "writer"
"""It teaches nothing: a table of an earlier version, which names none, is no other training set."""


@dataclass(frozen=True)
class PairChanges:
    """How two tables of pairs differ. A pair is a clip and a caption."""

    num_pairs: int
    """Of the later table."""
    num_new: int
    num_changed: int
    """In another split or gallery, with another contrast, or with other frames."""
    num_gone: int
    num_new_by_people: int = 0
    """Of the new ones, captions that people wrote in this archive."""
    num_new_judged: int = 0
    """Of the new ones, hits that people confirmed."""
    num_new_refused: int = 0
    """Contrasts that people gave by refusing a hit, and that no pair had before."""

    @property
    def num_all(self) -> int:
        """Pairs that are new, changed or gone."""
        return self.num_new + self.num_changed + self.num_gone

    def __str__(self) -> str:
        by_people = [
            f"{num} {what}" for num, what in (
                (self.num_new_by_people, "captions written here"), (self.num_new_judged, "confirmed hits"),
                (self.num_new_refused, "refused hits as contrasts"),
            ) if num
        ]
        told = f"{self.num_new} new, {self.num_changed} changed, {self.num_gone} gone of {self.num_pairs} pairs"
        return f"{told} (of people: {', '.join(by_people)})" if by_people else told


def compare_pairs(earlier: pd.DataFrame, later: pd.DataFrame) -> PairChanges:
    """Return what changed from `earlier` to `later`, both of the schema PAIRS. The order of rows does not count."""
    before, now = _values(earlier), _values(later)
    shared = before.keys() & now.keys()
    writers = _writers(later)
    new = [writers[key] for key in now.keys() - shared]
    return PairChanges(
        num_new_by_people=new.count(WRITER), num_new_judged=new.count(JUDGED),
        num_new_refused=len(_refused(later) - _refused(earlier)),
        num_pairs=len(later), num_new=len(now.keys() - shared), num_gone=len(before.keys() - shared),
        num_changed=sum(before[key] != now[key] for key in shared),
    )


def changes_since(adapter: Path, pairs: Path) -> PairChanges | None:
    """Return what changed since the adapter in the folder `adapter` was trained; None where it does not tell.

    It does not tell where there is no adapter, or where an earlier version trained it.

    Raises:
        ArtifactError: the pairs table is missing or broken.
    """
    try:
        earlier = read_table(adapter / TRAINED_ON, PAIRS)
    except ArtifactError:
        return None
    return compare_pairs(earlier, read_table(pairs, PAIRS))


def lasting_changes(adapter: Path, changes: PairChanges | None) -> dict[str, int]:
    """Return the changes since the last adapter of other pairs: where nothing changed, those that `adapter` was trained for.

    So a training that is run again on its own pairs says the same as before.

    Args:
        adapter: Folder of the adapter that is there; it may be missing.
        changes: What changed since, by `changes_since`.
    """
    if changes is None:
        return {}
    if changes.num_all:
        return asdict(changes)
    try:
        before = read_json(adapter / OUTCOME)["changes"]
        return {str(name): int(num) for name, num in before.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def why_trained(changes: PairChanges | None) -> str:
    """Return in a few words why a training runs; `changes` is what `changes_since` said before it."""
    if changes is None:
        return "no adapter is there whose pairs are known"
    if changes.num_all:
        return f"since the adapter that is there: {changes}"
    return f"its {changes.num_pairs} pairs are those of the adapter that is there: settings, groups, base or code changed"


def _values(table: pd.DataFrame) -> dict[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the other columns by clip and caption; a pair in two rows has both."""
    others = [name for name in PAIRS.names if name not in (*_KEY, _WRITER)]
    plain = table.reindex(columns=PAIRS.names).fillna("").astype(str)
    found: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for key, row in zip(
        plain[_KEY].itertuples(index=False, name=None), plain[others].itertuples(index=False, name=None), strict=True
    ):
        found.setdefault(key, []).append(row)
    return {key: sorted(rows) for key, rows in found.items()}


def _writers(table: pd.DataFrame) -> dict[tuple[str, ...], str]:
    """Return who wrote each pair, by clip and caption; empty where nobody says."""
    plain = table.reindex(columns=[*_KEY, _WRITER]).fillna("").astype(str)
    return {(clip_id, caption): writer for clip_id, caption, writer in plain.itertuples(index=False, name=None)}


def _refused(table: pd.DataFrame) -> set[tuple[str, str]]:
    """Return the clips and the texts of contrasts that people gave by refusing a hit."""
    rows = table[table["axis"] == JUDGED]
    return set(zip(rows["clip_id"].tolist(), rows["contrast"].tolist(), strict=True))
