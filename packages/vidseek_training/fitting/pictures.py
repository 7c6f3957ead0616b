"""Draws plots of a training: curves, similarities, and the results of queries."""

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
_WIDTH, _DPI = 4.8, 130
"""Inches, so that letters stay legible on a narrow screen too."""


def draw_curves(curves: list[dict[str, float]], path: Path) -> None:
    """Plot loss and validation recall by step.

    Args:
        curves: Values of each logged step.
        path: The PNG file to write.
    """
    figure = Figure(figsize=(_WIDTH, 5.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    steps = [row["step"] for row in curves]
    upper.plot(steps, [row["loss"] for row in curves], marker="o")
    upper.set(title="Loss on the training pairs", ylabel="mean loss since the last point", ylim=(0, None))
    for name in ("r1", "r5", "r10"):
        if f"validation_{name}" in curves[0]:
            shares = [100 * row[f"validation_{name}"] for row in curves]
            among = "first" if name == "r1" else f"among the first {name[1:]}"
            lower.plot(steps, shares, marker="o", label=f"{among} (R@{name[1:]})")
    lower.set(title="Validation captions whose right clip comes", xlabel="training step",
              ylabel="validation captions, in %", ylim=(0, 103))
    if lower.lines:
        lower.legend(loc="lower right")
    figure.savefig(path, dpi=_DPI)


def draw_similarity(texts: Matrix, videos: Matrix, path: Path) -> None:
    """Plot the cosines of the first 60 captions (rows) and clips (columns); a good model has a bright diagonal.

    Args:
        texts: Unit rows (n, dimension).
        videos: Unit rows (n, dimension).
        path: The PNG file to write.
    """
    figure = Figure(figsize=(5, 4.2), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(texts[:60] @ videos[:60].T, cmap="magma", vmin=-0.2, vmax=1)
    axes.set(title="Validation captions against clips", xlabel="clip, by number", ylabel="caption, by number")
    figure.colorbar(picture, label="cosine of caption and clip")
    figure.savefig(path, dpi=_DPI)


def draw_retrieval(pairs: PairSet, texts: Matrix, videos: Matrix, path: Path) -> None:
    """Draw the five best clips of six captions (first, middle and last frame); the right clip has a green frame.

    Args:
        pairs: The pairs.
        texts: Unit rows (n, dimension) of their captions.
        videos: Unit rows (n, dimension) of their clips.
        path: The PNG file to write.
    """
    queries, top = min(6, len(pairs)), 5
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
        # Dollars are no mathematics here.
        grid[row][0].set_title(pairs.captions[pick].replace("$", r"\$"), fontsize=9, loc="left")
    figure.suptitle("A row: a caption, then its nearest clips; the right clip is framed in green", fontsize=10)
    figure.savefig(path, dpi=70)


def draw_map(sides: dict[str, Vectors], path: Path) -> None:
    """Plot clips and captions in the plane of their two principal components, before and after training.

    Two separate clouds show a modality gap. Lines join some pairs.

    Args:
        sides: Vectors by label.
        path: The PNG file to write.
    """
    figure = Figure(figsize=(_WIDTH, 4.0 * len(sides)), layout="constrained")
    axes = figure.subplots(len(sides), 1, squeeze=False)[:, 0]
    for each, (title, vectors) in zip(axes, sides.items(), strict=True):
        videos, texts = on_a_plane(vectors)
        for pick in np.linspace(0, len(videos) - 1, min(len(videos), 40)).astype(int):
            each.plot(*zip(videos[pick], texts[pick], strict=True), color=_WRONG, linewidth=0.5)
        each.scatter(*videos.T, s=10, label="clips")
        each.scatter(*texts.T, s=10, marker="^", label="captions")
        each.set(title=title.capitalize(), xticks=[], yticks=[], xlabel="first principal component (no unit)",
                 ylabel="second principal component (no unit)")
    axes[0].legend()
    figure.savefig(path, dpi=_DPI)


def on_a_plane(vectors: Vectors) -> tuple[Matrix, Matrix]:
    """Project clips and captions on the first two principal components of both together, each (n, 2)."""
    both = np.concatenate([vectors.videos, vectors.texts])
    centred = both - both.mean(0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    flat = centred @ directions[:2].T
    return flat[: len(vectors.videos)], flat[len(vectors.videos) :]
