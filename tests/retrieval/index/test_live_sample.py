from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from tests.retrieval.archive import VERSION, random_archive
from vidseek_retrieval.index.edge.backend import EdgeBackend
from vidseek_retrieval.index.live_sample import published_sample
from vidseek_retrieval.index.publish import publish


def test_published_sample__is_what_went_live(tmp_path: Path) -> None:
    report = publish(**random_archive(tmp_path), index=tmp_path / "index")
    found = published_sample(EdgeBackend(tmp_path / "index"), "clips", num=50)
    assert found is not None
    assert (found.collection, found.encoder_version) == (report.collection, VERSION)
    collection = EdgeBackend(tmp_path / "index").open(report.collection)
    every = sorted(point.clip_id for point in collection.scroll())
    assert found.sample.clip_ids == tuple(every[:50])
    stored = np.stack([point.vector for point in collection.points(found.sample.clip_ids)])
    assert np.array_equal(found.sample.vectors, stored)


def test_published_sample__of_nothing_or_of_what_is_lost_is_none(tmp_path: Path) -> None:
    backend = EdgeBackend(tmp_path / "index")
    assert published_sample(backend, "clips", num=50) is None
    report = publish(**random_archive(tmp_path), index=tmp_path / "index")
    assert published_sample(backend, "another", num=50) is None
    shutil.rmtree(tmp_path / "index" / report.collection)
    assert published_sample(backend, "clips", num=50) is None
