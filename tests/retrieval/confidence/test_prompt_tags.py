"""Tags by prompts: who gets them, what people say against them, and what a change of prompts costs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient

from tests.raising import raises
from tests.retrieval.archive import clip_row, video_row, write_archive
from tests.tiny_bundle import COLOURS, colour_vector, write_tiny_bundle
from vidseek_encoder.encoder import Encoder
from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_media.fields.declared import fields_of
from vidseek_media.fields.statement import Statement
from vidseek_media.fields.statements import FieldTable, write_fields
from vidseek_media.settings import FieldSettings
from vidseek_retrieval.confidence.calibration import Calibration, Context
from vidseek_retrieval.confidence.familiarity import Familiarity
from vidseek_retrieval.confidence.prompt_tags import AutoTags, Prompts, min_score, open_prompts, why_unapplied
from vidseek_retrieval.index.aliases import rollback
from vidseek_retrieval.index.backend import IndexBackend
from vidseek_retrieval.index.edge.backend import EdgeBackend
from vidseek_retrieval.index.publish import PublishReport, publish
from vidseek_retrieval.index.qdrant.backend import QdrantBackend
from vidseek_retrieval.search.browse import facets_of
from vidseek_retrieval.search.moments import Moment
from vidseek_retrieval.search.query import Query, SearchOptions
from vidseek_retrieval.search.searcher import Searcher
from vidseek_retrieval.settings import MAX_PROMPT, MAX_PROMPTS, PublishSettings, TagSettings

VERSION = "0123456789abcdef"
LAW = Calibration(VERSION, 40.0, (0.0, 0.0, 0.0), -2.0, 0.1, 50)
"""A prompt's best clip has a probability of 0.88, and one that scores 0.05 less has 0.5."""
_CAPTIONED = np.eye(60, 8, dtype=np.float32) + np.float32(0.1)
KNOWN = Familiarity.of(["red boat"] * 60, _CAPTIONED / np.linalg.norm(_CAPTIONED, axis=1)[:, None])
ASKED = np.full(8, 8**-0.5, np.float32)
VIDEOS = [f"{number:032x}" for number in range(1, 5)]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp("prompts") / "bundle"
    write_tiny_bundle(folder)
    return Encoder.load(folder, towers=["text"], threads=1)


def settings_of(prompts: object, **others: object) -> TagSettings:
    return TagSettings.of({"prompts": prompts, **others})


class Archive:
    """Four videos of two clips each: one of each colour, the second clip of a video white."""

    def __init__(self, root: Path, backend: IndexBackend, encoder: Encoder) -> None:
        self.root, self.backend, self.encoder = root, backend, encoder
        clips = [clip_row(name, at, 3000 * at, 3000 * at + 3000) for name in VIDEOS for at in range(2)]
        self.vectors = np.stack([
            colour_vector(colour) for name in COLOURS for colour in (COLOURS[name], COLOURS["white"])
        ])
        self.dirs = write_archive(root, [video_row(name, f"{name}.mp4") for name in VIDEOS], clips, self.vectors)
        self.embedded = 0

    def publish(
        self, prompts: object, *said: Statement, fields: Mapping[str, object] | None = None, **others: Any
    ) -> PublishReport:
        write_fields(self.root / "fields", FieldTable(fields_of(fields or {}), said))
        wanted = settings_of(prompts, **others)
        opened = open_prompts(wanted, self.encoder, LAW, kept=self.root / "kept") if wanted.prompts else None
        return publish(
            **self.dirs, index=self.backend, fields_dir=self.root / "fields", prompts=opened,  # type: ignore[arg-type]
            settings=PublishSettings(compact_share=1.0, keep_previous=3),
        )

    def clips(self, **filters: object) -> set[tuple[int, int]]:
        """The place of the video in `VIDEOS`, and that of the clip in the video, of what is found."""
        query = Query.of_vector(self.vectors[0], VERSION)
        answer = Searcher(self.backend, None).search(query, SearchOptions(limit=100, filters=filters))
        return {(VIDEOS.index(hit.video_id), hit.start_ms // 3000) for hit in answer.hits}

    def fields(self) -> dict[str, Any]:
        """The fields of the first clip, which is red."""
        query = Query.of_vector(self.vectors[0], VERSION)
        return dict(Searcher(self.backend, None).search(query, SearchOptions(limit=1)).hits[0].fields)


@pytest.fixture(params=["embedded", "server"])
def archive(request: pytest.FixtureRequest, tmp_path: Path, encoder: Encoder) -> Iterator[Archive]:
    backend = EdgeBackend(tmp_path / "index") if request.param == "embedded" else QdrantBackend(QdrantClient(":memory:"))
    yield Archive(tmp_path, backend, encoder)


def test_tags__clips_that_fit_a_prompt_have_its_tag(archive: Archive) -> None:
    report = archive.publish({"warm": "red", "cold": ["blue", "green"], "none": "<unk>"})
    assert {each.tag: each.num_clips for each in report.auto_tags if each.tag != "none"} == {"warm": 1, "cold": 2}
    assert archive.clips(tags="warm") == archive.clips(auto_tags="warm") == {(0, 0)}
    assert archive.clips(tags="cold") == {(1, 0), (2, 0)}
    assert archive.fields()["tags"] == archive.fields()["auto_tags"] and "warm" in archive.fields()["tags"]
    live = archive.backend.open(archive.backend.aliases()["clips"].collection)
    assert {"tags", "auto_tags"} <= set(facets_of(live).fields)
    live.close()


def test_tags__what_people_say_comes_after_prompts(archive: Archive) -> None:
    people = [
        Statement(VIDEOS[0], "tags", ("warm",), 0, 3000, removed=True),
        Statement(VIDEOS[1], "tags", ("cold",), removed=True),
        Statement(VIDEOS[2], "tags", ("cold", "sea"), 0, 3000),
    ]
    archive.publish({"warm": "red", "cold": ["blue", "green"]}, *people, fields={"tags": ["keyword"]})
    assert archive.clips(tags="warm") == set()
    assert archive.clips(tags="cold") == archive.clips(tags="sea") == {(2, 0)}
    assert archive.clips(auto_tags="cold") == set()  # the one that is left is a person's too
    assert archive.fields() == {}


def test_tags__leave_the_archive_the_same(archive: Archive) -> None:
    contents = []
    for prompts in ({"warm": "red"}, {}):  # the model before it was taught has no calibration, and so no tags
        archive.publish(prompts)
        live = archive.backend.open(archive.backend.aliases()["clips"].collection)
        contents.append(live.metadata.content)
        live.close()
    assert contents[0] == contents[1] != ""


@pytest.mark.parametrize("archive", ["server"], indirect=True)
def test_tags__a_change_of_prompts_writes_what_it_concerns_and_embeds_only_new_texts(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded: list[str] = []
    embed = archive.encoder.embed_texts

    def counted(texts: list[str]) -> Any:
        embedded.extend(texts)
        return embed(texts)

    monkeypatch.setattr(archive.encoder, "embed_texts", counted)
    archive.publish({})
    first = archive.publish({"warm": "red"})
    assert (first.built, first.num_written, first.num_deleted, embedded) == (True, 1, 0, ["red"])
    again = archive.publish({"warm": "red"})
    assert not again.built and not again.moved
    more = archive.publish({"warm": "red", "cold": "blue"})
    assert (more.num_written, embedded) == (1, ["red", "blue"])
    least = archive.publish({"warm": "red", "cold": "blue"}, min_confidence=0.999)
    assert [each.num_clips for each in least.auto_tags] == [0, 0] and least.num_written == 2
    rollback(archive.backend)
    assert archive.clips(tags="cold") == {(2, 0)} and embedded == ["red", "blue"]
    off = archive.publish({})
    assert off.moved and archive.fields() == {}


@settings(max_examples=25, deadline=None)
@given(st.floats(1, 80), st.floats(-2, 2), st.floats(-0.5, 1), st.floats(0.01, 0.99), st.floats(-2, 2))
def test_min_score__is_where_the_law_gives_the_least_probability(
    slope: float, bias: float, first: float, confidence: float, weight: float
) -> None:
    law = replace(LAW, slope=slope, bias=bias, weights=(weight, 0.1, 1.0), familiarity=KNOWN)
    moment = Moment("v", 0, 1, first, "c", 0, ("c",))
    context = Context.of([moment], familiarity=KNOWN, text="red car", vector=ASKED)
    [of_best] = law.confidences([moment], context)
    assert 0.01 < of_best < 0.99
    assert min_score(law, "red car", ASKED, first, of_best) == pytest.approx(first, abs=0.02 / slope)
    below = (math.log(of_best / (1 - of_best)) - math.log(confidence / (1 - confidence))) / slope
    assert min_score(law, "red car", ASKED, first, confidence) == pytest.approx(first - below, abs=0.02 / slope)


def test_prompts__without_a_calibration_are_not_applied_and_say_so(encoder: Encoder, tmp_path: Path) -> None:
    wanted = settings_of({"warm": "red"})
    assert why_unapplied(wanted, LAW) == why_unapplied(settings_of({}), None) == ""
    assert why_unapplied(wanted, None).startswith("no calibration was fitted, so the prompts of 1 tags are not applied")
    assert "scores say nothing" in why_unapplied(wanted, replace(LAW, slope=0.0))
    by_score = settings_of({"warm": "red"}, min_score=0.9)
    assert why_unapplied(by_score, None) == ""
    clips = np.stack([colour_vector(COLOURS["red"]), colour_vector(COLOURS["blue"])])
    tags = open_prompts(by_score, encoder, None, kept=tmp_path).tag(clips, np.arange(2))
    assert tags.of_row(0) == ["warm"] and tags.of_row(1) == [] and tags.counts[0].min_scores == (0.9,)


def test_prompts__scores_in_blocks_are_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    texts = {"a": ["x", "y"], "b": ["z"]}
    prompts = Prompts(texts, rows[:3], VERSION, settings_of(texts, min_confidence=0.1), LAW)
    places = np.random.default_rng(1).permutation(50)[:47]
    whole = prompts.tag(rows, places)
    monkeypatch.setattr("vidseek_retrieval.confidence.prompt_tags.ROWS_AT_ONCE", 5)
    blocks: AutoTags = prompts.tag(rows, places)
    assert (whole.has == blocks.has).all() and whole.has.any() and whole.source(0, 47) == blocks.source(0, 47)


def test_prompts__of_another_encoder_or_too_long_are_refused(archive: Archive, tmp_path: Path) -> None:
    opened = open_prompts(settings_of({"warm": "red"}), archive.encoder, LAW, kept=tmp_path / "kept")
    with raises(ArtifactError, code="other-encoder", naming="prompts of tags"):
        publish(**archive.dirs, index=archive.backend, prompts=replace(opened, encoder_version="f" * 16))  # type: ignore[arg-type]
    with raises(ConfigError, code="prompt-too-long", naming=["'warm'", 6]):
        open_prompts(settings_of({"warm": ["red", "red " * 5]}), archive.encoder, LAW, kept=tmp_path / "kept")
    open_prompts(settings_of({"warm": "red " * 4}), archive.encoder, LAW, kept=tmp_path / "kept")


@pytest.mark.parametrize(("prompts", "naming"), [
    ({"night": " "}, "a prompt of the tag 'night' has 0 characters"),
    ({"night": ["dark", "\n"]}, "a prompt of the tag 'night' has 0 characters"),
    ({"night": []}, "wanted a prompt or a list"), ({"night": None}, "wanted a prompt or a list"),
    ({"night": [7]}, "the prompt is a int"), ({"night": "a\x00b"}, "U+0000"),
    ({"night": "x" * (MAX_PROMPT + 1)}, f"wanted 1 to {MAX_PROMPT}"),
    ({"": "dark"}, "wanted a text of up to 256"), ({"n" * 257: "dark"}, "wanted a text of up to 256"),
    ({False: "dark"}, "write it in quotes"), ({1: "dark"}, "write it in quotes"), ({None: "dark"}, "write it in quotes"),
    ({"night": "dark", " night ": "black"}, "there twice"), (["dark"], "wanted tags with their prompts"),
    ({"night": [str(number) for number in range(MAX_PROMPTS + 1)]}, f"at most {MAX_PROMPTS}"),
])
def test_settings__prompts_that_cannot_be_are_refused(prompts: object, naming: str) -> None:
    with raises(ConfigError, code="setting-out-of-range", naming=naming):
        settings_of(prompts)


def test_settings__auto_tags_is_no_field_of_ones_own() -> None:
    with raises(ConfigError, code="setting-out-of-range", naming="auto_tags"):
        FieldSettings.of({"auto_tags": ["keyword"]})
    own = {f"f{number}": "keyword" for number in range(32)}
    assert len(fields_of({**own, "tags": ["keyword"], "auto_tags": ["keyword"]})) == 34
