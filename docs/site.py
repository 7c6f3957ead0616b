"""Pages of the site that are made when it is built: the root's documents, and one of the API for each package."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
DOCUMENTS = {"ARCHITECTURE.md": "architecture.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
ROOMS = ("vidseek_media", "vidseek_quality", "vidseek_encoder", "vidseek_training", "vidseek_retrieval")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that no file under docs/ holds."""
    for name, page in DOCUMENTS.items():
        files.append(File.generated(config, page, content=_as_page((ROOT / name).read_text(encoding="utf-8"))))
    for room in ROOMS:
        files.append(File.generated(config, f"api/{room}.md", content=f"# {room}\n\n::: {room}\n"))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links to the root's documents to their pages; the README is the site's first page."""
    up = "../" * page.file.src_uri.count("/")
    above = "*" if page.file.src_uri in DOCUMENTS.values() else "+"  # the root's own documents lie beside each other
    markdown = re.sub(rf"\]\((?:\.\./){above}README\.md(?:#[^)]*)?\)", f"]({up}index.md)", markdown)
    for name, page_of in DOCUMENTS.items():
        markdown = re.sub(rf"\]\((?:\.\./){above}{re.escape(name)}(#[^)]*)?\)", rf"]({up}{page_of}\1)", markdown)
    return markdown


def _as_page(markdown: str) -> str:
    return markdown.replace("](docs/", "](")
