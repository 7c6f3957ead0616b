"""Describes what a repository of the hub is if it is not a backbone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_media.names import shown
from vidseek_training.hub.faults import HubWrongKind
from vidseek_training.hub.files import choose_weights, has_tokenizer, known_configs, known_weights
from vidseek_training.hub.names import WANTED

_REMEDY = "docs/backbones.md lists the families, and the published models that each reads"

_TASKS = {
    "text-generation": "a language model for text", "text2text-generation": "a language model for text",
    "text-classification": "a classifier of texts", "fill-mask": "an encoder of texts alone",
    "feature-extraction": "an encoder of one kind of input", "sentence-similarity": "an encoder of texts alone",
    "text-to-image": "a model that draws pictures", "text-to-video": "a model that makes videos",
    "image-to-text": "a model that writes captions", "image-text-to-text": "a language model that sees pictures",
    "video-text-to-text": "a language model that sees videos", "visual-question-answering": "a model that answers questions",
    "automatic-speech-recognition": "a model that writes down speech", "text-to-speech": "a model that speaks",
    "image-classification": "a classifier of pictures", "object-detection": "a detector of things in pictures",
    "image-segmentation": "a model that outlines things in pictures", "depth-estimation": "a model that measures depth",
    "video-classification": "a classifier of videos", "image-feature-extraction": "an encoder of pictures alone",
    "audio-classification": "a classifier of sounds", "translation": "a translator", "summarization": "a summariser",
}
"""What the hub's tasks are in words."""
_CLASSES = (
    ("ForCausalLM", "a language model for text"), ("LMHeadModel", "a language model for text"),
    ("ForConditionalGeneration", "a model that writes text"), ("ForSequenceClassification", "a classifier of texts"),
    ("ForMaskedLM", "an encoder of texts alone"), ("ForImageClassification", "a classifier of pictures"),
    ("ForVideoClassification", "a classifier of videos"), ("ForObjectDetection", "a detector of things in pictures"),
    ("TextModel", "the text tower alone"), ("TextModelWithProjection", "the text tower alone"),
    ("VisionModel", "the picture tower alone"), ("VisionModelWithProjection", "the picture tower alone"),
)
"""How the names of transformers' classes end, and what such a model is."""


def require_backbone_files(name: str, files: Collection[str], *, task: str | None, library: str | None) -> None:
    """Check that a repository has the files of a backbone.

    Args:
        name: Name of the model.
        files: Paths in the repository.
        task: Task that the hub states, such as `text-generation`.
        library: Library that the hub states, such as `diffusers`.

    Raises:
        HubWrongKind: config, weights or tokenizer are missing.
    """
    if "model_index.json" in files or library == "diffusers":
        raise wrong_kind(name, f"a pipeline of diffusers: {_TASKS.get(task or '', 'it makes pictures or videos')}")
    if not set(known_configs()) & set(files):
        raise wrong_kind(name, _without_config(files, task, library))
    if choose_weights(files, known_weights()) is None:
        raise wrong_kind(name, f"{_task(task)} without weights that are read ({_sorts(files)}; wanted model.safetensors, "
                               "whole or in parts with its index, or pytorch_model.bin)")
    if not has_tokenizer(files):
        raise wrong_kind(name, f"{_task(task)} without a tokenizer that is read (tokenizer.json, vocab.json with "
                               "merges.txt, vocab.txt, or bpe_simple_vocab_16e6.txt.gz)")


def weights_of_family(name: str, folder: Path, *, task: str | None) -> tuple[str, ...]:
    """Return the possible names of weights of the family that reads the config in a folder.

    Args:
        name: Name of the model.
        folder: Folder with its config.
        task: Task that the hub states.

    Raises:
        HubWrongKind: no family reads it, or its family refuses the variant.
    """
    from vidseek_training.backbones.registry import family_of, names

    try:
        return family_of(folder)[0].weights
    except ArtifactError as error:
        raise wrong_kind(name, f"a repository whose config.json is none: {error.message}") from error
    except ConfigError as error:
        raise wrong_kind(name, _by_config(folder, task), wanted=f"one of the families {', '.join(names())}") from error


def wrong_kind(name: str, found: str, *, wanted: str = "") -> HubWrongKind:
    """Describe the kind that was found, and the kinds that are supported."""
    families = f" ({wanted})" if wanted else ""
    return HubWrongKind(f"{name} is {found}; wanted {WANTED}{families}", remedy=_REMEDY)


def _without_config(files: Collection[str], task: str | None, library: str | None) -> str:
    if "adapter_config.json" in files:
        return "an adapter without its model"
    if any(file.endswith(".gguf") for file in files):
        return "a language model for llama.cpp (GGUF)"
    if "modules.json" in files or library == "sentence-transformers":
        return "a model of sentence-transformers, whose parts lie in folders"
    if library == "open_clip":
        return "a model of open_clip without its open_clip_config.json"
    return f"{_task(task)} without a config.json ({_sorts(files)})"


def _by_config(folder: Path, task: str | None) -> str:
    from vidseek_media.files.json_files import read_json

    try:
        config: Any = read_json(folder / "config.json")
    except (OSError, ValueError):
        return _task(task)
    if not isinstance(config, Mapping):
        return _task(task)
    classes = config.get("architectures")
    first = str(classes[0]) if isinstance(classes, list) and classes else ""
    words = next((words for ending, words in _CLASSES if first.endswith(ending)), _task(task))
    own = ", which needs code of its own that is not run here" if config.get("auto_map") else ""
    return f"{words} (model_type {shown(config.get('model_type'))}{f', {shown(first)}' if first else ''}){own}"


def _task(task: str | None) -> str:
    return _TASKS.get(task or "", f"a model for {shown(task)}" if task else "a repository")


def _sorts(files: Collection[str]) -> str:
    """Return the endings of a listing, the most frequent first."""
    endings = [Path(file).suffix or Path(file).name for file in files]
    most = sorted(set(endings), key=lambda each: (-endings.count(each), each))[:6]
    return f"{len(files)} files: {', '.join(most)}" if files else "it is empty"
