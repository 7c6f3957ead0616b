"""Charts of the report as shapes in a drawing's coordinates; the template draws them as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

WIDTH, HEIGHT = 480, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 10, 46
"""Room around the shapes, for the numbers and names of the axes."""
NUM_BARS = 12


@dataclass(frozen=True)
class Tick:
    """A number on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Dot:
    """A point of a curve."""

    x: float
    y: float
    title: str


@dataclass(frozen=True)
class Chart:
    """A chart with named axes."""

    title: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    note: str
    bars: tuple[Bar, ...] = ()
    dots: tuple[Dot, ...] = ()
    has_diagonal: bool = False


def histogram(values: pd.Series, *, title: str, x_label: str, y_label: str, unit: str) -> Chart | None:
    """Return bars of equal width from the least to the greatest value; None where there is no value.

    Args:
        values: Numbers.
        title: Of the chart.
        x_label: What the numbers are, with their unit.
        y_label: What is counted.
        unit: Of the numbers, for the note.
    """
    values = values.dropna().astype(float)
    if values.empty:
        return None
    low, high = float(values.min()), float(values.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(values, bins=min(NUM_BARS, max(1, values.nunique())), range=(low, high))
    most = _ticks(0, float(counts.max()))
    top = most[-1]
    width = (WIDTH - LEFT - RIGHT) / len(counts)
    bars = tuple(
        Bar(_x(start, low, high) + 1, _y(num, 0, top), width - 2, _y(0, 0, top) - _y(num, 0, top))
        for num, start in zip(counts.tolist(), edges.tolist(), strict=False)
    )
    note = (f"From {_text(float(values.min()))} to {_text(float(values.max()))} {unit}; half are below "
            f"{_text(float(values.median()))} {unit}.")
    return Chart(
        title, x_label, y_label,
        tuple(Tick(_x(each, low, high), _text(each)) for each in _ticks(low, high) if low <= each <= high),
        tuple(Tick(_y(each, 0, top), _text(each)) for each in most), note, bars,
    )


def reliability(bins: Sequence[Mapping[str, float]]) -> Chart:
    """Return the share of hits that is right against the confidence that they were given.

    Args:
        bins: Of hits, each with `confidence`, `right` (0 to 1) and `num`.
    """
    tens = [each / 5 for each in range(6)]
    dots = tuple(
        Dot(_x(each["confidence"], 0, 1), _y(each["right"], 0, 1),
            f"{each['num']:.0f} hits: confidence {100 * each['confidence']:.0f} %, right {100 * each['right']:.0f} %")
        for each in bins
    )
    return Chart(
        "Confidence, and how often it was right", "confidence that hits were given, in %", "hits that were right, in %",
        tuple(Tick(_x(each, 0, 1), f"{100 * each:.0f}") for each in tens),
        tuple(Tick(_y(each, 0, 1), f"{100 * each:.0f}") for each in tens),
        "A dot stands for hits of like confidence. On the dashed line confidence and truth agree; below it "
        "confidence is too high.",
        dots=dots, has_diagonal=True,
    )


def _x(value: float, low: float, high: float) -> float:
    return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)


def _y(value: float, low: float, high: float) -> float:
    return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def _ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers (1, 2 or 5 times a power of ten) that cover `low` to `high`, ascending."""
    span = max(high - low, 1e-9)
    power = 10 ** math.floor(math.log10(span / 4))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * 5 >= span)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def _text(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
