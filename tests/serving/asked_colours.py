"""A colour archive with a calibration whose reference are queries of three colours, and queries of that world or another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.serving.colours import VERSION, publish_colours
from tests.tiny_bundle import write_tiny_bundle
from vidseek.archive import Archive
from vidseek_encoder.encoder import Encoder
from vidseek_retrieval.confidence.calibration import Calibration
from vidseek_retrieval.confidence.familiarity import Familiarity
from vidseek_retrieval.confidence.query_stats import QuerySample
from vidseek_retrieval.search.searcher import Searcher

OWN, OTHER = ("red", "green", "blue"), ("white", "cat", "white", "dog")


def queries(num: int, *, seed: int, words: tuple[str, ...] = OWN) -> list[str]:
    """Of one to four of `words` each."""
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(words, random.integers(1, 5))) for _ in range(num)]


def write_calibrated_archive(root: Path, *, num_reference: int = 400) -> Archive:
    """Bundle and index, with `num_reference` held-out queries of three colours."""
    write_tiny_bundle(root / "models" / "encoder")
    encoder = Encoder.load(root / "models" / "encoder", threads=1, towers=["text"])
    learned = queries(200, seed=0)
    bare = Calibration(
        VERSION, 4.0, (-4.0, 0.1, 0.1), 2.0, 0.1, num_reference,
        familiarity=Familiarity.of(learned, encoder.embed_texts(learned)),
    )
    publish_colours(root, calibration=bare)
    searcher = Searcher.open(root / "index", encoder)
    seen = [searcher.search_text(text).query_stats for text in queries(num_reference, seed=1)]
    publish_colours(root, calibration=replace(bare, reference=QuerySample.of([each for each in seen if each])))
    return Archive(root)
