"""Module paths and names of an earlier version: they go on for one version, with a DeprecationWarning.

All modules were moved into folders on 2026-11-27 (ARCHITECTURE.md, "The map"). `from vidseek_media.frames import decode_at`
finds the function where it is today. What a module had may lie in several modules now: its folder is searched.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import pkgutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

_MOVED = {
    ("vidseek", "vidseek.actions"): (
        "agents base feedback forget page queries"
    ),
    ("vidseek", "vidseek.reports"): (
        "doctor drift overview plan report"
    ),
    ("vidseek_media", "vidseek_media.cutting"): (
        "cut marks=quality_flags shots transitions"
    ),
    ("vidseek_media", "vidseek_media.decoding"): (
        "display excerpt frames hidden_frames=packets packets pictures probe sandbox worker_process workers"
    ),
    ("vidseek_media", "vidseek_media.files"): (
        "appending folders json_files parquet_files"
    ),
    ("vidseek_media", "vidseek_media.frame_store"): (
        "members shards"
    ),
    ("vidseek_media", "vidseek_media.sources"): (
        "ingest ledger listing=source local manifests=manifest originals remote sources=opening"
    ),
    ("vidseek_media", "vidseek_media.sources.youtube"): (
        "youtube=source"
    ),
    ("vidseek_media", "vidseek_media.splitting"): (
        "hashes=perceptual_hashes sides=both_sides video_groups"
    ),
    ("vidseek_media", "vidseek_media.text"): (
        "languages rows sidecars transcripts"
    ),
    ("vidseek_retrieval", "vidseek_retrieval.confidence"): (
        "calibrate calibration clip_drift drift familiarity reliability seen=query_stats"
    ),
    ("vidseek_retrieval", "vidseek_retrieval.dedup"): (
        "decisions dedup=find duplicates=video_matches"
    ),
    ("vidseek_retrieval", "vidseek_retrieval.dedup.comparing"): (
        "alignment likeness=fingerprints"
    ),
    ("vidseek_retrieval", "vidseek_retrieval.dedup.judging"): (
        "copies=made_copies"
    ),
    ("vidseek_retrieval", "vidseek_retrieval.embedding"): (
        "embed=embed_clips embed_all=embed_archive on_ray parts=embedding_parts texts=embed_texts"
    ),
    ("vidseek_retrieval", "vidseek_retrieval.index"): (
        "homes=open_backend index=backend points=collection_points publish published=live_sample "
        "spread=score_spread trial=trial_search verification words=bm25"
    ),
    ("vidseek_retrieval", "vidseek_retrieval.index.edge"): (
        "edge=backend edge_builder=builder edge_collection=collection edge_shard=shard edge_spans=spans"
    ),
    ("vidseek_retrieval", "vidseek_retrieval.index.exchange"): (
        "imported=import_checks transfer"
    ),
    ("vidseek_retrieval", "vidseek_retrieval.index.qdrant"): (
        "qdrant_points=records server=backend"
    ),
    ("vidseek_retrieval", "vidseek_retrieval.search"): (
        "browse filters hiding=denylist moment_recall moments nearest query ranking=fusion search=searcher"
    ),
    ("vidseek_training", "vidseek_training.backbones.files"): (
        "backbones.vocabulary=tokenizer_files"
    ),
    ("vidseek_training", "vidseek_training.backbones.modules"): (
        "backbones.averaging=averaging backbones.stem=stem"
    ),
    ("vidseek_training", "vidseek_training.benchmarks"): (
        "benchmark_run=run benchmarks=caption_files mteb_model published=published_figures"
    ),
    ("vidseek_training", "vidseek_training.captioning"): (
        "captions llm.asking=asking llm.captioner=captioner llm.gemini=gemini llm.journal=journal "
        "llm.openai_endpoint=openai_endpoint llm.prompt=prompt llm.provider=provider llm.purse=budget "
        "llm.settings=settings"
    ),
    ("vidseek_training", "vidseek_training.dataset"): (
        "data=pair_set negatives pairs sampling"
    ),
    ("vidseek_training", "vidseek_training.evaluation"): (
        "both_sides bounds embedding evaluate judging=retrieval_metrics metrics proof proof_ledger scales "
        "select"
    ),
    ("vidseek_training", "vidseek_training.export"): (
        "bundle_card export=onnx_export parity push"
    ),
    ("vidseek_training", "vidseek_training.fitting"): (
        "checkpoints fitting=trainer forecast lora losses lower=cached_hidden_states pictures precision "
        "presets processes=distributed timing train"
    ),
}
"""By room and folder of today: names of modules, `earlier=today` where they differ."""

PATHS = {
    f"{room}.{name.partition('=')[0]}": f"{folder}.{name.rpartition('=')[2]}"
    for (room, folder), names in _MOVED.items() for name in names.split()
}
"""Earlier module path to that of today."""

NAMES = {
    "About": "Annotations", "Asked": "QueryInputs", "CollectionFacts": "CollectionMetadata", "EdgeHome": "EdgeBackend",
    "Fitting": "Trainer",
    "Grain": "CaptionDetail", "Hidden": "Denylist", "IndexHome": "IndexBackend", "Judgement": "RetrievalMetrics",
    "Kept": "ClipFramesInfo", "LowerTokens": "CachedHiddenStates", "Processes": "DistributedContext", "Purse": "Budget",
    "QdrantHome": "QdrantBackend", "home_of": "as_backend", "open_home": "open_backend",
    "Seen": "QueryStats", "Shown": "FilteredCollection", "Stretch": "TimeRange",
    "Verdict": "DecodeResult", "VideoLooks": "VideoFingerprint", "Words": "SparseVector",
}
"""Earlier name of a class or function to that of today."""


def earlier(path: str) -> Callable[[str], Any]:
    """Return the `__getattr__` of a module, which finds what the module of that path had in an earlier version.

    Args:
        path: A key of `PATHS`.
    """
    return lambda name: find(path, name)


def find(path: str, name: str) -> Any:
    """Return what the earlier module `path` called `name`.

    Args:
        path: A key of `PATHS`.
        name: Of a class, a function or a constant there.

    Raises:
        AttributeError: nothing of that name is there any more.
    """
    if not name.startswith("__") and not _is_module(path, name):
        for module in _candidates(PATHS[path]):
            for wanted in (name, NAMES.get(name, name)):
                if wanted in vars(module):
                    warnings.warn(
                        f"{path}.{name} is {module.__name__}.{wanted} now; the earlier path goes with the next version",
                        DeprecationWarning, stacklevel=3,
                    )
                    return vars(module)[wanted]
    raise AttributeError(f"module {path!r} has no attribute {name!r}")


def _is_module(path: str, name: str) -> bool:
    """Say whether a folder of today that is called as a module was has a module `name`: Python then imports that one."""
    return hasattr(sys.modules[path], "__path__") and importlib.util.find_spec(f"{path}.{name}") is not None


def _candidates(path: str) -> Iterator[ModuleType]:
    """Import the module itself, the others of its folder, and the settings of its room."""
    yield importlib.import_module(path)
    package = importlib.import_module(path.rpartition(".")[0])
    for module in pkgutil.iter_modules(package.__path__):
        if not module.ispkg and f"{package.__name__}.{module.name}" != path:
            yield importlib.import_module(f"{package.__name__}.{module.name}")
    yield importlib.import_module(f"{path.partition('.')[0]}.settings")


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Makes a module for an earlier path, which is not there for Python's own finders."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(fullname, self) if fullname in PATHS or fullname == _LLM else None

    def exec_module(self, module: ModuleType) -> None:
        path = module.__name__
        if path == _LLM:
            module.__path__ = []
        else:
            module.__getattr__ = earlier(path)  # type: ignore[method-assign]


_LLM = "vidseek_training.llm"
"""An earlier folder, with earlier modules in it."""

if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
    sys.meta_path.append(_Finder())
