"""Queries as numbers: kept, compared, refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.raising import raises
from vidseek_media.errors import ArtifactError
from vidseek_retrieval.confidence.calibration import Calibration
from vidseek_retrieval.confidence.query_stats import (
    ACCEPTED_FILE,
    MAX_QUERIES,
    QuerySample,
    QueryStats,
    compare,
    read_sample,
    read_seen,
    reference_of,
    write_sample,
)

VERSION, AXES = "0123456789abcdef", "fedcba9876543210"


def sample(num: int, *, seed: int, shift: float = 0.0, version: str = VERSION, width: int = 6) -> QuerySample:
    rows = np.random.default_rng(seed).normal(shift, size=(num, width)).astype(np.float32)
    return QuerySample(version, AXES if width > 2 else "", rows)


def test_compare__the_same_and_another() -> None:
    reference = sample(600, seed=0)
    steady = compare(reference, sample(400, seed=1))
    assert set(steady.psi) == {"score", "confidence", "query"}
    assert set(steady.levels.values()) == {"steady"} and steady.differs is False and not steady.too_few
    gone = compare(reference, sample(400, seed=1, shift=1.0))
    assert set(gone.levels.values()) == {"act"} and gone.differs is True
    assert compare(reference, sample(400, seed=1), kernel=False).mmd is None


def test_compare__only_the_place_has_gone() -> None:
    observed = sample(400, seed=1)
    observed.rows[:, 2] += 1.5
    found = compare(sample(600, seed=0), observed)
    assert found.levels == {"score": "steady", "confidence": "steady", "query": "act"}


def test_compare__queries_without_a_place() -> None:
    found = compare(sample(600, seed=0, width=2), sample(400, seed=1, width=2))
    assert set(found.psi) == {"score", "confidence"} and found.mmd is None and found.differs is None


def test_compare__too_few_say_so_and_give_no_number() -> None:
    reference = sample(500, seed=0)
    for observed, num in ((None, 0), (sample(187, seed=1, shift=5.0), 187)):
        found = compare(reference, observed)
        assert found.too_few == f"too few queries: {num} seen, 188 needed" and not found.psi and found.mmd is None
    assert not compare(reference, sample(188, seed=1)).too_few
    assert "too few held-out queries: 100" in compare(sample(100, seed=0), sample(1000, seed=1)).too_few


def test_compare__refuses_another_encoder_version_and_other_axes() -> None:
    reference = sample(500, seed=0)
    with raises(ArtifactError, code="other-encoder", naming=("ffff", VERSION)):
        compare(reference, sample(500, seed=1, version="f" * 16))
    with raises(ArtifactError, code="other-encoder"):
        compare(reference, QuerySample(VERSION, "1" * 16, reference.rows))


@pytest.mark.parametrize(("rows", "axes"), [
    (np.full((3, 2), np.nan), ""), (np.ones((3, 1)), ""), (np.ones(3), ""), (np.ones((3, 5)), ""), (np.ones((3, 2)), AXES),
])
def test_sample__refuses_what_it_cannot_mean(rows: np.ndarray, axes: str) -> None:
    with raises(ArtifactError, code="bad-sample"):
        QuerySample(VERSION, axes, rows.astype(np.float32))


def test_sample__keeps_the_last() -> None:
    found = QuerySample.of([QueryStats(VERSION, "", (float(number), 0.0)) for number in range(MAX_QUERIES + 5)])
    assert found is not None and len(found.rows) == MAX_QUERIES and found.rows[0, 0] == 5
    assert QuerySample.of([]) is None


def test_calibration__carries_its_reference() -> None:
    reference = sample(30, seed=0)
    calibration = Calibration(VERSION, 1.0, (0.0,) * 3, 0.0, 0.1, 30, reference=reference)
    again = Calibration.from_json(json.loads(json.dumps(calibration.to_json()))).reference
    assert again is not None and again.to_json() == reference.to_json()
    older = {name: value for name, value in calibration.to_json().items() if name != "reference"}
    assert Calibration.from_json(older).reference is None
    with raises(ArtifactError, code="calibration-broken"):
        Calibration.from_json({**calibration.to_json(), "reference": {**reference.to_json(), "rows": "AAA"}})


def test_files__newest_first_and_only_of_the_space(tmp_path: Path) -> None:
    for age, (name, each) in enumerate([
        ("seen-a-2.json", sample(600, seed=2)), ("seen-a-1.json", sample(600, seed=1)),
        ("seen-a-3.json", sample(9, seed=3, version="f" * 16)),
    ]):
        write_sample(tmp_path / name, each)
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    found = read_seen(tmp_path, encoder_version=VERSION, axes=AXES)
    assert found is not None and len(found.rows) == MAX_QUERIES
    assert (found.rows[:600] == sample(600, seed=2).rows[::-1]).all()  # the newest file whole, its last query first
    assert (found.rows[600:] == sample(600, seed=1).rows[::-1][:400]).all()
    assert read_seen(tmp_path, encoder_version="0" * 16, axes=AXES) is None
    (tmp_path / "seen-a-4.json").write_text('{"rows": "AAAA"}')
    with raises(ArtifactError, code="bad-sample", naming="seen-a-4.json"):
        read_seen(tmp_path, encoder_version=VERSION, axes=AXES)


def test_reference__what_was_accepted_counts_for_its_space_alone(tmp_path: Path) -> None:
    published = sample(20, seed=0)
    assert reference_of(published, tmp_path) is published and read_sample(tmp_path / ACCEPTED_FILE) is None
    write_sample(tmp_path / ACCEPTED_FILE, sample(30, seed=1))
    accepted = reference_of(published, tmp_path)
    assert accepted is not None and len(accepted.rows) == 30
    other = sample(20, seed=0, version="f" * 16)
    assert reference_of(other, tmp_path) is other and reference_of(None, tmp_path) is None
