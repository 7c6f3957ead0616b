"""Cut the videos into clips."""

from pipelines.stage import PATHS, run_stage, with_rejected
from vidseek.params import load_params
from vidseek_media.cutting.cut import ShotSearch, cut_archive
from vidseek_media.sources.opening import open_source


def main() -> str:
    """The cut stage."""
    params = load_params()
    cut = params.cut
    source = open_source(params.ingest.source, downloads=PATHS.downloads)
    report = cut_archive(
        PATHS.ingest, out=PATHS.cut, modes=cut.modes, window_length_seconds=cut.window_length_seconds,
        window_stride_seconds=cut.window_stride_seconds,
        shots=ShotSearch(source, cut.shots, PATHS.shot_cache),
    )
    said = f"{report.num_in} videos, {report.num_out} clips, {report.num_rejected} rejected"
    return with_rejected(said, PATHS.cut)


if __name__ == "__main__":
    run_stage(main)
