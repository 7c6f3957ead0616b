"""The whole loop, as a user runs it, on a world of a few scenes."""

import json
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from tests.e2e.conftest import Checkout


def _read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_repro__every_stage_left_what_it_promises(looped: Checkout) -> None:
    root = looped.path
    videos = pd.read_parquet(root / "data/ingest/videos.parquet")
    clips = pd.read_parquet(root / "data/cut/clips.parquet")
    frames = pd.read_parquet(root / "data/frames/frames.parquet")
    pairs = pd.read_parquet(root / "data/pairs/pairs.parquet")
    assert len(videos) == 29
    assert set(frames.clip_id) == set(clips.clip_id)
    counts = pairs.split.value_counts().to_dict()
    assert (counts["train"], counts["test"]) == (24, 31)
    assert 25 <= counts["validation"] <= 26  # a video of one scene may look like one of training, and is then left out
    assert pairs.groupby("video_id").split.nunique().max() == 1
    assert (root / "models/adapters/lora/adapter/adapter_config.json").is_file()
    assert (root / "reports/gates/pairs/report.html").is_file()
    assert (root / "reports/gates/embeddings/report.html").is_file()
    assert "Right and wrong answers" in (root / "reports/report.html").read_text()
    shown = _read(root / "receipts/report.json")
    assert shown["attached"] == bool(shown["run_id"])  # the base has no run
    if shown["attached"]:
        kept = root / ".vidseek/mlartifacts" / shown["run_id"] / "artifacts" / "archive"
        assert (kept / "report.html").read_bytes() == (root / "reports/report.html").read_bytes()
        assert (kept / "evaluate" / "retrieval.png").is_file()
    version = _read(root / "models/encoder/encoder.json")["encoder_version"]
    receipt = _read(root / "receipts/publish.json")
    assert receipt["collection"].startswith(f"clips-{version}-")
    assert receipt["num_points"] == sum("windows" in cut for cut in clips.cut)
    assert receipt["num_captions"] == receipt["num_words"] == receipt["num_points"]
    assert receipt["verification"]["recall_at_10"] >= 0.99
    assert (root / "data/calibrate/calibration.json").is_file()
    assert "calibration" in (root / "reports/calibrate/metrics.json").read_text()
    assert _read(root / "models/encoder/parity.json")["fp32"]["min_cosine_video"] >= 0.9999


def test_repro__lora_wins_if_it_is_proven_better(looped: Checkout) -> None:
    selected = _read(looped.path / "models/selected.json")
    challenge = selected["challenges"][0]
    assert challenge["challenger"] == "lora" and challenge["champion"] == "base"
    assert (selected["setting"] == "lora") == challenge["won"]
    if challenge["gain"] is not None:  # it was better on the choosing half, and was put to the proof
        assert challenge["won"] == (challenge["low"] > 0)
        assert (looped.path / ".vidseek/proofs.jsonl").is_file()
    assert selected["proof"]["num_groups"] >= 20


def test_repro__again_finds_nothing_to_do(looped: Checkout) -> None:
    before = (looped.path / "dvc.lock").read_bytes()
    said = looped.succeed("dvc", "repro")
    ran = {line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")}
    assert ran == {"ingest", "general", "subtitles"}  # what lies outside of DVC
    assert (looped.path / "dvc.lock").read_bytes() == before


def test_metrics_and_plots__give_numbers_and_curves(looped: Checkout) -> None:
    metrics = json.loads(looped.succeed("dvc", "metrics", "show", "--json"))
    figures = metrics[""]["data"]["reports/evaluate/metrics.json"]["data"]
    assert 0 <= figures["galleries"]["unseen"]["adapted"]["r1"] <= 1
    assert figures["galleries"]["unseen"]["exported"]["r10"] == figures["galleries"]["unseen"]["adapted"]["r10"]
    assert figures["retention"]["num_queries"] == 16
    looped.succeed("dvc", "plots", "show", "-o", "plots", "--json")


def test_search__the_command_finds_moments_as_calibrate_counted_them(looped: Checkout) -> None:
    root = looped.path
    pairs = pd.read_parquet(root / "data/pairs/pairs.parquet")
    clips = pd.read_parquet(root / "data/cut/clips.parquet").set_index("clip_id")
    test = pairs[(pairs.split == "test") & (pairs.gallery == "unseen")]
    from vidseek_encoder.encoder import Encoder
    from vidseek_retrieval.search.query import QueryInputs, SearchOptions
    from vidseek_retrieval.search.searcher import Searcher
    from vidseek_retrieval.settings import SearchSettings

    settings = SearchSettings(merge_margin=0.02)
    searcher = Searcher.open(root / "index", Encoder.load(root / "models/encoder"), settings=settings)
    by_pictures, right = SearchOptions(limit=1, fields=("visual",)), 0
    for row in test.itertuples():
        hit = searcher.search(searcher.encode(QueryInputs(texts=(row.caption,))), by_pictures).hits[0]
        truth = clips.loc[row.clip_id]
        shared = min(hit.end_ms, truth.end_ms) - max(hit.start_ms, truth.start_ms)
        joined = max(hit.end_ms, truth.end_ms) - min(hit.start_ms, truth.start_ms)
        right += hit.video_id == row.video_id and shared / joined >= 0.5
    reported = _read(root / "reports/calibrate/metrics.json")["moments"]["unseen"]["r1"]
    assert right / len(test) == pytest.approx(reported, abs=1e-3)
    query = test.caption.iloc[0]
    answer = json.loads(looped.succeed("vidseek", "search", query, "--limit", "3", "--json"))
    assert answer["hits"] == searcher.search_text(query, limit=3).to_json()["hits"]


def test_select__the_registry_names_the_champion(looped: Checkout) -> None:
    selected = _read(looped.path / "models/selected.json")
    receipt = _read(looped.path / "receipts/registry.json")
    assert receipt["setting"] == selected["setting"]
    if selected["run_id"]:
        asked = (
            "import mlflow; mlflow.set_tracking_uri('sqlite:///.vidseek/mlflow.db');"
            "print(mlflow.MlflowClient().get_model_version_by_alias('vidseek-adapter', 'champion').run_id)"
        )
        assert looped.succeed("python", "-c", asked).strip().splitlines()[-1] == selected["run_id"]


@pytest.mark.slow
def test_pull__a_colleague_publishes_and_searches_without_training(looped: Checkout, tmp_path: Path) -> None:
    remote, clone = tmp_path / "remote", tmp_path / "clone"
    looped.succeed("dvc", "remote", "add", "-f", "-d", "local", str(remote))
    looped.succeed("dvc", "push", "-q")
    colleague = make_checkout_of(looped, clone)
    colleague.succeed("dvc", "pull", "-q")
    assert not (clone / "index").exists()
    colleague.succeed("dvc", "repro", "--single-item", "publish")
    mine = json.loads(looped.succeed("vidseek", "search", "a large red disc", "--json"))
    theirs = json.loads(colleague.succeed("vidseek", "search", "a large red disc", "--json"))
    assert theirs == mine


def make_checkout_of(looped: Checkout, path: Path) -> Checkout:
    """A git clone of the looped checkout with its dvc.lock and remote committed."""
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run(["git", "add", "-A"], cwd=looped.path, check=True, capture_output=True)
    subprocess.run(["git", *identity, "commit", "-qm", "looped"], cwd=looped.path, check=True, capture_output=True)
    subprocess.run(["git", "clone", "-q", str(looped.path), str(path)], check=True, capture_output=True)
    return Checkout(path)


@pytest.mark.slow
def test_decisions__are_taken_up_by_the_next_repro(looped: Checkout, tmp_path: Path) -> None:
    """One video is said to be a copy of another: the published clips say so, and without the table nothing does."""
    from vidseek_retrieval.dedup.video_matches import Duplicate, write_duplicates
    from vidseek_retrieval.index.edge.backend import EdgeBackend

    def marked() -> set[str]:
        backend = EdgeBackend(looped.path / "index")
        points = backend.open(backend.aliases()["clips"].collection).scroll()
        return {str(point.payload.get("duplicate_of", "")) for point in points}

    videos = pd.read_parquet(looped.path / "data/ingest/videos.parquet").sort_values("video_id")
    one, other = list(videos.itertuples())[:2]
    table = looped.path / "data/decisions/duplicates.parquet"
    assert marked() == {""}
    write_duplicates(table, [
        Duplicate(one.video_id, 0, one.duration_ms, other.video_id, 0, other.duration_ms, "whole", 0.95)
    ])
    assert "publish" in looped.succeed("dvc", "status", "publish", "pairs")
    assert "Running stage 'publish'" in looped.succeed("dvc", "repro", "--single-item", "publish")
    assert marked() == {"", other.video_id}
    table.unlink()
    looped.succeed("dvc", "repro", "--single-item", "publish")
    assert marked() == {""}
