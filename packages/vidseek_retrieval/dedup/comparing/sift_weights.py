"""What makes two videos likely copies, at a first look: written by `python -m bench.searching.near_prior`."""

from __future__ import annotations

from collections.abc import Sequence

WEIGHTS: Sequence[float] = (6.465, 15.529, 2.341, 3.999)
"""Of the score that proposes a pair, and of `sifting.terms_of` it."""
LIMIT = 17.307
"""99% of the copies that were found reach it."""
