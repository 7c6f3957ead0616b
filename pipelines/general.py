"""Take the general world in, from source to pairs: what replay learns from and retention is measured on."""

import shutil

from pipelines.stage import PATHS, run_stage
from vidseek.params import load_params
from vidseek_media.cutting.cut import cut_archive
from vidseek_media.forgotten import read_forgotten
from vidseek_media.frame_store.shards import write_frames
from vidseek_media.frame_store.stored_side import with_stored_side
from vidseek_media.sources.ingest import ingest
from vidseek_media.sources.opening import open_source
from vidseek_media.tables import PAIRS, write_table
from vidseek_training.captioning.captions import write_captions
from vidseek_training.dataset.pairs import make_pairs


def main() -> str:
    """The general stage."""
    params = load_params()
    if params.general.source is None:
        shutil.rmtree(PATHS.general.data, ignore_errors=True)
        write_table(PATHS.general.pairs_table, [], PAIRS)  # for DVC: what others depend on must be there
        return "no general.source: no replay, and retention is not measured"
    world = PATHS.general
    source = open_source(params.general.source, downloads=PATHS.downloads, settings=params.ingest)
    forgotten = read_forgotten(PATHS.decisions)
    ingest(
        source, out=world.ingest, ledger=PATHS.ledger, timeout_seconds=params.ingest.timeout_seconds,
        workers=params.ingest.workers, clip_pattern=params.ingest.clip_pattern, forgotten=forgotten,
    )
    cut_archive(world.ingest, out=world.cut, settings=params.cut.model_copy(update={"modes": ("captions",)}))
    settings = with_stored_side(params.frames, PATHS.side)
    write_frames(
        source, world.ingest, world.cut, out=world.frames, settings=settings, forgotten=forgotten.video_ids
    )
    # Nobody pays a model to describe the world that is only held on to.
    free = tuple(each for each in params.caption.sources if each != "llm")
    write_captions(
        world.ingest, world.cut, out=world.caption, settings=params.caption.model_copy(update={"sources": free})
    )
    # In the rendered world things stand still, and the captions say so.
    report = make_pairs(
        world.ingest, world.caption, world.frames, out=world.pairs,
        settings=params.pairs.model_copy(update={"skip_quality_flags": ()}), memory=PATHS.pair_memory / "general",
    )
    return f"{report.num_train} pairs for replay, {report.num_test} for retention"


if __name__ == "__main__":
    run_stage(main)
