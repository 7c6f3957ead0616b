"""Finds which part of the pictures of one video which part of another's shows: crops, borders, and squeezed pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vidseek_retrieval.dedup.comparing.fingerprints import Rectangle, Values, features_of, unit

INSETS = ((0.05, 0.05), (0.1, 0.1), (0.1, 0.0), (0.2, 0.0), (0.0, 0.1), (0.0, 0.2))
"""Of the height and the width, at each side; what lies between is found from there."""
MIN_AREA = 0.45
"""Of each picture, that the common part has."""
_STEPS = (0.04, 0.02, 0.01)
_SCALES = (0.55, 1.8)


@dataclass(frozen=True)
class View:
    """A part of one video's pictures that shows what a part of another's does."""

    mine: Rectangle
    theirs: Rectangle
    is_mirrored: bool
    """Whether the other's pictures are."""


@dataclass(frozen=True)
class _Map:
    """From places in one picture to places in the other: `place * scale + shift`, down and across."""

    down: float = 1.0
    down_shift: float = 0.0
    across: float = 1.0
    across_shift: float = 0.0


def register(mine: Values, theirs: Values, view: View) -> tuple[View, float]:
    """Return the view near another under which pairs of pictures are most alike, and how much, -1 to 1.

    Args:
        mine: Pictures of one video, shape (n, SIDE, SIDE).
        theirs: The pictures of the other that they are compared with.
        view: Where to begin.
    """
    best = _map_of(view)
    (value, chosen), = _alike(mine, theirs, [best], view)
    for step in _STEPS:
        improved = True
        while improved:
            improved = False
            near = list(_near(best, step))
            for each, (tried, found) in zip(near, _alike(mine, theirs, near, view), strict=True):
                if tried > value + 1e-4:
                    best, value, chosen, improved = each, tried, found, True
    return chosen, value


def _map_of(view: View) -> _Map:
    mine, theirs = view.mine, view.theirs
    down = (theirs.bottom - theirs.top) / (mine.bottom - mine.top)
    across = (theirs.right - theirs.left) / (mine.right - mine.left)
    left = 1 - theirs.right if view.is_mirrored else theirs.left
    return _Map(down, theirs.top - down * mine.top, across, left - across * mine.left)


def _near(best: _Map, step: float) -> Iterator[_Map]:
    for sign in (-step, step):
        # Larger or smaller about the middle, and moved.
        yield replace(best, down=best.down + sign, down_shift=best.down_shift - sign / 2)
        yield replace(best, across=best.across + sign, across_shift=best.across_shift - sign / 2)
        yield replace(best, down=best.down + sign, down_shift=best.down_shift - sign / 2,
                      across=best.across + sign, across_shift=best.across_shift - sign / 2)
        yield replace(best, down_shift=best.down_shift + sign)
        yield replace(best, across_shift=best.across_shift + sign)


def _alike(mine: Values, theirs: Values, maps: Sequence[_Map], view: View) -> list[tuple[float, View]]:
    """How alike the pictures are under each mapping, and the view that it is."""
    views = [_view_of(each, view.is_mirrored) for each in maps]
    found = [each for each in views if each is not None]
    if not found:
        return [(-1.0, view)] * len(maps)
    left = unit(features_of(mine, [each.mine for each in found]), least=1.0)
    right = unit(features_of(theirs, [each.theirs for each in found], is_mirrored=view.is_mirrored), least=1.0)
    values = iter(np.einsum("kij,kij->ki", left, right).mean(axis=1).tolist())
    return [(-1.0, view) if each is None else (next(values), each) for each in views]


def _view_of(by: _Map, is_mirrored: bool) -> View | None:
    """What both pictures show, by a mapping; None where it is too little."""
    if not all(_SCALES[0] <= scale <= _SCALES[1] for scale in (by.down, by.across)):
        return None
    top, bottom = max(0.0, -by.down_shift / by.down), min(1.0, (1 - by.down_shift) / by.down)
    left, right = max(0.0, -by.across_shift / by.across), min(1.0, (1 - by.across_shift) / by.across)
    if bottom - top <= 0.1 or right - left <= 0.1:
        return None
    mine = Rectangle(top, bottom, left, right)
    ends = (left * by.across + by.across_shift, right * by.across + by.across_shift)
    theirs = Rectangle(
        top * by.down + by.down_shift, bottom * by.down + by.down_shift,
        *((1 - ends[1], 1 - ends[0]) if is_mirrored else ends),
    )
    return View(mine, theirs, is_mirrored) if min(mine.area, theirs.area) >= MIN_AREA else None
