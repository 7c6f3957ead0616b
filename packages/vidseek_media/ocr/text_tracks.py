"""Joins the lines of text of a video's frames into segments, and drops stray signs.

A track is a place where text stands: boxes of frames after one another that lie on each other, or the same text that has
moved. A run is a part of a track with one text. A logo that stays is a track of one run, and so one segment. A clock is a
track of many runs.

A stray sign (a fence that is taken for letters) has a low score, or few letters, or is gone in the next frame. A clock has
few letters too, and each of its readings is gone in the next frame; but they stand in one place. So it is the track that
must be confirmed, by any two of its readings, and not each of its texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from vidseek_media.ocr.text_lines import TextLine, are_alike, overlap

SAME_PLACE = 0.5
"""Intersection over union of two boxes, from which they are one place."""
SAME_EDGE = 0.6
"""The same of their heights alone: a line that grows or scrolls stays on its row."""
MAX_MOVE = 2.5
"""How far a line may move from one frame to the next, in heights of the line."""
MAX_MISSED = 2
"""Frames in which a line may be missed without an end of its track: something passes before it, or it is misread."""
SURE, SURE_ALONE = 0.9, 0.95
"""Scores of a reading that counts as one of two, and of one that needs no second."""
MIN_LETTERS, MIN_LETTERS_ALONE = 2, 4
"""Letters and digits of such readings."""
MIN_SURE = 2
"""Readings that confirm a track."""
MIN_SCORE = 0.8
"""Of the best reading of a run, in a track that is confirmed."""


@dataclass(frozen=True)
class ScannedFrame:
    """The lines of one frame, which stands for a span of the video."""

    start_ms: int
    end_ms: int
    lines: Sequence[TextLine]


@dataclass
class Run:
    """One text in one place, for a time."""

    start_ms: int
    end_ms: int
    best: TextLine
    """The reading with the highest score; of equal ones the longest."""

    def add(self, line: TextLine, end_ms: int) -> None:
        """Take in a further reading of the same text."""
        self.end_ms = end_ms
        if (line.score, len(line.text)) > (self.best.score, len(self.best.text)):
            self.best = line


@dataclass
class Track:
    """A place where text stands, with its texts in order of time."""

    last: TextLine
    last_frame: int
    """Number of the frame of `last`."""
    runs: list[Run] = field(default_factory=list)
    num_sure: int = 0
    is_sure_alone: bool = False

    def add(self, line: TextLine, frame: ScannedFrame, number: int) -> None:
        """Take in the line that stands here in a frame."""
        num_letters = sum(char.isalnum() for char in line.text)
        self.num_sure += line.score >= SURE and num_letters >= MIN_LETTERS
        self.is_sure_alone |= line.score >= SURE_ALONE and num_letters >= MIN_LETTERS_ALONE
        if self.runs and are_alike(self.runs[-1].best.text, line.text):
            self.runs[-1].add(line, frame.end_ms)
        else:
            self.runs.append(Run(frame.start_ms, frame.end_ms, line))
        self.last, self.last_frame = line, number

    @property
    def is_confirmed(self) -> bool:
        """Whether it is text, and no stray sign."""
        return self.is_sure_alone or self.num_sure >= MIN_SURE


def text_runs(frames: Iterable[ScannedFrame]) -> list[Run]:
    """Return the texts of a video with their spans, in order of time, without stray signs.

    Args:
        frames: In order of time.
    """
    tracks: list[Track] = []
    done: list[Track] = []
    for number, frame in enumerate(frames):
        ended = [track for track in tracks if number - track.last_frame > MAX_MISSED + 1]
        done += ended
        tracks = [track for track in tracks if track not in ended]
        for line, track in _matched(frame.lines, tracks):
            if track is None:
                track = Track(line, number)
                tracks.append(track)
            track.add(line, frame, number)
    runs = [run for track in [*done, *tracks] if track.is_confirmed for run in track.runs if run.best.score >= MIN_SCORE]
    return sorted(runs, key=lambda run: (run.start_ms, run.best.box[1], run.best.box[0], run.end_ms, run.best.text))


def _matched(lines: Sequence[TextLine], tracks: Sequence[Track]) -> list[tuple[TextLine, Track | None]]:
    """Return each line with its track, the likest pairs first; a track takes one line of a frame."""
    pairs = [
        (likeness, i, j) for i, line in enumerate(lines) for j, track in enumerate(tracks)
        if (likeness := _likeness(line, track.last)) > 0
    ]
    track_of: dict[int, int] = {}
    taken: set[int] = set()
    for _, i, j in sorted(pairs, reverse=True):
        if i not in track_of and j not in taken:
            track_of[i] = j
            taken.add(j)
    return [(line, tracks[track_of[i]] if i in track_of else None) for i, line in enumerate(lines)]


def _likeness(line: TextLine, before: TextLine) -> float:
    """Return how much a line is the one of a track, 0 to 2: above 1 with the same text, 0 for another line."""
    place = overlap(line.box, before.box)
    if are_alike(line.text, before.text):
        return 1 + place if place or _is_near(line, before) else 0.0
    return place if place >= SAME_PLACE or _is_on_row(line, before) else 0.0


def _is_on_row(line: TextLine, before: TextLine) -> bool:
    """Whether two boxes share their row and a part of it: a line that scrolls, or grows by a digit."""
    one, other = line.box, before.box
    shared = min(one[3], other[3]) - max(one[1], other[1])
    whole = max(one[3], other[3]) - min(one[1], other[1])
    return shared >= SAME_EDGE * whole and min(one[2], other[2]) - max(one[0], other[0]) > 0


def _is_near(line: TextLine, before: TextLine) -> bool:
    """Whether a line may have moved to where it stands now."""
    height = max(line.height_px, before.height_px)
    if min(line.height_px, before.height_px) < 0.6 * height:
        return False
    return all(abs(a - b) <= MAX_MOVE * height for a, b in zip(_centre(line), _centre(before), strict=True))


def _centre(line: TextLine) -> tuple[float, float]:
    left, top, right, bottom = line.box
    return (left + right) / 2, (top + bottom) / 2
