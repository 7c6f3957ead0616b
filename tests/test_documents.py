"""The documents: links lead somewhere, nothing outside the repository is named, decisions are listed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
CODE = [path for folder in ("packages", "pipelines", "serving", "bench", "tests", "infra", "docs", ".ci")
        for path in (ROOT / folder).rglob("*") if path.suffix in {".py", ".md", ".sh", ".yaml", ".toml"}]
CODE.extend(ROOT.glob("*.py"))
LINK = re.compile(r"\]\(([^)\s]+)\)")
# The notes that this repository grew from; it must be understood without them.
OUTSIDE = re.compile(r"(design|trials|glossary|house-style)\.md|shared/cases|/work/main")


def slug_of(heading: str) -> str:
    """As GitHub makes an anchor from a heading."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors_of(path: Path) -> set[str]:
    fenced, anchors = False, set()
    for line in path.read_text(encoding="utf-8").splitlines():
        fenced ^= line.lstrip().startswith("```")
        if not fenced and line.startswith("#"):
            anchors.add(slug_of(line.lstrip("#")))
    return anchors


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links__lead_to_a_file_and_a_heading_of_it(document: Path) -> None:
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        assert path.exists(), target
        assert not anchor or anchor in anchors_of(path), target


def test_readme__is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 120


def test_documents_and_code__name_nothing_outside_the_repository() -> None:
    named = {str(path.relative_to(ROOT)) for path in [*DOCUMENTS, *CODE]
             if path != Path(__file__) and OUTSIDE.search(path.read_text(encoding="utf-8"))}
    assert named == set()


def test_decisions__each_has_its_date_and_stands_in_the_list() -> None:
    listed = (ROOT / "docs/decisions/README.md").read_text(encoding="utf-8")
    for path in (ROOT / "docs/decisions").glob("2*.md"):
        title = path.read_text(encoding="utf-8").splitlines()[0]
        assert title.startswith(f"# {path.name[:10]} "), path.name
        assert f"| {path.name[:10]} | [{title[13:]}]({path.name}) |" in listed, path.name


def prose_of(document: Path) -> list[str]:
    """Lines of running text: no code, no tables, no headings, no quotations."""
    lines, fenced = [], False
    for line in document.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not line.startswith(("|", "#", ">", "![", "    ")):
            lines.append(line)
    return lines


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_prose__has_lines_under_a_hundred_characters(document: Path) -> None:
    assert [line for line in prose_of(document) if len(line) >= 100 and " " in line.strip()[:-1]] == []


def test_modules__that_documents_name_are_there() -> None:
    files = [f"/{path.relative_to(ROOT).as_posix()}" for path in CODE if path.suffix == ".py"]
    # Decisions are of their day.
    for document in [path for path in DOCUMENTS if "decisions" not in path.parts and path.name != "CHANGELOG.md"]:
        text = document.read_text(encoding="utf-8")
        run_as = re.findall(r"python -m ((?:vidseek|pipelines|serving|bench)[\w.]*\w)(?![<.])", text)
        for name in [*re.findall(r"`([\w/]+\.py)`", text), *(f"{each.replace('.', '/')}.py" for each in run_as)]:
            assert any(file.endswith(f"/{name}") for file in files), f"{document.name}: {name}"


NAMES, MODULE = r"((?:`\w+`(?:, | and )?)+)", r"`([\w/]+\.py)`"


def test_names__that_documents_give_with_a_module_are_in_it() -> None:
    modules = [path for path in CODE if path.suffix == ".py"]
    found = 0
    for document in ("ARCHITECTURE.md", "CONTRIBUTING.md"):
        text = " ".join((ROOT / document).read_text(encoding="utf-8").split())
        named = re.findall(f"{NAMES} (?:in|of) {MODULE}", text)
        named += [(names, module) for module, names in re.findall(f"{MODULE}: {NAMES}", text)]
        for names, module in named:
            texts = [path.read_text(encoding="utf-8") for path in modules if path.as_posix().endswith(f"/{module}")]
            for name in re.findall(r"`(\w+)`", names):
                found += 1
                assert any(re.search(rf"\b{name}\b", source) for source in texts), f"{document}: {name} in {module}"
    assert found > 20
