"""Give clips their captions."""

from pipelines.params import load_params
from pipelines.stage import CAPTION, CUT, INGEST, run_stage
from vidseek_training.captions import write_captions


def main() -> str:
    """The caption stage."""
    report = write_captions(INGEST, CUT, out=CAPTION, **load_params().caption.model_dump())
    return (
        f"{report.num_in} captions, {report.num_out} kept, {report.num_whole_video} of whole videos, "
        f"{report.num_rejected} rejected"
    )


if __name__ == "__main__":
    run_stage(main)
