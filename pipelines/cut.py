"""Cut the videos into clips."""

from pipelines.params import load_params
from pipelines.stage import CUT, INGEST, run_stage
from vidseek_media.cut import cut_archive


def main() -> str:
    """The cut stage."""
    report = cut_archive(INGEST, out=CUT, **load_params().cut.model_dump())
    return f"{report.num_in} videos, {report.num_out} clips, {report.num_rejected} rejected"


if __name__ == "__main__":
    run_stage(main)
