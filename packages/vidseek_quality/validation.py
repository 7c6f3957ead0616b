"""Great Expectations run over tables in memory: failures out, Data Docs written, nothing sent anywhere.

Importing this module imports Great Expectations, which costs seconds: only `gates` does, when a gate runs.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import great_expectations as gx
from great_expectations.checkpoint import Checkpoint
from great_expectations.core.expectation_validation_result import ExpectationValidationResult
from great_expectations.data_context.types.base import ProgressBarsConfig

from vidseek_media.errors import ArtifactError
from vidseek_quality.report import NUM_IDS_NAMED, Failure
from vidseek_quality.suites import Table

REMOTE_PICTURES = re.compile(r"https://great-expectations-web-assets[^\"'\s)]*")
"""Data Docs show the maker's logo from its own server with the time in the address, which tells it of every reader."""


def validate(tables: list[Table], *, docs: Path) -> list[Failure]:
    """Validate `tables`, write their Data Docs site to `docs`, and return what failed, in the order of the suites.

    Raises:
        ArtifactError: an expectation could not be computed, because a table lacks a column, say.
    """
    context = _context(docs)
    failures = []
    with _quiet():
        for table in tables:
            for result in _run(context, table):
                if not result.success:
                    failures.append(_failure(result, table))
        write_docs(context, docs)
    return failures


def write_docs(context: Any, docs: Path) -> None:
    """Write the site of all that was validated in `context`, without the pictures that tell of every reader."""
    context.build_data_docs(site_names=["local"])
    for page in docs.rglob("*.html"):
        page.write_text(REMOTE_PICTURES.sub("", page.read_text(encoding="utf-8")), encoding="utf-8")


def _context(docs: Path) -> Any:
    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    context.add_data_docs_site("local", {
        "class_name": "SiteBuilder",
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())},
    })
    return context


def _run(context: Any, table: Table) -> list[ExpectationValidationResult]:
    asset = context.data_sources.add_pandas(table.name).add_dataframe_asset(table.name)
    suite = context.suites.add(gx.ExpectationSuite(name=table.name, expectations=table.expectations))
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name=table.name, data=asset.add_batch_definition_whole_dataframe("all"), suite=suite)
    )
    form: dict[str, Any] = {"result_format": "SUMMARY", "partial_unexpected_count": NUM_IDS_NAMED}
    if table.id_column is not None:
        form["unexpected_index_column_names"] = [table.id_column]
    checkpoint = context.checkpoints.add(Checkpoint(
        name=table.name,
        validation_definitions=[definition],
        result_format=form,
    ))
    outcome = checkpoint.run(batch_parameters={"dataframe": table.rows})
    (validated,) = outcome.run_results.values()
    return list(validated.results)


def _failure(result: ExpectationValidationResult, table: Table) -> Failure:
    rule = str(result.expectation_config.notes)
    if any(isinstance(one, dict) and one.get("raised_exception") for one in _exceptions(result)):
        raise ArtifactError(f"{table.name}: '{rule}' could not be checked: {list(_exceptions(result))}")
    rows = result.result.get("partial_unexpected_index_list") or []
    ids = dict.fromkeys(str(row[table.id_column]) for row in rows) if table.id_column is not None else {}
    return Failure(
        rule=rule,
        num_offending=int(result.result.get("unexpected_count", 1)),
        observed=_number(result.result.get("observed_value")),
        ids=tuple(ids)[:NUM_IDS_NAMED],
    )


def _exceptions(result: ExpectationValidationResult) -> Iterator[object]:
    """Great Expectations gives one record, or a mapping of metric ids to records."""
    info = result.exception_info or {}
    yield info
    yield from info.values()


def _number(value: Any) -> float | int | str | None:
    if value is None or isinstance(value, (int, str)):
        return value
    return float(value)


@contextmanager
def _quiet() -> Iterator[None]:
    """Great Expectations warns of its own internals and logs at INFO; what a reader needs is in the result."""
    logger = logging.getLogger("great_expectations")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
