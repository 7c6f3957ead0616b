"""The paths of an archive below one folder, for the stages, the command and the service."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from vidseek.configuration.yaml_file import PARAMS_FILE


class _Below:
    """A path below a folder of the record that has it as an attribute of its class.

    Args:
        folder: The attribute of the record that holds the folder.
        names: Below it.
    """

    def __init__(self, folder: str, *names: str) -> None:
        self._folder, self._names = folder, names

    def __truediv__(self, name: str) -> _Below:
        return _Below(self._folder, *self._names, name)

    def __get__(self, record: object, _: type) -> Path:
        return Path(getattr(record, self._folder), *self._names)


_root, _data = _Below("root"), _Below("data")


class StageFolders(ABC):
    """The folders of the stages from the source to the pairs: of the archive, and of the general world."""

    @property
    @abstractmethod
    def data(self) -> Path:
        """Where they lie."""

    ingest = _data / "ingest"
    """Videos and captions as the source has them."""
    cut = _data / "cut"
    """Clips."""
    frames = _data / "frames"
    """Shards of frames."""
    caption = _data / "caption"
    """Captions of clips."""
    pairs = _data / "pairs"
    """Pairs of clips and captions, split."""
    pairs_table = pairs / "pairs.parquet"
    """The pairs themselves, with groups.parquet beside them."""


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

    params = _root / PARAMS_FILE
    """params.yaml."""
    side = _data / "side.json"
    """How large frames are kept: `vidseek_media.frame_store.stored_side`."""
    fields = _data / "fields"
    """Values of fields of one's own: `vidseek_media.fields.statements`."""
    embed = _data / "embed"
    """Embeddings of clips and texts."""
    subtitles = _data / "subtitles"
    """Segments of subtitles: `vidseek_media.text.segments`."""
    speech = _data / "speech"
    """Segments of speech that an engine recognised."""
    ocr = _data / "ocr"
    """Segments of on-screen text."""
    calibrate = _data / "calibrate"
    """How confidence follows from a score."""
    decisions = _data / "decisions"
    """What people decided, frozen into tables; no stage writes it."""
    models = _root / "models"
    """Adapters, the champion and the encoder bundle."""
    adapters = models / "adapters"
    """An adapter for each setting."""
    champion = models / "champion"
    """The adapter that won."""
    selected = models / "selected.json"
    """Why it won."""
    encoder = models / "encoder"
    """The encoder bundle."""
    reports = _root / "reports"
    """What people read: gates, training, evaluation, calibration."""
    receipts = _root / "receipts"
    """What the stages did outside this folder."""
    index = _root / "index"
    """The embedded index; outside DVC."""
    duplicates = decisions / "duplicates.parquet"
    """Near-duplicates that people decided on."""
    training_set = decisions / "training_set.parquet"
    """The frozen pairs, where `vidseek training-set freeze` wrote them."""
    feedback = _root / "feedback"
    """What people said of hits, as it came in; outside DVC."""
    state = _root / ".vidseek"
    """What is kept outside DVC: caches, the ledger, the MLflow database."""
    downloads = state / "downloads"
    """Videos that were downloaded; outside DVC, and never in its cache."""
    ledger = state / "ledger"
    """What `ingest` remembers of files."""
    shot_cache = state / "shots"
    """The cuts that were found in each video."""
    pair_memory = state / "pairs"
    """What `pairs` compared before, kept outside DVC."""
    plan = state / "plan.json"
    """What `vidseek init` said that the archive will cost."""
    dedup_cache = state / "dedup"
    """Fingerprints of videos, and what came of comparing them."""
    subtitle_cache = state / "subtitles"
    """The text streams of each video."""
    ocr_cache = state / "ocr"
    """The on-screen text that was read in each video."""
    speech_cache = state / "speech"
    """What was heard in each video, and what that cost."""
    prompt_vectors = state / "prompts"
    """Vectors of the prompts of tags, by encoder_version and text."""
    caption_journal = state / "captions"
    """What a language model was paid for."""
    relevance_journal = state / "relevance"
    """What a language model was asked of hits, and paid for."""
    thumbnails = state / "thumbnails"
    """Pictures that the service has made of videos."""
    mlflow = state / "mlflow.db"
    """The database of MLflow, where MLFLOW_TRACKING_URI names no other."""
    queries = state / "queries"
    """What services saw of queries, as numbers: `vidseek_retrieval.confidence.query_stats`."""
    jobs = state / "jobs"
    """The table of jobs, and files that wait to be added: `vidseek.jobs`."""
    saved = state / "saved"
    """Saved searches and their moments: `vidseek.saved`."""
    base = state / "base"
    """What `vidseek base` keeps of the base: its bundle and its embeddings; outside DVC."""

    @property
    def data(self) -> Path:
        """Tables, frames and embeddings: a folder for each stage."""
        return self.root / "data"

    @property
    def general(self) -> GeneralPaths:
        """The general world."""
        return GeneralPaths(self.data / "general")

    @property
    def written(self) -> tuple[Path, ...]:
        """The folders that stages write, but for the index and the checkpoints, which are kept in order where they are."""
        return (
            self.data, self.models, self.reports, self.receipts, self.downloads, self.ledger, self.shot_cache,
            self.pair_memory, self.dedup_cache, self.subtitle_cache, self.ocr_cache, self.speech_cache, self.prompt_vectors,
            self.caption_journal, self.relevance_journal,
        )

    @property
    def segment_dirs(self) -> dict[str, list[Path]]:
        """The folders of segments, by field of evidence; those that no stage has written yet are left out."""
        folders = {"speech": [self.subtitles, self.speech], "ocr": [self.ocr]}
        return {field: [each for each in of_field if each.is_dir()] for field, of_field in folders.items()}
