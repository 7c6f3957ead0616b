"""Decide how large frames are kept: as params.yaml says, or as the backbone takes them."""

from pipelines.stage import PATHS, run_stage
from vidseek.configuration.frame_side import choose_side
from vidseek.params import load_params
from vidseek_media.frame_store.stored_side import write_side


def main() -> str:
    """The side stage."""
    params = load_params()
    found = choose_side(params.frames.side_px, backbone=params.backbone.name, videos=PATHS.ingest / "videos.parquet")
    write_side(PATHS.side, found.side_px)
    return str(found)


if __name__ == "__main__":
    run_stage(main)
