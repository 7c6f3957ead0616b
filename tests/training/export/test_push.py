from __future__ import annotations

import json
import shutil
from pathlib import Path

import httpx2
import pytest
import torch

from tests.raising import raises
from tests.training.champions import write_champion
from tests.training.tiny import Archive, random_pixels, write_clip
from vidseek_media.errors import ArtifactError, ServiceError
from vidseek_training import backbones
from vidseek_training.evaluation.champion import adapter_of
from vidseek_training.evaluation.evaluate import evaluate, write_evaluation
from vidseek_training.export import push
from vidseek_training.export.push import licence_of, push_adapter
from vidseek_training.fitting import lora


def test_push_adapter__a_folder_that_loads_as_the_champion_does(exported: Path, backbone: Path, tmp_path: Path) -> None:
    assert push_adapter(exported / "champion", tmp_path / "none.json", str(tmp_path / "out")) == str(tmp_path / "out")
    pixels = random_pixels(2)
    with torch.inference_mode():
        wanted = lora.merged(backbones.load(backbone), adapter_of(exported / "champion")).embed_videos(pixels)
        assert torch.equal(lora.merged(backbones.load(backbone), tmp_path / "out").embed_videos(pixels), wanted)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(backbone) and config["peft_type"] == "LORA"
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith(f"---\nbase_model: {backbone}\n") and "not evaluated" in card and "not stated" in card


def test_push_adapter__the_card_has_the_evaluation_s_figures_with_intervals(
    exported: Path, backbone: Path, archive: Archive, tmp_path: Path
) -> None:
    evaluation = evaluate(
        exported / "champion", exported / "encoder", backbone=str(backbone), pairs=archive.pairs, frames=archive.frames,
        general=None, resamples=100, seed=0, variant="fp32",
    )
    write_evaluation(evaluation, tmp_path / "report")
    push_adapter(exported / "champion", tmp_path / "report" / "metrics.json", str(tmp_path / "out"))
    card = (tmp_path / "out" / "README.md").read_text()
    entry = evaluation.figures["galleries"]["default"]
    gain = entry["gain"]["mdr"]
    assert f"| r1 | {entry['base']['r1']} | {entry['adapted']['r1']} |" in card
    assert f"{gain['value']:+.3f} (not proven: too few videos (1 groups of videos, at least 20 are wanted))" in card
    assert "On 16 test captions of 1 groups of videos" in card and "forgot of the general world was not measured" in card
    # Figures of another adapter are refused.
    other = write_champion(tmp_path / "other", backbone, seed=9)
    with raises(ArtifactError, code="metrics-of-other-adapter") as caught:
        push_adapter(other, tmp_path / "report" / "metrics.json", str(tmp_path / "no"))
    assert "evaluate" in caught.value.remedy and not (tmp_path / "no").exists()


def test_push_adapter__the_base_as_champion_has_none(backbone: Path, tmp_path: Path) -> None:
    champion = write_champion(tmp_path / "champion", backbone, seed=None)
    with raises(ArtifactError, code="no-adapter"):
        push_adapter(champion, tmp_path / "none.json", str(tmp_path / "out"))


def test_push_adapter__the_hub_gets_the_whole_folder_or_says_why_not(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: dict[str, set[str]] = {}

    def upload(folder: Path, name: str) -> str:
        sent[name] = {path.name for path in folder.iterdir()}
        return f"https://hub/{name}"

    with monkeypatch.context() as patch:
        patch.setattr(push, "_upload", upload)
        found = push_adapter(exported / "champion", tmp_path / "none.json", "hub:someone/mine")
    assert found == "https://hub/someone/mine"
    assert sent == {"someone/mine": {"README.md", "adapter_config.json", "adapter_model.safetensors", "vidseek.json"}}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with raises(ServiceError, code="hub-no-answer", naming="someone/mine") as caught:
        push_adapter(exported / "champion", tmp_path / "none.json", "hub:someone/mine")
    assert "HF_HUB_OFFLINE=0" in caught.value.remedy


def test_push_adapter__a_hub_that_is_not_reached_is_a_service_error(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise httpx2.ConnectError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", refuse)
    with raises(ServiceError, code="hub-no-answer", naming=("someone/mine", "not known")):
        push_adapter(exported / "champion", tmp_path / "none.json", "hub:someone/mine")


def test_push_adapter__a_pinned_base_is_a_name_and_a_revision(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PEFT and the hub want them apart; the champion has them as one."""
    champion = tmp_path / "champion"
    shutil.copytree(exported / "champion", champion)
    base = json.loads((champion / "selected.json").read_text())["backbone"]
    model = backbones.load(base)
    commit, name = "0123456789abcdef0123456789abcdef01234567", "someone/tiny"
    snapshot = tmp_path / "cache" / "models--someone--tiny" / "snapshots" / commit
    shutil.copytree(base, snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    said = (champion / "selected.json").read_text().replace(base, f"{name}@{commit}")
    (champion / "selected.json").write_text(said)
    push_adapter(champion, tmp_path / "none.json", str(tmp_path / "out"))
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == (name, commit)
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"base_model: {name}\n" in card and f"backbones.load(\"{name}@{commit}\")" in card
    adapter = lora.merged(backbones.load(f"{name}@{commit}"), tmp_path / "out")  # the handed-on folder loads with its base
    assert adapter.spec.name == f"{name}@{commit}" and model.num_parameters() == adapter.num_parameters()


def test_licence_of__is_what_the_base_s_card_says(tmp_path: Path) -> None:
    folder = write_clip(tmp_path)
    assert licence_of(str(folder)) == ""
    (folder / "README.md").write_text("---\ntags: [x]\nlicense: mit\n---\n# A CLIP\nlicense: no\n")
    assert licence_of(str(folder)) == "mit"
    assert licence_of("vidseek/clip-tiny") == "apache-2.0"
