"""Whatever a colleague, a DVC remote or the hub sends: each reader gives what it can use, or one of our errors.

Every artefact is made small and whole, then damaged: bytes changed, cut off, doubled; values of its JSON and its tables put
in place of others, among them names that lead elsewhere. Nothing outside its folder changes, and no reader hangs.

The short form runs with all tests; `make faults` damages many more (VIDSEEK_FAULTS, for each artefact).
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.retrieval.archive import random_archive
from tests.retrieval.index.test_backends import facts_of, points
from tests.stored_shards import read_shard
from tests.tiny_bundle import write_tiny_bundle
from tests.training.champions import write_adapter, write_champion
from tests.training.tiny import write_clip, write_viclip
from vidseek.reports.overview import read_json
from vidseek_encoder.bundle import EncoderSpec
from vidseek_encoder.encoder import Encoder
from vidseek_encoder.tokenize import Tokenizer
from vidseek_media.cutting.cut import read_clips
from vidseek_media.decoding.probe import Probe
from vidseek_media.errors import VidseekError
from vidseek_media.forgotten import ForgottenVideo, read_forgotten, write_forgotten
from vidseek_media.frame_store.members import encode_jpeg
from vidseek_media.ids import clip_id_of
from vidseek_media.records import Refusal
from vidseek_media.sources.ingest import read_videos
from vidseek_media.sources.ledger import LEDGER_FILE, Ledger
from vidseek_media.tables import CAPTIONS, read_table, write_table
from vidseek_retrieval.confidence.calibrate import read_calibration
from vidseek_retrieval.confidence.calibration import FEATURES, FORMAT
from vidseek_retrieval.confidence.query_stats import QuerySample, read_sample, write_sample
from vidseek_retrieval.dedup.decisions import read_decisions
from vidseek_retrieval.dedup.video_matches import Duplicate, write_duplicates
from vidseek_retrieval.index.backend import Alias
from vidseek_retrieval.index.collection_points import read_points
from vidseek_retrieval.index.difference.content import TableContent
from vidseek_retrieval.index.edge.backend import EdgeBackend
from vidseek_retrieval.index.exchange.transfer import export_collection, import_collection
from vidseek_retrieval.index.verification import verify_collection
from vidseek_retrieval.settings import IndexSettings
from vidseek_training import backbones
from vidseek_training.captioning.journal import JOURNAL_NAME, open_journal, read_journal
from vidseek_training.evaluation.champion import read_selected
from vidseek_training.fitting import lora
from vidseek_training.fitting.checkpoints import Checkpoint

NUM_DAMAGES = int(os.environ.get("VIDSEEK_FAULTS", "12"))
SECONDS = 300
VIDEO = "0" * 31 + "a"
HOSTILE: tuple[Any, ...] = (
    "../../elsewhere", "/tmp/elsewhere", "..", "", ".", "a/b", "a\\b", "a\0b", "a\nb", "\x1b[2J", "x" * 70_000, "\ud800",
    None, True, -1, 0, 1, 2**31, 2**53 + 1, 2**64, 10**40, 1e308, float("nan"), float("inf"), [], {}, [[]], {"": None},
    [None] * 50,
)


@dataclass(frozen=True)
class Artefact:
    """How one is made in a folder, and read from it."""

    make: Callable[[Path], object]
    read: Callable[[Path], object]
    only: str = "*"
    """Which of its files are damaged."""


def _adapter(folder: Path) -> None:
    write_viclip(_made(folder / "backbone"))
    write_adapter(folder / "adapter", folder / "backbone", seed=0)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _index(folder: Path) -> None:
    content, backend = points(8), EdgeBackend(folder)
    metadata = facts_of(content)
    backend.build(metadata, content)
    backend.move_alias("clips", Alias(metadata.name))


def _read_index(folder: Path) -> None:
    backend = EdgeBackend(folder)
    for metadata in backend.collections():
        verify_collection(backend, metadata.name, min_recall=0.0)
    for alias in backend.aliases().values():
        backend.open(alias.collection).close()


def _export(folder: Path) -> None:
    with_index = folder.parent / "made-index"
    _index(with_index)
    export_collection(EdgeBackend(with_index), folder / "export.parquet")
    shutil.rmtree(with_index)


def _import(folder: Path) -> None:
    import_collection(EdgeBackend(folder / "index"), folder / "export.parquet")


def _shard(folder: Path) -> None:
    import io
    import tarfile

    with tarfile.open(folder / "0-0.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        key = f"{VIDEO}_00000"
        about = {"key": key, "clip_id": str(clip_id_of(VIDEO, 0, 1000)), "video_id": VIDEO, "start_ms": 0, "end_ms": 1000,
                 "times_ms": [0, 500], "num_repeated": 0, "decoder": "pyav", "quality_flags": ["black"], "hashes": [2**63]}
        members = {f"{key}.json": json.dumps(about).encode()}
        members |= {f"{key}.{i:02d}.jpg": encode_jpeg(np.full((8, 8, 3), 90, np.uint8), quality=90) for i in range(2)}
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def _tables(folder: Path) -> None:
    random_archive(folder, num_videos=2)
    rows = [{"video_id": VIDEO, "clip_id": None, "text": "a red crane", "writer": "file"}]
    write_table(folder / "caption" / "captions.parquet", rows, CAPTIONS)


def _read_tables(folder: Path) -> None:
    read_videos(folder / "ingest")
    read_clips(folder / "cut")
    read_table(folder / "caption" / "captions.parquet", CAPTIONS)
    read = read_points(
        folder / "embed", folder / "cut", folder / "ingest", folder / "caption", cut="windows",
        settings=IndexSettings(vectors=("video", "words")), duplicates=(),
    )
    whole = TableContent(read, None).whole()
    EdgeBackend(folder / "index").build(whole.metadata, whole.points, whole.videos)


def _decisions(folder: Path) -> None:
    write_duplicates(folder / "duplicates.parquet", [Duplicate(VIDEO, 0, 10, "b" * 32, 0, 10, "part", 0.9)])
    write_forgotten(folder, [ForgottenVideo(VIDEO, ("a.mp4",), (), "a", "2026-01-01T00:00:00Z")])


def _read_decisions(folder: Path) -> None:
    read_decisions(folder)
    assert all(isinstance(each, str) for each in read_forgotten(folder).video_ids)


def _journal(folder: Path) -> None:
    with open_journal(folder) as journal:
        number = journal.ask(key="k", basis="b", video_id=VIDEO, reserved_usd=0.1)
        journal.answer(
            number, captions={"short": "a crane"}, reason="", tokens=(10, 5), guessed_in=9, cost_usd=0.01,
        )


def _calibration(folder: Path) -> None:
    rng = np.random.default_rng(0)
    reference = QuerySample("0123456789abcdef", "", rng.random((20, 2), dtype=np.float32)).to_json()
    content = {"format": FORMAT, "encoder_version": "0123456789abcdef", "slope": 1.0, "bias": 0.1, "min_confidence": 0.5,
               "num_queries": 20, "prior": 0.9, "weights": dict.fromkeys(FEATURES, 0.5), "familiarity": None,
               "reference": reference}
    (folder / "calibration.json").write_text(json.dumps(content))


def _ledger(folder: Path) -> None:
    probe = Probe(1000, 25.0, 64, 48, "h264", 25)
    refused = {"b" * 32: Refusal("no video", code="not-a-video")}
    Ledger(folder / LEDGER_FILE, {"/videos/a.mp4": (10, 5, VIDEO)}, {VIDEO: probe}, refused).save()


def _bundle(folder: Path) -> None:
    write_tiny_bundle(folder / "encoder")


def _read_bundle(folder: Path) -> None:
    spec = EncoderSpec.load(folder / "encoder")
    spec.check_files(folder / "encoder", spec.variants[0])
    encoder = Encoder.load(folder / "encoder", variant=spec.variants[0], threads=1)
    encoder.embed_texts(["red"])


def _read_damaged_bundle(folder: Path) -> None:
    """As one whose maker wrote the sums of what is there now."""
    path = folder / "encoder" / "encoder.json"
    content = json.loads(path.read_bytes())
    content["files"] = {
        name: hashlib.sha256((folder / "encoder" / name).read_bytes()).hexdigest() for name in content["files"]
    }
    path.write_text(json.dumps(content))
    _read_bundle(folder)


def _checkpoint(folder: Path) -> None:
    Checkpoint(folder, "lora", "0" * 16).save({"run_id": "abc", "step": 3, "rows": torch.arange(4), "best": (0.5, 1)})


ARTEFACTS = {
    "encoder.json": Artefact(_bundle, _read_bundle, only="encoder.json"),
    "tokenizer.json": Artefact(_bundle, _read_damaged_bundle, only="tokenizer.json"),
    "onnx": Artefact(_bundle, _read_damaged_bundle, only="*.onnx"),
    "tokenizer alone": Artefact(
        _bundle, lambda folder: Tokenizer.load(folder / "encoder" / "tokenizer.json", context=16, pad_id=0).encode(["abc"]),
        only="tokenizer.json",
    ),
    "adapter": Artefact(
        _adapter, lambda folder: lora.merged(backbones.load(folder / "backbone"), folder / "adapter"), only="adapter*"
    ),
    "adapter notes": Artefact(
        _adapter, lambda folder: lora.load_into(backbones.load(folder / "backbone"), folder / "adapter"), only="vidseek.json"
    ),
    "backbone": Artefact(lambda folder: write_clip(_made(folder / "b")), lambda folder: backbones.load(folder / "b")),
    "champion": Artefact(lambda folder: write_champion(folder / "c", write_viclip(_made(folder / "b")), seed=None),
                         lambda folder: read_selected(folder / "c"), only="selected.json"),
    "checkpoint": Artefact(_checkpoint, lambda folder: Checkpoint(folder, "lora", "0" * 16).load()),
    "index": Artefact(_index, _read_index, only="*.json"),
    "spans": Artefact(_index, _read_index, only="spans.npy"),
    "export": Artefact(_export, _import),
    "frame shard": Artefact(_shard, lambda folder: list(read_shard(folder / "0-0.tar"))),
    "tables": Artefact(_tables, _read_tables),
    "decisions": Artefact(_decisions, _read_decisions),
    "journal": Artefact(_journal, read_journal, only=JOURNAL_NAME),
    "calibration": Artefact(_calibration, read_calibration),
    "queries": Artefact(
        lambda folder: write_sample(folder / "seen.json", QuerySample("0" * 16, "", np.ones((3, 2), np.float32))),
        lambda folder: read_sample(folder / "seen.json"),
    ),
    "ledger": Artefact(_ledger, Ledger.load),
    "receipt": Artefact(
        lambda folder: (folder / "r.json").write_text(json.dumps(facts_of(points(2)).to_json())),
        lambda folder: read_json(folder / "r.json"),
    ),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of an artefact that is whole, made once."""
    root, known = tmp_path_factory.mktemp("artefacts"), {}

    def make(name: str) -> Path:
        if name not in known:
            known[name] = root / name.replace(" ", "-")
            known[name].mkdir()
            ARTEFACTS[name].make(known[name])
        return known[name]

    return make


@pytest.mark.parametrize("name", ARTEFACTS)
def test_artefact__whole_is_read(made: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    shutil.copytree(made(name), tmp_path / "a")
    ARTEFACTS[name].read(tmp_path / "a")


@pytest.mark.slow
@pytest.mark.parametrize("name", ARTEFACTS)
def test_artefact__damaged_is_read_or_one_of_our_errors(made: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    artefact = ARTEFACTS[name]
    num = max(4, NUM_DAMAGES // 3) if name in SLOW else NUM_DAMAGES
    for seed in range(num):
        folder = tmp_path / f"{seed}" / "here"
        shutil.copytree(made(name), folder)
        (folder.parent / "beside.txt").write_text("mine")
        draw = random.Random(f"{name}{seed}")
        files = sorted(path for path in folder.rglob(artefact.only) if path.is_file())
        if artefact.only == "adapter*":
            files = sorted(path for path in (folder / "adapter").iterdir())
        damaged = draw.choice(files)
        what = damage(damaged, draw)
        try:
            with at_most(SECONDS):
                artefact.read(folder)
        except VidseekError as error:
            assert error.message
        except BaseException as error:
            raise AssertionError(f"damage {seed}, {damaged.name}: {what}") from error
        assert sorted(path.name for path in folder.parent.iterdir()) == ["beside.txt", "here"], (seed, what)
        assert (folder.parent / "beside.txt").read_text() == "mine"
        shutil.rmtree(folder.parent)


SLOW = {"export", "index", "spans", "tables"}


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise TimeoutError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def damage(path: Path, draw: random.Random) -> str:
    """Damage a file in a way that fits its kind, or its bytes; says how."""
    if path.suffix in (".json", ".jsonl") and draw.random() < 0.8:
        return _damage_json(path, draw)
    if path.suffix == ".parquet" and draw.random() < 0.8:
        return _damage_table(path, draw)
    return _damage_bytes(path, draw)


def _damage_bytes(path: Path, draw: random.Random) -> str:
    content = bytearray(path.read_bytes())
    cut = draw.randrange(len(content))
    match draw.randrange(5):
        case 0:
            for _ in range(1 + len(content) // 200):
                content[draw.randrange(len(content))] ^= draw.randrange(1, 256)
        case 1:
            del content[cut:]
        case 2:
            content = content[:cut] + content
        case 3:
            del content[cut // 2 : cut]
        case _:
            content[cut : cut + 8] = draw.choice([b"\xff" * 8, b"\0" * 8, b"[" * 30_000])
    path.write_bytes(content)
    return f"bytes at {cut}"


def _damage_json(path: Path, draw: random.Random) -> str:
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    number = draw.randrange(len(lines))
    content = json.loads(lines[number])
    places = list(_places(content))
    value = draw.choice(HOSTILE)
    if not places or draw.random() < 0.05:
        content, told = value, "all of it"
    else:
        parent, key = draw.choice(places)
        told = repr(key)
        if isinstance(parent, dict) and draw.random() < 0.15:
            parent[value if isinstance(value, str) else repr(value)] = parent.pop(key)
        elif draw.random() < 0.1:
            del parent[key]
        else:
            parent[key] = value
    lines[number] = json.dumps(content)
    path.write_text("\n".join(lines) + "\n")
    return f"{told}: {str(value)[:40]!r}"


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    keys = content.keys() if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in list(keys)[:200]:
        yield content, key
        yield from _places(content[key])


def _damage_table(path: Path, draw: random.Random) -> str:
    table = pq.read_table(path)
    metadata = table.schema.metadata or {}
    if b"vidseek" in metadata and draw.random() < 0.5:
        metadata = json.loads(metadata[b"vidseek"])
        parent, key = draw.choice(list(_places(metadata)))
        parent[key] = value = draw.choice(HOSTILE)
        pq.write_table(table.replace_schema_metadata({b"vidseek": json.dumps(metadata).encode()}), path)
        return f"the facts' {key}: {str(value)[:40]!r}"
    name = draw.choice(table.column_names)
    rows = table.to_pylist()
    row, value = draw.randrange(len(rows)), draw.choice(HOSTILE)
    if isinstance(value, str):
        value = value.encode(errors="replace").decode()
    if name == "payload":
        payload = json.loads(rows[row]["payload"])
        payload[draw.choice([*payload, "title", "uri", "more"])] = value
        value = json.dumps(payload)
    elif isinstance(rows[row][name], list):
        value = draw.choice([[], None, rows[row][name] * 2, [value]])
    rows[row][name] = value
    try:
        changed = pa.Table.from_pylist(rows, schema=table.schema)
    except (pa.ArrowException, OverflowError, TypeError):
        changed = pa.table({**{each: table[each] for each in table.column_names}, name: [repr(value)] * len(rows)})
    pq.write_table(changed.replace_schema_metadata(metadata), path)
    return f"{name} of row {row}: {str(value)[:40]!r}"
