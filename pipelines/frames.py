"""Decode each video once, and keep the frames of its clips."""

from pipelines.stage import PATHS, run_stage, with_rejected
from vidseek.params import load_params
from vidseek_media.forgotten import read_forgotten
from vidseek_media.frame_store.shards import write_frames
from vidseek_media.frame_store.stored_side import with_stored_side
from vidseek_media.sources.opening import open_source


def main() -> str:
    """The frames stage."""
    params = load_params()
    source = open_source(params.ingest.source, downloads=PATHS.downloads)
    settings = with_stored_side(params.frames, PATHS.side)
    report = write_frames(
        source, PATHS.ingest, PATHS.cut, out=PATHS.frames, settings=settings,
        forgotten=read_forgotten(PATHS.decisions).video_ids,
    )
    said = (
        f"{report.num_in} clips, {report.num_out} with frames, {report.num_rejected} rejected; "
        f"{report.num_decoded} videos decoded; {report.num_shards} shards, {report.num_shards_kept} kept"
    )
    return with_rejected(said, PATHS.frames)


if __name__ == "__main__":
    run_stage(main)
