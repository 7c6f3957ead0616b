"""Runs Great Expectations over tables in memory: returns failures, writes Data Docs, sends nothing anywhere.

The rules of `suites.py` are passed as boolean columns named by their wording. Great Expectations judges such a column of a
million rows in a tenth of a second; its own text comparisons and joins take seconds. Importing this module imports Great
Expectations, which takes seconds, so `gates` imports it only when a gate runs.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.checkpoint import Checkpoint
from great_expectations.core.expectation_validation_result import ExpectationValidationResult
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.expectations.expectation import Expectation

from vidseek_media.errors import ArtifactError
from vidseek_quality.report import NUM_IDS_NAMED, Failure
from vidseek_quality.suites import Table, Whole

REMOTE_PICTURES = re.compile(r"https://great-expectations-web-assets[^\"'\s)]*")
"""Data Docs load the maker's logo from its server, with the time in the address, which would report every reader."""


def validate(tables: Sequence[Table | Whole], *, docs: Path) -> list[Failure]:
    """Validate tables, and write their Data Docs site.

    Args:
        tables: Tables with their rules, or measures of a whole gate.
        docs: Folder of the site.

    Returns:
        The failures, in the order of the suites.

    Raises:
        ArtifactError: an expectation cannot be computed.
    """
    context = _context(docs)
    failures = []
    with _quiet():
        for table in tables:
            rows = pd.DataFrame(table.rules) if isinstance(table, Table) else pd.DataFrame([dict(table.statistics)])
            for result in _run(context, table.name, rows, expectations_of(table)):
                if not result.success:
                    failures.append(_failure(result, table))
        write_docs(context, docs)
    return failures


def expectations_of(table: Table | Whole) -> list[Expectation]:
    """Return one expectation for each rule or measure, with its wording in `notes`."""
    if isinstance(table, Table):
        return [
            gxe.ExpectColumnValuesToBeInSet(column=rule, value_set=[True], mostly=table.mostly, notes=rule)
            for rule in table.rules
        ]
    return [
        gxe.ExpectColumnMaxToBeBetween(
            column=each.statistic, min_value=each.at_least, max_value=each.at_most, notes=each.wanted
        )
        for each in table.measures
    ]


def write_docs(context: Any, docs: Path) -> None:
    """Write the site of everything validated in `context`, without the remote pictures.

    Args:
        context: Data context of Great Expectations.
        docs: Folder of the site.
    """
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


def _run(
    context: Any, name: str, rows: pd.DataFrame, expectations: list[Expectation]
) -> list[ExpectationValidationResult]:
    asset = context.data_sources.add_pandas(name).add_dataframe_asset(name)
    suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name=name, data=asset.add_batch_definition_whole_dataframe("all"), suite=suite)
    )
    checkpoint = context.checkpoints.add(Checkpoint(
        name=name, validation_definitions=[definition],
        result_format={"result_format": "SUMMARY", "partial_unexpected_count": NUM_IDS_NAMED},
    ))
    outcome = checkpoint.run(batch_parameters={"dataframe": rows})
    (validated,) = outcome.run_results.values()
    return list(validated.results)


def _failure(result: ExpectationValidationResult, table: Table | Whole) -> Failure:
    rule = str(result.expectation_config.notes)
    if any(isinstance(one, dict) and one.get("raised_exception") for one in _exceptions(result)):
        raise ArtifactError(
            f"{table.name}: '{rule}' could not be checked: {list(_exceptions(result))}", code="gate-not-computed",
        )
    if isinstance(table, Whole):
        return Failure(table.name, rule, num_offending=1, observed=_number(result.result.get("observed_value")), ids=())
    # Great Expectations would look each offending row's id up by itself: half a minute for half a million.
    offending = table.ids[~table.rules[rule]]
    named = offending.iloc[: 100 * NUM_IDS_NAMED].drop_duplicates().iloc[:NUM_IDS_NAMED]
    return Failure(table.name, rule, num_offending=len(offending), observed=None, ids=tuple(map(str, named)))


def _exceptions(result: ExpectationValidationResult) -> Iterator[object]:
    """Yield the exceptions of a result; Great Expectations returns one record, or a mapping of metric ids to records."""
    info = result.exception_info or {}
    yield info
    yield from info.values()


def _number(value: Any) -> float | int | str | None:
    if value is None or isinstance(value, (int, str)):
        return value
    return float(value)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings and log lines of Great Expectations about its own internals."""
    logger = logging.getLogger("great_expectations")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
