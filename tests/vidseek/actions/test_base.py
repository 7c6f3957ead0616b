"""`vidseek base` on an archive that was taught: real weights, a real export, and the live collection beside it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.copying import copy_tree
from tests.raising import raises
from tests.retrieval.archive import clip_row, video_row
from tests.training.champions import write_champion
from tests.training.one_registry import sharing_registry
from tests.training.tiny import Row, all_colours, write_archive, write_viclip
from tests.vidseek.test_cli import call
from vidseek.actions.base import base_facts, make_base, remove_base
from vidseek.archive import ALIAS, BASE_ALIAS, Archive, BaseMissing, load_encoder, open_searcher
from vidseek.reports.drift import measure_drift
from vidseek_encoder.bundle import EncoderSpec
from vidseek_encoder.encoder import Encoder
from vidseek_media.errors import ConfigError, GateFailed
from vidseek_media.fields.declared import fields_of
from vidseek_media.fields.statement import Statement
from vidseek_media.fields.statements import FieldTable, write_fields
from vidseek_media.sources.ingest import read_videos
from vidseek_media.tables import CAPTIONS, CLIPS, VIDEOS, write_table
from vidseek_retrieval.embedding.embed_archive import Tables, embed_all
from vidseek_retrieval.embedding.embedding_parts import PARTS_FOLDER, read_parts
from vidseek_retrieval.index.aliases import list_collections, prune, rollback, verify
from vidseek_retrieval.index.publish import publish
from vidseek_retrieval.search.query import QueryInputs, SearchOptions

pytestmark = pytest.mark.slow  # the base is exported by torch
ROOT = Path(__file__).parents[3]


def write_tables(data: Path, rows: list[Row], *, title: str = "") -> None:
    """What ingest, cut and caption leave: a video of 16 seconds for each number, in windows of one second."""
    ids = sorted({row.video_id for row in rows})
    videos = [video_row(one, f"{one}.mp4", title=title, duration_ms=16_000) for one in ids]
    write_table(data / "ingest" / "videos.parquet", videos, VIDEOS)
    clips = [clip_row(row.video_id, row.index, 1000 * row.index, 1000 * row.index + 1000) for row in rows]
    write_table(data / "cut" / "clips.parquet", clips, CLIPS)
    write_table(data / "caption" / "captions.parquet", [
        {**dict.fromkeys(CAPTIONS.names, ""), "video_id": row.video_id, "clip_id": row.clip_id, "text": row.caption,
         "cost_usd": 0.0} for row in rows
    ], CAPTIONS)


def publish_live(archive: Archive) -> str:
    """What the stages embed and publish do; gives the collection."""
    data = archive.root / "data"
    tables = Tables(data / "ingest", data / "cut", data / "frames", data / "caption")
    embed_all(archive.bundle, tables, out=data / "embed", variant="fp32", batch=8, cut="windows")
    return publish(
        data / "embed", data / "cut", data / "ingest", data / "caption", index=archive.index,
    ).collection


def change_params(archive: Archive, **changes: object) -> None:
    """Keys of params.yaml, as `embed.batch`."""
    content = yaml.safe_load(archive.params.read_text())
    for name, value in changes.items():
        section, key = name.split("__")
        content[section][key] = value
    archive.params.write_text(yaml.safe_dump(content))


@pytest.fixture(scope="module", autouse=True)
def shared_registry() -> Iterator[None]:
    with sharing_registry():
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """An archive whose champion is an adapter, published twice, and its base beside it: to be copied, not written to."""
    from vidseek_training.export.onnx_export import export_champion
    from vidseek_training.settings import ParitySettings

    root = tmp_path_factory.mktemp("taught")
    archive, data = Archive(root), root / "data"
    rows = [*all_colours(1, "train"), *all_colours(2, "test")]
    write_archive(data, rows)
    write_tables(data, rows, title="first")
    write_viclip(root / "backbone")
    (root / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    change_params(archive, ingest__source="videos", export__max_clips=16, embed__batch=8)
    write_champion(root / "models" / "champion", root / "backbone", seed=7)
    selected = root / "models" / "champion" / "selected.json"
    # A folder, named as the stages name it: from the archive.
    selected.write_text(selected.read_text().replace(str(root / "backbone"), "backbone"))
    export_champion(
        root / "models" / "champion", backbone=str(root / "backbone"), pairs=data / "pairs" / "pairs.parquet",
        frames=data / "frames", out=archive.bundle, limits={"fp32": ParitySettings().fp32}, max_clips=16,
    )
    publish_live(archive)
    write_tables(data, rows, title="second")
    publish_live(archive)
    done = make_base(archive)
    assert done is not None and done.exported and done.built and done.num_embedded > 2
    return archive


@pytest.fixture
def archive(made: Archive, tmp_path: Path) -> Archive:
    return Archive(copy_tree(made.root, tmp_path / "archive"))


def files_under(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*")) if path.is_file()
    }


def live_side(archive: Archive) -> Any:
    """All that is told of what is live."""
    backend = archive.backend()
    kept = [each for each in list_collections(backend) if ALIAS in (*each.live_as, *each.kept_for)]
    verified = [verify(backend, collection=each.metadata.name) for each in kept]
    return backend.aliases()[ALIAS], kept, verified, measure_drift(archive)


def test_make_base__is_the_model_without_the_adapter_over_the_same_clips(made: Archive) -> None:
    from vidseek_training import backbones
    from vidseek_training.dataset.pair_set import load_pairs
    from vidseek_training.evaluation.embedding import embed_frames

    base, metadata = made.seen_by("base"), base_facts(made)
    assert metadata is not None
    live = next(each.metadata for each in list_collections(made.backend()) if ALIAS in each.live_as)
    assert metadata.encoder_version == EncoderSpec.load(base.bundle).encoder_version != live.encoder_version
    for key in ("num_points", "num_captions", "content"):
        assert getattr(metadata, key) == getattr(live, key)
    assert metadata.calibration is None
    model = backbones.load(made.root / "backbone")
    data = made.root / "data"
    pairs = load_pairs(data / "pairs" / "pairs.parquet", data / "frames", model.spec, split="test")
    wanted = dict(zip(pairs.table.clip_id, embed_frames(model, pairs.frames), strict=True))
    for point in made.backend().open(metadata.name).points(list(wanted)):
        np.testing.assert_allclose(point.vector, wanted[point.clip_id], atol=1e-4)
    settings = made.settings().search
    answer = open_searcher(base, settings, load_encoder(base, settings)).search_text("a bright red video")
    assert (answer.encoder_version, answer.collection) == (metadata.encoder_version, metadata.name) and answer.hits


def test_make_base__has_the_fields_that_the_archive_declares(archive: Archive) -> None:
    video = read_videos(archive.ingest)[0].video_id
    said = (Statement(video, "camera", ("gate",)),)
    write_fields(archive.fields, FieldTable(fields_of({"camera": "keyword"}), said))
    make_base(archive)
    base, settings = archive.seen_by("base"), archive.settings().search
    searcher = open_searcher(base, settings, load_encoder(base, settings))
    query = searcher.encode(QueryInputs(texts=("a bright red video",)))
    answer = searcher.search(query, SearchOptions(limit=5, filters={"camera": "gate"}))
    assert {(hit.video_id, hit.fields["camera"]) for hit in answer.hits} == {(video, "gate")}


def test_make_base__leaves_what_is_live_alone(archive: Archive) -> None:
    remove_base(archive)
    assert not archive.base.exists() and BASE_ALIAS not in archive.backend().aliases()
    before, files = live_side(archive), files_under(archive.root / "data") | files_under(archive.root / "models")
    assert [each.kept_for for each in before[1]] == [("clips",), ()] and all(each.passed for each in before[2])
    assert make_base(archive) is not None
    assert live_side(archive) == before
    assert files_under(archive.root / "data") | files_under(archive.root / "models") == files
    assert not (archive.root / "receipts").exists() and not (archive.root / "reports").exists()


def test_index__of_what_is_live_leaves_the_base_alone(archive: Archive) -> None:
    backend = archive.backend()
    alias = backend.aliases()[BASE_ALIAS]
    assert [each.live_as for each in list_collections(backend)] == [(), ("clips",), ("base",)]
    assert prune(backend) == []
    first = rollback(backend)
    assert backend.aliases()[ALIAS].collection == first
    data = archive.root / "data"
    for title in ("third", "fourth"):  # the first two are not needed any more: the base is
        write_tables(data, [*all_colours(1, "train"), *all_colours(2, "test")], title=title)
        publish_live(archive)
    assert first not in {each.metadata.name for each in list_collections(backend)}
    assert backend.aliases()[BASE_ALIAS] == alias and verify(backend, alias=BASE_ALIAS).passed


def test_make_base__again_does_nothing(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    before, index = files_under(archive.base), archive.backend().aliases()
    monkeypatch.setattr(Encoder, "embed_frames", None)
    monkeypatch.setattr(Encoder, "embed_texts", None)
    done = make_base(archive)
    assert done is not None and not done.did_something and done.removed == ()
    after = files_under(archive.base)
    assert {name for name in after if after[name] != before.get(name)} <= {"embed/embeddings.json"}  # a summary, the same
    assert set(after) == set(before) and archive.backend().aliases() == index


def test_make_base__goes_on_where_it_was_killed(archive: Archive) -> None:
    parts = archive.base / "embed" / PARTS_FOLDER
    before = read_parts(parts)
    [part] = parts.glob("*.parquet")
    part.unlink()
    done = make_base(archive)
    assert done is not None
    assert (done.exported, done.num_embedded, done.built) == (False, len(before.clip_ids), False)
    after = read_parts(parts)
    assert after.clip_ids == before.clip_ids and np.array_equal(after.vectors, before.vectors)


def test_make_base__of_a_new_archive_takes_the_place_of_the_old_and_is_said_to_be_old_until_then(archive: Archive) -> None:
    old = base_facts(archive)
    assert old is not None
    write_tables(archive.root / "data", [*all_colours(1, "train"), *all_colours(2, "test")], title="new")
    publish_live(archive)
    live = next(each.metadata for each in list_collections(archive.backend()) if ALIAS in each.live_as)
    assert live.content != old.content
    done = make_base(archive)
    assert done is not None and done.built and not done.exported
    assert done.removed == (old.name,)
    new = base_facts(archive)
    assert new is not None and (new.name, new.content) == (done.collection, live.content)


def test_make_base__where_nothing_was_taught_does_nothing(archive: Archive) -> None:
    remove_base(archive)
    shutil.rmtree(archive.root / "models" / "champion")
    write_champion(archive.root / "models" / "champion", archive.root / "backbone", seed=None)
    before = files_under(archive.root)
    assert make_base(archive) is None
    assert files_under(archive.root) == before


def test_make_base__variant_that_is_not_near_enough_is_refused(archive: Archive) -> None:
    change_params(archive, embed__variant="fp16")
    content = yaml.safe_load(archive.params.read_text())
    content["export"]["parity"]["fp16"]["min_cosine"] = 1.0
    archive.params.write_text(yaml.safe_dump(content))
    for _ in range(2):
        with raises(GateFailed, code="export-differs", naming="fp16"):
            make_base(archive)


def test_make_base__params_that_cannot_be_are_named(archive: Archive) -> None:
    archive.params.write_text("embed: {variant: fp32}\nexport: {max_clips: 3}\n")
    with raises(ConfigError, code="setting-out-of-range", naming="export.max_clips"):
        make_base(archive)


def test_command__says_what_it_did_and_search_asks_the_base(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VIDSEEK_HOME", str(archive.root))
    assert call(monkeypatch, "base") == 0
    assert "there was nothing to do" in capsys.readouterr().out
    answers = []
    for model in ("vidseek", "base"):
        assert call(monkeypatch, "search", "a dark red video", "--model", model, "--json") == 0
        answers.append(json.loads(capsys.readouterr().out))
    metadata = base_facts(archive)
    assert metadata is not None and answers[1]["collection"] == metadata.name != answers[0]["collection"]
    assert call(monkeypatch, "base", "--remove") == 0
    assert capsys.readouterr().out == f"removed {metadata.name}\n"
    assert call(monkeypatch, "search", "a dark red video", "--model", "base") == BaseMissing.exit_code
    assert "Run `vidseek base`" in capsys.readouterr().err
    assert call(monkeypatch, "search", "a dark red video", "--json") == 0
    assert json.loads(capsys.readouterr().out) == answers[0]
