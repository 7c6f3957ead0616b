"""The gates of the pipeline: a table passes, or the run stops with the rows named and the report written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vidseek_media.errors import ArtifactError, GateFailed
from vidseek_media.ids import clip_id_of
from vidseek_media.tables import CAPTIONS, CLIPS, FRAMES, GROUPS, PAIRS, REJECTED, VIDEOS, read_table
from vidseek_quality.report import Failure, GateResult, Number, write_page, write_result
from vidseek_quality.thresholds import EmbeddingThresholds, PairThresholds

if TYPE_CHECKING:
    from vidseek_quality.suites import Table

EMBEDDING_COLUMNS = ["clip_id", "values", "encoder_version", "variant"]


def check_pairs(
    pairs: Path,
    clips: Path,
    *,
    captions: Path | None = None,
    groups: Path | None = None,
    videos: Path | None = None,
    rejected: Sequence[Path] = (),
    out: Path,
    thresholds: PairThresholds | None = None,
) -> GateResult:
    """Check the pairs table before anything learns from it, and write the report under `out`.

    Args:
        pairs: pairs.parquet.
        clips: clips.parquet, to which every pair must join.
        captions: captions.parquet, where known: captions of a whole video of several clips make no pair by design, and
            are not counted as rejected.
        groups: groups.parquet, where known: videos of one group (near-duplicates) must be in one split.
        videos: videos.parquet, where known: then it, the clips and the captions are checked as well.
        rejected: the rejected.parquet of the stages whose refusals count (caption, pairs).
        out: result.json (equal for equal data), report.html and docs/ (Data Docs): whole or absent.

    An archive without captions has no pairs; it passes with a note, since the base model can still publish it.

    Raises:
        GateFailed: an expectation was not met; the report is written first.
        ArtifactError: a table is missing, broken, or has other columns.
    """
    wanted = thresholds or PairThresholds()
    group_of = None if groups is None else read_table(groups, GROUPS).set_index("video_id")["group"]
    rows = pair_rows(
        read_table(pairs, PAIRS), read_table(clips, CLIPS), min_repeats=wanted.min_caption_repeats, group_of=group_of
    )
    num_whole_video = 0 if captions is None else int(read_table(captions, CAPTIONS)["clip_id"].isna().sum())
    num_rejected = max(sum(len(read_table(path, REJECTED)) for path in rejected) - num_whole_video, 0)
    num_in = len(rows) + num_rejected
    statistics: dict[str, Number | None] = {
        "num_pairs": len(rows),
        "num_videos": int(rows["video_id"].nunique()),
        "num_whole_video_captions": num_whole_video,
        "num_rejected": num_rejected,
        "rejected_share": round(num_rejected / num_in, 6) if num_in else 0.0,
        "max_caption_share": round(float(rows["caption_share"].max()), 6) if len(rows) else 0.0,
        **{f"num_{split}": int((rows["split"] == split).sum()) for split in ("train", "validation", "test")},
    }
    notes = () if num_in else ("No pairs: nothing to learn from, so the archive is published with the base model.",)

    def tables() -> list[Table]:
        from vidseek_quality.suites import Table, pair_expectations, pair_measures

        return [
            *([] if videos is None else _source_tables(videos, clips, captions, wanted)),
            Table("pairs", rows, "clip_id", pair_expectations(wanted, judge_groups=groups is not None)),
            Table("pairs-as-a-whole", pd.DataFrame([statistics]), None, pair_measures(wanted)),
        ]

    return _judge("pairs", tables, statistics=statistics, notes=notes, out=out)


def check_embeddings(
    parts: Path,
    frames: Path,
    *,
    out: Path,
    dimension: int,
    encoder_version: str,
    variant: str = "fp32",
    thresholds: EmbeddingThresholds | None = None,
) -> GateResult:
    """Check the embeddings before anything is published, and write the report under `out`.

    Args:
        parts: a Parquet file or a folder of them, with columns clip_id, values (a list of float32), encoder_version,
            variant.
        frames: frames.parquet, whose clips must be those embedded.
        out: result.json (equal for equal data), report.html and docs/ (Data Docs): whole or absent.
        dimension: the encoder's, as in encoder.json.
        encoder_version: the encoder's, as in encoder.json.

    Raises:
        GateFailed: an expectation was not met; the report is written first.
        ArtifactError: a table is missing, broken, or has other columns.
    """
    wanted = thresholds or EmbeddingThresholds()
    rows, vectors = embedding_rows(_read_parts(parts), read_table(frames, FRAMES), dimension=dimension)
    judge_collapse = len(vectors) >= wanted.min_sampled
    sample = _sample(vectors, wanted.num_sampled)
    statistics: dict[str, Number | None] = {
        "num_embeddings": int(rows["has_embedding"].sum()),
        "dimension": dimension,
        "num_sampled": len(sample) if judge_collapse else 0,
        "mean_cosine": round(mean_cosine(sample), 6) if judge_collapse else None,
        "effective_rank": round(effective_rank(sample), 4) if judge_collapse else None,
    }
    notes = () if judge_collapse else (
        f"{len(vectors)} whole embeddings are too few to tell collapse from a small archive "
        f"(min_sampled {wanted.min_sampled}): it was not judged.",
    )

    def tables() -> list[Table]:
        from vidseek_quality.suites import Table, embedding_expectations, embedding_measures

        each = embedding_expectations(encoder_version=encoder_version, dimension=dimension, variant=variant)
        return [
            Table("embeddings", rows, "clip_id", each),
            Table("embeddings-as-a-whole", pd.DataFrame([statistics]), None,
                  embedding_measures(wanted, judge_collapse=judge_collapse)),
        ]

    return _judge("embeddings", tables, statistics=statistics, notes=notes, out=out)


def _source_tables(videos: Path, clips: Path, captions: Path | None, wanted: PairThresholds) -> list[Table]:
    """The tables that the pairs rest on, with what is expected of them."""
    from vidseek_quality.suites import Table, caption_expectations, clip_expectations, video_expectations

    of_videos, of_clips = read_table(videos, VIDEOS), read_table(clips, CLIPS)
    tables = [
        Table("videos", video_rows(of_videos), "video_id", video_expectations()),
        Table("clips", clip_rows(of_clips, of_videos), "clip_id", clip_expectations()),
    ]
    if captions is not None:
        rows = caption_rows(read_table(captions, CAPTIONS), of_clips, of_videos)
        tables.append(Table("captions", rows, "about", caption_expectations(wanted)))
    return tables


def video_rows(videos: pd.DataFrame) -> pd.DataFrame:
    """The videos with num_uris, and num_shared_uris: how many of them another row lists too."""
    uris = videos["uris"].map(list)
    count = uris.explode().value_counts()
    return videos[["video_id", "duration_ms"]].assign(
        num_uris=uris.map(len), num_shared_uris=[sum(int(count[uri]) > 1 for uri in own) for own in uris]
    )


def clip_rows(clips: pd.DataFrame, videos: pd.DataFrame) -> pd.DataFrame:
    """The clips with what their suite asks of them: duration_ms of the video, is_span, is_inside, has_own_id."""
    duration_ms = clips["video_id"].map(videos.drop_duplicates("video_id").set_index("video_id")["duration_ms"])
    own = [
        str(clip_id_of(video_id, int(start), int(end)))
        for video_id, start, end in zip(clips["video_id"], clips["start_ms"], clips["end_ms"], strict=True)
    ]
    return clips[["clip_id", "video_id", "start_ms", "end_ms"]].assign(
        duration_ms=duration_ms, is_span=clips["start_ms"] < clips["end_ms"],
        is_inside=(clips["end_ms"] <= duration_ms) | duration_ms.isna(), has_own_id=clips["clip_id"] == own,
    )


def caption_rows(captions: pd.DataFrame, clips: pd.DataFrame, videos: pd.DataFrame) -> pd.DataFrame:
    """The captions with what they are about (clip_id, else video_id), has_video and has_clip."""
    video_of = clips.drop_duplicates("clip_id").set_index("clip_id")["video_id"]
    is_of_clip = captions["clip_id"].notna()
    return captions[["text", "cost_usd"]].assign(
        about=captions["clip_id"].fillna(captions["video_id"]), has_video=captions["video_id"].isin(videos["video_id"]),
        has_clip=~is_of_clip | (captions["clip_id"].map(video_of) == captions["video_id"]),
    )


def pair_rows(
    pairs: pd.DataFrame, clips: pd.DataFrame, *, min_repeats: int, group_of: pd.Series | None = None
) -> pd.DataFrame:
    """The pairs with what their suite asks of them: the clip's own video_id, num_splits_of_video, num_splits_of_group
    and caption_share.

    A video that `group_of` does not name is a group of its own.

    `caption_share` is 0 where the same text (case and outer blanks aside) occurs at most `min_repeats` times, and where
    there is none (another rule names those).
    """
    video_of = clips.drop_duplicates("clip_id").set_index("clip_id")["video_id"]
    rows = pairs.assign(clip_video_id=pairs["clip_id"].map(video_of))
    text = rows["caption"].fillna("").str.strip().str.casefold()
    repeats = text.map(text.value_counts()).astype(float)
    group = rows["video_id"] if group_of is None else rows["video_id"].map(group_of).fillna(rows["video_id"])
    return rows.assign(
        num_splits_of_group=rows.groupby(group, dropna=False)["split"].transform("nunique"),
        same_video=(rows["video_id"] == rows["clip_video_id"]) | rows["clip_video_id"].isna(),
        num_splits_of_video=rows.groupby("video_id", dropna=False)["split"].transform("nunique"),
        caption_share=(repeats / max(len(rows), 1)).where((repeats > min_repeats) & (text != ""), 0.0),
    )


def embedding_rows(
    parts: pa.Table, frames: pd.DataFrame, *, dimension: int
) -> tuple[pd.DataFrame, NDArray[np.float32]]:
    """One row for each clip of either table with what the suite asks of it, and the whole vectors.

    A vector is whole, and in the array of shape (n, dimension), if it has `dimension` values, all finite.
    """
    lists = parts["values"].combine_chunks()
    num_values = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    full = num_values == dimension
    vectors = lists.filter(pa.array(full)).flatten().to_numpy(zero_copy_only=False).reshape(-1, dimension)
    finite = np.isfinite(vectors)
    length = np.full(len(full), np.nan)
    length[full] = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    num_not_finite = np.zeros(len(full), dtype=np.int64)
    num_not_finite[full] = dimension - finite.sum(axis=1)
    clip_ids = parts["clip_id"].to_pandas()
    rows = pd.DataFrame({
        "clip_id": clip_ids,
        "num_values": num_values,
        "num_not_finite": num_not_finite,
        "length": length,
        "encoder_version": parts["encoder_version"].to_pandas(),
        "variant": parts["variant"].to_pandas(),
        "has_embedding": True,
        "has_frames": clip_ids.isin(frames["clip_id"]),
    })
    missing = frames.loc[~frames["clip_id"].isin(clip_ids), ["clip_id"]]
    rows = pd.concat([rows, missing.assign(has_embedding=False, has_frames=True)], ignore_index=True)
    return rows, vectors[finite.all(axis=1)]


def mean_cosine(vectors: NDArray[np.float32]) -> float:
    """The mean cosine over all pairs of different rows of unit `vectors`, shape (n, d), n at least 2."""
    n = len(vectors)
    whole = vectors.astype(np.float64)
    return float((np.square(whole.sum(axis=0)).sum() - np.square(whole).sum()) / (n * (n - 1)))


def effective_rank(vectors: NDArray[np.float32]) -> float:
    """How many directions the centred `vectors` use: 1 to d (Roy and Vetterli, The effective rank, EUSIPCO 2007)."""
    singular = np.linalg.svd(vectors - vectors.mean(axis=0), compute_uv=False)
    total = float(singular.sum())
    if total <= 1e-6:
        return 1.0
    share = singular[singular > 0] / total
    return float(np.exp(-(share * np.log(share)).sum()))


def _sample(vectors: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    if len(vectors) <= most:
        return vectors
    return vectors[np.sort(np.random.default_rng(0).choice(len(vectors), size=most, replace=False))]


def _read_parts(parts: Path) -> pa.Table:
    """The embeddings of all parts, in order of clip_id, so that the result does not depend on how they were sharded."""
    remedy = "Run `dvc repro embed` to make it again"
    files = sorted(parts.glob("*.parquet")) if parts.is_dir() else [parts]
    if not files:
        raise ArtifactError(f"{parts} holds no .parquet file", remedy=remedy)
    try:
        table = pa.concat_tables([pq.read_table(file, columns=EMBEDDING_COLUMNS) for file in files],
                                 promote_options="permissive")
        lists = table["values"].cast(pa.list_(pa.float32()))
    except FileNotFoundError as error:
        raise ArtifactError(f"{parts} is missing", remedy=remedy) from error
    except (pa.ArrowException, OSError) as error:
        raise ArtifactError(f"{parts} does not hold {EMBEDDING_COLUMNS}: {error}", remedy=remedy) from error
    return table.set_column(table.schema.get_field_index("values"), "values", lists).sort_by("clip_id")


def _judge(
    gate: str,
    tables: Callable[[], list[Table]],
    *,
    statistics: dict[str, Number | None],
    notes: tuple[str, ...],
    out: Path,
) -> GateResult:
    """Validate, write the report beside `out`, put it in its place, and raise if it failed."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # an archive tool does not phone home; read at import
    from vidseek_quality.validation import validate

    beside = out.with_name(f".{out.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        made = tables()
        failures = validate(made, docs=beside / "docs")
        num_expectations = sum(len(table.expectations) for table in made)
        result = GateResult(gate, tuple(failures), num_expectations, statistics, notes)
        write_result(result, beside / "result.json")
        write_page(result, beside / "report.html")
        shutil.rmtree(out, ignore_errors=True)
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    if not result.passed:
        raise GateFailed(_message(gate, result.failures), remedy=f"See {out / 'report.html'}; mend the rows or `gates`")
    return result


def _message(gate: str, failures: tuple[Failure, ...]) -> str:
    return "\n".join([f"gate {gate}: {len(failures)} expectations failed", *(f"  - {one}" for one in failures)])
