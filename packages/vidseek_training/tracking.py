"""Runs in MLflow: where they are kept, and what is logged. The history of runs; no later stage asks it for its input."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# MLflow reads these when it is imported: an archive tool does not phone home.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")

import mlflow
from mlflow.exceptions import MlflowException

from vidseek_media.errors import ServiceError

EXPERIMENT = "vidseek"
MODEL = "vidseek-adapter"
"""The registered model whose alias `champion` names the adapter that is served."""


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, or a database in `.vidseek/`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('.vidseek/mlflow.db').resolve()}"


def connect() -> None:
    """Point MLflow at the tracking store and make our experiment.

    Raises:
        ServiceError: the store does not answer.
    """
    uri = tracking_uri()
    try:
        mlflow.set_tracking_uri(uri)
        if uri.startswith("sqlite:"):
            Path(".vidseek").mkdir(exist_ok=True)
        if mlflow.get_experiment_by_name(EXPERIMENT) is None:
            local = uri.startswith("sqlite:")
            mlflow.create_experiment(EXPERIMENT, Path(".vidseek/mlartifacts").resolve().as_uri() if local else None)
        mlflow.set_experiment(EXPERIMENT)
    except (MlflowException, OSError) as error:
        raise ServiceError(
            f"MLflow at {uri} does not answer: {error}", remedy="Start it, or unset MLFLOW_TRACKING_URI"
        ) from error


@contextmanager
def run(name: str, params: dict[str, object], tags: dict[str, str]) -> Iterator[str]:
    """A run named `name` in our experiment; gives its id.

    Raises:
        ServiceError: the tracking store does not answer.
    """
    connect()
    with mlflow.start_run(run_name=name, tags=tags) as active:
        mlflow.log_params(params)
        yield str(active.info.run_id)


def log(figures: dict[str, float], *, step: int) -> None:
    """Log `figures` of `step` to the active run."""
    mlflow.log_metrics(figures, step=step)


def log_folder(folder: Path, *, under: str) -> None:
    """Keep the files of `folder` with the active run, under the path `under`."""
    mlflow.log_artifacts(str(folder), under)


def register(run_id: str, folder: str, tags: dict[str, str], *, alias: str) -> str:
    """Register the adapter that run `run_id` logged at `folder` and move `alias` to it.

    Returns:
        The version in the registry; the same one where this run is registered already.

    Raises:
        ServiceError: the registry does not answer.
    """
    connect()
    client = mlflow.MlflowClient()
    try:
        if not client.search_registered_models(f"name='{MODEL}'"):
            client.create_registered_model(MODEL)
        known = client.search_model_versions(f"name='{MODEL}' and run_id='{run_id}'")
        version = known[0] if known else client.create_model_version(
            MODEL, source=f"{client.get_run(run_id).info.artifact_uri}/{folder}", run_id=run_id, tags=tags
        )
        client.set_registered_model_alias(MODEL, alias, version.version)
    except MlflowException as error:
        raise ServiceError(f"MLflow's registry at {tracking_uri()} does not answer: {error}") from error
    return str(version.version)


def take_alias_away(alias: str) -> None:
    """Let `alias` name no registered adapter; nothing happens where it names none.

    Raises:
        ServiceError: the registry does not answer.
    """
    connect()
    client = mlflow.MlflowClient()
    try:
        if client.search_registered_models(f"name='{MODEL}'"):
            client.delete_registered_model_alias(MODEL, alias)
    except MlflowException as error:
        raise ServiceError(f"MLflow's registry at {tracking_uri()} does not answer: {error}") from error
