"""Runs in MLflow and TensorBoard: the history of what was trained. No later stage asks it for its input."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

# MLflow reads these when it is imported: an archive tool does not phone home.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_GIT_REPO_URL

from vidseek_media.errors import ServiceError, foreign
from vidseek_media.urls import without_secrets

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

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
    with foreign(
        ServiceError, f"MLflow at {uri} does not answer", code="mlflow-no-answer",
        remedy="Start it, or unset MLFLOW_TRACKING_URI", errors=(MlflowException, OSError),
    ):
        mlflow.set_tracking_uri(uri)
        if uri.startswith("sqlite:"):
            Path(".vidseek").mkdir(exist_ok=True)
        if mlflow.get_experiment_by_name(EXPERIMENT) is None:
            mlflow.create_experiment(EXPERIMENT, _files_beside(uri))
        mlflow.set_experiment(EXPERIMENT)


def _files_beside(uri: str) -> str | None:
    """Return where the files of runs lie: beside a database on this disk, so that both are of one archive; else where the
    server says."""
    path = uri.removeprefix("sqlite:///")
    return None if path == uri or not path else Path(path).resolve().with_name("mlartifacts").as_uri()


def _answering() -> AbstractContextManager[None]:
    """Convert errors of the tracking store in this block."""
    return foreign(
        ServiceError, f"MLflow at {tracking_uri()} does not take what is logged", code="mlflow-no-answer",
        remedy="Make room where it keeps runs, or start it, then run it again: a training goes on from its last look",
        errors=(MlflowException, OSError),
    )


@dataclass(frozen=True)
class Run:
    """The active run."""

    id: str
    board: SummaryWriter | None
    """TensorBoard's writer of this run."""

    def log(self, figures: dict[str, float], step: int) -> None:
        """Log `figures` of `step`, to TensorBoard too."""
        with _answering():
            mlflow.log_metrics(figures, step=step)
            if self.board is not None:
                for name, value in figures.items():
                    self.board.add_scalar(name, value, step)

    def tag(self, tags: dict[str, str]) -> None:
        """Say more of the run."""
        with _answering():
            mlflow.set_tags({key: without_secrets(value) for key, value in tags.items()})

    def log_folder(self, folder: Path, *, under: str) -> None:
        """Keep the files of `folder` with the run, under the path `under`."""
        with _answering():
            mlflow.log_artifacts(str(folder), under)


@contextmanager
def run(
    name: str, params: dict[str, object], tags: dict[str, str], *, board: Path | None = None, again: str = ""
) -> Iterator[Run]:
    """Log this block as a run named `name` in vidseek's experiment.

    Args:
        name: Of the run.
        params: What it was called with.
        tags: What else is to be known of it.
        board: Gets TensorBoard's files, in a folder of the run's id; None for none.
        again: The id of a run that was stopped, to go on with it; a new one where the store does not know it.

    Raises:
        ServiceError: the tracking store does not answer.
    """
    connect()
    known = _is_known(again) if again else False
    told = {key: without_secrets(value) for key, value in {**_repository(), **tags}.items()}
    with mlflow.start_run(run_id=again if known else None, run_name=None if known else name, tags=told) as active:
        mlflow.log_params({key: without_secrets(each) if isinstance(each, str) else each for key, each in params.items()})
        run_id = str(active.info.run_id)
        writer = _board(board / f"{name}-{run_id[:8]}") if board is not None else None
        try:
            yield Run(run_id, writer)
        finally:
            if writer is not None:
                writer.close()


def _board(folder: Path) -> SummaryWriter:
    from torch.utils.tensorboard import SummaryWriter  # torch: a report needs none of it

    return SummaryWriter(str(folder))


def attach(run_id: str, files: Sequence[tuple[Path, str]]) -> bool:
    """Keep files with a run that has ended, each under the path beside it; what lies there is replaced.

    Returns:
        Whether the store knows the run: one that was trained elsewhere may be in another store.

    Raises:
        ServiceError: the store does not answer, or does not take them.
    """
    connect()
    if not _is_known(run_id):
        return False
    client = mlflow.MlflowClient()
    with _answering():
        for path, under in files:
            client.log_artifact(run_id, str(path), under)
    return True


def _is_known(run_id: str) -> bool:
    try:
        mlflow.MlflowClient().get_run(run_id)
    except MlflowException:
        return False
    return True


def _repository() -> dict[str, str]:
    """MLflow's own tag of where the repository comes from, which MLflow itself would log with the password of the URL."""
    try:
        remotes = subprocess.run(["git", "remote"], capture_output=True, text=True, check=True).stdout.split()
        found = subprocess.run(["git", "remote", "get-url", remotes[0]], capture_output=True, text=True, check=True).stdout
    except (OSError, IndexError, subprocess.CalledProcessError):
        return {}
    return {MLFLOW_GIT_REPO_URL: found.strip()}


def git_commit() -> str:
    """Return the commit of the working directory, with `+` if it has uncommitted changes; empty outside of a repository."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{commit}+" if changed else commit


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
        raise ServiceError(
            f"MLflow's registry at {tracking_uri()} does not answer: {error}", code="mlflow-no-answer",
        ) from error
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
        raise ServiceError(
            f"MLflow's registry at {tracking_uri()} does not answer: {error}", code="mlflow-no-answer",
        ) from error
