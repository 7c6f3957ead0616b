from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import mlflow
import numpy as np
import pytest

from tests.training.champions import write_adapter, write_challenger, write_champion
from tests.training.tiny import Archive, all_colours, write_archive
from vidseek_encoder.bundle import file_sha256
from vidseek_media.errors import ArtifactError
from vidseek_training import backbones, lora, tracking
from vidseek_training.data import load_pairs
from vidseek_training.embedding import embed_pairs
from vidseek_training.judging import judge
from vidseek_training.select import BASE, Selected, adapter_of, crown, read_selected, select
from vidseek_training.train import Outcome

FIRST, LAST = [1] * 16, [16] * 16


def choose(root: Path, archive: Archive, backbone: Path, settings: list[str]) -> Selected:
    return select(
        root / "adapters", settings, backbone=str(backbone), pairs=archive.pairs, frames=archive.frames,
        champion=root / "champion", out=root / "selected.json", resamples=500, seed=0,
    )


def ranks_of(archive: Archive, backbone: Path, adapter: Path | None) -> np.ndarray:
    model = lora.merged(backbones.load(backbone), adapter)
    pairs = load_pairs(archive.pairs, archive.frames, model.spec, split="validation")
    return judge(embed_pairs(model, pairs), pairs.table).text_ranks


def test_select__a_challenger_that_is_better_wins(tmp_path: Path, archive: Archive, backbone: Path) -> None:
    folder = write_challenger(tmp_path / "adapters", "lora", backbone, archive, FIRST, run_id="run7")
    selected = choose(tmp_path, archive, backbone, ["lora"])
    base = ranks_of(archive, backbone, None)
    (challenge,) = selected.challenges
    assert (challenge.challenger, challenge.champion, challenge.won) == ("lora", BASE, True)
    assert challenge.gain == pytest.approx((1 - 1 / base).mean(), abs=1e-4) and challenge.low > 0
    assert (selected.setting, selected.run_id, selected.mrr, selected.num_queries) == ("lora", "run7", 1.0, 16)
    digest = file_sha256(folder / "adapter" / "adapter_model.safetensors")
    assert selected.adapter_sha256 == digest
    kept = adapter_of(tmp_path / "champion")
    assert kept is not None and file_sha256(kept / "adapter_model.safetensors") == digest
    assert read_selected(tmp_path / "champion") == selected
    assert (tmp_path / "selected.json").read_bytes() == (tmp_path / "champion" / "selected.json").read_bytes()


def test_select__being_better_by_chance_is_no_proof(tmp_path: Path, archive: Archive, backbone: Path) -> None:
    base = ranks_of(archive, backbone, None)
    luck = base.copy()
    luck[base.argmax()] = 1  # one query more: its interval reaches 0
    write_challenger(tmp_path / "adapters", "lucky", backbone, archive, luck.tolist())
    selected = choose(tmp_path, archive, backbone, ["lucky"])
    (challenge,) = selected.challenges
    assert challenge.gain > 0 and challenge.low <= 0 and not challenge.won
    assert (selected.setting, selected.adapter_sha256, selected.run_id) == (BASE, "", "")
    assert adapter_of(tmp_path / "champion") is None and not (tmp_path / "champion" / "adapter").exists()
    assert selected.mrr == pytest.approx((1 / base).mean(), abs=1e-4)


def test_select__the_best_challenges_first_and_the_next_must_beat_it(
    tmp_path: Path, archive: Archive, backbone: Path
) -> None:
    write_challenger(tmp_path / "adapters", "good", backbone, archive, [2] * 16, seed=1)
    write_challenger(tmp_path / "adapters", "best", backbone, archive, FIRST, seed=2)
    selected = choose(tmp_path, archive, backbone, ["good", "best"])
    assert [(each.challenger, each.champion, each.won) for each in selected.challenges] == [
        ("best", BASE, True), ("good", "best", False)
    ]
    assert selected.setting == "best" and selected.challenges[1].gain == -0.5


def test_select__a_setting_that_is_no_more_takes_no_part(tmp_path: Path, archive: Archive, backbone: Path) -> None:
    write_challenger(tmp_path / "adapters", "old", backbone, archive, FIRST)
    write_challenger(tmp_path / "adapters", "new", backbone, archive, LAST)
    selected = choose(tmp_path, archive, backbone, ["new"])
    assert [each.challenger for each in selected.challenges] == ["new"] and selected.setting == BASE


def test_select__an_earlier_champion_stays_until_it_is_beaten(
    tmp_path: Path, archive: Archive, backbone: Path
) -> None:
    write_champion(tmp_path / "champion", backbone, seed=5)
    before = read_selected(tmp_path / "champion")
    write_challenger(tmp_path / "adapters", "weak", backbone, archive, LAST)
    selected = choose(tmp_path, archive, backbone, ["weak"])
    assert (selected.setting, selected.adapter_sha256) == (before.setting, before.adapter_sha256)
    # Its ranks were measured again, on today's gallery.
    measured = ranks_of(archive, backbone, tmp_path / "champion" / "adapter")
    assert selected.mrr == pytest.approx((1 / measured).mean(), abs=1e-4)
    assert selected.challenges[0].champion == before.setting and not selected.challenges[0].won
    assert file_sha256(tmp_path / "champion" / "adapter" / "adapter_model.safetensors") == before.adapter_sha256
    write_challenger(tmp_path / "strong" / "adapters", "strong", backbone, archive, FIRST, seed=3)
    (tmp_path / "champion").rename(tmp_path / "strong" / "champion")
    assert choose(tmp_path / "strong", archive, backbone, ["strong"]).setting == "strong"


def test_select__again_with_its_own_winner_changes_nothing(tmp_path: Path, archive: Archive, backbone: Path) -> None:
    write_challenger(tmp_path / "adapters", "lora", backbone, archive, FIRST)
    first = choose(tmp_path, archive, backbone, ["lora"])
    again = choose(tmp_path, archive, backbone, ["lora"])
    assert (again.setting, again.adapter_sha256, again.mrr) == (first.setting, first.adapter_sha256, first.mrr)
    assert again.challenges == ()


def test_select__without_validation_pairs_the_base_stays(tmp_path: Path, backbone: Path) -> None:
    archive = write_archive(tmp_path / "archive", all_colours(1, "train"))
    write_champion(tmp_path / "champion", backbone, seed=5)
    write_challenger(tmp_path / "adapters", "lora", backbone, archive, [])
    selected = choose(tmp_path, archive, backbone, ["lora"])
    assert (selected.setting, selected.num_queries, selected.mrr) == (BASE, 0, 0.0)
    assert selected.challenges == () and "no validation pair" in " ".join(selected.notes)


def test_select__a_champion_of_another_backbone_is_dropped(
    tmp_path: Path, archive: Archive, backbone: Path
) -> None:
    write_champion(tmp_path / "champion", backbone, seed=5)
    content = json.loads((tmp_path / "champion" / "selected.json").read_text())
    (tmp_path / "champion" / "selected.json").write_text(json.dumps(content | {"backbone": "vidseek/another"}))
    write_challenger(tmp_path / "adapters", "weak", backbone, archive, LAST)
    selected = choose(tmp_path, archive, backbone, ["weak"])
    assert selected.setting == BASE and "vidseek/another" in selected.notes[0]
    assert selected.challenges[0].champion == BASE


@pytest.mark.parametrize("name", ["selected.json", "adapter/adapter_model.safetensors", "adapter/vidseek.json"])
def test_select__a_broken_champion_is_dropped_and_named(
    tmp_path: Path, archive: Archive, backbone: Path, name: str
) -> None:
    write_champion(tmp_path / "champion", backbone, seed=5)
    (tmp_path / "champion" / name).write_text("{ broken")
    write_challenger(tmp_path / "adapters", "weak", backbone, archive, LAST)
    selected = choose(tmp_path, archive, backbone, ["weak"])
    assert selected.setting == BASE and "cannot be used" in selected.notes[0]
    assert read_selected(tmp_path / "champion") == selected


def test_select__a_champion_that_was_swapped_is_dropped(tmp_path: Path, archive: Archive, backbone: Path) -> None:
    write_champion(tmp_path / "champion", backbone, seed=5)
    write_adapter(tmp_path / "champion" / "adapter", backbone, seed=6)
    write_challenger(tmp_path / "adapters", "weak", backbone, archive, LAST)
    assert "sha256" in choose(tmp_path, archive, backbone, ["weak"]).notes[0]


def test_select__what_was_not_trained_is_noted(tmp_path: Path, archive: Archive, backbone: Path) -> None:
    outcome = Outcome("lora", False, "3 training pairs", str(backbone), 3, 0, 0.0, "")
    (tmp_path / "adapters" / "lora").mkdir(parents=True)
    (tmp_path / "adapters" / "lora" / "outcome.json").write_text(json.dumps(asdict(outcome)))
    selected = choose(tmp_path, archive, backbone, ["lora"])
    assert selected.setting == BASE and "lora: 3 training pairs" in selected.notes


@pytest.mark.parametrize("change", ["gallery", "missing", "broken"])
def test_select__an_outcome_of_another_gallery_or_none_is_an_error(
    tmp_path: Path, archive: Archive, backbone: Path, change: str
) -> None:
    folder = write_challenger(tmp_path / "adapters", "lora", backbone, archive, FIRST)
    if change == "gallery":
        (folder / "validation.json").write_text(json.dumps({"gallery": "f" * 16, "base": [], "adapted": FIRST}))
    elif change == "missing":
        (folder / "outcome.json").unlink()
    else:
        (folder / "validation.json").write_text("{ no")
    with pytest.raises(ArtifactError) as caught:
        choose(tmp_path, archive, backbone, ["lora"])
    assert "dvc repro train" in caught.value.remedy
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
        crown(Selected(setting, "b", "a", run_id, "g", 1, 1.0, (), ()), tmp_path / "receipt.json", alias="champion")
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
