"""Take the general world in, from source to pairs: what replay learns from and retention is measured on."""

import shutil

from pipelines.params import load_params
from pipelines.stage import DECISIONS, DOWNLOADS, GENERAL, STATE, run_stage
from vidseek_media.cut import cut_archive
from vidseek_media.forgotten import read_forgotten
from vidseek_media.ingest import ingest
from vidseek_media.shards import write_frames
from vidseek_media.sources import open_source
from vidseek_media.youtube import DownloadSettings
from vidseek_training.captions import write_captions
from vidseek_training.pairs import make_pairs


def main() -> str:
    """The general stage."""
    params = load_params()
    if params.general.source is None:
        shutil.rmtree(GENERAL, ignore_errors=True)
        GENERAL.mkdir(parents=True)
        return "no general.source: no replay, and retention is not measured"
    settings = DownloadSettings(**params.ingest.youtube.model_dump())
    source = open_source(params.general.source, downloads=DOWNLOADS, settings=settings)
    ingest(
        source, out=GENERAL / "ingest", ledger=STATE / "ledger", timeout_seconds=params.ingest.timeout_seconds,
        workers=params.ingest.workers, clip_pattern=params.ingest.clip_pattern, forgotten=read_forgotten(DECISIONS),
    )
    cut_archive(
        GENERAL / "ingest", out=GENERAL / "cut", modes=("captions",),
        window_length_seconds=params.cut.window_length_seconds,
        window_stride_seconds=params.cut.window_stride_seconds,
    )
    write_frames(source, GENERAL / "ingest", GENERAL / "cut", out=GENERAL / "frames", **params.frames.model_dump())
    write_captions(  # Nobody pays a model to describe the world that is only held on to.
        GENERAL / "ingest", GENERAL / "cut", out=GENERAL / "caption",
        sources=[source for source in params.caption.sources if source != "llm"],
        max_transcript_characters=params.caption.max_transcript_characters,
    )
    # In the rendered world things stand still, and the captions say so.
    report = make_pairs(
        GENERAL / "ingest", GENERAL / "caption", GENERAL / "frames", out=GENERAL / "pairs",
        **{**params.pairs.model_dump(), "skip_marks": ()}
    )
    return f"{report.num_train} pairs for replay, {report.num_test} for retention"


if __name__ == "__main__":
    run_stage(main)
