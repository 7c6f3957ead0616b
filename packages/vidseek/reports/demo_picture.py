"""Draws searches and their results for the README: a few frames of the best moments of each query."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from vidseek.archive import Archive, open_text_searcher
from vidseek.reports.demo_result import is_right, test_queries
from vidseek_media.decoding.frames import bin_centres, decode_at

matplotlib.use("Agg")
_RIGHT, _OTHER = "#2a9d4a", "#c8c8c8"
_NUM_QUERIES, _NUM_HITS, _NUM_FRAMES = 4, 3, 4


def draw_searches(out: Path) -> None:
    """Draw test queries of the demo archive with their first moments; right ones have a green frame.

    Args:
        out: The file to write.
    """
    archive = Archive.here()
    source = archive.require_source()
    searcher = open_text_searcher(archive)
    figure = Figure(figsize=(3.6 * _NUM_HITS, 1.5 * _NUM_QUERIES), layout="constrained")
    grid = figure.subplots(_NUM_QUERIES, _NUM_HITS)
    for row, query in enumerate(test_queries(archive, count=_NUM_QUERIES)):
        answer = searcher.search_text(query["caption"], limit=_NUM_HITS)
        for axes, hit in zip(grid[row], answer.hits, strict=True):
            times = bin_centres(hit.start_ms, hit.end_ms, _NUM_FRAMES)
            frames = [frame for _, frame in decode_at(source.path_of(hit.uri), times)]
            axes.imshow(np.concatenate(frames, axis=1))
            axes.set(xticks=[], yticks=[])
            axes.set_xlabel(
                f"{hit.score:.2f}   {Path(hit.uri).stem}  {hit.start_ms / 1000:.1f} - {hit.end_ms / 1000:.1f} s", fontsize=7
            )
            right = is_right(hit, query)
            for spine in axes.spines.values():
                spine.set(color=_RIGHT if right else _OTHER, linewidth=4 if right else 1)
        grid[row][0].set_title(query["caption"], fontsize=9, loc="left")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=80)
