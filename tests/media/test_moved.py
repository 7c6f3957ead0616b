"""Module paths of an earlier version still lead to what they had."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest

from vidseek_media import moved

FOLDERS = [path for path in moved.PATHS if importlib.util.find_spec(path).submodule_search_locations is not None]


@pytest.mark.parametrize("path", moved.PATHS)
def test_path__leads_to_a_module_of_today(path: str) -> None:
    assert importlib.util.find_spec(path) is not None
    assert importlib.util.find_spec(moved.PATHS[path]) is not None


@pytest.mark.parametrize(("path", "name", "today"), [
    ("vidseek_media.frames", "decode_at", "vidseek_media.decoding.frames"),
    ("vidseek_media.sources", "open_source", "vidseek_media.sources.opening"),
    ("vidseek_retrieval.server", "QdrantHome", "vidseek_retrieval.index.qdrant.backend"),
    ("vidseek_retrieval.index", "CollectionFacts", "vidseek_retrieval.index.collection_metadata"),
    ("vidseek_retrieval.index", "IndexSettings", "vidseek_retrieval.settings"),
    ("vidseek_retrieval.search", "Searcher", "vidseek_retrieval.search.searcher"),
    ("vidseek_training.metrics", "ranks_of_owned", "vidseek_training.evaluation.metrics"),
    ("vidseek_training.fitting", "Fitting", "vidseek_training.fitting.trainer"),
    ("vidseek_training.export", "_reference_of", "vidseek_training.export.onnx_export"),
    ("vidseek_training.llm.prompt", "read_answer", "vidseek_training.captioning.prompt"),
])
def test_name__is_found_where_it_is_today(path: str, name: str, today: str) -> None:
    with pytest.warns(DeprecationWarning, match=name):
        found = getattr(importlib.import_module(path), name)
    assert found is getattr(importlib.import_module(today), moved.NAMES.get(name, name))


def test_name__that_never_was_is_not_found() -> None:
    with pytest.raises(ImportError):
        from vidseek_media.frames import decode_everything  # noqa: F401


IN_A_FORK = """
import json, os, sys, warnings
import numpy, pandas, pyarrow.parquet, torch  # what most of the folders want, once
warnings.filterwarnings("error", category=DeprecationWarning, module="__main__")
for path, name in json.loads(sys.argv[1]):
    if not (process := os.fork()):
        exec(f"from {path} import {name} as found; assert found is sys.modules['{path}.{name}']")
        os._exit(0)
    if os.waitpid(process, 0)[1]:
        sys.exit(f"{path} does not give its {name}")
"""


@pytest.mark.slow
def test_folder__gives_its_own_modules_and_imports_no_others_for_it() -> None:
    asked = [(path, moved.PATHS[path].removeprefix(f"{path}.")) for path in FOLDERS]
    subprocess.run([sys.executable, "-c", IN_A_FORK, json.dumps(asked)], check=True)
