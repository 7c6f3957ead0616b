"""Selects the files of a repository that make a backbone: one set of weights, tokenizer, configs. Nothing that runs code."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vidseek_media.files.json_files import read_json
from vidseek_media.names import shown

CONFIGS = (
    "preprocessor_config.json", "video_preprocessor_config.json", "image_processor_config.json", "processor_config.json",
    "README.md",
)
"""Beside the one that says which family it is."""
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
    "vocab.txt", "bpe_simple_vocab_16e6.txt.gz",
)
TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("vocab.txt",), ("bpe_simple_vocab_16e6.txt.gz",))
"""Each is a whole tokenizer."""
INDEX = ".index.json"
"""How the name of the index of weights in parts ends."""
PICKLED = (".bin", ".pt", ".pth")
"""Endings of torch's older weights. They are read as weights only: no code of theirs runs."""

_MOST_PARTS = 1024
_PART = re.compile(r"[A-Za-z0-9][\w.-]{0,120}\.(?:safetensors|bin)")


def known_weights() -> tuple[str, ...]:
    """Return the names of weights of all families."""
    from vidseek_training.backbones.registry import families

    return tuple(dict.fromkeys(name for family in families() for name in family.weights))


def known_configs() -> tuple[str, ...]:
    """Return the names of files that say which family a model is of."""
    from vidseek_training.backbones.registry import config_files

    return config_files()


def choose_weights(names: Collection[str], known: Sequence[str]) -> str | None:
    """Return the file of weights to fetch, or the index of their parts; None if there are none.

    Args:
        names: Names of the existing files.
        known: Possible names of weights. Safetensors come before pickled files, whole files before parts.
    """
    safe_first = sorted(known, key=is_pickled)
    return next((name for each in safe_first for name in (each, f"{each}{INDEX}") if name in names), None)


def is_pickled(weights: str) -> bool:
    """Whether weights, or those of an index, are of torch's older kind."""
    return weights.removesuffix(INDEX).endswith(PICKLED)


def choose_small(names: Collection[str]) -> list[str]:
    """Return the configs and the tokenizer's files that are there."""
    return [name for name in dict.fromkeys((*known_configs(), *CONFIGS, *TOKENIZER)) if name in names]


def has_tokenizer(names: Collection[str]) -> bool:
    """Whether a whole tokenizer is among the files."""
    return any(all(name in names for name in each) for each in TOKENIZERS)


def parts_of(index: Path) -> list[str]:
    """Return the files that an index of weights names, each once, sorted.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not such an index, or names other files than weights beside it.
    """
    content = read_json(index)
    places: Any = content.get("weight_map") if isinstance(content, Mapping) else None
    if not isinstance(places, Mapping) or not places:
        raise ValueError("it has no weight_map")
    parts = {str(part) for part in places.values()}
    ending = Path(index.name.removesuffix(INDEX)).suffix
    odd = sorted(part for part in parts if not _PART.fullmatch(part) or Path(part).suffix != ending)
    if odd or len(parts) > _MOST_PARTS:
        raise ValueError(f"it names {shown(odd[0]) if odd else f'{len(parts)} files'}; wanted files of weights beside it")
    return sorted(parts)


def weight_files(folder: Path, known: Sequence[str]) -> list[Path]:
    """Return the files of weights in a folder, in a fixed order; empty if there are none or a part is missing.

    Args:
        folder: The backbone's folder.
        known: Possible names of weights. Safetensors come before pickled files, whole files before parts.

    Raises:
        OSError, ValueError: an index cannot be read, or is invalid.
    """
    for name in sorted(known, key=is_pickled):
        whole, index = folder / name, folder / f"{name}{INDEX}"
        found = [whole] if whole.is_file() else [folder / part for part in parts_of(index)] if index.is_file() else []
        if found and all(part.is_file() for part in found):
            return found
    return []


def missing_in(folder: Path) -> list[str]:
    """Describe what a backbone's folder lacks; empty if it is complete."""
    names = {path.name for path in folder.iterdir() if path.is_file()} if folder.is_dir() else set()
    lacking = [] if names & set(known_configs()) else ["config.json"]
    try:
        if not weight_files(folder, known_weights()):
            lacking.append("weights")
    except (OSError, ValueError):
        lacking.append("the index of its weights")
    if not has_tokenizer(names):
        lacking.append("tokenizer")
    return lacking


def left_out(names: Iterable[str], taken: Collection[str]) -> list[str]:
    """Return the files of a listing that are not fetched."""
    return sorted(set(names) - set(taken))
