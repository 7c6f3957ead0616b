"""What is noted of the builds of a collection on a Qdrant server, and which points each of them shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient, models

from vidseek_retrieval.index.qdrant import alias_table
from vidseek_retrieval.index.qdrant import backend as server
from vidseek_retrieval.index.qdrant.builds import ADDED, REMOVED, Build, Builds, of_no_build, shows

NUMBERS = st.integers(0, 6)


@given(
    points=st.lists(st.tuples(NUMBERS, st.none() | NUMBERS), max_size=8), kept=st.sets(NUMBERS, min_size=1).map(sorted),
)
@settings(max_examples=60, deadline=None)
def test_of_no_build__meets_the_points_that_no_kept_build_shows(
    points: list[tuple[int, int | None]], kept: list[int]
) -> None:
    payloads = [
        {**({ADDED: added} if added else {}), **({} if removed is None else {REMOVED: removed})} for added, removed in points
    ]
    client = QdrantClient(":memory:")
    client.create_collection("clips", vectors_config={})
    structs = [models.PointStruct(id=place, vector={}, payload=payload) for place, payload in enumerate(payloads)]
    if structs:
        client.upsert("clips", structs)
    met = {record.id for each in of_no_build(kept) for record in client.scroll("clips", scroll_filter=each, limit=100)[0]}
    assert met == {place for place, payload in enumerate(payloads) if not any(shows(number, payload) for number in kept)}


@pytest.mark.parametrize("content", [
    None, [], "x", {}, {"builds": []}, {"builds": [{"name": "clips"}], "following": "x"}, {"builds": ["clips"]},
    {"builds": [{"name": "clips-0123456789abcdef-000000000000"}], "following": 1, "unfinished": "", "dropped_at": 0},
    {"builds": [], "is_numbered": True, "following": 1, "unfinished": "", "dropped_at": 0},
    {"builds": 3, "is_numbered": True, "following": 1, "unfinished": "", "dropped_at": 0},
])
def test_builds__notes_that_cannot_be_read_are_one_build(content: Any) -> None:
    name = "clips-0123456789abcdef-000000000000"
    config = type("Config", (), {"metadata": {"vidseek": {"name": name}, "vidseek-builds": content}})
    info = type("Info", (), {"config": config})
    builds = Builds.of(info, name)  # type: ignore[arg-type]
    assert builds is not None and builds.builds == {name: Build(0, {"name": name}, "")} and builds.is_numbered


def test_alias_table__a_move_that_a_dying_server_half_made_is_the_newer_build() -> None:
    stored_as = "clips-0123456789abcdef-000000000000"
    table = alias_table.Table({
        "clips": stored_as, f"clips~0~{'1' * 12}~1": stored_as, f"clips~0~{'2' * 12}~2": stored_as,
        f"clips~1~{'1' * 12}~1": stored_as, "clips~2": stored_as,
    })
    assert table.live["clips"] == f"clips-0123456789abcdef-{'2' * 12}"
    assert table.previous("clips") == (f"clips-0123456789abcdef-{'1' * 12}", stored_as)
    assert len(table.names_of("clips")) == 5


def test_reader__alone_asks_for_points() -> None:
    """What adds the build to each request is the only module that reads points; `growth` reads ids that are taken."""
    folder = Path(server.__file__).parent
    asking = re.compile(r"client\.(query_points|query_batch_points|scroll|count|facet|retrieve|recommend|search\w*)\b")
    found = {path.name: set(asking.findall(path.read_text())) for path in folder.glob("*.py")}
    assert {name: asked for name, asked in found.items() if asked} == {
        "build_reader.py": {"query_points", "scroll", "count", "facet", "retrieve"}, "growth.py": {"retrieve"},
        "lock.py": {"retrieve"}, "alias_table.py": {"scroll"},
    }
