"""Turn the speech of the videos into text, where params enable it."""

from pipelines.stage import PATHS, run_stage, with_rejected
from vidseek.params import load_params
from vidseek_media.sources.opening import open_source
from vidseek_media.speech.transcribing import transcribe_archive


def main() -> str:
    """The speech stage."""
    params = load_params()
    source = open_source(params.ingest.source, downloads=PATHS.downloads)
    report = transcribe_archive(
        PATHS.ingest, out=PATHS.speech, source=source, settings=params.speech, memory=PATHS.speech_cache
    )
    if not params.speech.enabled:
        return "off, see speech.enabled in params.yaml"
    said = (
        f"{report.num_in} videos, {report.num_known} heard before, {report.num_with_speech} with speech, "
        f"{report.num_segments} segments, {report.num_rejected} rejected; {report.speech_seconds:.0f} s of speech"
    )
    said += f", {report.spent_usd:.4f} USD spent by all runs" if report.spent_usd else ""
    return with_rejected(said, PATHS.speech)


if __name__ == "__main__":
    run_stage(main)
