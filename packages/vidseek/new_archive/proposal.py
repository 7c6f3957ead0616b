"""Proposes the settings of a new archive from what its source holds and what the machine offers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from vidseek.new_archive.backbone_choice import BackboneChoice
from vidseek.new_archive.machine import Machine
from vidseek.new_archive.source_look import SourceLook
from vidseek_media.settings import CutSettings
from vidseek_quality.thresholds import ArchiveThresholds
from vidseek_training.evaluation.proof import PROVABLE_GROUPS
from vidseek_training.settings import PairSettings, TrainSettings

LENGTHS = (3, 5, 10, 15, 20, 30)
"""Window lengths that are proposed, in seconds."""
LONGEST_SECONDS = 60
"""A caption without times belongs to a video of one clip: up to here a window is made long enough for that."""
WINDOWS_PER_VIDEO = 6
"""A typical video is cut into about so many windows, not counting overlaps."""
MARGIN = 0.1
"""A share of refusals that was seen is no bound: the gate's threshold lies this much above it."""
MAX_WORKERS = 16


@dataclass(frozen=True)
class Proposal:
    """What params.yaml of a new archive will say."""

    look: SourceLook = field(repr=False)
    """What it was made from."""
    captions: str | None
    window_seconds: float
    stride_seconds: float
    backbone: BackboneChoice
    workers: int
    max_rejected_share: float | None = None
    """Of gates.archive; None for the default."""
    min_pairs: int | None = None
    """Training pairs from which an adapter is taught; None for the default."""
    reads_text: bool = False
    """Whether text on the screen is read."""
    speech: tuple[str, str | None] = ("", None)
    """Engine that hears speech, empty for nothing, and its model."""

    @property
    def notes(self) -> list[str]:
        """What a person should know before the first run, of what was chosen last."""
        return [
            *_notes(self.look, self.backbone, self.max_rejected_share), *_notes_of_teaching(self), *_notes_of_text(self),
        ]

    def with_answers(self, *, window_seconds: float, stride_seconds: float, backbone: BackboneChoice) -> Proposal:
        """Return the proposal with what a person chose."""
        return replace(self, window_seconds=window_seconds, stride_seconds=stride_seconds, backbone=backbone)

    def params(self) -> dict[str, Any]:
        """Return the content of params.yaml: keys that matter, or that differ from their defaults."""
        workers = {"workers": self.workers} if self.workers != CutSettings().shots.workers else {}
        share = self.max_rejected_share
        engine, model = self.speech
        lora = {"seed": TrainSettings().seed, **({"min_pairs": self.min_pairs} if self.min_pairs else {})}
        gates = {} if share is None else {"gates": {"archive": {"max_rejected_share": share}}}
        return {
            "ingest": {"source": self.look.text, **({"captions": self.captions} if self.captions else {}), **workers},
            "cut": {
                "modes": ["captions", "windows"], "window_length_seconds": self.window_seconds,
                "window_stride_seconds": self.stride_seconds,
            },
            **({"frames": workers} if workers else {}),
            **({"ocr": {"enabled": True}} if self.reads_text else {}),
            **({"speech": {"enabled": True, "engine": engine, **({"model": model} if model else {})}} if engine else {}),
            **gates,
            "backbone": {"name": self.backbone.name},
            "train": {"preset": "auto", "settings": {"lora": lora}},
        }


def propose(
    look: SourceLook, machine: Machine, backbone: BackboneChoice, *, captions: str | None, reads_text: bool = False,
    speech: tuple[str, str | None] = ("", None),
) -> Proposal:
    """Return settings for an archive.

    Args:
        look: What the source holds.
        machine: The machine that will run the stages.
        backbone: The backbone that was chosen.
        captions: Absolute path of a file of captions that lies elsewhere than the videos.
        reads_text: Whether text on the screen shall be read.
        speech: Engine that shall hear speech, empty for nothing, and its model.
    """
    window = window_seconds(look)
    return Proposal(
        look=look, captions=captions, window_seconds=window, stride_seconds=window / 2, backbone=backbone,
        workers=max(2, min(machine.cores, MAX_WORKERS)), max_rejected_share=rejected_share(look),
        min_pairs=min_pairs(look),
        reads_text=reads_text, speech=speech,
    )


def window_seconds(look: SourceLook) -> float:
    """Return a window length: about that of captioned spans, else a sixth of a typical video, between 3 and 30 s.

    Where captions have no times, and videos are short, a window holds nine of ten videos whole: their captions then count.
    """
    span_ms = look.captions.median_span_ms
    if (whole := _whole_video_seconds(look)) is not None:
        return whole
    wanted = span_ms / 1000 if span_ms else look.median_ms() / 1000 / WINDOWS_PER_VIDEO
    if not wanted:
        return CutSettings().window_length_seconds
    return float(min(LENGTHS, key=lambda length: abs(math.log(length / max(wanted, 0.1)))))


def _whole_video_seconds(look: SourceLook) -> float | None:
    """A length that holds most videos whole, where captions need it and it is short enough."""
    if not look.sampled or 2 * look.captions.num_timed >= look.captions.num_matched:
        return None
    lengths = sorted(each.duration_ms / 1000 for each in look.sampled.values())
    most = lengths[int(0.9 * (len(lengths) - 1))]
    return next((float(length) for length in (*LENGTHS, LONGEST_SECONDS) if length >= most), None)


def rejected_share(look: SourceLook) -> float | None:
    """Return a threshold under which this source passes its gates; None where the default does.

    The default guards against a source that went wrong since. What is refused today was seen by the person who starts.
    """
    seen = max(look.rejected_share, look.captions.rejected_share)
    if seen + MARGIN <= ArchiveThresholds().max_rejected_share:
        return None
    return min(1.0, math.ceil((seen + MARGIN) * 20) / 20)


def provable_videos() -> int:
    """Return how many captioned videos give validation so many that an adapter can be proven better."""
    return math.ceil(PROVABLE_GROUPS / PairSettings().validation_share)


def min_pairs(look: SourceLook) -> int | None:
    """Return the training pairs of an archive that can prove an adapter, where this one cannot yet; None where it can.

    What cannot be proven never goes live: to teach it would be time for nothing.
    """
    captions = look.captions
    if captions.has_splits or not captions.num_videos or captions.num_videos >= provable_videos():
        return None
    shares = PairSettings()
    pairs = provable_videos() * captions.num_matched / captions.num_videos
    return math.ceil(pairs * (1 - shares.validation_share - shares.test_share))


def _notes_of_teaching(proposal: Proposal) -> list[str]:
    if proposal.min_pairs is None:
        return []
    num_videos, share = proposal.look.captions.num_videos, PairSettings().validation_share
    return [
        f"{num_videos} captioned videos are too few to prove that a taught model is better: validation gets about "
        f"{round(share * num_videos)} of them, and wants {PROVABLE_GROUPS}. So nothing is taught before there are about "
        f"{provable_videos()} (train.settings.lora.min_pairs: {proposal.min_pairs}); the archive is searched with the "
        "backbone as it is."
    ]


def _notes(look: SourceLook, backbone: BackboneChoice, share: float | None) -> list[str]:
    found = []
    captions = look.captions
    if look.not_looked:
        found.append(f"The source was not looked at: {look.not_looked}. Lengths and costs show in the first run.")
    if share is not None and look.rejected_share >= captions.rejected_share:
        name, reason = next(iter(look.faults.items()), ("a file", "it is refused"))
        found.append(
            f"{look.rejected_share:.0%} of the files cannot be used ({name}: {reason}). gates.archive.max_rejected_share is "
            f"{share} so that the others get through."
        )
    elif share is not None:
        found.append(
            f"{captions.num_rows - captions.num_matched} of {captions.num_rows} caption rows name no video here (such as "
            f"{captions.first_unmatched}). gates.archive.max_rejected_share is {share} so that the others get through."
        )
    if not look.not_looked and not captions.num_matched:
        found.append(
            "There are no captions: nothing is taught, and the archive is searched with the backbone as it is. "
            "docs/captions.md has how a language model can write them."
        )
    num_whole = captions.num_matched - captions.num_timed
    if 2 * num_whole > captions.num_matched and _whole_video_seconds(look) is None:
        found.append(
            f"{num_whole} captions have no start and end, and most videos are longer than a window: such a caption belongs "
            "to no clip and teaches nothing. Give them times (docs/own-videos.md)."
        )
    if backbone.is_shipped:
        found.append(
            f"{backbone.name} knows a rendered world of coloured shapes alone: it finds what captions, subtitles and titles "
            f"say, and nothing by its look." + (f" Where there is a network: vidseek backbone fetch {backbone.fetch} --use"
                                                if backbone.fetch else "")
        )
    return found


def _notes_of_text(proposal: Proposal) -> list[str]:
    found = []
    if proposal.look.share_of("has_sound") >= 0.5 and not proposal.speech[0]:
        found.append("Most videos have sound: --speech ENGINE finds what is said (docs/evidence.md has engines and cost).")
    if proposal.speech[0] == "pocketsphinx":
        found.append("pocketsphinx hears English alone, and many words wrongly; faster-whisper hears well, with a model.")
    return found
