"""An archive in tables with all that a data set has, but without an index; and readers of data sets."""

from __future__ import annotations

import base64
import csv
import io
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.retrieval.archive import clip_row, unit_rows
from tests.vidseek.edit.edit_archive import write_edit_archive
from vidseek.archive import Archive
from vidseek_media.fields.declared import fields_of
from vidseek_media.fields.statement import Statement
from vidseek_media.fields.statements import FieldTable, write_fields
from vidseek_media.frame_store.shards import write_frames
from vidseek_media.ids import video_id_of
from vidseek_media.settings import FrameSettings
from vidseek_media.tables import CAPTIONS, CLIPS, FRAMES, PAIRS, VIDEOS, read_table, write_table
from vidseek_retrieval.embedding.embedding_parts import write_part

NAMES = ("pal.mov", "film #1.mp4", "straight.mp4")
ODD = '=HYPERLINK("x"); "quoted",\na; new line; æ 漢 🎞'
SPANS = ((0, 1000, ("windows",)), (500, 1500, ("captions",)), (1000, 2000, ("captions", "windows")))
FIELDS = {"camera": "keyword", "take": "integer", "gain": "float", "day": "boolean", "notes": ["keyword"],
          "clip_index": "integer"}


@dataclass(frozen=True)
class Read:
    """What comes back of a clip."""

    split: str
    span: tuple[int, int]
    captions: tuple[str, ...]
    contrasts: tuple[str, ...]
    fields: dict[str, Any]
    embedding: bytes
    frames: tuple[bytes, ...]


def ids(archive: Archive) -> dict[str, str]:
    return {name: video_id_of(archive.root / "videos" / name) for name in NAMES}


def write_dataset_archive(root: Path) -> Archive:
    archive = write_edit_archive(root, *NAMES)
    (root / "params.yaml").write_text("ingest: {source: videos}\nfields: {camera: keyword}\n")
    videos = ids(archive)
    rows = [clip_row(video, index, *span[:2], cut=span[2]) for video in videos.values() for index, span in enumerate(SPANS)]
    rows.sort(key=lambda row: (row["video_id"], row["index"]))
    write_table(archive.cut / "clips.parquet", rows, CLIPS)
    videos_table = read_table(archive.ingest / "videos.parquet", VIDEOS)
    videos_table["channel"] = ["news", "sport", "news"]
    videos_table["published_at"] = ["2026-03-01T00:00:00Z", "", "2026-03-03T00:00:00Z"]
    write_table(archive.ingest / "videos.parquet", videos_table, VIDEOS)
    settings = FrameSettings(num_frames=3, side_px=32)
    write_frames(root / "videos", archive.ingest, archive.cut, out=archive.frames, settings=settings)
    pal, film = videos["pal.mov"], videos["film #1.mp4"]
    captions = [caption_row(pal, 1, ODD), caption_row(pal, 1, "[a crane]", contrast="[a van]"), caption_row(pal, 2, "a van"),
                caption_row(film, 1, "rain"), caption_row(film, None, "the whole film"),
                caption_row(film, 2, "x", writer="title")]
    write_table(archive.caption / "captions.parquet", captions, CAPTIONS)
    pairs = [{**dict.fromkeys(PAIRS.names, ""), "clip_id": each["clip_id"], "video_id": each["video_id"],
              "caption": each["text"], "split": "test" if each["video_id"] == film else "train", "gallery": "default"}
             for each in captions if each["clip_id"] and each["text"] != "x"]
    write_table(archive.pairs_table, pairs, PAIRS)
    stated = (Statement(pal, "camera", ("B",)), Statement(pal, "take", (7,), 500, 1500), Statement(pal, "day", ("true",)),
              Statement(film, "day", ("false",)), Statement(film, "gain", (-0.5,)), Statement(film, "notes", ("a; b", "c")),
              Statement(film, "clip_index", (3,)))
    write_fields(archive.fields, FieldTable(fields_of(FIELDS), stated))
    write_embeddings(archive)
    return archive


def caption_row(video_id: str, place: int | None, text: str, **changes: str) -> dict[str, object]:
    clip_id = None if place is None else clip_row(video_id, place, *SPANS[place][:2])["clip_id"]
    return {**dict.fromkeys(CAPTIONS.names, ""), "video_id": video_id, "clip_id": clip_id, "text": text, "cost_usd": 0.0,
            "writer": "file", **changes}


def write_embeddings(archive: Archive, *, seed: int = 0) -> dict[str, bytes]:
    frames = read_table(archive.frames / "frames.parquet", FRAMES)
    vectors = unit_rows(len(frames), 8, seed=seed)
    write_part(
        archive.embed / "parts" / "0-0.parquet", clip_ids=frames["clip_id"].tolist(), vectors=vectors,
        encoder_version="0123456789abcdef", variant="fp32", digests=frames["frames_digest"].tolist(),
    )
    return {clip_id: row.tobytes() for clip_id, row in zip(frames["clip_id"], vectors, strict=True)}


def read_webdataset(folder: Path) -> dict[str, Read]:
    import webdataset

    found = {}
    for tar in sorted(folder.glob("*.tar")):
        for sample in webdataset.WebDataset(str(tar), shardshuffle=False):
            about = json.loads(sample["json"])
            captions = tuple(each["text"] for each in about["captions"])
            assert sample["__key__"] == about["key"] and sample.get("txt", b"").decode() == (captions or ("",))[0]
            found[about["clip_id"]] = Read(
                tar.name.partition("-")[0], (about["start_ms"], about["end_ms"]), captions,
                tuple(each["contrast"] for each in about["captions"]), about["fields"],
                np.load(io.BytesIO(sample["npy"])).tobytes(),
                tuple(sample[name] for name in sorted(sample) if name.endswith(".jpg")),
            )
            assert about["split"] == tar.name.partition("-")[0]
    return found


def read_hf(folder: Path) -> dict[str, Read]:
    import datasets

    loaded = datasets.load_dataset(str(folder), cache_dir=str(folder.parent / "cache"))
    assert loaded["train"][0]["frames"][0].size  # decoded by the library
    found = {}
    for split, rows in loaded.items():
        features = rows.features
        assert isinstance(features["frames"].feature, datasets.Image) and features["embedding"].length == 8
        packed = rows.cast_column("frames", datasets.List(datasets.Image(decode=False)))
        for row in packed.with_format("numpy", ["embedding"], output_all_columns=True):
            found[row["clip_id"]] = Read(
                split, (row["start_ms"], row["end_ms"]), tuple(each["text"] for each in row["captions"]),
                tuple(each["contrast"] for each in row["captions"]),
                {name: value for name, value in row["fields"].items() if value is not None},
                row["embedding"].astype(np.float32).tobytes(), tuple(each["bytes"] for each in row["frames"]),
            )
    return found


def read_csv(folder: Path) -> dict[str, Read]:
    clips = pd.read_csv(folder / "clips.csv", keep_default_na=False, dtype=str)
    vectors = np.load(folder / "embeddings.npy")
    with (folder / "captions.csv").open(encoding="utf-8", newline="") as file:
        captions = list(csv.DictReader(file))
    types = fields_of(FIELDS)
    found = {}
    for place, row in enumerate(clips.to_dict("records")):
        own = [each for each in captions if each["clip_id"] == row["clip_id"]]
        cells = {name: row[name] for name in types if row[name]}
        values = {name: types[name].payload_of(types[name].values_of(cell)) for name, cell in cells.items()}
        found[row["clip_id"]] = Read(
            row["split"], (int(row["start_ms"]), int(row["end_ms"])), tuple(each["text"] for each in own),
            tuple(each["contrast"] for each in own),
            {name: value == "true" if name == "day" else value for name, value in values.items()},
            vectors[place].tobytes(), tuple((folder / name).read_bytes() for name in row["frames"].split("; ")),
        )
    return found


def read_fiftyone(folder: Path) -> dict[str, Read]:
    """As `LegacyFiftyOneDatasetImporter` and `Sample` of fiftyone 1.22 read it, which needs other versions than ours."""
    assert json.loads((folder / "metadata.json").read_text())["media_type"] == "image"
    found = {}
    for sample in json.loads((folder / "samples.json").read_text())["samples"]:
        packed = base64.b64decode(sample["embedding"]["$binary"]["base64"])
        vector = np.load(io.BytesIO(zlib.decompress(packed)), allow_pickle=False)
        names = {"camera", "take", "gain", "day", "notes", "field_clip_index"} & sample.keys()
        found[sample["clip_id"]] = Read(
            sample["tags"][0], (sample["start_ms"], sample["end_ms"]), tuple(sample["captions"]), tuple(sample["contrasts"]),
            {name.removeprefix("field_"): sample[name] for name in names}, vector.tobytes(),
            ((folder / sample["filepath"]).read_bytes(),),
        )
    return found


READERS = {"webdataset": read_webdataset, "hf": read_hf, "csv": read_csv, "fiftyone": read_fiftyone}
