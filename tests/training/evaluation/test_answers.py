"""Pictures of answers: which captions and clips are shown, and in what order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.tiny import all_colours, write_archive
from vidseek_training import backbones
from vidseek_training.dataset.pair_set import PairSet, load_pairs
from vidseek_training.evaluation.answers import write_answers
from vidseek_training.evaluation.retrieval_metrics import Vectors, judge


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory, backbone: Path) -> PairSet:
    archive = write_archive(tmp_path_factory.mktemp("answers"), [*all_colours(4, "test"), *all_colours(1, "train")])
    return load_pairs(archive.pairs, archive.frames, backbones.load(str(backbone)).spec, split="test")


def written(pairs: PairSet, vectors: Vectors, out: Path) -> dict[str, Any]:
    write_answers(pairs, vectors, out)
    content: dict[str, Any] = json.loads((out / "answers.json").read_text())
    return content


def test_write_answers__counts_and_places_are_those_of_the_ranks(pairs: PairSet, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    num = len(pairs)
    videos = np.eye(num, dtype=np.float32)[np.unique(pairs.table.clip_id, return_inverse=True)[1]]
    texts = videos + rng.normal(scale=0.5, size=videos.shape).astype(np.float32)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    vectors = Vectors(videos, texts, texts)
    ranks = judge(vectors, pairs.table).text_ranks
    content = written(pairs, vectors, tmp_path)
    assert (content["num_right"], content["num_wrong"]) == ((ranks == 1).sum(), (ranks > 1).sum())
    assert content["num_right"] and content["num_wrong"]
    for kind in ("right", "wrong"):
        for query in content[kind]:
            places = [each["place"] for each in query["answers"]]
            assert [each["place"] for each in query["answers"] if each["is_right"]] == [query["rank"]]
            assert places == sorted(set(places)) and (query["rank"] == 1) == (kind == "right")
            cosines = [each["cosine"] for each in query["answers"]]
            assert cosines == sorted(cosines, reverse=True)
            assert all((tmp_path / "answers" / each["file"]).is_file() for each in query["answers"])


def test_write_answers__nothing_of_an_earlier_run_stays(pairs: PairSet, tmp_path: Path) -> None:
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "old.jpg").write_bytes(b"")
    videos = np.eye(len(pairs), dtype=np.float32)
    content = written(pairs, Vectors(videos, videos, videos), tmp_path)
    named = {each["file"] for query in (*content["right"], *content["wrong"]) for each in query["answers"]}
    assert {path.name for path in (tmp_path / "answers").iterdir()} == named
