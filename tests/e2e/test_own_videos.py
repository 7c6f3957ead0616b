"""What a user meets first: videos without captions, params that cannot be, a search before there is an index."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.e2e.conftest import Checkout, make_checkout


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in which nothing has run: no test leaves anything in it."""
    return make_checkout(tmp_path_factory.mktemp("fresh"))


@pytest.mark.slow
def test_repro__without_captions_are_published_with_the_base(tiny_world: Path, tmp_path: Path) -> None:
    source = tmp_path / "mine"
    source.mkdir()
    for file in sorted((tiny_world / "domain").glob("*.mp4"))[:2]:
        shutil.copy(file, source / file.name)
    (source / "broken.mp4").write_bytes(b"this is no video")
    checkout = make_checkout(tmp_path / "own")
    checkout.edit_params({"ingest.source": str(source), "general.source": None, "export.variants": []})
    said = checkout.succeed("dvc", "repro")
    assert "base is champion" in said
    rejected = pd.read_parquet(checkout.path / "data/ingest/rejected.parquet")
    assert list(rejected.id) == ["broken.mp4"]
    answer = json.loads(checkout.succeed("vidseek", "search", "a large disc", "--json"))
    assert answer["hits"]
    metrics = json.loads((checkout.path / "reports/evaluate/metrics.json").read_text())
    assert metrics["retention"] == "not measured" and metrics["num_test_pairs"] == 0


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"ingest.source": "no/such/folder"}, 11, "no/such/folder"),
        ({"cut.window_length": 3}, 11, "cut.window_length is no key that we know"),
        ({"frames.quality": 400}, 11, "frames.quality is 400"),
    ],
)
def test_bad_params__one_message_and_the_exit_code(
    fresh: Checkout, changes: dict[str, object], code: int, words: str
) -> None:
    params = fresh.path / "params.yaml"
    shipped = params.read_text()
    fresh.edit_params(changes)
    done = fresh.run("python", "-m", "pipelines.ingest")
    params.write_text(shipped)
    assert done.returncode == code
    assert words in done.stderr and "Traceback" not in done.stderr
    assert {path.name for path in (fresh.path / "data").iterdir()} == {"decisions"}


def test_search__before_anything_is_published_says_what_to_do(fresh: Checkout) -> None:
    done = fresh.run("vidseek", "search", "a dog")
    assert done.returncode == 12
    assert "dvc repro" in done.stderr and "Traceback" not in done.stderr
