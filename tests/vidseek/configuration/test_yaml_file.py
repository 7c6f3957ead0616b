from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.raising import raises
from vidseek.configuration.yaml_file import ParamsFile, keys_of, lines_of
from vidseek.params import CHANGED, Params, load_params, load_section
from vidseek_media.errors import ConfigError
from vidseek_media.settings import CutSettings, FrameSettings, SettingsRefused
from vidseek_retrieval.settings import IndexSettings
from vidseek_training.settings import BackboneSettings, PairSettings

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")


def written(folder: Path, text: str) -> Path:
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(("text", "key"), [
    ("frames: {quality: 90}\nframes: {quality: 80}\n", "frames"),
    ("frames:\n  quality: 90\n  quality: 80\n", "frames.quality"),
    ("frames: {quality: 90, 'quality': 80}\n", "frames.quality"),
    ("cut:\n  shots:\n    workers: 1\n    gradual: true\n    workers: 2\n", "cut.shots.workers"),
    ("a:\n  - {b: 1}\n  - {b: 1, b: 2}\n", "a.1.b"),
    ("x: &x {a: 1}\ny: {<<: *x, <<: *x}\n", "y.<<"),
])
def test_read__a_key_twice_is_refused_with_both_lines(tmp_path: Path, text: str, key: str) -> None:
    with raises(ConfigError, code="params-unreadable", naming=f"{key} stands twice"):
        ParamsFile.read(written(tmp_path, text))


def test_read__anchors_and_merged_keys_are_no_doubles(tmp_path: Path) -> None:
    text = "base: &base {quality: 90, num_frames: 4}\nframes:\n  <<: *base\n  quality: 80\nagain: *base\n"
    file = ParamsFile.read(written(tmp_path, text))
    assert file.section(FrameSettings) == FrameSettings(quality=80, num_frames=4)
    assert file.lines["frames.quality"] == 4


@pytest.mark.parametrize("text", [
    "a: &a [*a]\n", "frames: &a {quality: *a}\n", f"a: {'[' * 2000}", "a: !!python/object:os.x {}", "? [1, 2]\n: 3\n",
    "frames: 3", "frames: [1]", "1: {}",
])
def test_load_params__odd_yaml_is_a_config_error(tmp_path: Path, text: str) -> None:
    with raises(ConfigError, code=("params-unreadable", "invalid-settings")):
        load_params(written(tmp_path, text))


def test_load_params__anchors_that_stand_for_gigabytes_cost_nothing(tmp_path: Path) -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 40))
    began = time.process_time()
    with raises(ConfigError, code="setting-out-of-range") as caught:
        load_section(written(tmp_path, f"{bomb}frames: {{quality: *a39}}\n"), FrameSettings)
    assert time.process_time() - began < 5 and len(caught.value.message) < 1000


@given(st.dictionaries(st.text("abc", min_size=1), st.integers() | st.dictionaries(st.text("abc", min_size=1), st.none())))
@settings(max_examples=50)
def test_lines_of__every_key_stands_where_it_is_said_to(content: dict[str, object]) -> None:
    text = yaml.safe_dump(content, default_flow_style=False, sort_keys=False)
    lines = lines_of(text)
    for key, number in lines.items():
        assert text.splitlines()[number - 1].strip().startswith(f"{key.rpartition('.')[2]}:") or "{" in text
    assert len(lines) == sum(1 + (len(value) if isinstance(value, dict) else 0) for value in content.values())


def test_load_params__an_unknown_key_is_told_with_its_section_the_nearest_one_and_its_line(tmp_path: Path) -> None:
    text = TEXT.replace("  quality: 95", "  qualty: 95").replace("  workers: 2  ", "  side_pixels: 3\n  workers: 2  ", 1)
    with raises(SettingsRefused, code="invalid-settings") as caught:
        load_params(written(tmp_path, text))
    number = next(n for n, line in enumerate(text.splitlines(), 1) if "qualty" in line)
    assert f"frames.qualty is no key that we know; the nearest is frames.quality (line {number})" in caught.value.message
    assert {(fault.key, fault.kind) for fault in caught.value.faults} == {
        ("frames.qualty", "unknown"), ("frames.quality", "missing"), ("ingest.side_pixels", "unknown"),
    }


def test_load_section__a_key_of_another_section_is_told_where_it_belongs(tmp_path: Path) -> None:
    text = TEXT.replace("  num_frames: 8", "  num_frames: 8\n  keep_previous: 1")
    with raises(ConfigError, code="unknown-setting", naming=("frames.keep_previous", "publish.keep_previous")):
        load_params(written(tmp_path, text))


def test_load_params__a_file_of_an_earlier_version_is_one_message_that_says_what_to_write(tmp_path: Path) -> None:
    content = yaml.safe_load(TEXT)
    parity = content["export"].pop("parity")["fp32"]
    content["export"] |= parity
    content["publish"]["alias"] = "clips"
    content["ingest"]["youtube"]["max_height"] = 720
    content["pairs"]["skip_marks"] = content["pairs"].pop("skip_quality_flags")
    content["caption"]["llm"]["skip_marks"] = ["black"]
    content["train"]["settings"]["lora"] |= {"looks_per_epoch": 2.0, "look_clips": 100}
    content["frames"]["shard_digits"] = 1
    del content["frames"]["per_bin"], content["calibrate"], content["gates"]["drift"]
    with raises(SettingsRefused, code="invalid-settings") as caught:
        load_params(written(tmp_path, yaml.safe_dump(content)))
    faults = {fault.key: fault for fault in caught.value.faults}
    assert {key for key, fault in faults.items() if fault.kind == "changed"} == {
        key.replace("*", "lora") for key in CHANGED
    }
    assert "train.settings.lora.validations_per_epoch" in faults["train.settings.lora.looks_per_epoch"].text
    assert {key for key, fault in faults.items() if fault.kind == "missing"} == {
        "export.parity", "frames.per_bin", "calibrate", "gates.drift", "pairs.skip_quality_flags",
    }
    assert "write per_bin: 1" in faults["frames.per_bin"].text
    assert "export.parity.fp32.min_cosine" in faults["export.min_cosine"].text
    assert all(fault.text in caught.value.message for fault in faults.values())


def test_load_section__a_key_of_an_earlier_version_is_told_as_such(tmp_path: Path) -> None:
    path = written(tmp_path, "pairs: {skip_marks: [black], seed: 1}\nexport: {min_cosine: 1}\n")
    with raises(SettingsRefused, code="setting-changed", naming=("pairs.skip_marks", "pairs.skip_quality_flags", "line 1")):
        load_section(path, PairSettings)


def test_load_params__what_a_missing_key_is_to_be_written_as_is_taken(tmp_path: Path) -> None:
    """The message's own advice, for every key that a file may lack."""
    content = yaml.safe_load(TEXT)
    wanted = {section: {} for section in content if section not in ("backbone", "train")}
    needed = {"backbone": content["backbone"], "train": content["train"]}
    with raises(SettingsRefused, code="setting-missing") as caught:
        load_params(written(tmp_path, yaml.safe_dump({**wanted, **needed})))
    for fault in caught.value.faults:
        place = wanted
        for part in fault.key.split(".")[:-1]:
            place = place[part]
        place |= yaml.safe_load("{" + fault.text.split(" is missing: write ")[1] + "}")
    wanted["ingest"]["source"] = "videos"
    assert load_params(written(tmp_path, yaml.safe_dump({**wanted, **needed}))).frames == FrameSettings()


def test_load_section__reads_its_section_alone_and_a_missing_file_has_the_defaults(tmp_path: Path) -> None:
    path = written(tmp_path, "train: {nonsense: 1}\npublish: {index: {m: 8}}\ncut:\n")
    assert load_section(path, IndexSettings) == IndexSettings(m=8)
    assert load_section(path, CutSettings) == load_section(tmp_path / "none.yaml", CutSettings) == CutSettings()
    with raises(ConfigError, code="setting-missing", naming="backbone.name"):
        load_section(path, BackboneSettings)


@pytest.mark.parametrize("record", [FrameSettings, CutSettings, IndexSettings])
def test_section__made_in_python_is_refused_as_one_that_is_read(record: type[FrameSettings]) -> None:
    with raises(ConfigError, code="unknown-setting", naming=f"{record.place}.nonsense"):
        record(nonsense=1)


def test_keys_of__every_record_stands_at_its_place() -> None:
    places = {key: record.place for key, record, _ in keys_of(Params)}
    for key, place in places.items():
        above = key.rpartition(".")[0]
        assert place == above or "*" in place, f"{key} is of a record at {place!r}"
