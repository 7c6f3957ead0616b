"""Settings that are proposed: whatever a source holds, they are valid, and the archive gets through its gates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vidseek.new_archive.looks import SHIPPED, TWO_CORES, look_of
from vidseek.configuration.yaml_file import ParamsFile
from vidseek.new_archive.archive_folder import params_text
from vidseek.new_archive.backbone_choice import BackboneChoice
from vidseek.new_archive.proposal import LENGTHS, min_pairs, propose, provable_videos, rejected_share, window_seconds
from vidseek.new_archive.source_look import CaptionLook
from vidseek.params import Params, load_short_params
from vidseek_quality.thresholds import ArchiveThresholds
from vidseek_training.evaluation.proof import why_no_proof
from vidseek_training.settings import PairSettings, TrainSettings


@settings(max_examples=40, deadline=None)
@given(
    seconds=st.lists(st.floats(0.04, 20_000), min_size=1, max_size=8), num_rows=st.integers(0, 100),
    matched=st.floats(0, 1), timed=st.floats(0, 1), span_ms=st.integers(1, 10**7), num_refused=st.integers(0, 50),
    cores=st.integers(1, 256), name=st.text(min_size=1, max_size=20),
)
def test_propose__whatever_the_source_holds_params_are_valid_and_gates_let_it_through(
    seconds: list[float], num_rows: int, matched: float, timed: float, span_ms: int, num_refused: int, cores: int, name: str
) -> None:
    num_matched = int(matched * num_rows)
    num_timed = int(timed * num_matched)
    captions = CaptionLook(num_rows, num_matched, num_timed, median_span_ms=span_ms if num_timed else None)
    look = replace(look_of(seconds, captions=captions, num_refused=num_refused), text=f"/{name}")
    proposal = propose(look, replace(TWO_CORES, cores=cores), SHIPPED, captions=None)
    content = yaml.safe_load(yaml.safe_dump(proposal.params()))
    params = ParamsFile(Path("params.yaml"), content).checked(Params, content)
    assert params.train.preset == "auto"
    assert params.ingest.source == f"/{name}"
    assert 0 < params.cut.window_stride_seconds <= params.cut.window_length_seconds <= 60
    assert params.gates.archive.max_rejected_share >= min(1.0, look.captions.rejected_share, look.rejected_share)


@pytest.mark.parametrize(("seconds", "expected"), [((20.0,), 3), ((60.0,), 10), ((180.0,), 30), ((7200.0,), 30)])
def test_window_seconds__is_a_sixth_of_a_typical_video(seconds: tuple[float, ...], expected: float) -> None:
    assert window_seconds(look_of(seconds)) == expected


def test_window_seconds__follows_captioned_spans() -> None:
    timed = CaptionLook(num_rows=9, num_matched=9, num_timed=9, median_span_ms=4900)
    assert window_seconds(look_of([3600.0], captions=timed)) == 5


def test_window_seconds__holds_short_videos_whole_where_captions_have_no_times() -> None:
    untimed = CaptionLook(num_rows=9, num_matched=9)
    lengths = [3.0, 4.0, 5.0, 8.0, 9.0]
    assert window_seconds(look_of(lengths, captions=untimed)) >= sorted(lengths)[3]
    assert window_seconds(look_of([3600.0], captions=untimed)) in LENGTHS  # too long to be one clip
    notes = propose(look_of([3600.0], captions=untimed), TWO_CORES, SHIPPED, captions=None).notes
    assert any("no start and end" in note for note in notes)


def test_rejected_share__stays_at_its_default_where_little_is_refused() -> None:
    assert rejected_share(look_of([60.0] * 20)) is None
    odd = look_of([60.0] * 20, num_refused=10)
    wanted = rejected_share(odd)
    assert wanted is not None and 1 > wanted > odd.rejected_share > ArchiveThresholds().max_rejected_share


def test_params_text__has_a_comment_for_each_key_and_no_key_of_no_matter(tmp_path: Path) -> None:
    proposal = propose(look_of(), TWO_CORES, SHIPPED, captions="/notes/captions.csv")
    (tmp_path / "params.yaml").write_text(params_text(proposal), encoding="utf-8")
    params = load_short_params(tmp_path / "params.yaml")
    assert str(params.ingest.captions) == "/notes/captions.csv"
    lines = [line for line in params_text(proposal).splitlines() if ": " in line and not line.startswith("#")]
    assert len(lines) < 12 and all("#" in line for line in lines)


def test_notes__are_of_the_backbone_that_was_chosen_last() -> None:
    proposal = propose(look_of(), TWO_CORES, SHIPPED, captions=None)
    assert any(SHIPPED.name in note for note in proposal.notes)
    answered = proposal.with_answers(
        window_seconds=5.0, stride_seconds=2.5, backbone=BackboneChoice("openai/clip-vit-base-patch32", "named")
    )
    assert not any(SHIPPED.name in note for note in answered.notes)


def captioned(num_videos: int, *, each: int = 1, has_splits: bool = False) -> CaptionLook:
    return CaptionLook(num_videos * each, num_videos * each, num_videos=num_videos, has_splits=has_splits)


@given(num_videos=st.integers(1, 400), each=st.integers(1, 6))
def test_min_pairs__teaches_from_where_it_can_be_proven(num_videos: int, each: int) -> None:
    shares = PairSettings()
    pairs = num_videos * each * (1 - shares.validation_share - shares.test_share)
    is_taught = pairs >= (min_pairs(look_of(captions=captioned(num_videos, each=each))) or TrainSettings().min_pairs)
    can_be_proven = num_videos >= provable_videos()
    assert is_taught == can_be_proven == (not why_no_proof(int(num_videos * shares.validation_share)))


def test_propose__says_why_nothing_is_taught_yet() -> None:
    few = propose(look_of(captions=captioned(41)), TWO_CORES, SHIPPED, captions=None)
    note = next(each for each in few.notes if "too few to prove" in each)
    assert str(few.params()["train"]["settings"]["lora"]["min_pairs"]) in note and str(provable_videos()) in note
    for look in (captioned(provable_videos()), captioned(41, has_splits=True), CaptionLook()):
        proposal = propose(look_of(captions=look), TWO_CORES, SHIPPED, captions=None)
        assert proposal.min_pairs is None and "min_pairs" not in proposal.params()["train"]["settings"]["lora"]


def test_propose__reads_text_and_hears_speech_where_a_person_says_so() -> None:
    proposal = propose(
        look_of(), TWO_CORES, SHIPPED, captions=None, reads_text=True, speech=("faster-whisper", "/models/small")
    )
    content = proposal.params()
    assert ParamsFile(Path("params.yaml"), content).checked(Params, content).ocr.enabled
    assert content["speech"] == {"enabled": True, "engine": "faster-whisper", "model": "/models/small"}
