"""Clips of the archive as data sets for other programs: with frames, captions, splits, fields and embeddings."""

from __future__ import annotations

from typing import Literal

FormatName = Literal["webdataset", "hf", "fiftyone", "csv"]
SHARD_MIB = 512
"""Size from which a file takes no more clips."""
CUT_WORKERS = 2
"""Processes that cut clips out of their videos."""
