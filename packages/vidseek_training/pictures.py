"""Pictures of a training: its curves, what resembles what, and what the queries find."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vidseek_training.data import PairSet

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
