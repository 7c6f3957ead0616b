from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.raising import raises
from vidseek_media.errors import ArtifactError, InputRejected
from vidseek_training.benchmarks.caption_files import Query, read_benchmark, write_captions
from vidseek_training.evaluation.retrieval_metrics import Vectors, judge


def write(folder: Path, name: str, content: str) -> Path:
    (folder / name).write_text(content, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize(("name", "content"), [
    ("a.csv", "key;vid_key;video_id;sentence\nret0;msr1;video1;a  dog\nret1;msr2;video2;a cat\n"),
    ("b.csv", "file,caption\nvideo1,a dog\nvideo2,a cat\n"),
    ("c.tsv", "video\ttext\nvideo1\ta dog\nvideo2\ta cat\n"),
    ("d.json", '[{"video": "video1", "caption": ["a dog"]}, {"video": "video2", "caption": "a cat"}]'),
    ("e.json", '{"video1": ["a dog"], "video2": ["a cat"]}'),
    ("f.jsonl", '{"vid": "video1", "query": "a dog"}\n\n{"vid": "video2", "query": "a cat"}\n'),
    ("g.json", '[{"video": "video1", "description": "a dog", "times": [[0, 1]]},'
               ' {"video": "video2", "description": "a cat", "times": [[2, 2]]}]'),
])
def test_read_benchmark__each_form_gives_its_captions(tmp_path: Path, name: str, content: str) -> None:
    assert read_benchmark(write(tmp_path, name, content)) == [Query("video1", "a dog"), Query("video2", "a cat")]


def test_read_benchmark__columns_of_other_names_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "photo,caption,label\nhat/1.jpg,ignored,a hat\n")
    assert read_benchmark(path, video="photo", caption="label") == [Query("hat/1.jpg", "a hat")]
    with raises(InputRejected, code="benchmark-malformed", naming="photo, caption, label"):
        read_benchmark(path, video="picture")


def test_write_captions__pictures_are_found_by_their_path_and_split_as_is_said(tmp_path: Path) -> None:
    for name in ("hat/1.jpg", "shoe/1.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    queries = [Query("hat/1.jpg", "a hat"), Query("shoe/1.jpg", "a shoe")]
    assert write_captions(queries, tmp_path, tmp_path / "captions.csv", split="") == 2
    table = pd.read_csv(tmp_path / "captions.csv", keep_default_na=False)
    assert list(table["file"]) == ["hat/1.jpg", "shoe/1.jpg"] and set(table["split"]) == {""}


def test_read_benchmark__several_captions_times_and_paragraphs(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", 'video,caption,start,end\nv,"one, two",1.5,3\nv,three,,\n')
    assert read_benchmark(path) == [Query("v", "one, two", 1.5, 3.0), Query("v", "three")]
    rows = [{"video": "v", "description": text, "times": []} for text in ("a dog runs.", "it stops")]
    path = write(tmp_path, "didemo.json", json.dumps(rows))
    assert read_benchmark(path) == [Query("v", "a dog runs. it stops")]


@pytest.mark.parametrize(("content", "fact"), [
    ("video,words\nv,a\n", "video, words"), ("video,caption\n", "no row"), ("video,caption\nv,\n", "row 1"),
    ("video,caption,start\nv,a,soon\n", "soon"),
])
def test_read_benchmark__what_it_cannot_be_is_named(tmp_path: Path, content: str, fact: str) -> None:
    with raises(InputRejected, code="benchmark-malformed", naming=fact):
        read_benchmark(write(tmp_path, "a.csv", content))


def test_read_benchmark__a_missing_or_broken_file_is_an_error(tmp_path: Path) -> None:
    for name, content in (("no.json", None), ("a.json", "{ no"), ("b.json", "3")):
        path = tmp_path / name
        if content is not None:
            path.write_text(content)
        with raises(ArtifactError, code="benchmark-unreadable", naming=name):
            read_benchmark(path)


def test_write_captions__is_what_ingest_reads(tmp_path: Path) -> None:
    for name in ("videos/video1.mp4", "videos/more/video2.avi"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    queries = [Query("video1", "a dog, running"), Query("video2.avi", "a cat", 1.0, 2.5)]
    assert write_captions(queries, tmp_path / "videos", tmp_path / "videos" / "captions.csv") == 2
    with (tmp_path / "videos" / "captions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["video1.mp4", "more/video2.avi"]
    assert [(row["caption"], row["start"], row["end"], row["split"]) for row in rows] == [
        ("a dog, running", "", "", "test"), ("a cat", "1", "2.5", "test"),
    ]
    with raises(InputRejected, code="benchmark-videos-missing", naming=("1 of 3", "video9")):
        write_captions([*queries, Query("video9", "x")], tmp_path / "videos", tmp_path / "captions.csv")
    assert not (tmp_path / "captions.csv").exists()


@pytest.mark.realdata
def test_read_benchmark__published_files_have_their_published_sizes(realdata: Path) -> None:
    published = realdata / "D_benchmarks"
    msrvtt = read_benchmark(published / "MSRVTT_JSFUSION_test.csv")
    assert len(msrvtt) == len({query.video for query in msrvtt}) == 1000
    repeated = [count for count in Counter(query.caption for query in msrvtt).values() if count > 1]
    assert sorted(repeated) == [2, 2, 2, 3]
    msvd = read_benchmark(published / "msvd_caption_test.json")
    content = json.loads((published / "msvd_caption_test.json").read_text())
    assert len({query.video for query in msvd}) == 670
    assert len(msvd) == sum(len(row["caption"]) for row in content) == 27763


@pytest.mark.realdata
def test_judge__equal_sentences_of_msr_vtt_are_no_free_hits(realdata: Path) -> None:
    """A model that knows each sentence perfectly cannot tell two equal ones apart: neither is a hit."""
    queries = read_benchmark(realdata / "D_benchmarks" / "MSRVTT_JSFUSION_test.csv")
    numbers = {caption: number for number, caption in enumerate(sorted({query.caption for query in queries}))}
    vectors = np.eye(len(numbers), dtype=np.float32)[[numbers[query.caption] for query in queries]]
    table = pd.DataFrame({"clip_id": [query.video for query in queries], "gallery": "1k-A", "contrast": "", "axis": ""})
    figures = judge(Vectors(vectors, vectors, vectors), table).figures(table)["1k-A"]
    assert figures["r1"] == figures["video_to_text_r1"] == round((1000 - 9) / 1000, 4)
    assert figures["r5"] == 1.0 and figures["mdr"] == 1.0
