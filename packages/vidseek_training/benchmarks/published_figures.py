"""Published figures of the benchmarks that `vidseek benchmark` runs, each with its source.

R@k in percent, ranks from 1; None if the source does not state it. Figures were copied from the named tables, or from tables
that quote them where a row says so. None was reproduced here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Figures = tuple[float | None, float | None, float | None, float | None, float | None]
"""R@1, R@5, R@10, median rank, mean rank."""

_NONE: Figures = (None,) * 5


@dataclass(frozen=True)
class Published:
    """One row of a published table."""

    model: str
    taught: bool
    """On the benchmark's own training part; if not, zero-shot."""
    text_to_video: Figures
    video_to_text: Figures
    source: str


_INTERNVIDEO = (
    "InternVideo (Wang et al. 2022, arXiv 2212.03191), table in the README of InternVideo1/Downstream/Video-Text-Retrieval "
    "in github.com/OpenGVLab/InternVideo"
)
_CLIP4CLIP = "CLIP4Clip (Luo et al. 2021, arXiv 2104.08860), mean of frames"
_QUOTED = "as quoted in"

PUBLISHED: Mapping[str, tuple[Published, ...]] = {
    "msrvtt-1ka": (
        Published(
            "CLIP ViT-B/32, mean of frames", False, (31.2, 53.7, 64.2, 4.0, None), _NONE,
            f"Portillo-Quintero et al. 2021 (arXiv 2102.12443), {_QUOTED} the table on 1k-A of MDMMT (arXiv 2103.10699)",
        ),
        Published(
            "CLIP ViT-B/32 by CLIP4Clip, mean of frames", False, (30.6, 54.4, 64.3, None, None), _NONE,
            f"{_CLIP4CLIP}, {_QUOTED} a table on zero-shot MSR-VTT beside InternVideo and ViCLIP",
        ),
        Published(
            "ViCLIP L/14, InternVid 10M", False, (42.4, None, None, None, None), _NONE,
            "InternVid (Wang et al. 2023, arXiv 2307.06942), table on zero-shot retrieval, R@1 alone",
        ),
        Published(
            "InternVideo", False, (40.0, 65.3, 74.1, 2.0, 23.9), (37.5, 63.3, 71.3, 3.0, 24.2),
            f"{_INTERNVIDEO}, zero-shot",
        ),
        Published(
            "CLIP4Clip ViT-B/32, mean of frames", True, (43.1, 70.4, 80.8, 2.0, 16.2), (43.1, 70.5, 81.2, None, 12.4),
            f"{_CLIP4CLIP}, {_QUOTED} a later table on MSR-VTT with `freeze none`",
        ),
        Published(
            "X-CLIP ViT-B/32 (Ma et al.)", True, (46.1, 73.0, 83.1, 2.0, 13.2), _NONE,
            f"X-CLIP (Ma et al. 2022, arXiv 2207.07285; not the X-CLIP of transformers), {_QUOTED} the table of AVIGATE",
        ),
        Published(
            "InternVideo", True, (55.2, 79.6, 87.5, 1.0, 10.7), (57.9, 79.2, 86.4, 1.0, 7.5),
            f"{_INTERNVIDEO}, full finetuning",
        ),
    ),
    "msvd": (
        Published(
            "InternVideo", False, (43.4, 69.9, 79.1, 2.0, 17.0), (67.6, 90.6, 94.6, 1.0, 2.9), f"{_INTERNVIDEO}, zero-shot"
        ),
        Published(
            "CLIP4Clip ViT-B/32, mean of frames", True, (46.2, 76.1, 84.6, 2.0, None), _NONE,
            f"{_CLIP4CLIP}, {_QUOTED} a summary of its main results",
        ),
        Published(
            "InternVideo", True, (58.4, 84.5, 90.4, 1.0, 8.2), (76.3, 96.8, 98.7, 1.0, 2.1),
            f"{_INTERNVIDEO}, full finetuning",
        ),
    ),
}
