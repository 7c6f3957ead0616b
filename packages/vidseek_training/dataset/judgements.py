"""Makes pairs and counter-examples of what people said of hits: what they confirmed is a caption, what they refused is not.

Only clips of training videos teach. What was said of clips of validation and test is kept for `calibrate`: a hit that the
model found itself must not prove that model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import zip_longest

import pandas as pd

from vidseek_media.guards import mended_text
from vidseek_media.splitting.both_sides import folded
from vidseek_media.splitting.video_groups import groups_of
from vidseek_media.tables import FEEDBACK, PAIRS

JUDGED = "judged"
"""The writer of a pair that somebody confirmed, and the axis of a contrast that somebody refused."""


@dataclass(frozen=True)
class Judgements:
    """What people said of hits, as the stage `pairs` uses it; each is counted once."""

    num_confirmed: int = 0
    """That made a pair."""
    num_refused: int = 0
    """That became the contrast of a pair."""
    num_held_out: int = 0
    """Of clips of validation and test, or with the words of a caption of these: they teach nothing."""
    num_unused: int = 0
    """Confirmed ones whose clip has the same caption or no frames; refused ones of clips without a caption."""
    num_waiting: int = 0
    """That came after the training set was frozen."""

    def __str__(self) -> str:
        told = f"{self.num_confirmed} confirmed and {self.num_refused} refused ones teach"
        others = (
            (self.num_held_out, "are of held-out clips or captions and teach nothing"), (self.num_waiting, "wait"),
            (self.num_unused, "say nothing new, or of no captioned clip"),
        )
        return ", ".join([told, *(f"{num} {what}" for num, what in others if num)])


@dataclass(frozen=True)
class Side:
    """Where a video stands."""

    split: str
    group: str


def no_feedback() -> pd.DataFrame:
    """Return an empty table of the schema FEEDBACK."""
    return pd.DataFrame({name: [] for name in FEEDBACK.names})


def with_judgements(
    pairs: pd.DataFrame, feedback: pd.DataFrame, clips: pd.DataFrame, side_of: Callable[[str], Side | None]
) -> tuple[pd.DataFrame, Judgements]:
    """Return the pairs and those that people confirmed after them, with contrasts that people refused.

    A confirmed query is a caption of its clip. A refused query is a contrast of a caption of its clip that has none. A query
    that is a caption of validation or test is neither, whatever the clip: equal words would prove what they taught.

    Args:
        pairs: Schema PAIRS.
        feedback: Schema FEEDBACK.
        clips: Columns clip_id, video_id and frames_digest of the clips that have frames and may make pairs.
        side_of: Of the video of a clip; None where nothing says on which side it may be.
    """
    texts = [mended_text(text) for text in feedback["query"]]
    known = _texts_by_clip(pairs[pairs["clip_id"].isin(set(feedback["clip_id"]))])
    held_texts = {folded(text) for text in pairs.loc[pairs["split"] != "train", "caption"]}
    place = {row.clip_id: row for row in clips.itertuples(index=False)}
    rows: list[dict[str, object]] = []
    refused: dict[str, list[str]] = defaultdict(list)
    num_held_out = num_unused = 0
    for text, clip_id, relevant in zip(texts, feedback["clip_id"], feedback["relevant"], strict=True):
        clip = place.get(clip_id)
        side = None if clip is None else side_of(clip.video_id)
        if (side is not None and side.split != "train") or folded(text) in held_texts:
            num_held_out += 1
        elif clip is None or side is None or not text or folded(text) in known[clip_id]:
            num_unused += 1
        elif relevant:
            known[clip_id].add(folded(text))
            rows.append(_pair_of(clip, text))
        else:
            refused[clip_id].append(text)
    joined = pd.concat([pairs, pd.DataFrame(rows, columns=PAIRS.names)], ignore_index=True) if rows else pairs
    contrasted, num_refused = _with_contrasts(joined, refused)
    num_refusals = sum(map(len, refused.values()))
    return contrasted, Judgements(len(rows), num_refused, num_held_out, num_unused + num_refusals - num_refused)


def sides_of(
    video_ids: Iterable[str], known: Mapping[str, Side], together: Iterable[tuple[str, str]],
    split_of: Callable[[str], str],
) -> dict[str, Side]:
    """Return the sides of videos that are known by what was said of them alone, or by captions.

    A video that shows what videos of several sides show is held out, as is one that is near to a held-out video. No known
    video changes its side.

    Args:
        video_ids: The videos.
        known: The sides of the videos that have captions.
        together: Pairs of videos that show the same.
        split_of: Chooses the split of a group that has no captions, by its name.
    """
    together = list(together)
    keys = sorted({*video_ids, *known, *(video_id for pair in together for video_id in pair)})
    leaders = groups_of(keys, together)
    members: dict[str, list[Side]] = defaultdict(list)
    for video_id, side in known.items():
        members[leaders[video_id]].append(side)
    found = {}
    for video_id in keys:
        kin = sorted(members[leaders[video_id]], key=lambda side: (side.split == "train", side.group))
        leader = leaders[video_id]
        found[video_id] = known.get(video_id) or (kin[0] if kin else Side(split_of(leader), leader))
    return found


def _pair_of(clip: object, text: str) -> dict[str, object]:
    return {
        "clip_id": clip.clip_id, "video_id": clip.video_id, "caption": text, "split": "train",  # type: ignore[attr-defined]
        "gallery": "default", "contrast": "", "axis": "",
        "frames_digest": clip.frames_digest, "writer": JUDGED,  # type: ignore[attr-defined]
    }


def _with_contrasts(pairs: pd.DataFrame, refused: Mapping[str, list[str]]) -> tuple[pd.DataFrame, int]:
    """Return the pairs with refused queries as contrasts of their clips' captions that have none, and how many are used."""
    open_rows: dict[str, list[int]] = defaultdict(list)
    is_open = pairs["clip_id"].isin(refused.keys()) & (pairs["contrast"] == "") & (pairs["split"] == "train")
    for row in pairs.index[is_open].tolist():
        open_rows[str(pairs.at[row, "clip_id"])].append(row)
    found, num = pairs.copy(), 0
    for clip_id, texts in refused.items():
        for row, text in zip_longest(open_rows[clip_id], texts):
            if row is not None and text is not None:
                found.loc[row, ["contrast", "axis"]] = [text, JUDGED]
                num += 1
    return found, num


def _texts_by_clip(pairs: pd.DataFrame) -> dict[str, set[str]]:
    known: dict[str, set[str]] = defaultdict(set)
    for clip_id, caption in zip(pairs["clip_id"], pairs["caption"], strict=True):
        known[clip_id].add(folded(caption))
    return known
