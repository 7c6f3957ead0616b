"""What tests of several rooms share."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from tests.copying import copy_tree
from tests.one_authority import trust_one_authority
from tests.sharing import made_once
from tests.syntax import keeping_trees

if TYPE_CHECKING:
    from vidseek.archive import Archive


# Properties: some examples, however long a busy machine takes for one. They are the same in every run, also the five times
# as many of `make test-slow` ("more"): a commit that passed once passes again. `make properties` draws new ones.
hypothesis.settings.register_profile("same", max_examples=40, deadline=None, derandomize=True, database=None)
hypothesis.settings.register_profile("more", hypothesis.settings.get_profile("same"), max_examples=200)
hypothesis.settings.register_profile("search", max_examples=200, deadline=None, print_blob=True)
hypothesis.settings.load_profile("same")

trust_one_authority()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Under "more", leave out properties that say their number of examples: `make test` has drawn the very same ones."""
    if hypothesis.settings.get_current_profile_name() == "more":
        same = [item for item in items if _has_its_own_number(item) and not item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=same)
        items[:] = [item for item in items if item not in same]


def _has_its_own_number(item: pytest.Item) -> bool:
    own = getattr(getattr(item, "obj", None), "_hypothesis_internal_use_settings", None)
    return own is not None and own.max_examples != hypothesis.settings.get_profile("more").max_examples


MAY_SKIP = re.compile(
    "no real files at|no CUDA|no GPU|QDRANT_URL"  # a GPU, a server, files that are not ours to hand on
    "|this kernel|can be mounted here|may be mounted here|no device that is full"
)
"""Reasons to skip that nothing which can be installed takes away."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[Any]:
    """Leave seven thousand tests and all modules out of every later collection of garbage: it takes a tenth of the run."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    """Where VIDSEEK_NO_SKIPS is set, a test that is skipped for want of something that can be installed fails."""
    report = yield
    return _no_skip(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[Any]:
    """The same of a module that is skipped as a whole."""
    report = yield
    return _no_skip(report)


def _no_skip(report: Any) -> Any:
    if os.environ.get("VIDSEEK_NO_SKIPS") and report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not MAY_SKIP.search(reason):
            report.outcome, report.longrepr = "failed", f"skipped, and VIDSEEK_NO_SKIPS is set: {reason}"
    return report


@pytest.fixture(scope="session", autouse=True)
def shared_servers() -> Iterator[None]:
    """Batches of workers share their servers; tests/media/decoding/test_worker_batch.py has each its own."""
    from tests.shared_servers import sharing_servers

    with sharing_servers():
        yield


@pytest.fixture(scope="module")
def syntax_trees() -> Iterator[None]:
    """For modules that read many syntax trees."""
    with keeping_trees():
        yield


@pytest.fixture(scope="session")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """A published archive with a reference for drift: to be copied, not written to."""
    from tests.serving.asked_colours import write_calibrated_archive  # encoder and index: few tests need it
    from vidseek.archive import Archive

    return Archive(made_once(tmp_path_factory, "calibrated", write_calibrated_archive))


@pytest.fixture
def asked_archive(calibrated: Archive, tmp_path: Path) -> Archive:
    """A copy of `calibrated` of one's own."""
    return type(calibrated)(copy_tree(calibrated.root, tmp_path / "archive"))


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real files, where it is there."""
    default = Path(__file__).resolve().parents[1].parent / "shared" / "realdata"
    folder = Path(os.environ.get("VIDSEEK_REALDATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real files at {folder}; set VIDSEEK_REALDATA")
    return folder
