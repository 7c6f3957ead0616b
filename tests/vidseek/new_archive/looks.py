"""What a source holds, made up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vidseek.new_archive.backbone_choice import BackboneChoice
from vidseek.new_archive.machine import Machine
from vidseek.new_archive.source_look import CaptionLook, SourceLook
from vidseek_media.sources.glance import Glance

TWO_CORES = Machine(cores=2, memory_gb=24.0, flags=("avx2",), has_gpu=False)
SHIPPED = BackboneChoice("vidseek/viclip-tiny", "it is here")


def look_of(seconds: Sequence[float] = (60.0,), *, captions: CaptionLook | None = None, **changes: object) -> SourceLook:
    """A folder of videos of these lengths."""
    sampled = {Path(f"/videos/{n}.mp4"): Glance(int(1000 * each), 360, has_sound=False, has_subtitles=False)
               for n, each in enumerate(seconds)}
    known = {"num_videos": len(sampled), "num_bytes": 10**6, "sampled": sampled}
    return SourceLook("/videos", captions=captions or CaptionLook(), **{**known, **changes})  # type: ignore[arg-type]
