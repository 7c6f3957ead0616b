"""Give clips their captions."""

from pipelines.stage import PATHS, run_stage, with_rejected
from vidseek.params import Params, load_params
from vidseek_media.sources.opening import open_source
from vidseek_training.captioning.captioner import Captioner
from vidseek_training.captioning.captions import write_captions


def main() -> str:
    """The caption stage."""
    params = load_params()
    report = write_captions(
        PATHS.ingest, PATHS.cut, out=PATHS.caption, settings=params.caption, llm=_captioner(params)
    )
    said = (
        f"{report.num_in} captions, {report.num_out} kept, {report.num_whole_video} of whole videos, "
        f"{report.num_rejected} rejected"
    )
    if report.llm is not None:
        said += (
            f"; the model captioned {report.llm.num_captioned} of {report.llm.num_clips} clips, {report.llm.num_cached} of "
            f"them paid for before, for {report.llm.cost_usd:.4f} USD"
        )
        said += f"; {report.llm.num_broken} torn lines of the journal were passed over" if report.llm.num_broken else ""
    return with_rejected(said, PATHS.caption)


def _captioner(params: Params) -> Captioner | None:
    if "llm" not in params.caption.sources:
        return None
    source = open_source(params.ingest.source, downloads=PATHS.downloads)
    return Captioner(
        params.caption.llm, frames_dir=PATHS.frames, journal_dir=PATHS.caption_journal, path_of=source.path_of
    )


if __name__ == "__main__":
    run_stage(main)
