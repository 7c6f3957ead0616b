from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.raising import raises
from vidseek_media.errors import ConfigError, InputRejected
from vidseek_media.fields.declared import MAX_FIELDS, FieldType, field_name_of, fields_of, require_field_name
from vidseek_media.settings import FieldSettings


@pytest.mark.parametrize(("kind", "cell", "value"), [
    ("keyword", "  A-cam\t2 ", "A-cam 2"), ("keyword", "0071", "0071"), ("integer", "7", 7), ("integer", "-12", -12),
    ("integer", "3.0", 3), ("float", "2.50", 2.5), ("float", "-0", 0.0), ("boolean", "YES", "true"),
    ("boolean", "0", "false"),
    ("datetime", "2026-03-01", "2026-03-01T00:00:00Z"), ("datetime", "2026-03-01T12:00:00+02:00", "2026-03-01T10:00:00Z"),
    ("text", "two\nlines", "two lines"),
])
def test_values__of_each_kind(kind: str, cell: str, value: object) -> None:
    [found] = FieldType.of(kind).values_of(cell)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(("kind", "cell"), [
    ("keyword", "x" * 257), ("keyword", "a\0b"), ("integer", "3.5"), ("integer", "abc"), ("integer", "1e3"),
    ("integer", "9007199254740993"), ("integer", "７"), ("float", "nan"), ("float", "inf"), ("boolean", "perhaps"),
    ("datetime", "yesterday"), ("datetime", "12"), ("text", "x" * 5000),
])
def test_values__of_another_type_say_what_came_and_what_was_wanted(kind: str, cell: str) -> None:
    with raises(InputRejected, code="bad-field-value", naming="wanted"):
        FieldType.of(kind).values_of(cell)


@pytest.mark.parametrize(("cell", "values"), [
    ("a; b;a", ("a", "b")), ("a, b", ("a", "b")), ('["a, b", "c"]', ("a, b", "c")), ("[a", ("[a",)), (" ; ", ()), ("", ()),
    ("a, b; c", ("a, b", "c")),
])
def test_values__of_a_list(cell: str, values: tuple[str, ...]) -> None:
    assert FieldType("keyword", many=True).values_of(cell) == values


@given(st.floats(allow_nan=False, min_value=-1e299, max_value=1e299), st.integers(-(2**53), 2**53))
def test_values__that_were_parsed_fit_and_are_parsed_again_from_their_text(number: float, whole: int) -> None:
    for kind, value in ((FieldType("float"), number), (FieldType("integer"), whole)):
        [once] = kind.values_of(repr(value))
        assert math.isclose(float(once), value, rel_tol=1e-15, abs_tol=0) and kind.fits(once)
        assert kind.values_of(str(once)) == (once,)


@given(st.text())
def test_names__are_made_once(column: str) -> None:
    name = field_name_of(column)
    assert field_name_of(name) == name


def test_fits__takes_no_other_type() -> None:
    assert FieldType("keyword", many=True).fits(["a"]) and not FieldType("keyword", many=True).fits("a")
    assert not FieldType("keyword", many=True).fits([]) and not FieldType("keyword").fits(["a"])
    assert not FieldType("integer").fits(True) and not FieldType("integer").fits("7") and not FieldType("boolean").fits(True)


@pytest.mark.parametrize("name", ["größe", "カメラ", "shot_at", "take2"])
def test_names__of_any_script(name: str) -> None:
    assert require_field_name(name) == name


@pytest.mark.parametrize(("declared", "naming"), [
    ({"Shot At": "datetime"}, "shot_at takes the column 'Shot At' too"), ({"camera.name": "keyword"}, "camera_name"),
    ({"2take": "integer"}, "a letter first"), ({"": "keyword"}, "the name of a field"), ({"x" * 65: "keyword"}, "up to 64"),
    ({"title": "keyword"}, "title, which has a meaning"), ({"video_id": "keyword"}, "meaning"),
    ({"camera": "word"}, "the field camera is 'word': wanted one of keyword"),
    ({"camera": ["keyword", "text"]}, "a list of one"),
    ({"camera": None}, "None"), ({"tags": "keyword"}, "wanted [keyword]"),
    ({f"f{number}": "keyword" for number in range(MAX_FIELDS + 1)}, f"at most {MAX_FIELDS}"),
])
def test_settings__that_declare_what_cannot_be_say_why(declared: dict[str, object], naming: str) -> None:
    with raises(ConfigError, code="setting-out-of-range", naming=naming):
        FieldSettings.of(declared)


def test_settings__declare_fields() -> None:
    settings = FieldSettings.of({"camera": "keyword", "tags": ["keyword"]})
    assert settings.declared == fields_of({"camera": "keyword", "tags": ["keyword"]})
    assert settings.model_dump() == {"camera": "keyword", "tags": ["keyword"]} and FieldSettings().declared == {}
