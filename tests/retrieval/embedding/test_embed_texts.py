from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.raising import raises
from tests.retrieval.archive import VERSION, clip_row, unit_rows, video_row
from tests.tiny_bundle import COLOURS, write_tiny_bundle
from vidseek_encoder.encoder import Encoder
from vidseek_media.errors import ArtifactError, GateFailed
from vidseek_media.records import share_half
from vidseek_media.tables import CAPTIONS, CLIPS, VIDEOS, write_table
from vidseek_retrieval.embedding import embed_texts as embed_texts_module
from vidseek_retrieval.embedding.embed_texts import StoredTexts, clip_texts, embed_texts, text_id_of
from vidseek_retrieval.embedding.embedding_parts import write_part
from vidseek_retrieval.embedding.part_store import Space, write_summary


def caption_row(video_id: str, clip: dict[str, object] | None, text: str) -> dict[str, object]:
    clip_id = clip["clip_id"] if clip else None
    return {**dict.fromkeys(CAPTIONS.names, ""), "video_id": video_id, "clip_id": clip_id, "text": text, "cost_usd": 0.0}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Two videos: one titled, with two captions of parts and one of the whole; one with neither title nor caption."""
    one, two = "a" * 32, "b" * 32
    videos = [video_row(one, "one.mp4", title="Harbour"), video_row(two, "my_tape.mp4")]
    early, late = clip_row(one, 0, 0, 1500, cut=("captions",)), clip_row(one, 3, 4500, 9000, cut=("captions",))
    windows = [clip_row(one, 1, 0, 3000), clip_row(one, 2, 3000, 6000), clip_row(two, 0, 0, 3000)]
    write_table(tmp_path / "ingest" / "videos.parquet", videos, VIDEOS)
    write_table(tmp_path / "cut" / "clips.parquet", [early, late, *windows], CLIPS)
    captions = [caption_row(one, late, "a van"), caption_row(one, early, "a crane"), caption_row(one, None, "a quay"),
                caption_row(one, early, "a crane")]
    write_table(tmp_path / "caption" / "captions.parquet", captions, CAPTIONS)
    return tmp_path / "ingest", tmp_path / "cut", tmp_path / "caption"


def test_clip_texts__captions_that_overlap_by_half_of_the_shorter(folders: tuple[Path, Path, Path]) -> None:
    texts = clip_texts(*folders, cut="windows")
    by_span = {
        (video, start): texts[str(clip_row(video * 32, 0, start, start + 3000)["clip_id"])]
        for video, start in (("a", 0), ("a", 3000), ("b", 0))
    }
    # [0, 1500) lies in the first window; 1,500 of [4500, 9000) are half of the second.
    assert by_span["a", 0].spoken == "Harbour; a quay; a crane"
    assert by_span["a", 3000].spoken == "Harbour; a quay; a van"
    assert (by_span["b", 0].spoken, by_span["b", 0].words) == ("", "my tape")
    assert by_span["a", 0].words == by_span["a", 0].spoken
    assert len(clip_texts(*folders, cut="captions")) == 2


SPANS = st.tuples(st.integers(0, 30), st.integers(1, 12))
"""Start and length."""


@given(
    captions=st.lists(st.tuples(st.sampled_from("ab"), st.one_of(st.none(), SPANS), st.sampled_from("pqrs")), max_size=12),
    clips=st.lists(st.tuples(st.sampled_from("ab"), SPANS), min_size=1, max_size=4, unique=True),
    pairs_at_once=st.sampled_from([1, 3, 2**20]),
)
def test_clip_texts__of_a_span_are_those_that_a_look_at_all_finds(
    tmp_path_factory: pytest.TempPathFactory, captions: list[tuple[str, tuple[int, int] | None, str]],
    clips: list[tuple[str, tuple[int, int]]], pairs_at_once: int,
) -> None:
    root = tmp_path_factory.mktemp("texts")
    windows = {(video, at, at + length): clip_row(video * 32, 0, at, at + length) for video, (at, length) in clips}
    spans = [(video, span and (span[0], sum(span)), text) for video, span, text in captions]
    cut = {(video, *span): clip_row(video * 32, 1, *span, cut=("captions",)) for video, span, _ in spans if span}
    rows = [caption_row(video * 32, cut[video, *span] if span else None, text) for video, span, text in spans]
    cut = {**cut, **{key: {**row, "cut": ["captions", "windows"] if key in cut else ["windows"]}
                     for key, row in windows.items()}}
    write_table(root / "videos.parquet", [video_row(each * 32, f"{each}.mp4") for each in "ab"], VIDEOS)
    write_table(root / "clips.parquet", list(cut.values()), CLIPS)
    write_table(root / "captions.parquet", rows, CAPTIONS)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(embed_texts_module, "_PAIRS_AT_ONCE", pairs_at_once)
        texts = clip_texts(root, root, root, cut="windows")
    for (video, start, end), row in windows.items():
        of_video = [(span, text) for name, span, text in spans if name == video]
        whole = sorted(text for span, text in of_video if span is None)
        timed = sorted((span, text) for span, text in of_video if span is not None)
        said = [text for span, text in timed if share_half((start, end), span)]
        assert texts[str(row["clip_id"])].spoken == "; ".join(dict.fromkeys([*whole, *said]))
    assert len(texts) == len(windows)


@pytest.fixture
def encoder(tmp_path: Path) -> Encoder:
    write_tiny_bundle(tmp_path / "bundle", encoder_version=VERSION)
    return Encoder.load(tmp_path / "bundle", threads=1, towers=["text"])


def test_embed_texts__each_once_resumed_and_read_back(tmp_path: Path, encoder: Encoder) -> None:
    texts = [*COLOURS, "red blue", "", "red"]
    report = embed_texts(texts, encoder, out=tmp_path)
    assert (report.num_texts, report.num_embedded, report.num_parts) == (5, 5, 1)
    vectors = StoredTexts.open(tmp_path, encoder_version=VERSION)
    assert set(vectors) == {text_id_of(text) for text in texts if text}
    for text in texts:
        if text:
            np.testing.assert_allclose(vectors[text_id_of(text)], encoder.embed_texts([text])[0], atol=1e-6)
    before = {path.name: path.read_bytes() for path in (tmp_path / "texts").iterdir()}
    assert embed_texts(texts, encoder, out=tmp_path).num_embedded == 0
    killed = next((tmp_path / "texts").iterdir())
    killed.write_bytes(killed.read_bytes()[:100])
    assert embed_texts(texts, encoder, out=tmp_path).num_embedded == 5
    assert {path.name: path.read_bytes() for path in (tmp_path / "texts").iterdir()} == before
    assert embed_texts([*texts, "white red"], encoder, out=tmp_path).num_embedded == 1
    after = StoredTexts.open(tmp_path, encoder_version=VERSION)
    assert {text_id: after[text_id].tobytes() for text_id in vectors} == {
        text_id: vector.tobytes() for text_id, vector in vectors.items()
    }
    fewer = embed_texts(["red"], encoder, out=tmp_path)
    assert (fewer.num_embedded, fewer.num_parts, len(list((tmp_path / "texts").iterdir()))) == (0, 1, 1)
    assert embed_texts([], encoder, out=tmp_path).num_texts == 0
    assert StoredTexts.open(tmp_path, encoder_version=VERSION) == {}


def test_stored_texts__another_encoder_version_is_refused(tmp_path: Path, encoder: Encoder) -> None:
    embed_texts(["red"], encoder, out=tmp_path)
    with raises(ArtifactError, code="other-encoder", naming=(VERSION, "f" * 16)):
        StoredTexts.open(tmp_path, encoder_version="f" * 16)


def test_stored_texts__a_part_is_read_once_one_of_its_vectors_is_wanted(tmp_path: Path) -> None:
    space = Space(VERSION, "fp32", 8)
    ids = sorted(text_id_of(str(number)) for number in range(40))
    vectors = dict(zip(ids, unit_rows(40, 8), strict=True))
    for part, some in (("a", ids[:20]), ("b", ids[20:])):
        rows = np.stack([vectors[each] for each in some])
        rows[-1] *= 2 if part == "b" else 1  # of wrong length
        write_part(
            tmp_path / "texts" / f"{part}.parquet", clip_ids=some, vectors=rows, encoder_version=VERSION, variant="fp32",
            digests=some,
        )
    write_summary(tmp_path / "texts", space, {"a.parquet": 20, "b.parquet": 20})
    texts = StoredTexts.open(tmp_path, encoder_version=VERSION)
    assert len(texts) == 40 and set(texts) == set(ids) and ids[39] in texts and "f" * 32 not in texts
    np.testing.assert_array_equal(texts[ids[3]], vectors[ids[3]])
    np.testing.assert_array_equal(texts.first(20), np.stack([vectors[each] for each in ids[:20]]))
    with raises(GateFailed, code="vectors-not-unit", naming=(ids[39],)):
        texts[ids[20]]
    assert texts.get("f" * 32) is None


def test_stored_texts__a_text_in_two_parts_is_refused(tmp_path: Path) -> None:
    for part in "ab":
        write_part(
            tmp_path / "texts" / f"{part}.parquet", clip_ids=[text_id_of("red")], vectors=unit_rows(1, 8),
            encoder_version=VERSION, variant="fp32",
        )
    with raises(ArtifactError, code="clips-repeated", naming=(text_id_of("red"),)):
        StoredTexts.open(tmp_path, encoder_version=VERSION)


def test_stored_texts__of_vectors_of_different_length_are_refused(tmp_path: Path) -> None:
    for part, dimension in (("a", 8), ("b", 4)):
        write_part(
            tmp_path / "texts" / f"{part}.parquet", clip_ids=[text_id_of(part)], vectors=unit_rows(1, dimension),
            encoder_version=VERSION, variant="fp32",
        )
    texts = StoredTexts.open(tmp_path, encoder_version=VERSION)
    with raises(ArtifactError, code="versions-mixed", naming=("texts",)):
        texts.first(2)
