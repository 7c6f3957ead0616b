"""Fit what a score says of how likely a hit is right, and measure it, with how often a search finds the right moment."""

from pipelines.stage import PATHS, run_stage
from vidseek.actions.feedback import TABLE, read_frozen
from vidseek.params import load_params
from vidseek_encoder.encoder import Encoder
from vidseek_retrieval.confidence.calibrate import (
    VECTORS_FOLDER,
    Bootstrap,
    Said,
    asked_videos,
    calibrate,
    unlearned,
    write_report,
)
from vidseek_retrieval.confidence.text_vectors import TextVectors
from vidseek_retrieval.embedding.embed_texts import clip_texts
from vidseek_retrieval.search.moment_recall import PublishedWindows


def main() -> str:
    """The calibrate stage."""
    params = load_params()
    settings = params.calibrate
    windows = PublishedWindows.load(
        PATHS.embed, PATHS.cut, cut=params.publish.cut, most=settings.max_clips,
        always=asked_videos(PATHS.pairs_table, max_queries=settings.max_queries),
    )
    encoder = Encoder.load(PATHS.encoder, variant=params.search.variant, towers=["text"])

    def texts() -> dict[str, str]:
        videos = {clip.video_id for clip in windows.clips}
        found = clip_texts(PATHS.ingest, PATHS.cut, PATHS.caption, cut=params.publish.cut, video_ids=videos)
        return {clip_id: text.words for clip_id, text in found.items()}

    report = calibrate(
        windows, PATHS.cut, PATHS.pairs_table, TextVectors(encoder, PATHS.calibrate / VECTORS_FOLDER),
        margin=params.search.margin(windows.score_spread), max_queries=settings.max_queries, prior=settings.prior,
        general_pairs=PATHS.general.pairs_table if params.general.source else None,
        bootstrap=Bootstrap(params.evaluate.resamples, params.evaluate.seed),
        texts=texts if "words" in params.publish.index.vectors else dict, language=params.publish.index.language,
        feedback=unlearned(
            (Said(each.query, each.clip_id, each.relevant) for each in read_frozen(PATHS.decisions / TABLE)),
            PATHS.pairs_table,
        ),
    )
    write_report(report, out=PATHS.calibrate, reports=PATHS.reports / "calibrate")
    told = ", ".join(f"{name} {value}" for name, value in report.figures.items() if not isinstance(value, dict))
    return f"{told}; {report.vectors.num_embedded} queries embedded, those of the last run read back"


if __name__ == "__main__":
    run_stage(main)
