"""Cut the videos into clips."""

from pipelines.params import load_params
from pipelines.stage import CUT, DOWNLOADS, INGEST, STATE, run_stage
from vidseek_media.cut import ShotSearch, cut_archive
from vidseek_media.shots import ShotSettings
from vidseek_media.sources import open_source


def main() -> str:
    """The cut stage."""
    params = load_params()
    cut, found = params.cut, params.cut.shots
    settings = ShotSettings(found.threshold, found.min_content, found.min_seconds, found.max_seconds, found.gradual)
    source = open_source(params.ingest.source, downloads=DOWNLOADS)
    report = cut_archive(
        INGEST, out=CUT, modes=cut.modes, window_length_seconds=cut.window_length_seconds,
        window_stride_seconds=cut.window_stride_seconds,
        shots=ShotSearch(source, settings, STATE / "shots", found.workers, found.timeout_seconds),
    )
    return f"{report.num_in} videos, {report.num_out} clips, {report.num_rejected} rejected"


if __name__ == "__main__":
    run_stage(main)
