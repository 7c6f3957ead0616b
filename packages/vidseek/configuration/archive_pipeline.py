"""The pipeline of an archive outside of the repository: its dvc.yaml, and the files that tell DVC what its stages rest on.

In the repository a stage depends on source files, and on the keys that params.yaml states. An archive folder has no source
files, and its params.yaml states only what matters. There the stage `settings` runs first: it writes each section that a
stage reads, with its defaults, and a digest of each part of the installed code. The other stages depend on these files, so
a changed setting, a new default or a new version of vidseek runs again what it concerns, and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from vidseek.installation import PACKAGES, PIPELINE, STAGES, code_root
from vidseek.params import SETTLED_DIR, Params, load_short_params
from vidseek_media.errors import ConfigError, foreign
from vidseek_media.files.folders import write_text
from vidseek_media.files.json_files import write_json

SETTLED = PurePosixPath(SETTLED_DIR)
"""The folder of the stage, relative to the archive."""
STAGE = SETTLED.name
_EACH = "${key}"
"""In dvc.yaml: each of `train.settings`."""
_CODE, _PARAMS = SETTLED / "code", SETTLED / "params"
_HEAD = """\
# Written by `vidseek init`. The stages are those of the installed vidseek; settings are in params.yaml.
"""


def archive_pipeline() -> str:
    """Return the dvc.yaml of an archive folder, made from that of the repository.

    Raises:
        ConfigError: the installation lacks it.
    """
    content = yaml.safe_load((code_root(PIPELINE) / PIPELINE).read_text(encoding="utf-8"))
    stages = {name: _outside(stage) for name, stage in content["stages"].items()}
    content["stages"] = {STAGE: {
        "desc": "The settings in force, with their defaults, and digests of the installed code",
        "cmd": f"python -m vidseek.stage {STAGE}", "always_changed": True, "outs": [{str(SETTLED): {"persist": True}}],
    }, **stages}
    return _HEAD + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)


def is_outside(pipeline: Path) -> bool:
    """Return whether a dvc.yaml is that of an archive folder.

    Args:
        pipeline: The file; it may be missing.
    """
    try:
        return pipeline.read_text(encoding="utf-8").startswith(_HEAD)
    except (OSError, UnicodeDecodeError):
        return False


def renew_pipeline(archive: Path) -> None:
    """Write dvc.yaml of an archive folder anew, as the installed vidseek has it.

    Raises:
        ConfigError: the folder has none that `vidseek init` wrote.
    """
    if not is_outside(archive / PIPELINE):
        raise ConfigError(
            f"{archive / PIPELINE} was not written by `vidseek init`", code="archive-not-made",
            remedy="Run this in the folder of an archive that it made",
        )
    write_text(archive / PIPELINE, archive_pipeline())


def _outside(stage: dict[str, Any]) -> dict[str, Any]:
    """A stage that depends on the files of the stage `settings` in the place of keys and source files."""
    if "foreach" in stage:
        return {**stage, "do": _outside(stage["do"])}
    keys = [str(_PARAMS / f"{key}.json") for key in stage.get("params", ())]
    deps = [_outside_dep(path) for path in stage.get("deps", ())]
    changed = {
        "cmd": stage["cmd"].replace("python -m pipelines.", "python -m vidseek.stage "),
        "deps": list(dict.fromkeys([*keys, *deps])),
    }
    return {name: value for name, value in {**stage, **changed}.items() if name != "params"}


def _outside_dep(path: str) -> str:
    if not path.startswith(("packages/", "pipelines/")):
        return path
    return str(_CODE / path.removeprefix("packages/").removesuffix(".py").replace("/", "."))


def write_settled(archive: Path) -> int:
    """Write the files that the stages of an archive depend on; the same settings and code give the same bytes.

    Args:
        archive: The folder, with params.yaml and dvc.yaml.

    Returns:
        The number of files.

    Raises:
        ConfigError: params.yaml or dvc.yaml is wrong.
    """
    params = load_short_params(archive / "params.yaml")
    wanted = set(_wanted(archive / PIPELINE, params))
    for path in wanted:
        name = PurePosixPath(path).name
        if PurePosixPath(path).parent == _CODE:
            write_text(archive / path, digest_of(name))
        else:
            write_json(archive / path, _value(params, name.removesuffix(".json")))
    for left in (archive / SETTLED).rglob("*"):
        if left.is_file() and left.relative_to(archive).as_posix() not in wanted:
            left.unlink()
    return len(wanted)


def _wanted(pipeline: Path, params: Params) -> Iterator[str]:
    """Yield the files of the folder that dvc.yaml names as dependencies."""
    with foreign(
        ConfigError, f"{pipeline} cannot be read as a pipeline", code="dvc-failed", remedy="Take it from git again",
        errors=(OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, KeyError, TypeError),
    ):
        stages = yaml.safe_load(pipeline.read_text(encoding="utf-8"))["stages"].values()
        deps = [str(dep) for stage in stages for dep in stage.get("do", stage).get("deps", ())]
    for dep in deps:
        if PurePosixPath(dep).is_relative_to(SETTLED):
            yield from (dep.replace(_EACH, key) for key in params.train.settings) if _EACH in dep else (dep,)


def _value(params: Params, key: str) -> object:
    """What params.yaml and the defaults say at a dotted key; None for a key that there is no more."""
    value: object = params.model_dump(mode="json")
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def digest_of(code: str) -> str:
    """Return 32 hex digits of a part of the installed code, a line.

    Args:
        code: A package, a folder or a module of it, or a script of the stages, with dots: `vidseek_media.ids`.
    """
    root = code_root(STAGES) if code.startswith("pipelines.") else PACKAGES
    path = root / code.replace(".", "/")
    files = sorted(path.rglob("*")) if path.is_dir() else [path.with_name(f"{path.name}.py")]
    digest = hashlib.sha256()
    for file in files:
        if file.is_file() and "__pycache__" not in file.parts:
            digest.update(f"{file.relative_to(root)}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:32] + "\n"
