"""dvc.yaml, params.yaml and the stage scripts say the same."""

from __future__ import annotations

import ast
import copy
import json
import re
import subprocess
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from tests.raising import raises
from vidseek.params import Params, load_params
from vidseek_media.errors import ConfigError

ROOT = Path(__file__).parents[2]
GLUE = {"__init__", "stage", "grow", "settings"}
"""Modules in pipelines/ that are no stages of this pipeline; `settings` is one of an archive of `vidseek init`."""
FACE = {"search", "serve", "jobs", "saved"}
"""Sections that the command and the service read, beside the stages."""

SCRIPTS = {path.stem: path for path in (ROOT / "pipelines").glob("*.py") if path.stem not in GLUE}
DVC: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
CONTENT: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
STAGES: dict[str, Any] = {name: stage.get("do", stage) for name, stage in DVC.items()}
EACH_STAGE = pytest.mark.parametrize("name", STAGES)


def names_of(entries: list[Any]) -> list[str]:
    """Paths or keys of a list of dvc.yaml, whose entries may be mappings with options."""
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]


def params_of(name: str) -> list[str]:
    return names_of(STAGES[name].get("params", []))


def covers(wider: str, key: str) -> bool:
    """Whether the params key `wider` holds `key`; `${key}` stands for any setting."""
    pattern = re.escape(wider).replace(re.escape("${key}"), r"[^.]+")
    return re.match(rf"{pattern}(\.|$)", key) is not None


def test_stages__each_has_its_script_and_each_script_its_stage() -> None:
    assert set(STAGES) == set(SCRIPTS)
    for name, stage in STAGES.items():
        assert stage["cmd"].split()[:3] == ["python", "-m", f"pipelines.{name}"]


@EACH_STAGE
def test_stages__a_change_of_the_script_runs_it_again(name: str) -> None:
    stage = STAGES[name]
    assert stage.get("always_changed") or f"pipelines/{name}.py" in stage["deps"]


@EACH_STAGE
def test_params__every_key_that_a_stage_names_is_there(name: str) -> None:
    for key in params_of(name):
        place: Any = CONTENT
        for part in key.split("."):
            if part == "${key}":
                assert DVC[name]["foreach"] == "${train.settings}"
                part = next(iter(place))
            assert part in place, f"{name} names {key}, params.yaml has no {part}"
            place = place[part]


@EACH_STAGE
def test_params__every_key_that_a_script_reads_is_named_in_its_stage(name: str) -> None:
    for key in keys_read(SCRIPTS[name]):
        if key == "train.settings" and "foreach" in DVC[name]:
            continue
        is_named = any(covers(named, key) for named in params_of(name))
        assert is_named or STAGES[name].get("always_changed"), f"pipelines/{name}.py reads {key}"


def test_params__every_section_is_a_field_and_is_used() -> None:
    assert set(CONTENT) <= set(Params.model_fields)
    used = {key.split(".")[0] for name in STAGES for key in params_of(name)} | FACE
    always = [SCRIPTS[name] for name, stage in STAGES.items() if stage.get("always_changed")]  # they compare nothing
    used |= {key.split(".")[0] for script in always for key in keys_read(script)}
    assert set(CONTENT) <= used
    assert set(Params.model_fields) == set(CONTENT)


@EACH_STAGE
def test_deps__what_lies_in_the_repository_exists(name: str) -> None:
    stage = STAGES[name]
    for path in names_of([*stage.get("deps", []), *stage.get("outs", [])]):
        if path.startswith(("packages/", "pipelines/", "serving/")):
            assert (ROOT / path).exists(), f"{name} names {path}"


ONLY_PAIRS = {"data/pairs/pairs.parquet", "data/pairs/groups.parquet", "data/general/pairs",
              "reports/gates/pairs/passed.json", "data/pairs/both_sides.parquet"}
"""What a training may depend on, of what is made from the source: equal bytes wherever the pairs are the same."""


@pytest.mark.parametrize("name", ["train", "select", "export", "evaluate"])
def test_deps__training_and_its_proof_depend_on_pairs_and_not_on_the_archive(name: str) -> None:
    """A video without captions changes data/ingest, data/cut, data/frames and result.json; none of them is a dependency."""
    made = [path for path in names_of(STAGES[name]["deps"]) if path.startswith(("data/", "reports/"))]
    assert set(made) <= ONLY_PAIRS and "data/pairs/pairs.parquet" in made
    assert "data/frames/frames.parquet" in names_of(STAGES["pairs"]["deps"])  # so pairs are made after frames


def test_plots__templates_are_there_and_ask_for_what_dvc_fills_in() -> None:
    plots = [
        settings for stage in STAGES.values() for each in stage.get("plots", []) for settings in each.values()
    ]
    assert {"training", "scales", "recalls", "reliability"} == {settings["template"] for settings in plots}
    for settings in plots:
        text = (ROOT / ".dvc" / "plots" / f"{settings['template']}.json").read_text(encoding="utf-8")
        json.loads(text)
        assert all(f"<DVC_METRIC_{anchor}>" in text for anchor in ("DATA", "TITLE", "X", "Y"))


def test_deps__data_that_a_stage_reads_is_what_another_writes() -> None:
    kinds = ("outs", "metrics", "plots")
    written = {
        path.replace("/${key}", "") for stage in STAGES.values() for kind in kinds
        for path in names_of(stage.get(kind, []))
    }
    for name, stage in STAGES.items():
        for path in names_of(stage.get("deps", [])):
            if not path.startswith(("packages/", "pipelines/", "data/decisions")):  # people write that
                related = (path == out or path.startswith(f"{out}/") or out.startswith(f"{path}/") for out in written)
                assert any(related), f"{name} reads {path}"


@EACH_STAGE
def test_deps__each_is_named_once(name: str) -> None:
    deps = names_of(STAGES[name].get("deps", []))
    assert len(deps) == len(set(deps))


@EACH_STAGE
def test_deps__every_room_that_a_script_imports_is_among_them(name: str) -> None:
    if STAGES[name].get("always_changed"):
        return
    deps = names_of(STAGES[name]["deps"])
    direct = {module for module in imports_of(SCRIPTS[name]) if module.startswith("vidseek_")}
    for module in direct:
        path = f"packages/{module.replace('.', '/')}.py"
        assert any(path == dep or path.startswith(f"{dep}/") for dep in deps), f"pipelines/{name}.py imports {module}"
    for room in rooms_below(direct):
        assert any(dep.startswith(f"packages/{room}") for dep in deps), f"pipelines/{name}.py uses {room}"


def test_imports__params_load_no_heavy_library() -> None:
    """Records of every room are read, and none of what the rooms do: params must be checked in no time."""
    heavy = ("torch", "transformers", "peft", "mlflow", "onnxruntime", "qdrant_client", "qdrant_edge", "great_expectations",
             "av", "pandas", "pyarrow", "numpy")
    code = "import sys, vidseek.params\nprint(sorted(set(sys.modules) & set(sys.argv[1:])))"
    run = subprocess.run(
        [sys.executable, "-c", code, *heavy], env={"PYTHONPATH": f"{ROOT / 'packages'}"}, capture_output=True, text=True,
        check=True,
    )
    assert run.stdout.strip() == "[]"


def test_keys_read__finds_what_a_script_takes(tmp_path: Path) -> None:
    """This file's own reading of scripts can fail."""
    script = tmp_path / "script.py"
    script.write_text(
        "from vidseek.params import load_params\n"
        "def main(params):\n    other = load_params().cut.model_dump()\n"
        "    mine = load_params().publish\n    return params.embed.variant, params.gates.pairs, mine.cut\n"
    )
    assert set(keys_read(script)) == {"cut", "embed.variant", "gates.pairs", "publish"}
    assert covers("cut", "cut.modes") and covers("train.settings.${key}", "train.settings.lora.rank")
    assert not covers("cut", "cute") and not covers("cut.modes", "cut")


def keys_read(script: Path) -> Iterator[str]:
    """Params keys in `script`: attribute chains that start at `params` or at `load_params()`."""
    tree = ast.parse(script.read_text(encoding="utf-8"))
    inner = {node.value for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    bound = {
        target.id for node in ast.walk(tree) if isinstance(node, ast.Assign | ast.AnnAssign)
        for targets, values in _pairs(node) for target, value in zip(targets, values, strict=False)
        if isinstance(target, ast.Name) and is_whole(value)
    } | {"params"}
    bound -= {
        target.id for node in ast.walk(tree) if isinstance(node, ast.Assign)
        for targets, values in _pairs(node) for target, value in zip(targets, values, strict=False)
        if isinstance(target, ast.Name) and not is_whole(value)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or node in inner:
            continue
        parts: list[str] = []
        place: ast.expr = node
        while isinstance(place, ast.Attribute):
            parts.insert(0, place.attr)
            place = place.value
        if is_whole(place) or (isinstance(place, ast.Name) and place.id in bound):
            while parts and not is_key(parts):
                parts.pop()
            if parts:
                yield ".".join(parts)


def is_whole(node: ast.expr | None) -> bool:
    """Whether `node` is the call that gives all of params."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "load_params"


def _pairs(node: ast.Assign | ast.AnnAssign) -> Iterator[tuple[list[ast.expr], list[ast.expr]]]:
    for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            yield target.elts, node.value.elts
        elif node.value is not None:
            yield [target], [node.value]


def is_key(parts: list[str]) -> bool:
    """Whether params.yaml may hold a key of these parts, by the types of Params."""
    kind: Any = Params
    for part in parts:
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)) or part not in kind.model_fields:
            return False
        kind = kind.model_fields[part].annotation
        if typing.get_origin(kind) in (types.UnionType, typing.Union):
            kind = next(each for each in typing.get_args(kind) if each is not type(None))
    return True


def imports_of(path: Path) -> set[str]:
    """The modules of this house that the file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {module for module in found if file_of(module)}


def file_of(module: str) -> Path | None:
    """The module's file in this repository, None for what is no module of ours."""
    root = ROOT if module.startswith("pipelines") else ROOT / "packages"
    for path in (root / f"{module.replace('.', '/')}.py", root / module.replace(".", "/") / "__init__.py"):
        if path.is_file() and module.startswith(("vidseek", "pipelines")):
            return path
    return None


def rooms_below(modules: set[str]) -> set[str]:
    """The rooms of `modules` and of all that they import."""
    seen: set[str] = set()
    todo = set(modules)
    while todo:
        module = todo.pop()
        seen.add(module)
        path = file_of(module)
        assert path is not None
        todo |= imports_of(path) - seen
    return {module.split(".")[0] for module in seen} & {
        "vidseek_media", "vidseek_quality", "vidseek_encoder", "vidseek_training", "vidseek_retrieval"
    }


def write(path: Path, content: Any) -> Path:
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_load_params__takes_the_file_as_it_is() -> None:
    params = load_params(ROOT / "params.yaml")
    assert params.frames.num_frames == CONTENT["frames"]["num_frames"]
    assert set(params.train.settings) == set(CONTENT["train"]["settings"])
    # PyYAML reads 1e-4 as text; what is a number there is one here.
    assert isinstance(params.train.settings["lora"].learning_rate, float)


def keys_of(content: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in content.items():
        yield (*place, key)
        if isinstance(value, dict):
            yield from keys_of(value, (*place, key))


SECTIONS = [
    place for place in keys_of(CONTENT)
    if isinstance(CONTENT.get(place[0]), dict) and len(place) == 1 and place != ("fields",)  # its keys are the user's
]


@pytest.mark.parametrize("section", [
    *[place[0] for place in SECTIONS], "gates.archive", "gates.pairs", "gates.embeddings", "caption.llm",
])
def test_load_params__an_unknown_key_is_named(tmp_path: Path, section: str) -> None:
    content = copy.deepcopy(CONTENT)
    place = content
    for part in section.split("."):
        place = place[part]
    place["nonsense"] = 1
    with raises(ConfigError, code="unknown-setting", naming=f"{section}.nonsense"):
        load_params(write(tmp_path / "params.yaml", content))


def test_load_params__an_unknown_section_is_named(tmp_path: Path) -> None:
    with raises(ConfigError, code="unknown-setting", naming="nonsense"):
        load_params(write(tmp_path / "params.yaml", CONTENT | {"nonsense": {}}))


REQUIRED = [
    place for place in keys_of(CONTENT)
    if place[0] not in {*FACE, "subtitles", "ocr", "speech", "fields"} and place[:3] != ("train", "settings", "lora")
    and place[:2] != ("caption", "llm") and place not in (("calibrate", "prior"), ("train", "preset"))
]
"""Adapters and the language model have defaults in their rooms; what reads text and speech,
fields, the prior and presets came later than files of archives."""


@pytest.mark.parametrize("place", REQUIRED, ids=".".join)
def test_load_params__a_missing_key_is_named(tmp_path: Path, place: tuple[str, ...]) -> None:
    content = copy.deepcopy(CONTENT)
    *above, key = place
    inner = content
    for part in above:
        inner = inner[part]
    del inner[key]
    with raises(ConfigError, code="setting-missing", naming=".".join(place)):
        load_params(write(tmp_path / "params.yaml", content))


@pytest.mark.parametrize(("key", "value"), [
    ("ingest.timeout_seconds", 0), ("ingest.workers", 0), ("cut.modes", []), ("cut.modes", ["shots_"]),
    ("cut.window_length_seconds", -1), ("cut.window_stride_seconds", 0), ("frames.num_frames", 0),
    ("frames.num_frames", 101), ("frames.side_px", 8), ("frames.quality", 101), ("frames.shard_mib", 0),
    ("pairs.validation_share", 1.5), ("pairs.test_share", -0.1), ("gates.pairs.min_caption_length", 0),
    ("gates.pairs.max_rejected_share", 2), ("gates.embeddings.max_mean_cosine", 1.5),
    ("gates.archive.max_rejected_share", -1), ("gates.archive.languages", []), ("gates.archive.max_one_length_share", 2),
    ("gates.embeddings.max_drift", 2), ("gates.embeddings.on_drift", "shout"), ("backbone.name", ""),
    ("train.settings", {}), ("train.settings.lora.rank", 0), ("train.settings.lora.dropout", 1.0),
    ("train.settings.lora.targets", ["heads"]), ("train.settings.lora.learning_rate", 0),
    ("train.settings.lora.steps", 0), ("train.settings.lora.batch", 1), ("select.resamples", 0),
    ("export.parity.fp32.min_cosine", 2), ("export.variants", ["int4"]),
    ("export.max_clips", 5), ("embed.variant", "fp64"), ("embed.batch", 0),
    ("evaluate.resamples", -1), ("publish.cut", "scenes"), ("publish.keep_previous", -1), ("publish.min_recall", 1.01),
    ("publish.index.vectors", ["sound"]), ("publish.index.m", 1), ("publish.index.hnsw_ef", 0),
    ("publish.index.quantization", "int4"), ("publish.index.oversampling", 0.5), ("publish.server.shards", 0),
    ("caption.sources", ["sound"]), ("caption.llm.budget_usd", -1), ("caption.llm.keep", ["long"]),
    ("caption.llm.provider", "oracle"), ("publish.server.write_consistency", 0), ("calibrate.max_queries", 0),
    ("calibrate.prior", 0), ("calibrate.prior", 1),
    ("search.evidence", {"captions": -1}), ("search.weights", {"words": -1}), ("search.negative_weight", -1),
    ("search.merge_margin", -0.1), ("search.merge_margin_sd", -0.1),
    ("serve.port", 99999), ("serve.host", 7), ("frames.num_frames", "eight"),
    ("general.source", 5), ("cut", None), ("pairs.seed", 1.5),
])
def test_load_params__a_value_out_of_range_is_named(tmp_path: Path, key: str, value: object) -> None:
    content = copy.deepcopy(CONTENT)
    *above, last = key.split(".")
    inner = content
    for part in above:
        inner = inner[part]
    inner[last] = value
    codes = ("setting-out-of-range", "unknown-choice")
    with raises(ConfigError, code=codes, naming=key) as caught:
        load_params(write(tmp_path / "params.yaml", content))
    assert caught.value.remedy


def test_load_params__a_setting_needs_a_name_that_a_folder_can_have(tmp_path: Path) -> None:
    content = copy.deepcopy(CONTENT)
    content["train"]["settings"]["../out"] = content["train"]["settings"].pop("lora")
    with raises(ConfigError, code="setting-out-of-range", naming="train.settings"):
        load_params(write(tmp_path / "params.yaml", content))


def test_load_params__every_fault_is_named_at_once(tmp_path: Path) -> None:
    content = copy.deepcopy(CONTENT)
    content["frames"]["quality"] = 400
    content["cut"]["nonsense"] = 1
    del content["backbone"]
    with raises(ConfigError, code="invalid-settings", naming=("frames.quality is 400", "cut.nonsense", "backbone")):
        load_params(write(tmp_path / "params.yaml", content))


@pytest.mark.parametrize("text", ["- a list", "text", "a: [", "1: {}", "a: !!python/object:os.x {}"])
def test_load_params__what_is_no_mapping_of_sections_is_a_config_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with raises(ConfigError, code=("params-unreadable", "invalid-settings"), naming="params.yaml"):
        load_params(path)


def test_load_params__a_missing_file_is_a_config_error(tmp_path: Path) -> None:
    with raises(ConfigError, code="params-missing", naming="params.yaml"):
        load_params(tmp_path / "params.yaml")
