"""Collect the subtitles of the videos, beside them and in them, as evidence for searches."""

from pipelines.stage import PATHS, run_stage, with_rejected
from vidseek.params import load_params
from vidseek_media.sources.opening import open_source
from vidseek_media.text.subtitles import read_archive_subtitles


def main() -> str:
    """The subtitles stage."""
    params = load_params()
    source = open_source(params.ingest.source, downloads=PATHS.downloads)
    report = read_archive_subtitles(
        PATHS.ingest, out=PATHS.subtitles, source=source, settings=params.subtitles, memory=PATHS.subtitle_cache
    )
    return with_rejected(
        f"{report.num_in} videos, {report.num_known} read before, {report.num_with_subtitles} with subtitles, "
        f"{report.num_segments} segments, {report.num_rejected} rejected", PATHS.subtitles,
    )


if __name__ == "__main__":
    run_stage(main)
