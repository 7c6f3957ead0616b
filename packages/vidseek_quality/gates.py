"""The gates of the pipeline: if a table fails, the run stops with the offending rows named and the report written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd

from vidseek_media.errors import ConfigError, GateFailed
from vidseek_media.files.folders import whole_folder
from vidseek_media.files.json_files import write_json
from vidseek_media.files.pages import write_page
from vidseek_media.splitting.both_sides import read_both_sides
from vidseek_media.tables import CAPTIONS, CLIPS, FRAMES, GROUPS, PAIRS, REJECTED, VIDEOS, read_table
from vidseek_quality.embedded import read_embedded
from vidseek_quality.languages import UNSURE, known_languages, languages_of
from vidseek_quality.report import GateResult, table_of, write_result
from vidseek_quality.suites import (
    SPLITS,
    Measure,
    Table,
    Whole,
    caption_rules,
    clip_rules,
    frame_rules,
    pair_rules,
    shares_of,
    video_rules,
)
from vidseek_quality.thresholds import ArchiveThresholds, EmbeddingThresholds, PairThresholds
from vidseek_quality.vectors import Sample, drift, effective_rank, mean_cosine

Statistics: TypeAlias = dict[str, int | float | None]

NUM_LANGUAGES_TOLD = 5

PASSED = "passed.json"
"""Is written where a gate passes, with the same bytes each time: what wants only that may depend on it. result.json counts
the whole archive."""


@dataclass(frozen=True)
class Published:
    """A sample of the live embeddings."""

    collection: str
    encoder_version: str
    sample: Sample


def check_pairs(
    ingest_dir: Path,
    cut_dir: Path,
    frames_dir: Path,
    caption_dir: Path,
    pairs_dir: Path,
    *,
    out: Path,
    archive: ArchiveThresholds | None = None,
    thresholds: PairThresholds | None = None,
) -> GateResult:
    """Check the pairs, and the tables that they come from, before training; write the report to `out`.

    An archive without captions has no pairs. It passes with a note, since it can be published with the base model.

    Args:
        ingest_dir: Output of the stage `ingest`, with its rejected.parquet.
        cut_dir: Output of the stage `cut`, with its rejected.parquet.
        frames_dir: Output of the stage `frames`, with its rejected.parquet.
        caption_dir: Output of the stage `caption`, with its rejected.parquet.
        pairs_dir: Output of the stage `pairs`, with its rejected.parquet.
        out: Folder for result.json (equal for equal data), passed.json where it passes, report.html and docs/ (Data Docs),
            written whole or not at all.
        archive: Thresholds for the tables before pairs; None takes the defaults.
        thresholds: Thresholds for pairs; None takes the defaults.

    Raises:
        GateFailed: an expectation is not met; the report is written first.
        ArtifactError: a table is missing or broken, or has other columns.
        ConfigError: a language is unknown.
    """
    tables = _Tables.read(ingest_dir, cut_dir, frames_dir, caption_dir, pairs_dir)
    limits, wanted = archive or ArchiveThresholds(), thresholds or PairThresholds()
    texts, languages = _languages(tables.captions, limits)
    statistics = {**_pair_statistics(tables, wanted), **_rejected_shares(tables), **texts}
    notes = () if len(tables.pairs) or statistics["num_rejected_pairs"] or statistics["num_rejected_captions"] else (
        "No pairs: nothing to learn from, so the archive is published with the base model.",
    )
    measures = [
        Measure(f"rejected_share_{what}", f"rejected {what}: at most {most} of all", at_most=most)
        for what, (kept, refused) in _counts(tables).items()
        for most in [wanted.max_rejected_share if what == "pairs" else limits.max_rejected_share]
        if not kept or kept + refused >= limits.min_sampled
    ]
    if texts["one_length_share"] is not None:
        most = limits.max_one_length_share
        measures.append(Measure("one_length_share", f"captions of one and the same length: at most {most}", at_most=most))
    return _judge(
        "pairs", [*_archive_tables(tables, wanted), *languages, Whole("as a whole", statistics, tuple(measures))],
        statistics=statistics, notes=notes, out=out,
    )


def check_embeddings(
    parts: Path,
    frames: Path,
    *,
    out: Path,
    dimension: int,
    encoder_version: str,
    variant: str,
    thresholds: EmbeddingThresholds | None = None,
    published: Published | None = None,
) -> GateResult:
    """Check the embeddings before publishing, and write the report to `out`.

    Args:
        parts: A Parquet file or a folder of them, with the columns clip_id, values (a list of float32), encoder_version and
            variant.
        frames: The frames.parquet whose clips should be embedded.
        out: Folder for result.json (equal for equal data), report.html and docs/ (Data Docs), written whole or not at all.
        dimension: Length of the encoder's vectors, from encoder.json.
        encoder_version: 16 hex digits, from encoder.json.
        variant: Precision that should have been used: `fp32`, `fp16` or `int8`.
        thresholds: Thresholds of this gate; None takes the defaults.
        published: Sample of the live embeddings, to measure drift from; None if nothing is live or it cannot be read.

    Raises:
        GateFailed: an expectation is not met; the report is written first.
        ArtifactError: a table is missing or broken, or has other columns.
    """
    wanted = thresholds or EmbeddingThresholds()
    frame_ids = read_table(frames, FRAMES, columns=["clip_id"])["clip_id"]
    found = read_embedded(
        parts, frame_ids, dimension=dimension, encoder_version=encoder_version, variant=variant,
        num_sampled=wanted.num_sampled,
    )
    vectors = found.sample.vectors
    judges_collapse = found.num_whole >= wanted.min_sampled
    far, notes = _drift(found.sample, published, encoder_version, wanted)
    statistics: Statistics = {
        "num_embeddings": found.num_embeddings,
        "dimension": dimension,
        "num_sampled": len(vectors) if judges_collapse else 0,
        "mean_cosine": round(mean_cosine(vectors), 6) if judges_collapse else None,
        "effective_rank": round(effective_rank(vectors), 4) if judges_collapse else None,
        "drift": far,
    }
    if not judges_collapse:
        notes.insert(0, f"{found.num_whole} whole embeddings are too few to tell collapse from a small archive "
                        f"(min_sampled {wanted.min_sampled}): it was not judged.")
    measures = tuple(_embedding_measures(statistics, wanted))
    return _judge(
        "embeddings", [Table("embeddings", found.ids, found.rules), Whole("as a whole", statistics, measures)],
        statistics=statistics, notes=tuple(notes), out=out,
    )


@dataclass(frozen=True)
class _Tables:
    """The tables of the pairs gate, with only those columns of clips and frames that a rule needs."""

    videos: pd.DataFrame
    clips: pd.DataFrame
    frames: pd.DataFrame
    captions: pd.DataFrame
    pairs: pd.DataFrame
    groups: pd.DataFrame
    both_sides: pd.DataFrame
    rejected: dict[str, pd.DataFrame]
    """The rejections of each stage: `id`, `kind` and `code`."""

    @classmethod
    def read(cls, ingest: Path, cut: Path, frames: Path, caption: Path, pairs: Path) -> _Tables:
        folders = {"ingest": ingest, "cut": cut, "frames": frames, "caption": caption, "pairs": pairs}
        return cls(
            read_table(ingest / "videos.parquet", VIDEOS, columns=["video_id", "uris", "duration_ms", "width", "height"]),
            read_table(cut / "clips.parquet", CLIPS, columns=["clip_id", "video_id", "index", "start_ms", "end_ms"]),
            read_table(frames / "frames.parquet", FRAMES, columns=["clip_id", "num_frames", "num_repeated"]),
            read_table(caption / "captions.parquet", CAPTIONS, columns=["video_id", "clip_id", "text", "cost_usd"]),
            read_table(pairs / "pairs.parquet", PAIRS, columns=["clip_id", "video_id", "caption", "split"]),
            read_table(pairs / "groups.parquet", GROUPS),
            read_both_sides(pairs),
            {
                stage: read_table(folder / "rejected.parquet", REJECTED, columns=["id", "kind", "code"])
                for stage, folder in folders.items()
            },
        )


def _archive_tables(of: _Tables, wanted: PairThresholds) -> list[Table]:
    of_frames, of_their_clips = frame_rules(of.frames, of.clips, of.rejected["frames"]["id"])
    return [
        Table("videos", of.videos["video_id"], video_rules(of.videos)),
        Table("clips", of.clips["clip_id"], clip_rules(of.clips, of.videos) | of_their_clips),
        Table("frames", of.frames["clip_id"], of_frames),
        Table("captions", _about(of.captions), caption_rules(of.captions, of.clips, of.videos, wanted)),
        Table("pairs", of.pairs["clip_id"], pair_rules(of.pairs, of.clips, wanted, of.groups)),
    ]


def _about(captions: pd.DataFrame) -> pd.Series:
    """Return the id that names a caption in reports: its clip's, or its video's."""
    return captions["clip_id"].fillna(captions["video_id"])


def _pair_statistics(of: _Tables, wanted: PairThresholds) -> Statistics:
    shares = shares_of(of.pairs["caption"], min_repeats=wanted.min_caption_repeats)
    return {
        "num_videos": len(of.videos), "num_clips": len(of.clips), "num_captions": len(of.captions),
        "num_pairs": len(of.pairs), "num_videos_of_pairs": int(of.pairs["video_id"].nunique()),
        "num_whole_video_captions": int(of.captions["clip_id"].isna().sum()),
        "num_captions_on_both_sides": int(of.both_sides["same_caption"].sum()),
        "num_clips_on_both_sides": int(of.both_sides["clip_id"][of.both_sides["same_frames"].astype(bool)].nunique()),
        "max_caption_share": round(float(shares.max(initial=0.0)), 6),
        **{f"num_{split}": int((of.pairs["split"] == split).sum()) for split in SPLITS},
    }


def _counts(of: _Tables) -> dict[str, tuple[int, int]]:
    """Return the numbers of kept and rejected files, clips, clips with frames, captions and pairs.

    Captions of whole videos, and those of clips that `pairs.skip_quality_flags` leaves out, make no pair by design.
    """
    kinds = of.rejected["ingest"]["kind"]
    num_by_design = int(of.captions["clip_id"].isna().sum()) + int(
        (of.rejected["pairs"]["code"] == "clip-without-content").sum()
    )
    return {
        "files": (int(of.videos["uris"].map(len).sum()), int((kinds == "file").sum())),
        "clips": (len(of.clips), int((of.rejected["cut"]["kind"] == "clip").sum())),
        "frames": (len(of.frames), len(of.rejected["frames"])),
        "captions": (len(of.captions), int((kinds == "caption").sum()) + len(of.rejected["caption"])),
        "pairs": (len(of.pairs), max(len(of.rejected["pairs"]) - num_by_design, 0)),
    }


def _rejected_shares(of: _Tables) -> Statistics:
    counts = _counts(of)
    return {
        **{f"num_rejected_{what}": rejected for what, (_, rejected) in counts.items()},
        **{
            f"rejected_share_{what}": round(rejected / (kept + rejected), 6) if rejected else 0.0
            for what, (kept, rejected) in counts.items()
        },
    }


def _languages(captions: pd.DataFrame, limits: ArchiveThresholds) -> tuple[Statistics, list[Table]]:
    """Return statistics of the captions' texts, and the table of languages if they are checked."""
    if limits.languages is not None and (unknown := set(limits.languages) - known_languages()):
        raise ConfigError(
            f"gates.archive.languages lists {sorted(unknown)[0]!r}, which is not known", code="unknown-choice",
            remedy=f"Known are {', '.join(sorted(known_languages()))}",
        )
    texts = captions["text"].dropna()
    if len(texts) < limits.min_sampled:
        return {"one_length_share": None}, []
    lengths = texts.str.len().to_numpy()
    chosen = np.random.default_rng(0).permutation(len(texts))[: limits.num_sampled]
    sampled = texts.iloc[np.sort(chosen)]
    languages = pd.Series(languages_of(sampled.tolist()), dtype=object)
    shares = languages.value_counts(normalize=True).sort_index().sort_values(ascending=False, kind="stable")
    statistics: Statistics = {
        **{f"caption_length_p{p}": int(np.percentile(lengths, p, method="nearest")) for p in (5, 50, 95)},
        "one_length_share": round(float(np.bincount(lengths).max()) / len(lengths), 6),
        **{f"language_{name}": round(float(share), 4) for name, share in shares.head(NUM_LANGUAGES_TOLD).items()},
    }
    if limits.languages is None:
        return statistics, []
    rule = f"captions are in {', '.join(limits.languages)}: at most {limits.max_other_language_share} of them in another"
    kept = languages.isin([*limits.languages, UNSURE]).to_numpy()
    ids = _about(captions).loc[sampled.index]
    return statistics, [Table("languages", ids, {rule: kept}, mostly=1 - limits.max_other_language_share)]


def _embedding_measures(statistics: Statistics, wanted: EmbeddingThresholds) -> Iterator[Measure]:
    """Yield the measures of the statistics that were computed."""
    most, least, far = wanted.max_mean_cosine, wanted.min_effective_rank, wanted.max_drift
    yield Measure("num_embeddings", "there is at least one embedding", at_least=1)
    if statistics["mean_cosine"] is not None:
        yield Measure("mean_cosine", f"no collapse: mean cosine between clips: at most {most}", at_most=most)
        yield Measure("effective_rank", f"no collapse: effective rank is at least {least}", at_least=least)
    if statistics["drift"] is not None and wanted.on_drift == "fail":
        yield Measure("drift", f"no drift from what is live: at most {far}", at_most=far)


def _drift(
    present: Sample, published: Published | None, encoder_version: str, wanted: EmbeddingThresholds
) -> tuple[float | None, list[str]]:
    """Return the drift (None if it was not measured), and notes about it."""
    if published is None:
        return None, ["drift: not measured, nothing is live that could be read."]
    if published.encoder_version != encoder_version:
        return None, [f"drift: not measured, {published.collection} is live and of another encoder_version."]
    far = drift(published.sample, present, min_sampled=wanted.min_sampled // 2)
    if far is None:
        return None, [f"drift: not measured, too few clips here or in {published.collection}."]
    if far > wanted.max_drift and wanted.on_drift == "warn":
        return round(far, 4), [
            f"drift: {far:.2f} from {published.collection} (max_drift {wanted.max_drift}): the archive, or how it is "
            "embedded, has changed much; gates.embeddings.on_drift: fail stops here."
        ]
    return round(far, 4), []


def _judge(
    gate: str, tables: Sequence[Table | Whole], *, statistics: Statistics, notes: tuple[str, ...], out: Path
) -> GateResult:
    """Validate, write the report beside `out`, put it in its place, and raise if it failed."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # an archive tool does not phone home; read at import
    from vidseek_quality.validation import validate

    with whole_folder(out) as beside:
        failures = validate(tables, docs=beside / "docs")
        num_expectations = sum(len(each.rules if isinstance(each, Table) else each.measures) for each in tables)
        result = GateResult(gate, tuple(failures), num_expectations, statistics, notes)
        write_result(result, beside / "result.json")
        write_page(beside / "report.html", "vidseek_quality", "gate.html", result=result)
        if result.passed:
            write_json(beside / PASSED, {"gate": gate, "passed": True}, indent=None)
    if not result.passed:
        failed = f"gate {gate}: {len(failures)} of {num_expectations} expectations failed\n{table_of(result.failures)}"
        raise GateFailed(
            f"{failed}\nNothing below has run", code="gate-not-passed",
            remedy=f"See {out / 'report.html'}; mend the rows, or the thresholds under `gates` in params.yaml",
        )
    return result
