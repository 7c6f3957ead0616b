"""Counts what the processes of a stage do: videos read by workers, clips and texts embedded, points written and deleted.

The functions that do it are wrapped when their module is imported, so a process that needs none of them starts as fast as
ever. At its end each process appends its counts to the file that `VIDSEEK_COUNTS` names.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

COUNTS_VARIABLE = "VIDSEEK_COUNTS"
FILES, CLIPS, TEXTS, WRITTEN, DELETED = (
    "files_read", "clips_embedded", "texts_embedded", "points_written", "points_deleted"
)
COUNTED = (FILES, CLIPS, TEXTS, WRITTEN, DELETED)

counts: Counter[str] = Counter()
"""Of this process."""


def start() -> None:
    """Count from now on, and append the counts to the file of `VIDSEEK_COUNTS` at exit; nothing without it.

    A process that is terminated exits in order, with its counts.
    """
    path = os.environ.get(COUNTS_VARIABLE)
    if path:
        watch()
        atexit.register(_append, Path(path))
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def watch() -> None:
    """Wrap the functions that are counted as their modules are imported; those that are imported already count nothing."""
    sys.meta_path.insert(0, _Finder())


def counts_in(path: Path) -> Counter[str]:
    """Return the sum of what processes appended to a file; nothing if there is none."""
    total: Counter[str] = Counter(dict.fromkeys(COUNTED, 0))
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            total.update(json.loads(line))
    return total


def count_in_workers(module: ModuleType) -> None:
    """Count what `run_each` yields an outcome for: of module vidseek_media.decoding.worker_batch."""
    run_each = module.run_each

    @functools.wraps(run_each)
    def counting(*arguments: Any, **options: Any) -> Iterator[Any]:
        outcomes = run_each(*arguments, **options)
        try:
            for outcome in outcomes:
                counts[FILES] += 1
                yield outcome
        finally:
            outcomes.close()

    module.run_each = counting  # type: ignore[attr-defined]


def count_embedded(module: ModuleType) -> None:
    """Count clips and texts that the encoder embeds: of module vidseek_encoder.encoder."""
    _count_length(module.Encoder, "embed_frames", CLIPS)
    _count_length(module.Encoder, "embed_texts", TEXTS)


def count_points(module: ModuleType) -> None:
    """Count points that are written and deleted: of module qdrant_edge."""
    module.UpdateOperation = _Operations(module.UpdateOperation)  # type: ignore[attr-defined]


_WRAPPED: dict[str, Callable[[ModuleType], None]] = {
    "vidseek_media.decoding.worker_batch": count_in_workers,
    "vidseek_encoder.encoder": count_embedded,
    "qdrant_edge": count_points,
}


def _count_length(owner: type, name: str, key: str) -> None:
    function = getattr(owner, name)

    @functools.wraps(function)
    def counting(self: Any, items: Sequence[Any], *arguments: Any, **options: Any) -> Any:
        counts[key] += len(items)
        return function(self, items, *arguments, **options)

    setattr(owner, name, counting)


class _Operations:
    """The operations of Qdrant Edge; those that write or delete points are counted."""

    def __init__(self, operations: Any) -> None:
        self._operations = operations

    def __getattr__(self, name: str) -> Any:
        return getattr(self._operations, name)

    def upsert_points(self, points: Sequence[Any], *arguments: Any, **options: Any) -> Any:
        counts[WRITTEN] += len(points)
        return self._operations.upsert_points(points, *arguments, **options)

    def delete_points(self, point_ids: Sequence[Any], *arguments: Any, **options: Any) -> Any:
        counts[DELETED] += len(point_ids)
        return self._operations.delete_points(point_ids, *arguments, **options)


class _Finder(MetaPathFinder):
    """Wraps the functions of a module right after its import."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        wrap = _WRAPPED.get(name)
        if wrap is None:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next((found for finder in others if (found := finder.find_spec(name, path, target))), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                wrap(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _append(path: Path) -> None:
    if counts:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(counts) + "\n")
