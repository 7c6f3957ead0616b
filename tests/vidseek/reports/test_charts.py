"""Charts of the report: shapes lie inside the drawing, and ticks are round numbers that cover them."""

from __future__ import annotations

import math

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from vidseek.reports.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, _ticks, histogram, reliability


@given(st.lists(st.floats(0, 1e7), min_size=1, max_size=60))
def test_histogram__holds_every_value_once_inside_the_axes(values: list[float]) -> None:
    chart = histogram(pd.Series(values), title="t", x_label="x", y_label="y", unit="s")
    assert chart is not None
    assert all(LEFT <= bar.x <= bar.x + bar.width <= WIDTH - RIGHT for bar in chart.bars)
    assert all(bar.y >= TOP - 1e-6 and bar.y + bar.height <= HEIGHT - BOTTOM + 1e-6 for bar in chart.bars)
    # A unit of height, by the ticks.
    zero, top = chart.y_ticks[0], chart.y_ticks[-1]
    assert zero.text == "0"
    a_unit = (zero.at - top.at) / float(top.text.replace(",", ""))
    assert math.isclose(sum(bar.height for bar in chart.bars) / a_unit, len(values), rel_tol=1e-6)


def test_histogram__of_nothing_is_none() -> None:
    assert histogram(pd.Series([], dtype=float), title="t", x_label="x", y_label="y", unit="s") is None


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks__cover_the_range_with_few_round_steps(low: float, span: float) -> None:
    found = _ticks(low, low + span)
    step = found[1] - found[0]
    assert found[0] <= low + step * 1e-3 and found[-1] >= low + span - step * 1e-3 and 2 <= len(found) <= 8
    digits = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert any(math.isclose(digits, wanted, rel_tol=1e-3) for wanted in (1, 2, 5, 10))


def test_reliability__what_is_well_calibrated_lies_on_the_diagonal() -> None:
    chart = reliability([{"confidence": share, "right": share, "num": 10} for share in (0.0, 0.5, 1.0)])
    ends = [(dot.x, dot.y) for dot in chart.dots]
    assert ends[0] == (LEFT, HEIGHT - BOTTOM) and ends[-1] == (WIDTH - RIGHT, TOP)
    assert chart.has_diagonal and "50 %" in chart.dots[1].title
