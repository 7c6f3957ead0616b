"""Publishes the champion's adapter with a model card, in peft's format, to a folder or the model hub."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from vidseek_media.errors import ArtifactError, ServiceError
from vidseek_media.files.folders import require_replaceable, whole_folder
from vidseek_media.files.json_files import read_json, write_json
from vidseek_quality.intervals import interval_text
from vidseek_training import backbones
from vidseek_training.evaluation.champion import Selected, adapter_of, read_selected
from vidseek_training.fitting import lora
from vidseek_training.hub import HubName

HUB = "hub:"
"""What a destination on the model hub begins with."""

_SHOWN = ("r1", "r5", "r10", "mdr", "map", "ndcg10")


def push_adapter(champion: Path, metrics: Path, destination: str) -> str:
    """Write or upload the champion's adapter with its card.

    Args:
        champion: Output of the stage `select`.
        metrics: metrics.json of the stage `evaluate`; if it is missing, the card says so.
        destination: A folder, whose content is replaced; or `hub:<name>/<adapter>`, for which the hub's own login is used.

    Returns:
        Its new location.

    Raises:
        ConfigError: `destination` is a folder with other content.
        ArtifactError: the base is the champion, the adapter is broken, or the figures are of another adapter.
        ServiceError: the hub does not accept it.
    """
    selected = read_selected(champion)
    adapter = adapter_of(champion)
    if adapter is None:
        raise ArtifactError(
            f"{champion}: the base is the champion, there is no adapter", code="no-adapter", remedy="Train one that wins",
        )
    lora.load_into(backbones.load(selected.backbone), adapter)  # what does not load is not handed on
    card = write_card(selected, _figures_of(metrics, selected))
    if not destination.startswith(HUB):
        require_replaceable(Path(destination), marks=["adapter_config.json"])
        with whole_folder(Path(destination)) as folder:
            _fill(folder, adapter, selected, card)
        return destination
    with tempfile.TemporaryDirectory(prefix="vidseek-push-") as scratch:
        _fill(Path(scratch), adapter, selected, card)
        return _upload(Path(scratch), destination.removeprefix(HUB))


def write_card(selected: Selected, figures: dict[str, Any] | None) -> str:
    """Return the model card in the hub's format: base, licence, data, figures with intervals, how to load it.

    Args:
        selected: The champion.
        figures: Content of metrics.json; None if it is missing.
    """
    licence = licence_of(selected.backbone)
    base, _ = _base_of(selected)
    head = [f"base_model: {base}", "library_name: peft", "tags: [lora, video-text-retrieval, vidseek]"]
    if licence:
        head.append(f"license: {licence}")
    return "\n".join([
        "---", *head, "---", "", f"# Adapter `{selected.setting}` of {selected.backbone}", "",
        "Taught by vidseek from pairs of clips and captions, by LoRA on both towers.", "",
        f"- Base: `{selected.backbone}`. Its licence: {licence or 'not stated in its files; look at its page'}.",
        f"- Chosen on {selected.num_queries} validation captions (gallery {selected.gallery}), mean reciprocal rank "
        f"{selected.mrr}; proven on {selected.proof.num_queries} others, of {selected.proof.num_groups} groups of videos.",
        f"- Trained in the MLflow run {selected.run_id or '(unknown)'}; adapter_model.safetensors has the sha256 "
        f"{selected.adapter_sha256}.",
        "- The captions and clips it learned from are its owner's; what they show may be recognised in what it finds.", "",
        "## What it finds", "", *_tables(figures), "", "## How to load it", "", "```python",
        "from pathlib import Path", "from vidseek_training import backbones",
        "from vidseek_training.fitting import lora", "",
        f'model = lora.merged(backbones.load("{selected.backbone}"), Path("path/to/this/folder"))',
        "texts = model.embed_texts(input_ids)          # unit vectors", "videos = model.embed_videos(pixel_values)", "```",
        "", "The names of its tensors are those of vidseek's backbones, which wrap transformers' models: PEFT alone finds "
        "no place for them in a bare CLIPModel.", "",
    ])


def licence_of(backbone: str) -> str:
    """Return the licence in the base's own card; vidseek's for a shipped base; empty if unknown."""
    if backbone.startswith("vidseek/"):
        return "apache-2.0"
    card = backbones.resolve(backbone) / "README.md"
    if not card.is_file():
        return ""
    head = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    found = re.search(r"^license:\s*(\S+)", head.group(1), re.MULTILINE) if head else None
    return found.group(1) if found else ""


def _base_of(selected: Selected) -> tuple[str, str | None]:
    """Return the base's name as PEFT and the hub know it, and its commit."""
    name = HubName.parse(selected.backbone)
    return (name.repository, name.revision or None) if name is not None else (selected.backbone, None)


def _figures_of(metrics: Path, selected: Selected) -> dict[str, Any] | None:
    if not metrics.is_file():
        return None
    try:
        figures: dict[str, Any] = read_json(metrics)
        of = figures["adapter_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{metrics} cannot be read: {error!r}", code="metrics-unreadable", remedy="Run `dvc repro evaluate`",
        ) from error
    if of != selected.adapter_sha256:
        raise ArtifactError(
            f"{metrics} is of the adapter {of[:12] or 'base'}, the champion is {selected.adapter_sha256[:12]}",
            code="metrics-of-other-adapter",
            remedy="Run `dvc repro evaluate`",
        )
    return figures


def _tables(figures: dict[str, Any] | None) -> list[str]:
    if figures is None or not figures["galleries"]:
        return ["It was not evaluated on test captions."]
    lines = [f"On {figures['num_test_pairs']} test captions of {figures['num_test_groups']} groups of videos, which chose "
             "nothing; gains are paired, with 95 % intervals by groups of videos.", ""]
    for gallery, entry in figures["galleries"].items():
        lines += [f"Gallery `{gallery}`, {entry['num_queries']} captions, {entry['num_clips']} clips:", "",
                  "| text to video | base | adapted | gain |", "|---|---|---|---|"]
        for name in _SHOWN:
            gain = entry["gain"][name]
            told = interval_text(gain, signed=True)
            lines.append(f"| {name} | {entry['base'][name]} | {entry['adapted'][name]} | {told} |")
        lines.append("")
    kept = figures.get("retention")
    if isinstance(kept, dict):
        change = kept["change"]["r1"]
        lines.append(f"On {kept['num_queries']} captions of the general world R@1 goes from {kept['base']['r1']} to "
                     f"{kept['adapted']['r1']}, by {interval_text(change, signed=True)}.")
    else:
        lines.append("What it forgot of the general world was not measured.")
    return lines


def _fill(folder: Path, adapter: Path, selected: Selected, card: str) -> None:
    shutil.copytree(adapter, folder, dirs_exist_ok=True)
    config = read_json(folder / "adapter_config.json")
    config["base_model_name_or_path"], config["revision"] = _base_of(selected)
    write_json(folder / "adapter_config.json", config, sort_keys=True)
    (folder / "README.md").write_text(card, encoding="utf-8")


def _upload(folder: Path, name: str) -> str:
    from httpx2 import HTTPError  # of the hub's client: where it is not reached, and HfHubHTTPError is one
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        api = HfApi()
        api.create_repo(name, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=str(folder)))
    except (HTTPError, OfflineModeIsEnabled, OSError, ValueError) as error:
        raise ServiceError(
            f"the model hub did not take {name}: {error}", code="hub-no-answer",
            remedy="Set HF_HUB_OFFLINE=0, log in (`hf auth login`), and look at the name",
        ) from error
