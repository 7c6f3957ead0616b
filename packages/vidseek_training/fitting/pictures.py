"""Pictures of a training: its curves, what resembles what, and what the queries find."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vidseek_training.dataset.pair_set import PairSet
from vidseek_training.evaluation.retrieval_metrics import Vectors

matplotlib.use("Agg")
Matrix = NDArray[np.float32]
_RIGHT, _WRONG = "#2a9d4a", "#b8b8b8"


def draw_curves(curves: list[dict[str, float]], path: Path) -> None:
    """Loss, and recall on the validation gallery, by step."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = [row["step"] for row in curves]
    left.plot(steps, [row["loss"] for row in curves], marker="o")
    left.set(title="training loss", xlabel="step")
    for name in ("r1", "r5", "r10"):
        if f"validation_{name}" in curves[0]:
            right.plot(steps, [row[f"validation_{name}"] for row in curves], marker="o", label=f"R@{name[1:]}")
    right.set(title="validation, text to video", xlabel="step", ylim=(0, 1))
    right.legend()
    figure.savefig(path, dpi=100)


def draw_similarity(texts: Matrix, videos: Matrix, path: Path, *, most: int = 60) -> None:
    """Cosines of the first captions (rows) and clips (columns); a good model has a bright diagonal."""
    figure = Figure(figsize=(5, 4.2), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(texts[:most] @ videos[:most].T, cmap="magma", vmin=-0.2, vmax=1)
    axes.set(title="cosine of captions and clips", xlabel="clip", ylabel="caption")
    figure.colorbar(picture)
    figure.savefig(path, dpi=100)


def draw_retrieval(pairs: PairSet, texts: Matrix, videos: Matrix, path: Path, *, queries: int = 6, top: int = 5) -> None:
    """For some captions their best clips (first, middle and last frame); the right one is framed in green."""
    queries = min(queries, len(pairs))
    picks = np.linspace(0, len(pairs) - 1, queries).astype(int)
    order = np.argsort(-(texts[picks] @ videos.T), axis=1, kind="stable")[:, :top]
    figure = Figure(figsize=(3 * top, 1.6 * queries), layout="constrained")
    grid = figure.subplots(queries, top, squeeze=False)
    for row, pick in enumerate(picks):
        for column in range(top):
            axes = grid[row][column]
            axes.set(xticks=[], yticks=[])
            if column >= order.shape[1]:
                continue
            found = order[row, column]
            frames = pairs.frames[found]
            axes.imshow(np.concatenate([frames[0], frames[len(frames) // 2], frames[-1]], axis=1))
            for spine in axes.spines.values():
                spine.set(color=_RIGHT if found == pick else _WRONG, linewidth=4 if found == pick else 1)
        grid[row][0].set_title(pairs.captions[pick], fontsize=9, loc="left")
    figure.savefig(path, dpi=70)


def draw_map(sides: dict[str, Vectors], path: Path) -> None:
    """Clips and captions in the plane of the largest spread of both (principal components), before and after.

    Where the two clouds lie apart there is a modality gap; lines join some pairs.
    """
    figure = Figure(figsize=(4.5 * len(sides), 4.2), layout="constrained")
    axes = figure.subplots(1, len(sides), squeeze=False)[0]
    for each, (title, vectors) in zip(axes, sides.items(), strict=True):
        videos, texts = on_a_plane(vectors)
        for pick in np.linspace(0, len(videos) - 1, min(len(videos), 40)).astype(int):
            each.plot(*zip(videos[pick], texts[pick], strict=True), color=_WRONG, linewidth=0.5)
        each.scatter(*videos.T, s=10, label="clips")
        each.scatter(*texts.T, s=10, marker="^", label="captions")
        each.set(title=title, xticks=[], yticks=[])
    axes[0].legend()
    figure.savefig(path, dpi=100)


def on_a_plane(vectors: Vectors) -> tuple[Matrix, Matrix]:
    """Clips and captions by the first two principal components of both together, each (n, 2)."""
    both = np.concatenate([vectors.videos, vectors.texts])
    centred = both - both.mean(0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    flat = centred @ directions[:2].T
    return flat[: len(vectors.videos)], flat[len(vectors.videos) :]
