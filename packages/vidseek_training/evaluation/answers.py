"""Pictures of right and wrong answers: some test captions, with the clips that were found for them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vidseek_media.files.json_files import write_json
from vidseek_training.dataset.pair_set import PairSet
from vidseek_training.evaluation.retrieval_metrics import Vectors, judge, one_a_clip

ANSWERS_FOLDER, ANSWERS_FILE = "answers", "answers.json"
NUM_OF_KIND = 3
"""Captions that were answered right, and as many that were not."""
NUM_SHOWN = 3
"""Clips of each; where the right one is not among them, it follows."""
SIDE_PX = 128
QUALITY = 85


@dataclass(frozen=True)
class Answer:
    """A clip that was found."""

    file: str
    """First, middle and last frame beside each other, in the folder of the answers."""
    place: int
    """1 is the first."""
    is_right: bool
    cosine: float


@dataclass(frozen=True)
class Answered:
    """A test caption with the clips that were found for it."""

    caption: str
    gallery: str
    rank: int
    """Place of the right clip."""
    num_clips: int
    """Clips of the gallery."""
    answers: tuple[Answer, ...]


def write_answers(pairs: PairSet, vectors: Vectors, out: Path) -> None:
    """Write answers.json and a folder of JPEG files: right answers, then wrong ones from the nearest miss to the worst.

    Args:
        pairs: The test pairs.
        vectors: Of their captions and clips, row by row.
        out: The folder that gets both; what an earlier run wrote is replaced.
    """
    folder = out / ANSWERS_FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    ranks = judge(vectors, pairs.table).text_ranks
    right, wrong = np.flatnonzero(ranks == 1), np.flatnonzero(ranks > 1)
    wrong = wrong[np.argsort(ranks[wrong], kind="stable")]
    content: dict[str, Any] = {"num_right": len(right), "num_wrong": len(wrong)}
    for name, rows in (("right", right), ("wrong", wrong)):
        content[name] = [asdict(_answered(int(row), pairs, vectors, int(ranks[row]), folder)) for row in _spread(rows)]
    write_json(out / ANSWERS_FILE, content)


def _spread(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return some of the rows, evenly from the first to the last."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(NUM_OF_KIND, len(rows))).astype(int))]


def _answered(row: int, pairs: PairSet, vectors: Vectors, rank: int, folder: Path) -> Answered:
    table = pairs.table
    of_gallery = (table.gallery == table.gallery.iloc[row]).to_numpy()
    clips = np.flatnonzero(of_gallery & one_a_clip(table))
    own = clips[table.clip_id.to_numpy()[clips] == table.clip_id.iloc[row]]
    cosines = vectors.videos[clips] @ vectors.texts[row]
    # The order of the ranks: of two equal cosines the right clip comes last.
    order = clips[np.lexsort((np.isin(clips, own), -cosines))]
    answers = tuple(_answers(row, order, own, rank, pairs, vectors, folder))
    return Answered(str(table.caption.iloc[row]), str(table.gallery.iloc[row]), rank, len(clips), answers)


def _answers(
    row: int, order: NDArray[np.int64], own: NDArray[np.int64], rank: int, pairs: PairSet, vectors: Vectors, folder: Path
) -> Iterator[Answer]:
    places = list(range(min(NUM_SHOWN, len(order))))
    if rank > len(places):
        places.append(rank - 1)
    for place in places:
        clip = int(order[place])
        file = f"{row}-{place + 1}.jpg"
        _write_strip(pairs.frames[clip], folder / file)
        yield Answer(file, place + 1, clip in own, round(float(vectors.videos[clip] @ vectors.texts[row]), 4))


def _write_strip(frames: NDArray[np.uint8], path: Path) -> None:
    strip = np.concatenate([frames[0], frames[len(frames) // 2], frames[-1]], axis=1)
    picture = Image.fromarray(np.ascontiguousarray(strip))
    height = min(SIDE_PX, picture.height)
    picture.resize((picture.width * height // picture.height, height)).save(path, quality=QUALITY)
