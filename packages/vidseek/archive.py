"""Where an archive's things lie, and how its index is opened for searching: one way for the command and the service."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vidseek.settings import PARAMS_FILE, SearchSettings, Settings, load_settings, read_params
from vidseek_media.errors import ArtifactError

if TYPE_CHECKING:
    from vidseek_encoder.encoder import Encoder
    from vidseek_media.listing import Source
    from vidseek_retrieval.index import IndexHome
    from vidseek_retrieval.search import Searcher

HOME_VARIABLE = "VIDSEEK_HOME"
ALIAS = "clips"
BASE_ALIAS = "base"
"""What `vidseek base` publishes as: the stages know nothing of it."""
ModelName = Literal["vidseek", "base"]
"""By which an archive is searched: the one that `dvc repro` made, or the base of it without what was taught."""


class BaseMissing(ArtifactError):
    """The base is not published here. Most archives do without it."""

    code = "base-not-published"


@dataclass(frozen=True)
class Archive:
    """A folder in which `dvc repro` runs."""

    root: Path
    packed_bundle: Path | None = None
    """The encoder bundle that came with a built service, for archives that have none of their own."""
    model: ModelName = "vidseek"
    """Whose bundle and alias these are; see `seen_by`."""

    @classmethod
    def here(cls) -> Archive:
        """The folder that VIDSEEK_HOME names, or else the working directory."""
        return cls(Path(os.environ.get(HOME_VARIABLE) or Path.cwd()))

    @property
    def params(self) -> Path:
        """params.yaml."""
        return self.root / PARAMS_FILE

    def seen_by(self, model: ModelName) -> Archive:
        """The same archive, searched by that model."""
        return replace(self, model=model)

    @property
    def alias(self) -> str:
        """The name that searches of this model ask for."""
        return ALIAS if self.model == "vidseek" else BASE_ALIAS

    @property
    def base(self) -> Path:
        """What `vidseek base` keeps of the base: its bundle and its embeddings; outside DVC."""
        return self.state / "base"

    @property
    def bundle(self) -> Path:
        """The encoder bundle that `export` writes, or `vidseek base`."""
        if self.model == "base":
            return self.base / "encoder"
        own = self.root / "models" / "encoder"
        return self.packed_bundle if self.packed_bundle is not None and not own.exists() else own

    @property
    def index(self) -> Path:
        """The embedded index that `publish` writes."""
        return self.root / "index"

    def home(self) -> IndexHome:
        """Where collections are: the server that QDRANT_URL names, or else `index`."""
        from vidseek_retrieval.homes import open_home

        return open_home(self.index)

    @property
    def feedback(self) -> Path:
        """What people said of hits, as it came in; outside DVC."""
        return self.root / "feedback"

    @property
    def decisions(self) -> Path:
        """What people decided, frozen into tables."""
        return self.root / "data" / "decisions"

    @property
    def source(self) -> Source | None:
        """Where the videos are, as params.yaml names it; None where it names nothing.

        Raises:
            ConfigError: params.yaml cannot be read.
        """
        from vidseek_media.sources import open_source

        source = (read_params(self.params).get("ingest") or {}).get("source")
        return open_source(str(source), base=self.root, downloads=self.downloads) if source else None

    @property
    def downloads(self) -> Path:
        """Videos that were downloaded; outside DVC."""
        return self.state / "downloads"

    @property
    def state(self) -> Path:
        """What is kept outside DVC: caches, the ledger, the MLflow database."""
        return self.root / ".vidseek"

    @property
    def queries(self) -> Path:
        """What services saw of queries, as numbers: `vidseek_retrieval.seen`."""
        return self.state / "queries"

    def settings(self) -> Settings:
        """What params.yaml says of searching and serving.

        Raises:
            ConfigError: it is wrong.
        """
        return load_settings(self.params)

    def tracking_uri(self) -> str:
        """MLFLOW_TRACKING_URI, or else the archive's own database."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(self.state / 'mlflow.db').resolve()}"


def require_base(archive: Archive) -> None:
    """See to it that what the base needs was made, where `archive` is searched by the base.

    Raises:
        BaseMissing: it was not.
        ServiceError: the Qdrant server does not answer.
    """
    if archive.model == "base" and not (archive.bundle.is_dir() and BASE_ALIAS in archive.home().aliases()):
        raise BaseMissing("the base is not published here", remedy="Run `vidseek base` in the folder of the archive")


def load_encoder(
    archive: Archive, settings: SearchSettings, *, text_only: bool = False, spin: bool = True
) -> Encoder:
    """The archive's encoder bundle, opened as `settings` say; `text_only` and `spin` as `Encoder.load` has them.

    Raises:
        ArtifactError: the bundle is missing or broken.
        DeviceError: the provider is not there.
    """
    from vidseek_encoder.encoder import Encoder

    require_base(archive)
    return Encoder.load(
        archive.bundle,
        provider=settings.provider,
        variant=settings.variant,
        threads=settings.threads,
        towers=("text",) if text_only else ("text", "video"),
        spin=spin,
    )


def open_searcher(archive: Archive, settings: SearchSettings, encoder: Encoder) -> Searcher:
    """A searcher over the archive's live collection, without what was forgotten since that was built.

    Raises:
        ArtifactError: nothing was published, or by another encoder_version.
    """
    from vidseek_media.forgotten import ForgottenIds
    from vidseek_retrieval.query import Weights
    from vidseek_retrieval.search import Searcher

    return Searcher.open(
        archive.home(), encoder, alias=archive.alias, merge_margin_sd=settings.merge_margin_sd,
        merge_margin=settings.merge_margin, negative_weight=settings.negative_weight,
        weights=Weights(**settings.weights.model_dump()),
        hidden=ForgottenIds(archive.decisions),
    )
