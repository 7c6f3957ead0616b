"""The paths of an archive, and how its index is opened for searching, equal for the command and the service."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vidseek.configuration.yaml_file import Model
from vidseek.params import Settings, load_section, load_settings
from vidseek.paths import ArchivePaths
from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_media.settings import IngestSettings
from vidseek_retrieval.settings import SearchSettings

if TYPE_CHECKING:
    from vidseek_encoder.encoder import Encoder
    from vidseek_media.sources.source import Source
    from vidseek_retrieval.index.backend import IndexBackend
    from vidseek_retrieval.search.searcher import Searcher

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
class Archive(ArchivePaths):
    """A folder in which `dvc repro` runs."""

    packed_bundle: Path | None = None
    """The encoder bundle that came with a built service, for archives that have none of their own."""
    model: ModelName = "vidseek"
    """Whose bundle and alias these are; see `seen_by`."""

    @classmethod
    def here(cls) -> Archive:
        """Return the archive in the folder named by VIDSEEK_HOME, else in the working directory."""
        return cls(Path(os.environ.get(HOME_VARIABLE) or Path.cwd()).absolute())

    def seen_by(self, model: ModelName) -> Archive:
        """Return the same archive, searched with another model."""
        return replace(self, model=model)

    @property
    def alias(self) -> str:
        """The name that searches of this model ask for."""
        return ALIAS if self.model == "vidseek" else BASE_ALIAS

    @property
    def bundle(self) -> Path:
        """The encoder bundle that `export` writes, or `vidseek base`."""
        if self.model == "base":
            return self.base / "encoder"
        return self.packed_bundle if self.packed_bundle is not None and not self.encoder.exists() else self.encoder

    def backend(self) -> IndexBackend:
        """Open the index backend: the Qdrant server that QDRANT_URL names, or the folder `index`."""
        from vidseek_retrieval.index.open_backend import open_backend

        return open_backend(self.index)

    @property
    def source(self) -> Source | None:
        """Where the videos are, as params.yaml names it; None where it names nothing.

        Raises:
            ConfigError: params.yaml cannot be read.
        """
        from vidseek_media.sources.opening import open_source

        ingest = self.section(IngestSettings)
        if not ingest.source:
            return None
        return open_source(ingest.source, base=self.root, downloads=self.downloads, settings=ingest)

    def require_source(self) -> Source:
        """Return where the videos are.

        Raises:
            ConfigError: params.yaml names nothing, or cannot be read.
        """
        if (source := self.source) is None:
            raise ConfigError(
                f"{self.params} has no ingest.source", code="source-not-set", remedy="Set it to where the videos are",
            )
        return source

    def settings(self) -> Settings:
        """Read the settings for searching and serving in params.yaml.

        Raises:
            ConfigError: it is wrong.
        """
        return load_settings(self.params)

    def section(self, kind: type[Model]) -> Model:
        """Read one section of params.yaml, or its defaults.

        Raises:
            ConfigError: it is wrong.
        """
        return load_section(self.params, kind)

    def tracking_uri(self) -> str:
        """MLFLOW_TRACKING_URI, or else the archive's own database."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.mlflow.resolve()}"


def require_base(archive: Archive) -> None:
    """Check that the base was made, if the archive is searched with it.

    Raises:
        BaseMissing: it was not.
        ServiceError: the Qdrant server does not answer.
    """
    if archive.model == "base" and not (archive.bundle.is_dir() and BASE_ALIAS in archive.backend().aliases()):
        raise BaseMissing("the base is not published here", remedy="Run `vidseek base` in the folder of the archive")


def load_encoder(
    archive: Archive, settings: SearchSettings, *, text_only: bool = False, spin: bool = True
) -> Encoder:
    """Open the archive's encoder bundle.

    Args:
        archive: The archive.
        settings: The section `search`.
        text_only: Whether to open only the text tower.
        spin: Whether idle threads keep spinning for a while before they sleep.

    Raises:
        ArtifactError: the bundle is missing or broken.
        DeviceError: the provider is not available.
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
    """Return a searcher over the archive's live collection, without videos that were forgotten since it was built.

    Args:
        archive: The archive.
        settings: The section `search`.
        encoder: The archive's encoder.

    Raises:
        ArtifactError: nothing was published, or by another encoder_version.
    """
    from vidseek_media.forgotten import ForgottenIds
    from vidseek_retrieval.search.searcher import Searcher

    hidden = ForgottenIds(archive.decisions)
    return Searcher.open(archive.backend(), encoder, alias=archive.alias, settings=settings, hidden=hidden)


def open_text_searcher(archive: Archive) -> Searcher:
    """Open what answers words and clips of the archive: the text tower and the live collection, as params.yaml says.

    Args:
        archive: The archive.

    Raises:
        ConfigError: params.yaml is wrong.
        ArtifactError: as in `load_encoder` and `open_searcher`.
        DeviceError: the provider is not available.
    """
    settings = archive.settings().search
    return open_searcher(archive, settings, load_encoder(archive, settings, text_only=True))
