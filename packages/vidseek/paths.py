"""The paths of an archive below one folder, for the stages, the command and the service."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from vidseek.configuration.yaml_file import PARAMS_FILE


class StageFolders(ABC):
    """The folders of the stages from the source to the pairs: of the archive, and of the general world."""

    @property
    @abstractmethod
    def data(self) -> Path:
        """Where they lie."""

    @property
    def ingest(self) -> Path:
        """Videos and captions as the source has them."""
        return self.data / "ingest"

    @property
    def cut(self) -> Path:
        """Clips."""
        return self.data / "cut"

    @property
    def frames(self) -> Path:
        """Shards of frames."""
        return self.data / "frames"

    @property
    def caption(self) -> Path:
        """Captions of clips."""
        return self.data / "caption"

    @property
    def pairs(self) -> Path:
        """Pairs of clips and captions, split."""
        return self.data / "pairs"

    @property
    def pairs_table(self) -> Path:
        """The pairs themselves, with groups.parquet beside them."""
        return self.pairs / "pairs.parquet"


@dataclass(frozen=True)
class GeneralPaths(StageFolders):
    """The general world: what replay learns from, and retention is measured on."""

    folder: Path

    @property
    def data(self) -> Path:
        """Its folder."""
        return self.folder


@dataclass(frozen=True)
class ArchivePaths(StageFolders):
    """The folders and files of one archive. Stages write `data`, `models`, `reports` and `receipts`, each its own part."""

    root: Path
    """Where `dvc repro` runs; the stages have the working directory."""

    @property
    def written(self) -> tuple[Path, ...]:
        """The folders that stages write, but for the index and the checkpoints, which are kept in order where they are."""
        return (
            self.data, self.models, self.reports, self.receipts, self.downloads, self.ledger, self.shot_cache,
            self.pair_memory, self.dedup_cache, self.subtitle_cache, self.ocr_cache, self.speech_cache, self.prompt_vectors,
            self.caption_journal, self.relevance_journal,
        )

    @property
    def params(self) -> Path:
        """params.yaml."""
        return self.root / PARAMS_FILE

    @property
    def data(self) -> Path:
        """Tables, frames and embeddings: a folder for each stage."""
        return self.root / "data"

    @property
    def general(self) -> GeneralPaths:
        """The general world."""
        return GeneralPaths(self.data / "general")

    @property
    def side(self) -> Path:
        """How large frames are kept: `vidseek_media.frame_store.stored_side`."""
        return self.data / "side.json"

    @property
    def fields(self) -> Path:
        """Values of fields of one's own: `vidseek_media.fields.statements`."""
        return self.data / "fields"

    @property
    def embed(self) -> Path:
        """Embeddings of clips and texts."""
        return self.data / "embed"

    @property
    def subtitles(self) -> Path:
        """Segments of subtitles: `vidseek_media.text.segments`."""
        return self.data / "subtitles"

    @property
    def speech(self) -> Path:
        """Segments of speech that an engine recognised."""
        return self.data / "speech"

    @property
    def ocr(self) -> Path:
        """Segments of on-screen text."""
        return self.data / "ocr"

    @property
    def calibrate(self) -> Path:
        """How confidence follows from a score."""
        return self.data / "calibrate"

    @property
    def decisions(self) -> Path:
        """What people decided, frozen into tables; no stage writes it."""
        return self.data / "decisions"

    @property
    def models(self) -> Path:
        """Adapters, the champion and the encoder bundle."""
        return self.root / "models"

    @property
    def adapters(self) -> Path:
        """An adapter for each setting."""
        return self.models / "adapters"

    @property
    def champion(self) -> Path:
        """The adapter that won."""
        return self.models / "champion"

    @property
    def selected(self) -> Path:
        """Why it won."""
        return self.models / "selected.json"

    @property
    def encoder(self) -> Path:
        """The encoder bundle."""
        return self.models / "encoder"

    @property
    def reports(self) -> Path:
        """What people read: gates, training, evaluation, calibration."""
        return self.root / "reports"

    @property
    def receipts(self) -> Path:
        """What the stages did outside this folder."""
        return self.root / "receipts"

    @property
    def index(self) -> Path:
        """The embedded index; outside DVC."""
        return self.root / "index"

    @property
    def duplicates(self) -> Path:
        """Near-duplicates that people decided on."""
        return self.decisions / "duplicates.parquet"

    @property
    def training_set(self) -> Path:
        """The frozen pairs, where `vidseek training-set freeze` wrote them."""
        return self.decisions / "training_set.parquet"

    @property
    def feedback(self) -> Path:
        """What people said of hits, as it came in; outside DVC."""
        return self.root / "feedback"

    @property
    def state(self) -> Path:
        """What is kept outside DVC: caches, the ledger, the MLflow database."""
        return self.root / ".vidseek"

    @property
    def downloads(self) -> Path:
        """Videos that were downloaded; outside DVC, and never in its cache."""
        return self.state / "downloads"

    @property
    def ledger(self) -> Path:
        """What `ingest` remembers of files."""
        return self.state / "ledger"

    @property
    def shot_cache(self) -> Path:
        """The cuts that were found in each video."""
        return self.state / "shots"

    @property
    def pair_memory(self) -> Path:
        """What `pairs` compared before, kept outside DVC."""
        return self.state / "pairs"

    @property
    def plan(self) -> Path:
        """What `vidseek init` said that the archive will cost."""
        return self.state / "plan.json"

    @property
    def dedup_cache(self) -> Path:
        """Fingerprints of videos, and what came of comparing them."""
        return self.state / "dedup"

    @property
    def segment_dirs(self) -> dict[str, list[Path]]:
        """The folders of segments, by field of evidence; those that no stage has written yet are left out."""
        folders = {"speech": [self.subtitles, self.speech], "ocr": [self.ocr]}
        return {field: [each for each in of_field if each.is_dir()] for field, of_field in folders.items()}

    @property
    def subtitle_cache(self) -> Path:
        """The text streams of each video."""
        return self.state / "subtitles"

    @property
    def ocr_cache(self) -> Path:
        """The on-screen text that was read in each video."""
        return self.state / "ocr"

    @property
    def speech_cache(self) -> Path:
        """What was heard in each video, and what that cost."""
        return self.state / "speech"

    @property
    def prompt_vectors(self) -> Path:
        """Vectors of the prompts of tags, by encoder_version and text."""
        return self.state / "prompts"

    @property
    def caption_journal(self) -> Path:
        """What a language model was paid for."""
        return self.state / "captions"

    @property
    def relevance_journal(self) -> Path:
        """What a language model was asked of hits, and paid for."""
        return self.state / "relevance"

    @property
    def thumbnails(self) -> Path:
        """Pictures that the service has made of videos."""
        return self.state / "thumbnails"

    @property
    def mlflow(self) -> Path:
        """The database of MLflow, where MLFLOW_TRACKING_URI names no other."""
        return self.state / "mlflow.db"

    @property
    def queries(self) -> Path:
        """What services saw of queries, as numbers: `vidseek_retrieval.confidence.query_stats`."""
        return self.state / "queries"

    @property
    def jobs(self) -> Path:
        """The table of jobs, and files that wait to be added: `vidseek.jobs`."""
        return self.state / "jobs"

    @property
    def saved(self) -> Path:
        """Saved searches and their moments: `vidseek.saved`."""
        return self.state / "saved"

    @property
    def base(self) -> Path:
        """What `vidseek base` keeps of the base: its bundle and its embeddings; outside DVC."""
        return self.state / "base"
