from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from tests.raising import raises
from vidseek.configuration.comments import commented, docs_of, main
from vidseek.configuration.yaml_file import keys_of
from vidseek.params import Params
from vidseek_media.settings import Section, SettingsRefused

ROOT = Path(__file__).parents[3]


def test_params_yaml__its_comments_are_the_docs_of_the_records() -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert commented(text) == text, "Run `python -m vidseek.configuration.comments --write`"


RECORDS = sorted({record for _, record, _ in keys_of(Params)} - {Params}, key=lambda record: record.place)


@pytest.mark.parametrize("record", RECORDS)
def test_records__every_key_has_a_doc(record: type[Section]) -> None:
    assert set(record.model_fields) == set(docs_of(record))


REFUSED = (SettingsRefused.code, *SettingsRefused.codes.values())
"""A record may lack keys besides, and some fields take a mapping or a choice."""


@pytest.mark.parametrize("record", RECORDS)
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_records__refuse_what_is_no_finite_number(record: type[Section], value: float) -> None:
    for name in record.model_fields:
        with raises(SettingsRefused, code=REFUSED) as caught:
            record.of({name: value})
        assert any(name in fault.key.split(".") for fault in caught.value.faults), name


def test_commented__changes_comments_alone() -> None:
    text = (
        "# head\nframes:\n  quality: 80 # old\n  side_px: 64\n\ningest:\n  clip_pattern: '(a) # b'   # x\n"
        "train:\n  settings:\n    a:\n      rank: 3\n"
    )
    after = commented(text)
    assert yaml.safe_load(after) == yaml.safe_load(text)
    lines = after.splitlines()
    assert lines[:2] == ["# head", "frames:"] and lines[4] == ""
    assert lines[2].startswith("  quality: 80 ") and lines[2].endswith("# Of the JPEG files, 1 to 100")
    assert "old" not in lines[2]
    assert "'(a) # b'" in lines[6] and lines[6].count("#") == 2
    assert lines[-1].endswith("# Of the low-rank matrices (Hu et al. 2021)")
    assert commented(after) == after


def test_main__says_which_lines_differ_and_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("frames:\n  quality: 80  # wrong\n")
    assert main([str(path)]) == 1
    assert f"{path}:2: wanted" in capsys.readouterr().out
    assert main(["--write", str(path)]) == 0 and main([str(path)]) == 0
