from __future__ import annotations

import re
import tomllib
from pathlib import Path

import jinja2
import pytest

from vidseek_media.files.pages import write_page
from vidseek_quality.report import Failure, GateResult

ROOT = Path(__file__).resolve().parents[3]
TEMPLATES = sorted((ROOT / "packages").glob("*/templates/*"))


def gate(name: str) -> GateResult:
    failures = (Failure("pairs", f"no {name}", 2, None, (name, "b")), Failure("clips", "few", 1, 7, ()))
    return GateResult(name, failures, 9, {"num": 3, "Share": None}, (f"of {name}",))


def test_write_page__every_value_is_text(tmp_path: Path) -> None:
    write_page(tmp_path / "a.html", "vidseek_quality", "gate.html", result=gate("<script>&"))
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<h1>&lt;script&gt;&amp;: failed: 2 of 9 expectations</h1>" in page
    assert "<td><code>&lt;script&gt;&amp;<br>b</code>" in page and "<td>clips<td>few<td>1<td>7<td>" in page
    assert page.index("<td>Share<td>None") < page.index("<td>num<td>3")


def test_write_page__a_value_that_is_missing_leaves_no_page(tmp_path: Path) -> None:
    with pytest.raises(jinja2.UndefinedError):
        write_page(tmp_path / "a.html", "vidseek_quality", "gate.html")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_templates__load_nothing_and_are_installed(template: Path) -> None:
    text = template.read_text(encoding="utf-8")
    assert not re.search(r'src="(?!data:|\{\{)|href=.?(https?:|//)|<script|@import|url\(|\|\s*safe', text)
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert packaged[template.parents[1].name] == ["templates/*"]


def test_markup__is_in_templates_alone() -> None:
    files = [path for folder in ("packages", "pipelines") for path in (ROOT / folder).rglob("*.py")]
    found = [path.name for path in files if re.search(r"<(html|table|h1|figure|td)\b", path.read_text(encoding="utf-8"))]
    assert found == []
