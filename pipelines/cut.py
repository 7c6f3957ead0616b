"""Cut the videos into clips."""

from pipelines.stage import PATHS, run_stage, with_rejected
from vidseek.params import load_params
from vidseek_media.cutting.cut import ShotSearch, cut_archive
from vidseek_media.sources.opening import open_source


def main() -> str:
    """The cut stage."""
    params = load_params()
    source = open_source(params.ingest.source, downloads=PATHS.downloads)
    search = ShotSearch(source, PATHS.shot_cache)
    report = cut_archive(PATHS.ingest, out=PATHS.cut, settings=params.cut, search=search)
    said = f"{report.num_in} videos, {report.num_out} clips, {report.num_rejected} rejected"
    return with_rejected(said, PATHS.cut)


if __name__ == "__main__":
    run_stage(main)
