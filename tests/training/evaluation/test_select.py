from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch

from tests.raising import raises
from tests.training.champions import write_adapter, write_challenger, write_champion
from tests.training.tiny import Archive, Row, all_colours, write_archive
from vidseek_encoder.bundle import file_sha256
from vidseek_media.errors import ArtifactError
from vidseek_media.tables import GROUPS, write_table
from vidseek_training import backbones, tracking
from vidseek_training.dataset.pair_set import PairSet, load_pairs
from vidseek_training.dataset.sampling import Data
from vidseek_training.evaluation.champion import BASE, ProofRows, Selected, adapter_of, read_selected
from vidseek_training.evaluation.embedding import embed_pairs
from vidseek_training.evaluation.proof_ledger import LEDGER, ProofLedger, lines_of
from vidseek_training.evaluation.retrieval_metrics import judge
from vidseek_training.evaluation.select import crown, select
from vidseek_training.fitting import lora
from vidseek_training.fitting.train import Outcome, gallery_hash
from vidseek_training.fitting.trainer import Trainer
from vidseek_training.settings import TrainSettings

VIDEOS, CLIPS = 50, 2
NUM = VIDEOS // 2 * CLIPS
"""Queries of each half."""
FIRST, LAST = [1] * NUM, [NUM] * NUM
ROWS = ProofRows("r", 1, 1, 1, 0.0, None)


def rows_of(count: int) -> list[Row]:
    """Validation pairs of so many videos, each of two clips."""
    combinations = all_colours(0, "validation")
    return [
        replace(combinations[(video * CLIPS + index) % 16], video=video + 100, index=index)
        for video in range(count) for index in range(CLIPS)
    ]


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """An archive with enough videos in validation to prove something."""
    rows = [*all_colours(1, "train"), *all_colours(2, "train"), *rows_of(VIDEOS)]
    return write_archive(tmp_path_factory.mktemp("watched"), rows)


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory, watched: Archive, backbone: Path) -> Path:
    """An adapter that has learned the colours."""
    settings = TrainSettings(
        rank=8, alpha=16, dropout=0.0, targets=("attention", "mlp", "projections", "token_embedding"), steps=30, batch=16,
        learning_rate=2e-2, shift_share=0.0, brightness=0.02, word_dropout=0.0, evaluate_every=15,
    )
    torch.manual_seed(0)  # the adapter is drawn, and thirty steps of some draws teach next to nothing
    model = backbones.load(backbone)
    halves = {"train": None, "validation": "choosing"}
    data = Data(*(
        load_pairs(watched.pairs, watched.frames, model.spec, split=split, half=half)  # type: ignore[arg-type]
        for split, half in halves.items()
    ), None)
    fitting = Trainer(model, settings, data)
    fitting.run()
    folder = tmp_path_factory.mktemp("taught") / "adapter"
    lora.save(fitting.handle, fitting.model, folder)
    return folder


def choose(root: Path, archive: Archive, backbone: Path, settings: list[str]) -> Selected:
    return select(
        root / "adapters", settings, backbone=str(backbone), pairs=archive.pairs, frames=archive.frames,
        champion=root / "champion", out=root / "selected.json", ledger=root / LEDGER, resamples=500, seed=0,
    )


def half_of(archive: Archive, backbone: Path, half: str) -> PairSet:
    spec = backbones.load(backbone).spec
    return load_pairs(archive.pairs, archive.frames, spec, split="validation", half=half)  # type: ignore[arg-type]


def ranks_of(archive: Archive, backbone: Path, adapter: Path | None, half: str = "choosing") -> np.ndarray:
    pairs = half_of(archive, backbone, half)
    return judge(embed_pairs(lora.merged(backbones.load(backbone), adapter), pairs), pairs.table).text_ranks


def test_select__a_challenger_that_is_better_wins(
    tmp_path: Path, watched: Archive, backbone: Path, taught: Path
) -> None:
    folder = write_challenger(tmp_path / "adapters", "lora", backbone, watched, FIRST, run_id="run7", adapter=taught)
    selected = choose(tmp_path, watched, backbone, ["lora"])
    (challenge,) = selected.challenges
    assert (challenge.challenger, challenge.champion, challenge.won) == ("lora", BASE, True)
    # The gain is that of the proof half, whatever the choosing half said.
    gains = 1 / ranks_of(watched, backbone, taught, "proof") - 1 / ranks_of(watched, backbone, None, "proof")
    assert challenge.gain == pytest.approx(gains.mean(), abs=1e-4) and challenge.low is not None and challenge.low > 0
    assert challenge.choosing_gain == pytest.approx((1 - 1 / ranks_of(watched, backbone, None)).mean(), abs=1e-4)
    assert (selected.setting, selected.run_id, selected.mrr, selected.num_queries) == ("lora", "run7", 1.0, NUM)
    proof = selected.proof
    assert (proof.num_queries, proof.num_groups, proof.num_choosing_groups) == (NUM, VIDEOS // 2, VIDEOS // 2)
    assert (proof.times_used, proof.alpha) == (0, 0.0125)
    digest = file_sha256(folder / "adapter" / "adapter_model.safetensors")
    assert selected.adapter_sha256 == digest
    kept = adapter_of(tmp_path / "champion")
    assert kept is not None and file_sha256(kept / "adapter_model.safetensors") == digest
    assert read_selected(tmp_path / "champion") == selected
    assert (tmp_path / "selected.json").read_bytes() == (tmp_path / "champion" / "selected.json").read_bytes()


def test_select__what_chose_the_checkpoint_proves_nothing(tmp_path: Path, watched: Archive, backbone: Path) -> None:
    # Perfect on the choosing half, and in truth shaken at random.
    write_challenger(tmp_path / "adapters", "lucky", backbone, watched, FIRST)
    selected = choose(tmp_path, watched, backbone, ["lucky"])
    (challenge,) = selected.challenges
    assert challenge.choosing_gain > 0.5 and challenge.verdict == "not proven" and not challenge.won
    assert challenge.low is not None and challenge.low <= 0
    assert (selected.setting, selected.adapter_sha256, selected.run_id) == (BASE, "", "")
    assert adapter_of(tmp_path / "champion") is None and not (tmp_path / "champion" / "adapter").exists()
    assert selected.mrr == pytest.approx((1 / ranks_of(watched, backbone, None)).mean(), abs=1e-4)


@pytest.mark.parametrize("videos", [1, 2, 6, 24])
def test_select__with_too_few_videos_nothing_is_proven(
    tmp_path: Path, backbone: Path, taught: Path, videos: int
) -> None:
    archive = write_archive(tmp_path / "archive", [*all_colours(1, "train"), *rows_of(videos)])
    count = len(half_of(archive, backbone, "choosing"))
    write_challenger(tmp_path / "adapters", "lora", backbone, archive, [1] * count, adapter=taught)
    selected = choose(tmp_path, archive, backbone, ["lora"])
    (challenge,) = selected.challenges
    assert selected.setting == BASE and not challenge.won
    assert "not proven: too few videos" in challenge.verdict and "from 25 on" in challenge.verdict
    assert challenge.verdict in selected.notes[0]
    assert not (tmp_path / LEDGER).exists()  # the rows stay unspent


def test_select__near_duplicates_are_one_video(tmp_path: Path, backbone: Path, taught: Path) -> None:
    archive = write_archive(tmp_path / "archive", [*all_colours(1, "train"), *rows_of(VIDEOS)])
    ids = sorted({row.video_id for row in rows_of(VIDEOS)})
    groups = [{"video_id": id, "group": ids[place // 5 * 5]} for place, id in enumerate(ids)]
    write_table(archive.pairs.parent / "groups.parquet", groups, GROUPS)
    halves = [half_of(archive, backbone, half) for half in ("choosing", "proof")]
    assert [len(set(half.groups)) for half in halves] == [5, 5]
    assert not set(halves[0].groups) & set(halves[1].groups)
    write_challenger(tmp_path / "adapters", "lora", backbone, archive, [1] * len(halves[0]), adapter=taught)
    assert "(5 groups of videos" in choose(tmp_path, archive, backbone, ["lora"]).challenges[0].verdict


def test_select__of_those_proven_the_best_on_the_choosing_half_wins(
    tmp_path: Path, watched: Archive, backbone: Path, taught: Path
) -> None:
    write_challenger(tmp_path / "adapters", "fair", backbone, watched, [2] * NUM, seed=1)
    write_challenger(tmp_path / "adapters", "good", backbone, watched, FIRST, adapter=taught)
    selected = choose(tmp_path, watched, backbone, ["fair", "good"])
    assert [(each.challenger, each.champion, each.won) for each in selected.challenges] == [
        ("good", BASE, True), ("fair", BASE, False)
    ]
    levels = [each.alpha for each in selected.challenges]
    assert selected.setting == "good" and levels == [0.00625, 0.0125]  # Holm's, of the first use of these rows


def test_select__a_setting_that_is_no_more_takes_no_part(tmp_path: Path, watched: Archive, backbone: Path) -> None:
    write_challenger(tmp_path / "adapters", "old", backbone, watched, FIRST)
    write_challenger(tmp_path / "adapters", "new", backbone, watched, LAST)
    selected = choose(tmp_path, watched, backbone, ["new"])
    assert [each.challenger for each in selected.challenges] == ["new"] and selected.setting == BASE
    assert selected.challenges[0].verdict == "not put to the proof: no better on the choosing half"
    assert not (tmp_path / LEDGER).exists()


@pytest.mark.slow
def test_select__an_earlier_champion_stays_until_it_is_beaten(
    tmp_path: Path, watched: Archive, backbone: Path, taught: Path
) -> None:
    write_champion(tmp_path / "champion", backbone, seed=5)
    before = read_selected(tmp_path / "champion")
    write_challenger(tmp_path / "adapters", "weak", backbone, watched, LAST)
    selected = choose(tmp_path, watched, backbone, ["weak"])
    assert (selected.setting, selected.adapter_sha256) == (before.setting, before.adapter_sha256)
    # Its ranks were measured again, on today's rows.
    measured = ranks_of(watched, backbone, tmp_path / "champion" / "adapter")
    assert selected.mrr == pytest.approx((1 / measured).mean(), abs=1e-4)
    assert selected.challenges[0].champion == before.setting and not selected.challenges[0].won
    assert file_sha256(tmp_path / "champion" / "adapter" / "adapter_model.safetensors") == before.adapter_sha256
    write_challenger(tmp_path / "adapters", "strong", backbone, watched, FIRST, adapter=taught)
    assert choose(tmp_path, watched, backbone, ["strong"]).setting == "strong"


def test_select__again_with_its_own_winner_changes_nothing(
    tmp_path: Path, watched: Archive, backbone: Path, taught: Path
) -> None:
    write_challenger(tmp_path / "adapters", "lora", backbone, watched, FIRST, adapter=taught)
    first = choose(tmp_path, watched, backbone, ["lora"])
    kept = (tmp_path / LEDGER).read_bytes()
    again = choose(tmp_path, watched, backbone, ["lora"])
    assert (again.setting, again.adapter_sha256, again.mrr) == (first.setting, first.adapter_sha256, first.mrr)
    assert again.challenges == () and (tmp_path / LEDGER).read_bytes() == kept
    # What it won by is still told.
    assert again.proven == first.proven == first.challenges[0] and read_selected(tmp_path / "champion") == again
    told, before = (lines_of(json.loads(json.dumps(asdict(each)))) for each in (again, first))
    assert told[0] == f"lora is the champion by an earlier proof: {before[0]}" and len(told) == len(before)


@pytest.mark.slow
def test_select__the_same_challenge_again_costs_nothing_and_a_new_one_does(
    tmp_path: Path, watched: Archive, backbone: Path
) -> None:
    write_challenger(tmp_path / "adapters", "one", backbone, watched, FIRST, seed=1)
    first = choose(tmp_path, watched, backbone, ["one"])
    again = choose(tmp_path, watched, backbone, ["one"])
    assert again.challenges == first.challenges and (again.proof.times_used, again.proof.alpha) == (1, None)
    write_challenger(tmp_path / "adapters", "two", backbone, watched, FIRST, seed=2)
    other = choose(tmp_path, watched, backbone, ["one", "two"])
    assert other.challenges[0] == first.challenges[0]
    assert (other.proof.times_used, other.proof.alpha) == (1, pytest.approx(0.025 / 6))
    assert other.challenges[1].alpha == pytest.approx(0.025 / 6, rel=1e-2)
    ledger = ProofLedger.read(tmp_path / LEDGER)
    assert [len(use.challenges) for use in ledger.uses] == [1, 1]
    # The ledger outlives the loss of its file: a copy lies with the champion.
    (tmp_path / LEDGER).unlink()
    assert choose(tmp_path, watched, backbone, ["one", "two"]).proof.times_used == 2
    assert ProofLedger.read(tmp_path / LEDGER) == ledger


def test_select__a_broken_ledger_is_an_error(tmp_path: Path, watched: Archive, backbone: Path) -> None:
    write_challenger(tmp_path / "adapters", "one", backbone, watched, FIRST)
    (tmp_path / LEDGER).write_text("{ no\n")
    with raises(ArtifactError, code="proof-ledger-broken"):
        choose(tmp_path, watched, backbone, ["one"])
    assert not (tmp_path / "champion").exists()


def test_select__without_validation_pairs_the_base_stays(tmp_path: Path, backbone: Path) -> None:
    archive = write_archive(tmp_path / "archive", all_colours(1, "train"))
    write_champion(tmp_path / "champion", backbone, seed=5)
    write_challenger(tmp_path / "adapters", "lora", backbone, archive, [])
    selected = choose(tmp_path, archive, backbone, ["lora"])
    assert (selected.setting, selected.num_queries, selected.mrr) == (BASE, 0, 0.0)
    assert selected.challenges == () and "no validation pair" in " ".join(selected.notes)


def test_select__a_champion_of_another_backbone_is_dropped(
    tmp_path: Path, watched: Archive, backbone: Path
) -> None:
    write_champion(tmp_path / "champion", backbone, seed=5)
    content = json.loads((tmp_path / "champion" / "selected.json").read_text())
    (tmp_path / "champion" / "selected.json").write_text(json.dumps(content | {"backbone": "vidseek/another"}))
    write_challenger(tmp_path / "adapters", "weak", backbone, watched, LAST)
    selected = choose(tmp_path, watched, backbone, ["weak"])
    assert selected.setting == BASE and "vidseek/another" in selected.notes[0]
    assert selected.challenges[0].champion == BASE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["selected.json", "adapter/adapter_model.safetensors", "adapter/vidseek.json"])
def test_select__a_broken_champion_is_dropped_and_named(
    tmp_path: Path, watched: Archive, backbone: Path, name: str
) -> None:
    write_champion(tmp_path / "champion", backbone, seed=5)
    (tmp_path / "champion" / name).write_text("{ broken")
    write_challenger(tmp_path / "adapters", "weak", backbone, watched, LAST)
    selected = choose(tmp_path, watched, backbone, ["weak"])
    assert selected.setting == BASE and "cannot be used" in selected.notes[0]
    assert read_selected(tmp_path / "champion") == selected


def test_select__a_champion_of_an_earlier_version_is_dropped_and_said_so(
    tmp_path: Path, watched: Archive, backbone: Path
) -> None:
    write_champion(tmp_path / "champion", backbone, seed=5)
    path = tmp_path / "champion" / "selected.json"
    content = json.loads(path.read_text())
    del content["proof"]
    path.write_text(json.dumps(content))
    with raises(ArtifactError, code="selection-broken") as caught:
        adapter_of(tmp_path / "champion")
    assert caught.value.remedy == "Run `dvc repro select`"
    write_challenger(tmp_path / "adapters", "weak", backbone, watched, LAST)
    assert "earlier version of vidseek" in choose(tmp_path, watched, backbone, ["weak"]).notes[0]


def test_select__a_champion_that_was_swapped_is_dropped(tmp_path: Path, watched: Archive, backbone: Path) -> None:
    write_champion(tmp_path / "champion", backbone, seed=5)
    write_adapter(tmp_path / "champion" / "adapter", backbone, seed=6)
    write_challenger(tmp_path / "adapters", "weak", backbone, watched, LAST)
    assert "sha256" in choose(tmp_path, watched, backbone, ["weak"]).notes[0]


def test_select__what_was_not_trained_is_noted(tmp_path: Path, watched: Archive, backbone: Path) -> None:
    outcome = Outcome("lora", False, "3 training pairs", str(backbone), 3, 0, 0.0, "")
    (tmp_path / "adapters" / "lora").mkdir(parents=True)
    (tmp_path / "adapters" / "lora" / "outcome.json").write_text(json.dumps(asdict(outcome)))
    selected = choose(tmp_path, watched, backbone, ["lora"])
    assert selected.setting == BASE and "lora: 3 training pairs" in selected.notes


@pytest.mark.slow
@pytest.mark.parametrize("change", ["gallery", "whole", "missing", "broken"])
def test_select__an_outcome_of_another_gallery_or_none_is_an_error(
    tmp_path: Path, watched: Archive, backbone: Path, change: str
) -> None:
    folder = write_challenger(tmp_path / "adapters", "lora", backbone, watched, FIRST)
    content = json.loads((folder / "validation.json").read_text())
    if change == "gallery":
        (folder / "validation.json").write_text(json.dumps(content | {"gallery": "f" * 16}))
    elif change == "whole":  # as an earlier version judged it: on all of validation
        whole = load_pairs(watched.pairs, watched.frames, backbones.load(backbone).spec, split="validation")
        (folder / "validation.json").write_text(json.dumps(
            content | {"gallery": gallery_hash(whole), "adapted": [1] * len(whole)}
        ))
    elif change == "missing":
        (folder / "outcome.json").unlink()
    else:
        (folder / "validation.json").write_text("{ no")
    code = "outcomes-disagree" if change in ("gallery", "whole") else "outcome-broken"
    with raises(ArtifactError, code=code, remedy="dvc repro train"):
        choose(tmp_path, watched, backbone, ["lora"])
    assert not (tmp_path / "champion").exists() and not (tmp_path / "selected.json").exists()


def test_crown__the_alias_follows_the_winner(tmp_path: Path, backbone: Path, tracked: Path) -> None:
    runs = []
    for seed in (1, 2):
        write_adapter(tmp_path / str(seed) / "adapter", backbone, seed=seed)
        with tracking.run(f"train-{seed}", {}, {}) as run:
            run.log_folder(tmp_path / str(seed) / "adapter", under="adapter")
        runs.append(run.id)
    client = mlflow.MlflowClient()

    def crowned(run_id: str, setting: str) -> dict[str, object]:
        crown(Selected(setting, "b", "a", run_id, "g", 1, 1.0, (), (), ROWS), tmp_path / "receipt.json", alias="champion")
        receipt: dict[str, object] = json.loads((tmp_path / "receipt.json").read_text())
        return receipt

    first = crowned(runs[0], "one")
    found = client.get_model_version_by_alias(tracking.MODEL, "champion")
    assert (found.run_id, str(found.version)) == (runs[0], first["version"])
    assert found.tags["setting"] == "one" and found.source.endswith("/adapter")
    assert crowned(runs[0], "one") == first  # registered once
    second = crowned(runs[1], "two")
    assert second["version"] != first["version"]
    assert client.get_model_version_by_alias(tracking.MODEL, "champion").run_id == runs[1]
    assert crowned("", BASE)["version"] is None
    assert "champion" not in client.get_registered_model(tracking.MODEL).aliases
