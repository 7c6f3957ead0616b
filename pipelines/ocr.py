"""Read the on-screen text of the videos, where params enable it."""

from pipelines.stage import PATHS, run_stage, with_rejected
from vidseek.params import load_params
from vidseek_media.ocr.screen_text import read_archive_text
from vidseek_media.sources.opening import open_source


def main() -> str:
    """The ocr stage."""
    params = load_params()
    source = open_source(params.ingest.source, downloads=PATHS.downloads)
    report = read_archive_text(PATHS.ingest, out=PATHS.ocr, source=source, settings=params.ocr, memory=PATHS.ocr_cache)
    if not params.ocr.enabled:
        return "off, see ocr.enabled in params.yaml"
    said = (
        f"{report.num_in} videos, {report.num_known} read before, {report.num_with_text} with text, "
        f"{report.num_segments} segments, {report.num_rejected} rejected; "
        f"{report.num_frames} frames, {report.num_passed_over} of them as the one before"
    )
    return with_rejected(said, PATHS.ocr)


if __name__ == "__main__":
    run_stage(main)
