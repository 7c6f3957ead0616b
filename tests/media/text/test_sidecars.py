from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.raising import raises
from vidseek_media.errors import ConfigError
from vidseek_media.records import Refusal
from vidseek_media.text.sidecars import Sidecar, SidecarCaption, match_captions, read_sidecar


def read(folder: Path, content: str | bytes) -> Sidecar:
    data = content.encode() if isinstance(content, str) else content
    (folder / "captions.csv").write_bytes(data)
    return read_sidecar(folder)


def reasons(sidecar: Sidecar) -> dict[str, str]:
    return {rejection.id: rejection.reason for rejection in sidecar.rejections}


def test_read_sidecar__of_a_folder_without_one_is_empty(tmp_path: Path) -> None:
    assert read_sidecar(tmp_path) == Sidecar()


def test_read_sidecar__gives_every_column(tmp_path: Path) -> None:
    sidecar = read(
        tmp_path,
        "file,caption,start,end,split,gallery,contrast,axis,title,channel,category,published_at,extra\n"
        'a.mp4,"A dog, running",1.5,2.25,test,easy,"A dog, resting",motion,'
        "Dogs,Pets,Animal,2026-03-01T12:00:00+02:00,x\n",
    )
    assert sidecar.captions == (
        SidecarCaption(
            2, "a.mp4", "A dog, running", 1500, 2250, split="test", gallery="easy", contrast="A dog, resting",
            axis="motion",
            annotations={"title": "Dogs", "channel": "Pets", "category": "Animal", "published_at": "2026-03-01T10:00:00Z"},
        ),
    )
    assert sidecar.rejections == ()


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbffile,caption\r\na.mp4,A dog\r\n",  # as a spreadsheet saves it
        b"File, Caption \na.mp4,  A   dog \n\n",
        b"caption,file\nA dog,a.mp4",
    ],
    ids=["bom and crlf", "spaces and capitals", "other order, no last line end"],
)
def test_read_sidecar__takes_files_as_people_save_them(tmp_path: Path, content: bytes) -> None:
    [caption] = read(tmp_path, content).captions
    assert (caption.file, caption.text, caption.start_ms) == ("a.mp4", "A dog", None)


@pytest.mark.parametrize(
    ("content", "code", "fact"),
    [
        ("file,text\na.mp4,A dog\n", "unknown-columns", "missing: caption"),
        ("file;caption\na.mp4;A dog\n", "unknown-columns", "missing: file, caption"),
        ("file,caption,start\na.mp4,A dog,1\n", "unknown-columns", "the other: end"),
        ("file,caption,caption\na.mp4,A dog,x\n", "unknown-columns", "twice: caption"),
        ("", "rows-unreadable", "empty"),
        (" \n", "rows-unreadable", "empty"),
        ('file,caption\na.mp4,"A dog\n', "rows-unreadable", "line 2"),
        (b"file,caption\na.mp4,caf\xe9\n", "rows-not-text", "22 is 0xe9"),
        ("file,caption\na.mp4,A dog\n".encode("utf-16"), "rows-not-text", "UTF-8"),
        (b"file,cap\0tion\na.mp4,A dog\n", "rows-not-text", "null bytes"),
    ],
)
def test_read_sidecar__names_what_is_wrong_with_the_file(
    tmp_path: Path, content: str | bytes, code: str, fact: str
) -> None:
    with raises(ConfigError, code=code, naming=("captions.csv", fact)) as caught:
        read(tmp_path, content)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",A dog,0,1,", "names no file"),
        ("a.mp4, ,0,1,", "has no caption"),
        ("a.mp4,A dog,1,,", "wanted both in seconds"),
        ("a.mp4,A dog,0:01,0:02,", "wanted both in seconds"),
        ("a.mp4,A dog,2,1,", "is not a span"),
        ("a.mp4,A dog,1,1.0001,", "is not a span"),
        ("a.mp4,A dog,-1,1,", "is not a span"),
        ("a.mp4,A dog,nan,inf,", "is not a span"),
        ("a.mp4,A dog,0,1,dev", "wants the split 'dev'"),
        ("a.mp4,A dog", "has 2 cells, the header has 5"),
        ("a.mp4,A dog,0,1,,more", "has 6 cells, the header has 5"),
    ],
)
def test_read_sidecar__a_row_that_says_nothing_is_rejected_alone(tmp_path: Path, row: str, reason: str) -> None:
    sidecar = read(tmp_path, f"file,caption,start,end,split\nb.mp4,A cat,0,1,\n{row}\n")
    assert [caption.file for caption in sidecar.captions] == ["b.mp4"]
    assert reason in reasons(sidecar)["captions.csv:3"]
    assert sidecar.num_rows == 2


def test_read_sidecar__the_same_row_again_is_rejected(tmp_path: Path) -> None:
    sidecar = read(tmp_path, "file,caption\na.mp4,A dog\na.mp4,A cat\na.mp4,A dog\n")
    assert [caption.text for caption in sidecar.captions] == ["A dog", "A cat"]
    assert reasons(sidecar) == {"captions.csv:4": "says the same as captions.csv:2"}


def test_match_captions__finds_a_file_however_its_name_is_spelled() -> None:
    captions = [
        SidecarCaption(2, "./cats/a.mp4", "one"), SidecarCaption(3, "cats\\a.mp4", "two"),
        SidecarCaption(4, "cafe\u0301.mp4", "three"),  # decomposed, as macOS stores it
    ]
    matched, refused = match_captions(captions, {"cats/a.mp4": "A", "caf\u00e9.mp4": "B"}, {})
    assert [(video_id, caption.line) for video_id, caption in matched] == [("A", 2), ("A", 3), ("B", 4)]
    assert refused == []


def test_match_captions__of_no_video_or_a_rejected_one_are_rejected() -> None:
    captions = [SidecarCaption(2, "lost.mp4", "one"), SidecarCaption(3, "bad.mp4", "two")]
    matched, refused = match_captions(captions, {"a.mp4": "A"}, {"bad.mp4": Refusal("is empty")})
    assert matched == []
    assert [rejection.id for rejection in refused] == ["captions.csv:2", "captions.csv:3"]
    assert "no video of this source" in refused[0].reason
    assert refused[1].reason == "names bad.mp4, which was rejected: is empty"


ROWS = [
    {"file": "a.mp4", "caption": "a dog", "start": 1.5, "end": 2.0, "published_at": None},
    {"file": "b.mp4", "caption": "a cat", "start": None, "end": None, "published_at": "2026-03-01T12:00:00Z"},
    {"file": "c.mp4", "caption": None, "start": None, "end": None, "published_at": None},
]
WANTED = [("a.mp4", "a dog", 1500, 2000), ("b.mp4", "a cat", None, None)]


def test_read_sidecar__parquet_and_json_lines_say_the_same_as_a_csv(tmp_path: Path) -> None:
    kinds = {}
    for kind in ("csv", "parquet", "jsonl"):
        folder = tmp_path / kind
        folder.mkdir()
        table = pd.DataFrame(ROWS)
        if kind == "csv":
            table.to_csv(folder / "captions.csv", index=False)
        elif kind == "parquet":
            table.to_parquet(folder / "captions.parquet")
        else:
            (folder / "captions.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS))
        kinds[kind] = read_sidecar(folder)
    for kind, sidecar in kinds.items():
        assert [(c.file, c.text, c.start_ms, c.end_ms) for c in sidecar.captions] == WANTED
        assert sidecar.captions[1].annotations == {"published_at": "2026-03-01T12:00:00Z"}
        assert list(reasons(sidecar).values()) == ["has no caption for c.mp4"]
        assert sidecar.captions[0].origin == f"captions.{kind}"


def test_read_sidecar__takes_all_files_and_names_the_row_of_each(tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text("video,caption\na.mp4,one\n")
    (tmp_path / "captions.jsonl").write_text(
        '{"uri": "a.mp4", "caption": "two"}\n{"uri": "a.mp4", "caption": "one"}\nnot json\n[1]\n{"caption": "x"}\n'
    )
    sidecar = read_sidecar(tmp_path)
    assert [(c.place, c.text) for c in sidecar.captions] == [("captions.csv:2", "one"), ("captions.jsonl:1", "two")]
    found = reasons(sidecar)
    assert found["captions.jsonl:2"] == "says the same as captions.csv:2"
    assert "is no JSON" in found["captions.jsonl:3"]
    assert "no JSON object" in found["captions.jsonl:4"]
    assert found["captions.jsonl:5"] == "names no file"


@pytest.mark.parametrize(("name", "content", "code"), [
    ("captions.parquet", b"no parquet", "rows-unreadable"), ("captions.jsonl", b"\xff\xfe{}", "rows-not-text"),
])
def test_read_sidecar__of_another_kind_than_its_name_is_a_config_error(
    tmp_path: Path, name: str, content: bytes, code: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with raises(ConfigError, code=code, naming=name):
        read_sidecar(tmp_path)


def test_read_sidecar__a_parquet_without_its_columns_is_a_config_error(tmp_path: Path) -> None:
    pd.DataFrame([{"name": "a"}]).to_parquet(tmp_path / "captions.parquet")
    with raises(ConfigError, code="unknown-columns", naming="missing: file, caption"):
        read_sidecar(tmp_path)


def test_read_sidecar__metadata_of_thumbnails_is_about_pictures(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("Id,Title,Category,Channel\nx1,Boats,Harbour,North\nx2,Cranes,Harbour,\n,a,b,c\n")
    sidecar = read_sidecar(tmp_path)
    assert [(c.file, c.text, dict(c.annotations)) for c in sidecar.captions] == [
        ("images/North/x1", "", {"title": "Boats", "category": "Harbour", "channel": "North"}),
        ("images/x2", "", {"title": "Cranes", "category": "Harbour"}),
    ]
    assert reasons(sidecar) == {"metadata.csv:4": "has no Id"}


def test_read_sidecar__metadata_of_another_kind_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("key,value\na,b\n")
    assert read_sidecar(tmp_path) == Sidecar()


@pytest.mark.parametrize(
    ("file", "uri"),
    [("images/North/x1", "images/North/x1.jpg"), ("images/x1", "images/x1.webp"), ("x1.jpg", "images/x1.jpg")],
)
def test_match_captions__finds_a_picture_by_its_stem_and_under_images(file: str, uri: str) -> None:
    caption = SidecarCaption(2, file, "", annotations={"title": "Boats"})
    assert match_captions([caption], {uri: "id"}, {}) == ([("id", caption)], [])
